"""Policy engines: a remembered decision, a decision in process against the bare call of its library, a decision of a real
OPA against what Python's HTTP clients need for the same POST (opa.py), and Rego in eight threads.

OPA has to be built (`tools/services/build opa`); without it its rows are missing, and say so.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.measure import Budget, Row, Watch, nanoseconds, ratios, rounds_of, row
from benchmarks.opa import AT_ONCE, NAME, REGO, over_http, running_opa
from kest.core import (
    AVPPolicyEngine,
    CedarLocalEngine,
    LocalEd25519Provider,
    MockPolicyEngine,
    OPAPolicyEngine,
    RegoLocalEngine,
    configure,
    kest_verified,
)
from kest.core.context import passport_var
from kest.core.engine import decide
from kest.core.engine.policy_input import cedar_context_json
from kest.core.passport import Passport

__all__ = ["measure"]

CEDAR = """permit(principal, action == Action::"shop/refund", resource) when {
    context.trust_score >= 40 && !(context.taints.contains("contains_pii")) && context.args.amount <= 500
};"""
THREADS = 8


class _Recorder:
    """Allows, and keeps the policy input that a decorated call makes."""

    in_process = True
    given: Any = None

    def evaluate(self, entry_id: str, policy_names: Any, context: Any) -> bool:
        self.given = context
        return True


class _Store:
    """A client of Verified Permissions that answers at once."""

    def is_authorized(self, **_: Any) -> dict[str, Any]:
        return {"decision": "ALLOW", "determiningPolicies": [{"policyId": "p"}], "errors": []}


def _real_input() -> dict[str, Any]:
    recorder = _Recorder()

    @kest_verified(NAME, engine=recorder, user="alice", resource_id="order-7", context_map={"amount": "amount"})
    def refund(amount: int) -> int:
        return amount

    refund(120)
    given: dict[str, Any] = recorder.given
    return given


def _asking(engine: Any, given: Any) -> Callable[[], float]:
    names = [NAME]
    if decide(engine, "e", names, given).allowed is not True:
        raise AssertionError(f"{engine!r} does not allow")
    return lambda: nanoseconds(lambda: decide(engine, "e", names, given), AT_ONCE)


def _remembered(engines: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    parts: dict[str, Callable[[], float]] = {}
    root = Passport()
    for name, engine in engines.items():

        @kest_verified(NAME, engine=engine, user="alice", context_map={"amount": "amount"})
        def refund(amount: int) -> int:
            return amount

        def call(refund: Callable[[int], int] = refund) -> None:
            passport_var.set(root)
            refund(120)

        call()
        parts[name] = lambda call=call: nanoseconds(call, 100)  # type: ignore[misc]
    return rounds_of(parts, rounds)


def _bare_cedar(given: dict[str, Any]) -> Callable[[], bool]:
    """As cedarpy's documentation has it: handles parsed once, the same context as a dict."""
    import cedarpy

    policies, entities = cedarpy.PolicySet.from_str(CEDAR), cedarpy.Entities.from_json_str("[]", None)
    context = json.loads(cedar_context_json(given))

    def ask() -> bool:
        request = {
            "principal": {"type": "Workload", "id": "w"},
            "action": {"type": "Action", "id": NAME},
            "resource": {"type": "Resource", "id": "order-7"},
            "context": context,
        }
        return bool(cedarpy.is_authorized(request, policies, entities).allowed)

    return ask


def _bare_regorus(given: dict[str, Any]) -> Callable[[], bool]:
    from lakera_regorus import Engine

    engine = Engine()
    engine.add_policy("p", REGO)

    def ask() -> bool:
        engine.set_input_json(json.dumps(given))
        return bool(engine.eval_query("data.shop.refund.allow")["result"][0]["expressions"][0]["value"])

    return ask


def _bare_regopy(given: dict[str, Any]) -> Callable[[], bool]:
    """A bundle compiled once: the fastest way that regopy offers."""
    from regopy import Interpreter

    interpreter = Interpreter()
    interpreter.add_module("p", REGO)
    bundle = interpreter.build(None, ["shop/refund/allow"])

    def ask() -> bool:
        interpreter.set_input(given)
        answer: Any = json.loads(str(interpreter.query_bundle_entrypoint(bundle, "shop/refund/allow")))
        return bool(answer["expressions"][0])

    return ask


