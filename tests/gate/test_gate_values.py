"""Contexts from anywhere: what is not what it says is refused when the context is made, and a parameter that cannot be
compared never helps anybody."""

from __future__ import annotations

import gc
import math
import os
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest

from kest.gate import ActionContext, DeviceFingerprint, Gate, GateInputError, GeoLocation

Make = Callable[..., Any]

loop: list[Any] = []
loop.append(loop)
UNCOMPARABLE: list[Any] = [
    math.inf, -math.inf, 10**400, -(10**400), "5", "", True, False, None, [], [5], (5,), {"x": 5}, loop, b"5", object(), 5j,
    [[5]],
]  # fmt: skip


@pytest.mark.parametrize("value", UNCOMPARABLE, ids=lambda value: repr(value)[:20])
def test_what_is_no_number_helps_no_permit_no_invariant_and_escapes_no_refusal(
    value: Any, permitting: Make, context: Make
) -> None:
    given = context(params={"amount": value})
    for condition in (
        {"param_max": {"field": "amount", "max": 1e308}},
        {"param_min": {"field": "amount", "min": -1e308}},
    ):
        assert permitting(condition).evaluate(given).is_refuse
        assert permitting({"not": condition}).evaluate(given).is_refuse
        assert permitting({"any": [condition, {"not": condition}]}).evaluate(given).is_refuse
        refusing = Gate.from_dict(
            {
                "policies": [
                    {"name": "r", "effect": "refuse", "conditions": [condition]},
                    {"name": "p", "effect": "permit", "conditions": []},
                ]
            }
        )
        assert refusing.evaluate(given).code == "POLICY_DENIED"
    assert permitting(invariants=[("cap", "amount", 1e308)]).evaluate(given).code == "INVARIANT_VIOLATION"


def test_a_missing_parameter_counts_as_bad(permitting: Make, context: Make) -> None:
    assert permitting({"param_max": {"field": "amount", "max": 1}}).evaluate(context()).is_refuse
    assert permitting(invariants=[("cap", "amount", 1.0)]).evaluate(context()).code == "INVARIANT_VIOLATION"
    assert permitting(invariants=[("cap", "amount", 1.0)]).evaluate(context(params={"Amount": 0})).is_refuse


def test_nan_is_refused_at_once(context: Make) -> None:
    for nan in (math.nan, Decimal("NaN"), [1, math.nan]):
        with pytest.raises(GateInputError, match="NaN"):
            context(params={"amount": nan})
        with pytest.raises(GateInputError, match="NaN"):
            context().with_param("amount", nan)


def test_integers_compare_exactly(permitting: Make, context: Make) -> None:
    def allowed(value: Any, most: float) -> bool:
        return permitting({"param_max": {"field": "n", "max": most}}).evaluate(context(params={"n": value})).is_permit  # type: ignore[no-any-return]

    assert allowed(2**53, 2**53)
    assert not allowed(2**53 + 1, 2**53)  # float(2**53 + 1) == 2**53
    assert not allowed(2**70 + 1, float(2**70))
    assert allowed(2**70 - 1, float(2**70))
    assert allowed(-(2**70) - 1, float(-(2**70)))
    equal = permitting({"param_equals": {"field": "n", "value": 2**53}})
    assert equal.evaluate(context(params={"n": 2**53})).is_permit
    assert not equal.evaluate(context(params={"n": 2**53 + 1})).is_permit


def test_numbers_of_other_kinds(permitting: Make, context: Make) -> None:
    import numpy as np

    gate = permitting({"param_max": {"field": "n", "max": 5}})
    for good in (5, 5.0, Decimal(5), Fraction(9, 2), np.int64(5), np.float32(4.5), np.float64(5)):
        assert gate.evaluate(context(params={"n": good})).is_permit, good
    for bad in (
        Decimal("5.1"),
        Fraction(11, 2),
        np.int64(6),
        np.uint64(2**64 - 1),
        np.float64(5.1),
        Decimal("Infinity"),
    ):
        assert gate.evaluate(context(params={"n": bad})).is_refuse, bad


