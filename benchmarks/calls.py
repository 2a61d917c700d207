"""A decorated call, warm: MockPolicyEngine, decision cached, input hash on, no telemetry SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks import raw
from benchmarks.measure import Budget, Row, nanoseconds, ratios, rounds_of, row
from kest.core import LocalEd25519Provider, MockPolicyEngine, configure, kest_verified
from kest.core.context import get_current_passport, passport_var
from kest.core.passport import Passport

__all__ = ["measure"]

SEED = bytes(range(32))
TASKS = 100


@kest_verified("allow_lookup")
def lookup(order: int, region: str = "eu") -> int:
    return order


@kest_verified("allow_lookup")
async def lookup_async(order: int, region: str = "eu") -> int:
    return order


@kest_verified("allow_lookup")
async def lookup_yielding(order: int, region: str = "eu") -> int:
    await asyncio.sleep(0)
    return order


def _grown(depth: int) -> Passport:
    """A flow of ``depth`` entries."""
    passport_var.set(Passport())
    for order in range(depth):
        lookup(order)
    return get_current_passport()


def _signing_input(parent: Passport) -> bytes:
    """What is signed by a call that continues from ``parent``."""
    passport_var.set(parent)
    lookup(7)
    return get_current_passport().entries[-1].rpartition(".")[0].encode("ascii")


def _sync(parent: Passport, times: int) -> Callable[[], float]:
    enter = passport_var.set

    def call() -> None:
        enter(parent)
        lookup(7)

    return lambda: nanoseconds(call, times)


async def _repeat(function: Callable[[int], Awaitable[int]], parent: Passport, times: int) -> None:
    enter = passport_var.set
    for _ in range(times):
        enter(parent)
        await function(7)


def _on_loop(function: Callable[[int], Awaitable[int]], parent: Passport, tasks: int, each: int) -> Callable[[], float]:
    """Nanoseconds per call of ``tasks`` tasks with ``each`` calls on one loop, once all have started."""

    async def main() -> float:
        gate = asyncio.Event()

        async def task() -> None:
            await gate.wait()
            await _repeat(function, parent, each)

        waiting = [asyncio.ensure_future(task()) for _ in range(tasks)]
        await asyncio.sleep(0)
        start = time.perf_counter_ns()
        gate.set()
        await asyncio.gather(*waiting)
        return (time.perf_counter_ns() - start) / (tasks * each)

    return lambda: asyncio.run(main())


def measure(budget: Budget) -> list[Row]:
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider(seed=SEED), clear=True)
    root, one, deep = Passport(), _grown(1), _grown(499)
    first, later = _signing_input(root), _signing_input(one)
    if len(deep) != 499:
        raise AssertionError("a flow of 499 calls has as many entries")
    depths = rounds_of(
        {
            "raw": lambda: raw.sign_ns(SEED, first, 100),
            "raw later": lambda: raw.sign_ns(SEED, later, 100),
            "1": _sync(root, 100),
            "2": _sync(one, 100),
            "500": _sync(deep, 100),
        },
        budget.rounds(150, 30),
    )
    kinds = rounds_of(
        {
            "sync": _sync(root, 400),
            "sequential": _on_loop(lookup_async, root, 1, 400),
            "tasks": _on_loop(lookup_async, root, TASKS, 4),
            "sequential, yielding": _on_loop(lookup_yielding, root, 1, 400),
            "tasks, yielding": _on_loop(lookup_yielding, root, TASKS, 4),
        },
        budget.rounds(60, 12),
    )
    return [
        row(
            "decorated call / crypto_sign_detached, depth 1",
            ratios(depths, "1", "raw"),
            at_most=2.2,
            note=f"{len(first)} bytes signed",
        ),
        row(
            "decorated call / crypto_sign_detached, depth 2",
            ratios(depths, "2", "raw later"),
            note=f"{len(later)} bytes signed",
        ),
        row("depth 500 / depth 1", ratios(depths, "500", "1"), at_most=1.2),
        row("async / sync", ratios(kinds, "sequential", "sync"), at_most=1.5),
        row("100 tasks on one loop / sequential, per call", ratios(kinds, "tasks", "sequential"), at_most=1.1),
        row(
            "the same, each body yielding to the loop",
            ratios(kinds, "tasks, yielding", "sequential, yielding"),
            at_most=1.1,
        ),
    ]
