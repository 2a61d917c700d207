"""Invariants: bounds that hold whatever policy says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kest.errors import GateInputError, GatePolicyError
from kest.gate.conditions import Pattern, parse_pattern, text
from kest.gate.words import plain_number

__all__ = ["Invariant", "parse_invariants"]

_ALL = Pattern("all", "")


@dataclass(frozen=True, slots=True)
class Invariant:
    """A numeric parameter lies within bounds, for all actions that match; missing or not a finite number violates it."""

    name: str
    field: str
    maximum: float | None = None
    minimum: float | None = None
    action: Pattern = _ALL

    @property
    def rule(self) -> str:
        """What it demands, for messages."""
        bounds = []
        if self.maximum is not None:
            bounds.append(f"at most {plain_number(self.maximum)}")
        if self.minimum is not None:
            bounds.append(f"at least {plain_number(self.minimum)}")
        return " and ".join(bounds)


def _bound(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{where} is a number, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise GateInputError(f"{where} is not a finite number")
    return number


def _one(item: object, where: str) -> Invariant:
    if isinstance(item, Invariant):
        return item
    if isinstance(item, Mapping):
        unknown = sorted(str(key) for key in item if key not in ("name", "field", "max", "min", "action"))
        if unknown:
            raise GateInputError(f"{where}: unknown field {unknown[0]!r:.100}; known are name, field, max, min, action")
        given: Mapping[Any, Any] = item
        name, field, most, least = (given.get(key) for key in ("name", "field", "max", "min"))
        action = parse_pattern(given.get("action", "*"), f"{where}.action")
    elif isinstance(item, (tuple, list)):
        if len(item) != 3:
            raise GateInputError(f"{where} has three items, (name, field, max), not {len(item)}")
        (name, field, most), least, action = item, None, _ALL
    else:
        raise TypeError(f"{where} is a tuple (name, field, max) or a mapping, not {type(item).__name__}")
    for value, what in ((name, "name"), (field, "field")):
        if not isinstance(value, str):
            raise TypeError(f"{where}: {what} is a str, not {type(value).__name__}")
    maximum, minimum = _bound(most, f"{where}: max"), _bound(least, f"{where}: min")
    if maximum is None and minimum is None:
        raise GateInputError(f"{where} has neither max nor min")
    return Invariant(text(name, f"{where}: name"), text(field, f"{where}: field"), maximum, minimum, action)


def parse_invariants(given: Iterable[object] | None) -> tuple[Invariant, ...]:
    """From (name, field, max) or mappings with name, field, max, min, action (a pattern: for which actions it holds)."""
    try:
        return tuple(_one(item, f"invariants[{index}]") for index, item in enumerate(given or ()))
    except GatePolicyError as error:
        raise GateInputError(str(error)) from None