def test_a_number_whose_conversion_raises_or_meddles(context: Make) -> None:
    params: dict[str, Any] = {}

    class Meddling:
        def __float__(self) -> float:
            params.clear()
            gc.collect()
            return 1.0

    class Raising:
        def __float__(self) -> float:
            raise RuntimeError("no")

    params.update({"a": Meddling(), "b": "x" * 100, "c": 2})
    assert context(params=params).params["c"] == 2
    with pytest.raises(RuntimeError, match="no"):
        context(params={"a": Raising()})


def test_texts_bools_and_lists(permitting: Make, context: Make) -> None:
    def decide(condition: dict[str, Any], value: Any) -> tuple[bool, bool]:
        """Whether it permits; whether it escapes a refusal."""
        given = context(params={"to": value})
        refusing = [
            {"name": "r", "effect": "refuse", "conditions": [condition]},
            {"name": "p", "effect": "permit", "conditions": []},
        ]
        escapes = Gate.from_dict({"policies": refusing}).evaluate(given).is_permit
        return permitting(condition).evaluate(given).is_permit, escapes

    some = {"param_in": {"field": "to", "values": ["a", "b", 1, 2.5, True]}}
    assert (
        decide(some, "a")
        == decide(some, 1)
        == decide(some, 2.5)
        == decide(some, True)
        == decide(some, ["a", 1])
        == (True, False)
    )
    assert decide(some, "c") == decide(some, 3) == decide(some, False) == decide(some, ["c", "d"]) == (False, True)
    assert (
        decide(some, ["a", "c"])
        == decide(some, [])
        == decide(some, ["a", None])
        == decide(some, {"a": 1})
        == (False, False)
    )
    texts = {"param_in": {"field": "to", "values": ["1"]}}
    assert decide(texts, 1) == (False, False)  # another type is no answer
    assert decide({"param_equals": {"field": "to", "value": True}}, 1) == (False, False)
    assert decide({"param_equals": {"field": "to", "value": 0}}, -0.0) == (True, False)
    pattern = {"param_matches": {"field": "to", "pattern": "acct.*"}}
    assert decide(pattern, "acct.1") == decide(pattern, ("acct.1", "acct.2")) == (True, False)
    assert decide(pattern, "acct") == decide(pattern, "account") == (False, True)
    assert decide(pattern, 5) == decide(pattern, ["acct.1", "x"]) == (False, False)


@pytest.mark.parametrize(
    "bad",
    [
        {"ip": "1.2.3.4:80"}, {"ip": "1.2.3"}, {"ip": " 1.2.3.4"}, {"ip": ""}, {"ip": "fe80::1%eth0"}, {"ip": "localhost"},
        {"ip": "1.2.3.4\x00"}, {"origin_ip": "x"}, {"session_id": ""}, {"session_id": "a b"}, {"session_id": "a\n"},
        {"session_id": "x" * 129}, {"session_id": "é"}, {"session_started_at": 2**62}, {"session_started_at": -(2**62)},
        {"trust": 101}, {"trust": -1}, {"trust": True}, {"trust": 5.0}, {"trust": 10**30}, {"resource": "\ud800"},
        {"resource": "x" * 9000},
        {"roles": ["\ud800"]}, {"params": {"\ud800": 1}}, {"params": {"a": "\ud800"}}, {"params": {"a": "x" * 70_000}},
        {"params": {str(i): 1 for i in range(257)}}, {"params": {"a": list(range(1025))}},
        {"params": {"a": [1] * 600, "b": [1] * 600}},
        {"params": {"a": "x" * 40_000, "b": "y" * 40_000}},
        {"principal_kind": "User"},
        {"principal_kind": ""}, {"principal_id": "x" * 70_000}, {"roles": ["r"] * 257}, {"taints": ["x" * 10_000] * 7},
    ],
)  # fmt: skip
def test_bad_contexts_are_value_errors(bad: dict[str, Any], context: Make) -> None:
    with pytest.raises(ValueError):
        context(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"roles": "admin"}, {"roles": None}, {"roles": [1]}, {"roles": 5}, {"params": [("a", 1)]}, {"params": "x"},
        {"params": 5},
        {"params": {1: 1}}, {"ip": 5}, {"session_id": 5}, {"session_started_at": 1.5},
        {"session_started_at": True}, {"current_geo": ("IN",)}, {"device": "h"}, {"taints": "t"}, {"resource": 1},
        {"principal_id": 5}, {"principal_id": None}, {"unknown": 1}, {"action_count": "1"},
    ],
)  # fmt: skip
def test_wrong_types_are_type_errors(bad: dict[str, Any], context: Make) -> None:
    with pytest.raises(TypeError):
        context(**bad)


