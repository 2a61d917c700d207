"""What verification says of a log."""

from __future__ import annotations

from dataclasses import dataclass

from kest.audit.keys import KeyLife, Verdict
from kest.audit.note import Checkpoint

__all__ = ["LogReport", "MissingOutcome", "Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: ``"tree"``, ``"tile"``, ``"bundle"``, ``"record"``, ``"outcome"`` or ``"key"``.
        index: of the record concerned; None: of none in particular.
        reason: in words.
    """

    kind: str
    index: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class MissingOutcome:
    """A call of which the log says that it was allowed, and not what came of it.

    Attributes:
        index, entry_id, operation: of its entry.
        lost: the process that recorded it has ended; False: it may still be running.
    """

    index: int
    entry_id: str
    operation: str
    lost: bool


@dataclass(frozen=True, slots=True)
class LogReport:
    """What is known of a log after every record was looked at.

    Attributes:
        checkpoint: up to where, and who cosigned it.
        kinds: how many records there are of each kind.
        verdicts: how many of each verdict.
        problems: what is wrong, the first ones (``problem_count`` says how many there are).
        missing: calls without an outcome, likewise (``missing_count``).
        keys: every key that was given, or that the log speaks of.
        opened: how often a process opened the log for writing.
        torn: writes that did not come to their end, as processes that opened the log found them.
        journal_bytes: beside the tiles, records that no checkpoint covers yet.
    """

    checkpoint: Checkpoint
    kinds: dict[str, int]
    verdicts: dict[Verdict, int]
    problems: tuple[Problem, ...]
    problem_count: int
    missing: tuple[MissingOutcome, ...]
    missing_count: int
    keys: tuple[KeyLife, ...]
    opened: int
    torn: int
    journal_bytes: int

    @property
    def ok(self) -> bool:
        """Nothing was changed, left out or signed by one who may not. A call without an outcome is no lie: see `missing`."""
        return not self.problem_count
