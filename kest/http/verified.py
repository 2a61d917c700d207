"""Passports that were verified before, so that a chain that grew by one entry costs one signature.

An entry's hash covers its text, signature included, and its parents' hashes; whether it verifies depends on that and on
the keys. So what was verified under a ring of keys stays verified under it, and a passport that begins with a known one
needs only its new entries verified. A new ring forgets everything.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from kest import _kestcore
from kest._kestcore import KeyRing, Passport
from kest.core.baggage import (
    CHAIN_TIP,
    CLAIM_CHECK,
    KEYS,
    MAX_INFLATED,
    PASSPORT,
    PASSPORT_Z,
    BaggageManager,
)
from kest.errors import BaggageError, KestError

__all__ = ["VerifiedPassports"]

MAX_PASSPORTS = 1024
MAX_BYTES = 16 * 1024 * 1024
NEW_ENTRIES = 16
"""How many entries beyond a known passport are worth looking for."""
KEY_LENGTH = 64
"""Characters of a signature that find a candidate; a candidate counts only if its whole text is the same."""


def _incremental() -> bool:
    """Whether the C core can verify just what a passport has beyond a known one."""
    try:
        _kestcore.verify_passport(Passport(), KeyRing([]), 0, Passport())  # type: ignore[call-arg]
    except TypeError:
        return False
    return True


INCREMENTAL = _incremental()


def verify_beyond(passport: Passport, ring: KeyRing, known: Passport | None) -> None:
    """Verify a passport whose entries up to the tips of ``known`` were verified under the same ring."""
    if known is not None and INCREMENTAL:
        _kestcore.verify_passport(passport, ring, 0, known)  # type: ignore[call-arg]
    else:
        _kestcore.verify_passport(passport, ring)


class VerifiedPassports:
    """A bounded memory of verified passports. Thread-safe.

    Args:
        max_passports: how many are kept.
        max_bytes: how much text of theirs is kept.
    """

    def __init__(self, max_passports: int = MAX_PASSPORTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_passports, self._max_bytes = max_passports, max_bytes
        self._lock = threading.Lock()
        self._ring: KeyRing | None = None
        self._known: OrderedDict[str, tuple[str, Passport]] = OrderedDict()
        self._bytes = 0

    def unpack(self, values: Mapping[str, str], cache: Any) -> Passport:
        """`BaggageManager.unpack`, sharing what is known already. Nothing is verified by this."""
        return BaggageManager.unpack(values, cache)

    def verify(self, passport: Passport, ring: KeyRing) -> None:
        """Verify, at the cost of what is new; VerificationError as from the core."""
        verify_beyond(passport, ring, None)
