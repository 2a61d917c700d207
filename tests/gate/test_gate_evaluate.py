"""Verdicts: kinds, codes, words, defaults, order, observe mode, reload; and the documents' samples."""

from __future__ import annotations

import copy
import logging
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kest.errors import KestError
from kest.gate import (
    ActionContext,
    DeviceFingerprint,
    Gate,
    GateInputError,
    GeoLocation,
    Invalidated,
    PermitToken,
    Refused,
    Verdict,
    context_from_record,
    context_to_record,
)  # fmt: skip

Make = Callable[..., Any]

POLICY = {
    "policies": [
        {
            "name": "agent_small_refunds",
            "effect": "permit",
            "conditions": [
                {"identity_kind": "agent"},
                {"action": "issue_refund"},
                {"param_max": {"field": "amount", "max": 1000.0}},
            ],
        },
    ],
}


def agent(amount: float = 500.0, **given: Any) -> ActionContext:
    return ActionContext(
        principal_id="agent-bot", principal_kind="agent", action_name="issue_refund", params={"amount": amount}, **given
    )


# --- samples of 003 and 004 that need no keys ---


def test_003_first_call() -> None:
    gate = Gate.from_dict(POLICY, invariants=[("hard_cap", "amount", 50_000.0)])
    verdict = gate.evaluate(agent())
    assert verdict.is_permit
    assert verdict.token_id


def test_003_building_an_action_context() -> None:
    ctx = ActionContext(
        principal_id="alice",
        principal_kind="user",
        action_name="issue_refund",
        roles=["support"],
        resource="orders/ORD-42",
        params={"amount": 1_500.0},
        ip="10.0.0.1",
        session_id="00000000-0000-0000-0000-000000000001",
        origin_ip="10.0.0.1",
        current_geo=GeoLocation("IN", city="Chennai", latitude=13.08, longitude=80.27),
        origin_geo=GeoLocation("IN", city="Bangalore", latitude=12.97, longitude=77.59),
    )
    with pytest.raises(Refused) as caught:
        Gate.from_dict(POLICY).check(ctx)
    assert (caught.value.evaluator, caught.value.code) == ("policy", "NO_POLICY_MATCH")


def test_004_geo_drift_and_observe_mode() -> None:
    gate = Gate.from_dict({"policies": [{"name": "v", "effect": "permit", "conditions": []}]}, geo_drift_max_km=500.0)
    verdict = gate.evaluate(
        ActionContext(
            principal_id="u",
            principal_kind="user",
            action_name="view_profile",
            ip="2.3.4.5",
            session_id="sess-1",
            current_geo=GeoLocation("IN", city="Chennai", latitude=13.08, longitude=80.27),
            origin_geo=GeoLocation("IN", city="Bangalore", latitude=12.97, longitude=77.59),
        )
    )
    assert verdict.is_permit
    assert Gate.from_dict(POLICY, observe_only=True).evaluate(agent(5000)).is_permit


def test_003_hot_reload() -> None:
    gate = Gate.from_dict(POLICY, invariants=[("hard_cap", "amount", 10_000.0)])
    gate.reload("")
    assert gate.evaluate(agent()).is_refuse
    assert Gate.from_dict(POLICY, invariants=[("hard_cap", "amount", 10_000.0)]).evaluate(agent()).is_permit


# --- verdicts ---


def test_a_permit() -> None:
    verdict = Gate.from_dict(POLICY).evaluate(agent())
    assert (verdict.kind, verdict.is_permit, verdict.is_refuse, verdict.is_invalidate) == ("permit", True, False, False)
    assert (verdict.evaluator, verdict.reason, verdict.code, verdict.signature, verdict.observed) == (None,) * 5
    assert verdict.policy == "agent_small_refunds"
    permit = verdict.permit_token
    assert permit is verdict.permit_token
    assert isinstance(permit, PermitToken)
    assert (permit.token_id, permit.evaluation_id) == (verdict.token_id, verdict.evaluation_id)
    assert permit.expires_at - permit.issued_at == 30
    assert permit.action_name == "issue_refund"
    assert uuid.UUID(permit.token_id) != uuid.UUID(permit.evaluation_id)
    assert repr(verdict) == f"Verdict.Permit(token={verdict.token_id})"


