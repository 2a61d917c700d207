"""The gate's stores in a real Redis, as ratios to the round trip of one bare command; and what a hot key costs."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Budget, Row, nanoseconds, ratios, rounds_of, row

__all__ = ["measure"]

AT_ONCE = 20
HOT = 20_000


@contextmanager
def _redis() -> Iterator[str]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools/services"))
    from kest_services.processes import Processes
    from kest_services.redis import Redis

    with (
        tempfile.TemporaryDirectory() as name,
        Processes(Path(name)) as processes,
        Redis(processes, Path(name) / "redis") as server,
    ):
        yield server.url


def measure(budget: Budget) -> list[Row]:
    if shutil.which("redis-server") is None:
        print("  redis-server is not installed: its rows are left out")
        return []
    with _redis() as url:
        return _rows(url, budget)


def _rows(url: str, budget: Budget) -> list[Row]:
    from kest.gate import ActionContext, Gate, LimitKey, RedisRateLimitStore, RedisSessionStore

    rates, sessions = RedisRateLimitStore(url), RedisSessionStore(url)
    limit = {"rate_limit": {"max": 2**32 - 1, "window": "24h"}}
    policies = {"policies": [{"name": "p", "effect": "permit", "conditions": [limit]}]}
    plain: Any = {"policies": [{"name": "p", "effect": "permit", "conditions": []}]}
    limited, kept = (
        Gate.from_dict(policies, rate_store=rates),
        Gate.from_dict(plain, session_store=sessions, enable_drift=False),
    )
    context = ActionContext("alice", "user", "pay")
    session = ActionContext("alice", "user", "pay", session_id="s")
    hot, cold = LimitKey(b"hot", 2**32 - 1, 10**18), [0]

    def new() -> None:
        cold[0] += 1
        rates.record([LimitKey(b"cold %d" % cold[0], 1, 10**11)], enforce=True)

    for _ in range(HOT):
        rates.record([hot], enforce=True)
    client = rates._link.client()
    work: dict[str, Callable[[], object]] = {
        "ping": client.ping,
        "limited": lambda: limited.evaluate(context),
        "kept": lambda: kept.evaluate(session),
        "hot": lambda: rates.record([hot], enforce=True),
        "new": new,
    }
    parts = {name: lambda call=call: nanoseconds(call, AT_ONCE) for name, call in work.items()}  # type: ignore[misc]
    measured = rounds_of(parts, budget.rounds(60, 15))
    for store in (rates, sessions):
        store.close()

    def note(name: str) -> str:
        return f"{statistics.median(measured[name]) / 1e3:.0f} us"

    return [
        row("yardstick: PING through redis-py", [statistics.median(measured["ping"]) / 1e3], unit="us"),
        row("evaluate with a limit in Redis (two scripts) / PING", ratios(measured, "limited", "ping"), at_most=8.0,
            note=note("limited")),
        row("evaluate in a session in Redis (two scripts) / PING", ratios(measured, "kept", "ping"), at_most=8.0,
            note=note("kept")),
        row(f"record on a key with {HOT:,} events / on a new one", ratios(measured, "hot", "new"), at_most=1.5,
            note=note("hot")),
    ]  # fmt: skip
