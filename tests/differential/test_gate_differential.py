"""The gate in C against its statement in plain Python: the same verdict, code, evaluator and policy for every action."""

from __future__ import annotations

import math
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.gate import NS, ReferenceGate, in_window, matches, matches_path, normal_path

from kest._kestcore import gate_path
from kest.gate import Gate, Verdict, context_from_record

from .gates import (
    PATHS,
    conditions,
    contexts,
    documents,
    drifting,
    focused_contexts,
    focused_documents,
    instants,
    leaves,
    patterns,
    starts,
    windows,
)  # fmt: skip

# As for the other differential tests; limits and drift need more examples than most.
EXAMPLES = int(os.environ.get("KEST_DIFFERENTIAL_EXAMPLES", "200"))
many = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def summary(verdict: Verdict) -> tuple[str, str | None, str | None]:
    return verdict.kind, verdict.code, verdict.evaluator


def build(policies: list[dict[str, Any]], options: dict[str, Any]) -> tuple[Gate, ReferenceGate]:
    gate = Gate.from_dict(
        {"policies": policies},
        invariants=options["invariants"],
        enable_drift=options["drift"],
        geo_drift_max_km=options["max_km"],
        max_session_actions=options["max_actions"],
    )
    return gate, ReferenceGate(policies, **options)


options = st.fixed_dictionaries(
    {
        "invariants": st.sampled_from([[], [("cap", "amount", 10.0)], [("a", "amount", 5.0), ("b", "to", 1.0)]]),
        "drift": st.booleans(),
        "max_km": st.sampled_from([None, 500.0, 20000.0]),
        "max_actions": st.sampled_from([None, 0, 1, 3]),
    }
)
steps = st.lists(
    st.tuples(contexts, starts, st.sampled_from([0, 1, NS - 1, NS, 2 * NS, 60 * NS, 7200 * NS])), min_size=1, max_size=6
)


def play(policies: list[dict[str, Any]], opts: dict[str, Any], history: list[Any], wall: int) -> None:
    gate, reference = build(policies, opts)
    steady = 10**15
    for record, started, pause in history:
        wall, steady = min(wall + pause, 4_102_444_799 * NS), steady + pause
        context = dict(record)
        if started is not None:
            context["session_started_at"] = wall // NS - started
        gate._core.set_clock(wall, steady)
        verdict = gate.evaluate(context_from_record(context))
        expected = reference.evaluate(context, wall, steady)
        assert summary(verdict) == tuple(expected[:3]), (context, verdict)
        if expected.policy is not None and verdict.evaluator in (None, "policy"):
            assert verdict.policy == expected.policy
        assert verdict.reason is None or verdict.reason


@many
@given(documents(), options, steps, instants)
def test_a_history_of_actions_is_decided_alike(
    policies: list[dict[str, Any]], opts: dict[str, Any], history: list[Any], wall: int
) -> None:
    play(policies, opts, history, wall)


pauses = st.sampled_from([0, 1, NS - 1, NS, NS + 1, 2 * NS, 60 * NS, 7200 * NS])


@settings(max_examples=3 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(focused_documents, options, st.lists(st.tuples(focused_contexts, st.none(), pauses), min_size=2, max_size=8))
def test_limits_and_sessions_are_decided_alike(
    policies: list[dict[str, Any]], opts: dict[str, Any], history: list[Any]
) -> None:
    play(policies, opts, history, 1_700_000_000 * NS)


ages = st.sampled_from([-61, -60, 0, 59, 119, 10_800, 10_801, 14_400, 14_401])


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(drifting, ages, st.sampled_from([None, 500.0, 20_000.0]))
def test_drift_is_decided_alike(record: dict[str, Any], age: int, max_km: float | None) -> None:
    policies = [{"name": "p", "effect": "permit", "conditions": []}]
    opts = {"invariants": [], "drift": True, "max_km": max_km, "max_actions": None}
    play(policies, opts, [(record, age, 0)], 1_700_000_000 * NS)


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(documents(most=5, of=leaves), min_size=3, max_size=5), contexts, st.integers(9, 200), instants)
def test_the_index_changes_nothing(
    blocks: list[list[dict[str, Any]]], record: dict[str, Any], count: int, wall: int
) -> None:
    """Many policies, so that the core looks them up instead of asking each."""
    source = [policy for block in blocks for policy in block] or [{"effect": "refuse", "conditions": []}]
    policies = [{**source[i * 7 % len(source)], "name": f"p{i}"} for i in range(count)]
    gate, reference = build(policies, {"invariants": [], "drift": False, "max_km": None, "max_actions": None})
    gate._core.set_clock(wall, 10**15)
    verdict = gate.evaluate(context_from_record(record))
    expected = reference.evaluate(record, wall, 10**15)
    assert summary(verdict) == tuple(expected[:3])
    assert verdict.policy == expected.policy


