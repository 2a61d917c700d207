"""The ``baggage`` header (W3C Baggage, sections 3.2 and 3.3) as far as Kest has to understand it.

Kest reads and writes its own members, those whose key begins with ``kest.``. Everybody else's are kept as the bytes they
came in: not decoded, not re-encoded, with their properties, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from kest._kestcore import baggage_value
from kest.core.baggage import KEYS
from kest.errors import BaggageError, PassportTooLargeError

__all__ = [
    "HEADER",
    "MAX_HEADER",
    "MAX_MEMBER",
    "MAX_MEMBERS",
    "PREFIX",
    "Baggage",
    "foreign_members",
    "format_member",
    "join_header",
    "read_baggage",
    "room_for",
]

HEADER = "baggage"
PREFIX = b"kest."

MAX_HEADER = 8192
"""Bytes of all members of one request together (section 3.3.2 asks for at least this; more may be cut off on the way)."""
MAX_MEMBERS = 180
MAX_MEMBER = 4096
MAX_INCOMING = 64 * 1024
"""Bytes of baggage beyond which a request's Kest members are refused unread."""

_OWS = b" \t"
_KEY = re.compile(rb"kest\.[!#$&'*+\-.^_`|~0-9A-Za-z]+")
_USUAL = {key.encode(): key for key in (*KEYS, "kest.user", "kest.agent", "kest.task")}
_RESERVED = re.compile(rb"[^A-Za-z0-9_.~-]")
_ESCAPES = [b"%%%02X" % octet for octet in range(256)]


class Baggage(NamedTuple):
    """Incoming baggage: Kest's members decoded, everybody else's as they came."""

    kest: Mapping[str, str]
    foreign: tuple[bytes, ...] = ()


EMPTY = Baggage({})


def read_baggage(lines: Iterable[bytes]) -> Baggage:
    """Split header lines into Kest's members and the others.

    Args:
        lines: the value of each ``baggage`` header line, raw. Several lines are one list (RFC 9110, section 5.3).

    Raises:
        BaggageError: a Kest member is malformed, or two of one key contradict each other. Whatever is wrong with other
            members is not Kest's business.
    """
    given = tuple(lines)
    if not given:
        return EMPTY
    kest: dict[str, str] = {}
    foreign: list[bytes] = []
    oversized = sum(map(len, given)) > MAX_INCOMING
    for line in given:
        for item in line.split(b","):
            member = item.strip(_OWS)
            if not member:
                continue
            if not _is_kest(member):
                foreign.append(member)
                continue
            if oversized:
                raise BaggageError(f"baggage of more than {MAX_INCOMING} bytes")
            name, text = _decoded(member)
            if kest.setdefault(name, text) != text:
                raise BaggageError(f"{name} came twice with different values: baggage of two generations")
    return Baggage(kest, tuple(foreign))


def foreign_members(lines: Iterable[bytes]) -> list[bytes]:
    """The members that are not Kest's, byte for byte."""
    return [m for line in lines for item in line.split(b",") if (m := item.strip(_OWS)) and not _is_kest(m)]


def member_key(member: bytes) -> bytes:
    """The key of a list-member."""
    return member.partition(b";")[0].partition(b"=")[0].strip(_OWS)


def _is_kest(member: bytes) -> bool:
    if member.startswith(PREFIX):
        return True
    key = member_key(member)
    # A key is a token and never percent-encoded, but some readers decode it: then this would become one of ours.
    return b"%" in key and unquote_to_bytes(key).strip().startswith(PREFIX)


def _decoded(member: bytes) -> tuple[str, str]:
    key, equals, value = member.partition(b"=")
    name = _USUAL.get(key)
    if name is not None and equals:
        try:
            return name, baggage_value(value)
        except BaggageError:
            pass  # white space, properties, or what is an error below
    key, equals, value = member.partition(b";")[0].partition(b"=")
    key, value = key.strip(_OWS), value.strip(_OWS)
    if not equals or not _KEY.fullmatch(key):
        raise BaggageError("a kest member of the baggage header is not key=value")
    name = key.decode("ascii")
    try:
        return name, baggage_value(value)
    except BaggageError as error:
        raise BaggageError(f"{name}: {error}") from None


def format_member(key: str, value: str) -> bytes:
    """``key=value`` with everything percent-encoded that is not unreserved (RFC 3986, section 2.3)."""
    return key.encode("ascii") + b"=" + _RESERVED.sub(_escape, value.encode("utf-8"))


def _escape(match: re.Match[bytes]) -> bytes:
    return _ESCAPES[match[0][0]]


def room_for(members: Iterable[bytes], more: int) -> int:
    """Bytes left beside these members for ``more`` others (with their commas); 0 when that would be too many."""
    present = list(members)
    if len(present) + more > MAX_MEMBERS:
        return 0
    return max(0, MAX_HEADER - sum(len(m) + 1 for m in present) - more + 1)


def join_header(foreign: Iterable[bytes], own: Iterable[bytes]) -> bytes:
    """One header value. Kest's members come first: whoever cuts a header cuts its end.

    Raises:
        PassportTooLargeError: the whole exceeds `MAX_HEADER` bytes or `MAX_MEMBERS` members.
    """
    ours, theirs = list(own), list(foreign)
    value = b",".join((*ours, *theirs))
    if ours and (len(value) > MAX_HEADER or len(ours) + len(theirs) > MAX_MEMBERS):
        raise PassportTooLargeError(
            f"the baggage header would exceed {MAX_HEADER} bytes or {MAX_MEMBERS} members; configure a cache for claim "
            "checks, or attach less baggage of other kinds"
        )
    return value
