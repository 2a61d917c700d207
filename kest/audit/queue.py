"""The queue between callers and the writer's thread: bounded, and nothing in it is ever dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from kest.audit.pending import Pending
from kest.audit.writer import Item

__all__ = ["Queue", "size_of"]

Queued = Item | Pending

MAX_BATCH, MAX_BATCH_BYTES = 4096, 4 << 20
"""A group commit is at most this large."""


def size_of(item: Queued) -> int:
    """Bytes, about."""
    if type(item) is str:
        return len(item)
    if type(item) is tuple:
        return len(item[2]) + 512
    inner = item.item  # type: ignore[union-attr]
    return 0 if inner is None else size_of(inner)


class Queue:
    """Records in the order in which they came. ``full`` says that whoever adds more has to wait for it."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._items: deque[Queued] = deque()
        self._max_records, self._max_bytes = max_records, max_bytes
        self._bytes = 0
        self._lock = threading.Lock()  # held for a few instructions; after a fork nobody uses the queue
        self._wake = threading.Event()
        self._idle = self._hurried = self._sealed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def full(self) -> bool:
        return len(self._items) >= self._max_records or self._bytes >= self._max_bytes

    def add(self, item: Queued, urgent: bool = False) -> bool:
        """False if nobody takes anything out any more."""
        size = len(item) if type(item) is str else size_of(item)
        with self._lock:
            if self._sealed:
                return False
            self._items.append(item)
            self._bytes += size
        if urgent:
            self.hurry()
        elif self._idle:
            self._wake.set()
        return True

    def seal(self, left: Iterable[Queued] | None = None) -> bool:
        """Take nothing more in: if it is empty, or in any case with what could not be dealt with, which stays in it."""
        with self._lock:
            if left is None and self._items:
                return False
            self._items.extendleft(reversed(list(left or ())))
            self._sealed = True
        return True

    def drop(self, which: Callable[[Queued], bool]) -> list[Queued]:
        """Take those out that nobody is to write, in order."""
        with self._lock:
            dropped = [item for item in self._items if which(item)]
            if dropped:
                self._items = deque(item for item in self._items if not which(item))
                self._bytes = sum(map(size_of, self._items))
        return dropped

    def take(self) -> list[Queued]:
        """A batch, from the front."""
        batch: list[Queued] = []
        size = 0
        self._hurried = False
        with self._lock:
            items = self._items
            while items and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
                item = items.popleft()
                size += size_of(item)
                batch.append(item)
            self._bytes -= size
        return batch

    def wait_for_any(self, timeout: float | None) -> None:
        """Until something is there, or somebody wakes us."""
        self._idle = True
        if not self._items:
            self._wake.wait(timeout)
        self._idle = False
        self._wake.clear()

    def gather(self, seconds: float) -> None:
        """Let more records come, unless somebody waits for one of those that are there."""
        if not self._hurried and self._wake.wait(seconds):
            self._wake.clear()

    def hurry(self) -> None:
        """Take what is there at once."""
        self._hurried = True
        self._wake.set()