@many
@given(windows(), instants)
def test_time_windows_follow_the_zone(window: str, wall: int) -> None:
    gate = Gate.from_dict({"policies": [{"name": "w", "effect": "permit", "conditions": [{"time_window": window}]}]})
    gate._core.set_clock(wall, 0)
    context = context_from_record({"principal_id": "a", "principal_kind": "user", "action_name": "x"})
    assert gate.evaluate(context).is_permit == in_window(window, wall)


segments = st.lists(
    st.sampled_from(
        ["", ".", "..", "a", "%2e", "%2E%2e", "%2f", ".a", "..a", "%41", "%zz", "%", "é", "a\\b", "\\..", "~"]
    ),
    max_size=6,
)


@many
@given(segments, st.booleans())
def test_paths_are_normalised_alike(parts: list[str], absolute: bool) -> None:
    path = ("/" if absolute else "") + "/".join(parts)
    normal = gate_path(path)
    assert normal == normal_path(path)
    if normal is not None:
        assert gate_path(normal) == normal or "%" in path  # decoding once can show another escape


@many
@given(patterns, st.sampled_from(["", "pay", "pay.", "pay.x", "payday", "read", "pay.refund", "pay.refund.x"]))
def test_patterns_match_alike(pattern: str, text: str) -> None:
    gate = Gate.from_dict({"policies": [{"name": "w", "effect": "permit", "conditions": [{"action": pattern}]}]})
    context = context_from_record({"principal_id": "a", "principal_kind": "user", "action_name": text})
    assert gate.evaluate(context).is_permit == matches(pattern, text)


@many
@given(conditions, contexts, instants)
def test_an_explanation_agrees_with_the_verdict(condition: dict[str, Any], record: dict[str, Any], wall: int) -> None:
    policies = [
        {
            "name": effect,
            "effect": effect,
            "conditions": [condition, {"not": condition}] if effect == "refuse" else [condition],
        }
        for effect in ("refuse", "permit")
    ]
    gate = Gate.from_dict({"policies": policies}, enable_drift=False)
    gate._core.set_clock(wall, 10**15)
    context = context_from_record(record)
    explanation = gate.explain(context)
    matched = explanation.matched
    verdict = gate.evaluate(context)
    assert (verdict.policy if verdict.code in (None, "POLICY_DENIED") else None) == (matched.name if matched else None)
    assert str(explanation)


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(st.lists(st.integers(0, 200_000_000), min_size=1, max_size=400), st.integers(1, 60))
def test_a_hot_key_counts_never_too_little_and_hardly_too_much(pauses: list[int], most: int) -> None:
    """Beyond 31 events in a window a 32nd of the window is the error, always to the safe side."""
    window = 2 * NS
    gate = Gate.from_dict(
        {"policies": [{"name": "r", "effect": "permit", "conditions": [{"rate_limit": {"max": most, "window": "2s"}}]}]}
    )
    context = context_from_record({"principal_id": "a", "principal_kind": "user", "action_name": "x"})
    now, permitted = 10**15, []
    for pause in pauses:
        now += pause
        gate._core.set_clock(NS, now)
        inside = sum(now - at < window for at in permitted)
        nearly = sum(now - at < window + math.ceil(window / 32) for at in permitted)
        allowed = gate.evaluate(context).is_permit
        assert not (allowed and inside >= most), "more than the limit within one window"
        assert allowed or nearly >= most, "refused although there was room"
        if most <= 31:
            assert allowed == (inside < most), "small limits are exact"
        if allowed:
            permitted.append(now)


def test_the_paths_of_the_strategies_cover_both_outcomes() -> None:
    assert {normal_path(path) is None for path in PATHS} == {True, False}
    assert matches_path("orders/*", "orders/1")
