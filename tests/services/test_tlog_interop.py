"""The tools of the Go ecosystem accept our logs, checkpoints, proofs and cosignatures, and refuse tampered ones."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kest._kestcore import Signer
from kest.audit import AuditLog, AuditReader
from kest.audit.cosigning import Cosigner, WitnessClient
from kest.audit.witness import Witness, WitnessServer

SIZE = 70_000


class Tool:
    """The Go programs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(self._folder / "tlog"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    def fsck(self, path: Path, key: Any) -> subprocess.CompletedProcess[str]:
        """tessera's checker, which reads a log over HTTP."""
        vkey = path.parent / "vkey"
        vkey.write_text(key.vkey)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(path)))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            command = [
                str(self._folder / "fsck"),
                f"--storage_url={url}",
                f"--public_key={vkey}",
                f"--origin={key.name}",
                "--ui=false",
            ]
            return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def tool(built: Callable[[str], Path]) -> Tool:
    return Tool(built("tlog"))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditLog]:
    """Enough records for tiles of three levels, and checkpoints on the way."""
    path = tmp_path_factory.mktemp("audit") / "log"
    signer = Signer("log.kest.test/interop", bytes(range(32)))
    with AuditLog(path, signer, checkpoint_interval=3600, max_pending=SIZE) as log:
        for number in range(SIZE):
            log.record("outcome", f"eyJ{number}.{'x' * (number % 50)}.c2ln")
            if number in (0, 255, 300, 65_535):
                path.with_name(f"checkpoint-{number}").write_text(log.checkpoint().note)
        log.checkpoint()
        yield log


@pytest.fixture
def copy(log: AuditLog, tmp_path: Path) -> Path:
    """A copy that a test may damage. Links: writing replaces them."""
    target = tmp_path / "copy"
    subprocess.run(["cp", "-rl", str(log.path), str(target)], check=True)
    return target


def replace(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(change(data))


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_whole_log(tool: Tool, log: AuditLog) -> None:
    done = tool("check", log.path, log.key.vkey)
    assert (done.returncode, done.stdout.strip()) == (0, str(log.last.size)), done.stderr


def test_fsck_of_tessera(tool: Tool, log: AuditLog) -> None:
    done = tool.fsck(log.path, log.key)
    assert "Successfully fsck'd" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("checkpoint", flipped(30)),
        ("tile/0/007", flipped(8000)),
        ("tile/1/000", flipped(40)),
        ("tile/2/000.p/1", flipped(0)),
        ("tile/entries/100", flipped(5)),
        ("tile/entries/100", lambda data: data[:-1]),
    ],
)
def test_tampered_logs(tool: Tool, log: AuditLog, copy: Path, name: str, change: Any) -> None:
    replace(copy / name, change)
    assert tool("check", copy, log.key.vkey).returncode == 1


@pytest.mark.parametrize(("name", "change"), [("checkpoint", flipped(30)), ("tile/1/000.p/3", flipped(40))])
def test_fsck_of_tampered_logs(tool: Tool, tmp_path: Path, name: str, change: Any) -> None:
    """It says so, and exits with 0 all the same. (A record or leaf hash that is wrong stops its workers, for which it then
    waits for ever; our own reader of the Go packages stands in for it there.)"""
    with AuditLog(tmp_path / "log", Signer("log.kest.test/interop", bytes(range(32)))) as log:
        for number in range(900):
            log.append(f"eyJ{number}.a.c2ln")
    assert "Successfully fsck'd" in tool.fsck(log.path, log.key).stderr
    replace(log.path / name, change)
    assert "Successfully fsck'd" not in tool.fsck(log.path, log.key).stderr


