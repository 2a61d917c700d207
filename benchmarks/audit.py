"""The audit log: durable records a second beside SQLite, what it adds to a call, a million records verified, one proved.

``python -m benchmarks.audit [COUNT]`` measures the last two alone.

The disk is the one under the folder for temporary files. Rows that depend on it are ratios of two things that were done to
the same disk in the same round, but for the one that says how many records a second became durable.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Budget, Row, Watch, ratios, rounds_of, row
from benchmarks.report import line
from kest._kestcore import Signer
from kest.audit import AuditLog, AuditReader, verify_proof
from kest.core import LocalEd25519Provider, MockPolicyEngine, configure, kest_verified
from kest.core.context import get_current_passport, lineage

__all__ = ["measure"]

LEAST_RATE = 20_000
"""Durable records a second that are promised; calls are measured at 80 % of it, two records each."""

PACE = 2 / (0.8 * LEAST_RATE)
RECORDS, ROWS, CALLS = 4_000, 200, 400
MILLION = 1_000_000

VERIFY = """
import json, os, sys, time
from kest.audit import verify_log
from kest._kestcore import PublicKey
start, cpu = time.monotonic(), os.times()
report = verify_log(sys.argv[1], sys.argv[2], {"spiffe://kest.bench/agent": bytes.fromhex(sys.argv[3])})
wall = time.monotonic() - start
assert report.ok, report.problems[:3]
used = os.times()
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([wall, used.user + used.system - cpu.user - cpu.system, peak / 1024, report.checkpoint.size]))
"""


def _entry(identity: LocalEd25519Provider) -> str:
    configure(engine=MockPolicyEngine(), identity=identity)
    with lineage():
        kest_verified("allow_lookup", user="someone", operation_name="orders.lookup")(lambda: 1)()
        return get_current_passport().entries[0]


def _ours(log: AuditLog, entry: str, signer: Signer) -> Callable[[], float]:
    """Seconds a record: as many entries as outcomes, which are signed on their way."""
    payload = json.dumps({"record": "outcome", "entry_hash": "0" * 64, "timestamp_ms": 1, "pad": "x" * 250}).encode()

    def run() -> float:
        start = time.perf_counter()
        for _ in range(RECORDS // 2):
            for pending in (
                log.record("entry", entry),
                log.record_unsigned("outcome", signer, "kest-outcome+jws", payload),
            ):
                if pending is not None:
                    pending.wait()
        log.flush()
        return (time.perf_counter() - start) / RECORDS

    return run


def _sqlite(path: Path, entry: str) -> Callable[[], float]:
    """Seconds a row: one transaction each, in the journal mode in which that is one sync."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute("create table log (id integer primary key, record text)")

    def run() -> float:
        start = time.perf_counter()
        for _ in range(ROWS):
            database.execute("insert into log (record) values (?)", (entry,))
        return (time.perf_counter() - start) / ROWS

    return run


def _durable(folder: Path, budget: Budget) -> list[Row]:
    identity = LocalEd25519Provider("spiffe://kest.bench/agent")
    entry = _entry(identity)
    assert identity.signer is not None
    watch = Watch(budget.patience)
    with AuditLog(folder / "durable", Signer("log.kest.bench/durable")) as log:
        measured = rounds_of(
            {"ours": _ours(log, entry, identity.signer), "sqlite": _sqlite(folder / "rows.db", entry)},
            budget.rounds(25),
            watch=watch,
        )
    return [
        row(
            "durable records a second",
            [1 / one for one in measured["ours"]],
            at_least=LEAST_RATE,
            unit="",
            note=watch.note,
        ),
        row("one transaction a record in SQLite / group commit", ratios(measured, "sqlite", "ours"), at_least=5.0),
    ]


