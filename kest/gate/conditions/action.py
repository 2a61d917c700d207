"""What is done to what: patterns of actions and resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kest._kestcore import gate_path
from kest.gate.conditions.model import Kind, Node
from kest.gate.conditions.values import PATTERN_MODES, parse_pattern
from kest.gate.words import shown

if TYPE_CHECKING:
    from kest._kestcore import ActionContext


def _node(given: Mapping[str, Any]) -> Node:
    return Node(mode=PATTERN_MODES.index(given["pattern"].mode), text=given["pattern"].text)


def _why_action(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"the action is {shown(context.action_name)}, asked for is {shown(given['pattern'].source)}"


def _why_resource(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"{_resource(context)}, asked for is {shown(given['pattern'].source)}"


def _resource(context: ActionContext) -> str:
    if context.resource is None:
        return "there is no resource"
    normal = gate_path(context.resource)
    return "the resource leads out of its root" if normal is None else f"the resource is {shown(normal)}"


CONDITIONS = {
    "action": Kind("action", lambda value, path: {"pattern": parse_pattern(value, path)}, _node, _why_action),
    "resource": Kind(
        "resource", lambda value, path: {"pattern": parse_pattern(value, path, resource=True)}, _node, _why_resource
    ),
}
