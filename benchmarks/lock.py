"""What signing does to the other threads of the process, and they to it."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from benchmarks.measure import Budget, Row, Watch, ratios, rounds_of, row
from benchmarks.sign import Case
from kest._kestcore import lock_mode, lock_stats

__all__ = ["measure"]

WINDOW, LEAD_IN = 0.25, 0.1  # seconds; the lead-in lets the policy find out where it is
Mode = Literal["hold", "always", "adaptive"]
MODES: tuple[Mode, ...] = ("hold", "always", "adaptive")


@contextmanager
def busy_thread(wanted: bool) -> Iterator[None]:
    """A thread that computes in Python for as long as the block lasts."""
    running = [wanted]

    def compute() -> None:
        n = 0
        while running[0]:
            n = (n * 31 + 7) % 1_000_003

    thread = threading.Thread(target=compute, daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        running[0] = False
        if wanted:
            thread.join()


def operations_per_second(work: Callable[[], object], threads: int, busy: bool, window: float = WINDOW) -> float:
    """What ``threads`` threads get done in a second, each timed by itself."""
    rates: list[float] = []
    running = [True]
    clock = time.perf_counter

    def sign() -> None:
        lead_out = clock() + LEAD_IN
        while clock() < lead_out:
            work()
        start, done = clock(), 0
        until = start + window
        while (now := clock()) < until and running[0]:
            work()
            done += 1
        rates.append(done / (now - start))

    workers = [threading.Thread(target=sign) for _ in range(threads)]
    with busy_thread(busy):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return sum(rates)


def loop_lateness(work: Callable[[], object], threads: int, busy: bool, seconds: float) -> list[float]:
    """Milliseconds by which an asyncio loop in this thread wakes up late from sleeps of 2 ms, beside the signing threads."""
    running = [True]

    def sign() -> None:
        while running[0]:
            work()

    async def ticks() -> list[float]:
        late: list[float] = []
        loop = asyncio.get_running_loop()
        lead_out, until = loop.time() + LEAD_IN, loop.time() + LEAD_IN + seconds
        while loop.time() < until:
            due = loop.time() + 0.002
            await asyncio.sleep(0.002)
            if due > lead_out:
                late.append((loop.time() - due) * 1e3)
        return late

    workers = [threading.Thread(target=sign) for _ in range(threads)]
    with busy_thread(busy):
        for worker in workers:
            worker.start()
        late = asyncio.run(ticks())
        running[0] = False
        for worker in workers:
            worker.join()
    return late


def _lateness_rows(case: Case, budget: Budget) -> list[Row]:
    rows = []
    situations = (("beside 2 signing threads", 2, False), ("beside 4 signing threads and a busy one", 4, True))
    for label, threads, busy in situations:
        for mode in MODES:
            lock_mode(mode)
            late = loop_lateness(case.seal, threads, busy, max(0.4, 1.2 * budget.scale))
            ordered = sorted(late)
            p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
            median = statistics.median(ordered)
            for name, value in (("p50", median), ("p99", p99)):
                rows.append(
                    Row(
                        f"loop lateness {name}, {mode}, {label}",
                        value,
                        ordered[0],
                        ordered[-1],
                        unit="ms",
                        note="range, not quartiles",
                        samples=len(late),
                    )
                )
    lock_mode("adaptive")
    return rows


def measure(budget: Budget) -> list[Row]:
    case = Case()
    case.same_output()
    watch = Watch(budget.patience)

    def rate(mode: Mode, threads: int, busy: bool) -> Callable[[], float]:
        def run() -> float:
            lock_mode(mode)
            return operations_per_second(case.seal, threads, busy)

        return run

    try:
        before = lock_stats()
        pairs = rounds_of(
            {
                "one": rate("adaptive", 1, False),
                "two": rate("adaptive", 2, False),
                "busy": rate("adaptive", 4, True),
                "reference": lambda: operations_per_second(case.by_reference, 4, True),
            },
            budget.rounds(9, 5),
            watch=watch,
        )
        after = lock_stats()
        modes = rounds_of(
            {
                "one": rate("adaptive", 1, False),
                "hold, 2": rate("hold", 2, False),
                "always, 2": rate("always", 2, False),
                "hold, busy": rate("hold", 4, True),
                "always, busy": rate("always", 4, True),
            },
            budget.rounds(5, 3),
        )
        cliffs = after["cliffs"] - before["cliffs"]
        rows = [
            row("2 threads / 1 thread", ratios(pairs, "two", "one"), at_least=1.8, note=watch.note),
            row(
                "4 threads beside a busy thread: ours / reference",
                ratios(pairs, "busy", "reference"),
                at_least=25,
                note=watch.note,
            ),
            row(
                "4 threads beside a busy thread / our 1 thread without it",
                ratios(pairs, "busy", "one"),
                at_least=0.75,
                note=f"{cliffs} waits over 4 ms; {watch.note}".removesuffix("; "),
            ),
            row("hold: 2 threads / 1 thread", ratios(modes, "hold, 2", "one")),
            row("always: 2 threads / 1 thread", ratios(modes, "always, 2", "one")),
            row("hold: 4 threads beside a busy thread / 1 thread", ratios(modes, "hold, busy", "one")),
            row("always: 4 threads beside a busy thread / 1 thread", ratios(modes, "always, busy", "one")),
        ]
        return rows + _lateness_rows(case, budget)
    finally:
        lock_mode("adaptive")
