"""The gate against hashlib.sha256 of 1 kB, measured in the same rounds; memory of rate limits; the longest single call."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import child
from benchmarks.measure import Budget, Row, nanoseconds, ratios, rounds_of, row

__all__ = ["measure"]

DATA = b"x" * 1000
MANY = 1_000
HOT = 400_000
IDLE = 200_000
REPEATS = 2_000


def _agent(amount: float = 500.0) -> Any:
    from kest.gate import ActionContext

    return ActionContext(
        principal_id="agent-bot", principal_kind="agent", action_name="issue_refund", params={"amount": amount}
    )


def _policy(number: int, last: bool, kind: str) -> dict[str, Any]:
    """One of many policies, of which only the last permits the context that is measured."""
    name = f"issue_refund_{number}" if kind == "actions" and not last else "issue_refund"
    conditions: list[dict[str, Any]] = [{"identity_kind": "agent"}, {"action": name}]
    if kind == "bounds":
        conditions.append({"param_max": {"field": "amount", "max": 1000.0 if last else number % 400}})
    elif kind == "values":
        conditions.append({"param_equals": {"field": "amount", "value": 500.0 if last else 1000 + number}})
    elif kind == "principals":
        conditions.append({"identity_id": "agent-bot" if last else f"agent-{number}"})
    else:
        conditions.append({"param_max": {"field": "amount", "max": 1000.0}})
    return {"name": f"policy {number}", "effect": "permit", "conditions": conditions}


def _many(kind: str) -> dict[str, Any]:
    return {"policies": [_policy(number, number == MANY - 1, kind) for number in range(MANY)]}


def _speed(budget: Budget) -> list[Row]:
    from kest.gate import Gate

    one = Gate.from_dict({"policies": [_policy(0, True, "actions")]}, invariants=[("hard_cap", "amount", 50_000.0)])
    context, over = _agent(), _agent(5000.0)
    parts: dict[str, Callable[[], float]] = {
        "yardstick": lambda: nanoseconds(lambda: hashlib.sha256(DATA).digest(), REPEATS),
        "one": lambda: nanoseconds(lambda: one.evaluate(context), REPEATS),
        "context": lambda: nanoseconds(_agent, REPEATS),
        "refusal": lambda: nanoseconds(lambda: one.evaluate(over), REPEATS),
        "reason": lambda: nanoseconds(lambda: one.evaluate(over).reason, REPEATS),
    }
    for kind in ("actions", "principals", "bounds", "values"):
        gate = Gate.from_dict(_many(kind))
        assert gate.evaluate(context).policy == f"policy {MANY - 1}"

        def part(gate: Gate = gate) -> float:
            return nanoseconds(lambda: gate.evaluate(context), REPEATS)

        parts[kind] = part
    measured = rounds_of(parts, budget.rounds(60, 15))
    yardstick = statistics.median(measured["yardstick"])
    rows = [row("yardstick: hashlib.sha256 of 1 kB", [yardstick / 1000], unit="us")]
    for name, title, target in (
        ("one", "evaluate to permit, 1 policy and an invariant", 2.2),
        ("actions", f"evaluate to permit, {MANY:,} policies by action, the last matching", 2.8),
        ("principals", f"the same, {MANY:,} principals of one action", 2.8),
        ("bounds", f"the same, {MANY:,} bounds on one parameter", 2.8),
        ("values", f"the same, {MANY:,} values of one parameter", 2.8),
        ("context", "make a context", 2.0),
        ("refusal", "evaluate to refuse", 1.2),
    ):
        rows.append(row(title, ratios(measured, name, "yardstick"), at_most=target, note="of the yardstick"))
    rows.append(
        row("evaluate to refuse and word the reason", ratios(measured, "reason", "yardstick"), note="of the yardstick")
    )
    return rows


def _hot(budget: Budget) -> Row:
    """Chunks of calls on one key, first and last, each beside the yardstick."""
    from kest.gate import Gate

    limit = {"rate_limit": {"max": 2**32 - 1, "window": "24h"}}
    gate = Gate.from_dict({"policies": [{"name": "hot", "effect": "permit", "conditions": [limit]}]})
    context = _agent()

    def chunk() -> float:
        return nanoseconds(lambda: gate.evaluate(context), 500) / nanoseconds(
            lambda: hashlib.sha256(DATA).digest(), 500
        )

    chunk()
    first = [chunk() for _ in range(40)]
    for _ in range(HOT):
        gate.evaluate(context)
    last = [chunk() for _ in range(40)]
    growth = statistics.median(last) / statistics.median(first)
    return row(f"a call on a key with {HOT:,} events, of one with few", [growth], at_most=1.2)


def _memory() -> list[Row]:
    idle = child.run("gate", str(IDLE))
    return [
        row(f"an idle principal-action, resident, of {IDLE:,}", [idle["each"]], at_most=100.0, unit="bytes"),
        row(
            "what is left of each after the window",
            [idle["left"]],
            at_most=5.0,
            unit="bytes",
            note=f"{idle['keys']:.0f} keys left",
        ),
        row("longest of 100,000 sweeping calls, 99.9th percentile", [idle["slowest"]], at_most=100.0, unit="us"),
    ]


def _longest(function: Callable[[], object], repeats: int = 41) -> float:
    """Median microseconds of single calls: all of it may be with the interpreter's lock held."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        function()
        times.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(times)


