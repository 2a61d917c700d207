"""Weaknesses that gates of this kind are known for, one test each: what they take, skip or forget, this one does not.

The numbers stand for the order in which gate-behaviour.md marks them; those of keys, permits, audit and channels are
tested with these.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from kest.gate import (
    ActionContext,
    DeviceFingerprint,
    Gate,
    GateInputError,
    GatePolicyError,
    GeoLocation,
    InMemoryInvalidationBroadcaster,
    context_from_record,
    spawn_invalidation_listener,
)  # fmt: skip


def act(action: str = "pay", **given: Any) -> ActionContext:
    return ActionContext(**{"principal_id": "p", "principal_kind": "agent", "action_name": action, **given})


def gate(*policies: tuple[str, list[Any]], **options: Any) -> Gate:
    document = [
        {"name": f"p{i}", "effect": effect, "conditions": conditions} for i, (effect, conditions) in enumerate(policies)
    ]
    return Gate.from_dict({"policies": document}, **options)


def test_q01_places_are_places() -> None:
    for bad in ({"latitude": math.nan}, {"longitude": math.inf}, {"latitude": 90.001}, {"longitude": 181.0}):
        with pytest.raises(GateInputError):
            GeoLocation("IN", **bad)


def test_q02_a_device_is_its_hash() -> None:
    one, other = DeviceFingerprint("h", "laptop"), DeviceFingerprint("h", "renamed laptop")
    assert gate(("permit", [])).evaluate(act(device=one, origin_device=other)).is_permit


@pytest.mark.parametrize("bad", [math.nan, math.inf, 10**400, "1", None, {"x": 1}])
def test_q03_no_parameter_is_present_but_not_numeric(bad: Any) -> None:
    if isinstance(bad, float) and math.isnan(bad):
        with pytest.raises(GateInputError):
            act(params={"amount": bad})
        return
    capped = gate(
        ("refuse", [{"param_min": {"field": "amount", "min": 100}}]),
        ("permit", []),
        invariants=[("cap", "amount", 1e9)],
    )
    context = act()
    context.with_param("amount", bad)
    assert capped.evaluate(context).code == "POLICY_DENIED"
    assert gate(("permit", []), invariants=[("cap", "amount", 1e9)]).evaluate(context).code == "INVARIANT_VIOLATION"
    assert not isinstance(context.params["amount"], str) or isinstance(bad, str), "nothing becomes a string silently"


def test_q04_addresses_and_sessions_are_never_guessed() -> None:
    for bad in ({"ip": "10.0.0.1 "}, {"ip": "10.0.0.1:443"}, {"origin_ip": "unknown"}, {"session_id": "not a uuid"}):
        with pytest.raises(GateInputError):
            act(**bad)
    assert act(session_id="sess-1").session_id == "sess-1"  # and not another one at each call


def test_q05_a_session_does_not_begin_in_the_future() -> None:
    ahead = int(4e9)
    assert gate(("permit", [])).evaluate(act(session_started_at=ahead)).is_invalidate
    assert (
        gate(("permit", [{"session_age_max": "1h"}]), enable_drift=False)
        .evaluate(act(session_started_at=ahead))
        .is_refuse
    )


def test_q06_time_and_evaluation_belong_to_the_evaluation() -> None:
    window = gate(("permit", [{"time_window": "10:00-11:00"}]))
    context = act()
    window._core.set_clock(12 * 3600 * 10**9, 0)
    assert window.evaluate(context).is_refuse
    window._core.set_clock(10 * 3600 * 10**9, 0)
    first, second = window.evaluate(context), window.evaluate(context)
    assert first.is_permit
    assert first.evaluation_id != second.evaluation_id


def test_q07_observing_hides_nothing() -> None:
    class Signer:
        def sign(self, token: object) -> bytes:
            return b"s"

    heard: list[object] = []

    class Broadcaster:
        def publish(self, *scope: str) -> None:
            heard.append(scope)

        def attach(self, deliver: object) -> Callable[[], None]:
            return lambda: None

    observing = gate(("permit", [{"action": "x"}]), observe_only=True, token_signer=Signer(), broadcaster=Broadcaster())
    verdict = observing.evaluate(act(ip="1.1.1.1", origin_ip="2.2.2.2"))
    assert verdict.is_permit
    assert verdict.signature == b"s"
    assert verdict.observed is not None
    assert verdict.observed.code == "NO_POLICY_MATCH"
    assert not heard


def test_q08_a_list_is_no_document() -> None:
    with pytest.raises(GatePolicyError):
        Gate.from_dict([])  # type: ignore[arg-type]
    with pytest.raises(GatePolicyError):
        Gate.from_json_string("[]")


def test_q09_a_document_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {"name": "p", "effect": "permit", "conditions": []}
    loop["conditions"].append({"all": loop["conditions"]})
    with pytest.raises(GatePolicyError, match="nested"):
        Gate.from_dict({"policies": [loop]})
    with pytest.raises(GatePolicyError):
        Gate.from_json_string("[" * 1_000_000)
    with pytest.raises(GatePolicyError):
        Gate.from_toml("x = " + "[" * 1_000_000)


def test_q10_toml_knows_nan_and_policies_do_not() -> None:
    for number in ("nan", "inf"):
        text = f"[[policies]]\nname='p'\neffect='permit'\nconditions=[{{param_max={{field='a',max={number}}}}}]"
        with pytest.raises(GatePolicyError, match=r"policies\[0\]\.conditions\[0\]\.param_max\.max"):
            Gate.from_toml(text)


@pytest.mark.parametrize(
    "condition",
    [
        {"param_max": {"field": "amount", "max": 5}},
        {"param_in": {"field": "amount", "values": ["a"]}},
        {"param_matches": {"field": "amount", "pattern": "a*"}},
        {"resource": "secrets/*"},
        {"trust_min": 50},
        {"taint_present": "t"},
        {"geo_country": "DE"},
    ],
)
def test_q11_a_refusal_is_not_skipped_for_want_of_facts(condition: dict[str, Any]) -> None:
    for form in (condition, {"not": condition}, {"any": [condition]}, {"all": [{"action": "pay"}, condition]}):
        assert gate(("refuse", [form]), ("permit", [])).evaluate(act()).code == "POLICY_DENIED"
        assert gate(("permit", [form])).evaluate(act()).code == "NO_POLICY_MATCH"
    assert gate(("refuse", [{"action": "sell"}, condition]), ("permit", [])).evaluate(act()).is_permit


def test_q12_patterns_end_where_they_say() -> None:
    dotted = gate(("permit", [{"action": "foo.*"}]))
    assert dotted.evaluate(act("foo.x")).is_permit
    for other in ("foo", "foobar", "foo.", "fooX.x", ""):
        assert dotted.evaluate(act(other)).is_refuse, other
    for slippery in ("orders/../secrets", "orders/%2e%2e/secrets", "orders\\..\\secrets"):
        assert gate(("permit", [{"resource": "orders/*"}])).evaluate(act(resource=slippery)).is_refuse


@pytest.mark.parametrize(
    "bad", ["1.5h", "-1s", "1H", "1h30m", "", "0s", "18446744073709551615s", "99999999999d", "soon"]
)
def test_q13_a_mistyped_duration_is_no_hour(bad: str) -> None:
    for condition in ({"rate_limit": {"max": 1, "window": bad}}, {"session_age_max": bad}):
        with pytest.raises(GatePolicyError, match=r"policies\[0\]"):
            gate(("permit", [condition]))


def test_q14_a_mistyped_window_is_found_when_loaded() -> None:
    for bad in ("9-5", "09:00 - 17:00", "09:00-25:00", "09:00-17:00 Nowhere/City", "00:00-00:00"):
        with pytest.raises(GatePolicyError, match="time_window"):
            gate(("permit", [{"time_window": bad}]))


def test_q15_counters_do_not_collide() -> None:
    once = gate(("permit", [{"rate_limit": {"max": 1, "window": "1h"}}]))
    pairs = [("a:b", "c"), ("a", "b:c"), ("a:", "b"), ("a", ":b"), ("", "x"), ("x", "")]
    assert all(once.evaluate(ActionContext(principal, "user", action)).is_permit for principal, action in pairs)


def test_q16_a_window_is_as_long_as_it_says() -> None:
    slow = gate(("permit", [{"rate_limit": {"max": 1, "window": "30d"}}]))
    slow._core.set_clock(0, 0)
    assert slow.evaluate(act()).is_permit
    slow._core.set_clock(0, 29 * 86_400 * 10**9)
    assert slow.evaluate(act()).code == "RATE_LIMIT_EXCEEDED"


def test_q17_one_address_in_two_spellings_is_one() -> None:
    assert gate(("permit", [])).evaluate(act(ip="::ffff:1.2.3.4", origin_ip="1.2.3.4")).is_permit
    assert gate(("permit", [])).evaluate(act(ip="2001:DB8::1", origin_ip="2001:db8:0::1")).is_permit


def test_q18_a_distance_that_is_none_is_a_violation() -> None:
    with pytest.raises(GateInputError):
        gate(("permit", []), geo_drift_max_km=math.nan)
    tolerant = gate(("permit", []), geo_drift_max_km=500.0)
    nowhere = act(ip="1.1.1.1", origin_ip="2.2.2.2", current_geo=GeoLocation("IN"), origin_geo=GeoLocation("IN"))
    assert tolerant.evaluate(nowhere).is_invalidate


def test_q19_the_gate_remembers_sessions_itself() -> None:
    remembering = gate(("permit", []), max_session_actions=2)
    assert remembering.evaluate(act(session_id="s", ip="1.1.1.1", action_count=0)).is_permit
    assert remembering.evaluate(act(session_id="t", ip="1.1.1.1")).is_permit
    assert remembering.evaluate(act(session_id="t", ip="9.9.9.9", origin_ip="9.9.9.9")).is_invalidate
    assert remembering.evaluate(act(session_id="s", action_count=0)).is_permit
    assert remembering.evaluate(act(session_id="s", action_count=0)).code == "INVARIANT_VIOLATION"


def test_q20_an_invariant_is_violated_by_what_it_cannot_check() -> None:
    capped = gate(("permit", []), invariants=[("cap", "amount", 10.0)])
    assert capped.evaluate(act()).code == "INVARIANT_VIOLATION"
    for value in ("5", True, [5], {}, None, math.inf, -math.inf, -(10**400)):
        assert capped.evaluate(act(params={"amount": value})).code == "INVARIANT_VIOLATION"


def test_q21_a_callback_may_call_back() -> None:
    import threading

    broadcaster = InMemoryInvalidationBroadcaster()
    shared = gate(("permit", []), broadcaster=broadcaster)
    done = threading.Event()

    def callback(scope: object) -> None:
        shared.evaluate(act(session_id="other"))
        shared.reload("")
        done.set()

    handle = spawn_invalidation_listener(broadcaster, callback)
    shared.evaluate(act(session_id="s", ip="1.1.1.1", origin_ip="2.2.2.2"))
    assert done.wait(20)
    handle.abort()
    handle.join(20)


def test_nothing_that_is_asked_crashes_a_gate() -> None:
    """Random contexts from JSON: an error that says what is wrong, or a verdict."""
    rng = random.Random(7)
    guarded = gate(
        (
            "permit",
            [
                {"param_max": {"field": "a", "max": 5}},
                {"any": [{"resource": "x/*"}, {"rate_limit": {"max": 3, "window": "1s"}}]},
            ],
        ),
        ("refuse", [{"param_in": {"field": "b", "values": [1, "x", True]}}]),
        invariants=[("cap", "a", 4.0)],
    )
    pieces: list[Any] = [
        None, True, -1, 0, 5, 1e308, 2**53 - 1, "", "x", "user", "x/../..", "1.2.3.4", [], [[1]], ["x", 1], {}, {"a": 1},
        {"country_code": "IN"}, {"country_code": "IN", "latitude": 5}, {"hash": "h"}, "a" * 500,
    ]  # fmt: skip
    names = [
        "principal_id", "principal_kind", "action_name", "roles", "resource", "params", "ip", "session_id", "current_geo",
        "origin_geo", "origin_ip", "device", "origin_device", "session_started_at", "action_count", "trust", "taints",
    ]  # fmt: skip
    verdicts = 0
    for _ in range(20_000):
        record = {name: rng.choice(pieces) for name in names if rng.random() < 0.3}
        record = {"principal_id": "p", "principal_kind": "user", "action_name": "a", **record}
        record["params"] = {key: rng.choice(pieces) for key in ("a", "b") if rng.random() < 0.7}
        if rng.random() < 0.7:
            record = {
                k: v
                for k, v in record.items()
                if k in ("principal_id", "principal_kind", "action_name", "params", "resource")
            }
        try:
            verdict = guarded.evaluate(context_from_record(json.loads(json.dumps(record))))
        except (TypeError, ValueError, OverflowError):
            continue
        verdicts += 1
        assert verdict.is_permit or verdict.reason
    assert verdicts > 1000