def test_one_context_evaluated_twice_has_two_evaluations() -> None:
    gate, context = Gate.from_dict(POLICY), agent()
    first, second = gate.evaluate(context), gate.evaluate(context)
    assert first.token_id != second.token_id
    assert first.evaluation_id != second.evaluation_id


def test_a_refusal_is_worded() -> None:
    verdict = Gate.from_dict(POLICY).evaluate(agent(5000))
    assert (verdict.kind, verdict.code, verdict.evaluator) == ("refuse", "NO_POLICY_MATCH", "policy")
    assert verdict.reason == "no policy permits 'issue_refund' for principal 'agent-bot'"
    assert (verdict.token_id, verdict.permit_token, verdict.signature, verdict.policy) == (None,) * 4
    assert repr(verdict).startswith("Verdict.Refuse(evaluator=policy, reason=no policy")


def test_names_from_outside_are_bounded_and_escaped(permitting: Make) -> None:
    gate = permitting({"identity_id": "x"})
    verdict = gate.evaluate(ActionContext("a" * 60_000, "user", "do\n\x1b[2J\u202eevil"))
    reason = verdict.reason
    assert len(reason) < 400
    assert "\n" not in reason
    assert "\x1b" not in reason
    assert "\u202e" not in reason


def test_the_first_policy_decides(context: Make) -> None:
    def gate(*effects: str) -> Gate:
        return Gate.from_dict(
            {"policies": [{"name": f"{e}{i}", "effect": e, "conditions": []} for i, e in enumerate(effects)]}
        )

    assert gate("permit", "refuse").evaluate(context()).is_permit
    verdict = gate("refuse", "permit").evaluate(context())
    assert (verdict.code, verdict.reason, verdict.policy) == ("POLICY_DENIED", "denied by policy 'refuse0'", "refuse0")


def test_invariants_hold_whatever_policy_says(permitting: Make, context: Make) -> None:
    gate = permitting(
        invariants=[("hard_cap", "amount", 50_000.0), {"name": "floor", "field": "n", "min": 1, "action": "sell.*"}]
    )
    verdict = gate.evaluate(context(params={"amount": 50_000.01}))
    assert (verdict.code, verdict.evaluator) == ("INVARIANT_VIOLATION", "invariants")
    assert verdict.reason == "invariant 'hard_cap' violated: parameter 'amount' must be at most 50000"
    assert gate.evaluate(context(params={"amount": 50_000})).is_permit
    assert gate.evaluate(context("sell", params={"amount": 1})).is_permit
    verdict = gate.evaluate(context("sell.x", params={"amount": 1, "n": 0}))
    assert verdict.reason.endswith("must be at least 1")


@pytest.mark.parametrize(
    ("invariants", "error"),
    [
        ([("a", "b")], ValueError),
        ([("a", "b", "1")], TypeError),
        ([("a", "b", True)], TypeError),
        ([("a", "b", float("nan"))], ValueError),
        ([("a", "b", 10**400)], ValueError),
        ([("a", "b", None)], ValueError),
        ([(1, "b", 1.0)], TypeError),
        (["abc"], TypeError),
        ([{"name": "a", "field": "b", "maximum": 1}], ValueError),
        ([{"name": "a", "field": "b", "max": 1, "action": "a*b"}], ValueError),
    ],
)
def test_bad_invariants_are_refused(invariants: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"invariants\[0\]"):
        Gate.from_dict(POLICY, invariants=invariants)


def test_bad_options_are_refused() -> None:
    for options, error in (
        ({"geo_drift_max_km": float("nan")}, ValueError),
        ({"geo_drift_max_km": -1}, ValueError),
        ({"geo_drift_max_km": "5"}, TypeError),
        ({"max_session_actions": -1}, ValueError),
        ({"max_session_actions": True}, TypeError),
        ({"permit_ttl": 0}, ValueError),
        ({"permit_ttl": 1.5}, TypeError),
        ({"broadcaster": object()}, ValueError),
        ({"rate_store": object()}, ValueError),
        ({"session_store": object()}, ValueError),
        ({"token_signer": object()}, ValueError),
        ({"no_such_option": 1}, TypeError),
    ):
        with pytest.raises(error):
            Gate.from_dict(POLICY, **options)  # type: ignore[arg-type]


def test_evaluator_count() -> None:
    assert Gate.from_dict(POLICY).evaluator_count == 2
    assert Gate.from_dict(POLICY, enable_drift=False).evaluator_count == 1
    assert Gate.from_dict(POLICY, max_session_actions=5).evaluator_count == 3


