"""Verification of a whole log, in one pass and little memory: tree, signatures, the ends of calls, the lives of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kest._kestcore import STATUS_PRINCIPAL, STATUS_SIGNATURE, LogTree, tlog_check, tlog_leaf, tlog_records
from kest.audit.facts import (
    CHAIN,
    ENTRY,
    FACTS,
    INTENT,
    KEY,
    LARGE,
    LOG,
    OUTCOME,
    Facts,
    facts_of,
    reason_of,
    verdict_of,
)  # fmt: skip
from kest.audit.keys import KeyBook, KeyLife, Verdict
from kest.audit.layout import WIDTH
from kest.audit.reader import AuditReader
from kest.audit.records import KINDS
from kest.audit.report import LogReport, MissingOutcome, Problem
from kest.audit.tiles import first_records, whole_records
from kest.errors import AuditCorruptError, AuditError

__all__ = ["verify_log", "verify_reader"]

CHUNK_BYTES = 8 << 20
"""About as much of the log is in memory at a time."""


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


class _DamageError(AuditCorruptError):
    """Where a log cannot be read any further: the record with this index."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class _Pass:
    def __init__(self, reader: AuditReader, book: KeyBook, threads: int, most: int) -> None:
        self.reader, self.book, self.threads, self.most = reader, book, threads, most
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
        except _DamageError as error:
            self._problem("bundle", error.index, str(error))
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
        bundles: list[bytes] = []
        size, held, first = self.reader.size, 0, 0
        for number in range(-(-size // WIDTH)):
            bundle = b""
            try:
                bundle = self.reader.tiles.bundle(number)
                if (count := min(WIDTH, size - number * WIDTH)) < WIDTH:
                    bundle = first_records(bundle, count)
            except AuditCorruptError as error:
                if bundles:
                    yield first, bundles  # what stands before it is as good as ever
                raise _DamageError(
                    number * WIDTH + self._as_in_tile(number, whole_records(bundle)), str(error)
                ) from None
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
            hashes, facts = tlog_check(bundles, self.book.record_keys(), self.threads)
        except ValueError:
            hashes = facts = b""
        if len(hashes) != 32 * min(self.reader.size - first, WIDTH * len(bundles)):
            good, damage = self._damaged(first, bundles)
            if good:
                self._chunk(first, bundles[:good])
            raise damage
        self._tiles(self.tree.append(hashes))
        self._facts(first, facts, self._chained(first, bundles))

    def _damaged(self, first: int, bundles: list[bytes]) -> tuple[int, _DamageError]:
        """How many of these bundles are whole, and which record is the first of the next that is not there."""
        for at, bundle in enumerate(bundles):
            start = first + at * WIDTH
            wanted = min(WIDTH, self.reader.size - start)
            records = whole_records(bundle)
            end = sum(2 + len(one) for one in records)
            if len(records) == wanted and end == len(bundle):
                continue
            good = min(self._as_in_tile(start // WIDTH, records), wanted)
            said = f"entry bundle {start // WIDTH} holds {len(records)} records where {wanted} are expected"
            if end < len(bundle):
                said = f"entry bundle {start // WIDTH} cannot be read from record {start + good} on"
            return at, _DamageError(start + good, said)
        return 0, _DamageError(first, f"the records from {first} on cannot be read")

    def _as_in_tile(self, number: int, records: list[bytes]) -> int:
        """With how many of these records a bundle begins as its tile says; a wrong length makes others of all that follow."""
        try:
            hashes = self.reader.tiles.hashes(0, number)
        except AuditCorruptError:
            return len(records)
        same = (tlog_leaf(one) == hashes[32 * at : 32 * at + 32] for at, one in enumerate(records))
        return next((at for at, good in enumerate(same) if not good), len(records))

    def _chained(self, first: int, bundles: list[bytes]) -> dict[int, Facts]:
        """What is known of records whose headers have certificate chains: all of one header at once, with its one key.

        By name they could not be told apart: a workload has a new key every hour.
        """
        chains = self.book.chains
        found: dict[int, Facts] = {}
        if chains is None:
            return found
        records = (
            (first + at, one) for at, one in enumerate(one for bundle in bundles for one in tlog_records(bundle))
        )
        for group in chains.groups(records).values():
            chain = chains.of(group[0][1])
            if isinstance(chain, str):
                found |= {index: Facts(0, CHAIN, None, 0, b"", chain) for index, _ in group}
            elif chain is not None:
                bundle = b"".join(len(one).to_bytes(2, "big") + one for _, one in group)
                facts = FACTS.iter_unpack(tlog_check([bundle], chain.keys, self.threads)[1])
                for (index, _), (kind, status, _, _, timestamp, link) in zip(group, facts, strict=True):
                    found[index] = Facts(kind, status, chain.life, timestamp, link)
        return found

    def _tiles(self, made: list[tuple[int, int, bytes]]) -> None:
        """Tiles must say what the records say: others read only them."""
        for level, index, hashes in made:
            try:
                there = self.reader.tiles.hashes(level, index)
            except AuditCorruptError as error:
                self._problem("tile", None, str(error))
                continue
            if there == hashes:
                continue
            said = f"tile {index} of level {level} does not hold the hashes of the records"
            if level:
                self._problem("tile", None, said)
                continue
            for at in range(0, len(hashes), 32):
                if there[at : at + 32] != hashes[at : at + 32]:
                    self._problem("tile", index * WIDTH + at // 32, f"{said}: it has another in this one's place")

    # --- the records ---

    def _facts(self, first: int, facts: bytes, chained: dict[int, Facts]) -> None:
        kinds, named, open_calls = self.kinds, self.book.named, self.open
        for at, (kind, status, key, _, timestamp, link) in enumerate(FACTS.iter_unpack(facts)):
            index = first + at
            life = named[key]  # of no use where there is none (-1), which has a status, too
            if kind == LARGE or status or (chained and index in chained):  # rare
                again = self._again(index, Facts(kind, status, None, timestamp, link), chained.get(index))
                kind, status, _, timestamp, link, reason = again
                kinds[kind] += 1
                if status:
                    self.verdicts[verdict_of(status)] += 1
                    self._problem("record", index, reason or reason_of(status))
                if again.life is None:
                    continue
                life = again.life
            else:
                kinds[kind] += 1
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
                self._event(index, kind, life)

    def _again(self, index: int, facts: Facts, chained: Facts | None) -> Facts:
        """A record that is kept beside the log, or has a certificate chain, or whose key came in after its chunk was read.

        ``life`` is None where there is nothing more to look at; a status of 0 has then been dealt with.
        """
        if facts.kind == LARGE and not facts.status:
            record = self.reader.record(index)
            if record.body is record.leaf:
                self.verdicts[Verdict.MISSING] += 1
                self._problem("record", index, Verdict.MISSING.value)
                return facts
            facts = facts_of(record, self.book)
        elif chained is not None:
            readable = facts.status in (0, STATUS_PRINCIPAL, STATUS_SIGNATURE)
            if chained.status != CHAIN:
                facts = chained
            elif readable:
                facts = facts._replace(status=CHAIN, reason=chained.reason)
        elif self.new_keys:
            facts = facts_of(self.reader.record(index), self.book)
        return facts._replace(life=None) if facts.status else facts

    def _event(self, index: int, kind: int, life: KeyLife) -> None:
        record = self.reader.record(index)
        if kind == KEY:
            before = len(self.book.named)
            if (why := self.book.apply(record, life)) is not None:
                self._problem("key", index, why)
            elif len(self.book.named) != before:
                self.new_keys = True
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
