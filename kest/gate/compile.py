"""Checked policies as the flat arrays that the C core evaluates."""

from __future__ import annotations

from typing import Any

from kest._kestcore import GatePolicySet
from kest.gate.conditions import Condition, Pattern
from kest.gate.policies import Policies
from kest.gate.zones import zone_table

__all__ = ["compile_policies", "nodes_of"]

# The order of kest_gate_op and kest_gate_pattern_mode in csrc/core.
_OPS = {
    name: code
    for code, name in enumerate(
        (
            "all", "any", "not",
            "identity_kind", "identity_role", "identity_id", "action", "resource",
            "param_max", "param_min", "param_in", "param_matches",
            "rate_limit", "session_age_max", "time_window",
            "trust_min", "taint_present", "taint_absent", "geo_country",
        )
    )
}  # fmt: skip
_OPS["param_equals"] = _OPS["param_in"]
PATTERN_MODES = ("exact", "prefix", "beyond", "all")

Node = tuple[int, int, int, int, str, str, float, int, int, tuple[str, ...], tuple[float, ...]]


class _Zones:
    """Numbers for time zones, in order of their first use."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))


def _node(condition: Condition, size: int, zones: _Zones) -> Node:
    given: Any = condition.arguments
    mode = ref = integer = until = 0
    text, number = given.get("text", ""), 0.0
    match condition.name:
        case "identity_kind":
            ref = given["kind"]
        case "action" | "resource" | "param_matches":
            pattern: Pattern = given["pattern"]
            mode, text = PATTERN_MODES.index(pattern.mode), pattern.text
        case "param_max":
            number = given["max"]
        case "param_min":
            number = given["min"]
        case "param_in" | "param_equals":
            mode = sum(2 if value else 1 for value in given["bools"])
        case "rate_limit":
            mode, integer, until = int(given["count_refused"]), given["max"], given["window"] * 1_000_000_000
        case "session_age_max":
            integer = given["seconds"]
        case "time_window":
            ref, integer, until = zones.number(given["zone"]), given["start"], given["end"]
        case "trust_min":
            integer = given["trust"]
    texts, numbers = given.get("texts", ()), given.get("numbers", ())
    return _OPS[condition.name], size, mode, ref, text, given.get("field", ""), number, integer, until, texts, numbers


def nodes_of(condition: Condition) -> list[Condition]:
    """A condition and its parts in the order of the core's nodes."""
    return [condition, *(node for part in condition.parts for node in nodes_of(part))]


def _flatten(condition: Condition, zones: _Zones) -> list[Node]:
    inner = [node for part in condition.parts for node in _flatten(part, zones)]
    return [_node(condition, 1 + len(inner), zones), *inner]


def compile_policies(policies: Policies) -> GatePolicySet:
    """The immutable set that a gate evaluates. Each step that holds the interpreter's lock is short."""
    zones, compiled = _Zones(), GatePolicySet()
    flat = [
        (policy, tuple(node for condition in policy.conditions for node in _flatten(condition, zones)))
        for policy in policies.policies
    ]
    for name in zones.names:
        compiled.add_zone(*zone_table(name))
    for policy, nodes in flat:
        compiled.add(policy.name, policy.permit, nodes)
    return compiled.seal(policies.digest)
