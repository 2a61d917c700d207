"""The engines under contract, and the same policies for them in Rego and in Cedar."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import verified_permissions

from kest.core.engine import AVPPolicyEngine, CedarLocalEngine, PolicyEngine, RegoLocalEngine
from kest.gate import Gate

# name -> (Rego rule bodies under package contract.<name>, Cedar condition). Each allows under the same circumstances.
POLICIES: dict[str, tuple[str, str]] = {
    "always": ("default allow := true", "true"),
    "never": ("default allow := false", "false"),
    "undefined": ("allow if input.no_such_member == 1", "context has no_such_member && context.no_such_member == 1"),
    "trusted": ("default allow := false\nallow if input.trust_score >= 70", "context.trust_score >= 70"),
    "untainted": (
        'allow if not tainted\ntainted if "contains_pii" in input.taints',
        'context.taints.contains("contains_pii") == false',
    ),
    "sensitive": (
        'allow if { input.object.attributes.level.name == "high"; input.subject.user == "alice" }',
        "context.object.attributes has level && "
        'context.object.attributes.level.name == "high" && context.subject has user && context.subject.user == "alice"',
    ),
    "anonymous": ("allow if input.user == null", "(context has user) == false"),
    "tokyo": ('allow if input.args.city == "東京 é😀 \\"q\\" \\\\"', 'context.args.city == "東京 é😀 \\"q\\" \\\\"'),
    "exact": ("allow if input.args.n == 9007199254740993", "context.args.n == 9007199254740993"),
    "escaped": ('allow if input.args.city == "\\u00e9/"', 'context.args.city == "\\u{e9}/"'),
    "nul": ('allow if input.args.city == "a\\u0000b"', 'context.args.city == "a\\0b"'),
}

# The same once more, as somebody who writes an engine of their own would say it.
PYTHON: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "always": lambda given: True,
    "never": lambda given: False,
    "undefined": lambda given: given.get("no_such_member") == 1,
    "trusted": lambda given: given["trust_score"] >= 70,
    "untainted": lambda given: "contains_pii" not in given["taints"],
    "sensitive": lambda given: (
        given["object"]["attributes"].get("level") == {"name": "high"} and given["subject"]["user"] == "alice"
    ),
    "anonymous": lambda given: given["user"] is None,
    "tokyo": lambda given: given["args"].get("city") == '東京 é😀 "q" \\',
    "exact": lambda given: given["args"].get("n") == 9007199254740993,
    "escaped": lambda given: given["args"].get("city") == "é/",
    "nul": lambda given: given["args"].get("city") == "a\0b",
}


# And once as policies of a gate, where the name is the action, and facts are parameters.
_CITY = {"tokyo": '東京 é😀 "q" \\', "escaped": "é/", "nul": "a\0b"}
GATE: dict[str, list[dict[str, Any]]] = {
    "always": [],
    "undefined": [{"param_equals": {"field": "no_such_member", "value": 1}}],
    "trusted": [{"trust_min": 70}],
    "untainted": [{"taint_absent": "contains_pii"}],
    "sensitive": [
        {"param_equals": {"field": "object.level.name", "value": "high"}},
        {"param_equals": {"field": "subject.user", "value": "alice"}},
    ],
    "anonymous": [{"param_equals": {"field": "subject.user", "value": ""}}],
    **{name: [{"param_equals": {"field": "city", "value": city}}] for name, city in _CITY.items()},
    "exact": [  # between two neighbouring doubles there is one integer
        {"not": {"param_max": {"field": "n", "max": 2**53}}},
        {"not": {"param_min": {"field": "n", "min": 2**53 + 2}}},
    ],
}


def gate() -> PolicyEngine:
    policies = [
        {"name": name, "effect": "permit", "conditions": [{"action": f"contract/{name}"}, *conditions]}
        for name, conditions in GATE.items()
    ]
    return Gate.from_dict({"policies": policies}).as_policy_engine()


class OwnEngine(PolicyEngine):
    """One method, and nothing else: not even a word about whether it blocks."""

    def evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> bool:
        rules = [PYTHON.get(name.removeprefix("contract/")) for name in policy_names]
        return all(rule is not None and rule(context) is True for rule in rules)


class OwnInlineEngine(OwnEngine):
    """The same, called on the event loop."""

    in_process = True


REGO = {
    f"contract/{name}": f"package contract.{name}\nimport future.keywords\n\n{rules}\n"
    for name, (rules, _) in POLICIES.items()
}
CEDAR = {
    f"contract/{name}": f'permit(principal, action == Action::"contract/{name}", resource) when {{ {condition} }};'
    for name, (_, condition) in POLICIES.items()
}


def context(**changes: Any) -> dict[str, Any]:
    """A policy input as the lifecycle builds it; ``changes`` replace the flat members and their nested twins."""
    flat: dict[str, Any] = {
        "user": "alice",
        "agent": None,
        "task": "t-1",
        "trust_score": 80,
        "taints": [],
        "is_root": True,
        "source_type": "internal",
    }
    flat.update({key: value for key, value in changes.items() if key in flat})
    workload = "spiffe://kest.internal/local-workload"
    return {
        "subject": {
            "workload": workload,
            **{key: flat[key] for key in ("user", "agent", "task", "trust_score", "taints")},
        },
        "object": {"id": "doc-1", "attributes": changes.get("attributes", {})},
        "environment": {
            "is_root": flat["is_root"],
            "source_type": flat["source_type"],
            "parent_hash": "0",
            "policy_names": ["contract/always"],
            "policy_tier": "function",
            "active_deviations": [],
        },
        "identity": workload,
        "principal": workload,
        **flat,
        "args": changes.get("args", {}),
    }


def _rego(backend: str) -> Callable[[], PolicyEngine]:
    return lambda: RegoLocalEngine(REGO, backend=backend)


FACTORIES: dict[str, tuple[str, Callable[[], PolicyEngine]]] = {
    "rego-regorus": ("lakera_regorus", _rego("regorus")),
    "rego-regopy": ("regopy", _rego("regopy")),
    "cedar-named": ("cedarpy", lambda: CedarLocalEngine(CEDAR)),
    "avp": ("boto3", lambda: AVPPolicyEngine("ps-1", client=verified_permissions.client("\n".join(CEDAR.values())))),
    "gate": ("kest", gate),
    "own": ("abc", OwnEngine),
    "own-inline": ("abc", OwnInlineEngine),
    "cedar-one-set": ("cedarpy", lambda: CedarLocalEngine(list(CEDAR.values()))),
}
INSTALLED = {name for name, (module, _) in FACTORIES.items() if importlib.util.find_spec(module) is not None}
