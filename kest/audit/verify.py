"""Verification of a whole log, in one pass and little memory: tree, signatures, the ends of calls, the lives of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kest._kestcore import LogTree, tlog_check
from kest.audit.facts import ENTRY, FACTS, INTENT, KEY, LARGE, LOG, OUTCOME, facts_of, reason_of, verdict_of
from kest.audit.keys import KeyBook, KeyLife, Verdict
from kest.audit.layout import WIDTH
from kest.audit.note import Checkpoint
from kest.audit.reader import AuditReader
from kest.audit.records import KINDS
from kest.audit.tiles import first_records
from kest.errors import AuditCorruptError, AuditError

__all__ = ["LogReport", "MissingOutcome", "Problem", "verify_log", "verify_reader"]

_Facts = tuple[int, int | None, int, int, bytes]
"""Kind, status (None: it was dealt with), key, timestamp_ms, link."""

CHUNK_BYTES = 8 << 20
"""About as much of the log is in memory at a time."""


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


def verify_log(
    path: str | Path,
    key: Any,
    keys: Any = None,
    *,
    origin: str | None = None,
    witnesses: Iterable[Any] = (),
    quorum: int = 0,
    threads: int = 0,
    most: int = 1000,
) -> LogReport:
    """Verify a log from its files alone.

    Args:
        path: its folder.
        key: the log's, see `log_key`.
        keys: of those who signed its records: a `TrustStore`, or a mapping of principals to keys.
        witnesses, quorum: whose cosignatures count, and how many there must be.
        threads: how many verify signatures; 0: one per processor.
        most: how many problems, and calls without outcome, are named.

    Raises:
        AuditError: there is no checkpoint.
        AuditProofError: the checkpoint is not signed as it should be. What is wrong below it is in the report.
    """
    reader = AuditReader(path, key, origin=origin, witnesses=witnesses, quorum=quorum)
    return verify_reader(reader, keys, threads=threads, most=most)


def verify_reader(reader: AuditReader, keys: Any = None, *, threads: int = 0, most: int = 1000) -> LogReport:
    """`verify_log` for a log that is open."""
    return _Pass(reader, KeyBook.of(reader.key, keys), threads, most).run()


class _Pass:
    def __init__(self, reader: AuditReader, book: KeyBook, threads: int, most: int) -> None:
        self.reader, self.book, self.threads, self.most = reader, book, threads, most
        self.keys = book.record_keys()
        self.new_keys = False  # since the chunk at hand was verified
        self.tree = LogTree()
        self.kinds = [0] * len(KINDS)
        self.verdicts: Counter[Verdict] = Counter()
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.open: dict[bytes, int] = {}
        self.opened, self.torn, self.ended = 0, 0, -1

    def run(self) -> LogReport:
        checkpoint = self.reader.checkpoint
        try:
            for first, bundles in self._chunks():
                self._chunk(first, bundles)
        except AuditCorruptError as error:
            self._problem("bundle", self.tree.size, str(error))
        if self.tree.size == checkpoint.size:
            self._tiles(self.tree.partials())
            if self.tree.root() != checkpoint.root:
                self._problem("tree", None, "the records do not hash to the root that was signed")
        missing = tuple(self._missing(index) for index in sorted(self.open.values())[: self.most])
        for life in self.book.lives:
            if life.used:
                self.verdicts[life.since] += life.used
        return LogReport(
            checkpoint,
            {kind: count for kind, count in zip(KINDS, self.kinds, strict=True) if count},
            dict(self.verdicts),
            tuple(self.problems),
            self.problem_count,
            missing,
            len(self.open),
            tuple(self.book.lives),
            self.opened,
            self.torn,
            self.reader.journal_bytes(),
        )

    def _problem(self, kind: str, index: int | None, reason: str) -> None:
        self.problem_count += 1
        if len(self.problems) < self.most:
            self.problems.append(Problem(kind, index, reason))

    # --- the tree ---

    def _chunks(self) -> Iterable[tuple[int, list[bytes]]]:
        size, bundles, held, first = self.reader.size, [], 0, 0
        for number in range(-(-size // WIDTH)):
            bundle = self.reader.tiles.bundle(number)
            if (count := min(WIDTH, size - number * WIDTH)) < WIDTH:
                bundle = first_records(bundle, count)
            bundles.append(bundle)
            held += len(bundle)
            if held >= CHUNK_BYTES:
                yield first, bundles
                bundles, held, first = [], 0, (number + 1) * WIDTH
        if bundles:
            yield first, bundles

    def _chunk(self, first: int, bundles: list[bytes]) -> None:
        self.new_keys = False
        try:
            hashes, facts = tlog_check(bundles, self.keys, self.threads)
        except ValueError as error:
            raise AuditCorruptError(f"records from {first} on: {error}") from None
        expected = min(self.reader.size - first, WIDTH * len(bundles))
        if len(hashes) != 32 * expected:
            raise AuditCorruptError(
                f"bundles from record {first} on hold {len(hashes) // 32} records where {expected} are expected"
            )
        self._tiles(self.tree.append(hashes))
        self._facts(first, facts)

    def _tiles(self, made: list[tuple[int, int, bytes]]) -> None:
        """Tiles must say what the records say: others read only them."""
        for level, index, hashes in made:
            try:
                if self.reader.tiles.hashes(level, index) != hashes:
                    self._problem(
                        "tile", None, f"tile {index} of level {level} does not hold the hashes of the records"
                    )
            except AuditCorruptError as error:
                self._problem("tile", None, str(error))

    # --- the records ---

    def _facts(self, first: int, facts: bytes) -> None:
        kinds, lives, open_calls = self.kinds, self.book.lives, self.open
        for at, (kind, status, key, _, timestamp, link) in enumerate(FACTS.iter_unpack(facts)):
            index = first + at
            if kind == LARGE or status:  # rare
                kind, status, key, timestamp, link = self._again(index, (kind, status, key, timestamp, link))
            kinds[kind] += 1
            if status is not None:
                if status:
                    self._bad(index, status)
                    continue
                life = lives[key]
                verdict = life.verdict(index, timestamp)
                if verdict.good:
                    life.used += 1
                else:
                    life.misused += 1
                    self.verdicts[verdict] += 1
                    self._problem("record", index, f"{verdict.value} ({life.principal}, {life.thumbprint})")
                    if kind == KEY:
                        continue
            if kind == OUTCOME:
                if open_calls.pop(link, None) is None:
                    self._problem("outcome", index, "of a call that is not in the log, or has an outcome already")
            elif kind in (ENTRY, INTENT):
                if open_calls.setdefault(link, index) != index:
                    self._problem("record", index, "the same entry is in the log twice")
            elif kind in (KEY, LOG):
                self._event(index, kind, key)

    def _again(self, index: int, facts: _Facts) -> _Facts:
        """A record that is kept beside the log, or whose key came in after this chunk was verified."""
        kind, status, _, _, link = facts
        if kind == LARGE and not status:
            record = self.reader.record(index)
            if record.body is record.leaf:
                self.verdicts[Verdict.MISSING] += 1
                self._problem("record", index, Verdict.MISSING.value)
                return kind, None, -1, 0, link
            return facts_of(record, self.keys)
        return facts_of(self.reader.record(index), self.keys) if self.new_keys else facts

    def _bad(self, index: int, status: int) -> None:
        self.verdicts[verdict_of(status)] += 1
        self._problem("record", index, reason_of(status))

    def _event(self, index: int, kind: int, key: int) -> None:
        record = self.reader.record(index)
        if kind == KEY:
            before = len(self.book.lives)
            if (why := self.book.apply(record, self.book.lives[key])) is not None:
                self._problem("key", index, why)
            elif len(self.book.lives) != before:
                self.keys, self.new_keys = self.book.record_keys(), True
            return
        if record.signer != self.reader.key.name:
            self._problem("record", index, "an event of the log that the log did not sign")
            return
        event = record.payload.get("event")
        if event == "opened":
            self.opened += 1
            self.ended = index
            torn = record.payload.get("torn")
            self.torn += len(torn) if isinstance(torn, list) else 0
        elif event == "closed":
            self.ended = index

    def _missing(self, index: int) -> MissingOutcome:
        try:
            record = self.reader.record(index)
            return MissingOutcome(index, record.entry_id, record.operation, index < self.ended)
        except AuditError:
            return MissingOutcome(index, "", "", index < self.ended)
