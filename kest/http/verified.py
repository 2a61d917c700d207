"""What verified before, so that a chain that grew by one entry costs one signature.

An entry's text, signature included, fixes its parents' hashes; whether it verifies depends on that and on the keys. So what
was verified under a ring of keys stays verified under it; a new ring forgets everything.
"""

from __future__ import annotations

from kest._kestcore import KeyRing, KnownEntries

__all__ = ["VerifiedEntries"]


class VerifiedEntries:
    """The entries that verified under the latest ring of keys. Thread-safe, bounded."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: tuple[KeyRing, KnownEntries] | None = None

    def under(self, ring: KeyRing) -> KnownEntries:
        """What verified under this ring."""
        known = self._known  # one reference, so that a change by another thread cannot come in between
        if known is None or known[0] is not ring:
            known = self._known = ring, KnownEntries(ring)
        return known[1]
