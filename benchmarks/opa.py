"""A decision of a real OPA against what Python's HTTP clients need for the same POST, over TCP and over a Unix socket,
blocking and on an event loop; as it is, and with h11 reading every answer.

OPA has to be built (`tools/services/build opa`).
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, nanoseconds, ratios, rounds_of, row
from benchmarks.policy_clients import async_clients, blocking_clients
from kest.core import OPAPolicyEngine
from kest.core.engine import decide, decide_async, http_wire

__all__ = ["AT_ONCE", "NAME", "REGO", "over_http", "running_opa"]

NAME = "shop/refund"
REGO = """package shop.refund

import rego.v1

default allow := false

allow if {
	input.trust_score >= 40
	not "contains_pii" in input.taints
	input.args.amount <= 500
}
"""
AT_ONCE = 25
BY_H11 = "ours, all read by h11"


@contextmanager
def running_opa() -> Iterator[tuple[str, str] | None]:
    """The URL of a running OPA with the policy, and the path of its Unix socket; None where it is not built."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools/services"))
    from kest_services import components
    from kest_services.opa import Opa
    from kest_services.processes import Processes

    class OpaOnBoth(Opa):
        def command(self) -> list[str]:
            return [*super().command(), "--addr", f"unix://{self.folder / 's'}"]

    if not components.expected("opa").is_dir():
        print("  OPA is not built: its rows are left out (tools/services/build opa)")
        yield None
        return
    with (
        tempfile.TemporaryDirectory() as name,
        Processes(Path(name)) as processes,
        OpaOnBoth(processes, Path(name) / "opa") as opa,
    ):
        opa.put_policy("refund", REGO)
        yield opa.url, str(opa.folder / "s")


def over_http(opa: tuple[str, str], given: dict[str, Any], rounds: int) -> list[Row]:
    """Every ratio is taken with the fastest client of the same run, so with as many clients as are installed."""
    url, path = opa
    rows: list[Row] = []
    for uds, way in ((None, ""), (path, "over a Unix socket")):
        with OPAPolicyEngine(url, uds=uds, timeout=10) as engine:
            blocking = _blocking(engine, url, uds, given, rounds)
            awaited = asyncio.run(_awaited(engine, url, uds, given, rounds))
        gc.collect()  # the clients
        rows += _rows(", ".join(filter(None, ("OPAPolicyEngine", way))), blocking)
        rows += _rows(", ".join(filter(None, ("OPAPolicyEngine", way, "async"))), awaited)
    return rows


def _rows(title: str, measured: dict[str, list[float]]) -> list[Row]:
    medians = {name: median(times) / 1e3 for name, times in measured.items()}
    clients = sorted(medians.keys() - {"ours", BY_H11}, key=lambda name: medians[name])
    fastest = clients[0]
    note = f"µs: ours {medians['ours']:.0f}, " + ", ".join(f"{name} {medians[name]:.0f}" for name in clients)
    by_h11 = f"µs: ours {medians[BY_H11]:.0f}"
    return [
        row(f"{title} / httpx POST to OPA", ratios(measured, "ours", "httpx"), at_most=1.3),
        row(f"{title} / the fastest client, {fastest}", ratios(measured, "ours", fastest), at_most=1.2, note=note),
        row(f"the same, all read by h11 / {fastest}", ratios(measured, BY_H11, fastest), note=by_h11),
    ]


def _plain_to_nobody(data: bytes) -> None:
    return None


def _blocking(
    engine: OPAPolicyEngine, url: str, uds: str | None, given: dict[str, Any], rounds: int
) -> dict[str, list[float]]:
    def ours() -> bool:
        return decide(engine, "e", [NAME], given).allowed

    def by_h11() -> bool:
        http_wire.plain_body = _plain_to_nobody
        try:
            return ours()
        finally:
            http_wire.plain_body = plain_body

    plain_body = http_wire.plain_body
    asks = {"ours": ours, **blocking_clients(f"{url}/v1/data/{NAME}", given, uds), BY_H11: by_h11}
    for name, ask in asks.items():
        if ask() is not True:
            raise AssertionError(f"{name} was not allowed")
    return rounds_of({name: lambda ask=ask: nanoseconds(ask, AT_ONCE) for name, ask in asks.items()}, rounds)  # type: ignore[misc]


async def _awaited(
    engine: OPAPolicyEngine, url: str, uds: str | None, given: dict[str, Any], rounds: int
) -> dict[str, list[float]]:
    async def ours() -> bool:
        return (await decide_async(engine, "e", [NAME], given)).allowed

    async def by_h11() -> bool:
        http_wire.plain_body = _plain_to_nobody
        try:
            return await ours()
        finally:
            http_wire.plain_body = plain_body

    plain_body = http_wire.plain_body
    async with async_clients(f"{url}/v1/data/{NAME}", given, uds) as clients:
        return await _rounds_on_a_loop({"ours": ours, **clients, BY_H11: by_h11}, rounds)


async def _rounds_on_a_loop(parts: dict[str, Callable[[], Awaitable[bool]]], rounds: int) -> dict[str, list[float]]:
    """`rounds_of` on a running loop."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        order = list(parts.items())
        for name, ask in order if number % 2 == 0 else reversed(order):
            start = time.perf_counter_ns()
            for _ in range(AT_ONCE):
                if await ask() is not True:
                    raise AssertionError(f"{name} was not allowed")
            if number:  # the first connects
                times[name].append((time.perf_counter_ns() - start) / AT_ONCE)
    return times
