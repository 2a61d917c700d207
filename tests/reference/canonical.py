"""Canonical JSON out (RFC 8785) and strict JSON in (RFC 8259, I-JSON RFC 7493; PRODUCT sections 4 and 6; ATTACKS A3).

Depth counts containers: a scalar is 0 deep, ``[]`` is 1 deep, and 64 containers inside each other (with a scalar in the
innermost) are the most that is accepted, in both directions.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import rfc8785

MAX_DEPTH = 64
MAX_INT = 2**53 - 1


class CanonicalError(ValueError):
    """A value has no canonical form."""


class StrictJSONError(ValueError):
    """Text is not JSON as Kest accepts it."""


def canonicalize(value: object) -> bytes:
    """The RFC 8785 form of a value made of exact None, bool, int, float, str, list, tuple and dict."""
    _check(value, 0)
    return rfc8785.dumps(value)  # type: ignore[arg-type]


def _check(value: object, depth: int) -> None:
    kind = type(value)  # exact: a subclass may print as something other than what it holds
    if value is None or kind is bool:
        return
    if isinstance(value, str) and kind is str:
        _check_text(value)
    elif isinstance(value, int) and kind is int:
        if abs(value) > MAX_INT:
            raise CanonicalError("an integer beyond 2**53 - 1 has no exact double (RFC 8785, 3.2.2.3)")
    elif isinstance(value, float) and kind is float:
        if not math.isfinite(value):
            raise CanonicalError("NaN and infinities have no JSON form")
    elif isinstance(value, (list, tuple)) and kind in (list, tuple):
        _check_depth(depth + 1)
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict) and kind is dict:
        _check_depth(depth + 1)
        for key, item in value.items():
            if type(key) is not str:
                raise CanonicalError("a key that is not a string")
            _check_text(key)
            _check(item, depth + 1)
    else:
        raise CanonicalError(f"{kind.__name__} has no canonical form")


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:  # also where a cycle ends
        raise CanonicalError("nested too deep")


def _check_text(text: str) -> None:
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise CanonicalError("a lone surrogate has no UTF-8 form")


def strict_parse(text: bytes | str) -> Any:
    """The value of a JSON text. A number without fraction and exponent is an int, except ``-0``, which is a float."""
    try:
        chars = text.decode("utf-8") if isinstance(text, bytes) else text
        chars.encode("utf-8")
    except UnicodeError as error:
        raise StrictJSONError("not UTF-8") from error
    _check_nesting(chars)  # first, so that the recursive parser below cannot run out of stack
    try:  # the json module knows only RFC 8259's white space and refuses a byte order mark and trailing data
        value = json.loads(
            chars, parse_int=_integer, parse_float=_double, parse_constant=_constant, object_pairs_hook=_object
        )
        _check(value, 0)  # lone surrogates that were written as escapes
    except StrictJSONError:
        raise
    except ValueError as error:
        raise StrictJSONError(str(error)) from error
    return value


def is_canonical(text: bytes) -> bool:
    """Whether ``text`` is JSON and exactly its own canonical form."""
    try:
        return canonicalize(strict_parse(text)) == text
    except ValueError:
        return False


def _check_nesting(chars: str) -> None:
    depth, in_string, escaped = 0, False, False
    for c in chars:
        if in_string:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                in_string = False
        elif c == '"':
            in_string = True
        elif c in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise StrictJSONError("nested too deep")
        elif c in "]}":
            depth -= 1


def _integer(token: str) -> int | float:
    if token == "-0":
        return -0.0
    if len(token) > 17 or abs(int(token)) > MAX_INT:
        raise StrictJSONError("an integer outside +-(2**53 - 1)")
    return int(token)


def _double(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise StrictJSONError("a number too large for a double")
    return value


def _constant(token: str) -> NoReturn:
    raise StrictJSONError(f"{token} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJSONError("a duplicate key")
    return members
