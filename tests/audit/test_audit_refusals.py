"""What logs, keys, notes and proofs refuse, and the ends that only come after other things went wrong."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import logging
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kest._kestcore import Signer, sha256
from kest.audit import AuditLog, AuditReader, Checkpoint, NoteKey, key_event, verify_log, verify_proof
from kest.audit.chains import Chains
from kest.audit.cosigning import Cosigner, WitnessClient
from kest.audit.facts import judge
from kest.audit.journal import recover
from kest.audit.keys import KeyBook, Verdict, thumbprint
from kest.audit.layout import Layout, tile_name
from kest.audit.log import _close_all
from kest.audit.note import COSIGNATURE, SignedNote, encode_base64
from kest.audit.pending import Pending
from kest.audit.proof import HEADER, Proof, verify_consistency
from kest.audit.queue import Queue
from kest.audit.reader import UnverifiedReader, log_key
from kest.audit.records import Record, large_pointer
from kest.audit.redaction import Redaction
from kest.audit.storage import Storage
from kest.audit.tiles import TileReader, first_records
from kest.audit.witness import Witness, WitnessServer
from kest.audit.writer import LogWriter
from kest.errors import (
    AuditCorruptError,
    AuditError,
    AuditProofError,
    AuditUnavailableError,
    KeyFormatError,
)

JWS = "eyJ.e30.AA"
NAME = "witness.kest.test/w1"


# --- proofs ---


@pytest.fixture
def proved(open_log: Callable[..., AuditLog], identity: Any) -> SimpleNamespace:
    """A proof of a record, whose signer's key was added by the log."""
    log = open_log()
    log.record_event("key", key_event("added", identity.get_identity(), identity))
    log.record_event("verdict", {"principal": identity.get_identity()}, signer=identity)
    checkpoint = log.checkpoint()
    reader = AuditReader(log.path, log.key)
    return SimpleNamespace(proof=Proof.parse(reader.prove(2)), key=log.key, size=checkpoint.size, log=log)


def with_extra(proof: Proof, extra: Any) -> str:
    data = extra if isinstance(extra, bytes) else json.dumps(extra, separators=(",", ":")).encode()
    return str(Proof(proof.index, proof.hashes, proof.checkpoint, data))


def test_a_proof_brings_its_key(proved: SimpleNamespace) -> None:
    found = verify_proof(str(proved.proof), proved.key)
    assert found.verdict.good
    assert found.record.index == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "a proof file is UTF-8"),
        (HEADER, "its first line is not"),
        ("other\nindex 0\n\nnote", "its first line is not"),
        (f"{HEADER}\n\nnote", "there is no index"),
        (f"{HEADER}\nextra AA==\n\nnote", "there is no index"),
        (f"{HEADER}\nindex 00\n\nnote", "not a plain decimal number"),
        (f"{HEADER}\nindex 0\nAA==\n\nnote", "a hash of 1 bytes where 32 are expected"),
        (f"{HEADER}\nindex 0\n" + "A\n" * 65 + "\nnote", "more hashes than any tree is deep"),
    ],
)
def test_what_is_no_proof_file(text: str | bytes, why: str) -> None:
    with pytest.raises(AuditProofError, match=why) as caught:
        Proof.parse(text)
    assert caught.value.reason == "malformed"


def test_a_proof_file_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kest.audit.proof.MAX_PROOF", 10)
    with pytest.raises(AuditProofError, match="more than 128 MiB"):
        Proof.parse("x" * 11)


def test_extra_data_that_is_not_ours(proved: SimpleNamespace) -> None:
    extra = json.loads(proved.proof.extra)

    def refused(changed: Any, why: str, **options: Any) -> None:
        with pytest.raises(AuditProofError, match=why):
            verify_proof(with_extra(proved.proof, changed), proved.key, **options)

    for other in (b"{", [], {**extra, "record": 7}, {**extra, "events": {}}, {**extra, "events": [0] * 1001}):
        refused(other, "the extra data of the proof is not Kest's")
    (event,) = extra["events"]
    for broken in (
        7, {}, {**event, "index": "1"}, {**event, "index": True}, {**event, "index": -1},
        {**event, "index": proved.size}, {**event, "proof": None}, {**event, "record": 7},
    ):  # fmt: skip
        refused({**extra, "events": [broken]}, "a key event of the proof is malformed")
    refused({**extra, "events": [event, event]}, "not in order")
    refused({**extra, "events": [{**event, "index": 0}]}, "the key event 0 of the proof is not in the log")
    refused({**extra, "large": encode_base64(b"other")}, "not the one that the log names by its hash")
    refused({**extra, "record": encode_base64(b"not json"), "large": "AA=="}, "not the one that the log names")
    refused({}, "comes without its record")
    refused(extra, "the proof is of another record", record=JWS)


