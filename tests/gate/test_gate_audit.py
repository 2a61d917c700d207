"""The signed audit chain: what it binds, every way to tamper with it, segments, and the file."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest._kestcore import canonicalize
from kest.gate import (
    AuditChainError,
    AuditEntry,
    GateInputError,
    KeyPair,
    ManagedAuditChain,
    SignedAuditChain,
    SigningError,
)
from kest.gate.crypto import clock


def entry(number: int = 0, **given: Any) -> AuditEntry:
    return AuditEntry("agent-alice", f"issue_refund_{number}", "permit", "token=abc", **given)


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate()


def chain_of(pair: KeyPair, *batches: int, hybrid: bool = True) -> SignedAuditChain:
    chain, number = SignedAuditChain(pair, hybrid=hybrid), 0
    for size in batches:
        chain.append_batch([entry(number + i) for i in range(size)])
        number += size
    return chain


def lines_of(chain: SignedAuditChain) -> list[bytes]:
    return chain.export_jsonl().splitlines(keepends=True)


def refused(lines: list[bytes], pair: KeyPair, kind: str | None = None, **options: Any) -> AuditChainError:
    with pytest.raises(AuditChainError, match="audit chain verification failed") as caught:
        SignedAuditChain.verify_jsonl(b"".join(lines), pair.public_keys(), **options)
    assert isinstance(caught.value, ValueError)
    if kind is not None:
        assert caught.value.kind == kind, caught.value
    return caught.value


def changed(line: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    members = json.loads(line)
    change(members)
    return canonicalize(members) + b"\n"


# --- entries ---


def test_entries() -> None:
    one = AuditEntry(
        "a", "b", "refuse", "c", resource="r", decided_by="policy", ip="not an ip", session_id=str(uuid.uuid4())
    )
    assert (one.principal_id, one.action_name, one.verdict) == ("a", "b", "refuse")
    assert repr(one) == "AuditEntry(principal=a, action=b, verdict=refuse)"
    uuid.UUID(one.id)
    assert set(one.to_dict()) == {
        "id",
        "principal_id",
        "action_name",
        "verdict",
        "verdict_detail",
        "evaluation_id",
        "resource",
        "decided_by",
        "ip",
        "session_id",
    }
    assert entry(context={"amount": 5}).to_dict()["context"] == {"amount": 5}
    for bad in ({"evaluation_id": "sess-1"}, {"session_id": "sess-1"}, {"resource": "x" * 100_000}):
        with pytest.raises(GateInputError):
            entry(**bad)
    digits = "01890a5dac967b3e8b1e4a5b6c7d8e9f"
    assert entry(session_id=digits).to_dict()["session_id"] == "01890a5d-ac96-7b3e-8b1e-4a5b6c7d8e9f"
    for bad in ("0x" + digits[2:], digits[:15] + "_" + digits[16:], " " + digits[1:], digits[:-1] + "\u0661"):
        with pytest.raises(GateInputError, match="not a UUID"):  # which `uuid.UUID` reads, for `int` does
            entry(session_id=bad)
    with pytest.raises(GateInputError, match="verdict"):
        AuditEntry("a", "b", "allow", "c")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        AuditEntry("a", 5, "permit", "c")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        one.verdict = "permit"  # type: ignore[misc]


# --- appending and verifying ---


@pytest.mark.parametrize("hybrid", [True, False])
def test_a_chain_verifies(pair: KeyPair, hybrid: bool) -> None:
    chain = SignedAuditChain(pair, hybrid=hybrid)
    assert (chain.head_hash, chain.is_empty, len(chain)) == ("genesis", True, 0)
    assert [chain.append(entry(i)) for i in range(3)] == [1, 2, 3]
    chain.verify(pair.public_keys())
    assert chain.is_hybrid is hybrid
    assert (chain.length, chain.is_empty) == (3, False)
    blob = chain.export_jsonl()
    assert SignedAuditChain.verify_jsonl(blob, pair.public_keys(), hybrid=hybrid) == 3
    assert SignedAuditChain.verify_jsonl(blob, pair.public_keys(), hybrid=hybrid, checkpoint=chain.checkpoint()) == 3
    assert max(map(len, blob.splitlines())) <= 5_000
    windows = blob.replace(b"\n", b"\r\n\r\n  \r\n")
    assert SignedAuditChain.verify_jsonl(windows, pair.public_keys(), hybrid=hybrid) == 3
    assert SignedAuditChain.verify_jsonl(b"", pair.public_keys()) == 0


def test_batches_share_a_signature(pair: KeyPair) -> None:
    chain = chain_of(pair, 100, 1, 28)
    blob = chain.export_jsonl()
    assert blob.count(b'"seal"') == 3
    assert len(blob) / 129 < 700
    assert SignedAuditChain.verify_jsonl(blob, pair.public_keys(), checkpoint=chain.checkpoint()) == 129
    assert chain.append_batch([]) == 129
    with pytest.raises(GateInputError, match="at most 4096"):
        chain.append_batch([entry()] * 4097)
    with pytest.raises(TypeError):
        chain.append_batch([entry(), "x"])  # type: ignore[list-item]
    with pytest.raises(GateInputError, match="JSON"):
        chain.append_batch([entry(), entry(context={"x": float("nan")})])
    with pytest.raises(GateInputError, match="too large"):
        chain.append(entry(context={"x": "y" * (1 << 20)}))
    assert chain.length == 129, "all or nothing"
    chain.verify(pair.public_keys())


def test_the_mode_is_the_verifiers_to_say(pair: KeyPair) -> None:
    hybrid, pq = chain_of(pair, 2), chain_of(pair, 2, hybrid=False)
    assert "chain is hybrid" in str(refused(lines_of(hybrid), pair, "downgraded", hybrid=False))
    assert "mode mismatch" in str(refused(lines_of(pq), pair, "downgraded", hybrid=True))
    refused(lines_of(pq), pair, "downgraded")  # without a word, both signatures are demanded
    assert "mode inconsistent" in str(refused([*lines_of(hybrid)[:1], *lines_of(pq)[1:]], pair, "spliced"))


def test_an_expired_key_appends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    short = KeyPair.generate_with_expiry(60)
    chain = chain_of(short, 2)
    later = clock.now() + 100
    monkeypatch.setattr(clock, "now", lambda: later)
    for work in (lambda: chain.append(entry()), chain.checkpoint):
        with pytest.raises(SigningError, match="expired"):
            work()
    chain.verify(short.public_keys())


# --- tampering that needs no key ---


@pytest.mark.parametrize("batches", [(1,) * 6, (2, 3, 1), (6,)])
def test_deleting(pair: KeyPair, batches: tuple[int, ...]) -> None:
    lines = lines_of(chain_of(pair, *batches))
    for place in range(5):
        error = refused(lines[:place] + lines[place + 1 :], pair, "deleted")
        assert error.index == place
    refused(lines[2:], pair, "deleted")


@pytest.mark.parametrize("batches", [(1,) * 6, (2, 3, 1), (6,)])
def test_reordering_and_duplicating(pair: KeyPair, batches: tuple[int, ...]) -> None:
    lines = lines_of(chain_of(pair, *batches))
    for place in range(5):
        swapped = [*lines]
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
        assert refused(swapped, pair, "reordered").index == place
        assert refused(lines[: place + 1] + lines[place:], pair, "duplicated").index == place + 1
    refused(lines[::-1], pair, "reordered")
    refused(lines + lines, pair, "duplicated")


def test_truncating_shows_against_a_checkpoint(pair: KeyPair) -> None:
    chain = chain_of(pair, 1, 1, 1)
    checkpoint, lines = chain.checkpoint(), lines_of(chain)
    for length in range(3):
        error = refused(lines[:length], pair, "truncated", checkpoint=checkpoint)
        assert f"the checkpoint says 3 entries, there are {length}" in str(error)
    chain.append(entry(9))
    assert SignedAuditChain.verify_jsonl(chain.export_jsonl(), pair.public_keys(), checkpoint=checkpoint) == 4
    batch = lines_of(chain_of(pair, 2, 5))
    for length in (1, 3, 6):  # within a batch it shows without one
        assert refused(batch[:length], pair, "truncated").index is not None


def test_a_rewritten_chain_contradicts_its_checkpoint(pair: KeyPair) -> None:
    chain, other = chain_of(pair, 3), chain_of(pair, 3)
    refused(lines_of(other), pair, "rewritten", checkpoint=chain.checkpoint())
    assert SignedAuditChain.verify_jsonl(other.export_jsonl(), pair.public_keys(), checkpoint=other.checkpoint()) == 3
    empty = SignedAuditChain(pair)
    assert SignedAuditChain.verify_jsonl(chain.export_jsonl(), pair.public_keys(), checkpoint=empty.checkpoint()) == 3
    for bad in (
        b"",
        b"x",
        chain.checkpoint()[:-1],
        SignedAuditChain(KeyPair.generate()).checkpoint(),
        chain_of(pair, 3, hybrid=False).checkpoint(),
    ):
        assert "checkpoint" in str(refused(lines_of(chain), pair, checkpoint=bad))


def test_splicing(pair: KeyPair) -> None:
    one, other = lines_of(chain_of(pair, 1, 1, 1)), lines_of(chain_of(pair, 1, 1, 1))
    assert refused([one[0], other[1], one[2]], pair, "spliced").index == 1
    assert refused([*one[:2], other[2]], pair, "spliced").index == 2
    stranger = lines_of(chain_of(KeyPair.generate(), 3))
    assert refused(stranger, pair, "spliced").index == 0
    refused(one, KeyPair.generate(), "spliced")
    impostor = KeyPair.generate(id=pair.id)
    assert "signature verification failed" in str(refused(lines_of(chain_of(impostor, 1)), pair, "altered"))


def test_moving_signatures_and_relabelling(pair: KeyPair) -> None:
    lines = lines_of(chain_of(pair, 1, 1, 2))
    seals = [json.loads(line).get("seal") for line in lines]
    moved = [changed(lines[0], lambda m: m.update(seal={**seals[1], "first": 0})), *lines[1:]]
    assert "entry 0: signature verification failed" in str(refused(moved, pair, "altered"))
    for change in (
        lambda m: m["seal"].update(first=2),
        lambda m: m["seal"].update(first=0),
        lambda m: m.pop("seal"),
        lambda m: m["seal"].update(ed25519=m["seal"]["ml_dsa_65"]),
        lambda m: m["seal"].update(first=-1),
        lambda m: m["seal"].update(extra=1),
        lambda m: m.update(seal=5),
        lambda m: m.update(extra=1),
    ):
        refused([lines[0], changed(lines[1], change), *lines[2:]], pair)
    stripped = changed(lines[0], lambda m: m["seal"].pop("ed25519"))
    refused([stripped, *lines[1:]], pair, "downgraded")

    def as_pq(members: dict[str, Any]) -> None:
        members["entry"]["mode"] = "pq"
        members["seal"].pop("ed25519")

    single = lines_of(chain_of(pair, 1))
    error = refused([changed(single[0], as_pq)], pair, "altered", hybrid=False)
    assert "signature verification failed" in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index", 1),
        ("index", -1),
        ("index", "0"),
        ("previous_hash", "0" * 64),
        ("previous_hash", 5),
        ("key_id", "other"),
        ("mode", "pq"),
        ("mode", "none"),
        ("time_ms", 0),
        ("time_ms", None),
        ("content", {}),
        ("content", []),
    ],
)
def test_every_member_is_signed(name: str, value: Any, pair: KeyPair) -> None:
    lines = lines_of(chain_of(pair, 1))
    refused([changed(lines[0], lambda m: m["entry"].update({name: value}))], pair)
    refused([changed(lines[0], lambda m: m["entry"].pop(name))], pair)


def test_every_word_of_the_content_is_signed(pair: KeyPair) -> None:
    line = lines_of(chain_of(pair, 1))[0]
    for name in json.loads(line)["entry"]["content"]:
        refused([changed(line, lambda m, name=name: m["entry"]["content"].update({name: "other"}))], pair, "altered")


def test_a_line_is_read_strictly(pair: KeyPair) -> None:
    line = lines_of(chain_of(pair, 1))[0].rstrip()
    for bad in (
        line.replace(b":", b": ", 1),
        line[:-1],
        line + b"}",
        b"\xef\xbb\xbf" + line,
        line.replace(b'{"entry"', b'{"entry":{},"entry"', 1),
        b"[]",
        b"5",
        b"{}",
        b"\xff",
        b"[" * 10_000,
        b"x" * ((1 << 20) + 1),
        line.replace(b'"index":0', b'"index":0.0'),
    ):
        error = refused([bad], pair, "malformed")
        assert "entry 0" in str(error)


FLIPS: list[Any] = []


def flips() -> None:
    if not FLIPS:
        FLIPS.append(KeyPair.generate())
        chain = chain_of(FLIPS[0], 1, 3, 1)
        FLIPS.extend((chain.export_jsonl(), chain.checkpoint()))


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_flip_is_refused(data: st.DataObject) -> None:
    flips()
    signer, blob, checkpoint = FLIPS
    place, bit = data.draw(st.integers(0, len(blob) - 1)), data.draw(st.integers(1, 255))
    bad = blob[:place] + bytes([blob[place] ^ bit]) + blob[place + 1 :]
    if blob[place : place + 1] == b"\n" and bad[place : place + 1] in (b"\r", b" "):
        return  # what ends a line is not part of it
    lines, whole = bad.split(b"\n"), blob.split(b"\n")
    if [line.rstrip(b"\r") for line in lines if line.strip()] == [line for line in whole if line]:
        return
    with pytest.raises(AuditChainError):
        SignedAuditChain.verify_jsonl(bad, signer.public_keys(), checkpoint=checkpoint)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_flip_in_a_checkpoint_is_refused(data: st.DataObject) -> None:
    flips()
    signer, blob, checkpoint = FLIPS
    place, bit = data.draw(st.integers(0, len(checkpoint) - 1)), data.draw(st.integers(1, 255))
    bad = checkpoint[:place] + bytes([checkpoint[place] ^ bit]) + checkpoint[place + 1 :]
    with pytest.raises(AuditChainError):
        SignedAuditChain.verify_jsonl(blob, signer.public_keys(), checkpoint=bad)


# --- segments ---


def test_pruning_and_segments(pair: KeyPair) -> None:
    chain = chain_of(pair, 2, 3, 2)
    whole, public = chain.export_jsonl(), pair.public_keys()
    first = b"".join(lines_of(chain)[:4])
    anchor = chain._hashes[3]
    assert chain.entries_since_jsonl(4) == whole[len(first) :]
    assert chain.prune_before(4) == 4
    assert (chain.base_index, chain.resident_entries, chain.length, chain.anchor_hash) == (4, 3, 7, anchor)
    with pytest.raises(AuditChainError, match="start at index 0, got 4"):
        chain.verify(public)
    with pytest.raises(AuditChainError, match="start at index 0, got 4"):
        SignedAuditChain.verify_jsonl(chain.export_jsonl(), public)
    with pytest.raises(GateInputError, match="pruned"):
        chain.entries_since_jsonl(3)
    assert chain.entries_since_jsonl(99) == b""
    chain.append(entry(7))
    tail = chain.export_jsonl()
    verify = SignedAuditChain.verify_jsonl_segments
    assert verify([first, tail], public, checkpoint=chain.checkpoint()) == 8
    assert verify([first, b"", tail], public, hybrid=True) == 8
    with pytest.raises(
        AuditChainError, match=r"segment boundary mismatch: .* expected next index 0, segment starts at 4"
    ):
        verify([tail], public)
    with pytest.raises(AuditChainError, match="segment boundary mismatch"):
        verify([first, first], public)
    with pytest.raises(AuditChainError, match="truncated"):
        verify([first], public)
    assert chain.prune_before(-5) == chain.prune_before(2) == 0
    assert chain.prune_before(10**9) == 4
    assert chain.head_hash == chain.anchor_hash
    chain.append(entry(8))
    assert verify([first, tail, chain.export_jsonl()], public) == 9
    for wrong in (1.5, True, "4"):
        with pytest.raises(TypeError):
            chain.prune_before(wrong)  # type: ignore[arg-type]


def test_resuming(pair: KeyPair) -> None:
    chain = chain_of(pair, 3)
    blob = chain.export_jsonl()
    later = SignedAuditChain.resume(pair, blob, checkpoint=chain.checkpoint())
    assert later.append(entry(3)) == 4
    assert SignedAuditChain.verify_jsonl(blob + later.export_jsonl(), pair.public_keys()) == 4
    with pytest.raises(AuditChainError, match="truncated"):
        SignedAuditChain.resume(pair, b"".join(lines_of(chain)[:2]))


def test_threads_append(pair: KeyPair) -> None:
    from concurrent.futures import ThreadPoolExecutor

    chain = SignedAuditChain(pair)
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(lambda i: chain.append(entry(i)), range(40))) == list(range(1, 41))
    chain.verify(pair.public_keys())


# --- the file ---


def test_a_managed_chain_writes_and_resumes(tmp_path: Path, pair: KeyPair) -> None:
    path, public = tmp_path / "audit.jsonl", pair.public_keys()
    with ManagedAuditChain(pair, path, max_entries=10, min_retained=4) as chain:
        for number in range(25):
            assert chain.append(entry(number)) == number + 1
        assert chain.resident_entries <= 10
        assert chain.length == 25
        verified = SignedAuditChain.verify_jsonl_segments(
            [path.read_bytes(), chain.export_tail_jsonl()], public, checkpoint=chain.checkpoint()
        )
        assert verified == 25
        stats = chain.stats()
        assert stats["entries_appended"] == 25
        assert stats["sink_healthy"] is True
        assert stats["resident_entries"] == chain.resident_entries
        assert chain.resident_bytes == sum(map(len, chain._chain._lines)) + chain.resident_entries
        with pytest.raises(AuditChainError, match="another process"):
            ManagedAuditChain(pair, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SignedAuditChain.verify_jsonl(path.read_bytes(), public) == 25
    with pytest.raises(AuditChainError, match="closed"):
        chain.append(entry())
    with ManagedAuditChain(pair, path) as again:
        assert (again.length, again.base_index, again.is_empty) == (25, 25, False)
        again.append_batch([entry(25), entry(26)])
        assert (again.flush(), again.drain(), again.resident_entries) == (0, 2, 0)
    assert SignedAuditChain.verify_jsonl(path.read_bytes(), public) == 27


def test_a_torn_tail_is_set_aside(tmp_path: Path, pair: KeyPair) -> None:
    path = tmp_path / "audit.jsonl"
    whole, batch = chain_of(pair, 2, 3).export_jsonl(), lines_of(chain_of(pair, 2, 3))
    for torn, kept in ((whole[:-1], 2), (whole + b'{"entry":', 5), (b"".join(batch[:4]), 2), (whole[:40], 0)):
        path.write_bytes(torn)
        with ManagedAuditChain(pair, path) as chain:
            assert chain.length == kept
            chain.append(entry(kept))
        assert SignedAuditChain.verify_jsonl(path.read_bytes(), pair.public_keys()) == kept + 1
    assert (tmp_path / "audit.jsonl.torn").stat().st_size > 0
    path.write_bytes(whole.replace(b"refund_1", b"refund_x"))
    with pytest.raises(AuditChainError):
        ManagedAuditChain(pair, path)
    assert path.read_bytes() == whole.replace(b"refund_1", b"refund_x"), "evidence is left alone"


def test_a_full_disk_loses_nothing(tmp_path: Path, pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    really = os.write

    def full(handle: int, data: Any) -> int:
        if len(data) > 100:
            return really(handle, bytes(data[:100]))
        raise OSError(28, "No space left on device")

    with ManagedAuditChain(pair, path, max_entries=3, min_retained=0, on_sink_failure="reject") as chain:
        chain.append(entry(0))
        assert chain.flush() == 1
        size = path.stat().st_size
        monkeypatch.setattr(os, "write", full)
        for number in range(1, 5):
            chain.append(entry(number))
        with pytest.raises(AuditChainError, match="cannot be written"):
            chain.append(entry(5))
        assert chain.stats()["sink_healthy"] is False
        assert chain.stats()["sink_failures"] > 0
        assert path.stat().st_size == size, "nothing half written"
        monkeypatch.undo()
        assert chain.append(entry(5)) == 6
    assert SignedAuditChain.verify_jsonl(path.read_bytes(), pair.public_keys()) == 6


def test_a_buffer_has_a_ceiling(tmp_path: Path, pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with ManagedAuditChain(pair, tmp_path / "a", max_bytes=1, buffer_ceiling=3) as chain:
        monkeypatch.setattr(os, "write", full)
        for number in range(3):
            chain.append(entry(number))
        with pytest.raises(AuditChainError, match="memory holds no more"):
            chain.append(entry(3))
        monkeypatch.undo()
        chain.append(entry(3))


def test_flushing_in_the_background(tmp_path: Path, pair: KeyPair) -> None:
    import threading

    path, flushed = tmp_path / "a", threading.Event()
    with ManagedAuditChain(pair, path, flush_interval_secs=0.01) as chain:
        really = chain._flush

        def flush(keep: int) -> int:
            done = really(keep)
            if chain.length and chain._written == chain.length:
                flushed.set()
            return done

        chain._flush = flush  # type: ignore[method-assign]
        chain.append(entry())
        assert flushed.wait(60)
        assert SignedAuditChain.verify_jsonl(path.read_bytes(), pair.public_keys()) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"on_sink_failure": "drop"},
        {"flush_interval_secs": -1},
        {"max_entries": 0},
        {"min_retained": -1},
        {"max_bytes": 1.5},
        {"buffer_ceiling": True},
    ],
)
def test_managed_options_are_checked(bad: dict[str, Any], tmp_path: Path, pair: KeyPair) -> None:
    with pytest.raises(GateInputError):
        ManagedAuditChain(pair, tmp_path / "a", **bad)


def test_kill_at_any_moment_loses_no_acknowledged_entry(tmp_path: Path, run_python: Any) -> None:
    """A process that is killed after flush() returned: what it acknowledged is there, and the chain goes on."""
    path, key = tmp_path / "a.jsonl", tmp_path / "k"
    signer = KeyPair.generate()
    signer.save(key, "a passphrase")
    program = (
        "import os, sys\nfrom kest.gate import AuditEntry, KeyPair, ManagedAuditChain\n"
        f"pair = KeyPair.load({str(key)!r}, 'a passphrase')\n"
        f"chain = ManagedAuditChain(pair, {str(path)!r})\n"
        "for number in range(3): chain.append(AuditEntry('a', 'b', 'permit', str(number)))\n"
        "chain.flush()\n"
        "chain.append(AuditEntry('a', 'b', 'permit', 'not acknowledged'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    with pytest.raises(Exception):
        run_python(program)
    with ManagedAuditChain(signer, path) as chain:
        assert chain.length == 3
        chain.append(entry())
    assert SignedAuditChain.verify_jsonl(path.read_bytes(), signer.public_keys()) == 4


def test_a_file_has_one_writer_after_a_fork(tmp_path: Path, run_python: Any) -> None:
    path = tmp_path / "a.jsonl"
    run_python(
        "import os\n"
        "from kest.gate import AuditChainError, AuditEntry, KeyPair, ManagedAuditChain, SignedAuditChain\n"
        "pair = KeyPair.generate()\n"
        f"chain = ManagedAuditChain(pair, {str(path)!r})\n"
        "chain.append(AuditEntry('a', 'b', 'permit', 'c'))\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    try: chain.append(AuditEntry('a', 'b', 'permit', 'c'))\n"
        "    except AuditChainError: chain.close(); os._exit(0)\n"
        "    os._exit(1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "chain.append(AuditEntry('a', 'b', 'permit', 'c'))\n"
        "chain.close()\n"
        f"with open({str(path)!r}, 'rb') as file: data = file.read()\n"
        "assert SignedAuditChain.verify_jsonl(data, pair.public_keys()) == 2\n"
    )
