"""The conditions of policies: which there are, what each takes, and the checks that a policy has to pass when it is loaded.

A checked condition is a `Condition`: a name, normalised arguments, and for ``any``, ``all`` and ``not`` its parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from kest._kestcore import gate_path
from kest.errors import GatePolicyError
from kest.gate.zones import known_zone

__all__ = ["KINDS", "MAX_NESTING", "Condition", "Pattern", "parse_condition", "parse_conditions", "parse_pattern"]

KINDS = ("user", "agent", "service", "scheduler", "external")
MAX_NESTING = 15
MAX_CONDITIONS = 1_000  # in one list
MAX_VALUES = 10_000
MAX_TEXT = 4_096
MAX_SECONDS = 100 * 366 * 86_400
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

_DURATION = re.compile(r"\s*([0-9]{1,12})([smhd]?)\s*", re.ASCII)
_WINDOW = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})(?:\s+(\S+))?", re.ASCII)
_COUNTRY = re.compile(r"[A-Za-z]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a text is matched: ``exact``, ``prefix`` (text and any ending), ``beyond`` (text and at least one character
    more), ``all``."""

    mode: str
    text: str

    @property
    def source(self) -> str:
        """The pattern as it is written in a policy."""
        return {"exact": self.text, "all": "*"}.get(self.mode, self.text + "*")


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition. ``arguments`` hold durations in seconds, times in seconds of the day, numbers as float."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Condition, ...] = ()

    @property
    def has_limit(self) -> bool:
        """Whether a rate limit is among it."""
        return self.name == "rate_limit" or any(part.has_limit for part in self.parts)


def _fail(message: str, path: str) -> GatePolicyError:
    return GatePolicyError(message, path)


def _kind_of(value: object) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


# --- pieces ---


def text(value: object, path: str, *, empty: bool = False) -> str:
    """A string of bounded length."""
    if not isinstance(value, str):
        raise _fail(f"a string is expected, not {_kind_of(value)}", path)
    if len(value) > MAX_TEXT:
        raise _fail(f"longer than {MAX_TEXT} characters", path)
    if not value and not empty:
        raise _fail("the string is empty", path)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _fail("the string holds a lone surrogate", path) from None
    return str(value)


def items(value: object, path: str, most: int = MAX_VALUES, *, empty: bool = False) -> list[Any]:
    """A list (or tuple, or set) of bounded length."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise _fail(f"a list is expected, not {_kind_of(value)}", path)
    if len(value) > most:
        raise _fail(f"more than {most} items", path)
    if not value and not empty:
        raise _fail("the list is empty", path)
    return list(value)


def table(value: object, path: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """A table with exactly these fields."""
    if not isinstance(value, Mapping):
        raise _fail(f"a table is expected, not {_kind_of(value)}", path)
    known = [*required, *optional]
    for name in value:
        if not isinstance(name, str):
            raise _fail(f"keys are strings, not {_kind_of(name)}", path)
        if name not in known:
            expected = ", ".join(f"`{each}`" for each in known)
            raise _fail(f"unknown field `{name[:100]}`, expected {expected}", path)
    for name in required:
        if name not in value:
            raise _fail(f"missing field `{name}`", path)
    return dict(value)


def number(value: object, path: str) -> float:
    """A finite number that a double holds exactly."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _fail(f"a number is expected, not {_kind_of(value)}", path)
    try:
        result = float(value)
    except OverflowError:
        raise _fail("the number is too large", path) from None
    if not math.isfinite(result):
        raise _fail("NaN and infinities are no numbers to compare with", path)
    if result != value:
        raise _fail(f"no double equals this integer; the nearest is {result:.0f}", path)
    return result + 0.0  # of two zeros the positive one


