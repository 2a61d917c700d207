"""`AuditLog`: the sink that ``configure(audit=...)`` takes."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest._kestcore import Signer
from kest.audit.committer import Committer
from kest.audit.note import Checkpoint, NoteKey, checked_name, signer_of
from kest.audit.pending import Pending
from kest.audit.queue import Queue
from kest.audit.records import TYPES, event_payload
from kest.audit.storage import Storage
from kest.audit.writer import Item, LogWriter, Recovery
from kest.errors import AuditError, AuditUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType

    from kest.audit.redaction import Redaction

__all__ = ["AuditLog", "open_logs"]

log = logging.getLogger("kest.audit")

ON_FAILURE = ("fail", "block")


MAX_PAYLOAD, MAX_JWS = 12_000_000, 16 * 1024 * 1024
"""Bytes of a record before and after it is signed: what readers take as a JWS (16 MiB), with room for a header."""


def _fits(size: int, most: int) -> None:
    """Refuse what could never be written: behind it everything else would wait for ever."""
    if size > most:
        raise AuditError(f"a record of {size:,} bytes; the most is {most:,}: record a hash of what is larger")


class AuditLog:
    """An append-only log of signed records, in files that others can verify.

    Records go through a bounded queue to one thread, which writes them in groups, each with one sync of the disk, and brings
    them under a signed checkpoint once a second. Nothing is dropped: when the queue is full, callers wait. Thread-safe.

    Args:
        path: a folder; made if it is not there. One process writes to it at a time.
        signer: an identity with an Ed25519 key in this process; its key is the log's for life.
        origin: the log's name in checkpoints; by default the identity's principal without its scheme.
        on_failure: when records cannot be written, calls ``"fail"`` before they run, or ``"block"`` until they can be.
        durable_intents: every call waits until its entry is on the disk before it runs. Otherwise the entry is in the queue
            when the call runs, and on the disk some milliseconds later.
        commit_interval: seconds for which a group gathers records when nobody waits for them.
        checkpoint_interval: seconds between checkpoints, while there is something new.
        max_pending, max_pending_bytes: how much the queue holds.
        redaction: fields that are written as salted commitments, so that they can be erased; see `Redaction`.
        close_timeout: seconds for which `close` tries to write what is left; the end of the process, too.
        storage: the file operations; for tests.

    Attributes:
        signer_kind: the class of ``signer``.
        on_failure, durable_intents, max_pending, redaction: as given.

    Raises:
        AuditLockedError: somebody else writes to it.
        AuditCorruptError: what is there is not the log that was written.
        ConfigurationError: an argument will not do.
    """

    def __init__(
        self,
        path: str | Path,
        signer: Any,
        *,
        origin: str | None = None,
        on_failure: str = "fail",
        durable_intents: bool = False,
        commit_interval: float = 0.005,
        checkpoint_interval: float = 1.0,
        max_pending: int = 10_000,
        max_pending_bytes: int = 64 << 20,
        redaction: Redaction | None = None,
        close_timeout: float = 10.0,
        storage: Storage | None = None,
    ) -> None:
        if on_failure not in ON_FAILURE:
            raise ConfigurationError(f"on_failure is one of {', '.join(ON_FAILURE)}, not {on_failure!r}")
        if max_pending < 1 or max_pending_bytes < 1 or min(commit_interval, checkpoint_interval, close_timeout) < 0:
            raise ConfigurationError("limits of an audit log are positive, and its intervals not negative")
        key = signer_of(signer)
        name = checked_name(key.principal.partition("://")[2] or key.principal if origin is None else origin)
        self._signer = key.renamed(name)
        self.signer_kind = type(signer).__name__
        self.on_failure, self.durable_intents = on_failure, durable_intents
        self.max_pending, self.redaction = max_pending, redaction
        self._writer = LogWriter(path, name, key, storage)
        self._queue = Queue(max_pending, max_pending_bytes)
        self._blocks, self._durable = on_failure == "block", durable_intents
        self._close_timeout, self._redaction = close_timeout, redaction
        self._committer = Committer(
            self._writer,
            self._queue,
            blocks=self._blocks,
            commit_interval=commit_interval,
            checkpoint_interval=checkpoint_interval,
            redaction=redaction,
        )
        self._problems = self._committer.problems
        self._state = "open"  # then "closing", "closed", or "forked"
        self._thread = threading.Thread(target=self._committer.run, name="kest-audit", daemon=True)
        self._thread.start()
        _open_logs.add(self)
        self.record_event("log", {"event": "opened", **_told(self._writer.recovery)})

    # --- what it is ---

    @property
    def path(self) -> Path:
        return self._writer.layout.root

    @property
    def key(self) -> NoteKey:
        """What its checkpoints verify with; ``key.vkey`` is its text form, ``key.name`` the origin."""
        return self._writer.key

    @property
    def recovery(self) -> Recovery:
        """What opening it found."""
        return self._writer.recovery

    @property
    def last(self) -> Checkpoint:
        """The newest checkpoint; of size 0 and unsigned before there is one."""
        return self._writer.checkpoint

    @property
    def pending(self) -> int:
        """Records in the queue."""
        return len(self._queue)

    @property
    def failure(self) -> Exception | None:
        """Why records cannot be written now; None when they can."""
        return next(iter(self._problems.values()), None)

    def __repr__(self) -> str:
        return f"<AuditLog {self.key.name} in {self.path}, {self._state}>"

    # --- the sink ---

    def record(self, kind: str, jws: str) -> Pending | None:
        """Take over a signed record. What it returns, unless None, is to be waited for before going on.

        Raises:
            AuditUnavailableError: the log is closed, or belongs to the process before a fork; or records cannot be
                written now, and calls are to fail then. An outcome is taken in that case too: its call has run.
        """
        if not jws.isascii():
            raise AuditError("a record is a compact JWS, which is ASCII")
        item: Item = jws
        if self._redaction is not None and kind == "entry":
            item = self._redaction.intent(jws, self._signer)
        return self._take(kind, item)

    def record_unsigned(self, kind: str, signer: Signer, typ: str, payload: bytes) -> Pending | None:
        """The same for a record that is signed on its way to the disk."""
        if self._redaction is not None and kind == "denial":
            payload = self._redaction.denial(payload)
        _fits(len(payload), MAX_PAYLOAD)
        return self._take(kind, (signer, typ, payload))

    def _take(self, kind: str, item: Item) -> Pending | None:
        queue = self._queue
        if self._state != "open":
            raise self._refusal()
        durable = self._durable and kind == "entry"
        if self._problems and not self._blocks:
            if kind == "entry" or (kind != "outcome" and queue.full):
                raise self._refusal()
            self._put(item)
            return None
        if durable or self._problems or queue.full:
            pending = Pending(kind, item)
            self._put(pending, urgent=True)
            return pending
        self._put(item)
        return None

    def _put(self, item: Item | Pending, urgent: bool = False) -> None:
        if not self._queue.add(item, urgent):
            raise self._refusal()

    def _refusal(self) -> AuditUnavailableError:
        where = f"the audit log in {self.path}"
        if self._state == "forked":
            return AuditUnavailableError(
                f"{where} belongs to the process that this one was forked from: open a log of its own after the fork"
            )
        if self._state != "open":
            return AuditUnavailableError(f"{where} is closed")
        return AuditUnavailableError(f"{where} cannot be written to: {self.failure}")

    # --- for others ---

    def append(self, record: str) -> Pending:
        """Add a signed record (a compact JWS). ``append(...).wait()`` returns its index, once it is on the disk.

        Raises:
            AuditUnavailableError: as for `record`.
            AuditError: it is no text of ASCII characters.
        """
        if not record.isascii() or not record.isprintable() or not record:
            raise AuditError("a record is a compact JWS: ASCII, without control characters")
        _fits(len(record), MAX_JWS)
        if self._state != "open" or (self._problems and not self._blocks):
            raise self._refusal()
        pending = Pending("record", record)
        self._put(pending, urgent=True)
        return pending

    def record_event(self, kind: str, members: Mapping[str, Any], signer: Any = None) -> Pending:
        """Add a record that this process makes, signed with the log's key or another.

        Args:
            kind: ``"verdict"`` (of a gate), ``"key"``, ``"log"``, ``"denial"`` or ``"outcome"``.
            members: what it says, as JSON. ``record``, ``schema_version`` and, unless given, ``timestamp_ms`` are added.
            signer: an identity that signs in this process.
        """
        if kind not in TYPES:
            raise AuditError(f"there is no kind of record {kind!r}; there are {', '.join(TYPES)}")
        if self._state != "open":
            raise self._refusal()
        key = self._signer if signer is None else signer_of(signer)
        payload = event_payload(kind, members)
        _fits(len(payload), MAX_PAYLOAD)
        pending = Pending(kind, (key, TYPES[kind], payload))
        self._put(pending)
        return pending

    def flush(self, timeout: float | None = None) -> int:
        """Wait until everything that was recorded before is on the disk; how many records there are.

        Raises:
            TimeoutError: it is not yet.
        """
        size: int = self._do(lambda writer: writer.size).wait(timeout)
        return size

    def checkpoint(self, timeout: float | None = None) -> Checkpoint:
        """`flush`, and bring it all under a signed checkpoint.

        Raises:
            TimeoutError: that takes longer.
            AuditUnavailableError: it could not be written; the records are safe in the journal.
        """
        try:
            result: Checkpoint = self._do(self._committer.publish_now).wait(timeout)
        except TimeoutError:
            raise
        except OSError as error:
            raise AuditUnavailableError(f"no checkpoint could be written to {self.path}: {error}") from error
        return result

    def call(self, action: Callable[[LogWriter], Any]) -> Any:
        """What ``action`` returns when the writer's thread runs it in its turn."""
        return self._do(action).wait()

    def add_cosignatures(self, checkpoint: Checkpoint, lines: str) -> bool:
        """Append signature lines of witnesses to the newest checkpoint; False if it is another one by now."""
        added: bool = self.call(lambda writer: writer.add_cosignatures(checkpoint, lines))
        return added

    def watch(self, watcher: Callable[[Checkpoint], None]) -> None:
        """Call ``watcher`` in the writer's thread with every new checkpoint; it must not wait for the log."""
        self._committer.watchers.append(watcher)

    def erase(self, subject: str) -> int:
        """Erase what identifies a person (see `Redaction`), and record that it was done; how many records it was in."""
        if self._redaction is None:
            raise AuditError("this log was opened without redaction=: it holds nothing that can be erased")
        self.flush()
        count = self._redaction.erase(subject)
        self.record_event("log", {"event": "erased", "count": count}).wait()
        return count

    def _do(self, action: Callable[[LogWriter], Any]) -> Pending:
        if self._state != "open":
            raise self._refusal()
        pending = Pending("action", None, action)
        self._put(pending, urgent=True)
        return pending

    # --- the end ---

    def close(self, timeout: float | None = None) -> None:
        """Write what is left, under a last checkpoint, and let go of the folder.

        Raises:
            AuditError: not everything could be written; the message says how many records are lost.
        """
        if self._state != "open":
            return
        try:
            self.record_event("log", {"event": "closed"})
        finally:
            self._state = "closing"
            self._committer.finish(self._close_timeout if timeout is None else timeout)
            self._thread.join()
            self._state = "closed"
            _open_logs.discard(self)
            self._writer.close()
            if self._redaction is not None:
                self._redaction.close()
        left = self._queue.drop(lambda item: True)
        for item in left:
            if type(item) is Pending and not item.done and item.begin():
                item.fail(self._refusal())
        if lost := sum(type(item) is not Pending or item.action is None for item in left):
            raise AuditError(f"{lost} records could not be written to {self.path} and are lost: {self.failure}")
        if self._problems:
            raise AuditError(
                f"everything is on the disk, but not under a checkpoint, in {self.path}: {self.failure}. Open the log "
                "again when that is mended"
            )

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _leave(self) -> None:
        """In the child of a fork."""
        self._state = "forked"
        self._writer.forget()


def _told(recovery: Recovery) -> dict[str, Any]:
    torn = [{"segment": t.segment, "offset": t.offset, "size": t.size, "sha256": t.sha256} for t in recovery.torn]
    return {"found": recovery.size, "published": recovery.published, "torn": torn}


_open_logs: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def open_logs() -> list[AuditLog]:
    """Those that this process writes."""
    return list(_open_logs)


def _close_all() -> None:
    """At the end of the process: nothing that was recorded stays in memory only."""
    for one in list(_open_logs):
        try:
            one.close()
        except AuditError as error:
            log.error("%s", error)


def _forked() -> None:
    for one in list(_open_logs):
        one._leave()
    _open_logs.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