def _large() -> list[Row]:
    """The largest that each call accepts."""
    from kest.gate import ActionContext, Gate

    params: dict[str, Any] = {f"parameter number {n}": "x" * 100 for n in range(256)}
    lists: dict[str, Any] = {"l": ["é" * 3] * 800}
    roles = [f"role {n}" for n in range(256)]
    largest = ActionContext(
        "p" * 1000, "user", "issue_refund", roles=roles, params={**params}, taints=roles, resource="a/../" * 1600 + "b"
    )
    deciding = Gate.from_dict(_many("bounds"))
    roles_asked = Gate.from_dict(
        {
            "policies": [
                {
                    "name": "r",
                    "effect": "permit",
                    "conditions": [{"any": [{"identity_role": f"x{n}"} for n in range(100)]}],
                }
            ]
        }
    )
    cases = {
        "make the largest context": lambda: ActionContext("p", "user", "x", roles=roles, params=params),
        "make a context with the longest list": lambda: ActionContext("p", "user", "x", params=lists),
        "make a context with the longest resource": lambda: ActionContext("p", "user", "x", resource="a/%2e%2e/" * 900),
        f"evaluate the largest context against {MANY:,} policies": lambda: deciding.evaluate(largest),
        "evaluate 256 roles against 100 alternatives": lambda: roles_asked.evaluate(largest),
    }
    return [row(f"{name}, longest call", [_longest(case)], at_most=100.0, unit="us") for name, case in cases.items()]


def _as_engine(budget: Budget) -> list[Row]:
    """A decorated call that a gate decides, against one whose decision (of the mock) is made anew each time, too."""
    from kest.core import LocalEd25519Provider, MockPolicyEngine, Passport, configure, kest_verified
    from kest.core.context import passport_var
    from kest.core.decisions import decisions
    from kest.gate import Gate

    configure(identity=LocalEd25519Provider(seed=bytes(range(32))), clear=True)
    ttl, decisions.ttl = decisions.ttl, 0.0
    root = Passport()
    parts: dict[str, Callable[[], float]] = {}
    gate = Gate.from_dict({"policies": [_policy(0, True, "actions")]}, invariants=[("hard_cap", "amount", 50_000.0)])
    for name, engine in (("gate", gate), ("mock", MockPolicyEngine())):

        @kest_verified("issue_refund", engine=engine, agent="agent-bot", context_map={"amount": "amount"})
        def refund(amount: float) -> float:
            return amount

        def call(refund: Callable[[float], float] = refund) -> None:
            passport_var.set(root)
            refund(500.0)

        parts[name] = lambda call=call: nanoseconds(call, 100)  # type: ignore[misc]
    measured = rounds_of(parts, budget.rounds(60, 12))
    decisions.ttl = ttl
    title = "decorated call, a gate decides / Mock, both asked each time"
    note = f"{statistics.median(measured['gate']) / 1e3:.0f} us"
    return [row(title, ratios(measured, "gate", "mock"), at_most=1.6, note=note)]


def measure(budget: Budget) -> list[Row]:
    return [*_speed(budget), _hot(budget), *_memory(), *_large(), *_as_engine(budget)]