def integer(value: object, path: str, least: int, most: int) -> int:
    """An int within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _fail(f"an integer is expected, not {_kind_of(value)}", path)
    if not least <= value <= most:
        raise _fail(f"from {least} to {most}", path)
    return value


def boolean(value: object, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _fail(f"true or false is expected, not {_kind_of(value)}", path)
    return value


def duration(value: object, path: str) -> int:
    """Seconds: digits and one of s, m, h, d (seconds without)."""
    found = _DURATION.fullmatch(text(value, path))
    if not found:
        raise _fail(f"{value!r:.60} is no duration: write digits and s, m, h or d, such as 90s, 15m, 24h, 7d", path)
    seconds = int(found[1]) * SECONDS[found[2]]
    if not 0 < seconds <= MAX_SECONDS:
        raise _fail("a duration is longer than 0 seconds and at most 100 years", path)
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
        raise _fail(f"{source!r:.100}: a * stands at the end of a pattern and nowhere else", path)
    if resource:
        _check_normal(body, mode, path)
    return Pattern(mode, body)


def _check_normal(body: str, mode: str, path: str) -> None:
    """Resources are compared in normal form; a pattern in any other would never match."""
    ending = "/" if mode == "prefix" and body.endswith("/") and len(body) > 1 else ""
    normal = gate_path(body.removesuffix("/") if ending else body)
    if normal is None:
        raise _fail(f"{body!r:.100} leads out of its root", path)
    if normal + ending != body:
        raise _fail(f"{body!r:.100} would never match: write it as {normal + ending!r:.100}", path)


def _values(value: list[Any], path: str) -> dict[str, Any]:
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
    return {"texts": _by_bytes(texts), "numbers": tuple(sorted(numbers)), "bools": tuple(sorted(bools))}


def _by_bytes(texts: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(texts, key=str.encode))


# --- conditions ---


def _principal_kind(value: object, path: str) -> dict[str, Any]:
    if value not in KINDS or not isinstance(value, str):
        raise _fail(f"unknown variant `{str(value)[:100]}`, expected one of {', '.join(f'`{k}`' for k in KINDS)}", path)
    return {"kind": KINDS.index(value)}


def _name(value: object, path: str) -> dict[str, Any]:
    return {"text": text(value, path, empty=True)}


def _taint(value: object, path: str) -> dict[str, Any]:
    return {"text": text(value, path)}


def _bound(which: str) -> Callable[[object, str], dict[str, Any]]:
    def parse(value: object, path: str) -> dict[str, Any]:
        given = table(value, path, ("field", which))
        return {"field": text(given["field"], f"{path}.field"), which: number(given[which], f"{path}.{which}")}

    return parse


def _param_in(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("field", "values"))
    listed = items(given["values"], f"{path}.values")
    return {"field": text(given["field"], f"{path}.field"), **_values(listed, f"{path}.values")}


def _param_equals(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("field", "value"))
    return {"field": text(given["field"], f"{path}.field"), **_values([given["value"]], f"{path}.value")}


def _param_matches(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("field", "pattern"))
    pattern = parse_pattern(given["pattern"], f"{path}.pattern")
    return {"field": text(given["field"], f"{path}.field"), "pattern": pattern}


def _rate_limit(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("max", "window"), ("count_refused",))
    return {
        "max": integer(given["max"], f"{path}.max", 0, 2**32 - 1),
        "window": duration(given["window"], f"{path}.window"),
        "count_refused": boolean(given.get("count_refused", False), f"{path}.count_refused"),
    }


def _time_window(value: object, path: str) -> dict[str, Any]:
    found = _WINDOW.fullmatch(text(value, path))
    if not found:
        raise _fail(
            f"{value!r:.60} is no window: write HH:MM-HH:MM, and perhaps a time zone (09:00-17:30 Asia/Tokyo)", path
        )
    hours = (int(found[1]), int(found[3]))
    minutes = (int(found[2]), int(found[4]))
    if max(hours) > 23 or max(minutes) > 59:
        raise _fail(f"{value!r:.60}: times are from 00:00 to 23:59", path)
    start, end = (hour * 3600 + minute * 60 for hour, minute in zip(hours, minutes, strict=True))
    if start == end:
        raise _fail(f"{value!r:.60} is one instant; for the whole day leave the condition out", path)
    zone = found[5] or "UTC"
    if not known_zone(zone):
        raise _fail(
            f"unknown time zone {zone!r:.60}: use an IANA name such as Europe/Berlin, in its exact spelling", path
        )
    return {"start": start, "end": end, "zone": zone}


def _countries(value: object, path: str) -> dict[str, Any]:
    listed = [value] if isinstance(value, str) else items(value, path)
    for index, item in enumerate(listed):
        if not isinstance(item, str) or not _COUNTRY.fullmatch(item):
            raise _fail(f"{item!r:.60} is no country code: two letters (ISO 3166-1 alpha-2)", f"{path}[{index}]")
    return {"texts": _by_bytes({item.upper() for item in listed})}


_CONDITIONS: dict[str, Callable[[object, str], dict[str, Any]]] = {
    "identity_kind": _principal_kind,
    "identity_role": _name,
    "identity_id": _name,
    "action": lambda value, path: {"pattern": parse_pattern(value, path)},
    "resource": lambda value, path: {"pattern": parse_pattern(value, path, resource=True)},
    "param_max": _bound("max"),
    "param_min": _bound("min"),
    "param_in": _param_in,
    "param_equals": _param_equals,
    "param_matches": _param_matches,
    "rate_limit": _rate_limit,
    "session_age_max": lambda value, path: {"seconds": duration(value, path)},
    "time_window": _time_window,
    "trust_min": lambda value, path: {"trust": integer(value, path, 0, 100)},
    "taint_present": _taint,
    "taint_absent": _taint,
    "geo_country": _countries,
}
_GROUPS = ("any", "all", "not")


def parse_conditions(value: object, path: str, depth: int = 0, *, empty: bool = False) -> tuple[Condition, ...]:
    """A list of conditions, those with rate limits last: a limit is consulted only where all else holds."""
    if isinstance(value, (set, frozenset)):
        raise _fail("a list is expected, not a set", path)
    listed = items(value, path, MAX_CONDITIONS, empty=empty)
    parsed = [parse_condition(item, f"{path}[{index}]", depth) for index, item in enumerate(listed)]
    return tuple(sorted(parsed, key=lambda condition: condition.has_limit))


def parse_condition(value: object, path: str, depth: int = 0) -> Condition:
    """One condition: a table with exactly one key. Raises GatePolicyError with the path of what is wrong."""
    if not isinstance(value, Mapping):
        raise _fail(f"a condition is a table with one key, not {_kind_of(value)}", path)
    if len(value) != 1:
        raise _fail(f"a condition has exactly one key, not {len(value)}", path)
    ((name, content),) = value.items()
    inner = f"{path}.{name}"
    if name in _CONDITIONS:
        return Condition(name, _CONDITIONS[name](content, inner))
    if name not in _GROUPS:
        expected = ", ".join(f"`{each}`" for each in (*_CONDITIONS, *_GROUPS))
        raise _fail(f"unknown variant `{str(name)[:100]}`, expected one of {expected}", path)
    if depth >= MAX_NESTING:
        raise _fail(f"conditions are nested more than {MAX_NESTING} deep", path)
    if name == "not":
        return Condition(name, {}, (parse_condition(content, inner, depth + 1),))
    return Condition(name, {}, parse_conditions(content, inner, depth + 1))
