"""The decision cache: what an engine said about exactly this question a moment ago.

The key is the engine object, the tier and its policy names, and the SHA-256 of the whole policy input without its per-call
ids, so two calls that a policy could tell apart never share a decision. Errors are never cached.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

from kest.core.engine.base import Decision
from kest.errors import ConfigurationError
from kest.locks import Lock

__all__ = ["DecisionCache", "decisions", "invalidate_policy_cache", "ttl_from_environment"]

DEFAULT_TTL = 5.0
MAX_DECISIONS = 8192

Key = tuple[int, str, tuple[str, ...], tuple[str, ...], bytes]


def ttl_from_environment() -> float:
    """``KEST_POLICY_CACHE_TTL`` in seconds; 0 turns the cache off."""
    text = os.environ.get("KEST_POLICY_CACHE_TTL", "").strip()
    if not text:
        return DEFAULT_TTL
    try:
        ttl = float(text)
    except ValueError:
        ttl = math.nan
    if not 0 <= ttl <= 86400:
        raise ConfigurationError(f"KEST_POLICY_CACHE_TTL must be seconds from 0 to 86400, not {text!r}")
    return ttl


class DecisionCache:
    """A bounded map with one time to live; the oldest decisions go first."""

    def __init__(self, ttl: float, bound: int = MAX_DECISIONS) -> None:
        self.ttl = ttl
        self._bound = bound
        self._lock = Lock()
        # The engine is part of the value: as long as the entry lives, no other object can have its id.
        self._entries: dict[Key, tuple[float, Any, Decision]] = {}
        self.generation = 0

    def get(self, key: Key) -> Decision | None:
        """The decision, if it is still good."""
        found = self._entries.get(key)
        if found is None or found[0] < time.monotonic():
            return None
        return found[2]

    def put(self, key: Key, engine: Any, decision: Decision, generation: int) -> None:
        """Remember a decision that was asked for at ``generation``; nothing from before an invalidation comes back."""
        with self._lock:
            if generation != self.generation:
                return
            self._entries.pop(key, None)
            while len(self._entries) >= self._bound:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = (time.monotonic() + self.ttl, engine, decision)

    def clear(self) -> None:
        """Forget everything, now."""
        with self._lock:
            self.generation += 1
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


decisions = DecisionCache(DEFAULT_TTL)


def invalidate_policy_cache() -> None:
    """Forget every cached decision: the next call of each function asks its engine again."""
    decisions.clear()