def test_a_proof_without_extra_data(proved: SimpleNamespace) -> None:
    bare = Proof(proved.proof.index, proved.proof.hashes, proved.proof.checkpoint)
    assert Proof.parse(str(bare)) == bare
    reader = AuditReader(proved.log.path, proved.key)
    record = reader.record(2).jws
    found = verify_proof(str(bare), proved.key, record=record)
    assert (found.record.jws, found.verdict) == (record, Verdict.UNKNOWN_KEY)


def test_consistency_is_within_one_log(proved: SimpleNamespace) -> None:
    reader = AuditReader(proved.log.path, proved.key)
    now = reader.checkpoint
    with pytest.raises(AuditProofError, match="of two logs"):
        verify_consistency(Checkpoint("other", now.size, now.root, ""), now, [])
    with pytest.raises(AuditProofError, match="does not extend"):
        verify_consistency(Checkpoint(now.origin, 1, now.root, ""), now, [])
    for old, new in ((2, 1), (1, 99), (-1, 2)):
        with pytest.raises(AuditError, match=f"no proof from {old} to {new} records"):
            reader.consistency(old, new)


# --- notes and keys ---


def test_notes_that_are_none(signer: Any) -> None:
    line = f"— name {encode_base64(bytes(68))}\n"
    assert len(SignedNote.parse(f"text\n\n{line}").signatures) == 1
    for note, why in (
        ("x" * (256 * 1024 + 1), "more than 262144 bytes"),
        (f"text\n\n{line * 65}", "more than 64 signatures"),
        (f"text\n\n— name {encode_base64(bytes(4))}\n", "shorter than its key's id"),
        ("text\n\n— na+me AAAA\n", "not a signature line"),
    ):
        with pytest.raises(AuditProofError, match=why):
            SignedNote.parse(note)


def test_keys_that_are_none(signer: Any) -> None:
    key = NoteKey("log", signer.public_key)
    assert NoteKey.parse(key.vkey) == key
    name, number, data = key.vkey.split("+", 2)
    other = NoteKey("log", signer.public_key, 2)  # of no kind that is used here
    for vkey in (f"{name}+00000000+{data}", f"{name}+{number}", other.vkey, f"{name}+{number}+", "+" + key.vkey):
        with pytest.raises(KeyFormatError, match="is not a verifier key"):
            NoteKey.parse(vkey)


def test_a_cosignature_of_another_length(signer: Any) -> None:
    key = NoteKey("w", signer.public_key, COSIGNATURE)
    assert not key.verify("text\n", bytes(71))
    assert not key.verify("text\n", b"\xff" * 72)  # a time that no signed number holds
    assert not key.verify("text\n", bytes(72))


def test_a_log_is_signed_with_ed25519() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(AuditError, match="a log is signed with an Ed25519 key"):
        log_key(pem, "log")
    with pytest.raises(AuditError, match="together with origin="):
        log_key(pem)


@pytest.mark.parametrize(
    "jwk", [{}, {"kty": "oct", "k": "AA"}, {"kty": "OKP", "crv": "Ed25519"}, {"kty": "EC", "x": 1}]
)
def test_keys_are_public_ones(jwk: dict[str, Any]) -> None:
    with pytest.raises(
        KeyFormatError, match=r"not a public key to verify with: Ed25519, P-256 or RSA|JWK member 'x' is missing"
    ):
        thumbprint(jwk)


def test_key_events_that_say_too_little(identity: Any) -> None:
    with pytest.raises(AuditError, match="not 'lost'"):
        key_event("lost", "p", identity)
    with pytest.raises(AuditError, match="says which key it replaces"):
        key_event("rotated", "p", identity)


def test_events_that_introduce_no_key(open_log: Callable[..., AuditLog], identity: Any) -> None:
    log, principal = open_log(), identity.get_identity()
    good = key_event("added", principal, identity)
    log.record_event("key", {**good, "key": {"kty": "oct"}})
    log.record_event("key", {**good, "event": "rotated", "replaces": "nobody's"})
    log.checkpoint()
    said = " ".join(problem.reason for problem in verify_log(log.path, log.key).problems)
    assert "no key: not a public key to verify with" in said
    assert f"{principal} has no key nobody's that could be replaced" in said


