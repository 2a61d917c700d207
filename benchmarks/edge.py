"""Incoming lineage read and verified, without a server around it: `Edge.read` from header bytes to a verified passport.

All but the last entry were seen before, as a passport of their own. What is compared is the whole way: baggage, percent
encoding, base64, inflation, links, one signature.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks import raw
from benchmarks.flows import Flow
from benchmarks.measure import Budget, Row, ratios, rounds_of, row
from kest.core import TrustStore
from kest.http.edge import Edge

__all__ = ["measure"]

# entries, form, what it is called
CASES = (
    (1, "", "1 entry, inline"),
    (2, "", "2 entries, inline"),
    (7, "_z", "7 entries, compressed"),  # the most that a sender's 4,096 bytes take in this form
    (10, "_d", "10 entries, dense"),
    (28, "_d", "28 entries, dense"),
    (10, "claim", "10 entries, claim check in memory"),
    (100, "claim", "100 entries, claim check in memory"),
)
AT_ONCE = 10  # a millisecond: rounds are many and short, so that others' turns on the core fall between them


def _reading(edge: Edge, flow: Flow, count: int) -> Callable[[], float]:
    """Microseconds per passport of ``count`` entries, each with a last entry of its own."""

    def run() -> float:
        flow.records.clear()
        if flow.prefix:
            edge.read([flow.header(flow.prefix)])
        headers = [[flow.header()] for _ in range(AT_ONCE)]
        arrivals = []
        start = time.perf_counter()
        for header in headers:
            arrivals.append(edge.read(header))
        spent = time.perf_counter() - start
        if not all(arrival.verified and len(arrival.passport) == count for arrival in arrivals):
            raise AssertionError("a passport did not arrive verified and whole")
        return spent / AT_ONCE * 1e6

    return run


def measure(budget: Budget) -> list[Row]:
    rows = []
    for count, form, name in CASES:
        flow = Flow(count - 1, 1, form)
        edge, signed = Edge(TrustStore(flow.keys), cache=flow.records), flow.signed()[0]
        measured = rounds_of(
            {
                "ours": _reading(edge, flow, count),
                "raw": lambda signed=signed: raw.verify_ns(signed.key, signed.message, signed.signature, 10) / 1e3,  # type: ignore[misc]
            },
            budget.rounds(150, 40),
        )
        size = len(flow.header())
        rows.append(
            row(
                f"{name}, all but one seen / crypto_sign_verify_detached",
                ratios(measured, "ours", "raw"),
                at_most=1.5,
                note=f"{size} bytes of header",
            )
        )
    return rows