@pytest.mark.parametrize("index", [0, 1, 255, 256, 65_535, 65_536, SIZE])
def test_proofs_of_records(tool: Tool, log: AuditLog, tmp_path: Path, index: int) -> None:
    reader = AuditReader(log.path, log.key)
    record, proof = tmp_path / "record", tmp_path / "proof"
    record.write_bytes(reader.record(index).leaf)
    text = reader.prove(index)
    proof.write_text(text)
    done = tool("inclusion", proof, log.key.vkey, record)
    assert done.returncode == 0, done.stderr
    record.write_bytes(reader.record(index).leaf + b"x")
    assert tool("inclusion", proof, log.key.vkey, record).returncode == 1
    record.write_bytes(reader.record(index).leaf)
    lines = text.split("\n")
    for at, line in enumerate(lines):
        if line.startswith(("extra", "c2sp", "—")) or len(line) != 44:
            continue
        damaged = base64.b64encode(flipped(3)(base64.b64decode(line))).decode()
        proof.write_text("\n".join([*lines[:at], damaged, *lines[at + 1 :]]))
        assert tool("inclusion", proof, log.key.vkey, record).returncode == 1


def test_proofs_of_consistency(tool: Tool, log: AuditLog) -> None:
    reader = AuditReader(log.path, log.key)
    newest = log.path / "checkpoint"
    for number in (0, 255, 300, 65_535):
        older = log.path.with_name(f"checkpoint-{number}")
        size = int(older.read_text().split("\n")[1])
        proof = [base64.b64encode(one).decode() for one in reader.consistency(size)]
        done = tool("consistency", older, newest, log.key.vkey, *proof)
        assert done.returncode == 0, done.stderr
        assert tool("consistency", older, newest, log.key.vkey, *proof[:-1]).returncode == 1
        assert tool("consistency", newest, older, log.key.vkey, *proof).returncode == 1


def test_cosignatures(tool: Tool, tmp_path: Path) -> None:
    signer = Signer("log.kest.test/cosigned", bytes(range(32)))
    with AuditLog(tmp_path / "log", signer) as log:
        names = ("witness.kest.test/1", "witness.kest.test/2")
        witnesses = [Witness(tmp_path / n[-1], n, Signer(n, bytes([i] * 32)), [log.key]) for i, n in enumerate(names)]
        servers = [WitnessServer(witness) for witness in witnesses]
        threads = [threading.Thread(target=server.serve_forever) for server in servers]
        for thread in threads:
            thread.start()
        try:
            log.append("a.b.c").wait()
            clients = [WitnessClient(s.url, w.vkey) for s, w in zip(servers, witnesses, strict=True)]
            assert len(Cosigner(log, clients).cosign().witnesses) == 2
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                server.server_close()
                thread.join()
            for witness in witnesses:
                witness.close()
        path, vkeys = log.path / "checkpoint", [witness.vkey for witness in witnesses]
        kept = tmp_path / "kept"
        kept.write_bytes(path.read_bytes())
    done = tool("cosigned", kept, log.key.vkey, *vkeys)
    assert done.returncode == 0, done.stderr
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:-1]))
    assert tool("cosigned", kept, log.key.vkey, *vkeys).returncode == 1
    signature = bytearray(base64.b64decode(lines[-1].split()[2]))
    signature[6] ^= 1  # its time
    damaged = f"{' '.join(lines[-1].split()[:2])} {base64.b64encode(signature).decode()}\n"
    kept.write_text("".join([*lines[:-1], damaged]))
    assert tool("cosigned", kept, log.key.vkey, *vkeys).returncode == 1


def test_our_proof_file_stands_on_its_own(log: AuditLog, tmp_path: Path) -> None:
    """In another process that sees nothing but the file and the key."""
    proof = tmp_path / "one.tlog-proof"
    proof.write_text(AuditReader(log.path, log.key).prove(SIZE // 2))
    script = (
        "import sys; from pathlib import Path; from kest.audit import verify_proof\n"
        "proved = verify_proof(Path(sys.argv[1]).read_text(), sys.argv[2])\n"
        "print(proved.record.index, proved.verdict.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(proof), log.key.vkey], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [str(SIZE // 2), "UNREADABLE"], done.stderr