def _paced(call: Callable[[int], int]) -> Callable[[], float]:
    """Seconds that a call takes of its caller's time, at a steady pace."""

    def run() -> float:
        spent, due = [], time.perf_counter()
        for number in range(CALLS):
            with lineage():
                start = time.perf_counter()
                call(number)
                spent.append(time.perf_counter() - start)
            due += PACE
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
        return statistics.mean(sorted(spent)[: CALLS * 99 // 100])  # without what the machine's other users cost

    return run


def _calls(folder: Path, budget: Budget) -> list[Row]:
    identity = LocalEd25519Provider("spiffe://kest.bench/agent")
    configure(clear=True)
    configure(engine=MockPolicyEngine(), identity=identity)
    plain = kest_verified("allow_lookup", operation_name="orders.lookup")(lambda order: order)
    watch = Watch(budget.patience)
    with AuditLog(folder / "calls", Signer("log.kest.bench/calls")) as log:

        def without() -> float:
            configure(clear=True)
            configure(engine=MockPolicyEngine(), identity=identity)
            return _paced(plain)()

        def audited() -> float:
            configure(audit=log)
            return _paced(plain)()

        measured = rounds_of({"off": without, "on": audited}, budget.rounds(25), watch=watch)
        configure(clear=True)
    name = f"a call with audit on / off, at {1 / PACE:,.0f} calls a second"
    return [row(name, ratios(measured, "on", "off"), at_most=1.3, note=watch.note)]


def _filled(folder: Path, count: int) -> tuple[Path, str, str]:
    """A log of ``count`` records with a signature of their own each."""
    signer = Signer("spiffe://kest.bench/agent")
    head = b'{"pad":"' + b"x" * 300 + b'","principal":"spiffe://kest.bench/agent","record":"verdict","timestamp_ms":'
    with AuditLog(folder / "large", Signer("log.kest.bench/large")) as log:
        for number in range(count - 2):  # the log says that it was opened and closed
            pending = log.record_unsigned("verdict", signer, "kest-verdict+jws", head + b"%d}" % number)
            if pending is not None:
                pending.wait()
    return log.path, log.key.vkey, signer.public_key.hex()


def _proofs(path: Path, vkey: str, budget: Budget) -> list[float]:
    """Milliseconds from a record to its proof file, in a reader that was just opened."""
    times = []
    for number in range(budget.rounds(25)):
        reader = AuditReader(path, vkey)
        record = reader.record(reader.size * (number + 1) // 50).leaf
        start = time.perf_counter()
        proof = reader.prove(record)
        times.append((time.perf_counter() - start) * 1000)
        verify_proof(proof, vkey)
    return times


def _verified(folder: Path, budget: Budget, count: int) -> list[Row]:
    start = time.perf_counter()
    path, vkey, key = _filled(folder, count)
    filled = time.perf_counter() - start
    watch = Watch(budget.patience)
    watch.wait()
    watch.start()
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, str(path), vkey, key],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    foreign = watch.stop()
    wall, cpu, peak, size = json.loads(done.stdout)
    assert size == count
    note = f"{wall:.1f} s; others used {foreign:.1f} cores" if foreign > 0.15 else f"{wall:.1f} s"
    name = f"{count:,} records verified"
    return [
        row(f"{count:,} records signed and written: a second", [count / filled], unit="", note=f"{filled:.1f} s"),
        row(f"{name}: memory", [peak], at_most=200, unit="MiB", note=note),
        # What others use, it cannot.
        row(
            f"{name}: processors at work, of those that were free",
            [cpu / wall / max(1.0, (os.cpu_count() or 1) - foreign)],
            at_least=0.8,
            unit="x",
        ),
        row(f"{name}: a second", [count / wall], unit=""),
        row(f"one of {count:,} records proved", _proofs(path, vkey, budget), at_most=5.0, unit="ms"),
    ]


def measure(budget: Budget) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="kest-bench-") as name:
        folder = Path(name)
        count = MILLION if budget.scale >= 1 else MILLION // 10
        return [*_durable(folder, budget), *_calls(folder, budget), *_verified(folder, budget, count)]


def main(arguments: list[str] | None = None) -> int:
    """Only the large log: of a million records, or of as many as are said."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=main.__doc__)
    parser.add_argument("records", nargs="?", type=int, default=MILLION, help="how many (default: 1,000,000)")
    count = parser.parse_args(arguments).records
    with tempfile.TemporaryDirectory(prefix="kest-bench-") as name:
        rows = _verified(Path(name), Budget(), max(1000, count))
    for one in rows:
        print(line(one))
    return int(any(one.passed is False for one in rows))


if __name__ == "__main__":
    sys.exit(main())
