"""A witness (c2sp.org/tlog-witness): remembers the newest checkpoint of each log, and signs only what extends it.

Whoever wants two people to see two different logs, or wants to take a log back, has to get that past every witness that a
verifier asks for. A witness needs no records, and is best run by somebody else on another machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kest._kestcore import sha256, tlog_verify_consistency
from kest.audit.note import (
    COSIGNATURE,
    ED25519,
    NoteKey,
    SignedNote,
    checked_name,
    checkpoint_of,
    decode_base64,
    decode_size,
    note_line,
    signer_of,
)
from kest.audit.storage import Storage
from kest.errors import AuditCorruptError, AuditProofError, ConfigurationError
from kest.locks import Lock

__all__ = ["Witness", "WitnessServer"]

log = logging.getLogger("kest.audit")

MAX_BODY = 512 * 1024
MAX_PROOF = 63


class RefusedError(AuditProofError):
    """A checkpoint that a witness does not sign; ``status`` is the HTTP status that says why."""

    def __init__(self, status: int, message: str, body: str | None = None) -> None:
        super().__init__(message)
        self.status, self.body = status, body


class Witness:
    """The state and the key of a witness. Thread-safe; one process at a time.

    Args:
        folder: where it remembers what it signed; made if it is not there.
        name: what stands before its signatures, such as ``witness.example.org/w1``.
        identity: an identity with an Ed25519 key in this process, used for nothing else.
        logs: verifier keys of the logs that it watches.

    Raises:
        AuditLockedError: another process uses the folder.
        AuditCorruptError: what it remembers is not what it signed.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        identity: Any,
        logs: Iterable[str | NoteKey],
        *,
        storage: Storage | None = None,
    ) -> None:
        self._signer = signer_of(identity)
        self.key = NoteKey(checked_name(name), self._signer.public_key, COSIGNATURE)
        self._logs: dict[str, list[NoteKey]] = {}
        for one in logs:
            key = one if isinstance(one, NoteKey) else NoteKey.parse(one)
            if key.kind != ED25519:
                raise ConfigurationError(f"{key.name}: a witness watches logs, this is the key of another witness")
            self._logs.setdefault(key.name, []).append(key)
        self._folder, self._storage = Path(folder), storage or Storage()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._held: int | None = self._storage.lock(self._folder / "lock")
        self._lock = Lock()
        self._seen: dict[str, tuple[int, bytes, str]] = {}
        try:
            for origin in self._logs:
                self._remember(origin)
        except BaseException:
            self.close()
            raise

    @property
    def vkey(self) -> str:
        """What its cosignatures verify with."""
        return self.key.vkey

    def _path(self, origin: str) -> Path:
        return self._folder / sha256(origin.encode()).hex()

    def _remember(self, origin: str) -> None:
        try:
            note = SignedNote.parse(self._path(origin).read_bytes())
            ours = note.verified_by([self.key])
            named, size, root = checkpoint_of(note.text)
        except FileNotFoundError:
            return
        except AuditProofError as error:
            raise AuditCorruptError(f"{self._path(origin)} is not what this witness signed: {error}") from error
        if not ours:
            raise AuditCorruptError(f"{self._path(origin)} is not signed by {self.key.name}: this witness never saw it")
        if named != origin:
            raise AuditCorruptError(f"{self._path(origin)} is a checkpoint of another log")
        self._seen[origin] = size, root, self._path(origin).read_text("utf-8")

    def latest(self, origin: str) -> str | None:
        """The newest checkpoint of a log that it cosigned, with the log's signature and its own."""
        seen = self._seen.get(origin)
        return None if seen is None else seen[2]

    def by_hash(self, digest: str) -> str | None:
        """`latest`, for an origin by its SHA-256 in hexadecimal digits."""
        for origin in self._logs:
            if sha256(origin.encode()).hex() == digest:
                return self.latest(origin)
        return None

    def add_checkpoint(self, body: bytes) -> str:
        """The request of a log: the size that it believes is known, a consistency proof, and the checkpoint.

        Returns:
            Signature lines.

        Raises:
            RefusedError: with the status that the protocol asks for.
        """
        old, proof, note, (origin, size, root) = _request(body)
        keys = self._logs.get(origin)
        if keys is None:
            raise RefusedError(404, "no such log")
        try:
            signed = note.verified_by(keys)
        except AuditProofError as error:
            raise RefusedError(403, str(error)) from None
        if not signed:
            raise RefusedError(403, "not signed by the log")
        if old > size:
            raise RefusedError(400, "the old size is larger than the new one")
        with self._lock:
            known, known_root, _ = self._seen.get(origin, (0, sha256(b""), ""))
            if old != known:
                raise RefusedError(409, f"the newest checkpoint known is of {known} records", f"{known}\n")
            if (size == 0 and root != sha256(b"")) or not tlog_verify_consistency(old, size, known_root, proof, root):
                log.error(
                    "witness %s: the log %s shows a tree of %d records that does not extend the one of %d which it showed "
                    "before: %s",
                    self.key.name, origin, size, known, note.text,
                )  # fmt: skip
                raise RefusedError(422, "the checkpoint does not extend what was seen before")
            line = note_line(self.key.name, self._signer, note.text, time=int(time.time()))
            kept = note.text + "\n" + "".join(_line_of(body, key) for key, _ in signed) + line
            self._storage.publish(self._path(origin), kept.encode())
            self._storage.sync_folder(self._folder)
            self._seen[origin] = size, root, kept
        return line

    def close(self) -> None:
        """Let go of the folder."""
        held, self._held = self._held, None
        if held is not None:
            self._storage.close(held)

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _line_of(body: bytes, key: NoteKey) -> str:
    """The signature line by this key, as it came."""
    prefix = f"— {key.name} "
    for line in body.decode().splitlines(keepends=True):
        if line.startswith(prefix) and decode_base64(line[len(prefix) : -1])[:4] == key.id:
            return line
    raise RefusedError(400, "malformed")  # it was verified before: cannot happen


