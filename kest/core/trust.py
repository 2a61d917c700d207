"""Trust: where a root's score comes from, and how it travels.

Scores are integers from 0 to 100. A root takes the score of its origin; any other entry takes
``min(parents) * self // 100`` of the entries it continues from, so that one weak link weakens everything behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from kest.locks import Lock

__all__ = [
    "ORIGIN_TRUST_MAP",
    "UNKNOWN_ORIGIN_TRUST",
    "DefaultTrustEvaluator",
    "TrustEvaluator",
    "check_score",
    "origin_trust",
    "register_origin_trust",
]

_origins: dict[str, int] = {
    "system": 100,
    "internal": 100,
    "verified_rag": 90,
    "third_party_api": 60,
    "user_input": 40,
    "internet": 10,
    "llm": 0,
    "adversarial": 0,
}
_lock = Lock()

ORIGIN_TRUST_MAP: Mapping[str, int] = MappingProxyType(_origins)
"""Origins and their scores; read-only. `register_origin_trust` adds to it."""

UNKNOWN_ORIGIN_TRUST = 10
"""The score of an origin that first turns up at run time: that of the internet."""


def check_score(value: object, name: str) -> int:
    """``value`` as a trust score; TypeError unless it is exactly an int, ValueError outside 0..100."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an int from 0 to 100, not {type(value).__name__}")
    if not 0 <= value <= 100:
        raise ValueError(f"{name} must be from 0 to 100, not {value}")
    return value


def register_origin_trust(name: str, score: int) -> None:
    """Add an origin that ``source_type`` may name. An origin that exists is never given another score (ValueError)."""
    if not isinstance(name, str) or not name:
        raise TypeError("the name of an origin is a non-empty str")
    check_score(score, "score")
    with _lock:
        known = _origins.get(name)
        if known is not None and known != score:
            raise ValueError(f"origin {name!r} already has trust {known}; origins can be added but not changed")
        _origins[name] = score


def origin_trust(name: str) -> int:
    """The score of an origin; one that nobody registered counts as the internet."""
    return _origins.get(name, UNKNOWN_ORIGIN_TRUST)


@runtime_checkable
class TrustEvaluator(Protocol):
    """Computes the trust of an entry that has parents."""

    def calculate(self, self_score: int, parent_scores: Sequence[int]) -> int:
        """The score (an int, 0..100) of an entry whose origin scores ``self_score`` and whose parents score these.

        ``parent_scores`` is empty for a root. A result above the weakest parent is recorded in the entry as an
        override, which verifiers accept only from principals that may sanitise.
        """
        ...


class DefaultTrustEvaluator:
    """The weakest link: ``min(parent_scores) * self_score // 100``; a root has its own score."""

    __slots__ = ()

    def calculate(self, self_score: int, parent_scores: Sequence[int]) -> int:
        """See `TrustEvaluator.calculate`."""
        return min(parent_scores) * self_score // 100 if parent_scores else self_score
