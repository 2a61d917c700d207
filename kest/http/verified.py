"""Passports that were verified before, so that a chain that grew by one entry costs one signature.

An entry's hash covers its text, signature included, and its parents' hashes; whether it verifies depends on that and on
the keys. So what was verified under a ring of keys stays verified under it, and a passport that begins with a known one
needs only its new entries verified. A new ring forgets everything.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kest._kestcore import KeyRing, Passport, SeenEntries, b64url_decode, verify_passport
from kest.core.baggage import CHAIN_TIP, CLAIM_CHECK, MAX_INFLATED, PASSPORT, PASSPORT_Z, BaggageManager
from kest.errors import KestError
from kest.http.outgoing import MAX_CLAIM

__all__ = ["Unpacked", "VerifiedPassports"]

MAX_PASSPORTS = 1024
MAX_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 65536
NEW_ENTRIES = 16
"""How many entries beyond a known passport are worth looking for."""
MAX_TEXT = 64 * 1024
"""Characters of an inflated passport that are looked up here; the C core inflates longer ones, under its own cap."""
TAIL = 64
"""Characters at the end of a signature that find a candidate. A candidate counts only if its whole text is the same."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A passport on its way in: its text where there is one, and the ring under which all of it was verified before."""

    passport: Passport
    text: str | None = None
    ring: KeyRing | None = None


class VerifiedPassports:
    """A bounded memory of verified passports, the least recently used forgotten first. Thread-safe.

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
        self._seen: SeenEntries | None = None

    def __len__(self) -> int:
        return len(self._known)

    def unpack(self, values: Mapping[str, str], cache: Any) -> Unpacked:
        """What `BaggageManager.unpack` makes of these members, sharing entries with what is known. Verifies nothing."""
        text = _inline_text(values)
        if text is not None and (found := self._prefix(text)) is not None:
            known, length, ring = found
            grown = known if length == len(text) - 1 else _grown(known, text[length + 1 :])
            if grown is not None and values.get(CHAIN_TIP, grown.chain_tip) == grown.chain_tip:
                return Unpacked(grown, text, ring if grown is known else None)
        # What is wrong, if anything is, is for the manager to say.
        limit = MAX_CLAIM if CLAIM_CHECK in values else MAX_INFLATED
        return Unpacked(BaggageManager.unpack(values, cache, max_bytes=limit), text)

    def verify(self, unpacked: Unpacked, ring: KeyRing) -> None:
        """Verify at the cost of what is new; VerificationError as from the core."""
        if unpacked.ring is ring:
            return
        with self._lock:
            self._for(ring)
            seen = self._seen
        verify_passport(unpacked.passport, ring, 0, seen)
        if unpacked.text is not None:
            self._remember(unpacked.text, unpacked.passport, ring)

    # --- inside ---

    def _for(self, ring: KeyRing) -> None:
        """Forget what was verified under other keys; the lock is held."""
        if self._ring is not ring:
            self._known.clear()
            self._bytes, self._ring = 0, ring
            self._seen = SeenEntries(ring, MAX_ENTRIES)

    def _prefix(self, text: str) -> tuple[Passport, int, KeyRing] | None:
        """The longest known passport that this text begins with, the length of what they share, and its ring."""
        end = len(text) - 2  # where the last entry ends, before its quote and the bracket
        with self._lock:
            if self._ring is None:
                return None
            for _ in range(NEW_ENTRIES + 1):
                key = text[max(0, end - TAIL) : end]
                found = self._known.get(key)
                if found is not None and len(found[0]) == end + 2 and text.startswith(found[0][:-1]):
                    self._known.move_to_end(key)
                    return found[1], end + 1, self._ring
                end = text.rfind('","', 0, end)
                if end < 0:
                    return None
        return None

    def _remember(self, text: str, passport: Passport, ring: KeyRing) -> None:
        if len(text) > self._max_bytes // 4 or len(passport.tips) != 1:
            return
        view = Passport.merge(passport)  # a view, which nobody can add entries to
        with self._lock:
            self._for(ring)
            key = text[-2 - TAIL : -2]
            before = self._known.pop(key, None)
            if before is not None:
                self._bytes -= len(before[0])
            self._known[key] = (text, view)
            self._bytes += len(text)
            while self._bytes > self._max_bytes or len(self._known) > self._max_passports:
                _, (gone, _passport) = self._known.popitem(last=False)
                self._bytes -= len(gone)


def _inline_text(values: Mapping[str, str]) -> str | None:
    """The JSON text of a passport that came inline or compressed; None when it is for somebody else to read."""
    carriers = [key for key in values if key in (PASSPORT, PASSPORT_Z)]
    if len(carriers) != 1 or any(
        key.startswith(("kest.passport", "kest.claim")) for key in values if key not in carriers
    ):
        return None
    text: str | None = values[carriers[0]]
    if carriers[0] == PASSPORT_Z:
        text = _inflated(values[PASSPORT_Z])
    if text is None or len(text) > MAX_INFLATED or not text.startswith('["') or not text.endswith('"]'):
        return None
    return text


def _inflated(packed: str) -> str | None:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(b64url_decode(packed), MAX_TEXT)
        if not stream.eof or stream.unused_data or stream.unconsumed_tail:
            return None
        return data.decode("ascii")
    except (zlib.error, KestError, ValueError):
        return None


def _grown(passport: Passport, rest: str) -> Passport | None:
    """A known passport with further entries (``"...","..."]``); None when they do not simply follow."""
    try:
        for jws in json.loads("[" + rest):
            passport = passport.adopt(jws)
    except (KestError, ValueError, TypeError):
        return None
    return passport
