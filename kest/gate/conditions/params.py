"""With which parameters: bounds of numbers, lists of values, patterns of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kest.gate.conditions.model import Kind, Node
from kest.gate.conditions.values import PATTERN_MODES, items, number, parse_pattern, table, text, values
from kest.gate.words import plain_number, shown

if TYPE_CHECKING:
    from kest._kestcore import ActionContext


def _bound(which: str) -> Callable[[object, str], dict[str, Any]]:
    def parse(value: object, path: str) -> dict[str, Any]:
        given = table(value, path, ("field", which))
        return {"field": text(given["field"], f"{path}.field"), which: number(given[which], f"{path}.{which}")}

    return parse


def _param_in(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("field", "values"))
    listed = items(given["values"], f"{path}.values")
    return {"field": text(given["field"], f"{path}.field"), **values(listed, f"{path}.values")}


def _param_equals(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("field", "value"))
    return {"field": text(given["field"], f"{path}.field"), **values([given["value"]], f"{path}.value")}


def _param_matches(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("field", "pattern"))
    pattern = parse_pattern(given["pattern"], f"{path}.pattern")
    return {"field": text(given["field"], f"{path}.field"), "pattern": pattern}


def _listed(given: Mapping[str, Any]) -> Node:
    bools = sum(2 if value else 1 for value in given["bools"])
    return Node(mode=bools, field=given["field"], texts=given["texts"], numbers=given["numbers"])


def _pattern(given: Mapping[str, Any]) -> Node:
    pattern = given["pattern"]
    return Node(mode=PATTERN_MODES.index(pattern.mode), text=pattern.text, field=given["field"])


def _param(context: ActionContext, field: str) -> str:
    params = context.params
    if field not in params:
        return f"there is no parameter {shown(field)}"
    value: Any = params[field]
    if value is None:
        return f"{shown(field)} is no value that conditions accept"
    if isinstance(value, str):
        return f"{shown(field)} is {shown(value)}"
    if isinstance(value, tuple):
        return f"{shown(field)} is a list of {len(value)}"
    return f"{shown(field)} is {value!r:.60}"


def _allowed(given: Any) -> str:
    names = [shown(text) for text in given["texts"]]
    names += [plain_number(number) for number in given["numbers"]]
    names += [str(value).lower() for value in given["bools"]]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _why_listed(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"{_param(context, given['field'])}; allowed: {_allowed(given)}"


def _why_matches(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"{_param(context, given['field'])}; asked for is {shown(given['pattern'].source)}"


CONDITIONS = {
    "param_max": Kind(
        "param_max",
        _bound("max"),
        lambda given: Node(field=given["field"], number=given["max"]),
        lambda given, context, wall_ns: f"{_param(context, given['field'])}; at most {plain_number(given['max'])}",
    ),
    "param_min": Kind(
        "param_min",
        _bound("min"),
        lambda given: Node(field=given["field"], number=given["min"]),
        lambda given, context, wall_ns: f"{_param(context, given['field'])}; at least {plain_number(given['min'])}",
    ),
    "param_in": Kind("param_in", _param_in, _listed, _why_listed),
    "param_equals": Kind("param_in", _param_equals, _listed, _why_listed),
    "param_matches": Kind("param_matches", _param_matches, _pattern, _why_matches),
}
