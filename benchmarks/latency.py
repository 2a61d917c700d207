"""What Kest adds to the latency of requests that come at their own pace, beside a thread that computes.

An open loop: 200 requests are due per second, and each counts from when it was due, so that a server which falls behind
cannot hide it by being asked less. The thread runs in the server's process and holds the interpreter lock as long as it may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks.flows import Flow
from benchmarks.lock import MODES
from benchmarks.measure import Budget, Row, row
from benchmarks.served import Served

__all__ = ["measure"]

RATE = 200.0
SECONDS = 2.0


def percentile(took: Sequence[float], share: float) -> float:
    ordered = sorted(took)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _round(
    servers: Sequence[Served], flow: Flow, busy: bool, modes: Sequence[str], turn: int
) -> dict[str, list[float]]:
    """Milliseconds of each request: bare, and under Kest with each lock policy."""
    bare, kest = servers
    requests = round(RATE * SECONDS)

    def run(served: Served, mode: str) -> list[float]:
        if mode != "bare":
            served.ask(f"lock {mode}")
        served.ask(f"busy {'on' if busy else 'off'}")
        try:
            served.client.open(flow.requests(20), RATE)  # the policy finds out where it is
            return served.client.open(flow.requests(requests), RATE)
        finally:
            served.ask("busy off")

    order = ["bare", *modes] if turn % 2 == 0 else [*reversed(modes), "bare"]
    return {mode: run(bare if mode == "bare" else kest, mode) for mode in order}


def measure(budget: Budget) -> list[Row]:
    flow = Flow(0, 1, "")
    rows: list[Row] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(Served(name, "httptools", flow.keys)) for name in ("bare", "kest")]
        for busy, modes in ((True, MODES), (False, MODES[-1:])):
            beside = "beside a busy thread" if busy else "alone"
            rounds = [_round(servers, flow, busy, modes, turn) for turn in range(budget.rounds(5, 2))]

            def each(
                value: Callable[[dict[str, list[float]]], float], rounds: list[dict[str, list[float]]] = rounds
            ) -> list[float]:
                return [value(one) for one in rounds]

            for name, share in (("p50", 0.5), ("p99", 0.99)):
                rows.append(
                    row(f"{name}, bare, {beside}", each(lambda one, s=share: percentile(one["bare"], s)), unit="ms")  # type: ignore[misc]
                )
                for mode in modes:
                    rows.append(
                        row(
                            f"{name} added, {mode}, {beside}",
                            each(lambda one, s=share, m=mode: percentile(one[m], s) - percentile(one["bare"], s)),  # type: ignore[misc]
                            unit="ms",
                        )
                    )
    return rows
