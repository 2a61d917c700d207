"""The policy pack fails closed: a deny rule denies whatever else permits, and what is missing or mistyped never allows."""

from __future__ import annotations

import random
from typing import Any

import pytest
from differential.policy_deciders import (
    REGO,
    by_cedar,
    by_cedar_all,
    cedar_context,
    cedar_policies,
    regorus_value,
)
from reference import models
from reference.policy_tables import ALLOWED, ROWS, Input, changed, malformed_rows, mixed_list, places

from kest.core.engine import CedarLocalEngine, RegoLocalEngine
from kest.core.policies import NAMES, load

cedarpy = pytest.importorskip("cedarpy")
EVERY = (models.allows, *REGO, by_cedar)


@pytest.mark.parametrize("model", NAMES)
def test_c1_nothing_malformed_is_allowed(model: str) -> None:
    """Beyond agreeing with the specification: what one wrong thing allows, the model does not read or reads as right."""
    for row in malformed_rows(model):
        if models.allows(model, row):
            assert [decide(model, row) for decide in EVERY] == [True] * len(EVERY)
            continue
        assert not REGO[0](model, row)
        assert not by_cedar(model, row) or mixed_list(row)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("given", [{}, {"object": {}}, {"object": {"attributes": {}}}, {"args": {}}])
def test_c1_empty_input_denies(model: str, given: Input) -> None:
    assert not any(decide(model, given) for decide in EVERY)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("given", [None, [], "x", 1, {"object": None}, {"object": [1]}, {"object": {"attributes": 3}}])
def test_c1_input_of_another_shape_denies(model: str, given: Any) -> None:
    assert [decide(model, given) for decide in REGO] == [False] * len(REGO)


@pytest.mark.parametrize("model", NAMES)
def test_c1_an_added_deny_rule_denies(model: str) -> None:
    more = f'package kest.policies.{model}\nimport rego.v1\ndeny contains "site: closed" if input.user == "alice"\n'
    given = ALLOWED[model]
    pytest.importorskip("lakera_regorus")
    assert regorus_value(model, "allow", given) is True
    assert regorus_value(model, "allow", given, more) is False
    assert regorus_value(model, "reasons", given, more) == {"site: closed"}
    assert by_cedar_all(model, [given]) == [True]
    assert by_cedar_all(model, [given], more='forbid(principal, action, resource) when {context.user == "alice"};') == [
        False
    ]


@pytest.mark.parametrize("model", NAMES)
def test_c1_forbid_holds_beside_a_broad_permit(model: str) -> None:
    rows = list(ROWS[model]())
    rows = random.Random(model).sample(rows, min(500, len(rows)))
    broad = by_cedar_all(model, rows, more="permit(principal, action, resource);")
    assert broad == [models.allows(model, row) for row in rows]


@pytest.mark.parametrize("model", NAMES)
def test_c1_cedar_is_action_agnostic_and_named(model: str) -> None:
    for action in ("blp", "kest/blp", "anything at all"):
        assert by_cedar_all(model, [ALLOWED[model]], action=action) == [True]
    denied = next(row for row in ROWS[model]() if not models.allows(model, row))
    answer = cedarpy.is_authorized(
        {"principal": 'W::"w"', "action": 'Action::"a"', "resource": 'R::"r"', "context": cedar_context(denied)},
        cedar_policies(model),
        "[]",
    )
    named = answer.diagnostics.id_annotations_by_reason.values()
    assert named
    assert all(name.startswith(f"{model}/") for name in named)
    assert answer.diagnostics.errors == []


@pytest.mark.parametrize("model", NAMES)
def test_c1_forbid_holds_beside_a_broad_permit_where_something_is_missing(model: str) -> None:
    """A wrong type makes Cedar skip a forbid; there only CedarLocalEngine denies beside a broad permit."""
    missing = [row for row in (changed(model, place) for place in places(model)) if not models.allows(model, row)]
    assert missing
    assert not any(by_cedar_all(model, missing, more="permit(principal, action, resource);"))
    broad = CedarLocalEngine([load(model, "cedar"), "permit(principal, action, resource);"])
    for row in malformed_rows(model):
        if not models.allows(model, row) and isinstance(row.get("object"), dict) and not mixed_list(row):
            assert not broad.decide("", ["x"], row).allowed, row


@pytest.mark.parametrize("model", NAMES)
def test_c1_an_appended_deny_rule_denies_in_the_engine(model: str) -> None:
    more = '\ndeny contains "site: closed" if input.user == "alice"\n'
    given = ALLOWED[model]
    for backend in [decide.__name__.removeprefix("by_") for decide in REGO]:
        for text, expected in ((load(model), True), (load(model) + more, False)):
            with RegoLocalEngine({"x": text}, backend=backend) as engine:
                assert engine.evaluate("", ["x"], given) is expected