def _in_process(given: dict[str, Any], rounds: int) -> list[Row]:
    rows: list[Row] = []
    bare: dict[str, tuple[Any, Callable[[dict[str, Any]], Callable[[], bool]]]] = {
        "CedarLocalEngine / bare cedarpy, parsed policies": (CedarLocalEngine([CEDAR]), _bare_cedar)
    }
    for backend, make in (("regorus", _bare_regorus), ("regopy", _bare_regopy)):
        try:
            bare[f"RegoLocalEngine ({backend}) / bare {backend}, parsed policies"] = (
                RegoLocalEngine({NAME: REGO}, backend=backend),
                make,
            )
        except ImportError:
            print(f"  {backend} is not installed")
    for name, (engine, make) in bare.items():
        ask = make(given)
        if ask() is not True:
            raise AssertionError(f"the bare call of {name} does not allow")
        parts = {"ours": _asking(engine, given), "bare": lambda ask=ask: nanoseconds(ask, AT_ONCE)}  # type: ignore[misc]
        measured = rounds_of(parts, rounds)
        note = f"{median(measured['ours']) / 1e3:.0f} µs"
        target: float | None = 1.3
        if "regopy" in name:  # what it does faster, it does wrong: see rego_cpp.py
            note, target = note + "; bare regopy passes strings unescaped and integers modulo 2^64", None
        rows.append(row(name, ratios(measured, "ours", "bare"), at_most=target, note=note))
        engine.close()
    return rows


def _decided(engine: Any, given: Any, threads: int, seconds: float) -> float:
    """Decisions a second of so many threads together."""
    counts = [0] * threads
    gate = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        decide(engine, "e", [NAME], given)
        gate.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(10):
                decide(engine, "e", [NAME], given)
            counts[index] += 10

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    gate.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - start)


def _in_threads(given: Any, budget: Budget) -> list[Row]:
    rows: list[Row] = []
    watch = Watch(budget.patience)
    for backend in ("regorus", "regopy"):
        try:
            engine = RegoLocalEngine({NAME: REGO}, backend=backend)
        except ImportError:
            continue
        with engine:
            measured = rounds_of(
                {
                    "one": lambda: _decided(engine, given, 1, 0.15),
                    "eight": lambda: _decided(engine, given, THREADS, 0.15),
                },
                budget.rounds(15, 5),
                watch=watch,
            )
        name = f"RegoLocalEngine ({backend}), decisions a second of {THREADS} threads / of one"
        rows.append(row(name, ratios(measured, "eight", "one"), at_least=0.9, note=watch.note))
    return rows


def measure(budget: Budget) -> list[Row]:
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider(seed=bytes(range(32))), clear=True)
    given = _real_input()
    rounds = budget.rounds(60, 12)
    rows: list[Row] = []
    with running_opa() as opa:
        engines: dict[str, Any] = {
            "MockPolicyEngine": MockPolicyEngine(),
            "CedarLocalEngine": CedarLocalEngine([CEDAR]),
            "RegoLocalEngine": RegoLocalEngine({NAME: REGO}),
            "AVPPolicyEngine": AVPPolicyEngine("ps", client=_Store()),
        }
        if opa is not None:
            engines["OPAPolicyEngine"] = OPAPolicyEngine(opa[0])
        # A decision lives for five seconds: the few calls in which it is asked for again are too few for a median.
        remembered = _remembered(engines, rounds)
        for name in list(engines)[1:]:
            title = f"decorated call, decision remembered: {name} / Mock"
            rows.append(row(title, ratios(remembered, name, "MockPolicyEngine"), at_most=1.1))
        for engine in engines.values():
            engine.close()
        rows += _in_process(given, rounds)
        if opa is not None:
            rows += over_http(opa, given, rounds)
    return rows + _in_threads(given, budget)