# --- tiles and journal ---


def test_names_of_tiles() -> None:
    assert tile_name(0, 5) == "tile/0/005"
    assert tile_name("entries", 1_234_067, 7) == "tile/entries/x001/x234/067.p/7"


def test_tiles_that_no_tree_has(tmp_path: Path) -> None:
    reader = TileReader(Layout(tmp_path), 3)
    with pytest.raises(AuditCorruptError, match="a tree of 3 records has no tile 1 at level 0"):
        reader.hashes(0, 1)
    with pytest.raises(AuditCorruptError, match="is missing"):
        reader.hashes(0, 0)


def test_tiles_are_kept_but_not_all(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for index in range(65):
        path = layout.tile(0, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([index]) * (256 * 32))
    reader = TileReader(layout, 65 * 256)
    read = [reader.hashes(0, index)[0] for index in range(65)]
    assert read == list(range(65))
    shutil.rmtree(tmp_path / "tile")
    assert reader.hashes(0, 64)[0] == 64
    with pytest.raises(AuditCorruptError, match="is missing"):
        reader.hashes(0, 0)


def test_bundles_that_are_too_short() -> None:
    assert first_records(b"\0\1a\0\1b", 1) == b"\0\1a"
    with pytest.raises(AuditCorruptError, match="fewer records than its tile"):
        first_records(b"\0\1a", 2)
    with pytest.raises(AuditCorruptError, match="cut off within a record"):
        first_records(b"\0\2a", 1)


def test_a_journal_that_goes_on_too_late(tmp_path: Path, signer: Any) -> None:
    path = tmp_path / "log"
    writer = LogWriter(path, "log", signer)
    writer.commit([JWS, JWS])
    writer.close()
    assert recover(Layout(path), 0).next == 2
    (segment,) = (path / "journal").iterdir()
    with pytest.raises(AuditCorruptError, match="the checkpoint of 1 records ends within a frame"):
        recover(Layout(path), 1)
    data = bytearray(segment.read_bytes())
    head = data[:4] + struct.pack(">Q", 5) + data[12:44]
    segment.write_bytes(head + sha256(bytes(head)) + data[76:])
    with pytest.raises(AuditCorruptError, match="records 0 to 4 are neither in tiles nor in the journal"):
        recover(Layout(path), 0)


def test_half_written_files_of_a_crash_are_removed(tmp_path: Path, signer: Any) -> None:
    path = tmp_path / "log"
    path.mkdir()
    (path / ".checkpoint.tmp").write_bytes(b"half")
    (path / ".profile").write_bytes(b"not ours")
    with LogWriterClosing(path, signer):
        assert sorted(one.name for one in path.iterdir() if one.name.startswith(".")) == [".profile"]


class LogWriterClosing:
    def __init__(self, path: Path, signer: Any) -> None:
        self.writer = LogWriter(path, "log", signer)

    def __enter__(self) -> LogWriter:
        return self.writer

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        self.writer.close()


def test_nothing_is_published_twice(tmp_path: Path, signer: Any) -> None:
    with LogWriterClosing(tmp_path / "log", signer) as writer:
        writer.commit([JWS])
        first = writer.publish()
        assert writer.publish() is first
        assert writer.add_cosignatures(first, "")
        assert not writer.add_cosignatures(Checkpoint("log", 9, bytes(32), "other"), "")
        assert writer.unpublished == 0


def test_files_that_cannot_be_cut_or_locked_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl
    import os

    closed: list[int] = []
    close = os.close

    def closing(fd: int) -> None:
        closed.append(fd)
        close(fd)

    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "close", closing)
    monkeypatch.setattr(os, "ftruncate", fails)
    with pytest.raises(OSError, match="input/output error"):
        Storage().open_at(tmp_path / "index", 0)
    assert len(closed) == 1
    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match="input/output error"):
        Storage().lock(tmp_path / "lock")
    assert len(closed) == 2


# --- the queue, and those who wait ---


