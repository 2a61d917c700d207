"""Queues whose depth is a metric (``kest.queue.depth``). Whoever has a queue registers it here; nobody imports its owner.

Needs nothing of OpenTelemetry: where no MeterProvider is configured, registering a queue does nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from kest.locks import Lock

__all__ = ["QueueDepth", "depths", "register_queue"]

log = logging.getLogger("kest.telemetry")

_lock = Lock()
_queues: tuple[QueueDepth, ...] = ()


class QueueDepth:
    """A registered queue; `close` ends the registration."""

    __slots__ = ("_failed", "capacity", "depth", "name")

    def __init__(self, name: str, depth: Callable[[], int], capacity: int | None) -> None:
        self.name = name
        self.depth = depth
        self.capacity = capacity
        self._failed = False

    def read(self) -> int | None:
        """How much waits in it now; None (and one line in the log) if ``depth`` cannot say."""
        try:
            return int(self.depth())
        except Exception as error:
            if not self._failed:
                self._failed = True
                log.warning("the depth of queue %s is unknown: it raised %s", self.name, type(error).__name__)
            return None

    def close(self) -> None:
        """Not measured any more. Idempotent."""
        global _queues
        with _lock:
            _queues = tuple(queue for queue in _queues if queue is not self)

    def __enter__(self) -> QueueDepth:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def register_queue(name: str, depth: Callable[[], int], capacity: int | None = None) -> QueueDepth:
    """Let ``kest.queue.depth`` (and ``kest.queue.capacity``) say how full a queue is.

    Args:
        name: of few values, such as ``audit``: it is the attribute ``kest.queue.name``. Equal names are added up.
        depth: how many records wait. Called when metrics are collected, from another thread, and must not block.
        capacity: at most how many can wait, where there is a bound.
    """
    global _queues
    queue = QueueDepth(name, depth, capacity)
    with _lock:
        _queues = (*_queues, queue)
    return queue


def depths() -> Iterator[tuple[str, int, int | None]]:
    """(name, depth, capacity) of each name."""
    found: dict[str, tuple[int, int | None]] = {}
    for queue in _queues:
        depth = queue.read()
        if depth is None:
            continue
        known, capacity = found.get(queue.name, (0, None))
        if queue.capacity is not None:
            capacity = (capacity or 0) + queue.capacity
        found[queue.name] = (known + depth, capacity)
    for name, (depth, capacity) in found.items():
        yield name, depth, capacity
