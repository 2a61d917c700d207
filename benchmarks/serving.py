"""Requests per second: `KestMiddleware` and a decorated handler on uvicorn, beside the same application bare.

Each request carries lineage that was not there before. Three servers run side by side, one is asked at a time; all get the
same requests. Client and server have a core each; the server's processor time per request stands beside the throughput,
because it stays comparable when others use the machine. "At best" says what the throughput would be if the signatures
that have to be verified and made, by libsodium on the same core, were all that Kest costs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks import raw
from benchmarks.flows import LOOKUP, ORDER, Flow, Operation, request
from benchmarks.load import Client
from benchmarks.measure import Budget, Row, row
from benchmarks.same_job import same_entries
from benchmarks.served import Served
from benchmarks.serving_app import SEED

__all__ = ["measure"]

VARIANTS = ("bare", "kest", "reference")
PROTOCOLS = ("h11", "httptools")
"""What ``pip install uvicorn`` serves with, and the faster one: the less the server does itself, the more Kest weighs."""
AIMED = "h11"
"""Where the targets hold. Beside httptools, libsodium alone takes more than the 30 % that a new entry may cost."""
OVERHEAD = 120.0  # microseconds that ten unseen entries may cost beyond 1.15 raw verifications each


@dataclass(frozen=True)
class Case:
    """What kind of lineage requests bring, and what is asked of them."""

    name: str
    flow: Flow
    count: int  # requests in a round
    at_least: float | None = None  # of the bare throughput
    operation: Operation = ORDER
    repeated: bool = False  # the same passport over and over
    by_reference: bool = True

    def requests(self, count: int) -> list[bytes]:
        if self.repeated:
            return self.flow.requests(1, self.operation) * count
        return self.flow.requests(count, self.operation)


def cases() -> list[Case]:
    return [
        Case("1 entry", Flow(0, 1, ""), 500, 0.70),
        Case("1 entry, least handler", Flow(0, 1, ""), 500, operation=LOOKUP),
        Case("1 entry, seen before", Flow(0, 1, ""), 500, repeated=True),
        Case("1 entry, user, agent and task", Flow(0, 1, "", identity=True), 500, by_reference=False),
        Case("10 entries, 9 seen", Flow(9, 1, "_z"), 400, 0.60),
        Case("10 entries, 9 seen, least handler", Flow(9, 1, "_z"), 400, operation=LOOKUP),
        Case("10 entries, 9 seen, dense", Flow(9, 1, "_d"), 400, 0.60, by_reference=False),
        Case("10 entries, none seen", Flow(0, 10, "_z"), 160),
    ]


class Load(NamedTuple):
    """Microseconds per request."""

    time: float
    cpu: float


Round = Mapping[str, Load]


def _raw(case: Case) -> Load:
    """The signatures of one request, by libsodium: those to verify, and those with the one that is made."""
    signed = case.flow.signed()
    verified = sum(_least(lambda one=one: raw.verify_ns(one.key, one.message, one.signature, 4)) for one in signed)  # type: ignore[misc]
    made = _least(lambda: raw.sign_ns(SEED, signed[0].message, 8))
    return Load(verified, made if case.repeated else verified + made)


def _least(primitive: Callable[[], float]) -> float:
    """Microseconds, undisturbed: what it is held against is processor time."""
    return min(primitive() for _ in range(5)) / 1e3


def _rounds(case: Case, servers: Iterable[Served], rounds: int) -> list[Round]:
    def loaded(served: Served) -> Callable[[], Load]:
        count = case.count // 5 if served.variant == "reference" else case.count

        def run() -> Load:
            requests = case.requests(count)
            if served.variant == "kest" and case.flow.prefix:
                requests.insert(0, request(case.flow.header(case.flow.prefix), case.operation))
            return Load(*served.load(requests, case.operation))

        return run

    parts: list[tuple[str, Callable[[], Load]]] = [
        (served.variant, loaded(served)) for served in servers if case.by_reference or served.variant != "reference"
    ]
    parts.append(("raw", lambda: _raw(case)))
    for _, part in parts:
        part()
    result: list[Round] = []
    for number in range(rounds):
        order = parts if number % 2 == 0 else parts[::-1]
        result.append({name: part() for name, part in order})
    return result


def _rows(case: Case, protocol: str, rounds: list[Round]) -> list[Row]:
    aimed = protocol == AIMED and not case.repeated
    name = f"{protocol}: {case.name}"

    def each(value: Callable[[Round], float]) -> list[float]:
        return [value(one) for one in rounds]

    def middle(value: Callable[[Round], float]) -> float:
        return statistics.median(each(value))

    def added(variant: str) -> Callable[[Round], float]:
        return lambda one: max(one[variant].cpu - one["bare"].cpu, 1.0)

    rows = [
        row(
            f"{name}: requests/s, Kest / bare",
            each(lambda one: one["bare"].time / one["kest"].time),
            at_least=case.at_least if aimed else None,
            note=f"{middle(lambda one: one['bare'].cpu / one['kest'].cpu):.2f}x by processor time; at best "
            f"{middle(lambda one: one['bare'].cpu / (one['bare'].cpu + one['raw'].cpu)):.2f}x; server busy "
            f"{min(1, middle(lambda one: one['kest'].cpu / one['kest'].time)):.0%}",
        ),
        row(
            f"{name}: processor time added",
            each(added("kest")),
            unit="us",
            note=f"to {middle(lambda one: one['bare'].cpu):.0f} us; {middle(lambda one: one['raw'].cpu):.0f} us by libsodium",
        ),
    ]
    if case.flow.new > 1:
        rows.append(
            row(
                f"{name}: added / (1.15 x {case.flow.new} raw verifications + {OVERHEAD:.0f} us)",
                each(lambda one: added("kest")(one) / (1.15 * one["raw"].time + OVERHEAD)),
                at_most=1.0 if aimed else None,
            )
        )
    if case.by_reference:
        rows.append(
            row(
                f"{name}: added, reference / Kest",
                each(lambda one: added("reference")(one) / added("kest")(one)),
                at_least=2.5 if aimed else None,
                note=f"requests/s, Kest / reference: {middle(lambda one: one['reference'].time / one['kest'].time):.2f}x",
            )
        )
    return rows


def _same_answers(servers: Iterable[Served], flow: Flow) -> None:
    """Honest requests are answered alike; a forged one reaches the bare application only."""
    header, forged = flow.header(), flow.header(flow.forged())
    for served in servers:
        client: Client = served.client
        answers = [client.ask(request(lines)) for lines in (header, forged)]
        expected = (b"200", b"200" if served.variant == "bare" else b"403")
        if tuple(answer[9:12] for answer in answers) != expected or not answers[0].endswith(client.body):
            raise AssertionError(f"{served.variant} answered {answers}")


def measure(budget: Budget) -> list[Row]:
    same_entries()
    rows: list[Row] = []
    for protocol in PROTOCOLS:
        every = cases()
        with ExitStack() as stack:
            servers = [stack.enter_context(Served(name, protocol, every[0].flow.keys)) for name in VARIANTS]
            _same_answers(servers, every[0].flow)
            for case in every:
                rounds = budget.rounds(15, 5) if protocol == AIMED else budget.rounds(9, 3)
                rows += _rows(case, protocol, _rounds(case, servers, rounds))
    return rows