def test_counts_out_of_range_are_overflow_errors(context: Make) -> None:
    for bad in (-1, 2**64):
        with pytest.raises(OverflowError):
            context(action_count=bad)


def test_arguments_are_checked_like_a_functions() -> None:
    with pytest.raises(TypeError, match="needs action_name"):
        ActionContext("a", "user")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="multiple values"):
        ActionContext("a", "user", "x", principal_id="b")  # type: ignore[misc]
    with pytest.raises(TypeError):
        ActionContext(*["a"] * 18)  # type: ignore[arg-type, call-arg]
    dynamic = {"principal_" + "id": "a", "principal_" + "kind": "user", "action_" + "name": "x"}
    assert ActionContext(**dynamic).action_name == "x"  # names that are not interned
    assert ActionContext.__new__(ActionContext, "a", "user", action_name="x").principal_id == "a"


def test_sessions_are_spelled_one_way(context: Make) -> None:
    plain = "0192f1c86c7a7e3fa1b2c3d4e5f60718"
    spelled = "0192f1c8-6c7a-7e3f-a1b2-c3d4e5f60718"
    for text in (plain, plain.upper(), spelled.upper(), "{" + spelled + "}", "urn:uuid:" + spelled):
        assert context(session_id=text).session_id == spelled
    for other in ("sess-1", spelled[:-1], spelled + "0", "{" + plain + "}"):
        assert context(session_id=other).session_id == other


def test_mappings_other_than_dict(context: Make) -> None:
    for mapping in (OrderedDict(a=1, b="x"), MappingProxyType({"a": 1, "b": "x"})):
        assert context(params=mapping).params == {"a": 1, "b": "x"}


def test_what_a_context_shows(context: Make) -> None:
    device = DeviceFingerprint("h")
    given = context(
        roles={"r"}, params={"n": 1, "l": [1, "a"], "x": {"y": 1}}, device=device, resource="a/../b", taints=[]
    )
    assert (given.roles, given.device, given.resource, given.taints, given.trust) == (
        ("r",),
        device,
        "a/../b",
        (),
        None,
    )
    assert given.params == {"n": 1, "l": (1, "a"), "x": None}
    given.with_param("n", "two")
    given.with_param("m", 3)
    assert given.params == {"n": "two", "l": (1, "a"), "x": None, "m": 3}
    assert repr(given).startswith("ActionContext(principal_id='alice', principal_kind='user'")


def test_a_device_that_is_changed_behind_its_back_is_still_safe(permitting: Make, context: Make) -> None:
    device = DeviceFingerprint("".join(["se", "cret"]))
    given = context(device=device, origin_device=DeviceFingerprint("secret"))
    object.__setattr__(device, "hash", "other")
    gc.collect()
    assert permitting().evaluate(given).is_permit


