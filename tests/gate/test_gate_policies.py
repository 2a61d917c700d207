"""Policies are checked when they are loaded: whatever is wrong is named with its path, and nothing is guessed."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kest.errors import KestError
from kest.gate import Gate, GateInputError, GatePolicyError
from kest.gate.policies import load_dict, load_file, load_json, load_policies, load_toml


def one(condition: Any, **policy: Any) -> dict[str, Any]:
    return {"policies": [{"name": "p", "effect": "permit", "conditions": [condition], **policy}]}


BAD_CONDITIONS: list[tuple[Any, str, str]] = [
    ({"idnetity_kind": "agent"}, "policies[0].conditions[0]", "unknown variant `idnetity_kind`"),
    ({}, "policies[0].conditions[0]", "exactly one key"),
    ({"action": "a", "resource": "b"}, "policies[0].conditions[0]", "exactly one key"),
    ("action", "policies[0].conditions[0]", "a table with one key"),
    ({"identity_kind": "Agent"}, "policies[0].conditions[0].identity_kind", "unknown variant `Agent`"),
    ({"identity_kind": ["agent"]}, "policies[0].conditions[0].identity_kind", "unknown variant"),
    ({"identity_role": 1}, "policies[0].conditions[0].identity_role", "a string is expected"),
    ({"action": "a*b"}, "policies[0].conditions[0].action", "a * stands at the end"),
    ({"action": "**"}, "policies[0].conditions[0].action", "a * stands at the end"),
    ({"action": "x" * 5000}, "policies[0].conditions[0].action", "longer than"),
    ({"action": "\ud800"}, "policies[0].conditions[0].action", "surrogate"),
    ({"resource": "a/../b"}, "policies[0].conditions[0].resource", "write it as 'b'"),
    ({"resource": "../b"}, "policies[0].conditions[0].resource", "leads out of its root"),
    ({"resource": "a//b/*"}, "policies[0].conditions[0].resource", "write it as 'a/b/'"),
    ({"param_max": {"field": "x"}}, "policies[0].conditions[0].param_max", "missing field `max`"),
    ({"param_max": {"field": "x", "max": 1, "min": 0}}, "policies[0].conditions[0].param_max", "unknown field `min`"),
    ({"param_max": {"field": "", "max": 1}}, "policies[0].conditions[0].param_max.field", "empty"),
    *(
        ({"param_max": {"field": "x", "max": bad}}, "policies[0].conditions[0].param_max.max", "")
        for bad in (float("nan"), float("inf"), float("-inf"), 10**400, 2**53 + 1, True, "1", None, [1], {})
    ),
    ({"param_in": {"field": "x", "values": "abc"}}, "policies[0].conditions[0].param_in.values", "a list is expected"),
    ({"param_in": {"field": "x", "values": []}}, "policies[0].conditions[0].param_in.values", "empty"),
    ({"param_in": {"field": "x", "values": [1, [2]]}}, "policies[0].conditions[0].param_in.values[1]", "a number"),
    ({"param_equals": {"field": "x", "value": None}}, "policies[0].conditions[0].param_equals.value[0]", "null"),
    ({"param_matches": {"field": "x", "pattern": "a*b"}}, "policies[0].conditions[0].param_matches.pattern", "at the end"),
    *(
        ({"rate_limit": {"max": 1, "window": bad}}, "policies[0].conditions[0].rate_limit.window", "")
        for bad in ("", "1.5h", "-1s", "1H", "1h30m", "0s", "0", "h", "1 h", "٣s", 60, None, "9" * 30, "37000d")
    ),
    *(
        ({"rate_limit": {"max": bad, "window": "1s"}}, "policies[0].conditions[0].rate_limit.max", "")
        for bad in (-1, 2**32, 1.0, True, "1")
    ),
    (
        {"rate_limit": {"max": 1, "window": "1s", "count_refused": 1}},
        "policies[0].conditions[0].rate_limit.count_refused", "true or",
    ),
    ({"session_age_max": "4H"}, "policies[0].conditions[0].session_age_max", "no duration"),
    *(
        ({"time_window": bad}, "policies[0].conditions[0].time_window", "")
        for bad in (
            "9-17", "09:00", "09:00–17:00", "24:00-01:00", "09:60-10:00", "09:00 - 17:00", " 09:00-17:00", "09:00-17:00 ",
            "09:00-17:00 Mars/Base", "09:00-17:00 europe/berlin", "09:00-17:00 +02:00", "09:00-17:00 ../../etc/passwd",
            "09:00-17:00 Europe/Berlin UTC", "10:00-10:00", "09:00:00-17:00:00", "9:0-17:00", 9, "",
        )
    ),
    ({"trust_min": 101}, "policies[0].conditions[0].trust_min", "from 0 to 100"),
    ({"trust_min": True}, "policies[0].conditions[0].trust_min", "an integer"),
    ({"taint_present": ""}, "policies[0].conditions[0].taint_present", "empty"),
    ({"geo_country": "Germany"}, "policies[0].conditions[0].geo_country[0]", "two letters"),
    ({"geo_country": []}, "policies[0].conditions[0].geo_country", "empty"),
    ({"any": []}, "policies[0].conditions[0].any", "empty"),
    ({"all": {"action": "x"}}, "policies[0].conditions[0].all", "a list"),
    ({"not": [{"action": "x"}]}, "policies[0].conditions[0].not", "a table"),
    ({"any": [{"action": "x"}, {"not": {"actoin": "x"}}]}, "policies[0].conditions[0].any[1].not", "unknown variant"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "path", "words"), BAD_CONDITIONS)
def test_a_bad_condition_is_named(condition: Any, path: str, words: str) -> None:
    with pytest.raises(GatePolicyError) as caught:
        Gate.from_dict(one(condition))
    assert caught.value.path == path
    assert words in str(caught.value)
    assert path in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, KestError)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"polices": []}, "unknown field `polices`"),
        ({"policies": [], "policy": []}, "duplicate field"),
        ({"policies": {}}, "a list is expected"),
        ({"policies": "x"}, "a list is expected"),
        ({"policies": [[]]}, "policies[0]: a table"),
        ({"policies": [{"name": "p", "effect": "permit"}]}, "missing field `conditions`"),
        ({"policies": [{"name": "p", "conditions": []}]}, "missing field `effect`"),
        ({"policies": [{"effect": "permit", "conditions": []}]}, "missing field `name`"),
        ({"policies": [{"name": "p", "effect": "Permit", "conditions": []}]}, "unknown variant `Permit`"),
        ({"policies": [{"name": 1, "effect": "permit", "conditions": []}]}, "policies[0].name: a string"),
        ({"policies": [{"name": "p", "effect": "permit", "conditions": [], "prio": 1}]}, "unknown field `prio`"),
        ({"policies": [{"name": "p", "effect": "permit", "conditions": [], "priority": -1}]}, "from 0 to"),
        ({"policies": [{"name": "p", "effect": "permit", "conditions": [], "priority": 1.0}]}, "an integer"),
        ({"policies": [{"name": "p", "effect": "permit", "conditions": [], 5: 1}]}, "keys are strings"),
    ],
)
def test_a_bad_document_is_named(document: Any, words: str) -> None:
    with pytest.raises(GatePolicyError, match="policy dict parse error") as caught:
        load_dict(document)
    assert words in str(caught.value)


def test_neither_a_list_nor_nothing_is_a_document() -> None:
    for document in ([], None, "x", 1):
        with pytest.raises(GatePolicyError):
            load_dict(document)  # type: ignore[arg-type]
    assert len(load_dict({})) == 0
    assert len(load_dict({"policy": []})) == 0


def test_self_referential_and_deep_documents_are_refused() -> None:
    loop: dict[str, Any] = {}
    loop["not"] = loop
    with pytest.raises(GatePolicyError, match="nested more than"):
        load_dict(one(loop))
    ring: list[Any] = []
    ring.append({"any": ring})
    with pytest.raises(GatePolicyError, match="nested more than"):
        load_dict(one({"all": ring}))
    document: dict[str, Any] = {}
    document["policies"] = [document]
    with pytest.raises(GatePolicyError, match="unknown field `policies`"):
        load_dict(document)
    values: list[Any] = []
    values.append(values)
    with pytest.raises(GatePolicyError):
        load_dict(one({"param_in": {"field": "x", "values": values}}))
    deep: Any = {"action": "x"}
    for _ in range(15):
        deep = {"not": deep}
    assert len(load_dict(one(deep))) == 1


def test_json_is_strict() -> None:
    good = json.dumps(one({"action": "x"}))
    assert load_json(good).digest == load_dict(one({"action": "x"})).digest
    for bad in (
        "",
        "{",
        good + "x",
        good.replace('"name"', '"name": "q", "name"'),
        "[" * 100_000,
        good.replace('"x"', "NaN"),
    ):
        with pytest.raises(GatePolicyError, match="policy JSON parse error"):
            load_json(bad)


def test_toml_and_its_kill_switch() -> None:
    text = textwrap.dedent(
        """
        [[policy]]
        name = "p"
        effect = "permit"
        conditions = [{ action = "x" }]
        """
    )
    assert load_toml(text).digest == load_dict(one({"action": "x"})).digest
    assert len(load_toml("")) == 0
    for bad in ("policies = 1", "x", "[[policies]]\nname='p'\nname='q'", "a = " + "[" * 100_000):
        with pytest.raises(GatePolicyError, match="policy parse error"):
            load_toml(bad)
    for number in ("nan", "inf", "-inf", "+nan"):
        with pytest.raises(GatePolicyError, match=r"param_max\.max"):
            load_toml(text.replace('{ action = "x" }', f"{{ param_max = {{ field = 'a', max = {number} }} }}"))


def test_files(tmp_path: Path) -> None:
    toml, odd, broken = tmp_path / "p.toml", tmp_path / "p.policies", tmp_path / "b.json"
    toml.write_text('policies = [{name = "p", effect = "permit", conditions = []}]')
    odd.write_text('{"policies": []}')
    broken.write_bytes(b"\xff")
    assert len(Gate.from_file(toml).policies) == len(Gate.from_file(str(toml)).policies) == 1
    assert len(Gate.from_json_file(odd).policies) == 0
    with pytest.raises(FileNotFoundError):
        Gate.from_file(tmp_path / "absent.toml")
    with pytest.raises(GateInputError, match="cannot read JSON policy file"):
        Gate.from_json_file(tmp_path / "absent.json")
    with pytest.raises(GatePolicyError, match=r"b\.json.*UTF-8"):
        load_file(broken)
    odd.write_text("{")
    with pytest.raises(GatePolicyError, match=r"p\.policies"):
        Gate.from_json_file(odd)


def test_any_source_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(one({"action": "x"})))
    loaded = load_dict(one({"action": "x"}))
    for source in (loaded, one({"action": "x"}), file, file.read_text(), "  \n" + file.read_text()):
        assert load_policies(source).digest == loaded.digest
    with pytest.raises(TypeError):
        load_policies(5)  # type: ignore[arg-type]


def test_the_digest_is_of_what_is_enforced() -> None:
    base = load_dict(one({"rate_limit": {"max": 1, "window": "60s"}})).digest
    assert load_dict(one({"rate_limit": {"max": 1, "window": "1m"}}, description="words")).digest == base
    assert load_dict(one({"rate_limit": {"max": 2, "window": "1m"}})).digest != base
    assert load_dict(one({"rate_limit": {"max": 1, "window": "1m"}}, priority=5)).digest != base
    assert len(base) == 64


def test_priority_orders_and_ties_stay_as_written() -> None:
    names = ["a", "b", "c", "d"]
    policies = [
        {"name": name, "effect": "permit", "conditions": [], **({"priority": p} if p else {})}
        for name, p in zip(names, (200, None, 3, None), strict=True)
    ]
    assert [policy.name for policy in load_dict({"policies": policies}).policies] == ["c", "b", "d", "a"]


def test_importing_the_gate_loads_no_optional_library(run_python: Any) -> None:
    run_python(
        "import sys, kest.gate\n"
        "names = {'watchfiles', 'redis', 'cryptography', 'httpx', 'opentelemetry', 'zoneinfo', 'fastapi'}\n"
        "heavy = names & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


def test_the_documentation_names_every_condition_and_its_example_loads(context: Any) -> None:
    from kest.gate import conditions

    root = Path(__file__).resolve().parents[2]
    page, example = (root / "docs" / "gate.md").read_text(), (root / "examples" / "gate" / "policies.toml").read_text()
    assert example in page
    for name in (*conditions.CONDITIONS, *conditions.GROUPS):
        assert f"`{name}`" in page, name
    gate = Gate.from_toml(example)
    given = {"principal_kind": "agent", "params": {"amount": 5}, "roles": ["on_call"], "resource": "orders/1"}
    assert gate.evaluate(context("refund.small", **given)).is_permit
    assert gate.evaluate(context("refund.small", **{**given, "resource": "secrets/1"})).policy == "no_secrets_abroad"
