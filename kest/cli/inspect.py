"""``kest inspect``: what the entries of a passport say, readable; nothing is verified by it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from kest.cli.source import PARENT_MISSING, payload_of, read_entries
from kest.cli.terminal import Column, Paint, clean, clip, fold, json_text, pad, table, terminal_width

__all__ = ["register"]

WARNING = "NOT VERIFIED: this is what the entries say of themselves."
ADVICE = "To know whether it is true: kest verify FILE --trust KEYS"
CALLER = ("user", "agent", "task")
TIERS = ("enterprise", "platform", "app", "function")
MOST = 4000  # characters of one value that are looked at, where only a line of it is shown
INDENT, NAME, LINES = 3, 10, 3

COLUMNS = (
    Column("#", right=True),
    Column("operation", 16),
    Column("trust", right=True),
    Column("taints", 14),
    Column("parents", 8),
)


@dataclass(frozen=True)
class Row:
    """One member of the array: its payload, or why it has none."""

    index: int
    text: Any
    hash: str
    payload: dict[str, Any] | None
    broken: str = ""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "inspect",
        help="show the decoded entries of a passport (verifies nothing)",
        description="Show the decoded entries of a passport. Nothing is verified: kest verify does that.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a passport, a JSON array of signed entries (- is standard input), telemetry, or an audit log's folder",
    )
    parser.add_argument("--json", action="store_true", help="print the decoded entries as JSON")
    parser.add_argument("--full", action="store_true", help="leave nothing out: ids, hashes, labels, nothing shortened")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    rows = _rows(read_entries(arguments.file))
    places = {row.hash: row.index for row in reversed(rows) if row.hash}  # the first of two equal entries is the parent
    if arguments.json:
        print(json_text({"verified": False, "entries": [_member(row, places, arguments.full) for row in rows]}))
    else:
        _show(rows, places, arguments.full)
    return 0


def _rows(entries: list[Any]) -> list[Row]:
    from kest._kestcore import sha256

    first_bad, why = _first_bad(entries)
    rows = []
    for index, entry in enumerate(entries):
        payload, broken = payload_of(entry)
        digest = sha256(entry.encode("utf-8", "surrogatepass")).hex() if isinstance(entry, str) else ""
        rows.append(Row(index, entry, digest, payload, broken or (why if index == first_bad else "")))
    return rows


def _first_bad(entries: list[Any]) -> tuple[int | None, str]:
    """Index and reason of the first entry that does not fit those before it, as far as that shows without keys."""
    from kest._kestcore import Passport
    from kest.errors import PassportError, VerificationError

    try:
        Passport([entry for entry in entries if isinstance(entry, str)]).decode()
    except VerificationError as error:
        if all(isinstance(entry, str) for entry in entries):
            return error.index, error.reason
    except PassportError:
        pass
    return None, ""


def _parents(payload: dict[str, Any], places: dict[str, int], own: int) -> list[int | None]:
    """Indices of the parents; None for one that is not in the passport, or comes later."""
    found = [places.get(parent) for parent in payload["parent_ids"] if parent != "0"]
    return [place if place is not None and place < own else None for place in found]


def _problem(row: Row, parents: list[int | None]) -> str | None:
    return row.broken or (PARENT_MISSING if None in parents else None)


# --- JSON ---


def _member(row: Row, places: dict[str, int], full: bool) -> dict[str, Any]:
    if row.payload is None:
        member: dict[str, Any] = {"index": row.index, "broken": row.broken, "hash": row.hash or None}
    else:
        parents = _parents(row.payload, places, row.index)
        member = {"index": row.index, "hash": row.hash, "parents": parents, "payload": row.payload}
        if (broken := _problem(row, parents)) is not None:
            member["broken"] = broken
    if full:
        member["jws"] = row.text
    return member


# --- the table ---


def _show(rows: list[Row], places: dict[str, int], full: bool) -> None:
    paint, columns = Paint(), terminal_width()
    print(f"{paint.warn(WARNING)}\n{paint.dim(ADVICE)}")
    if not rows:
        print("The passport is empty.")
        return
    title, stamp = _clock(rows)
    cells = [_cells(row, places, stamp) for row in rows]
    more = paint.more
    heading, *lines = table([*COLUMNS, Column(title, 12)], cells, columns, more)
    print("\n" + paint.bold("  ".join(heading).rstrip()))
    for row, cells_of_row in zip(rows, lines, strict=True):
        _show_row(row, cells_of_row, paint)
        for name, value, colour in _details(row, places, paint, full):
            _show_detail(name, value, colour, columns, full, paint)


def _show_row(row: Row, line: list[str], paint: Paint) -> None:
    index, operation, trust, taints, parents, time = line
    if row.payload is None:
        print("  ".join((index, paint.bad(operation))).rstrip())
        return
    trust = paint.trust(row.payload["trust_score"], trust)
    print("  ".join((index, paint.bold(operation), trust, paint.warn(taints), parents, time)).rstrip())


def _show_detail(name: str, value: str, colour: Callable[[str], str], columns: int, full: bool, paint: Paint) -> None:
    room = columns - INDENT - NAME - 2
    lines = fold(value if full else clip(value, room * LINES, paint.more), room)
    if not full and len(lines) > LINES:
        lines = [*lines[: LINES - 1], clip(" ".join(lines[LINES - 1 :]), room, paint.more)]
    for line in lines:
        print(f"{' ' * INDENT}{paint.dim(pad(name, NAME))}  {colour(line)}".rstrip())
        name = ""


def _clock(rows: list[Row]) -> tuple[str, Callable[[int], str]]:
    """The heading and the form of times: of one day, the time with milliseconds under the date; else both in each."""
    times = [_utc(row.payload["timestamp_ms"]) for row in rows if row.payload is not None]
    days = {time.date() if time else None for time in times}
    day = days.pop() if len(days) == 1 else None

    def show(timestamp_ms: int) -> str:
        time = _utc(timestamp_ms)
        if time is None:
            return f"{timestamp_ms} ms"
        return f"{time:%H:%M:%S}.{timestamp_ms % 1000:03}" if day else f"{time:%Y-%m-%d %H:%M:%S}"

    return (f"{day} UTC" if day else "time (UTC)"), show


def _utc(timestamp_ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None  # beyond the year 9999


def _cells(row: Row, places: dict[str, int], stamp: Callable[[int], str]) -> list[str]:
    payload = row.payload
    if payload is None:
        return [str(row.index), "(broken)", "", "", "", ""]
    parents = ["?" if place is None else str(place) for place in _parents(payload, places, row.index)]
    return [
        str(row.index),
        clean(payload["operation"], MOST),
        str(payload["trust_score"]),
        clean(" ".join(_taints(payload)), MOST),
        clean(",".join(parents), MOST) or ("continues" if "kest.continues" in payload["labels"] else "root"),
        stamp(payload["timestamp_ms"]),
    ]


def _taints(payload: dict[str, Any]) -> Iterator[str]:
    """Those that begin here with +, those that end here with -, and the others as they are."""
    added = set(payload["added_taints"])
    yield from (f"+{taint}" for taint in payload["added_taints"])
    yield from (f"-{taint}" for taint in payload["removed_taints"])
    yield from (taint for taint in payload["taints"] if taint not in added)


def _details(
    row: Row, places: dict[str, int], paint: Paint, full: bool
) -> Iterator[tuple[str, str, Callable[[str], str]]]:
    limit = None if full else MOST
    payload = row.payload
    if payload is None:
        yield "broken", clean(row.broken, 1000), paint.bad
        if full and row.hash:
            yield "hash", row.hash, str
        return
    if (problem := _problem(row, _parents(payload, places, row.index))) is not None:
        yield "broken", clean(problem, 1000), paint.bad
    labels = payload["labels"]
    yield "by", clean(labels["principal"], limit), str
    yield from _caller(labels, limit)
    context = payload["policy_context"]
    tiers = ((tier, ", ".join(context[f"{tier}_policies"])) for tier in TIERS)
    yield "policies", "; ".join(f"{tier} {clean(names, limit)}" for tier, names in tiers if names) or "none", str
    for deviation in context["deviations"]:
        text = "{policy} ({tier}) not asked: {reason}; approved by {approver}".format_map(deviation)
        yield "deviation", clean(text, limit), paint.warn
    if "kest.trust_override" in labels:
        yield "trust", f"raised to {clean(labels['kest.trust_override'], 20)} here", paint.warn
    if full:
        yield from _rest(row, payload)


def _caller(labels: dict[str, str], limit: int | None) -> Iterator[tuple[str, str, Callable[[str], str]]]:
    """On whose behalf: user, agent and task of ``kest.identity``, as far as they are said."""
    from kest._kestcore import parse
    from kest.errors import KestError

    text = labels.get("kest.identity")
    if text is None:
        return
    try:
        said = parse(text)
    except (KestError, ValueError):
        said = None
    if not isinstance(said, dict):
        yield "identity", clean(text, limit), str
        return
    for name in CALLER:
        if (value := said.get(name)) is not None:
            yield name, clean(value if isinstance(value, str) else json.dumps(value), limit), str


def _rest(row: Row, payload: dict[str, Any]) -> Iterator[tuple[str, str, Callable[[str], str]]]:
    yield "operation", clean(payload["operation"]), str
    for taint in _taints(payload):
        yield "taint", clean(taint), str
    yield "class", clean(payload["classification"]), str
    yield "entry id", clean(payload["entry_id"]), str
    yield "hash", row.hash, str
    yield "parents", " ".join(payload["parent_ids"]), str
    yield "input hash", payload["input_hash"] or "none", str
    yield "runtime", clean(f"{payload['runtime']['name']} {payload['runtime']['version']}"), str
    for name, value in payload["labels"].items():
        if name != "principal":
            yield "label", f"{clean(name)}: {clean(value)}", str
