"""Measurements that need a process of their own. Started by `memory` and `startup`; prints one JSON object."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process in memory after everything that is free has been given back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def allocated() -> int:
    """Bytes that malloc has handed out and not got back; 0 where it does not say (glibc before 2.33, others)."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def passport(count: int) -> dict[str, float]:
    """Bytes per entry of a passport that decorated calls have grown to ``count`` entries, and of one read from text."""
    from kest.core import LocalEd25519Provider, MockPolicyEngine, configure, kest_verified
    from kest.core.context import get_current_passport, lineage
    from kest.core.passport import Passport

    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider(), max_entries=count + 1)

    @kest_verified("allow_lookup")
    def lookup(order: int) -> int:
        return order

    with lineage():
        for order in range(200):
            lookup(order)
    with lineage():
        size, held = resident(), allocated()
        for order in range(count):
            lookup(order)
        grown = get_current_passport()
        assert len(grown) == count
        live = (resident() - size) / count
        live_malloc = (allocated() - held) / count
        text = grown.serialize()
    del grown
    size, held = resident(), allocated()
    read = Passport.deserialize(text)
    assert len(read) == count
    return {
        "live": live,
        "live_malloc": live_malloc,
        "read": (resident() - size) / count,
        "read_malloc": (allocated() - held) / count,
        "entry": len(text) / count,
    }


def flat(count: int) -> dict[str, float]:
    """Bytes by which resident memory grows over ``count`` decorated calls after a warm-up."""
    from kest.core import LocalEd25519Provider, MockPolicyEngine, configure, kest_verified
    from kest.core.context import lineage

    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())

    @kest_verified("allow_lookup")
    def lookup(order: int) -> int:
        return order

    @kest_verified("allow_export", context_map={"order": "order"}, added_taints=["exported"])
    def export(order: int, text: str = "x") -> int:
        return order

    # Long flows that roll over, short ones, nested taints, and questions that policy has never been asked before.
    def block(start: int) -> None:
        with lineage():
            for order in range(start, start + 800):
                lookup(order)
        for order in range(start, start + 100):
            with lineage():
                lookup(order)
                export(order)

    for start in range(0, 100_000, 1000):
        block(start)
    before = resident()
    samples = []
    for start in range(100_000, 100_000 + count, 1000):
        block(start)
        if start % 50_000 == 0:
            samples.append(resident() - before)
    return {"growth": float(resident() - before), "most": float(max(samples)), "calls": float(count)}


def gate(count: int) -> dict[str, float]:
    """Bytes of each of ``count`` idle rate-limited keys, what is left of them after their window, and the slowest calls
    that forget them (microseconds, 99.9th percentile)."""
    import time
    from array import array

    from kest.gate import ActionContext, Gate, InMemoryRateLimitStore

    store = InMemoryRateLimitStore()
    limit = {"rate_limit": {"max": 5, "window": "1h"}}
    policies = {"policies": [{"name": "p", "effect": "permit", "conditions": [limit]}]}
    gate = Gate.from_dict(policies, rate_store=store)
    now = 1_700_000_000 * 10**9
    gate._core.set_clock(now, now)
    for number in range(1000):  # what is made once
        gate.evaluate(ActionContext(f"warm {number}", "user", "pay"))
    times = array("q", [0]) * 100_000
    before = resident()
    for number in range(count):
        gate.evaluate(ActionContext(f"principal {number}", "user", "pay"))
    full = resident()
    now += 3600 * 10**9
    gate._core.set_clock(now, now)
    idle = ActionContext("somebody", "user", "pay")
    for number in range(len(times)):
        start = time.perf_counter_ns()
        gate.evaluate(idle)
        times[number] = time.perf_counter_ns() - start
    after = resident()
    slowest = sorted(times)[-100] / 1000
    return {
        "each": (full - before) / count,
        "left": (after - before) / count,
        "keys": float(len(store)),
        "slowest": slowest,
    }


def imports(statement: str) -> dict[str, object]:
    """Milliseconds for ``statement``, after the dependencies that it loads have been imported separately."""
    import importlib
    import time

    dependencies = [name for name in os.environ.get("KEST_BENCH_DEPENDENCIES", "").split(",") if name]
    for name in dependencies:
        importlib.import_module(name)
    before = set(sys.modules)
    start = time.perf_counter()
    exec(statement, {})
    spent = (time.perf_counter() - start) * 1e3
    loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
    return {"ms": spent, "loaded": sorted(loaded)}


def main() -> None:
    tasks: dict[str, Callable[[str], object]] = {
        "passport": lambda arg: passport(int(arg)),
        "flat": lambda arg: flat(int(arg)),
        "gate": lambda arg: gate(int(arg)),
        "imports": imports,
    }
    print(json.dumps(tasks[sys.argv[1]](sys.argv[2])))


if __name__ == "__main__":
    main()
