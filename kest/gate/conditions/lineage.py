"""What came before: trust and taints of the lineage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kest.gate.conditions.model import Kind, Node
from kest.gate.conditions.values import integer, text
from kest.gate.words import shown

if TYPE_CHECKING:
    from kest._kestcore import ActionContext


def _taint(value: object, path: str) -> dict[str, Any]:
    return {"text": text(value, path)}


def _taint_node(given: Mapping[str, Any]) -> Node:
    return Node(text=given["text"])


def _why_trust(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"trust is {'not known' if context.trust is None else context.trust}; at least {given['trust']}"


def _why_taint(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    taints = context.taints
    known = "taints are not known" if taints is None else f"taints: {', '.join(map(shown, taints[:10])) or 'none'}"
    return f"{known}; asked about {shown(given['text'])}"


CONDITIONS = {
    "trust_min": Kind(
        "trust_min",
        lambda value, path: {"trust": integer(value, path, 0, 100)},
        lambda given: Node(integer=given["trust"]),
        _why_trust,
    ),
    "taint_present": Kind("taint_present", _taint, _taint_node, _why_taint),
    "taint_absent": Kind("taint_absent", _taint, _taint_node, _why_taint),
}