def test_check_raises_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate.from_dict(POLICY)
    gate.check(agent())
    with caplog.at_level(logging.WARNING, "kest.gate"), pytest.raises(Refused) as caught:
        gate.check(agent(5000))
    assert str(caught.value) == "[NO_POLICY_MATCH] policy: no policy permits 'issue_refund' for principal 'agent-bot'"
    assert isinstance(caught.value, KestError)
    assert "NO_POLICY_MATCH" in caplog.text
    with pytest.raises(
        Invalidated, match=r"session invalidated by drift: IP changed mid-session: 1\.1\.1\.1 → 2\.2\.2\.2"
    ):
        gate.check(agent(ip="2.2.2.2", origin_ip="1.1.1.1"))


def test_a_gate_takes_contexts_only() -> None:
    for wrong in (None, {}, "x", object()):
        with pytest.raises(TypeError, match="ActionContext"):
            Gate.from_dict(POLICY).evaluate(wrong)  # type: ignore[arg-type]


def test_native_objects_are_closed() -> None:
    gate = Gate.from_dict(POLICY)
    verdict = gate.evaluate(agent())
    for thing in (verdict, agent(), gate._core, gate._core.policies):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.deepcopy(thing)
        with pytest.raises(TypeError):
            type("Sub", (type(thing),), {})
        with pytest.raises(AttributeError):
            thing.kind = "permit"
    with pytest.raises(TypeError):
        Verdict()
    assert verdict.permit_token is not None
    with pytest.raises(AttributeError):
        verdict.permit_token.expires_at = 2**40
    with pytest.raises(TypeError):
        gate.evaluate(agent(5000))._sign(verdict.permit_token)


# --- observe mode ---


def test_observing_permits_and_tells_what_would_have_been(caplog: pytest.LogCaptureFixture, context: Make) -> None:
    limited = {
        "name": "p",
        "effect": "permit",
        "conditions": [{"action": "pay"}, {"rate_limit": {"max": 1, "window": "1h"}}],
    }
    gate = Gate.from_dict({"policies": [limited]}, observe_only=True)
    with caplog.at_level(logging.INFO, "kest.gate"):
        verdict = gate.evaluate(context("steal"))
    assert verdict.is_permit
    assert verdict.reason is None
    assert verdict.token_id
    assert verdict.observed is not None
    assert verdict.observed.code == "NO_POLICY_MATCH"
    assert "would refuse" in caplog.text
    for _ in range(5):  # consumes no quota
        assert gate.evaluate(context()).observed.is_permit
    gate.check(context("steal"))


def test_observing_sees_drift_and_invalidates_nothing(permitting: Make, context: Make) -> None:
    gate = permitting(observe_only=True)
    assert gate.evaluate(context(session_id="s", ip="1.1.1.1")).observed.is_permit
    for _ in range(2):
        assert gate.evaluate(context(session_id="s", ip="2.2.2.2")).observed.is_invalidate


def test_observing_signs(permitting: Make, context: Make) -> None:
    class Signer:
        def sign(self, token: PermitToken) -> bytes:
            return b"signature"

    assert (
        permitting({"action": "x"}, observe_only=True, token_signer=Signer()).evaluate(context()).signature
        == b"signature"
    )


# --- signing ---


def test_a_signer_signs_and_its_failure_refuses(permitting: Make, context: Make) -> None:
    class Signer:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def sign(self, token: PermitToken) -> bytes:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer  # type: ignore[no-any-return]

    verdict = permitting(token_signer=Signer(b"sig")).evaluate(context())
    assert verdict.signature == b"sig" == verdict.permit_token.signature
    assert repr(verdict.permit_token).endswith("signed=true)")
    for bad in (RuntimeError("secret detail"), "text", b"", None):
        verdict = permitting(token_signer=Signer(bad)).evaluate(context())
        assert (verdict.kind, verdict.evaluator, verdict.code) == ("refuse", "gate", "IDENTITY_FAILED")
        assert verdict.reason.startswith("token signing failed: ")
        assert "secret" not in verdict.reason
        assert (verdict.token_id, verdict.permit_token) == (None, None)


