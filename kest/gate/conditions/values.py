"""The values in conditions: each function checks one, and its GatePolicyError has the path of what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from kest._kestcore import gate_path
from kest.errors import GatePolicyError
from kest.gate.conditions.model import Pattern

MAX_VALUES = 10_000
MAX_TEXT = 4_096
MAX_SECONDS = 100 * 366 * 86_400
PATTERN_MODES = ("exact", "prefix", "beyond", "all")  # the order of kest_gate_pattern_mode in csrc/core
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

_DURATION = re.compile(r"\s*([0-9]{1,12})([smhd]?)\s*", re.ASCII)


def fail(message: str, path: str) -> GatePolicyError:
    """What is wrong with the value at a path of the document."""
    return GatePolicyError(message, path)


def kind_of(value: object) -> str:
    """The type of a value, as people who write TOML or JSON call it."""
    names = {dict: "a table", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def text(value: object, path: str, *, empty: bool = False) -> str:
    """A string of bounded length."""
    if not isinstance(value, str):
        raise fail(f"a string is expected, not {kind_of(value)}", path)
    if len(value) > MAX_TEXT:
        raise fail(f"longer than {MAX_TEXT} characters", path)
    if not value and not empty:
        raise fail("the string is empty", path)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise fail("the string holds a lone surrogate", path) from None
    return str(value)


def items(value: object, path: str, most: int = MAX_VALUES, *, empty: bool = False) -> list[Any]:
    """A list (or tuple, or set) of bounded length."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise fail(f"a list is expected, not {kind_of(value)}", path)
    if len(value) > most:
        raise fail(f"more than {most} items", path)
    if not value and not empty:
        raise fail("the list is empty", path)
    return list(value)


def table(value: object, path: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """A table with exactly these fields."""
    if not isinstance(value, Mapping):
        raise fail(f"a table is expected, not {kind_of(value)}", path)
    known = [*required, *optional]
    for name in value:
        if not isinstance(name, str):
            raise fail(f"keys are strings, not {kind_of(name)}", path)
        if name not in known:
            expected = ", ".join(f"`{each}`" for each in known)
            raise fail(f"unknown field `{name[:100]}`, expected {expected}", path)
    for name in required:
        if name not in value:
            raise fail(f"missing field `{name}`", path)
    return dict(value)


def number(value: object, path: str) -> float:
    """A finite number that a double holds exactly."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise fail(f"a number is expected, not {kind_of(value)}", path)
    try:
        result = float(value)
    except OverflowError:
        raise fail("the number is too large", path) from None
    if not math.isfinite(result):
        raise fail("NaN and infinities are no numbers to compare with", path)
    if result != value:
        raise fail(f"no double equals this integer; the nearest is {result:.0f}", path)
    return result + 0.0  # of two zeros the positive one


def integer(value: object, path: str, least: int, most: int) -> int:
    """An int within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise fail(f"an integer is expected, not {kind_of(value)}", path)
    if not least <= value <= most:
        raise fail(f"from {least} to {most}", path)
    return value


def boolean(value: object, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise fail(f"true or false is expected, not {kind_of(value)}", path)
    return value


def duration(value: object, path: str) -> int:
    """Seconds: digits and one of s, m, h, d (seconds without)."""
    found = _DURATION.fullmatch(text(value, path))
    if not found:
        raise fail(f"{value!r:.60} is no duration: write digits and s, m, h or d, such as 90s, 15m, 24h, 7d", path)
    seconds = int(found[1]) * SECONDS[found[2]]
    if not 0 < seconds <= MAX_SECONDS:
        raise fail("a duration is longer than 0 seconds and at most 100 years", path)
    return seconds


def parse_pattern(value: object, path: str, *, resource: bool = False) -> Pattern:
    """An exact text, a text with a ``*`` or ``.*`` at its end, or ``*`` for everything."""
    source = text(value, path, empty=True)
    if source in ("*", ".*"):
        return Pattern("all", "")
    mode, body = "exact", source
    if source.endswith("*"):
        body = source[:-1]
        mode = "beyond" if body.endswith(".") and not resource else "prefix"
    if "*" in body:
        raise fail(f"{source!r:.100}: a * stands at the end of a pattern and nowhere else", path)
    if resource:
        _check_normal(body, mode, path)
    return Pattern(mode, body)


def _check_normal(body: str, mode: str, path: str) -> None:
    """Resources are compared in normal form; a pattern in any other would never match."""
    ending = "/" if mode == "prefix" and body.endswith("/") and len(body) > 1 else ""
    normal = gate_path(body.removesuffix("/") if ending else body)
    if normal is None:
        raise fail(f"{body!r:.100} leads out of its root", path)
    if normal + ending != body:
        raise fail(f"{body!r:.100} would never match: write it as {normal + ending!r:.100}", path)


def values(value: list[Any], path: str) -> dict[str, Any]:
    """Sorted by type, as the core looks them up."""
    texts, numbers, bools = set(), set(), set()
    for index, item in enumerate(value):
        at = f"{path}[{index}]"
        if isinstance(item, bool):
            bools.add(item)
        elif isinstance(item, str):
            texts.add(text(item, at, empty=True))
        else:
            numbers.add(number(item, at))
    return {"texts": by_bytes(texts), "numbers": tuple(sorted(numbers)), "bools": tuple(sorted(bools))}


def by_bytes(texts: Collection[str]) -> tuple[str, ...]:
    """In the order of their UTF-8, as the core looks them up."""
    return tuple(sorted(texts, key=str.encode))
