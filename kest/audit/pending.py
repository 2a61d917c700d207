"""A record that is on its way to the disk."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

from kest.audit.writer import Item, LogWriter
from kest.errors import AuditUnavailableError

__all__ = ["Pending"]


class Pending:
    """A place in the queue that can be waited for, or taken back as long as nothing was written.

    Either a record, or something that the writer's thread is to do in its turn.
    """

    __slots__ = ("_dropped", "_future", "action", "item", "kind")

    def __init__(self, kind: str, item: Item | None, action: Callable[[LogWriter], Any] | None = None) -> None:
        self.kind, self.item, self.action = kind, item, action
        self._dropped = False
        self._future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    # --- for callers ---

    def wait(self, timeout: float | None = None) -> Any:
        """The record's index, once it is on the disk.

        Raises:
            AuditUnavailableError: it is not, and will not be: it was taken back.
            TimeoutError: it is not yet, and stays in the queue.
        """
        try:
            return self._future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError("the record is not on the disk yet; it stays in the queue") from None
        except concurrent.futures.CancelledError:
            raise _taken_back() from None

    async def wait_async(self) -> Any:
        """The same without holding up the event loop."""
        # Shielded: a caller that is cancelled decides by itself whether to take the record back.
        inner = asyncio.wrap_future(self._future)
        inner.add_done_callback(_looked_at)
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            if inner.cancelled():  # the record, not whoever waits here
                raise _taken_back() from None
            raise

    def __await__(self) -> Any:
        return self.wait_async().__await__()

    @property
    def done(self) -> bool:
        """On the disk, or taken back."""
        return self._future.done()

    def withdraw(self) -> bool:
        """Take it back; False if it is being written already, or was. True, too, if it never will be."""
        return self._dropped or self._future.cancel()

    # --- for the writer's thread ---

    def begin(self) -> bool:
        """From here on it cannot be taken back; False if it was."""
        return self._future.running() or self._future.set_running_or_notify_cancel()

    def settle(self, result: Any) -> None:
        self._future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """It is not written, and will not be."""
        self._dropped = True
        self._future.set_exception(error)


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Nobody may be waiting for it any more; that is no reason to complain of an exception that nobody saw."""
    if not future.cancelled():
        future.exception()


def _taken_back() -> AuditUnavailableError:
    return AuditUnavailableError("the record was taken back before it was written")