def test_a_failed_signature_consumes_no_quota(permitting: Make, context: Make) -> None:
    class Signer:
        works = False

        def sign(self, token: PermitToken) -> bytes:
            if not self.works:
                raise RuntimeError("no key")
            return b"s"

    limits = [{"rate_limit": {"max": 1, "window": "1h"}}, {"rate_limit": {"max": 1, "window": "2h"}}]
    signer = Signer()
    gate = permitting(*limits, token_signer=signer, max_session_actions=1)
    for _ in range(3):
        assert gate.evaluate(context(session_id="s")).code == "IDENTITY_FAILED"
    signer.works = True
    verdict = gate.evaluate(context(session_id="s"))
    assert verdict.is_permit
    assert gate.evaluate(context(session_id="s")).code == "RATE_LIMIT_EXCEEDED"
    for _ in range(2):  # once only, and only what a gate permitted
        gate._core.take_back(verdict)
    assert gate.evaluate(context(session_id="s")).is_permit
    gate._core.take_back(gate.evaluate(context(session_id="s")))
    assert gate.evaluate(context(session_id="s")).is_refuse


# --- reload ---


def test_reload_from_any_source_keeps_the_last_good_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate.from_dict(POLICY)
    before = gate.policy_digest
    for bad in ("x", '{"policies": 1}', {"polices": []}, tmp_path / "absent.toml"):
        with caplog.at_level(logging.ERROR, "kest.gate"), pytest.raises((ValueError, OSError)):
            gate.reload(bad)
        assert gate.evaluate(agent()).is_permit
        assert gate.policy_digest == before
        assert gate.last_reload_error is not None
    assert "last good ones stay" in caplog.text
    other = {"policies": [{"name": "none", "effect": "refuse", "conditions": []}]}
    gate.reload(other)
    assert gate.last_reload_error is None
    assert gate.policy_digest != before
    assert gate.evaluate(agent()).policy == "none"
    (tmp_path / "p.json").write_text('{"policies": [{"name": "all", "effect": "permit", "conditions": []}]}')
    gate.reload(tmp_path / "p.json")
    assert gate.evaluate(agent()).policy == "all"


def test_a_verdict_outlives_its_policies_and_gate() -> None:
    gate = Gate.from_dict(POLICY)
    permit, refusal = gate.evaluate(agent()), gate.evaluate(agent(5000))
    gate.reload("")
    del gate
    assert permit.policy == "agent_small_refunds"
    assert "no policy permits" in (refusal.reason or "")


def test_counters_survive_a_reload(permitting: Make, context: Make) -> None:
    policies = {
        "policies": [{"name": "p", "effect": "permit", "conditions": [{"rate_limit": {"max": 2, "window": "1h"}}]}]
    }
    gate = Gate.from_dict(policies)
    assert gate.evaluate(context()).is_permit
    gate.reload(policies)
    assert gate.evaluate(context()).is_permit
    assert gate.evaluate(context()).code == "RATE_LIMIT_EXCEEDED"


# --- values ---


def test_geo_locations() -> None:
    def place(lat: float, lon: float) -> GeoLocation:
        return GeoLocation("IN", latitude=lat, longitude=lon)

    bangalore = place(12.9716, 77.5946)
    assert bangalore.distance_km(place(13.0827, 80.2707)) == pytest.approx(290.17, abs=0.01)
    assert bangalore.distance_km(place(40.7128, -74.0060)) == pytest.approx(13368.0, abs=0.1)
    assert place(0, 0).distance_km(place(0, 180)) == pytest.approx(20015.0868, abs=1e-4)
    assert bangalore.distance_km(GeoLocation("IN")) is None
    assert repr(GeoLocation("in")) == "GeoLocation(IN)"
    assert repr(GeoLocation("IN", city="B", latitude=1, longitude=2)) == "GeoLocation(IN/B, 1.0000,2.0000)"
    for bad in ({"latitude": 91}, {"longitude": -180.1}, {"latitude": float("nan")}, {"longitude": float("inf")}):
        with pytest.raises(GateInputError):
            GeoLocation("IN", **bad)
    for code in ("", "IND", "1N", "é"):
        with pytest.raises(GateInputError):
            GeoLocation(code)
    assert DeviceFingerprint("h", "a") == DeviceFingerprint("h", "b") != DeviceFingerprint("g", "a")
    assert repr(DeviceFingerprint("h", "laptop")) == "DeviceFingerprint(hash=h, description=laptop)"


