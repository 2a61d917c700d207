"""What a process that runs for long must not have more of, and whether it does."""

from __future__ import annotations

import gc
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEMORY_KIB = 8192
"""How much higher the median of resident memory may be in the last tenth of a run than in the second: what was verified is
remembered, and queues reach their longest late. A hundred bytes that each request leaves behind are more."""
OBJECTS = 64
"""How many more objects of a type of the core there may be: those of calls that have not ended."""
DESCRIPTORS = 2
"""A log has a segment of its journal open or not, as checkpoints come and go; and one connection may be ending."""
STEPS = 100


def sample() -> dict[str, int]:
    """Resident memory (KiB), file descriptors, threads, and objects of the core.

    Every object of a type that is made at run time holds a reference to its type, so that these say how many there are.
    """
    import kest._kestcore as core

    gc.collect()
    types = [value for value in vars(core).values() if isinstance(value, type)]
    status = Path("/proc/self/status").read_text()
    return {
        "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": int(status.partition("Threads:")[2].split()[0]),
        "objects": sum(sys.getrefcount(one) for one in types),
    }


def tenth(samples: Sequence[dict[str, int]], which: int, name: str) -> float:
    """The median of a figure in one tenth of the run, from 0."""
    size = len(samples) // 10
    return statistics.median(one[name] for one in samples[which * size : (which + 1) * size])


def growth(samples: Sequence[dict[str, int]]) -> dict[str, float]:
    """How much more of each there is in the last tenth than in the second; the first is for warming up."""
    assert len(samples) >= 20
    return {name: tenth(samples, 9, name) - tenth(samples, 1, name) for name in samples[0]}


def check(samples: Sequence[dict[str, int]]) -> None:
    """Everything is flat."""
    grown = growth(samples)
    assert grown["resident"] <= MEMORY_KIB, f"resident memory grew by {grown['resident']} KiB: {samples}"
    assert grown["descriptors"] <= DESCRIPTORS, samples
    assert grown["threads"] <= 0, samples
    assert grown["objects"] <= OBJECTS, samples


def told(what: str, report: dict[str, Any]) -> str:
    """One line for people."""
    samples = report["samples"]
    grown = growth(samples)
    return (
        f"{what}: {report['count']:,} in {report['seconds']:.0f} s; resident {tenth(samples, 1, 'resident') / 1024:.1f} MiB "
        f"in the second tenth, {grown['resident']:+.0f} KiB in the last; descriptors {grown['descriptors']:+.0f}, threads "
        f"{grown['threads']:+.0f}, objects of the core {grown['objects']:+.0f}; {report['verified']:,} passports verified"
    )
