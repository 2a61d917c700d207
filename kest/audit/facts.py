"""What the C core says of a record, 48 bytes each: see ``tlog_check``."""

from __future__ import annotations

import struct
from typing import NamedTuple

from kest._kestcore import STATUS_PRINCIPAL, STATUS_SIGNATURE, record_check, status_text
from kest.audit.chains import ChainKey
from kest.audit.keys import KeyBook, KeyLife, Verdict
from kest.audit.records import KINDS, Record

__all__ = [
    "CHAIN", "ENTRY", "FACTS", "INTENT", "KEY", "LARGE", "LOG", "OUTCOME", "Facts", "facts_of", "judge", "reason_of",
    "verdict_of",
]  # fmt: skip

FACTS = struct.Struct("=BBhIq32s")
"""Kind, status, key, length, timestamp_ms, link."""

ENTRY, INTENT, OUTCOME, KEY, LOG, LARGE = (
    KINDS.index(kind) for kind in ("entry", "intent", "outcome", "key", "log", "large")
)


CHAIN = 255
"""The status of a record whose certificate chain proves nothing; the C core has none of this number."""


class Facts(NamedTuple):
    """What is known of one record: its kind; status (0: it is signed by the key of ``life``); why a chain does not count."""

    kind: int
    status: int
    life: KeyLife | None
    timestamp_ms: int
    link: bytes
    reason: str = ""


def facts_of(record: Record, book: KeyBook) -> Facts:
    """Of one record, with the keys that are known by now, and the one that its certificate chain proves."""
    chain = None if book.chains is None else book.chains.of(record.body)
    keys = chain.keys if isinstance(chain, ChainKey) else book.record_keys()
    kind, status, key, _, timestamp, link = FACTS.unpack(record_check(record.body, keys))
    if isinstance(chain, str) and status in (0, STATUS_PRINCIPAL, STATUS_SIGNATURE):
        return Facts(kind, CHAIN, None, timestamp, link, chain)
    if key < 0:
        return Facts(kind, status, None, timestamp, link)
    life = chain.life if isinstance(chain, ChainKey) else book.named[key]
    return Facts(kind, status, life, timestamp, link)


def verdict_of(status: int) -> Verdict:
    """Of a status that is not 0."""
    if status == CHAIN:
        return Verdict.BAD_CHAIN
    if status == STATUS_PRINCIPAL:
        return Verdict.UNKNOWN_KEY
    return Verdict.BAD_SIGNATURE if status == STATUS_SIGNATURE else Verdict.UNREADABLE


def reason_of(status: int) -> str:
    """In words."""
    verdict = verdict_of(status)
    return f"{verdict.value}: {status_text(status)}" if verdict is Verdict.UNREADABLE else verdict.value


def judge(record: Record, book: KeyBook) -> tuple[Verdict, KeyLife | None]:
    """The verdict on one record's signature, and the key that made it."""
    facts = facts_of(record, book)
    if facts.status:
        return verdict_of(facts.status), None
    if facts.life is None:  # a large record, of which only the pointer is here
        return Verdict.MISSING, None
    return facts.life.verdict(record.index, facts.timestamp_ms), facts.life
