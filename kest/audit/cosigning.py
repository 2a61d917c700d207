"""Asking witnesses to cosign a log's checkpoints."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from kest.audit.log import AuditLog
from kest.audit.note import COSIGNATURE, Checkpoint, NoteKey, SignedNote, decode_size, encode_base64
from kest.audit.reader import AuditReader
from kest.core.fetch import FetchError, check_url, fetch
from kest.errors import AuditError, AuditProofError, ConfigurationError, KestError

__all__ = ["Cosigner", "WitnessClient"]

log = logging.getLogger("kest.audit")


class WitnessClient:
    """A witness that answers under a URL.

    Args:
        url: its submission prefix; https, or http to this machine.
        vkey: its verifier key.
        timeout: seconds for a request.
    """

    def __init__(self, url: str, vkey: str | NoteKey, *, timeout: float = 5.0) -> None:
        check_url(url, "a witness")
        self.url = url.rstrip("/")
        self.key = vkey if isinstance(vkey, NoteKey) else NoteKey.parse(vkey)
        if self.key.kind != COSIGNATURE:
            raise ConfigurationError(f"{self.key.name} is no witness's key (signature type 4)")
        self._timeout = timeout
        self._size = 0  # what it has seen, as far as we know

    def cosign(self, reader: AuditReader) -> str:
        """Its signature lines under the reader's checkpoint, verified.

        Raises:
            AuditError: it cannot be reached, or it refuses (``AuditProofError``): the log does not extend what it has seen.
        """
        for _ in range(3):  # it may know another size than we think
            status, answer = self._ask(reader)
            if status == 200:
                self._size = reader.size
                return self._checked(answer, reader.checkpoint)
            if status != 409:
                said = f"witness {self.key.name} refuses the checkpoint (HTTP {status}): {answer[:200]}"
                raise AuditProofError(said, "refused")
            self._size = decode_size(answer.rstrip("\n"))
            if self._size > reader.size:
                raise AuditProofError(
                    f"witness {self.key.name} saw {self._size} records of {reader.key.name}, this one has {reader.size}: "
                    "rolled back",
                    "rolled back",
                )
        raise AuditError(f"witness {self.key.name} does not say what it has seen")

    def _ask(self, reader: AuditReader) -> tuple[int, str]:
        lines = [f"old {self._size}", *(encode_base64(one) for one in reader.consistency(self._size))]
        request = "\n".join(lines) + "\n\n" + reader.checkpoint.note
        try:
            answer = fetch(
                f"{self.url}/add-checkpoint", timeout=self._timeout, max_bytes=1 << 16, send=request.encode(),
                statuses=(200, 400, 403, 404, 409, 422),
            )  # fmt: skip
            return answer.status, answer.body.decode()
        except (FetchError, UnicodeDecodeError) as error:
            raise AuditError(f"witness {self.key.name} does not answer: {error}") from None

    def _checked(self, lines: str, checkpoint: Checkpoint) -> str:
        """Only the lines by the witness's key; each verified."""
        note = SignedNote.parse(f"{checkpoint.text}\n{lines}")
        if not note.verified_by([self.key]):
            raise AuditProofError(f"witness {self.key.name} answered with signatures of others", "signature")
        wanted = f"— {self.key.name} "
        return "".join(line for line in lines.splitlines(keepends=True) if line.startswith(wanted))


class Cosigner:
    """Has every new checkpoint of a log cosigned, in a thread of its own. What a witness refuses is logged as an error.

    ``with Cosigner(log, [WitnessClient(...)]):``, or `start` and `close`. ``cosign`` does it once, here and now.
    """

    def __init__(self, log: AuditLog, witnesses: Iterable[WitnessClient]) -> None:
        self._log, self._witnesses = log, tuple(witnesses)
        self._new = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def cosign(self) -> Checkpoint:
        """Publish a checkpoint and have it cosigned by every witness.

        Raises:
            AuditError: of the first witness that does not; the others were asked all the same.
        """
        self._log.checkpoint()
        return self._cosign()

    def _cosign(self) -> Checkpoint:
        reader = AuditReader(self._log.path, self._log.key)
        first: KestError | None = None
        for witness in self._witnesses:
            try:
                lines = witness.cosign(reader)
                self._log.add_cosignatures(reader.checkpoint, lines)
            except KestError as error:
                first = first or error
        if first is not None:
            raise first
        keys = [witness.key for witness in self._witnesses]
        return Checkpoint.verify(self._log.path.joinpath("checkpoint").read_bytes(), self._log.key, keys)

    def start(self) -> Cosigner:
        self._log.watch(lambda checkpoint: self._new.set())
        self._thread = threading.Thread(target=self._run, name="kest-audit-cosigner", daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        while True:
            self._new.wait()
            self._new.clear()
            if self._ended:
                return
            try:
                self._cosign()
            except KestError as error:
                log.error("%s", error)

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        self._new.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Cosigner:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