def test_permit_tokens() -> None:
    ids = (str(uuid.uuid4()), str(uuid.uuid4()))
    token = PermitToken(ids[0].upper(), "{" + ids[1] + "}", -5, 10, "x")
    assert (token.token_id, token.evaluation_id) == ids
    for arguments, words in (
        (("x", ids[1], 0, 1, "a"), "token_id not a UUID"),
        ((ids[0], "x", 0, 1, "a"), "evaluation_id not a UUID"),
        ((ids[0], ids[1], 2**60, 1, "a"), "issued_at out of range"),
        ((ids[0], ids[1], 0, -(2**60), "a"), "expires_at out of range"),
    ):
        with pytest.raises(ValueError, match=words):
            PermitToken(*arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PermitToken(*ids, 0.5, 1, "a")  # type: ignore[arg-type]


def test_contexts_travel_as_records() -> None:
    context = agent(
        5,
        roles=["r"],
        resource="a/b",
        ip="1.2.3.4",
        session_id="s",
        current_geo=GeoLocation("IN", city="X", latitude=1.0, longitude=2.0),
        device=DeviceFingerprint("h"),
        session_started_at=5,
        action_count=3,
        trust=40,
        taints=("t",),
    )
    context.with_param("tags", ["a", True, 2])
    record = context_to_record(context)
    assert context_to_record(context_from_record(record)) == record
    assert record["params"] == {"amount": 5, "tags": ["a", True, 2]}
    for bad in ({"principal": "x"}, {**record, "current_geo": 5}, {**record, "ip": "x"}, [], {}):
        with pytest.raises((TypeError, ValueError)):
            context_from_record(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("listed", [["x", True], ["x", False], ["y", "x", 1, True, False], ["x"], ["x", 1, 2, False]])
@pytest.mark.parametrize("asked", ["x", "y", 1, 2, True, False, ["x", 1]])
def test_a_refusal_is_not_lost_beside_others_that_list_booleans(listed: list[Any], asked: Any) -> None:
    """With so many policies the core looks listed values up. (Found by fuzzing: it kept only those of one kind of list.)"""
    lists = [["x", "y", 1, 2]] * 20 + [listed] * 5 + [["x", 1, True]] * 3
    policies = [
        {"name": f"p{number}", "effect": "refuse", "conditions": [{"param_in": {"field": "f", "values": values}}]}
        for number, values in enumerate(lists)
    ]
    gate = Gate.from_dict({"policies": [*policies, {"name": "all", "effect": "permit", "conditions": []}]})
    few = Gate.from_dict({"policies": [policies[0], {"name": "all", "effect": "permit", "conditions": []}]})
    context = ActionContext(principal_id="a", principal_kind="user", action_name="x", params={"f": asked})
    verdict = gate.evaluate(context)
    if few.evaluate(context).is_permit:
        assert verdict.policy != "p0"
    else:
        assert (verdict.is_permit, verdict.policy) == (False, "p0")
    backwards = Gate.from_dict({"policies": [*policies[::-1], {"name": "all", "effect": "permit", "conditions": []}]})
    assert backwards.evaluate(context).is_permit == verdict.is_permit


@pytest.mark.parametrize(
    "limits",
    [
        [{"max": 2, "window": "1h", "count_refused": True}],
        [{"max": 3, "window": "1h"}, {"max": 2, "window": "1h", "count_refused": True}],
        [{"max": 2, "window": "1h", "count_refused": True}, {"max": 3, "window": "1h"}],
    ],
)
def test_a_permit_that_cannot_be_signed_counts_where_refused_calls_do(limits: list[Any], context: Make) -> None:
    """Also where another limit of the same counter does not count them."""

    class Signer:
        broken = True

        def sign(self, token: Any) -> bytes:
            if self.broken:
                raise OSError("out of order")
            return b"signed"

    signer = Signer()
    conditions = [{"rate_limit": limit} for limit in limits]
    gate = Gate.from_dict(
        {"policies": [{"name": "p", "effect": "permit", "conditions": conditions}]},
        token_signer=signer,
        enable_drift=False,
    )
    assert gate.evaluate(context()).code == "IDENTITY_FAILED"
    signer.broken = False
    assert gate.evaluate(context()).is_permit
    assert gate.evaluate(context()).code == "RATE_LIMIT_EXCEEDED"