def _request(body: bytes) -> tuple[int, bytes, SignedNote, tuple[str, int, bytes]]:
    if len(body) > MAX_BODY:
        raise RefusedError(400, "the request is too long")
    try:
        head, blank, text = body.decode().partition("\n\n")
        lines = head.split("\n")
        if not blank or not lines[0].startswith("old ") or len(lines) > MAX_PROOF + 1:
            raise RefusedError(400, "malformed")
        old = decode_size(lines[0][4:])
        proof = b"".join(decode_base64(line, 32) for line in lines[1:])
        note = SignedNote.parse(text)
        return old, proof, note, checkpoint_of(note.text)
    except UnicodeDecodeError:
        raise RefusedError(400, "malformed") from None
    except RefusedError:
        raise
    except AuditProofError as error:
        raise RefusedError(400, f"malformed: {error}") from None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # seconds for which a client may be silent

    @property
    def _witness(self) -> Witness:
        assert isinstance(self.server, WitnessServer)
        return self.server.witness

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if self.path != "/add-checkpoint" or not 0 <= length <= MAX_BODY:
            self.close_connection = True  # what follows is not read
            self._answer(404 if 0 <= length <= MAX_BODY else 400, "not understood\n")
            return
        try:
            self._answer(200, self._witness.add_checkpoint(self.rfile.read(length)))
        except RefusedError as refused:
            kind = "text/x.tlog.size" if refused.body is not None else "text/plain; charset=utf-8"
            self._answer(refused.status, refused.body if refused.body is not None else f"{refused}\n", kind)
        except OSError as error:
            log.error("witness %s cannot write down what it signs: %s", self._witness.key.name, error)
            self._answer(500, "cannot write\n")

    def do_GET(self) -> None:
        digest, _, name = self.path[1:].partition("/")
        note = self._witness.by_hash(digest) if name == "checkpoint" else None
        self._answer(404 if note is None else 200, note or "no such checkpoint\n")

    def _answer(self, status: int, body: str, kind: str = "text/plain; charset=utf-8") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("witness: " + format, *args)


class WitnessServer(ThreadingHTTPServer):
    """Speaks the witness protocol over HTTP; put TLS in front of it. ``serve_forever`` serves."""

    daemon_threads = True

    def __init__(self, witness: Witness, host: str = "127.0.0.1", port: int = 0) -> None:
        self.witness = witness
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"
