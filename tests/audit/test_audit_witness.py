"""Witnesses: equivocation and roll-back shown, and every answer that the protocol asks for."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import tlog as ref

from kest._kestcore import Signer
from kest.audit import AuditLog, AuditReader, Checkpoint, NoteKey, verify_log, verify_proof
from kest.audit.cosigning import Cosigner, WitnessClient
from kest.audit.note import checkpoint_text, note_line
from kest.audit.witness import RefusedError, Witness, WitnessServer
from kest.errors import (
    AuditCorruptError,
    AuditError,
    AuditLockedError,
    AuditProofError,
    ConfigurationError,
    KeyFormatError,
)

NAME = "witness.kest.test/w1"


@pytest.fixture
def witness(tmp_path: Path, signer: Any) -> Iterator[Witness]:
    with Witness(
        tmp_path / "witness", NAME, Signer(NAME, bytes([7] * 32)), [NoteKey(signer.principal, signer.public_key)]
    ) as made:
        yield made


@pytest.fixture
def client(witness: Witness) -> Iterator[WitnessClient]:
    with WitnessServer(witness) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield WitnessClient(server.url, witness.vkey)
        server.shutdown()
        thread.join()


def note_of(signer: Any, leaves: list[bytes]) -> str:
    text = checkpoint_text(signer.principal, len(leaves), ref.merkle_tree_hash(leaves))
    return text + "\n" + note_line(signer.principal, signer, text)


def request(old: int, proof: list[bytes], note: str) -> bytes:
    lines = [f"old {old}", *(base64.b64encode(one).decode() for one in proof)]
    return ("\n".join(lines) + "\n\n" + note).encode()


LEAVES = [ref.leaf_hash(bytes([i])) for i in range(20)]


def test_cosigning(open_log: Callable[..., AuditLog], witness: Witness, client: WitnessClient) -> None:
    log = open_log()
    log.append("a.b.c").wait()
    cosigner = Cosigner(log, [client])
    for _ in range(3):
        checkpoint = cosigner.cosign()
        assert [name for name, _ in checkpoint.witnesses] == [NAME]
        log.append("a.b.c").wait()
    reader = AuditReader(log.path, log.key, witnesses=[witness.vkey], quorum=1)
    assert reader.checkpoint.witnesses
    assert verify_log(log.path, log.key, witnesses=[witness.vkey], quorum=1).checkpoint == reader.checkpoint
    proof = reader.prove(1)
    assert verify_proof(proof, log.key, witnesses=[witness.vkey], quorum=1).checkpoint.witnesses[0][0] == NAME
    with pytest.raises(AuditProofError, match="1 of the 2"):
        verify_proof(proof, log.key, witnesses=[witness.vkey], quorum=2)
    log.checkpoint()  # a newer one, which nobody has cosigned yet
    with pytest.raises(AuditProofError) as refused:
        AuditReader(log.path, log.key, witnesses=[witness.vkey], quorum=1)
    assert refused.value.reason == "quorum"


def test_every_new_checkpoint_is_cosigned(
    open_log: Callable[..., AuditLog], witness: Witness, client: WitnessClient
) -> None:
    log = open_log()
    with Cosigner(log, [client]):
        for _ in range(3):
            size = log.append("a.b.c").wait() + 1
            log.checkpoint()
            while (latest := witness.latest(log.key.name)) is None or int(latest.split("\n")[1]) != size:
                threading.Event().wait(0.001)


def test_roll_back(open_log: Callable[..., AuditLog], client: WitnessClient, tmp_path: Path) -> None:
    """Somebody puts yesterday's copy of the folder in place of today's."""
    log = open_log()
    log.append("a.b.c").wait()
    Cosigner(log, [client]).cosign()
    log.close()
    shutil.copytree(log.path, tmp_path / "yesterday")
    log = open_log()
    log.append("evidence.b.c").wait()
    Cosigner(log, [client]).cosign()
    log.close()
    shutil.rmtree(log.path)
    (tmp_path / "yesterday").rename(log.path)
    log = open_log()  # by itself it looks well
    fresh = WitnessClient(client.url, client.key)
    with pytest.raises(AuditProofError) as refused:
        fresh.cosign(AuditReader(log.path, log.key))
    assert refused.value.reason == "rolled back"
    for _ in range(10):
        log.append("something.else.instead").wait()
    with pytest.raises(AuditProofError) as refused:  # now it is longer, and still not the same
        Cosigner(log, [WitnessClient(client.url, client.key)]).cosign()
    assert refused.value.reason == "refused"
    assert "422" in str(refused.value)


def test_equivocation(open_log: Callable[..., AuditLog], client: WitnessClient, tmp_path: Path, caplog: Any) -> None:
    """One log shows two histories: the witness signs the first, and keeps proof of the second."""
    first, second = open_log(tmp_path / "shown to you"), open_log(tmp_path / "shown to me")
    for log in (first, second):
        log.append("common.b.c").wait()
    first.append("you-paid.b.c").wait()
    second.append("i-paid.b.c").wait()
    Cosigner(first, [client]).cosign()
    with caplog.at_level(logging.ERROR, "kest.audit"), pytest.raises(AuditProofError, match="422"):
        Cosigner(second, [WitnessClient(client.url, client.key)]).cosign()
    (said,) = [record.getMessage() for record in caplog.records if "does not extend" in record.getMessage()]
    assert second.last.text in said


def test_a_reader_that_stays_sees_it_too(open_log: Callable[..., AuditLog], tmp_path: Path) -> None:
    log, other = open_log(tmp_path / "one"), open_log(tmp_path / "two")
    for i in range(5):
        log.append(f"a.{i}.c")
        other.append(f"b.{i}.c")
    log.checkpoint()
    reader = AuditReader(log.path, log.key)
    log.append("d.e.f")
    log.checkpoint()
    assert reader.refresh().size == 7
    for one in (log, other):
        one.close()
    shutil.rmtree(log.path)
    shutil.copytree(other.path, log.path)
    with pytest.raises(AuditCorruptError, match="not the one"):
        reader.refresh()


# --- the protocol ---


def test_answers(witness: Witness, signer: Any) -> None:
    def refused(body: bytes) -> tuple[int, str | None]:
        with pytest.raises(RefusedError) as error:
            witness.add_checkpoint(body)
        return error.value.status, error.value.body

    stranger = Signer("log.kest.test/stranger", bytes([9] * 32))
    impostor = Signer(signer.principal, bytes([9] * 32))
    good = note_of(signer, LEAVES[:5])
    assert refused(request(0, [], note_of(stranger, LEAVES[:5])))[0] == 404
    assert refused(request(0, [], note_of(impostor, LEAVES[:5])))[0] == 403
    broken = good[:-10] + ("A" if good[-10] != "A" else "B") + good[-9:]
    assert refused(request(0, [], broken))[0] == 403
    assert refused(request(6, [], good))[0] == 400
    assert refused(request(3, [], good)) == (409, "0\n")
    assert refused(request(0, [LEAVES[0]], good))[0] == 422
    for malformed in (
        b"",
        b"old 0",
        b"old 00\n\n" + good.encode(),
        b"old x\n\n" + good.encode(),
        b"old 0\nAAAA\n\n" + good.encode(),
        b"\xff" * 9,
    ):
        assert refused(malformed)[0] == 400
    assert refused(b"old 0\n\n" + b"x" * 600_000)[0] == 400
    assert refused(request(0, [LEAVES[0]] * 64, good))[0] == 400
    assert witness.latest(signer.principal) is None

    line = witness.add_checkpoint(request(0, [], good))
    seen = Checkpoint.verify(good + line, NoteKey(signer.principal, signer.public_key), [witness.key], 1)
    assert seen.witnesses[0][0] == NAME
    assert witness.add_checkpoint(request(5, [], good)).startswith(f"— {NAME} ")  # again: a new time
    assert refused(request(0, [], good)) == (409, "5\n")
    other = note_of(signer, [*LEAVES[:4], LEAVES[9]])
    assert refused(request(5, [], other))[0] == 422
    longer = note_of(signer, LEAVES[:9])
    proof = ref.consistency_proof(5, LEAVES[:9])
    assert refused(request(5, proof[:-1], longer))[0] == 422
    assert refused(request(5, [*proof[:-1], LEAVES[0]], longer))[0] == 422
    witness.add_checkpoint(request(5, proof, longer))
    assert refused(request(9, [], good))[0] == 400  # back: refused before anything else
    assert witness.by_hash("0" * 64) is None
    empty = note_of(signer, [])
    assert refused(request(0, [], empty)) == (409, "9\n")


def test_an_empty_log(witness: Witness, signer: Any) -> None:
    lie = checkpoint_text(signer.principal, 0, LEAVES[0])
    with pytest.raises(RefusedError) as error:
        witness.add_checkpoint(request(0, [], lie + "\n" + note_line(signer.principal, signer, lie)))
    assert error.value.status == 422
    witness.add_checkpoint(request(0, [], note_of(signer, [])))
    witness.add_checkpoint(request(0, [], note_of(signer, LEAVES[:3])))


def test_it_remembers(tmp_path: Path, signer: Any) -> None:
    key, identity = NoteKey(signer.principal, signer.public_key), Signer(NAME, bytes([7] * 32))
    with Witness(tmp_path / "w", NAME, identity, [key]) as witness:
        witness.add_checkpoint(request(0, [], note_of(signer, LEAVES[:5])))
        with pytest.raises(AuditLockedError):
            Witness(tmp_path / "w", NAME, identity, [key])
        latest = witness.latest(key.name)
    with Witness(tmp_path / "w", NAME, identity, [key]) as witness:
        assert witness.latest(key.name) == latest
        with pytest.raises(RefusedError) as error:
            witness.add_checkpoint(request(0, [], note_of(signer, LEAVES[:3])))
        assert error.value.body == "5\n"
    (kept,) = [path for path in (tmp_path / "w").iterdir() if path.name != "lock"]
    text = kept.read_text()
    for changed in ("", text.replace("\n5\n", "\n4\n"), text.rsplit("—", 1)[0]):
        kept.write_text(changed)
        with pytest.raises(AuditCorruptError):
            Witness(tmp_path / "w", NAME, identity, [key])


def test_what_is_not_written_down_is_not_signed(tmp_path: Path, signer: Any) -> None:
    from disk import FaultyDisk

    key, identity = NoteKey(signer.principal, signer.public_key), Signer(NAME, bytes([7] * 32))
    for at in range(6):
        folder = tmp_path / str(at)
        folder.mkdir()
        disk = FaultyDisk(folder, at)
        disk.durable_folders.add(folder)
        signed = ""
        try:
            with Witness(folder, NAME, identity, [key], storage=disk) as witness:
                signed = witness.add_checkpoint(request(0, [], note_of(signer, LEAVES[:5])))
        except OSError:
            pass
        with Witness(disk.restore("power", tmp_path / f"after-{at}"), NAME, identity, [key]) as witness:
            assert (witness.latest(key.name) is not None) >= bool(signed)


def test_over_http(client: WitnessClient, witness: Witness, signer: Any) -> None:
    import httpx

    with httpx.Client(base_url=client.url, trust_env=False) as http:
        assert http.post("/add-checkpoint", content=b"x").status_code == 400
        assert http.post("/other", content=b"x").status_code == 404
        origin = ref.hashlib.sha256(signer.principal.encode()).hexdigest()
        assert http.get(f"/{origin}/checkpoint").status_code == 404
        done = http.post("/add-checkpoint", content=request(0, [], note_of(signer, LEAVES[:5])))
        assert done.status_code == 200
        conflict = http.post("/add-checkpoint", content=request(0, [], note_of(signer, LEAVES[:7])))
        assert (conflict.status_code, conflict.headers["content-type"], conflict.text) == (
            409,
            "text/x.tlog.size",
            "5\n",
        )
        assert http.get(f"/{origin}/checkpoint").text == witness.latest(signer.principal)
        assert http.get("/../../etc/passwd").status_code == 404


@given(st.binary(max_size=300))
def test_any_request(body: bytes) -> None:
    from kest.audit.witness import _request

    for data in (body, b"old 0\n\n" + body, b"old 5\n" + body):
        with pytest.raises(RefusedError) as refused:
            _request(data)
        assert refused.value.status == 400


def test_a_witness_that_does_not_answer(open_log: Callable[..., AuditLog], witness: Witness) -> None:
    log = open_log()
    with WitnessServer(witness) as server:
        url = server.url
    with pytest.raises(AuditError, match="does not answer"):
        Cosigner(log, [WitnessClient(url, witness.vkey, timeout=1)]).cosign()


def test_wrong_keys(tmp_path: Path, signer: Any, witness: Witness) -> None:
    key = NoteKey(signer.principal, signer.public_key)
    with pytest.raises(ConfigurationError, match="another witness"):
        Witness(tmp_path / "x", NAME, signer, [witness.vkey])
    with pytest.raises(ConfigurationError, match="no witness"):
        WitnessClient("https://w.example", key)
    with pytest.raises(ConfigurationError, match="https"):
        WitnessClient("http://w.example", witness.vkey)
    with pytest.raises(KeyFormatError):
        NoteKey.parse(witness.vkey[:-4])


def test_as_a_process_of_its_own(tmp_path: Path, open_log: Callable[..., AuditLog]) -> None:
    """``kest witness``: it sees one history, dies, comes back, and does not believe the other."""
    from kest.core.identity.keys import write_private_key

    write_private_key(tmp_path / "key", bytes([7] * 32))
    one, two = open_log(tmp_path / "one"), open_log(tmp_path / "two")
    one.append("a.b.c").wait()
    two.append("d.e.f").wait()
    two.append("g.h.i").wait()
    environment = {**os.environ, "PYTHONPATH": str(Path(sys.modules["kest"].__file__ or "").parents[1])}
    command = [
        sys.executable, "-m", "kest", "witness", "--state", str(tmp_path / "state"), "--name", NAME,
        "--key-file", str(tmp_path / "key"), "--log", one.key.vkey, "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    for log, refused in ((one, False), (two, True), (one, False)):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        try:
            assert process.stdout is not None
            url, vkey = process.stdout.readline().split()
            cosigner = Cosigner(log, [WitnessClient(url, vkey)])
            if refused:
                with pytest.raises(AuditProofError):
                    cosigner.cosign()
            else:
                assert cosigner.cosign().witnesses
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
