"""The audit log on a disk that fails and loses power at any operation, beside a list of records.

What was acknowledged is there and verifies, whatever happened; what was not is there as a whole group or not at all; and
every checkpoint that was ever to be seen is one that the log of today extends.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from disk import FAULTS, FaultyDisk, File, PowerCutError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import histories
from reference import tlog as ref

from kest._kestcore import Signer
from kest.audit import AuditReader, Redaction, Verdict, key_event, verify_log, verify_proof
from kest.audit.note import Checkpoint
from kest.audit.proof import verify_consistency
from kest.audit.records import TYPES, event_payload
from kest.audit.writer import LogWriter
from kest.core import KestEntry, LocalEd25519Provider, sign_entry
from kest.errors import AuditError

ORIGIN = "log.kest.test/stateful"
LOG = Signer(ORIGIN, bytes(32))
NAME = "spiffe://kest.test/workload"
KEYS = [LocalEd25519Provider(NAME, seed=bytes([n + 1]) * 32) for n in range(4)]
"""Of one principal: verifiers are given the first, and the log tells of the others."""
STRANGER = LocalEd25519Provider("spiffe://kest.test/stranger", seed=bytes([9]) * 32)
USERS = ("alice", "bob")
START_MS = 1_700_000_000_000
CRASHES = ("kill", "names", "power")


@dataclass
class Item:
    """A record: its text as it stands in the log, and what it is about."""

    leaf: bytes
    key: int | None = None  # whose signature: the number of a key, -1 for the stranger's, None for the log's
    event: tuple[str, int, int] | None = None  # what became of which key, and which one it replaced
    user: str | None = None  # whom an intent is about
    entry: str | None = None  # and what was signed


@dataclass
class Life:
    """One key, by the numbers of records."""

    ended: dict[str, int] = field(default_factory=dict)


def verdicts(items: list[Item]) -> list[Verdict]:
    """What is to be said of each record, given everything that is in the log. All were made after what came before them."""
    lives = {0: Life()}
    found: list[Verdict | int] = []
    for index, item in enumerate(items):
        if item.key is None:
            found.append(Verdict.VALID)
            if item.event is not None:
                event, key, before = item.event
                if event in ("added", "rotated"):
                    lives.setdefault(key, Life())
                    if event == "rotated":
                        lives[before].ended.setdefault("rotated", index)
                else:
                    lives[key].ended.setdefault(event, index)
        elif item.key not in lives:
            found.append(Verdict.UNKNOWN_KEY if item.key < 0 else Verdict.BAD_SIGNATURE)
        else:
            ended = lives[item.key].ended
            for event, verdict in (
                ("revoked", Verdict.AFTER_REVOCATION),
                ("expired", Verdict.AFTER_EXPIRY),
                ("rotated", Verdict.AFTER_ROTATION),
            ):
                if event in ended:
                    found.append(verdict)
                    break
            else:
                found.append(item.key)
    return [since(lives[one].ended) if isinstance(one, int) else one for one in found]


def since(ended: dict[str, int]) -> Verdict:
    if "revoked" in ended:
        return Verdict.SINCE_REVOKED
    if "expired" in ended:
        return Verdict.SINCE_EXPIRED
    return Verdict.SINCE_ROTATED if "rotated" in ended else Verdict.VALID


class FoundDisk(FaultyDisk):
    """A disk that has files already, as a new process finds it after a crash: all that is there is durable."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                self.folders.add(path)
                self.durable_folders.add(path)
            elif path.name != "lock":
                file = self.names[path] = self.durable[path] = File()
                file.content = bytearray(path.read_bytes())
                file.synced = bytes(file.content)


