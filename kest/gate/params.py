"""Values from outside as parameters that a gate can compare.

What it cannot compare is None: there, and of no use to any condition, so that permits fail and refusals fire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["gate_params", "gate_value"]

MAX_PARAMS = 256
MAX_ITEMS = 1_024
MAX_CHARACTERS = 32_768  # of all names and texts together


def gate_value(value: object) -> Any:
    """A number, text, bool, or list of these, as it is; None for NaN and everything else."""
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value else None
    if isinstance(value, str):
        return value if value.isascii() or _well_formed(value) else None
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_item(one) for one in value] if len(value) <= MAX_ITEMS else None
    return _number(value)


def _item(value: object) -> Any:
    return None if isinstance(value, (list, tuple, set, frozenset)) else gate_value(value)


def _number(value: Any) -> float | int | None:
    """Numbers of other libraries (Decimal, NumPy): whoever raises on conversion is none."""
    try:
        if hasattr(value, "__index__"):
            return int(value.__index__())
        number = float(value) if hasattr(value, "__float__") else None
    except Exception:
        return None
    return number if number == number else None


def _well_formed(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def gate_params(values: Mapping[str, Any]) -> dict[str, Any]:
    """Named values as parameters. Texts beyond what a context holds are None; of more than 256 values there are none.

    So a large document can be an argument of a guarded action, as long as no policy asks about it.
    """
    if len(values) > MAX_PARAMS:
        return {}
    room = MAX_CHARACTERS - sum(map(len, values))
    if room < 0:
        return {}
    params: dict[str, Any] = {}
    for name, value in values.items():
        if not (name.isascii() or _well_formed(name)):
            return {}
        taken = gate_value(value)
        if isinstance(taken, (str, list)):
            needed = _characters(taken)
            taken, room = (taken, room - needed) if needed <= room else (None, room)
        params[name] = taken
    return params


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(_characters(item) for item in value) if isinstance(value, list) else 0