def test_a_sealed_queue_takes_nothing() -> None:
    queue = Queue(10, 1000)
    assert queue.add(JWS)
    assert (len(queue), queue.bytes) == (1, len(JWS))
    assert not queue.seal()
    assert queue.take() == [JWS]
    assert queue.bytes == 0
    assert queue.seal()
    assert not queue.add(JWS)
    queue.hurry()
    queue.wait_for_any(None)
    assert queue.seal([JWS])
    queue.wait_for_any(None)  # something is there: nobody has to wake us
    assert queue.drop(lambda item: item is JWS) == [JWS]


def test_waiting_for_a_record() -> None:
    waiting = Pending("record", JWS)
    with pytest.raises(TimeoutError, match="not on the disk yet; it stays in the queue"):
        waiting.wait(0)
    waiting.settle(7)
    assert waiting.wait() == 7

    async def wait() -> Any:
        return await waiting

    assert asyncio.run(wait()) == 7


def test_a_record_that_was_taken_back() -> None:
    gone = Pending("record", JWS)
    assert gone.withdraw()
    assert gone.done
    assert not gone.begin()
    with pytest.raises(AuditUnavailableError, match="taken back before it was written"):
        gone.wait()

    async def wait() -> Any:
        return await gone

    with pytest.raises(AuditUnavailableError, match="taken back before it was written"):
        asyncio.run(wait())


def test_who_waits_and_is_cancelled_has_not_taken_it_back() -> None:
    waiting = Pending("record", JWS)

    async def wait() -> None:
        task = asyncio.create_task(waiting.wait_async())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(wait())
    assert waiting.begin()  # it is written all the same


# --- the log ---


def test_after_its_end_a_log_does_nothing(open_log: Callable[..., AuditLog]) -> None:
    log = open_log()
    assert repr(log) == f"<AuditLog {log.key.name} in {log.path}, open>"
    assert log.pending >= 0
    log.close()
    assert repr(log).endswith("closed>")
    for action in (log.flush, log.checkpoint, lambda: log.record_event("log", {}), lambda: log.record("outcome", JWS)):
        with pytest.raises(AuditUnavailableError, match="is closed"):
            action()


def test_a_checkpoint_that_takes_too_long(open_log: Callable[..., AuditLog]) -> None:
    log, go_on = open_log(), threading.Event()
    busy = threading.Thread(target=log.call, args=(lambda writer: go_on.wait(30),), daemon=True)
    busy.start()
    try:
        with pytest.raises(TimeoutError, match="not on the disk yet"):
            log.checkpoint(timeout=0)
    finally:
        go_on.set()
        busy.join(30)
    assert log.checkpoint().size == 1


def test_what_a_log_does_not_know(open_log: Callable[..., AuditLog]) -> None:
    log = open_log()
    with pytest.raises(AuditError, match="there is no kind of record 'rumour'"):
        log.record_event("rumour", {})
    with pytest.raises(AuditError, match="opened without redaction="):
        log.erase("alice")


def test_a_watcher_that_fails_harms_nobody(open_log: Callable[..., AuditLog], caplog: Any) -> None:
    log = open_log()
    seen: list[int] = []

    def fails(checkpoint: Checkpoint) -> None:
        raise ValueError("watcher")

    log.watch(fails)
    log.watch(lambda checkpoint: seen.append(checkpoint.size))
    assert log.checkpoint().size == 1
    assert seen == [1]
    assert "somebody who watches the audit log" in caplog.text


