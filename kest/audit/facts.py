"""What the C core says of a record, 48 bytes each: see ``tlog_check``."""

from __future__ import annotations

import struct

from kest._kestcore import STATUS_PRINCIPAL, STATUS_SIGNATURE, RecordKeys, record_check, status_text
from kest.audit.keys import KeyBook, KeyLife, Verdict
from kest.audit.records import KINDS, Record

__all__ = ["ENTRY", "FACTS", "INTENT", "KEY", "LARGE", "LOG", "OUTCOME", "facts_of", "judge", "reason_of", "verdict_of"]

FACTS = struct.Struct("=BBhIq32s")
"""Kind, status, key, length, timestamp_ms, link."""

ENTRY, INTENT, OUTCOME, KEY, LOG, LARGE = (
    KINDS.index(kind) for kind in ("entry", "intent", "outcome", "key", "log", "large")
)


def facts_of(record: Record, keys: RecordKeys) -> tuple[int, int, int, int, bytes]:
    """Kind, status, key, timestamp_ms and link of one record."""
    kind, status, key, _, timestamp, link = FACTS.unpack(record_check(record.body, keys))
    return kind, status, key, timestamp, link


def verdict_of(status: int) -> Verdict:
    """Of a status that is not 0."""
    if status == STATUS_PRINCIPAL:
        return Verdict.UNKNOWN_KEY
    return Verdict.BAD_SIGNATURE if status == STATUS_SIGNATURE else Verdict.UNREADABLE


def reason_of(status: int) -> str:
    """In words."""
    verdict = verdict_of(status)
    return f"{verdict.value}: {status_text(status)}" if verdict is Verdict.UNREADABLE else verdict.value


def judge(record: Record, book: KeyBook) -> tuple[Verdict, KeyLife | None]:
    """The verdict on one record's signature, and the key that made it."""
    _, status, key, timestamp, _ = facts_of(record, book.record_keys())
    if status:
        return verdict_of(status), None
    if key < 0:  # a large record, of which only the pointer is here
        return Verdict.MISSING, None
    life = book.lives[key]
    return life.verdict(record.index, timestamp), life
