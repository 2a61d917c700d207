"""Conditions as they are written in policies become `Condition`s, or a GatePolicyError that has the path of what is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from kest.gate.conditions import action, circumstances, lineage, params, principal
from kest.gate.conditions.model import Condition, Kind
from kest.gate.conditions.values import fail, items, kind_of

__all__ = ["CONDITIONS", "GROUPS", "MAX_NESTING", "parse_condition", "parse_conditions"]

MAX_NESTING = 15
MAX_CONDITIONS = 1_000  # in one list

CONDITIONS: dict[str, Kind] = {
    **principal.CONDITIONS,
    **action.CONDITIONS,
    **params.CONDITIONS,
    **circumstances.CONDITIONS,
    **lineage.CONDITIONS,
}
GROUPS = ("any", "all", "not")


def parse_conditions(value: object, path: str, depth: int = 0, *, empty: bool = False) -> tuple[Condition, ...]:
    """A list of conditions, those with rate limits last: a limit is consulted only where all else holds."""
    if isinstance(value, (set, frozenset)):
        raise fail("a list is expected, not a set", path)
    listed = items(value, path, MAX_CONDITIONS, empty=empty)
    parsed = [parse_condition(item, f"{path}[{index}]", depth) for index, item in enumerate(listed)]
    return tuple(sorted(parsed, key=lambda condition: condition.has_limit))


def parse_condition(value: object, path: str, depth: int = 0) -> Condition:
    """One condition: a table with exactly one key. Raises GatePolicyError with the path of what is wrong."""
    if not isinstance(value, Mapping):
        raise fail(f"a condition is a table with one key, not {kind_of(value)}", path)
    if len(value) != 1:
        raise fail(f"a condition has exactly one key, not {len(value)}", path)
    ((name, content),) = value.items()
    inner = f"{path}.{name}"
    kind = CONDITIONS.get(name) if isinstance(name, str) else None
    if kind is not None:
        return Condition(name, kind.parse(content, inner))
    if name not in GROUPS:
        expected = ", ".join(f"`{each}`" for each in (*CONDITIONS, *GROUPS))
        raise fail(f"unknown variant `{str(name)[:100]}`, expected one of {expected}", path)
    if depth >= MAX_NESTING:
        raise fail(f"conditions are nested more than {MAX_NESTING} deep", path)
    if name == "not":
        return Condition(name, {}, (parse_condition(content, inner, depth + 1),))
    return Condition(name, {}, parse_conditions(content, inner, depth + 1))
