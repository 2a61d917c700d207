"""What a passport weighs, and whether calls leave anything behind."""

from __future__ import annotations

from benchmarks import child
from benchmarks.measure import Budget, Row, row

__all__ = ["measure"]

ENTRIES = 10_000


def measure(budget: Budget) -> list[Row]:
    runs = [child.run("passport", str(ENTRIES)) for _ in range(budget.rounds(3, 2))]
    calls = 1_000_000 if budget.scale >= 1 else 100_000
    flat = child.run("flat", str(calls))

    def of(name: str) -> list[float]:
        return [run[name] / 1000 for run in runs]

    note = f"an entry is {runs[0]['entry']:.0f} bytes of text"
    return [
        row(f"an entry of a {ENTRIES:,}-entry passport, resident", of("live"), at_most=1.4, unit="kB", note=note),
        row("the same, as malloc counts it", of("live_malloc"), unit="kB"),
        row("an entry of a passport read from text, resident", of("read"), at_most=1.4, unit="kB"),
        row("the same, as malloc counts it", of("read_malloc"), unit="kB"),
        row(
            f"resident memory after {calls:,} decorated calls",
            [flat["growth"] / 1e6],
            at_most=2.0,
            unit="MB",
            note=f"at most {flat['most'] / 1e6:.2f} MB on the way; 100,000 calls of warm-up",
        ),
    ]
