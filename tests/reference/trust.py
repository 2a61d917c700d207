"""How trust and taints travel (PRODUCT section 3, steps 4 and 5; section 5, origin map; F-TS-01..05, F-TT-04)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_TRUST = 100
UNKNOWN_ORIGIN_TRUST = 10
ORIGIN_TRUST = {
    "system": 100,
    "internal": 100,
    "verified_rag": 90,
    "third_party_api": 60,
    "user_input": 40,
    "internet": 10,
    "llm": 0,
    "adversarial": 0,
}


def propagate(parents_scores: Sequence[int], self_score: int) -> int:
    """A root has its own (origin) score; everything else the weakest parent's, scaled down, in integers."""
    if not parents_scores:
        return self_score
    return (min(parents_scores) * self_score) // MAX_TRUST


def taints(parents: Iterable[Iterable[str]], added: Iterable[str], removed: Iterable[str]) -> list[str]:
    """Sorted by code point, which is also the order of the UTF-8 bytes (not the UTF-16 order of RFC 8785 keys)."""
    before = {taint for parent in parents for taint in parent} | set(added)
    return sorted(before - set(removed))
