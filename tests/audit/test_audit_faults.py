"""ATTACKS.md, row E4: a fault at every write, sync, rename and removal, and a power failure after each.

The workload commits groups of records, some across bundles, and publishes checkpoints. Whatever happens, afterwards every
acknowledged record is there in its place, no group is there by halves, and the tree agrees with every checkpoint that was
ever to be seen.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from disk import FAULTS, FaultyDisk, PowerCutError
from reference import tlog as ref

from kest.audit import AuditReader
from kest.audit.journal import recover
from kest.audit.note import Checkpoint
from kest.audit.writer import LogWriter
from kest.errors import AuditCorruptError

STEPS: list[int | str] = [3, "publish", 200, 100, "publish", 1, 5, "publish", "publish", 7]
ORIGIN = "log.kest.test/unit"


class Run:
    """The workload on a disk, with what it was told."""

    def __init__(self, path: Path, disk: FaultyDisk, signer: Any, persist: bool) -> None:
        self.path, self.disk, self.signer, self.persist = path, disk, signer, persist
        self.acknowledged: list[str] = []
        self.tried: list[str] = []
        self.seen: list[tuple[int, bytes]] = []
        self.number = 0

    def _again(self, action: Any) -> Any:
        """A process that meets an error tries once more, as the log does; or gives up there and then."""
        try:
            return action()
        except OSError:
            if not self.persist:
                raise
            return action()

    def go(self) -> None:
        writer = self._again(lambda: LogWriter(self.path, ORIGIN, self.signer, self.disk))
        try:
            for step in STEPS:
                if step == "publish":
                    self._again(writer.publish)
                    self.look()
                    continue
                assert isinstance(step, int)
                batch = [f"ey{self.number + i}.payload.{'x' * ((self.number + i) % 7)}" for i in range(step)]
                self.number += step
                self.tried = [*self.acknowledged, *batch]
                first = self._again(lambda batch=batch: writer.commit(batch))
                assert first == len(self.acknowledged)
                self.acknowledged = self.tried
        finally:
            writer.close()

    def look(self) -> None:
        """What somebody who reads the folder just now can see."""
        path = self.path / "checkpoint"
        if path.exists():
            note = Checkpoint.verify(path.read_bytes(), self.key)
            self.seen.append((note.size, note.root))

    @property
    def key(self) -> Any:
        from kest.audit.note import NoteKey

        return NoteKey(ORIGIN, self.signer.public_key)


def check(run: Run, folder: Path) -> None:
    """Reopen what is left, and hold it against what was promised."""
    writer = LogWriter(folder, ORIGIN, run.signer, FaultyDisk(folder))
    try:
        writer.publish()
        reader = AuditReader(folder, run.key) if writer.size else None
    finally:
        writer.close()
    records = [] if reader is None else [record.leaf.decode() for record in reader.records()]
    assert records in (run.acknowledged, run.tried), (len(records), len(run.acknowledged), len(run.tried))
    hashes = [ref.leaf_hash(record.encode()) for record in records]
    for size, root in run.seen:
        assert size <= len(records)
        assert ref.merkle_tree_hash(hashes[:size]) == root
    if reader is not None:
        assert reader.checkpoint.root == ref.merkle_tree_hash(hashes)
        for (level, index), row in ref.tiles(hashes).items():
            assert reader.tiles.hashes(level, index) == b"".join(row)
        assert reader.find(records[-1]) == [len(records) - 1]


def operations(memory_folder: Path, signer: Any) -> list[str]:
    disk = FaultyDisk(memory_folder / "count" / "log")
    (memory_folder / "count").mkdir()
    Run(memory_folder / "count" / "log", disk, signer, False).go()
    return disk.log


def test_without_a_fault(memory_folder: Path, signer: Any) -> None:
    names = operations(memory_folder, signer)
    assert {name.split()[0] for name in names} == {"create", "open", "write", "sync", "rename", "remove", "folder"}
    assert len(names) > 80


@pytest.mark.parametrize("persist", [False, True], ids=["gives up", "tries again"])
@pytest.mark.parametrize("fault", FAULTS)
def test_e4_a_fault_at_every_operation(memory_folder: Path, signer: Any, fault: str, persist: bool) -> None:
    if fault.startswith("crash") and persist:
        return  # nobody tries again after that
    count = len(operations(memory_folder, signer))
    happened = 0
    for at in range(count):
        home = memory_folder / str(at)
        home.mkdir()
        disk = FaultyDisk(home / "log", at, fault)
        run = Run(home / "log", disk, signer, persist)
        try:
            run.go()
        except (OSError, PowerCutError):
            happened += 1
        run.look()
        for kind in ("kill", "names", "power"):
            check(run, disk.restore(kind, home / kind))
        shutil.rmtree(home)
    assert happened > count // 2 or persist


def test_empty_groups(memory_folder: Path, signer: Any) -> None:
    """What is written to find out whether a disk is there again."""
    writer = LogWriter(memory_folder / "log", ORIGIN, signer)
    for batch in ([], ["a.b.c"], [], ["d.e.f"], []):
        writer.commit(batch)
    writer.close()
    writer = LogWriter(memory_folder / "log", ORIGIN, signer)
    assert writer.recovery.size == 2
    writer.publish()
    writer.close()
    writer = LogWriter(memory_folder / "log", ORIGIN, signer)
    assert writer.recovery.clean
    writer.close()


@pytest.mark.parametrize("acknowledged", [True, False])
def test_an_empty_group_at_the_end_of_a_segment(memory_folder: Path, signer: Any, acknowledged: bool) -> None:
    """The next segment continues it, or what stands before it if its sync failed: both are this log."""
    disk = FaultyDisk(memory_folder / "log")
    writer = LogWriter(memory_folder / "log", ORIGIN, signer, disk)
    writer.commit(["a.b.c"])
    disk.at, disk.fault = disk.count + (3 if acknowledged else 1), "error after"
    if acknowledged:
        writer.commit([])
    with pytest.raises(OSError):
        writer.commit([])
    writer.commit(["d.e.f"])
    writer.commit([])
    left = disk.restore("kill", memory_folder / "left")
    writer.close()
    for count in (2, 3, 4):  # each time as a process finds it that was killed before
        writer = LogWriter(left, ORIGIN, signer)
        assert writer.size == count
        writer.commit([])
        writer.commit(["x.y.z"])
        writer.close()
    assert [frame[0] + frame[1] for frame in recover(writer.layout, 0).frames][-1] == 5


def test_a_segment_that_is_gone_from_the_middle_is_missed(memory_folder: Path, signer: Any) -> None:
    """Also one of empty groups between others: what comes behind it continues it."""
    path = memory_folder / "log"
    for batch in (["a.b.c"], [], ["d.e.f"]):
        writer = LogWriter(path, ORIGIN, signer)
        writer.commit(batch)
        writer.close()
    (writer.layout.journal / "000000000002").unlink()
    with pytest.raises(AuditCorruptError, match="does not continue"):
        LogWriter(path, ORIGIN, signer)
