"""Rounds, ratios and verdicts.

The machines that this runs on are shared, so nothing absolute is compared. Whatever is put in relation is measured in the
same round, a few milliseconds apart, and in alternating order; a round gives one ratio; of many short rounds the median
counts, and the quartiles say how far to trust it. What needs a second core cannot be measured while somebody else uses
it: such rounds are held against the time that other processes took, and repeated.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

__all__ = ["Budget", "Row", "Watch", "nanoseconds", "ratios", "rounds_of", "row"]

FOREIGN_LIMIT = 0.15
"""Cores that others may use during a round that counts as quiet."""

ENOUGH = 5
"""Rounds without which there is no median worth the name."""

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Budget:
    """How much to measure: 1 is the full run, less is a quick look, more is the second try of a subject that missed."""

    scale: float = 1.0

    @property
    def patience(self) -> float:
        """Seconds that a subject may wait for others to leave the cores."""
        return 15.0 * self.scale

    def rounds(self, full: int, least: int = 5) -> int:
        return max(least, round(full * self.scale))


@dataclass(frozen=True)
class Row:
    """One measured number beside what it must be. ``at_least`` None: for information only."""

    name: str
    value: float
    low: float
    high: float
    target: float | None = None
    at_least: bool | None = None
    unit: str = "x"
    note: str = ""
    samples: int = 1

    @property
    def passed(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "quartiles": [self.low, self.high],
            "target": self.target,
            "at_least": self.at_least,
            "unit": self.unit,
            "passed": self.passed,
            "samples": self.samples,
            "note": self.note,
        }


def row(
    name: str,
    samples: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "x",
    note: str = "",
) -> Row:
    """The median of the samples, with their quartiles."""
    if len(samples) > 1:
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    else:
        low = high = samples[0]
    target = at_least if at_least is not None else at_most
    kind = None if target is None else at_least is not None
    return Row(name, statistics.median(samples), low, high, target, kind, unit, note, len(samples))


def nanoseconds(function: Callable[[], object], times: int) -> float:
    """Nanoseconds that one of ``times`` calls takes."""
    every = repeat(None, times)
    start = time.perf_counter_ns()
    for _ in every:
        function()
    return (time.perf_counter_ns() - start) / times


def rounds_of(
    parts: Mapping[str, Callable[[], float]], rounds: int, *, watch: Watch | None = None
) -> dict[str, list[float]]:
    """Runs every part once per round, in alternating order; name → what it returned, per round.

    With a watch only quiet rounds count, as far as there are enough of them before its patience ends.
    """
    order = list(parts.items())
    for _, part in order:
        part()
    kept: list[dict[str, float]] = []
    loud: list[tuple[float, dict[str, float]]] = []
    for number in range(10 * rounds if watch is not None else rounds):
        values: dict[str, float] = {}
        if watch is not None:
            watch.wait()
            watch.start()
        for name, part in order if number % 2 == 0 else reversed(order):
            values[name] = part()
        foreign = watch.stop() if watch is not None else 0.0
        if foreign <= FOREIGN_LIMIT:
            kept.append(values)
        else:
            loud.append((foreign, values))
        if len(kept) >= rounds or (watch is not None and watch.patience <= 0 and number + 1 >= ENOUGH):
            break
    if len(kept) < ENOUGH:  # better the least disturbed than nothing; the watch's note says so
        loud.sort(key=lambda pair: pair[0])
        kept += [values for _, values in loud[: ENOUGH - len(kept)]]
    return {name: [values[name] for values in kept] for name in parts}


def ratios(measured: Mapping[str, Sequence[float]], above: str, below: str) -> list[float]:
    """above / below, round by round."""
    return [a / b for a, b in zip(measured[above], measured[below], strict=True)]


@dataclass
class Watch:
    """How many cores everybody else used meanwhile, from /proc/stat; 0 where there is no such file."""

    patience: float  # seconds to spend on waiting until others are done, and on rounds that they spoilt
    loud: int = 0
    quiet: int = 0
    _wall: float = field(default=0.0, init=False)
    _busy: float = field(default=0.0, init=False)
    _own: float = field(default=0.0, init=False)

    def wait(self) -> None:
        """Until the cores are free, or the patience is used up."""
        while self.patience > 0:
            self.start()
            time.sleep(0.1)
            self.patience -= 0.1
            if self._foreign() <= FOREIGN_LIMIT:
                return

    def start(self) -> None:
        self._wall, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def _foreign(self) -> float:
        wall = time.monotonic() - self._wall
        return max(0.0, (_busy_seconds() - self._busy) - (_own_seconds() - self._own)) / wall

    def stop(self) -> float:
        foreign = self._foreign()
        if foreign <= FOREIGN_LIMIT:
            self.quiet += 1
        else:
            self.loud += 1
            self.patience -= time.monotonic() - self._wall
        return foreign

    @property
    def note(self) -> str:
        if self.quiet >= ENOUGH:
            return f"{self.loud} more rounds not counted: others used the cores" if self.loud else ""
        return f"NOISY: others used the cores in {self.loud} of {self.quiet + self.loud} rounds"


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds() -> float:
    try:
        text = Path("/proc/stat").read_text()
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(v) for v in text.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICK
