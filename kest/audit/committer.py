"""The writer's thread: takes groups out of the queue, makes them durable, and brings them under checkpoints."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kest.audit.note import Checkpoint
from kest.audit.pending import Pending
from kest.audit.queue import Queue
from kest.audit.records import MAX_RECORD, large_pointer
from kest.audit.writer import Item, LogWriter
from kest.errors import AuditUnavailableError

if TYPE_CHECKING:
    from kest.audit.redaction import Redaction

__all__ = ["Committer"]

log = logging.getLogger("kest.audit")

FIRST_RETRY, LONGEST_RETRY, PUBLISH_RETRY = 0.05, 2.0, 0.25
"""Seconds between attempts to write what could not be written."""
HELD_BYTES = 16 << 20
"""Complete tiles are written before they are more than this, checkpoint or not."""


class Committer:
    """What runs in the writer's thread. ``problems`` says why records, or checkpoints, cannot be written now."""

    def __init__(
        self,
        writer: LogWriter,
        queue: Queue,
        *,
        blocks: bool,
        commit_interval: float,
        checkpoint_interval: float,
        redaction: Redaction | None,
    ) -> None:
        self._writer, self._queue, self._path = writer, queue, writer.layout.root
        self._blocks, self._redaction = blocks, redaction
        self._commit_interval, self._checkpoint_interval = commit_interval, checkpoint_interval
        self.problems: dict[str, Exception] = {}
        self.watchers: list[Callable[[Checkpoint], None]] = []
        self.closing = False
        self._give_up = float("inf")
        self._retry = threading.Event()
        self._published = time.monotonic()

    def finish(self, seconds: float) -> None:
        """Write what is left, and end; try no longer than this. Called in another thread."""
        self._give_up = time.monotonic() + seconds
        self.closing = True
        self._retry.set()
        self._queue.hurry()

    def run(self) -> None:
        queue, writer = self._queue, self._writer
        while True:
            closing = self.closing
            if not queue and not closing:
                left = self._published + self._checkpoint_interval - time.monotonic() if writer.unpublished else None
                queue.wait_for_any(None if left is None else max(0.0, left))
            if queue and not closing and self._commit_interval:
                queue.gather(self._commit_interval)
            batch = queue.take()
            if batch:
                left_over = self._write(batch)
                if left_over:  # given up
                    queue.seal(left_over)
                    return
            elif closing and queue.seal():
                self._publish()
                return
            if writer.held > HELD_BYTES:
                self._attempt(writer.store)
            if writer.unpublished and time.monotonic() - self._published >= self._checkpoint_interval:
                self._publish()

    def _write(self, batch: list[Any]) -> list[Any]:
        """Records up to an action, then the action; what is left over when it is time to give up."""
        start = 0
        for at, item in enumerate(batch):
            if type(item) is Pending and item.action is not None:
                if left := self._commit(batch[start:at]):
                    return left + batch[at:]
                if item.begin():
                    try:
                        item.settle(item.action(self._writer))
                    except Exception as error:
                        item.fail(error)
                start = at + 1
        return self._commit(batch[start:])

    def _commit(self, batch: list[Any]) -> list[Any]:
        retry, sign_now = FIRST_RETRY, False
        batch = [item for item in batch if type(item) is not Pending or item.begin()]
        # Once nothing is left, an empty group finds out whether the disk is there again.
        while batch or "records" in self.problems:
            try:
                items = [self._ready(item.item if type(item) is Pending else item, sign_now) for item in batch]  # type: ignore[arg-type]
                if self._redaction is not None:
                    self._redaction.commit()
                first = self._writer.commit(items, _threads(len(self._queue)))
            except Exception as error:  # OSError mostly; whatever it is, nothing was acknowledged
                if isinstance(error, ValueError) and not sign_now:
                    sign_now = True  # the header of a signed record made it too long for a bundle
                    continue
                self._fail("records", error)
                batch = self._hold(batch, error)
                if time.monotonic() >= self._give_up:
                    return batch
                self._retry.wait(min(retry, max(0.0, self._give_up - time.monotonic())))
                self._retry.clear()
                retry = min(2 * retry, LONGEST_RETRY)
                continue
            self._heal("records")
            for at, item in enumerate(batch):
                if type(item) is Pending:
                    item.settle(first + at)
            return []
        return []

    def _hold(self, batch: list[Any], error: Exception) -> list[Any]:
        """What to try again: not the intents whose callers wait, where calls fail. They have not run, and will not."""
        if self._blocks:
            return batch
        refused: list[Any] = [item for item in batch if _refusable(item)]
        refused += self._queue.drop(_refusable)
        for item in refused:
            if item.begin():
                item.fail(AuditUnavailableError(f"the audit log in {self._path} cannot be written to: {error}"))
        return [item for item in batch if not _refusable(item)]

    def _ready(self, item: Item, sign_now: bool) -> Item:
        """The item, or what stands for it in the log if it is too long for a bundle."""
        if type(item) is tuple and (sign_now or len(item[2]) > MAX_RECORD // 2):
            item = item[0].sign_jws(item[2], item[1])
        if type(item) is str and len(item) > MAX_RECORD:
            body = item.encode()
            digest, pointer = large_pointer(body)
            self._writer.put_large(digest, body)
            return pointer.decode()
        return item

    def _publish(self) -> None:
        self._attempt(self.publish_now)

    def publish_now(self, writer: LogWriter | None = None) -> Checkpoint:
        before = self._writer.checkpoint
        checkpoint = self._writer.publish()
        self._published = time.monotonic()
        self._heal("checkpoints")
        if checkpoint is not before:
            for watcher in self.watchers:
                try:
                    watcher(checkpoint)
                except Exception:
                    log.exception("somebody who watches the audit log in %s failed", self._path)
        return checkpoint

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # the records stay in the journal: the next attempt finds them there
            self._published = time.monotonic() + PUBLISH_RETRY - self._checkpoint_interval
            self._fail("checkpoints", error)

    def _fail(self, what: str, error: Exception) -> None:
        if not self.problems:
            log.error(
                "the audit log in %s cannot be written to: %s; calls %s until it can",
                self._path, error, "wait" if self._blocks else "fail",
            )  # fmt: skip
        self.problems[what] = error

    def _heal(self, what: str) -> None:
        if self.problems and self.problems.pop(what, None) is not None and not self.problems:
            log.warning("the audit log in %s can be written to again", self._path)


def _refusable(item: Any) -> bool:
    """Whether a caller waits for this record before anything happens."""
    return type(item) is Pending and item.kind in ("entry", "record")


def _threads(backlog: int) -> int:
    """Signing takes the cores that the application leaves, once records come faster than one core signs them."""
    return 1 if backlog < 1024 else min(4, os.cpu_count() or 1)
