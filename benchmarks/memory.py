"""What a passport weighs, and whether calls leave anything behind."""

from __future__ import annotations

from benchmarks import child
from benchmarks.flows import Flow, request
from benchmarks.measure import Budget, Row, row
from benchmarks.served import Served

__all__ = ["measure"]

ENTRIES = 10_000
BLOCK = 1000


def _served(count: int) -> Row:
    """Resident memory of a server over requests of all kinds, once its bounded memory of what it has verified is full."""
    one, seen, new = Flow(0, 1, ""), Flow(9, 1, "_z"), Flow(0, 10, "_z")

    def block() -> list[bytes]:
        parts = one.requests(BLOCK // 2), seen.requests(BLOCK * 2 // 5), new.requests(BLOCK // 10)
        return [request(seen.header(seen.prefix)), *(ask for part in parts for ask in part)]

    with Served("kest", "httptools", one.keys) as served:
        for _ in range(7):  # 70,000 entries: more than are remembered
            served.client.closed(new.requests(BLOCK))
        for _ in range(3):
            served.client.closed(block())
        samples = []
        for _ in range(count // BLOCK):
            served.client.closed(block())
            samples.append(int(served.ask("resident")))
    # What is remembered goes from half full to full and back several times in each half: what counts is how high it comes.
    first, second = samples[: len(samples) // 2], samples[len(samples) // 2 :]
    return row(
        f"resident memory over {count:,} requests: most in the second half, above most in the first",
        [(max(second) - max(first)) / 1e6],
        at_most=2.0,
        unit="MB",
        note=f"{min(samples) / 1e6:.0f} to {max(samples) / 1e6:.0f} MB; 10,000 requests of warm-up",
    )


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
        _served(100_000 if budget.scale >= 1 else 5000),
    ]