class NoCheckpoints(Storage):
    """A disk that takes records, and no checkpoints."""

    def publish(self, path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_end_without_a_checkpoint(tmp_path: Path, signer: Any, caplog: Any) -> None:
    log = AuditLog(tmp_path / "log", signer, storage=NoCheckpoints(), checkpoint_interval=3600)
    log.append(JWS).wait()
    with pytest.raises(AuditError, match=r"on the disk, but not under a checkpoint, .* No space left on device"):
        log.close()
    assert recover(Layout(tmp_path / "log"), 0).next == 3
    second = AuditLog(tmp_path / "log", signer, storage=NoCheckpoints(), checkpoint_interval=3600)
    _close_all()  # the end of the process says so in the log
    assert repr(second).endswith("closed>")
    assert "not under a checkpoint" in caplog.text


def test_checkpoints_come_by_themselves_when_the_disk_is_mended(tmp_path: Path, signer: Any) -> None:
    storage = NoCheckpoints()
    tried = threading.Event()
    seen = threading.Event()

    def publish(path: Path, data: bytes) -> None:
        tried.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    storage.publish = publish  # type: ignore[method-assign]
    log = AuditLog(tmp_path / "log", signer, storage=storage, checkpoint_interval=0.01)
    log.watch(lambda checkpoint: seen.set())
    assert tried.wait(30)
    storage.publish = Storage().publish  # type: ignore[method-assign]
    assert seen.wait(30)
    log.close()
    assert log.failure is None


# --- reading ---


def test_a_log_without_its_key_is_not_verified(open_log: Callable[..., AuditLog]) -> None:
    log = open_log()
    log.checkpoint()
    reader = UnverifiedReader(log.path)
    assert reader.size == 1
    with pytest.raises(AuditError, match="opened without its key cannot be verified"):
        reader.verify()


def test_a_large_record_that_is_named_by_no_hash(open_log: Callable[..., AuditLog]) -> None:
    log = open_log()
    said = [f'{{"kest":"large","sha256":{digest},"size":1}}' for digest in ('"../../checkpoint"', f'"{"A" * 64}"', "7")]
    for record in said:
        log.append(record)
    log.checkpoint()
    reader = AuditReader(log.path, log.key)
    assert [reader.record(index).body.decode() for index in (1, 2, 3)] == said  # nothing was read in their place


def test_a_record_without_an_object_is_unreadable() -> None:
    record = Record(0, b"W10.W10.AA", b"W10.W10.AA")  # lists
    assert (record.readable, record.kind) == (False, "unreadable")
    with pytest.raises(AuditError, match="record 0 is not a JWS over a JSON object"):
        assert record.payload


def test_a_large_record_of_which_only_the_pointer_is_here() -> None:
    book = KeyBook.of(NoteKey("log", Signer("log").public_key), None)
    leaf = large_pointer(b"x" * 70_000)[1]
    assert judge(Record(0, leaf, leaf), book) == (Verdict.MISSING, None)
    other = leaf.replace(b"large", b"small")
    assert judge(Record(0, other, other), book) == (Verdict.UNREADABLE, None)
    digest = "0" * 64
    kinds = [
        Record(0, text.encode(), text.encode()).kind
        for text in (
            leaf.decode(), other.decode(), leaf.decode() + " ", "[]", "{", "{}", '{"sha256":7,"size":70000}',
            f'{{"kest":"large","sha256":"{digest}","size":65536}}', f'{{"kest":"large","sha256":"{digest}","size":65535}}',
            f'{{"kest":"large","sha256":"{digest}","size":true}}',
            f'{{"kest":"large","sha256":"{digest[1:]}G","size":65536}}',
        )
    ]  # fmt: skip
    assert [index for index, kind in enumerate(kinds) if kind == "large"] == [0, 7]
    assert set(kinds) == {"large", "unreadable"}


def test_logs_of_many_chunks(open_log: Callable[..., AuditLog], monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log()
    for _ in range(600):
        log.record("outcome", JWS)
    log.checkpoint()
    whole = verify_log(log.path, log.key)
    monkeypatch.setattr("kest.audit.verify.CHUNK_BYTES", 1)
    parts = verify_log(log.path, log.key)
    assert (parts.verdicts, parts.problem_count) == (whole.verdicts, whole.problem_count)
    assert sum(parts.verdicts.values()) == 601


# --- chains ---


def test_chains_are_remembered_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Store:
        def chain_grant(self, header: str) -> None:
            asked.append(header[:3])

    monkeypatch.setattr("kest.audit.chains.REMEMBERED", 1)
    chains = Chains(Store(), lambda grant: pytest.fail("nothing was granted"))  # type: ignore[arg-type]
    one, two = (name * 2000 + b".e30.AA" for name in (b"A", b"B"))
    assert [chains.of(record) for record in (one, one, two, one)] == [None] * 4
    assert asked == ["AAA", "BBB", "AAA"]
    assert chains.of(b"\xff" * 2000 + b".e30.AA") is None
    assert len(asked) == 3
    assert chains.of(JWS.encode()) is None


# --- redaction ---


def test_a_record_about_nobody(tmp_path: Path, open_log: Callable[..., AuditLog]) -> None:
    redaction = Redaction(tmp_path / "personal.db", labels=(), reasons=False)
    try:
        for labels in ({}, {"kest.identity": "{"}, {"kest.identity": "[]"}, {"kest.identity": '{"user":7}'}):
            said = json.loads(redaction.denial(json.dumps({"labels": labels, "reason": "r"}).encode()))
            assert said == {"labels": labels, "reason": "r", "_sd_alg": "sha-256"}
        assert redaction.erase("") == 0
        with pytest.raises(AuditError, match="is no intent and no denial"):
            redaction.reveal(Record(0, JWS.encode(), JWS.encode()))
    finally:
        redaction.close()
        redaction.close()


# --- witnesses ---


@pytest.fixture
def answering() -> Iterator[Callable[..., WitnessClient]]:
    """A client of a witness that answers with what it is told to."""
    open_servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(key: Any, *answers: tuple[int, str]) -> WitnessClient:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        open_servers.append((server, thread))
        return WitnessClient(f"http://127.0.0.1:{server.server_address[1]}", key)

    yield start
    for server, thread in open_servers:
        server.shutdown()
        server.server_close()
        thread.join()


def test_witnesses_that_answer_something_else(
    answering: Callable[..., WitnessClient], open_log: Callable[..., AuditLog]
) -> None:
    log = open_log()
    log.checkpoint()
    witness = Signer(NAME, bytes([7] * 32))
    key = NoteKey(NAME, witness.public_key, COSIGNATURE)
    other = f"— {NAME} {encode_base64(bytes(4 + 72))}\n"
    reader = AuditReader(log.path, log.key)
    with pytest.raises(AuditError, match="does not say what it has seen"):
        answering(key, (409, "0\n")).cosign(reader)
    with pytest.raises(AuditProofError, match=r"saw 9 records .* rolled back"):
        answering(key, (409, "9\n")).cosign(reader)
    with pytest.raises(AuditProofError, match=r"refuses the checkpoint \(HTTP 403\): who are you"):
        answering(key, (403, "who are you")).cosign(reader)
    with pytest.raises(AuditProofError, match="answered with signatures of others"):
        answering(key, (200, other)).cosign(reader)


def test_a_cosigner_goes_on_after_a_failure(
    answering: Callable[..., WitnessClient], open_log: Callable[..., AuditLog], caplog: Any
) -> None:
    log = open_log()
    key = NoteKey(NAME, Signer(NAME, bytes([7] * 32)).public_key, COSIGNATURE)
    refused = threading.Semaphore(0)

    class Refused(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "who are you" in record.getMessage():
                refused.release()

    handler = Refused()
    logging.getLogger("kest").addHandler(handler)
    cosigner = Cosigner(log, [answering(key, (403, "who are you"))])
    cosigner.close()  # it was never started
    cosigner = Cosigner(log, [answering(key, (403, "who are you"))]).start()
    try:
        for _ in range(2):
            log.append(JWS)
            log.checkpoint()
            assert refused.acquire(timeout=30)
    finally:
        cosigner.close()
        cosigner.close()
        logging.getLogger("kest").removeHandler(handler)


def test_a_witness_does_not_take_one_log_for_another(tmp_path: Path, signer: Any) -> None:
    identity = Signer(NAME, bytes([7] * 32))
    key, other = (NoteKey(name, signer.public_key) for name in (signer.principal, "other.log"))
    with AuditLog(tmp_path / "log", signer) as log:
        note = log.checkpoint().note
    with Witness(tmp_path / "witness", NAME, identity, [key, other]) as witness:
        witness.add_checkpoint(f"old 0\n\n{note}".encode())
        mine, theirs = witness._path(key.name), witness._path(other.name)
    witness.close()
    shutil.copy(mine, theirs)
    with pytest.raises(AuditCorruptError, match="is a checkpoint of another log"):
        Witness(tmp_path / "witness", NAME, identity, [key, other])


def test_a_witness_over_http_that_cannot_write(tmp_path: Path, signer: Any, caplog: Any) -> None:
    class Full(Storage):
        def publish(self, path: Path, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    path, key = tmp_path / "log", NoteKey(signer.principal, signer.public_key)
    with AuditLog(path, signer) as log:
        note = log.checkpoint().note
    identity = Signer(NAME, bytes([7] * 32))
    with Witness(tmp_path / "witness", NAME, identity, [key], storage=Full()) as witness:
        server = WitnessServer(witness)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            answers = []
            for headers in ({}, {"Content-Length": "many"}):
                connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
                try:
                    connection.request("POST", "/add-checkpoint", f"old 0\n\n{note}".encode(), headers)
                    answer = connection.getresponse()
                    answers.append((answer.status, answer.read()))
                finally:
                    connection.close()
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    assert answers == [(500, b"cannot write\n"), (400, b"not understood\n")]
    assert "cannot write down what it signs" in caplog.text
