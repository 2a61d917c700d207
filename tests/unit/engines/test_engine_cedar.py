"""Cedar in this process: what it makes of policies, entities and arguments, and of bad ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engine_samples import CONTEXT

from kest.core.engine import CedarLocalEngine, decide
from kest.errors import ConfigurationError, PolicyEngineError


def test_document_sample_cedar() -> None:
    engine = CedarLocalEngine(policies=['\npermit(\nprincipal,\naction == Action::"invoke",\nresource\n);\n'])
    assert decide(engine, "e", ["invoke"], CONTEXT).allowed is True
    assert decide(engine, "e", ["other"], CONTEXT).allowed is False
    assert (
        decide(CedarLocalEngine(policies=["permit(principal, action, resource);"]), "e", ["x"], CONTEXT).allowed is True
    )


def test_cedar_forbid_overrides_and_is_named() -> None:
    engine = CedarLocalEngine(
        [
            "permit(principal, action, resource);",
            '@id("no-alice") forbid(principal, action, resource) when { context.user == "alice" };',
        ]
    )
    decision = decide(engine, "e", ["x"], CONTEXT)
    assert decision.allowed is False
    assert decision.ids == ("no-alice",)
    assert "no-alice" in decision.reason
    assert decide(engine, "e", ["x"], {**CONTEXT, "user": "bob"}).allowed is True


def test_cedar_evaluation_error_denies() -> None:
    engine = CedarLocalEngine(
        ["permit(principal, action, resource);", "forbid(principal, action, resource) when { context.missing == 1 };"]
    )
    decision = decide(engine, "e", ["x"], CONTEXT)
    assert decision.allowed is False
    assert "missing" in decision.reason
    quoting = CedarLocalEngine(
        [
            "permit(principal, action, resource);",
            'forbid(principal, action, resource) when { ip(context.args.secret) == ip("1.1.1.1") };',
        ]
    )
    decision = decide(quoting, "e", ["x"], CONTEXT)
    assert decision.allowed is False
    assert "s3cr3t" not in decision.reason


def test_cedar_names_principal_and_resource() -> None:
    action = r'Action::"we\"ird\\ 名"'
    text = f'permit(principal == Workload::"spiffe://t/w", action == {action}, resource == Resource::"doc-1");'
    assert decide(CedarLocalEngine([text]), "e", ['we"ird\\ 名'], CONTEXT).allowed is True
    with pytest.raises(PolicyEngineError):
        decide(CedarLocalEngine([text]), "e", ["x"], {})


def test_cedar_entities_and_schema() -> None:
    entities = [
        {"uid": {"type": "Workload", "id": "spiffe://t/w"}, "attrs": {}, "parents": [{"type": "Team", "id": "red"}]},
        {"uid": {"type": "Team", "id": "red"}, "attrs": {}, "parents": []},
    ]
    text = 'permit(principal in Team::"red", action, resource);'
    for given in (entities, json.dumps(entities)):
        assert decide(CedarLocalEngine([text], entities=given), "e", ["x"], CONTEXT).allowed is True
    assert decide(CedarLocalEngine([text]), "e", ["x"], CONTEXT).allowed is False
    schema = """
    entity Team; entity Workload in [Team]; entity Resource;
    action x appliesTo { principal: Workload, resource: Resource, context: { trust_score: Long } };
    """
    engine = CedarLocalEngine([text], entities=entities, schema=schema)
    assert decide(engine, "e", ["x"], CONTEXT).allowed is True
    strict = CedarLocalEngine([text], entities=entities, schema=schema, validate_requests=True)
    assert decide(strict, "e", ["x"], CONTEXT).allowed is False  # the schema does not declare the whole context
    with pytest.raises(ConfigurationError, match="does not fit the schema"):
        CedarLocalEngine(["permit(principal, action, resource) when { context.trust == 1 };"], schema=schema)
    with pytest.raises(ConfigurationError, match="schema"):
        CedarLocalEngine([text], schema="entity (")
    with pytest.raises(ConfigurationError, match="entities"):
        CedarLocalEngine([text], entities="[{]")
    with pytest.raises(ConfigurationError, match="needs a schema"):
        CedarLocalEngine([text], validate_requests=True)


@pytest.mark.parametrize(
    ("policies", "where"),
    [
        (
            ["permit(principal, action, resource);", "// ; no\npermit(principal, action, resource);\n  forbid(;"],
            r"policies\[1\].*line 3, column 3",
        ),
        ({"a/b": "permit(principal"}, r"'a/b'.*line 1, column 1"),
        ([""], "no Cedar policy"),
        ([], "no policies"),
        ({}, "no policies"),
        ("permit(principal, action, resource);", "not one string"),
        ([b"permit"], "must be Cedar text"),
    ],
)
def test_bad_cedar_is_a_configuration_error(policies: Any, where: str) -> None:
    with pytest.raises(ConfigurationError, match=where):
        CedarLocalEngine(policies)


def test_cedar_context_is_flattened() -> None:
    from kest.core.engine.policy_input import cedar_context, cedar_context_json

    flat = cedar_context(CONTEXT)
    assert flat["workload"] == "spiffe://t/w"
    assert flat["parent_hash"] == "0"
    assert flat["subject"]["user"] == "alice"
    assert "agent" not in flat
    assert "agent" not in flat["subject"]
    assert cedar_context({**CONTEXT, "parent_hash": "mine"})["parent_hash"] == "mine"
    decimal = cedar_context({"a": 1.5, "b": 1e-7, "c": float("nan"), "d": 2**70, "e": -0.0, "f": [1e300], "g": 100.0})
    assert decimal == {
        "a": {"__extn": {"fn": "decimal", "arg": "1.5"}},
        "b": "1e-07",
        "c": "nan",
        "d": str(2**70),
        "e": {"__extn": {"fn": "decimal", "arg": "0.0"}},
        "f": ["1e+300"],
        "g": {"__extn": {"fn": "decimal", "arg": "100.0"}},
    }
    with pytest.raises(PolicyEngineError, match="None in a list"):  # a shorter list can be a weaker label
        cedar_context({"args": {"categories": [None, "nato"]}})
    for given in (
        CONTEXT,
        {"x": [",null", ",1.5", "a:null"]},
        {"a": {"b": {"c": None, "d": 1.25}}},
        {"a": float("inf")},
    ):
        assert json.loads(cedar_context_json(given)) == cedar_context(given)
    engine = CedarLocalEngine(
        ['permit(principal, action, resource) when { context.args.amount.lessThan(decimal("100.5")) };']
    )
    assert decide(engine, "e", ["x"], {**CONTEXT, "args": {"amount": 100.25}}).allowed is True
    assert decide(engine, "e", ["x"], {**CONTEXT, "args": {"amount": 100.50001}}).allowed is False
    assert decide(engine, "e", ["x"], {**CONTEXT, "args": {"amount": 1e300}}).allowed is False


@pytest.mark.parametrize("name", ["__entity", "__extn", "__expr"])
def test_an_argument_cannot_pose_as_an_entity(name: str) -> None:
    engine = CedarLocalEngine(['permit(principal, action, resource) when { context.args.who == Workload::"root" };'])
    forged = {**CONTEXT, "args": {"who": {name: {"type": "Workload", "id": "root"}}}}
    with pytest.raises(PolicyEngineError, match="__entity"):
        decide(engine, "e", ["x"], forged)
    harmless = {**CONTEXT, "args": {"who": name}}
    assert decide(engine, "e", ["x"], harmless).allowed is False