class AuditLogs(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        shared = Path("/dev/shm")
        self.home = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        self.folder = self.home / "0"
        self.generation = 0
        self.clock = START_MS
        self.items: list[Item] = []  # acknowledged
        self.tried: list[Item] = []  # and then perhaps these
        self.seen: list[Checkpoint] = []
        self.erased: set[str] = set()
        self.redaction = Redaction(self.home / "private.db", labels=["kest.identity"])
        self.disk = FaultyDisk(self.folder)
        self.writer = LogWriter(self.folder, ORIGIN, LOG, self.disk)

    # --- writing ---

    def now(self) -> int:
        self.clock += 1
        return self.clock

    def known_keys(self) -> list[int]:
        """Keys that a verifier of this log has heard of."""
        return sorted({0} | {item.event[1] for item in self.items if item.event is not None})

    def entry(self, key: int, user: str | None = None) -> str:
        identity = STRANGER if key < 0 else KEYS[key]
        labels = {} if user is None else {"kest.identity": json.dumps({"agent": None, "task": None, "user": user})}
        return sign_entry(KestEntry("op", labels=labels, timestamp_ms=self.now()), identity)

    def event(self, event: str, key: int, before: int) -> Item:
        replaces = {"replaces": KEYS[before].public_jwk()} if event == "rotated" else {}
        members = {**key_event(event, NAME, KEYS[key].public_jwk(), **replaces), "timestamp_ms": self.now()}
        jws = LOG.sign_jws(event_payload("key", members), TYPES["key"])
        return Item(jws.encode(), event=(event, key, before))

    @rule(which=st.lists(st.integers(0, 11), max_size=4))
    def record(self, which: list[int]) -> None:
        """Entries: of keys that are known, or were until they ended; now and then of one that is not, or of a stranger."""
        known = self.known_keys()
        keys = [(-1, 3)[at - 10] if at >= 10 else known[at % len(known)] for at in which]
        self.commit([Item(self.entry(key).encode(), key) for key in keys])

    @rule(count=st.sampled_from([100, 256, 300]))
    def record_many(self, count: int) -> None:
        """Across bundles and tiles."""
        number = len(self.items)
        records = [
            LOG.sign_jws(
                event_payload("verdict", {"n": number + i, "timestamp_ms": START_MS}), TYPES["verdict"]
            ).encode()
            for i in range(count)
        ]
        self.commit([Item(leaf) for leaf in records])

    @rule(
        event=st.sampled_from(["added", "rotated", "revoked", "expired"]),
        key=st.integers(0, 3),
        other=st.integers(0, 3),
    )
    def key_changes(self, event: str, key: int, other: int) -> None:
        known = self.known_keys()
        if event in ("revoked", "expired"):
            key = known[key % len(known)]
        self.commit([self.event(event, key, known[other % len(known)])])

    @rule(user=st.sampled_from(USERS))
    def record_redacted(self, user: str) -> None:
        jws = self.entry(0, user)
        signer, typ, payload = self.redaction.intent(jws, LOG)
        self.commit([Item(signer.sign_jws(payload, typ).encode(), user=user, entry=jws)])
        self.erased.discard(user)

    def commit(self, items: list[Item]) -> None:
        """As the thread of the log does it; a failure is met by trying again."""

        def write() -> None:
            self.redaction.commit()
            assert self.writer.commit([item.leaf.decode() for item in items]) == len(self.items)
            self.items += items

        self.tried = items
        self.persist(write)
        self.tried = []

    @rule()
    def publish(self) -> None:
        def write() -> None:
            self.writer.publish()
            self.look()

        self.persist(write)

    def persist(self, write: Any) -> None:
        try:
            try:
                write()
            except OSError:
                write()
        except PowerCutError:
            self.crash(CRASHES[self.disk.count % 3])

    def look(self) -> None:
        """What somebody who reads the folder just now can see."""
        path = self.folder / "checkpoint"
        if path.exists():
            note = Checkpoint.verify(path.read_bytes(), self.writer.key)
            if not self.seen or self.seen[-1].size != note.size:
                self.seen.append(note)

    # --- what happens to it ---

    @rule(ahead=st.integers(0, 12), fault=st.sampled_from(FAULTS))
    def fault_ahead(self, ahead: int, fault: str) -> None:
        self.disk.at, self.disk.fault = self.disk.count + ahead, fault

    @rule(kind=st.sampled_from(CRASHES))
    def crash(self, kind: str) -> None:
        self.look()
        self.writer.close()
        self.generation += 1
        self.folder = self.disk.restore(kind, self.home / str(self.generation))
        self.disk = FoundDisk(self.folder)
        self.open()

    @rule()
    def reopen(self) -> None:
        self.writer.close()
        self.disk.at = None
        self.open()
        assert self.writer.size == len(self.items)

    def open(self) -> None:
        del self.writer  # if it cannot be opened, that is the finding
        self.writer = LogWriter(self.folder, ORIGIN, LOG, self.disk)
        found = self.writer.size - len(self.items)
        assert found in (0, len(self.tried)), "a group is there as a whole, or not at all"
        if found:
            self.items += self.tried
        self.tried = []

    # --- reading ---

    def reader(self) -> AuditReader | None:
        """Of what a checkpoint covers."""
        self.look()
        return AuditReader(self.folder, self.writer.key) if self.seen else None

    @rule()
    def verify(self) -> None:
        reader = self.reader()
        if reader is None:
            return
        items = self.items[: reader.size]
        assert [record.leaf for record in reader.records()] == [item.leaf for item in items]
        assert reader.checkpoint.root == ref.merkle_tree_hash([ref.leaf_hash(item.leaf) for item in items])
        report = verify_log(self.folder, reader.key, {NAME: KEYS[0]}, threads=1)
        counts: dict[Verdict, int] = {}
        for verdict in verdicts(items):
            counts[verdict] = counts.get(verdict, 0) + 1
        assert report.verdicts == counts
        assert report.ok == all(verdict.good for verdict in counts)
        assert report.problem_count == sum(n for verdict, n in counts.items() if not verdict.good)

    @precondition(lambda self: self.items)
    @rule(at=st.integers(0, 10_000), late=st.booleans())
    def prove(self, at: int, late: bool) -> None:
        """Also to somebody who knows the record, and takes no other for it."""
        reader = self.reader()
        if reader is None:
            return
        at = len(self.items) - 1 - at % 8 if late else at % len(self.items)
        at = max(0, at)
        item = self.items[at]
        if at >= reader.size:
            with pytest.raises(AuditError):
                reader.prove(item.leaf)
            return
        assert at in reader.find(item.leaf)
        proof = reader.prove(at)
        proved = verify_proof(proof, reader.key, {NAME: KEYS[0]}, record=item.leaf)
        assert (proved.record.index, proved.record.leaf) == (at, item.leaf)
        assert proved.verdict is verdicts(self.items[: reader.size])[at]
        other = self.items[at - 1].leaf
        if other != item.leaf:
            with pytest.raises(AuditError):
                verify_proof(proof, reader.key, record=other)

    @precondition(lambda self: len(self.seen) > 1)
    @rule(old=st.integers(0, 99), new=st.integers(0, 99))
    def extends(self, old: int, new: int) -> None:
        reader = self.reader()
        assert reader is not None
        first, second = sorted((self.seen[old % len(self.seen)], self.seen[new % len(self.seen)]), key=lambda c: c.size)
        verify_consistency(first, second, reader.consistency(first.size, second.size))

    @rule(user=st.sampled_from(USERS))
    def erase(self, user: str) -> None:
        self.redaction.erase(user)
        self.erased.add(user)
        self.gone = {index for index, item in enumerate(self.items) if item.user == user} | getattr(self, "gone", set())

    @rule()
    def reveal(self) -> None:
        reader = self.reader()
        gone: set[int] = getattr(self, "gone", set())
        for index, item in enumerate(self.items[: reader.size] if reader else []):
            if item.user is None:
                continue
            assert reader is not None
            assert item.user.encode() not in item.leaf
            known = self.redaction.reveal(reader.record(index))
            if index in gone:
                assert (known.entry, known.erased) == (None, 2)
            else:
                assert (known.entry, known.erased) == (item.entry, 0)
                assert json.loads(known.payload["labels"]["kest.identity"])["user"] == item.user

    @precondition(lambda self: self.seen)
    @rule(at=st.integers(0, 10_000), where=st.integers(0, 10_000), bit=st.integers(0, 7))
    def tamper(self, at: int, where: int, bit: int) -> None:
        """One bit of a file that counts: it is reported, or whoever opens the log is told; never is it overlooked."""
        reader = self.reader()
        assert reader is not None
        copy = self.home / "copy"
        shutil.copytree(self.folder, copy)
        try:
            self.change(copy, reader, at, where, bit)
        finally:
            shutil.rmtree(copy)

    def change(self, copy: Path, reader: AuditReader, at: int, where: int, bit: int) -> None:
        width = 256
        files = [copy / "checkpoint"]
        for number in range(-(-reader.size // width)):
            count = min(width, reader.size - number * width)
            for level in (0, "entries"):
                files.append(reader.layout.tile(level, number, count if count < width else width))
        path = files[at % len(files)]
        path = copy / path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        if not path.exists():
            return  # what was part of a tile is there as the whole one
        data = bytearray(path.read_bytes())
        where %= len(data)
        if path.name == "checkpoint":
            where %= len(b"\n".join(bytes(data).split(b"\n")[:3]))  # the text that is signed, not the note's key hint
        data[where] ^= 1 << bit
        path.write_bytes(data)
        try:
            report = verify_log(copy, reader.key, {NAME: KEYS[0]}, threads=1)
        except AuditError:
            return
        kinds = {problem.kind for problem in report.problems}
        assert kinds & {"tree", "tile", "bundle"}, (path.relative_to(copy), where, report.problems)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if hasattr(self, "writer"):
            assert self.writer.size == len(self.items)
            assert all(note.size <= len(self.items) for note in self.seen)

    def teardown(self) -> None:
        if not hasattr(self, "writer"):
            if hasattr(self, "home"):
                shutil.rmtree(self.home, ignore_errors=True)
            return
        self.disk.at = None
        try:
            self.writer.publish()
            self.look()
            self.verify()
            self.reveal()
        finally:
            self.writer.close()
            self.redaction.close()
            shutil.rmtree(self.home)


AuditLogs.TestCase.settings = histories(60, 30)
TestAuditLogs = AuditLogs.TestCase
