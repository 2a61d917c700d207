"""Checked policies as the flat arrays that the C core evaluates."""

from __future__ import annotations

from kest._kestcore import GatePolicySet
from kest.gate.conditions import CONDITIONS, Condition, Node
from kest.gate.policies import Policies
from kest.gate.zones import zone_table

__all__ = ["OPS", "compile_policies", "nodes_of"]

# The tests of the core, in the order of kest_gate_op in csrc/core.
OPS = {
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

Flat = tuple[int, int, int, int, str, str, float, int, int, tuple[str, ...], tuple[float, ...]]


class _Zones:
    """Numbers for time zones, in order of their first use."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))


def _node(condition: Condition, size: int, zones: _Zones) -> Flat:
    kind = CONDITIONS.get(condition.name)
    op, node = (OPS[condition.name], Node()) if kind is None else (OPS[kind.op], kind.node(condition.arguments))
    ref = node.ref if node.zone is None else zones.number(node.zone)
    compared = node.text, node.field, node.number, node.integer, node.until, node.texts, node.numbers
    return op, size, node.mode, ref, *compared


def nodes_of(condition: Condition) -> list[Condition]:
    """A condition and its parts in the order of the core's nodes."""
    return [condition, *(node for part in condition.parts for node in nodes_of(part))]


def _flatten(condition: Condition, zones: _Zones) -> list[Flat]:
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
