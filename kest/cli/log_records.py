"""Records of an audit log on a terminal and as JSON lines, and which of them are wanted."""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from kest.cli.source import UsageError
from kest.cli.terminal import Paint, clean, clip, fold, pad, terminal_width, width

if TYPE_CHECKING:
    from kest.audit import AuditReader, Record

__all__ = ["Wanted", "add_filters", "json_line", "locate", "show_record"]

KINDS = ("entry", "intent", "outcome", "denial", "verdict", "key", "log", "large", "unreadable")
MOST = 600  # characters of one value that are looked at, where only lines of it are shown
INDENT, NAME = 3, 14
MAX_RECORD = 65_535  # that of kest.audit.records, which is not imported for --help
HASH = re.compile(r"[0-9a-f]{64}")
SPAN = re.compile(r"([0-9]{1,9})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


# --- which ones ---


def add_filters(parser: argparse.ArgumentParser) -> None:
    """The options that `Wanted.of` reads."""
    parser.add_argument("--kind", action="append", choices=KINDS, default=[], help="only these; may be repeated")
    parser.add_argument("--operation", metavar="NAME", help="only of this operation; * stands for anything")
    parser.add_argument("--principal", metavar="NAME", help="only signed by or about this one; * stands for anything")
    time = "2026-01-31, 2026-01-31T12:00:00Z (UTC unless it says else), or 90s, 15m, 2h, 3d ago"
    parser.add_argument("--since", metavar="TIME", type=_time, help=f"only from then on: {time}")
    parser.add_argument("--until", metavar="TIME", type=_time, help="only before then")


def _time(text: str) -> int:
    """Unix milliseconds."""
    try:
        if ago := SPAN.fullmatch(text):
            then = datetime.now(timezone.utc) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        else:
            then = datetime.fromisoformat(re.sub(r"[zZ]\Z", "+00:00", text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "a time is 2026-01-31, 2026-01-31T12:00:00Z, or how long ago: 15m, 2h, 3d"
        ) from None
    return round((then if then.tzinfo else then.replace(tzinfo=timezone.utc)).timestamp() * 1000)


@dataclass(frozen=True)
class Wanted:
    """Which records are shown. Times are those that the records give."""

    kinds: frozenset[str] = frozenset()
    operation: str | None = None
    principal: str | None = None
    since: int | None = None
    until: int | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Wanted:
        """As the options of `add_filters` say."""
        return cls(
            frozenset(arguments.kind), arguments.operation, arguments.principal, arguments.since, arguments.until
        )

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Wanted()

    def __contains__(self, record: Record) -> bool:
        if self.kinds and record.kind not in self.kinds:
            return False
        if self.operation is None and self.principal is None and self.since is None and self.until is None:
            return True
        if not record.readable:
            return False
        return (
            (self.operation is None or _matches(record.operation, self.operation))
            and (self.principal is None or any(_matches(name, self.principal) for name in _principals(record)))
            and (self.since is None or record.timestamp_ms >= self.since)
            and (self.until is None or record.timestamp_ms < self.until)
        )


def _matches(text: str, pattern: str) -> bool:
    return text == pattern or ("*" in pattern and fnmatch.fnmatchcase(text, pattern.replace("[", "[[]")))


def _principals(record: Record) -> set[str]:
    payload = record.payload
    labels = _entry(payload).get("labels")
    named = (record.signer, payload.get("principal"), labels.get("principal") if isinstance(labels, dict) else None)
    return {name for name in named if isinstance(name, str) and name}


def _entry(payload: dict[str, Any]) -> dict[str, Any]:
    """What a record says of a call: of one with commitments in place of personal fields, the entry in it."""
    entry = payload.get("entry") if payload.get("record") == "intent" else None
    return entry if isinstance(entry, dict) else payload


def locate(reader: AuditReader, text: str) -> list[int]:
    """Where the records about one call are, or the one record that is named.

    Args:
        text: an index; the id of an entry; or the hash of an entry, or of a leaf, in hexadecimal digits.

    Raises:
        UsageError: it is none of these, or there is nothing of the kind.
    """
    if text.isascii() and text.isdigit() and len(text) < 19:
        if int(text) >= reader.size:
            raise UsageError(f"the log has {reader.size} records, from 0 on: there is no record {text}")
        return [int(text)]
    name = text.lower()
    if HASH.fullmatch(name):
        found = reader.find(bytes.fromhex(name)) or _by_entry_hash(reader, name)
    elif len(name) == 36 and name.count("-") == 4:
        found = reader.find(name) or [r.index for r in reader.records() if r.readable and r.entry_id == name]
    else:
        raise UsageError(f"{clean(text, 100)} is no index, entry id, or hash of 64 hexadecimal digits")
    if not found:
        raise UsageError(f"nothing in the log, as far as its checkpoint goes, is or is about {name}")
    return sorted(set(found))


def _by_entry_hash(reader: AuditReader, name: str) -> list[int]:
    from kest._kestcore import sha256

    digest = bytes.fromhex(name)
    for record in reader.records():  # hashing costs a hundredth of reading what a record says
        if sha256(record.body) == digest:
            about = reader.find(record.entry_id) if record.readable and record.entry_id else []
            return [record.index, *(i for i in about if reader.record(i).entry_hash == name)]
    return [r.index for r in reader.records() if r.readable and r.entry_hash == name]


# --- JSON ---


def json_line(record: Record, *, whole: bool = False) -> str:
    """One line of ASCII JSON without anything that means something in HTML; ``whole``: with the record as it was signed."""
    member: dict[str, Any] = {"index": record.index, "kind": record.kind, "leaf_hash": record.leaf_hash.hex()}
    if record.readable:
        member |= {"entry_hash": record.entry_hash or None, "header": record.header, "payload": record.payload}
    if whole:
        import base64

        if record.readable:
            member["jws"] = record.jws
        if record.body != record.leaf or not record.readable:
            member["leaf"] = base64.b64encode(record.leaf).decode()
    text = json.dumps(member, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# --- the terminal ---


def show_record(record: Record, paint: Paint, *, full: bool = False) -> Iterator[str]:
    """The lines that are printed of one record: a summary, and with ``full`` all that it says."""
    columns = terminal_width()
    if not record.readable:
        said = "kept beside the log, and missing there" if record.kind == "large" else f"{len(record.body)} bytes"
        yield f"{record.index:>8}  {pad('', 23)}  {paint.bad(pad(record.kind, 10))}  {said}"
        return
    colour = {"denial": paint.bad, "outcome": paint.dim, "log": paint.dim, "key": paint.warn}.get(record.kind, str)
    head = f"{record.index:>8}  {pad(clean(_clock(record.timestamp_ms), 23), 23)}  "
    size = f"({len(record.body):,} bytes) " if len(record.body) > MAX_RECORD else ""  # of which a line shows little
    said = size + _summary(record, paint.more)
    said = clip(said, columns if full else max(20, columns - width(head) - 12), paint.more)
    yield f"{paint.dim(head)}{colour(pad(record.kind, 10))}  {said}".rstrip()
    if full:
        for name, value in _members(record):
            yield from _lines(name, value, columns, paint.dim)


def _clock(timestamp_ms: int) -> str:
    try:
        time = datetime.fromtimestamp(timestamp_ms / 1000, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return f"{timestamp_ms} ms"
    return f"{time:%Y-%m-%d %H:%M:%S}.{timestamp_ms % 1000:03}"


def _summary(record: Record, more: str) -> str:
    """In a line, and clean."""
    payload = _entry(record.payload)

    def said(name: str, limit: int = 120) -> str:
        value = payload.get(name)
        return "" if value is None else clean(value, limit)

    operation = clip(said("operation"), 40, more)
    if record.kind in ("entry", "intent"):
        taints = payload.get("taints")
        marks = f"; taints {clean(', '.join(map(str, taints[:8])), 80)}" if isinstance(taints, list) and taints else ""
        return f"{operation}  trust {said('trust_score', 20)}{marks}"
    if record.kind == "outcome":
        duration = payload.get("duration_us")
        took = f" after {duration / 1000:.1f} ms" if type(duration) is int and abs(duration) < 1 << 53 else ""
        error = f" {said('error')}" if payload.get("error") is not None else ""
        return f"{operation}  {said('result', 30)}{error}{took}"
    if record.kind == "denial":
        return f"{operation}  by {said('policy')}: {said('reason', 200)}"
    if record.kind in ("key", "log"):
        return f"{said('event', 40)} {said('principal')} {said('reason', 200)}".rstrip()
    return clean(json.dumps(payload)[:300])


def _members(record: Record) -> Iterator[tuple[str, str]]:
    yield "leaf hash", record.leaf_hash.hex()
    if record.entry_hash and "entry_hash" not in record.payload:
        yield "entry hash", clean(record.entry_hash, 100)
    yield "signed by", clean(record.signer, MOST)
    for name, value in record.payload.items():
        text = value if isinstance(value, str) else json.dumps(value)
        more = f" (and {len(text) - MOST} characters more: --json has all)" if len(text) > MOST else ""
        yield clean(name, 60), clean(text, MOST) + more


def _lines(name: str, value: str, columns: int, colour: Callable[[str], str]) -> Iterator[str]:
    room = max(20, columns - INDENT - NAME - 2)
    for line in fold(value, room):
        yield f"{' ' * INDENT}{colour(pad(name, NAME))}  {line}".rstrip()
        name = ""
