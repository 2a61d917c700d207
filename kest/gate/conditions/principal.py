"""Who acts: kind, role and id of the principal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kest.gate.conditions.model import Kind, Node
from kest.gate.conditions.values import fail, text
from kest.gate.words import shown

if TYPE_CHECKING:
    from kest._kestcore import ActionContext

PRINCIPALS = ("user", "agent", "service", "scheduler", "external")


def _kind(value: object, path: str) -> dict[str, Any]:
    if value not in PRINCIPALS or not isinstance(value, str):
        raise fail(
            f"unknown variant `{str(value)[:100]}`, expected one of {', '.join(f'`{k}`' for k in PRINCIPALS)}", path
        )
    return {"kind": PRINCIPALS.index(value)}


def _name(value: object, path: str) -> dict[str, Any]:
    return {"text": text(value, path, empty=True)}


def _why_kind(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"the principal is {context.principal_kind}, asked for is {PRINCIPALS[given['kind']]}"


def _why_role(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    roles = ", ".join(shown(role) for role in context.roles[:10]) or "none"
    return f"roles are {roles}; asked for is {shown(given['text'])}"


def _why_id(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"the principal is {shown(context.principal_id)}, asked for is {shown(given['text'])}"


CONDITIONS = {
    "identity_kind": Kind("identity_kind", _kind, lambda given: Node(ref=given["kind"]), _why_kind),
    "identity_role": Kind("identity_role", _name, lambda given: Node(text=given["text"]), _why_role),
    "identity_id": Kind("identity_id", _name, lambda given: Node(text=given["text"]), _why_id),
}
