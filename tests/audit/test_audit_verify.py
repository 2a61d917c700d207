"""Verification of whole logs, what tampering looks like, and the lives of keys."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest._kestcore import (
    LogTree,
    RecordKeys,
    Signer,
    record_check,
    tlog_check,
    tlog_frame,
    tlog_frames,
    tlog_leaf,
    tlog_leaves,
    tlog_records,
)
from kest.audit import AuditLog, AuditReader, Verdict, key_event, thumbprint, verify_log, verify_proof
from kest.audit.facts import FACTS
from kest.audit.note import Checkpoint, checkpoint_text, note_line
from kest.core import LocalEd25519Provider, TrustStore, configure, kest_verified
from kest.core.context import lineage
from kest.errors import AuditCorruptError, AuditError, AuditProofError


@pytest.fixture
def filled(configured: Any, open_log: Callable[..., AuditLog]) -> AuditLog:
    """A closed log of 300 calls."""
    log = open_log()
    configure(audit=log)
    call = kest_verified("p", operation_name="op")(lambda number: number)
    for number in range(300):
        with lineage():
            call(number)
    log.close()
    return log


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def reasons(log: AuditLog, keys: Any) -> str:
    return "; ".join(f"{p.kind}: {p.reason}" for p in verify_log(log.path, log.key, keys).problems)


def test_a_good_log(filled: AuditLog, configured: Any) -> None:
    report = verify_log(filled.path, filled.key.vkey, configured.keys)
    assert report.ok
    assert report.kinds == {"entry": 300, "outcome": 300, "log": 2}
    assert report.verdicts == {Verdict.VALID: 602}
    assert (report.missing_count, report.opened, report.torn, report.journal_bytes) == (0, 1, 0, 0)
    assert verify_log(filled.path, filled.key, TrustStore(configured.keys), threads=1).ok
    unknown = verify_log(filled.path, filled.key)
    assert unknown.verdicts == {Verdict.VALID: 2, Verdict.UNKNOWN_KEY: 600}
    assert not unknown.ok


@pytest.mark.parametrize(
    ("name", "at", "what"),
    [
        ("tile/entries/000", 700, "tree: the records do not hash to the root"),
        ("tile/entries/001", 700, "tile: tile 1 of level 0"),
        ("tile/0/001", 8, "tile: tile 1 of level 0"),
        ("tile/1/000.p/2", 8, "tile: tile 0 of level 1"),
        ("tile/entries/001", 0, "bundle: "),
    ],
)
def test_changed_files(filled: AuditLog, configured: Any, name: str, at: int, what: str) -> None:
    change(filled.path / name, at)
    assert what in reasons(filled, configured.keys)


def test_a_missing_bundle(filled: AuditLog, configured: Any) -> None:
    (filled.path / "tile/entries/001").unlink()
    assert "is missing" in reasons(filled, configured.keys)


def test_a_log_written_anew_has_another_key(filled: AuditLog, configured: Any) -> None:
    """Whoever can write all files, and has no key, can only sign with another."""
    text = checkpoint_text(filled.key.name, 0, LogTree().root())
    thief = Signer(filled.key.name, bytes(32))
    (filled.path / "checkpoint").write_text(text + "\n" + note_line(thief.principal, thief, text))
    with pytest.raises(AuditProofError) as refused:
        verify_log(filled.path, filled.key, configured.keys)
    assert refused.value.reason == "signature"


def test_a_truncated_log_cannot_be_opened(filled: AuditLog, signer: Any) -> None:
    """The last records are cut off, but the checkpoint stays: the tiles are not those that were signed."""
    size = filled.last.size
    for path in (filled.path / "tile").rglob("*"):
        if path.is_file() and path.parent.name.endswith(".p"):
            path.write_bytes(path.read_bytes()[:-32])
    with pytest.raises(AuditCorruptError):
        AuditLog(filled.path, signer)
    assert size == 602


def test_a_journal_that_was_tampered_with(open_log: Callable[..., AuditLog], tmp_path: Path, signer: Any) -> None:
    log = open_log(storage=None)
    for number in range(20):
        log.append(f"a.{number}.c").wait()
    (segment,) = (log.path / "journal").iterdir()
    whole = segment.read_bytes()

    def reopened(data: bytes) -> AuditLog:
        copy = tmp_path / f"copy-{len(os.listdir(tmp_path))}"
        shutil.copytree(log.path, copy)
        (copy / "journal" / segment.name).write_bytes(data)
        return open_log(copy)

    frames = [at for at in range(len(whole)) if whole.startswith(b"KJF1", at)]
    assert len(frames) >= 20
    assert reopened(whole).recovery.size == 21
    torn = reopened(whole[:-3])
    assert torn.recovery.size == 20
    (tail,) = torn.recovery.torn
    assert (tail.offset, tail.reason) == (frames[-1], "cut off")
    torn.close()
    opened = [r.payload for r in AuditReader(torn.path, torn.key).records() if r.kind == "log"][1]
    assert opened["torn"][0]["sha256"] == tail.sha256  # the log says so itself
    assert verify_log(torn.path, torn.key).torn == 1
    for damaged in (
        whole[: frames[5] + 90] + b"!" + whole[frames[5] + 91 :],  # within a record
        whole[: frames[5]] + whole[frames[6] :],  # a frame left out
        whole[: frames[5]] + b"\0" * 10 + whole[frames[5] + 10 :],
        b"XXXX" + whole[4:],
    ):
        with pytest.raises(AuditCorruptError):
            reopened(damaged)


def test_two_outcomes_and_strange_ones(open_log: Callable[..., AuditLog], identity: Any, configured: Any) -> None:
    log = open_log()
    configure(audit=log)
    kest_verified("p")(lambda: 1)()
    log.checkpoint()
    outcome = AuditReader(log.path, log.key).record(2)
    assert outcome.kind == "outcome"
    log.append(outcome.jws)
    entry = AuditReader(log.path, log.key).record(1).jws
    log.append(entry)
    log.append(entry)
    log.append(entry[:-6] + "AAAAAA")
    log.append("not.a.record")
    log.append(json.dumps({"kest": "large", "sha256": "0" * 64, "size": 70_000}, separators=(",", ":")))
    log.append(json.dumps({"kest": "large", "sha256": "../../../../etc/passwd", "size": 70_000}, separators=(",", ":")))
    log.record_event("log", {"event": "opened"}, signer=identity)
    log.checkpoint()
    text = reasons(log, configured.keys)
    assert "an outcome already" in text
    assert "in the log twice" in text
    assert "the signature does not match" in text
    assert "kept beside the log, and missing there" in text
    assert "did not sign" in text
    assert text.count("unreadable") == 2


# --- keys ---


class Keys:
    """A log into which an identity writes verdicts of a gate."""

    def __init__(self, log: AuditLog, principal: str) -> None:
        self.log, self.principal = log, principal

    def say(self, identity: Any, **members: Any) -> int:
        index: int = self.log.record_event("verdict", {"principal": self.principal, **members}, identity).wait()
        return index

    def event(self, event: str, key: Any, signer: Any = None, **members: Any) -> None:
        self.log.record_event("key", key_event(event, self.principal, key, **members), signer).wait()

    def report(self, keys: Any) -> Any:
        self.log.checkpoint()
        return verify_log(self.log.path, self.log.key, keys)

    def verdict(self, index: int, keys: Any) -> Verdict:
        """As a stranger sees it, who has nothing but a proof file."""
        self.log.checkpoint()
        return verify_proof(AuditReader(self.log.path, self.log.key).prove(index), self.log.key, keys).verdict


@pytest.fixture
def keys(open_log: Callable[..., AuditLog]) -> Keys:
    return Keys(open_log(), "spiffe://kest.test/agent")


def provider(keys: Keys) -> LocalEd25519Provider:
    return LocalEd25519Provider(keys.principal)


def test_a_rotated_key(keys: Keys) -> None:
    old, new = provider(keys), provider(keys)
    first = keys.say(old)
    assert keys.verdict(first, {keys.principal: old}) is Verdict.VALID
    keys.event("rotated", new, old, replaces=old)  # the old key introduces the new one
    second = keys.say(new)
    late = keys.say(old)
    under_way = keys.say(old, timestamp_ms=1)
    anchors = {keys.principal: old}
    assert keys.verdict(first, anchors) is Verdict.SINCE_ROTATED
    assert keys.verdict(second, anchors) is Verdict.VALID
    assert keys.verdict(under_way, anchors) is Verdict.SINCE_ROTATED
    report = keys.report(anchors)
    assert report.verdicts[Verdict.SINCE_ROTATED] == 3  # the event itself is one
    assert {life.thumbprint for life in report.keys[1:]} == {thumbprint(old), thumbprint(new)}
    assert keys.verdict(late, anchors) in (Verdict.AFTER_ROTATION, Verdict.SINCE_ROTATED)  # within the same millisecond
    assert keys.verdict(second, {}) is Verdict.UNKNOWN_KEY  # a chain that begins nowhere
    assert keys.verdict(second, {keys.principal: new}) is Verdict.VALID


def test_a_revoked_key(keys: Keys) -> None:
    key = provider(keys)
    before = keys.say(key)
    keys.event("revoked", key, reason="stolen")  # the log's own key says so
    after = keys.say(key, timestamp_ms=1)  # dated back: the order of the log counts
    anchors = {keys.principal: key}
    assert keys.verdict(before, anchors) is Verdict.SINCE_REVOKED
    assert keys.verdict(after, anchors) is Verdict.AFTER_REVOCATION
    report = keys.report(anchors)
    assert not report.ok
    assert report.verdicts[Verdict.AFTER_REVOCATION] == 1
    assert report.verdicts[Verdict.SINCE_REVOKED] == 1
    (problem,) = report.problems
    assert problem.index == after


def test_a_revoked_key_cannot_introduce_another(keys: Keys) -> None:
    stolen, thief = provider(keys), provider(keys)
    keys.say(stolen)
    keys.event("revoked", stolen, stolen)
    keys.event("rotated", thief, stolen, replaces=stolen)
    index = keys.say(thief)
    assert keys.verdict(index, {keys.principal: stolen}) in (Verdict.UNKNOWN_KEY, Verdict.BAD_SIGNATURE)
    assert keys.report({keys.principal: stolen}).keys[-1].thumbprint == thumbprint(stolen)


def test_keys_that_expire(keys: Keys) -> None:
    key, limited = provider(keys), provider(keys)
    keys.event("added", limited, not_after=1000)
    early, late = keys.say(limited, timestamp_ms=999), keys.say(limited, timestamp_ms=1001)
    keys.say(key)
    keys.event("expired", key)
    over = keys.say(key)
    anchors = {keys.principal: key}
    assert keys.verdict(early, anchors) is Verdict.VALID
    assert keys.verdict(late, anchors) is Verdict.AFTER_EXPIRY
    assert keys.verdict(over, anchors) is Verdict.AFTER_EXPIRY
    assert keys.report(anchors).verdicts[Verdict.SINCE_EXPIRED] == 1


def test_who_may_not_speak_for_a_key(keys: Keys) -> None:
    key, other = provider(keys), LocalEd25519Provider("spiffe://kest.test/other")
    keys.say(key)
    keys.event("revoked", key, other)
    keys.event("added", other, other)
    everyone = {keys.principal: key, "spiffe://kest.test/other": other}
    report = keys.report(everyone)
    assert report.verdicts == {Verdict.VALID: 4}
    assert [problem.kind for problem in report.problems] == ["key", "key"]
    keys.log.record_event("key", {"event": "revoked", "principal": keys.principal, "thumbprint": "nobody's"})
    keys.log.record_event("key", {"event": "frozen", "principal": keys.principal, "thumbprint": thumbprint(key)})
    keys.log.record_event("key", {**key_event("added", keys.principal, key), "thumbprint": thumbprint(other)})
    assert len(keys.report(everyone).problems) == 5
    with pytest.raises(AuditError, match="rotation"):
        key_event("rotated", "p", key)
    with pytest.raises(AuditError, match="revoked"):
        key_event("lost", "p", key)


def test_foreign_keys(open_log: Callable[..., AuditLog], configured: Any) -> None:
    """A signer elsewhere, that says JWS of everything it signs."""
    key = LocalEd25519Provider("spiffe://kest.test/foreign")

    class Foreign:
        def get_identity(self) -> str:
            return key.get_identity()

        def sign(self, payload: bytes) -> str:
            return key.sign(payload)

    log = open_log()
    configure(audit=log)
    kest_verified("p", identity=Foreign())(lambda: 1)()
    log.checkpoint()
    report = verify_log(log.path, log.key, {key.get_identity(): key})
    assert report.ok
    assert report.kinds == {"log": 1, "entry": 1, "outcome": 1}


# --- proofs ---


def test_proofs_of_calls(filled: AuditLog, configured: Any) -> None:
    reader = AuditReader(filled.path, filled.key)
    record = reader.record(101)
    for entry in (101, record.jws, record.leaf_hash, record.entry_id):
        proved = verify_proof(reader.prove(entry), filled.key.vkey, configured.keys)
        assert (proved.record.index, proved.verdict) == (101, Verdict.VALID)
    assert reader.find(record.entry_id) == [101, 102]
    proof = reader.prove(101)
    assert verify_proof(proof.encode(), filled.key, record=record.jws).verdict is Verdict.UNKNOWN_KEY
    with pytest.raises(AuditProofError, match="another record"):
        verify_proof(proof, filled.key, record=reader.record(103).jws)
    with pytest.raises(AuditError, match="no such record"):
        reader.prove("a.b.c")
    bare = "\n".join(line for line in proof.split("\n") if not line.startswith("extra "))
    with pytest.raises(AuditProofError, match="record="):
        verify_proof(bare, filled.key)
    assert verify_proof(bare, filled.key, configured.keys, record=record.jws).verdict is Verdict.VALID
    (filled.path / "index").unlink()
    assert reader.find(record.jws) == [101]  # without its index


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damaged_proof_is_believed(shared: Any, data: st.DataObject) -> None:
    proof, key, body = shared
    raw = bytearray(proof.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "swap lines"]))
        at = data.draw(st.integers(0, len(raw) - 1))
        if kind == "change":
            raw[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del raw[at : at + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=10))
        else:
            lines = raw.split(b"\n")
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[0], lines[other] = lines[other], lines[0]
            raw = bytearray(b"\n".join(lines))
        if not raw:
            return
    try:
        proved = verify_proof(bytes(raw), key)
    except AuditProofError:
        return
    assert proved.record.body == body  # the damage was in what nobody relies on


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    signer = Signer("log.kest.test/fuzz", bytes(range(32)))
    with AuditLog(tmp_path_factory.mktemp("fuzz") / "log", signer) as log:
        for number in range(50):
            log.append(f"a.{number}.c")
    reader = AuditReader(log.path, log.key)
    return reader.prove(17), log.key, reader.record(17).body


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_as_a_proof(shared: Any, data: bytes, headed: bool) -> None:
    with pytest.raises(AuditProofError):
        verify_proof((b"c2sp.org/tlog-proof@v1\nindex 0\n" if headed else b"") + data, shared[1])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_as_a_checkpoint(shared: Any, data: bytes) -> None:
    with pytest.raises(AuditProofError):
        Checkpoint.verify(data, shared[1])
    with pytest.raises(AuditProofError):
        Checkpoint.verify(data + "\n\n— a AAAAAAA=\n".encode(), shared[1])


# --- hostile bytes in the C core ---


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(0, 2**40))
def test_frames_hold_what_was_put_into_them(records: list[bytes], first: int) -> None:
    frame, hashes, tags, cuts = tlog_frame(records, first, bytes(32))
    ((start, count, offset, length, before, digest),), end, problem = tlog_frames(frame)
    assert (start, count, before, end, problem) == (first, len(records), bytes(32), len(frame), None)
    assert digest == frame[52:84]
    body = frame[offset : offset + length]
    assert tlog_records(body) == records
    assert hashes == b"".join(tlog_leaf(record) for record in records)
    again, tags_again, cuts_again = tlog_leaves(body, first)
    assert (again, tags_again, [cut + 84 for cut in cuts_again]) == (hashes, tags, cuts)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_as_frames_and_bundles(data: bytes) -> None:
    frames, end, problem = tlog_frames(data)
    assert not frames
    assert (problem is None) == (not data)
    assert end == 0
    keys = RecordKeys([])
    assert len(record_check(data, keys)) == FACTS.size
    for call in (lambda: tlog_records(data), lambda: tlog_leaves(data, 0), lambda: tlog_check([data], keys, 2)):
        with contextlib.suppress(ValueError):
            call()


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_frame_is_no_frame(data: st.DataObject) -> None:
    frame = bytearray(tlog_frame(["a.b.c", "d.e.f"], 7, bytes(32))[0])
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    frames, _, problem = tlog_frames(frame)
    assert not frames
    assert problem


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_record_does_not_verify(data: st.DataObject) -> None:
    signer = Signer("spiffe://kest.test/fuzz", bytes(range(32)))
    from kest._kestcore import PublicKey

    keys = RecordKeys([(signer.principal, PublicKey.from_raw(signer.public_key))])
    jws = bytearray(signer.sign_jws(b'{"record":"verdict","timestamp_ms":1}', "kest-verdict+jws").encode())
    assert FACTS.unpack(record_check(jws, keys))[:3] == (5, 0, 0)
    jws[data.draw(st.integers(0, len(jws) - 1))] ^= data.draw(st.integers(1, 255))
    kind, status, key, *_ = FACTS.unpack(record_check(jws, keys))
    assert status != 0 or kind == 8
    assert key == -1


def test_arguments_of_the_core(identity: Any) -> None:
    with pytest.raises(ValueError, match="65535"):
        tlog_frame(["x" * 65_536], 0, bytes(32))
    with pytest.raises(ValueError, match="65535"):
        tlog_frame([(identity.signer, "t", b"x" * 60_000)], 0, bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        tlog_frame([], 0, b"")
    for wrong in (1, None, (1, 2, 3), (identity.signer, "t"), (identity.signer, 1, b""), (identity.signer, "t", 1)):
        with pytest.raises(TypeError):
            tlog_frame([wrong], 0, bytes(32))  # type: ignore[list-item]
    with pytest.raises(TypeError):
        RecordKeys([("p", 1)])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        tlog_check(["x"], RecordKeys([]))  # type: ignore[list-item]


def test_readers_beside_the_writer(open_log: Callable[..., AuditLog]) -> None:
    """What they see is whole at every moment, whatever is written, replaced and removed meanwhile."""
    log = open_log()
    log.append("a.b.c").wait()
    log.checkpoint()
    ended = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        reader = AuditReader(log.path, log.key)
        try:
            while not ended.is_set():
                size = reader.refresh().size
                assert len(list(reader.records())) == size
                fresh = AuditReader(log.path, log.key)
                verify_proof(fresh.prove(fresh.size - 1), log.key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(25):
        for i in range(20 + number):
            log.append(f"a.{number}.{i}")
        log.checkpoint()
    ended.set()
    for thread in threads:
        thread.join()
    assert not failures


# --- which record it is ---


def problems(log: AuditLog, keys: Any) -> list[tuple[str, int | None]]:
    return [(problem.kind, problem.index) for problem in verify_log(log.path, log.key, keys).problems]


def offsets(bundle: bytes) -> list[int]:
    found, at = [], 0
    while at < len(bundle):
        found.append(at)
        at += 2 + int.from_bytes(bundle[at : at + 2], "big")
    return found


@pytest.mark.parametrize("number", [0, 1, 255, 256, 300, 511])
def test_the_record_that_was_changed_is_named(filled: AuditLog, configured: Any, number: int) -> None:
    path = filled.path / f"tile/entries/{number // 256:03}"
    change(path, offsets(path.read_bytes())[number % 256] + 150)
    found = problems(filled, configured.keys)
    assert ("record", number) in found
    assert ("tile", number) in found
    assert {index for _, index in found} <= {number, None, number + 1, number - 1}  # and its call's other half


@pytest.mark.parametrize("number", [256, 301, 511])
def test_a_record_after_which_nothing_can_be_read_is_named(filled: AuditLog, configured: Any, number: int) -> None:
    path = filled.path / "tile/entries/001"
    data = path.read_bytes()
    at = offsets(data)[number - 256]
    for damaged in (data[: at + 40], data[:at] + b"\xff\xff" + data[at + 2 :], data[:at]):
        path.write_bytes(damaged)
        report = verify_log(filled.path, filled.key, configured.keys)
        assert [(one.kind, one.index) for one in report.problems] == [("bundle", number)]
        assert sum(report.verdicts.values()) == 256  # what stands before it was verified
    path.write_bytes(data + data[:at] if at else data + data)
    assert problems(filled, configured.keys) == [("bundle", 512)]


def test_a_bundle_that_is_gone_is_named_by_its_first_record(filled: AuditLog, configured: Any) -> None:
    (filled.path / "tile/entries/001").unlink()
    report = verify_log(filled.path, filled.key, configured.keys)
    assert [(one.kind, one.index) for one in report.problems] == [("bundle", 256)]
    assert sum(report.kinds.values()) == 256


def test_the_hash_that_was_changed_is_named(filled: AuditLog, configured: Any) -> None:
    change(filled.path / "tile/0/001", 32 * 44 + 7)
    assert ("tile", 300) in problems(filled, configured.keys)
