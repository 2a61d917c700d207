"""Every file of a log changed in every way: none of it is ever called valid, and nothing but a report or KestError comes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kest import LocalEd25519Provider
from kest._kestcore import Signer
from kest.audit import AuditLog, AuditReader, NoteKey, verify_log, verify_proof
from kest.audit.note import COSIGNATURE, Checkpoint, note_line
from kest.errors import AuditProofError, KestError

SIGNER = Signer("log.kest.test/hostile", bytes(range(32)))
AGENT = LocalEd25519Provider("spiffe://kest.test/agent", seed=bytes(range(32)))
KEYS = {AGENT.get_identity(): AGENT}
WITNESS = Signer("witness.kest.test", bytes(range(1, 33)))
WITNESS_KEY = NoteKey(WITNESS.principal, WITNESS.public_key, COSIGNATURE)
HELPS = ("index", "lock")
"""Files that nobody relies on: they help in finding, or keep a second writer away."""


@pytest.fixture(autouse=True)
def _never_hangs(within_minutes: Any) -> Iterator[None]:
    with within_minutes(4):
        yield


def make(path: Path, count: int, what: str = "") -> SimpleNamespace:
    with AuditLog(path, SIGNER, checkpoint_interval=3600.0) as log:
        for number in range(count):
            log.record_event("verdict", {"said": f"{what}{number}", "principal": AGENT.get_identity()}, AGENT)
        log.record_event("verdict", {"said": what + "x" * 70_000, "principal": AGENT.get_identity()}, AGENT).wait(30)
    note = (path / "checkpoint").read_text()
    text = note.partition("\n\n")[0] + "\n"
    (path / "checkpoint").write_text(note + note_line(WITNESS.principal, WITNESS, text, time=1))
    files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    return SimpleNamespace(path=path, key=log.key, files=files, size=log.last.size)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Six records, one of them kept beside the log."""
    return make(tmp_path_factory.mktemp("small") / "log", 3)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two bundles, tiles on two levels; and another log of the same key and size."""
    folder = tmp_path_factory.mktemp("larger")
    log = make(folder / "log", 300)
    log.other = make(folder / "other", 300, "other ")
    return log


@pytest.fixture
def copy(memory_folder: Path) -> Callable[[SimpleNamespace], Path]:
    def copied(log: SimpleNamespace) -> Path:
        target = memory_folder / "copy"
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(log.path, target))

    return copied


def valid(log: SimpleNamespace, path: Path) -> bool:
    """What a verifier says who asks for the witness, too. Whatever else is done with it raises a KestError, or nothing."""
    try:
        report = verify_log(path, log.key, KEYS, witnesses=[WITNESS_KEY], quorum=1, threads=1)
    except KestError:
        return False
    assert report.ok == (not report.problems)
    return report.ok and report.checkpoint.size == log.size


def use(log: SimpleNamespace, path: Path) -> None:
    """Read, find and prove; what is proved is in the log."""
    with contextlib.suppress(KestError):
        reader = AuditReader(path, log.key)
        for record in (reader.record(0), reader.record(reader.size - 1)):
            with contextlib.suppress(KestError):
                reader.find(record.jws if record.body.isascii() else record.leaf_hash)
            with contextlib.suppress(AuditProofError):
                assert verify_proof(reader.prove(record.index), log.key).record.leaf == record.leaf
        reader.key_events(AGENT.get_identity())
        for record in reader.records():
            assert record.kind
            repr((record.signer, record.timestamp_ms, record.entry_hash))
        reader.journal_bytes()


def check(log: SimpleNamespace, path: Path, name: Path) -> None:
    assert valid(log, path) == (name.name in HELPS), name
    use(log, path)


def test_as_it_is_it_is_valid(small: SimpleNamespace, larger: SimpleNamespace) -> None:
    for log in (small, larger, larger.other):
        assert valid(log, log.path)
        use(log, log.path)
    assert {str(name).split("/")[0] for name in larger.files} == {"checkpoint", "tile", "index", "large", "lock"}


def test_every_byte(small: SimpleNamespace, copy: Any) -> None:
    path = copy(small)
    every = 11 if "KEST_SANITIZED" in os.environ else 1  # minutes of Python there
    for name in small.files:
        whole = (path / name).read_bytes()
        step = every if len(whole) < 20_000 else 997  # all but one are of no structure in the large one
        for at in range(0, len(whole), step):
            for mask in (0x01, 0x80):
                changed = bytearray(whole)
                changed[at] ^= mask
                (path / name).write_bytes(changed)
                assert valid(small, path) == (name.name in HELPS), (name, at, mask)
        (path / name).write_bytes(whole)
    assert valid(small, path)


@given(data=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change(larger: SimpleNamespace, copy: Any, data: st.DataObject) -> None:
    path = copy(larger)
    name = data.draw(st.sampled_from(larger.files))
    whole = (path / name).read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    how = data.draw(st.sampled_from(["cut", "extend", "insert", "leave out", "overwrite", "move"]))
    some = data.draw(st.binary(min_size=1, max_size=40))
    changed = {
        "cut": whole[:at],
        "extend": whole + some,
        "insert": whole[:at] + some + whole[at:],
        "leave out": whole[:at] + whole[at + len(some) :],
        "overwrite": whole[:at] + some + whole[at + len(some) :],
        "move": whole[at:] + whole[:at],
    }[how]
    (path / name).write_bytes(changed)
    if changed == whole:
        return
    if how == "extend" and name.suffix != ".p" and "tile" in name.parts and name.parent.name.endswith(".p"):
        # A partial tile may be a fuller one by now; what is behind it is not looked at.
        valid(larger, path)
        use(larger, path)
        return
    if name.name in HELPS:
        use(larger, path)
        return
    assert not valid(larger, path)
    use(larger, path)


def test_files_in_each_others_place(larger: SimpleNamespace, copy: Any) -> None:
    path = copy(larger)
    names = [name for name in larger.files if name.name not in HELPS]
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            if (path / one).read_bytes() == (path / other).read_bytes():
                continue
            for here, there in ((one, other), (other, one)):
                shutil.copyfile(larger.path / there, path / here)
            assert not valid(larger, path), (one, other)
            use(larger, path)
            for name in (one, other):
                shutil.copyfile(larger.path / name, path / name)


def test_files_of_another_log(larger: SimpleNamespace, copy: Any) -> None:
    """Of the same key, name and size: whoever runs two logs with one key cannot mix them."""
    path = copy(larger)
    for name in larger.files:
        source = larger.other.path / name
        if not source.exists() or source.read_bytes() == (larger.path / name).read_bytes():
            continue
        shutil.copyfile(source, path / name)
        check(larger, path, name)
        shutil.copyfile(larger.path / name, path / name)


def _gone(path: Path, log: Path) -> None:
    path.unlink()


def _empty(path: Path, log: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path, log: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, log: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path, log: Path) -> None:
    path.unlink()
    before = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


def _link_to(target: str) -> Callable[[Path, Path], None]:
    def link(path: Path, log: Path) -> None:
        path.unlink()
        path.symlink_to(log / target if not target.startswith(("/", ".")) else target)

    link.__name__ = f"link to {target}"
    return link


def _loop(path: Path, log: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _sparse(path: Path, log: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 1 << 36)


def _long(path: Path, log: Path) -> None:
    os.truncate(path, 1 << 36)


@pytest.mark.parametrize(
    "replace",
    [_gone, _empty, _folder, _pipe, _socket, _loop, _sparse, _link_to("/dev/zero"), _link_to("/dev/null"),
     _link_to("/nowhere"), _link_to("lock")],
)  # fmt: skip
def test_something_else_in_place_of_a_file(larger: SimpleNamespace, copy: Any, replace: Any) -> None:
    for name in larger.files:
        path = copy(larger)
        replace(path / name, larger.path)
        check(larger, path, name)


def test_holes_behind_a_file(larger: SimpleNamespace, copy: Any) -> None:
    for name in larger.files:
        path = copy(larger)
        _long(path / name, path)
        check(larger, path, name)


def test_links_to_what_should_be_there(larger: SimpleNamespace, copy: Any) -> None:
    """Whoever keeps tiles elsewhere may link to them: what is in them counts."""
    path = copy(larger)
    for name in larger.files:
        (path / name).unlink()
        (path / name).symlink_to(larger.path / name)
    assert valid(larger, path)


@pytest.mark.parametrize("name", ["\u00b2", "\u0663", "0", "-1", "9" * 200, "x"])
def test_names_in_the_journal(small: SimpleNamespace, copy: Any, name: str) -> None:
    path = copy(small)
    for make_one in (
        lambda place: place.write_bytes(b"KJF1" * 100),
        lambda place: place.symlink_to("/nowhere"),
        os.mkdir,
        os.mkfifo,
    ):
        shutil.rmtree(path / "journal")
        (path / "journal").mkdir()
        make_one(path / "journal" / name)
        assert valid(small, path)  # the journal is beside what the checkpoint signs
        use(small, path)
    shutil.rmtree(path / "journal")
    (path / "journal").write_bytes(b"")
    assert valid(small, path)


# --- proofs and cosigned checkpoints ---


def test_every_byte_of_a_proof(larger: SimpleNamespace) -> None:
    reader = AuditReader(larger.path, larger.key)
    proof = reader.prove(150).encode()
    expected = reader.record(150).leaf
    refused = 0
    for at in range(len(proof)):
        for mask in (0x01, 0x20, 0x80):
            changed = bytearray(proof)
            changed[at] ^= mask
            try:
                proved = verify_proof(bytes(changed), larger.key, KEYS, witnesses=[WITNESS_KEY], quorum=1)
            except AuditProofError:
                refused += 1
                continue
            assert proved.record.leaf == expected
            assert proved.record.index == 150
    assert refused == 3 * len(proof)  # there is nothing in it that nobody relies on
    for at in range(len(proof)):
        with pytest.raises(AuditProofError):
            verify_proof(proof[:at], larger.key, KEYS, witnesses=[WITNESS_KEY], quorum=1)


def test_every_byte_of_a_cosigned_checkpoint(small: SimpleNamespace) -> None:
    note = (small.path / "checkpoint").read_bytes()
    whole = Checkpoint.verify(note, small.key, [WITNESS_KEY], 1)
    assert [name for name, _ in whole.witnesses] == [WITNESS.principal]
    for at in range(len(note)):
        for mask in (0x01, 0x02, 0x20, 0x80):
            changed = bytearray(note)
            changed[at] ^= mask
            with pytest.raises(AuditProofError):
                Checkpoint.verify(bytes(changed), small.key, [WITNESS_KEY], 1)
        if at < len(note):
            with pytest.raises(AuditProofError):
                Checkpoint.verify(note[:at], small.key, [WITNESS_KEY], 1)


def test_proofs_of_other_records_and_logs(larger: SimpleNamespace) -> None:
    ours, theirs = AuditReader(larger.path, larger.key), AuditReader(larger.other.path, larger.key)
    proofs = [reader.prove(index) for reader in (ours, theirs) for index in (0, 255, 256, 301)]
    for one in proofs:
        for other in proofs:
            if one == other:
                continue
            head, _, _ = one.partition("index ")
            mixed = head + "index " + other.partition("index ")[2]
            with pytest.raises(AuditProofError):
                verify_proof(mixed, larger.key)
