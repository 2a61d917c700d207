"""Claim checks: where a passport waits that is too large to travel in a header."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Protocol, runtime_checkable

from kest.errors import ConfigurationError
from kest.locks import Lock

__all__ = ["CLAIM_TTL", "CacheProvider", "SimpleCache"]

CLAIM_TTL = 300.0
"""Seconds for which a claim check can be redeemed."""


@runtime_checkable
class CacheProvider(Protocol):
    """Keeps short texts under random keys for a while."""

    def get(self, key: str) -> str | None:
        """The text, or None when it is missing or expired."""
        ...

    def set(self, key: str, value: str, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds; raises when it cannot."""
        ...


class SimpleCache:
    """A cache in this process's memory: for tests and single-process applications. Bounded in time, count and bytes."""

    def __init__(self, ttl: float = CLAIM_TTL, max_items: int = 10_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        if not ttl > 0 or max_items < 1 or max_bytes < 1:
            raise ConfigurationError("SimpleCache needs a positive ttl, max_items and max_bytes")
        self._ttl = ttl
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> str | None:
        """See `CacheProvider.get`."""
        with self._lock:
            found = self._items.get(key)
            if found is None:
                return None
            if found[0] < time.monotonic():
                self._drop(key)
                return None
            return found[1]

    def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """See `CacheProvider.set`. The oldest records make room for new ones."""
        if len(value) > self._max_bytes:
            raise ConfigurationError(f"a record of {len(value)} bytes does not fit a SimpleCache of {self._max_bytes}")
        with self._lock:
            if key in self._items:
                self._drop(key)
            while self._items and (len(self._items) >= self._max_items or self._bytes + len(value) > self._max_bytes):
                self._drop(next(iter(self._items)))
            self._items[key] = (time.monotonic() + (self._ttl if ttl is None else ttl), value)
            self._bytes += len(value)

    def delete(self, key: str) -> None:
        """Forget a record, if it is there."""
        with self._lock:
            if key in self._items:
                self._drop(key)

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._items.pop(key)[1])

    def __len__(self) -> int:
        return len(self._items)
