"""RFC 8785 writer, strict JSON reader and base64url of the C module against the specification, byte for byte."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import b64, canonical

from .values import (
    BAD_SCALARS,
    NASTY_FLOATS,
    SETTINGS,
    any_texts,
    any_values,
    b64_texts,
    floats,
    ints,
    json_values,
    nest,
)


def same(a: Any, b: Any) -> bool:
    """Equal in value, type, order of keys and sign of zero."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return bool(a == b)


def check_canonicalize(kestcore: ModuleType, errors: ModuleType, value: object) -> None:
    try:
        expected = canonical.canonicalize(value)
    except canonical.CanonicalError:
        with pytest.raises(errors.CanonicalizationError) as caught:
            kestcore.canonicalize(value)
        assert isinstance(caught.value.path, str)
        assert caught.value.path.startswith("$")
    else:
        assert kestcore.canonicalize(value) == expected


def check_parse(kestcore: ModuleType, errors: ModuleType, text: bytes | str) -> None:
    try:
        expected = canonical.strict_parse(text)
    except canonical.StrictJSONError:
        with pytest.raises(errors.JSONSyntaxError) as caught:
            kestcore.parse(text)
        assert isinstance(caught.value.position, int)
        assert 0 <= caught.value.position <= len(text) * (4 if isinstance(text, str) else 1)
    else:
        assert same(kestcore.parse(text), expected)


@settings(SETTINGS)
@given(any_values)
def test_canonicalize(kestcore: ModuleType, errors: ModuleType, value: object) -> None:
    check_canonicalize(kestcore, errors, value)


@settings(SETTINGS, max_examples=SETTINGS.max_examples * 5)
@given(st.lists(st.one_of(floats, ints), min_size=20, max_size=20))
def test_numbers(kestcore: ModuleType, value: list[float]) -> None:
    assert kestcore.canonicalize(value) == canonical.canonicalize(value)


def test_numbers_at_every_power(kestcore: ModuleType) -> None:
    """Doubles on both sides of every power of ten and two, where shortest-digit printers go wrong."""
    for exact in [
        *(float(f"1e{e}") for e in range(-323, 309)),
        *(math.ldexp(1.0, e) for e in range(-1074, 1024)),
        *NASTY_FLOATS,
    ]:
        for value in (math.nextafter(exact, -math.inf), exact, math.nextafter(exact, math.inf)):
            if math.isfinite(value):
                text = canonical.canonicalize(value)
                assert kestcore.canonicalize(value) == text
                assert kestcore.canonicalize(-value) == canonical.canonicalize(-value)
                for token in (repr(value), f"{value:.30e}", f"{value:.17g}"):  # the last may be too large an integer
                    try:
                        expected = canonical.strict_parse(token)
                    except canonical.StrictJSONError:
                        continue
                    assert same(kestcore.parse(token), expected), token


@pytest.mark.parametrize("value", BAD_SCALARS, ids=lambda value: f"{type(value).__name__}-{value!r}"[:30])
@pytest.mark.parametrize("shape", ["", "l", "d", "t", "ldt"])
def test_values_without_a_canonical_form(kestcore: ModuleType, errors: ModuleType, value: object, shape: str) -> None:
    check_canonicalize(kestcore, errors, nest(value, shape))


@pytest.mark.parametrize("levels", [1, 63, 64, 65, 66, 1000, 100_000])
@pytest.mark.parametrize("kind", "ltd")
def test_depth(kestcore: ModuleType, errors: ModuleType, levels: int, kind: str) -> None:
    value = nest(1, kind * min(levels, 1000))  # deeper ones would overflow the specification's own stack
    check_canonicalize(kestcore, errors, value)
    opening, closing = (b'{"k":', b"}") if kind == "d" else (b"[", b"]")
    check_parse(kestcore, errors, opening * levels + b"1" + closing * levels)
    check_parse(kestcore, errors, opening * levels)


def test_cycles(kestcore: ModuleType, errors: ModuleType) -> None:
    items: list[object] = []
    items.append(items)
    members: dict[str, object] = {}
    members["k"] = (members,)
    for value in (items, members):
        check_canonicalize(kestcore, errors, value)


@settings(SETTINGS, max_examples=SETTINGS.max_examples * 5)
@given(any_texts)
def test_parse(kestcore: ModuleType, errors: ModuleType, text: bytes) -> None:
    check_parse(kestcore, errors, text)


@settings(SETTINGS)
@given(st.one_of(any_texts.map(lambda text: text.decode("utf-8", "surrogateescape")), st.text(max_size=8)))
def test_parse_str(kestcore: ModuleType, errors: ModuleType, text: str) -> None:
    check_parse(kestcore, errors, text)


@settings(SETTINGS)
@given(json_values)
def test_round_trip(kestcore: ModuleType, value: object) -> None:
    """Canonical text reads back to itself, unless a float prints as an integer that no int may be."""
    text = kestcore.canonicalize(value)
    try:
        canonical.strict_parse(text)
    except canonical.StrictJSONError:
        return
    assert kestcore.canonicalize(kestcore.parse(text)) == text


@settings(SETTINGS)
@given(st.one_of(st.binary(max_size=100), st.binary(min_size=4000, max_size=4100)))
def test_base64url_encode(kestcore: ModuleType, data: bytes) -> None:
    text = kestcore.b64url_encode(data)
    assert text == b64.encode(data)
    assert kestcore.b64url_decode(text) == kestcore.b64url_decode(text.encode("ascii")) == data


@settings(SETTINGS, max_examples=SETTINGS.max_examples * 5)
@given(b64_texts)
def test_base64url_decode(kestcore: ModuleType, errors: ModuleType, text: str) -> None:
    try:
        expected = b64.decode(text)
    except b64.Base64Error:
        for spelling in (text, text.encode("utf-8")):
            with pytest.raises((errors.KestError, ValueError)):
                kestcore.b64url_decode(spelling)
    else:
        assert kestcore.b64url_decode(text) == kestcore.b64url_decode(text.encode("ascii")) == expected


def test_base64url_of_every_short_text(kestcore: ModuleType, errors: ModuleType) -> None:
    """All pairs of characters, so that every unused bit of a last character is tried."""
    for a in map(chr, range(256)):
        for b in map(chr, range(256)):
            try:
                expected = b64.decode(a + b)
            except b64.Base64Error:
                with pytest.raises((errors.KestError, ValueError)):
                    kestcore.b64url_decode(a + b)
            else:
                assert kestcore.b64url_decode(a + b) == expected
