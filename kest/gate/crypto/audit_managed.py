"""ManagedAuditChain: a signed audit chain that writes itself to a file and forgets what is written."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, final

from kest.errors import AuditChainError, GateInputError
from kest.gate.crypto.audit_chain import SignedAuditChain
from kest.gate.crypto.audit_entry import AuditEntry
from kest.gate.crypto.audit_format import read_line
from kest.gate.crypto.keys import KeyPair
from kest.locks import Lock

__all__ = ["ManagedAuditChain"]

log = logging.getLogger("kest.gate")


@final
class ManagedAuditChain:
    """Entries are signed at once, kept in memory, and moved to a file by `flush`: on disk before they are forgotten.

    A file that is there already is verified and continued. Lines at its end that a crash cut short, or that no
    signature covers, are moved to ``<sink_path>.torn``: nobody was told that they were written. One process writes a
    file at a time.

    Args:
        keypair: signs.
        sink_path: the file of JSON lines, mode 0600.
        hybrid: see `SignedAuditChain`.
        max_entries, max_bytes: what may be in memory before an append flushes.
        flush_interval_secs: flush in the background that often.
        min_retained: entries that `flush` leaves in memory.
        on_sink_failure: ``buffer``: keep entries in memory, up to ``buffer_ceiling``, while the file cannot be written;
            ``reject``: refuse to append once over a threshold.
        buffer_ceiling: entries in memory beyond which nothing is appended.
    """

    def __init__(
        self,
        keypair: KeyPair,
        sink_path: str | Path,
        hybrid: bool = True,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        flush_interval_secs: float | None = None,
        min_retained: int = 256,
        on_sink_failure: Literal["buffer", "reject"] = "buffer",
        buffer_ceiling: int = 1_000_000,
    ) -> None:
        for name, value, least in (
            ("max_entries", max_entries, 1),
            ("max_bytes", max_bytes, 1),
            ("min_retained", min_retained, 0),
            ("buffer_ceiling", buffer_ceiling, 1),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise GateInputError(f"{name} is an int of at least {least}")
        if flush_interval_secs is not None and not 0 < flush_interval_secs <= 86_400:
            raise GateInputError("flush_interval_secs is positive and at most a day")
        if on_sink_failure not in ("buffer", "reject"):
            raise GateInputError("on_sink_failure is 'buffer' or 'reject'")
        self._path = Path(sink_path)
        self._most, self._most_bytes, self._keep, self._ceiling = max_entries, max_bytes, min_retained, buffer_ceiling
        self._rejects = on_sink_failure == "reject"
        self._lock = Lock()
        self._handle = self._open()
        try:
            self._chain = SignedAuditChain.resume(keypair, self._existing(), hybrid)
        except BaseException:
            os.close(self._handle)
            raise
        self._written = self._chain.length
        self._appended = self._evicted = self._bytes = self._failures = 0
        self._healthy = True
        self._owner = os.getpid()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if flush_interval_secs is not None:
            self._thread = threading.Thread(
                target=self._run, args=(float(flush_interval_secs),), name="kest-audit-flush", daemon=True
            )
            self._thread.start()

    # --- the file ---

    def _open(self) -> int:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AuditChainError(f"audit file {str(self._path)!r} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise AuditChainError(
                f"audit file {str(self._path)!r} is being written by another process or chain"
            ) from None
        return handle

    def _existing(self) -> bytes:
        """What is in the file, without the lines at its end that were never acknowledged."""
        data = self._path.read_bytes()
        end = data.rfind(b"\n") + 1
        while end:
            start = data.rfind(b"\n", 0, end - 1) + 1
            line = data[start : end - 1]
            if line.strip() and read_line(line, data.count(b"\n", 0, start)).seal is not None:
                break
            end = start
        if end < len(data):
            torn = Path(f"{self._path}.torn")
            with open(torn, "ab") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(data[end:] + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.ftruncate(self._handle, end)
            log.error(
                "audit file %s ended in %d bytes that a crash cut short; moved to %s", self._path, len(data) - end, torn
            )
        return data[:end]

    def _store(self) -> None:
        """Write what is not written yet, and wait until it is on disk. OSError when that fails; nothing is half there."""
        data = self._chain.entries_since_jsonl(self._written)
        if not data:
            return
        before = os.fstat(self._handle).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, before)
            raise
        self._written = self._chain.length

    def _flush(self, keep: int) -> int:
        """With the lock held: store everything, forget all but the newest ``keep``."""
        if self._owner != os.getpid():
            return 0  # the parent writes what it had at the fork
        try:
            self._store()
        except OSError as error:
            self._failures += 1
            self._healthy = False
            log.error(
                "audit file %s cannot be written (%s); entries stay in memory", self._path, error.strerror or error
            )
            return 0
        self._healthy = True
        evicted = self._chain.prune_before(self._chain.length - keep)
        self._evicted += evicted
        self._bytes = len(self._chain.export_jsonl())
        return evicted

    def _run(self, interval: float) -> None:
        while not self._stop.wait(interval):
            try:
                self.flush()
            except Exception:
                log.exception("flushing an audit chain failed")

    # --- using it ---

    def append(self, entry: AuditEntry) -> int:
        """Sign an entry; returns the new length.

        Raises:
            AuditChainError: memory is full of entries that could not be written.
            SigningError: the key has expired.
        """
        return self.append_batch([entry])

    def append_batch(self, entries: Iterable[AuditEntry]) -> int:
        """Sign entries under one signature; see `SignedAuditChain.append_batch`."""
        batch = list(entries)
        if self._owner != os.getpid():
            raise AuditChainError(
                "the audit file belongs to the process that forked: open another file in this process"
            )
        with self._lock:
            if self._stop.is_set():
                raise AuditChainError("the audit chain is closed")
            if self._over() or self._chain.resident_entries >= self._ceiling:
                self._flush(min(self._keep, self._ceiling - 1))
            if not self._healthy and (
                self._chain.resident_entries >= self._ceiling or (self._rejects and self._over())
            ):
                raise AuditChainError(
                    f"audit file {str(self._path)!r} cannot be written, and memory holds no more entries"
                )
            before = self._chain.length
            length = self._chain.append_batch(batch)
            self._appended += length - before
            self._bytes += len(self._chain.entries_since_jsonl(before))
            if self._over():
                self._flush(self._keep)
            return length

    def _over(self) -> bool:
        unwritten = self._chain.length - self._written
        full = self._most is not None and self._chain.resident_entries > self._most
        heavy = self._most_bytes is not None and self._bytes > self._most_bytes
        return (full or heavy) and (unwritten > 0 or self._chain.resident_entries > self._keep)

    def flush(self) -> int:
        """Write everything to the file; returns how many entries were then forgotten (all but ``min_retained``)."""
        with self._lock:
            return self._flush(self._keep)

    def drain(self) -> int:
        """Write and forget everything; returns how many were forgotten."""
        with self._lock:
            return self._flush(0)

    def close(self) -> None:
        """Write everything and close the file. Entries that cannot be written stay in `export_tail_jsonl`."""
        with self._lock:
            if self._stop.is_set():
                return
            self._stop.set()
            self._flush(0)
            os.close(self._handle)
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> ManagedAuditChain:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def checkpoint(self) -> bytes:
        """See `SignedAuditChain.checkpoint`."""
        return self._chain.checkpoint()

    def export_tail_jsonl(self) -> bytes:
        """The entries that are not in the file yet: file and tail together are the whole chain."""
        with self._lock:
            return self._chain.entries_since_jsonl(self._written)

    # --- what it is ---

    @property
    def base_index(self) -> int:
        """Index of the first entry in memory."""
        return self._chain.base_index

    @property
    def anchor_hash(self) -> str:
        """Hash of the entry before it."""
        return self._chain.anchor_hash

    @property
    def head_hash(self) -> str:
        """Hash of the last entry."""
        return self._chain.head_hash

    @property
    def length(self) -> int:
        """How many entries there are, in the file and in memory."""
        return self._chain.length

    def __len__(self) -> int:
        return self._chain.length

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return self._chain.is_empty

    @property
    def is_hybrid(self) -> bool:
        """Whether both algorithms sign."""
        return self._chain.is_hybrid

    @property
    def resident_entries(self) -> int:
        """Entries in memory."""
        return self._chain.resident_entries

    @property
    def resident_bytes(self) -> int:
        """Bytes of the lines in memory."""
        return self._bytes

    def stats(self) -> dict[str, Any]:
        """Counters since it was opened, and how the file is."""
        with self._lock:
            return {
                "entries_appended": self._appended,
                "entries_evicted": self._evicted,
                "resident_entries": self._chain.resident_entries,
                "resident_bytes": self._bytes,
                "sink_failures": self._failures,
                "sink_healthy": self._healthy,
                "last_flush_index": self._written,
            }

    def __repr__(self) -> str:
        return f"ManagedAuditChain(sink={str(self._path)!r}, length={self.length}, resident={self.resident_entries})"
