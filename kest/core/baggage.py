"""The passport as W3C baggage: inline, compressed, dense or as a claim check, whichever is the first that fits.

All keys of one generation are made together and read together; whatever cannot be read is an error, never an empty
passport.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from kest._kestcore import KnownEntries, Passport, pack_dense, pack_z, unpack_dense, unpack_z
from kest.core.cache import CLAIM_TTL
from kest.errors import BaggageError, ClaimCheckError, KestError, PassportTooLargeError, VerificationError

__all__ = ["KEYS", "MAX_INFLATED", "MAX_PAIR", "MAX_UNPACKED_ENTRIES", "BaggageManager", "encoded_size"]

PASSPORT, PASSPORT_Z, PASSPORT_D = "kest.passport", "kest.passport_z", "kest.passport_d"
CLAIM_CHECK, CHAIN_TIP = "kest.claim_check", "kest.chain_tip"

KEYS = (PASSPORT, PASSPORT_Z, PASSPORT_D, CLAIM_CHECK, CHAIN_TIP)
"""Everything that carries a passport, best form last: a later key is preferred when reading."""

MAX_PAIR = 4096
"""Bytes that one ``key=value`` may take after percent-encoding (W3C Baggage, section 3.3.2)."""
MAX_INFLATED = 1024 * 1024
MAX_UNPACKED_ENTRIES = 2000

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"  # RFC 3986, section 2.3
_TIP = re.compile(r"[0-9a-f]{64}(?:,[0-9a-f]{64})*\Z")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")

Getter = Mapping[str, Any] | Callable[[str], Any]


def encoded_size(key: str, value: str) -> int:
    """Bytes of ``key=value`` in a baggage header, percent-encoded."""
    raw = value.encode()
    return len(key) + 1 + len(raw) + 2 * len(raw.translate(None, _UNRESERVED))


class BaggageManager:
    """Turns a passport into baggage values (before percent-encoding) and back."""

    @staticmethod
    def pack(
        passport: Passport, cache: Any = None, *, limit: int = MAX_PAIR, dense: bool = False, ttl: float = CLAIM_TTL
    ) -> dict[str, str]:
        """Baggage members for a passport; empty for an empty one.

        Args:
            passport: what travels.
            cache: where it waits if no form fits (`CacheProvider`, or a mutable mapping).
            limit: bytes that one pair may take, encoded.
            dense: the receiver understands ``kest.passport_d`` (every Kest of this version does).
            ttl: seconds for which a claim check can be redeemed.

        Raises:
            PassportTooLargeError: nothing fits and there is no cache.
        """
        if not passport:
            return {}
        tip = {CHAIN_TIP: passport.chain_tip}
        for key, value in _inline_forms(passport, limit, dense):
            if encoded_size(key, value) <= limit:
                return {key: value, **tip}
        if cache is None:
            raise PassportTooLargeError(
                f"a passport of {len(passport)} entries does not fit {limit} bytes in any form; configure a cache for claim "
                "checks: configure(cache=RedisCache(...))"
            )
        claim = str(uuid.uuid4())
        _store(cache, claim, f"{tip[CHAIN_TIP]}\n{passport.serialize()}", ttl)
        return {CLAIM_CHECK: claim, **tip}

    @staticmethod
    def unpack(
        source: Getter,
        cache: Any = None,
        *,
        max_bytes: int = MAX_INFLATED,
        max_entries: int = MAX_UNPACKED_ENTRIES,
        known: KnownEntries | None = None,
    ) -> Passport:
        """The passport in these members (decoded values); an empty one only if no Kest key is there at all.

        Args:
            source: where the members are.
            cache: where a claim check is redeemed.
            max_bytes, max_entries: what may come out of them.
            known: entries that are shared with the passport if it begins with them.

        Raises:
            BaggageError: undecodable, oversized or contradictory.
            ClaimCheckError: the claim check is missing, expired or not this passport's.
        """
        get = source.get if isinstance(source, Mapping) else source
        values: dict[str, str] = {}
        for key in KEYS:
            if (value := get(key)) is not None:
                if not isinstance(value, str) or not value:
                    raise BaggageError(f"{key} is empty or not text")
                values[key] = value
        tip = values.pop(CHAIN_TIP, None)
        if not values:
            if tip is not None:
                raise BaggageError("kest.chain_tip came without a passport: part of the baggage was lost")
            return Passport()
        if len(values) > 1:
            raise BaggageError(f"baggage of two generations: {' and '.join(values)}")
        if tip is not None and not _TIP.match(tip):
            raise BaggageError("kest.chain_tip is not lower-case hexadecimal SHA-256")
        key, value = values.popitem()
        start = 0
        if key == CLAIM_CHECK:
            value, tip = _redeem(cache, value, tip, max_bytes)
            start = len(tip) + 1
        passport = _read(key, value, start, max_bytes, max_entries, known)
        if not passport:
            raise BaggageError(f"{key} holds no entry; a sender without lineage sends none")
        if tip is not None:
            _check_tip(passport, tip)
        return passport

    store = pack
    restore = unpack


def _inline_forms(passport: Passport, limit: int, dense: bool) -> Any:
    # An entry takes several hundred bytes, so a long passport need not be serialised to know that it will not fit.
    if len(passport) * 300 <= limit:
        yield PASSPORT, passport.serialize()
    if len(passport) * 64 <= limit:  # a signature does not compress
        yield PASSPORT_Z, pack_z(passport)
        if dense and (packed := pack_dense(passport)) is not None:
            yield PASSPORT_D, packed


def _store(cache: Any, claim: str, record: str, ttl: float) -> None:
    try:
        setter = getattr(cache, "set", None)
        if callable(setter):
            setter(claim, record, ttl)
        else:
            cache[claim] = record
    except KestError:
        raise
    except Exception as error:
        raise ClaimCheckError(f"the passport could not be stored for a claim check: {type(error).__name__}") from error


def _redeem(cache: Any, claim: str, tip: str | None, max_bytes: int) -> tuple[str, str]:
    """The record behind a claim check, and the tip that it begins with."""
    if not _UUID.match(claim):
        raise ClaimCheckError("kest.claim_check is not a UUID")
    if cache is None:
        raise ClaimCheckError(
            "a claim check came, but no cache is configured: configure(cache=...) with the sender's cache"
        )
    try:
        record = cache.get(claim)
    except KestError:
        raise
    except Exception as error:
        raise ClaimCheckError(f"the claim check could not be redeemed: {type(error).__name__}") from error
    if record is None:
        raise ClaimCheckError("the claim check is unknown or has expired")
    if isinstance(record, bytes):
        record = record.decode("utf-8", "replace")  # a passport is ASCII; anything else fails to parse
    if not isinstance(record, str) or len(record) > max_bytes:
        raise ClaimCheckError("the record behind the claim check is not a passport, or too large")
    bound = record[: max(record.find("\n"), 0)]
    if (tip is not None and bound != tip) or not _TIP.match(bound):
        raise ClaimCheckError("the record behind the claim check belongs to another passport")
    return record, bound


def _read(key: str, value: str, start: int, max_bytes: int, max_entries: int, known: KnownEntries | None) -> Passport:
    """``start``: characters before the passport's text (a long one is not copied for them)."""
    form = PASSPORT if key == CLAIM_CHECK else key
    if form == PASSPORT and len(value) > max_bytes:
        raise BaggageError(f"{key} is larger than {max_bytes} bytes")
    try:
        if known is not None:
            return known.unpack(form, value, max_bytes, max_entries, start)
        if form == PASSPORT_Z:
            return unpack_z(value, max_bytes, max_entries)
        if form == PASSPORT_D:
            return unpack_dense(value, max_bytes, max_entries)
        return Passport.deserialize(value[start:], max_entries)
    except KestError as error:
        raise BaggageError(f"{key} cannot be read: {error}") from error


def _check_tip(passport: Passport, tip: str) -> None:
    try:
        found = passport.chain_tip
    except VerificationError:
        return  # a broken entry: verification names it
    if found != tip:
        raise BaggageError("kest.chain_tip is not the tip of the passport that came with it")
