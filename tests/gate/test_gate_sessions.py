"""Session state that the gate owns: drift, caps and rate limits over several actions, and clocks that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kest.gate import DeviceFingerprint, Gate, GateInputError, GeoLocation, InMemoryRateLimitStore, InMemorySessionStore

Make = Callable[..., Any]
T0 = 1_700_000_000.0
BANGALORE = GeoLocation("IN", city="Bangalore", latitude=12.9716, longitude=77.5946)
CHENNAI = GeoLocation("IN", city="Chennai", latitude=13.0827, longitude=80.2707)
NEW_YORK = GeoLocation("US", city="New York", latitude=40.7128, longitude=-74.0060)


def limited(most: int = 2, window: str = "60s", **more: Any) -> dict[str, Any]:
    return {"rate_limit": {"max": most, "window": window, **more}}


# --- drift ---


def test_the_gate_remembers_where_a_session_began(permitting: Make, context: Make) -> None:
    gate = permitting()
    assert gate.evaluate(context(session_id="s", ip="1.1.1.1")).is_permit
    assert gate.evaluate(context(session_id="s", ip="::ffff:1.1.1.1")).is_permit
    assert gate.evaluate(context(session_id="s")).is_permit
    assert gate.evaluate(context(session_id="t", ip="2.2.2.2")).is_permit
    verdict = gate.evaluate(context(session_id="s", ip="2.2.2.2"))
    assert (verdict.kind, verdict.evaluator, verdict.code) == ("invalidate", "drift", None)
    assert "IP changed mid-session" in verdict.reason
    verdict = gate.evaluate(context(session_id="s", ip="1.1.1.1"))  # it stays over
    assert (verdict.kind, verdict.evaluator, verdict.code) == ("refuse", "gate", "SESSION_INVALID")
    assert gate.evaluate(context(session_id="t", ip="2.2.2.2")).is_permit


def test_a_refused_action_opens_no_session(permitting: Make, context: Make) -> None:
    gate = permitting({"action": "pay"})
    assert gate.evaluate(context("steal", session_id="s", ip="6.6.6.6")).is_refuse
    assert gate.evaluate(context(session_id="s", ip="1.1.1.1")).is_permit


def test_tolerant_mode(permitting: Make, context: Make) -> None:
    def decide(**given: Any) -> Any:
        return permitting(geo_drift_max_km=500.0).evaluate(context(ip="2.2.2.2", origin_ip="1.1.1.1", **given))

    assert decide(current_geo=CHENNAI, origin_geo=BANGALORE).is_permit
    far = decide(current_geo=NEW_YORK, origin_geo=BANGALORE)
    assert far.is_invalidate
    assert "moved 13368.0km (> 500.0km threshold)" in far.reason
    for partial in (
        {},
        {"current_geo": CHENNAI},
        {"origin_geo": BANGALORE},
        {"current_geo": GeoLocation("IN"), "origin_geo": BANGALORE},
    ):
        assert "geo distance is unverifiable" in decide(**partial).reason
    gate = permitting(geo_drift_max_km=500.0)
    assert gate.evaluate(context(session_id="s", ip="1.1.1.1", current_geo=BANGALORE)).is_permit
    assert gate.evaluate(context(session_id="s", ip="2.2.2.2", current_geo=CHENNAI)).is_permit
    assert gate.evaluate(context(session_id="s", ip="3.3.3.3", current_geo=NEW_YORK)).is_invalidate


def test_devices(permitting: Make, context: Make) -> None:
    gate = permitting()
    assert gate.evaluate(context(session_id="s")).is_permit
    assert gate.evaluate(context(session_id="s", device=DeviceFingerprint("a", "one"))).is_permit
    assert gate.evaluate(context(session_id="s", device=DeviceFingerprint("a", "two"))).is_permit
    verdict = gate.evaluate(context(session_id="s", device=DeviceFingerprint("b")))
    assert verdict.is_invalidate
    assert "device" in verdict.reason
    assert (
        permitting()
        .evaluate(context(device=DeviceFingerprint("a"), origin_device=DeviceFingerprint("b")))
        .is_invalidate
    )


def test_age(permitting: Make, context: Make, at: Make) -> None:
    gate = permitting()
    for age, kind in ((14_400, "permit"), (14_401, "invalidate"), (-60, "permit"), (-61, "invalidate")):
        at(gate, T0)
        verdict = gate.evaluate(context(session_started_at=int(T0) - age))
        assert verdict.kind == kind, age
        assert verdict.reason is None or "session age" in verdict.reason
    at(gate, T0)
    assert gate.evaluate(context(session_id="s")).is_permit
    at(gate, T0 + 14_401)
    assert "session age (14401s) exceeds maximum (14400s)" in gate.evaluate(context(session_id="s")).reason


def test_a_clock_set_back_makes_no_session_younger_and_no_limit_longer(
    permitting: Make, context: Make, at: Make
) -> None:
    gate = permitting(limited(), {"session_age_max": "1h"})
    at(gate, T0, 1000)
    assert gate.evaluate(context(session_id="s")).is_permit
    at(gate, T0 - 90_000, 1000 + 59.999)
    assert gate.evaluate(context(session_id="s")).is_permit
    assert gate.evaluate(context(session_id="s")).code == "RATE_LIMIT_EXCEEDED"
    at(gate, T0 - 90_000, 1000 + 60)
    assert gate.evaluate(context(session_id="s")).is_permit
    at(gate, T0 - 90_000, 1000 + 3601)
    assert gate.evaluate(context(session_id="s")).is_refuse
    at(gate, T0, 10)  # even the steady clock: as if it stood still
    assert gate.evaluate(context(session_id="s")).is_refuse


def test_behaviour(permitting: Make, context: Make, at: Make) -> None:
    gate = permitting()
    at(gate, T0)
    verdicts = [gate.evaluate(context(session_id="s")) for _ in range(102)]
    assert all(verdict.is_permit for verdict in verdicts[:101])
    assert verdicts[101].is_invalidate
    assert "action rate (101/min) exceeds violation threshold (100)" in verdicts[101].reason
    assert permitting().evaluate(context(action_count=101)).is_invalidate


def test_three_warnings_refuse(permitting: Make, context: Make, at: Make) -> None:
    gate = permitting(geo_drift_max_km=500.0)
    at(gate, T0)
    given = {
        "ip": "2.2.2.2", "origin_ip": "1.1.1.1", "current_geo": CHENNAI, "origin_geo": BANGALORE,
        "session_started_at": int(T0) - 10_801, "action_count": 31 * 180,
    }  # fmt: skip
    verdict = gate.evaluate(context(**given))
    assert (verdict.kind, verdict.code, verdict.reason) == (
        "refuse",
        "DRIFT_DETECTED",
        "3 concurrent drift warnings (threshold: 3)",
    )
    assert gate.evaluate(context(**{**given, "action_count": 0})).is_permit
    assert permitting(enable_drift=False).evaluate(context(**{**given, "action_count": 10**6})).is_permit


def test_session_cap(permitting: Make, context: Make) -> None:
    gate = permitting(max_session_actions=3)
    assert [gate.evaluate(context(session_id="s")).kind for _ in range(4)] == ["permit"] * 3 + ["refuse"]
    verdict = gate.evaluate(context(session_id="s"))
    assert verdict.reason == "invariant 'max_session_actions' violated: maximum 3 actions per session"
    assert gate.evaluate(context(session_id="t", action_count=3)).is_permit
    assert gate.evaluate(context(action_count=4)).code == "INVARIANT_VIOLATION"


# --- rate limits ---


def test_a_sliding_window(permitting: Make, context: Make, at: Make) -> None:
    gate = permitting(limited(2, "60s"))
    at(gate, T0, 100)
    assert gate.evaluate(context()).is_permit
    at(gate, T0, 130)
    assert gate.evaluate(context()).is_permit
    at(gate, T0, 159.999999999)
    verdict = gate.evaluate(context())
    assert (verdict.code, verdict.policy) == ("RATE_LIMIT_EXCEEDED", "p")
    assert verdict.reason == "rate limit of policy 'p' exceeded: at most 2 per 1m"
    at(gate, T0, 160)
    assert gate.evaluate(context()).is_permit
    assert gate.evaluate(context()).is_refuse
    at(gate, T0, 190)
    assert gate.evaluate(context()).is_permit


def test_windows_of_any_length(permitting: Make, context: Make, at: Make) -> None:
    gate = permitting(limited(1, "400d"))
    at(gate, T0, 0)
    assert gate.evaluate(context()).is_permit
    at(gate, T0, 400 * 86_400 - 1)
    assert gate.evaluate(context()).is_refuse
    at(gate, T0, 400 * 86_400)
    assert gate.evaluate(context()).is_permit


def test_names_that_join_to_the_same_text_have_counters_of_their_own(permitting: Make, context: Make) -> None:
    gate = permitting(limited(1))
    for principal, action in (("a:b", "c"), ("a", "b:c"), ("", "a:b:c"), ("a:b:c", ""), ("a", "b")):
        assert gate.evaluate(context(action, principal_id=principal)).is_permit
        assert gate.evaluate(context(action, principal_id=principal)).is_refuse


def test_policies_have_counters_of_their_own(context: Make) -> None:
    policies = [{"name": n, "effect": "permit", "conditions": [limited(1)]} for n in ("a", "b")]
    gate = Gate.from_dict({"policies": policies})
    assert [gate.evaluate(context()).policy for _ in range(2)] == ["a", "b"]
    assert gate.evaluate(context()).is_refuse


def test_refused_calls_consume_no_quota_unless_the_policy_says_so(permitting: Make, context: Make) -> None:
    gate = permitting(limited(1), invariants=[("cap", "amount", 1.0)])
    for _ in range(5):
        assert gate.evaluate(context(params={"amount": 2})).code == "INVARIANT_VIOLATION"
    assert gate.evaluate(context(params={"amount": 1})).is_permit
    gate = permitting(limited(1, count_refused=True), invariants=[("cap", "amount", 1.0)])
    assert gate.evaluate(context(params={"amount": 2})).code == "INVARIANT_VIOLATION"
    assert gate.evaluate(context(params={"amount": 1})).code == "RATE_LIMIT_EXCEEDED"


def test_an_action_that_a_policy_is_not_about_consumes_none_of_its_quota(permitting: Make, context: Make) -> None:
    gate = permitting(limited(1), {"action": "pay"})
    for _ in range(3):
        assert gate.evaluate(context("read")).code == "NO_POLICY_MATCH"
    assert gate.evaluate(context()).is_permit


def test_a_refusal_over_a_limit(context: Make) -> None:
    gate = Gate.from_dict(
        {
            "policies": [
                {"name": "flood", "effect": "refuse", "conditions": [{"not": limited(2)}]},
                {"name": "all", "effect": "permit", "conditions": []},
            ]
        }
    )
    assert [gate.evaluate(context()).policy for _ in range(3)] == ["all", "all", "flood"]


def test_idle_keys_are_small_and_forgotten(permitting: Make, context: Make, at: Make) -> None:
    store = InMemoryRateLimitStore()
    gate = permitting(limited(5), rate_store=store)
    at(gate, T0, 1000)
    empty = store.nbytes
    for number in range(20_000):
        assert gate.evaluate(context(principal_id=f"p{number}")).is_permit
    assert len(store) == 20_000
    assert (store.nbytes - empty) / 20_000 <= 100
    at(gate, T0, 1060)
    for _ in range(20_000 // 4):  # each call forgets a few
        gate.evaluate(context("unrelated"))
    assert len(store) <= 5
    assert store.nbytes - empty < 50_000


def test_sweep_forgets_at_once(permitting: Make, context: Make, at: Make) -> None:
    store = InMemoryRateLimitStore()
    gate = permitting(limited(5, "1s"), rate_store=store)
    at(gate, T0, 0)  # long ago for the clock that sweep uses
    for number in range(2000):
        gate.evaluate(context(principal_id=f"p{number}", session_id=f"s{number}"))
    assert gate.sweep() >= 2000
    assert len(store) == 0


def test_a_full_store_refuses_instead_of_growing(permitting: Make, context: Make) -> None:
    gate = permitting(limited(5), rate_store=InMemoryRateLimitStore(max_keys=1))
    assert gate.evaluate(context()).is_permit
    verdict = gate.evaluate(context(principal_id="bob"))
    assert (verdict.kind, verdict.reason) == ("refuse", "rate-limit backend unavailable")
    assert gate.evaluate(context()).is_permit
    gate = permitting(session_store=InMemorySessionStore(max_sessions=1))
    assert gate.evaluate(context(session_id="a")).is_permit
    verdict = gate.evaluate(context(session_id="b"))
    assert (verdict.code, verdict.evaluator) == ("SESSION_INVALID", "gate")
    for bad in (0, 2**30):
        with pytest.raises(ValueError):
            InMemoryRateLimitStore(max_keys=bad)
    with pytest.raises(ValueError):
        InMemorySessionStore(ttl=60)


def test_a_limit_holds_across_threads(permitting: Make, context: Make) -> None:
    gate = permitting(limited(500, "1h"))
    permitted: list[int] = []

    def work() -> None:
        permitted.append(sum(gate.evaluate(context()).is_permit for _ in range(200)))

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(permitted) == 500


def test_reloading_while_others_evaluate(permitting: Make, context: Make) -> None:
    gate = permitting()
    sets = [{"policies": [{"name": f"p{i}", "effect": "permit", "conditions": []} for i in range(n)]} for n in (1, 100)]
    stop = threading.Event()
    wrong: list[Any] = []

    def work() -> None:
        while not stop.is_set():
            verdict = gate.evaluate(context())
            if not verdict.is_permit or verdict.policy not in ("p", "p0"):
                wrong.append(verdict)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100):
        gate.reload(sets[number % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# --- invalidation by hand ---


def test_invalidating_principals_and_roles(permitting: Make, context: Make) -> None:
    gate = permitting()
    gate.invalidate("alice", "principal")
    assert gate.evaluate(context()).reason == "principal was invalidated"
    assert gate.evaluate(context(principal_id="bob", roles=["alice"])).is_permit
    gate.invalidate("admin", "role")
    assert "role" in gate.evaluate(context(principal_id="bob", roles=["x", "admin"])).reason
    gate.invalidate("{0192F1C8-6C7A-7E3F-A1B2-C3D4E5F60718}")
    assert (
        gate.evaluate(context(principal_id="bob", session_id="0192f1c86c7a7e3fa1b2c3d4e5f60718")).code
        == "SESSION_INVALID"
    )
    for bad in (("x", "tenant"), ("", "session"), ("a b", "session"), ("x" * 2000, "principal")):
        with pytest.raises(GateInputError):
            gate.invalidate(*bad)


def test_the_session_store_by_itself() -> None:
    store = InMemorySessionStore()
    assert not store.is_invalidated("s")
    store.invalidate("s")
    store.invalidate("s")
    assert store.is_invalidated("s")
    assert not store.is_invalidated("s", "principal")
    assert store.len == 1
    assert store.reinstate("s")
    assert not store.reinstate("s")
    assert store.len == 0
    assert store.open_sessions == 0
    with pytest.raises(GateInputError, match="target_kind"):
        store.invalidate("s", "tenant")


def test_gates_can_share_stores(permitting: Make, context: Make) -> None:
    sessions, rates = InMemorySessionStore(), InMemoryRateLimitStore()
    first, second = (permitting(limited(1), session_store=sessions, rate_store=rates) for _ in range(2))
    assert first.evaluate(context()).is_permit
    assert second.evaluate(context()).is_refuse
    first.invalidate("s")
    assert second.evaluate(context("other", session_id="s")).code == "SESSION_INVALID"