def test_resources_are_compared_after_normalisation(permitting: Make, context: Make) -> None:
    gate = permitting({"resource": "orders/*"})
    for good in ("orders/1", "orders//1", "./orders/1", "orders/x/../1", "orders\\1", "%6frders/1", "orders/1/"):
        assert gate.evaluate(context(resource=good)).is_permit, good
    for bad in (
        "orders/../secrets",
        "orders/%2e%2e/secrets",
        "orders/..\\secrets",
        "../orders/1",
        "ordersX/1",
        "/orders/1",
        None,
    ):
        assert gate.evaluate(context(resource=bad)).is_refuse, bad


def test_a_refusal_by_resource_cannot_be_slipped(context: Make) -> None:
    gate = Gate.from_dict(
        {
            "policies": [
                {"name": "no", "effect": "refuse", "conditions": [{"resource": "secrets/*"}]},
                {"name": "yes", "effect": "permit", "conditions": []},
            ]
        }
    )
    for slippery in (
        "secrets/1",
        "orders/../secrets/1",
        "secrets//1",
        "./secrets/1",
        "%73ecrets/1",
        "../secrets/1",
        None,
    ):
        assert gate.evaluate(context(resource=slippery)).is_refuse, slippery
    assert gate.evaluate(context(resource="orders/1")).is_permit


def test_trust_taints_and_country(permitting: Make, context: Make) -> None:
    trusted = permitting({"trust_min": 40})
    assert trusted.evaluate(context(trust=40)).is_permit
    assert trusted.evaluate(context(trust=39)).is_refuse
    assert trusted.evaluate(context()).is_refuse
    clean = permitting({"taint_absent": "pii"})
    assert clean.evaluate(context(taints=[])).is_permit
    assert clean.evaluate(context(taints=["pii"])).is_refuse
    assert clean.evaluate(context()).is_refuse
    assert permitting({"taint_present": "pii"}).evaluate(context(taints=["x", "pii"])).is_permit
    here = permitting({"geo_country": ["de", "AT"]})
    assert here.evaluate(context(current_geo=GeoLocation("at"))).is_permit
    assert here.evaluate(context(current_geo=GeoLocation("US"))).is_refuse
    assert here.evaluate(context()).is_refuse


def test_time_windows_use_the_time_of_evaluation(permitting: Make, context: Make, at: Make) -> None:
    gate, given = permitting({"time_window": "09:00-17:00 Asia/Tokyo"}), context()
    at(gate, 1_700_000_000)  # 2023-11-14 22:13:20 UTC, 07:13:20 in Tokyo
    assert gate.evaluate(given).is_refuse
    at(gate, 1_700_000_000 + 2 * 3600)
    assert gate.evaluate(given).is_permit
    at(gate, -5.0, 0.0)  # a clock that is decades off
    assert gate.evaluate(given).is_refuse
    night = permitting({"time_window": "22:00-06:00"})
    at(night, 1_700_000_000)
    assert night.evaluate(given).is_permit


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
def test_contexts_and_verdicts_leak_nothing(run_python: Any) -> None:
    run_python(
        """
import gc, resource
from kest.gate import *
listed = {"param_in": {"field": "l", "values": ["a"]}}
gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": [listed]}]})
def work(n):
    for i in range(n):
        context = ActionContext(f"p{i}", "user", "x", roles=["a", "b", "c", "d", "e"], params={str(k): k for k in range(9)},
            resource=f"a/../{i}", session_id=None, current_geo=GeoLocation("IN"), device=DeviceFingerprint("h"), taints=["t"])
        context.with_param("l", ["a", "b"]); context.with_param("l", ["a"])
        verdict = gate.evaluate(context); verdict.permit_token, verdict.reason, repr(verdict)
        try: ActionContext("p", "user", "x", params={"a": float("nan")}, roles=["r"], resource="a//b")
        except ValueError: pass
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
work(3000); before = resident(); work(20000)
assert resident() - before < 1_500_000, resident() - before
"""
    )
