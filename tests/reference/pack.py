"""How a passport crosses a process boundary in W3C baggage (PRODUCT section 4, "Baggage"; F-CP-01..08; ATTACKS E1).

Values here are raw, before percent-encoding; lengths are of the encoded ``key=value`` pair. Encoding leaves only RFC
3986's unreserved characters as they are, as OpenTelemetry's propagators do.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from urllib.parse import quote

from . import b64
from .chain import Passport

MAX_PAIR = 4096
MAX_HEADER = 8192
MAX_MEMBERS = 180
MAX_INFLATED = 1024 * 1024
MAX_ENTRIES = 2000
INLINE, COMPRESSED, CLAIM, TIP = "kest.passport", "kest.passport_z", "kest.claim_check", "kest.chain_tip"


class TooLarge(ValueError):
    """No form fits, and there is no cache."""


class BadBaggage(ValueError):
    """Incoming baggage that cannot be a passport."""


def pair_length(key: str, value: str) -> int:
    return len(f"{key}={quote(value, safe='')}")


def header_length(members: Mapping[str, str]) -> int:
    """Of the members joined by commas."""
    return sum(pair_length(key, value) for key, value in members.items()) + max(len(members) - 1, 0)


def fits(members: Mapping[str, str]) -> bool:
    return header_length(members) <= MAX_HEADER and len(members) <= MAX_MEMBERS


def compress(text: str) -> str:
    return b64.encode(zlib.compress(text.encode("utf-8"), 1))


def decompress(value: str, limit: int = MAX_INFLATED) -> str:
    """Never holds more than ``limit`` + 1 bytes of output; exactly one complete zlib stream."""
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(b64.decode(value), limit + 1)
        if len(data) > limit:
            raise BadBaggage("inflates beyond the limit")
        if not stream.eof or stream.unused_data:
            raise BadBaggage("not exactly one zlib stream")
        return data.decode("utf-8")
    except (b64.Base64Error, zlib.error, UnicodeError) as error:
        raise BadBaggage(str(error)) from error


def pack(
    passport: Passport,
    *,
    identity: Mapping[str, str] | None = None,
    store: Callable[[str], str] | None = None,
) -> dict[str, str]:
    """The first of the three forms that fits. ``store`` keeps a text for 300 s and returns its claim (a UUID)."""
    others = {TIP: passport.chain_tip(), **(identity or {})}
    text = passport.serialize()
    for key, value in ((INLINE, text), (COMPRESSED, compress(text))):
        members = {key: value, **others}
        if pair_length(key, value) <= MAX_PAIR and fits(members):
            return members
    if store is None:
        raise TooLarge("no form fits and there is no cache")
    members = {CLAIM: store(text), **others}
    if not fits(members):
        raise TooLarge("even a claim check does not fit beside the other members")
    return members


def unpack(members: Mapping[str, str], *, load: Callable[[str], str | None] | None = None) -> Passport:
    """The passport of incoming baggage; empty only when no Kest lineage was sent at all."""
    if COMPRESSED in members:  # F-CP-07: it has precedence
        text = decompress(members[COMPRESSED])
    elif INLINE in members:
        text = members[INLINE]
    elif CLAIM in members:
        found = load(members[CLAIM]) if load is not None else None
        if found is None:
            raise BadBaggage("the claim check is missing or expired")
        text = found
    elif members.get(TIP):
        raise BadBaggage("a tip without a passport")
    else:
        return Passport()
    if len(text.encode("utf-8")) > MAX_INFLATED:
        raise BadBaggage("too large")
    try:
        passport = Passport.deserialize(text)
        if len(passport.entries) > MAX_ENTRIES:
            raise BadBaggage("too many entries")
        tip = passport.chain_tip()
        if members.get(TIP, tip) != tip:
            raise BadBaggage("not the tip")
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # entries that are not even entries
        raise BadBaggage(str(error)) from error
    return passport
