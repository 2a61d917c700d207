"""Recorded contexts against policies: what would be decided now, and which decisions other policies would change.

A record is a context (as `context_to_record` writes it), or an object with ``context``, ``at`` (Unix seconds, when it was
evaluated) and ``verdict`` (permit, refuse or invalidate). Records are replayed in order, on a clock that follows ``at``, so
that rate limits and sessions build up as they did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kest._kestcore import ActionContext, Verdict, parse
from kest.errors import GateInputError, KestError
from kest.gate.context import context_from_record
from kest.gate.gate import Gate

__all__ = ["Flip", "Record", "Replayed", "differences", "read_records", "replay"]

KINDS = ("permit", "refuse", "invalidate")
MAX_AT = 4_102_444_800.0


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded context; ``line`` counts from 1."""

    line: int
    context: ActionContext
    at: float | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """A record and what is decided about it now. ``as_recorded`` is None when the record holds no verdict."""

    record: Record
    verdict: Verdict

    @property
    def as_recorded(self) -> bool | None:
        """Whether the verdict is of the kind that was recorded."""
        return None if self.record.verdict is None else self.record.verdict == self.verdict.kind


@dataclass(frozen=True, slots=True)
class Flip:
    """A record that two sets of policies decide differently."""

    record: Record
    before: Verdict
    after: Verdict


def _record(value: Any, line: int) -> Record:
    if not isinstance(value, Mapping):
        raise GateInputError(f"an object is expected, not {type(value).__name__}")
    if "context" not in value:
        return Record(line, context_from_record(value))
    unknown = sorted(set(value) - {"context", "at", "verdict"})
    if unknown:
        raise GateInputError(f"unknown field {unknown[0]!r:.100}; known are context, at, verdict")
    at, verdict = value.get("at"), value.get("verdict")
    if at is not None and (isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at < MAX_AT):
        raise GateInputError("at is Unix seconds between 1970 and 2100")
    if verdict is not None and verdict not in KINDS:
        raise GateInputError(f"verdict is permit, refuse or invalidate, not {verdict!r:.60}")
    return Record(line, context_from_record(value["context"]), at, verdict)


def read_records(lines: Iterable[str]) -> Iterator[Record]:
    """Records from lines of JSON; blank lines are skipped. GateInputError names the line that is wrong."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _record(parse(line.strip()), number)
        except (KestError, TypeError) as error:
            raise GateInputError(f"line {number}: {error}") from None


def _set_clock(gate: Gate, at: float | None) -> None:
    if at is not None:
        nanoseconds = math.floor(at) * 1_000_000_000 + round(at % 1 * 1e9)
        gate._core.set_clock(nanoseconds, nanoseconds)


def replay(gate: Gate, records: Iterable[Record]) -> Iterator[Replayed]:
    """Evaluate records in order. The gate should be a fresh one: its clock and its stores follow the records."""
    for record in records:
        _set_clock(gate, record.at)
        yield Replayed(record, gate.evaluate(record.context))


def differences(before: Gate, after: Gate, records: Iterable[Record], seen: Callable[[], object]) -> Iterator[Flip]:
    """The records that two fresh gates decide differently; ``seen`` is called for each record."""
    for record in records:
        verdicts = []
        for gate in (before, after):
            _set_clock(gate, record.at)
            verdicts.append(gate.evaluate(record.context))
        seen()
        if verdicts[0].kind != verdicts[1].kind:
            yield Flip(record, *verdicts)
