"""Audit logs as sources of a picture. Calls without an outcome show, and signatures are judged by the lives of keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest.errors import AuditCorruptError, KestError
from kest.viz.records import Source, SourceRecord

if TYPE_CHECKING:
    from kest.audit import AuditReader, KeyLife, Record
    from kest.audit.keys import KeyBook

__all__ = ["is_log", "log_source"]

DRAWN = ("entry", "intent", "outcome", "denial", "unreadable", "large")
WHOLE = ("tree", "bundle")
"""Problems after which nothing that the log holds is what its key signed for."""
MOST_PROBLEMS = 100_000


def is_log(path: Path, head: bytes = b"") -> bool:
    """Whether a path is the folder of an audit log."""
    return path.is_dir() and (path / "checkpoint").is_file()


def log_source(path: Path, log_key: Any = None, keys: Any = None) -> Source:
    """What a log holds, as far as its checkpoint goes.

    Args:
        path: its folder.
        log_key: the log's key; None: nothing of it is verified, and signatures are left to the keys of the reader.
        keys: of those who signed, as `verify_log` takes them.

    Raises:
        AuditError: it is no log, or not this one.
        OSError: it cannot be read.
    """
    from kest.audit import AuditReader
    from kest.audit.reader import UnverifiedReader

    if log_key is None:
        reader: AuditReader = UnverifiedReader(path)
        return Source([_record(record) for record in _records(reader)], outcomes=True)
    return Source(list(_judged(AuditReader(path, log_key), keys)), outcomes=True)


def _records(reader: AuditReader) -> Iterator[Record | str]:
    """Its records; where they cannot be read any further, why."""
    try:
        for record in reader.records():
            if record.kind in DRAWN or record.kind == "key":
                yield record
    except AuditCorruptError as error:
        yield str(error)


def _record(record: Record | str, verdict: tuple[str, str] | None = None) -> SourceRecord:
    if isinstance(record, str):
        return SourceRecord(origin="audit log", broken=record)
    origin = f"record {record.index}"
    if record.kind == "intent" and verdict is None:
        verdict = "unchecked", "it is signed by the log, whose key was not given"
    if record.kind == "large":
        return SourceRecord(origin=origin, broken="kept beside the log, and missing there")
    try:
        return SourceRecord(record.jws, verdict=verdict, origin=origin)
    except UnicodeDecodeError:
        return SourceRecord(origin=origin, broken="not a signed record")


# --- verdicts ---


def _judged(reader: AuditReader, keys: Any) -> Iterator[SourceRecord]:
    from kest.audit.keys import KeyBook, Verdict

    report = reader.verify(keys, most=MOST_PROBLEMS)
    whole = next((one.reason for one in report.problems if one.kind in WHOLE), None)
    wrong = {one.index: one.reason for one in report.problems if one.index is not None and one.kind not in WHOLE}
    judge = _Judge(KeyBook.of(reader.key, keys))
    found = [(record, *judge(record)) for record in _records(reader)]
    for record, verdict, life in found:  # only at the end is it known what became of the keys
        state: tuple[str, str] | None = None
        if isinstance(record, str):
            yield _record(record)
            continue
        if whole is not None:
            state = "invalid", f"the log was changed: {whole}"
        elif verdict is Verdict.UNKNOWN_KEY:
            state = "unknown_key", ""
        elif (why := wrong.get(record.index)) is not None:
            state = "invalid", why
        elif life is not None and (life.added >= 0 or life.since is not Verdict.VALID):
            # A key that the reader did not give, or no longer would: what the log knows counts, for the signature only.
            state = "signature", f"{life.since.value}, by the key events in the log"
        elif life is not None and record.kind != "entry":
            state = "valid", ""  # of entries, links, trust and taints have still to be looked at
        if record.kind != "key":
            yield _record(record, state)


class _Judge:
    """`kest.audit.facts.judge` for record after record, taking note of key events."""

    def __init__(self, book: KeyBook) -> None:
        self.book = book

    def __call__(self, record: Record | str) -> tuple[Any, KeyLife | None]:
        from kest.audit.facts import judge

        if isinstance(record, str):
            return None, None
        try:
            verdict, life = judge(record, self.book)
        except (KestError, ValueError):
            return None, None
        if life is not None and record.kind == "key" and verdict.good:
            self.book.apply(record, life)
        return verdict, life if verdict.good else None
