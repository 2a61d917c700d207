"""Hypothesis strategies for JSON: values with and without a canonical form, texts that are nearly JSON, base64url."""

from __future__ import annotations

import enum
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from reference import b64, canonical

# KEST_DIFFERENTIAL_EXAMPLES: how many examples each test tries (default 200).
SETTINGS = settings(
    max_examples=int(os.environ.get("KEST_DIFFERENTIAL_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)

MAX_INT = canonical.MAX_INT

NASTY_TEXTS = [
    *("", " ", '"', "\\", "/", "\x00", "\x1f", "\x7f", "\x80", "\u2028\u2029", "\ufeff", "\ufffe\uffff", "\r\n\t\b\f"),
    *(
        "\ue000",
        "\uffff",
        "\U00010000",
        "\U0010ffff",
        "é",
        "e\u0301",
        "\ud7ff",
        "😀" * 9,
        "a" * 300,
        "__proto__",
        "</script>",
    ),
]
NASTY_INTS = [0, 1, -1, 9, 10, 99, 100, 101, 2**31, -(2**31), 2**32, 2**52, MAX_INT, -MAX_INT, MAX_INT - 1]
NASTY_FLOATS = [
    *(
        0.0,
        -0.0,
        1.0,
        0.1,
        0.3,
        1e-6,
        1e-7,
        9.999999e-7,
        1e20,
        1e21,
        1.5e21,
        999999999999999900000.0,
        1e22,
        1e23,
        5e-324,
    ),
    *(
        2.2250738585072014e-308,
        1.7976931348623157e308,
        4.35,
        2.0**53,
        2.0**53 + 2,
        2.0**63,
        2.0**64,
        9007199254740993.0,
    ),
    *(123456789012345680000.0, 333333333.33333329, 1.0000000000000002, 4.9406564584124654e-322, 1e-5, 12345e-9),
]

texts = st.one_of(st.sampled_from(NASTY_TEXTS), st.text(max_size=20), st.text('ab\\"\n\ue000\U0001f600é', max_size=6))
ints = st.one_of(st.sampled_from(NASTY_INTS), st.integers(-MAX_INT, MAX_INT))
floats = st.one_of(
    st.sampled_from(NASTY_FLOATS),
    st.sampled_from(NASTY_FLOATS).map(lambda value: -value),
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(lambda digits, exponent: float(f"{digits}e{exponent}"), st.integers(1, 10**17), st.integers(-320, 290)),
)
scalars = st.one_of(st.none(), st.booleans(), ints, floats, texts)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=5), st.lists(inner, max_size=3).map(tuple), st.dictionaries(texts, inner, max_size=6)
    )


json_values = st.recursive(scalars, _containers, max_leaves=25)


class TextSubclass(str):
    pass


class IntSubclass(int):
    pass


class FloatSubclass(float):
    pass


class ListSubclass(list[Any]):
    pass


class TupleSubclass(tuple[Any, ...]):
    pass


class DictSubclass(dict[str, Any]):
    pass


class Member(enum.IntEnum):
    ONE = 1


BAD_SCALARS: list[Any] = [
    *(float("nan"), float("inf"), -float("inf"), MAX_INT + 1, -MAX_INT - 1, 2**63, -(2**63), 2**64, 10**40, 1j),
    *(
        "\ud800",
        "\udfff",
        "a\ud83d",
        "\ude00\ud83d",
        b"",
        b"x",
        bytearray(b"x"),
        object,
        ...,
        {1},
        frozenset(),
        range(3),
    ),
    *(
        TextSubclass("x"),
        IntSubclass(1),
        FloatSubclass(1.0),
        ListSubclass(),
        TupleSubclass(),
        DictSubclass(),
        Member.ONE,
    ),
    *(
        {1: 1},
        {None: 1},
        {True: 1},
        {b"k": 1},
        {"\udc00": 1},
        {TextSubclass("k"): 1},
        {(): 1},
        {1.5: 1},
        {"a": 1, 2: 2},
    ),
]


def nest(value: Any, shape: str) -> Any:
    """``value`` inside as many containers as ``shape`` has letters."""
    for kind in shape:
        value = {"l": [value], "t": (value,), "d": {"k": value}}[kind]
    return value


# Mostly around the depth limit.
deep_values = st.builds(
    nest,
    scalars,
    st.one_of(st.text("ltd", min_size=60, max_size=68), st.sampled_from(["l" * 64, "d" * 64, "t" * 65, "d" * 65])),
)
any_values = st.one_of(
    json_values,
    deep_values,
    st.recursive(st.one_of(scalars, st.sampled_from(BAD_SCALARS)), _containers, max_leaves=10),
)

# --- texts --------------------------------------------------------------------------------------------------------

_TOKENS: list[bytes] = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b'"',
        b"\\",
        b" ",
        b"\t",
        b"\n",
        b"\r",
        b"\x0b",
        b"\x0c",
        b"\xc2\xa0",
        b"\xef\xbb\xbf",
    ),
    *(
        b"null",
        b"true",
        b"false",
        b"nul",
        b"True",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"undefined",
        b"\x00",
        b"//",
        b"/**/",
        b"#",
    ),
    *(
        b"0",
        b"-",
        b"-0",
        b"+1",
        b"1",
        b"01",
        b"1.",
        b".5",
        b"1.0",
        b"1e",
        b"1e5",
        b"1E+05",
        b"1e-400",
        b"1e400",
        b"-0.0",
        b"0x1",
    ),
    *(b"9007199254740991", b"9007199254740992", b"-9007199254740991", b"-9007199254740992", b"18446744073709551616"),
    *(
        b"9007199254740993.0",
        b"1" * 400,
        b"0." + b"3" * 400,
        b"1" * 308 + b"e1",
        b"1" * 310 + b".0",
        b"0e999999999999999999999",
    ),
    *(
        b'""',
        b'"a"',
        b'"\\u0061"',
        b'"\\uD83D\\uDE00"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\uD800\\u0041"',
        b'"\\ud800\\ud800\\udc00"',
    ),
    *(
        b'"\\u12"',
        b'"\\u+123"',
        b'"\\x41"',
        b'"\\/"',
        b'"\\u0000"',
        b'"\x1f"',
        b'"\x7f"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
    ),
    *(
        b'"\xf4\x90\x80\x80"',
        b'"\xe2\x82"',
        b'"\xff"',
        b'"\xf0\x9f\x98\x80"',
        b"'a'",
        b'"a":1',
        b'"a":1,"\\u0061":2',
        b"\xff",
        b"\xe2\x80\xa8",
    ),
]


def spellings(value: Any) -> list[bytes]:
    """Ways to write one value."""
    return [
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8"),
        b" \n" + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\t\r",
        canonical.canonicalize(value),
    ]


@st.composite
def edited(draw: st.DrawFn, base: st.SearchStrategy[bytes], pieces: list[bytes]) -> bytes:
    """A text with up to three small changes."""
    text = draw(base)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.one_of(st.sampled_from(pieces), st.binary(min_size=1, max_size=2)))
        gone = draw(st.integers(0, 3))
        kind = draw(st.sampled_from(["insert", "replace", "delete", "repeat"]))
        if kind == "repeat":
            text = text[: at + gone] + text[at:]
        else:
            text = text[:at] + (b"" if kind == "delete" else piece) + text[at + (0 if kind == "insert" else gone) :]
    return text


json_texts = json_values.flatmap(lambda value: st.sampled_from(spellings(value)))
deep_texts = st.builds(
    lambda levels, close, inner: b"[" * levels + inner + b"]" * close,
    st.integers(60, 70),
    st.integers(60, 70),
    st.sampled_from([b"", b"1", b"{}", b'"["', b'"\\"["']),
)
keys_twice = st.builds(
    lambda first, second, name, again: (
        b"[" * 2 + b"{" + name + b":" + first + b',"z":{},' + again + b":" + second + b"}]]"
    ),
    st.sampled_from([b"1", b'{"a":2}', b"[]"]),
    st.sampled_from([b"1", b'{"a":2,"b":[]}', b"[]"]),
    *[
        st.sampled_from(
            [b'"a"', b'"\\u0061"', b'"b"', b'""', b'"\\u00e9"', '"é"'.encode(), b'"\\ud83d\\ude00"', '"😀"'.encode()]
        )
    ]
    * 2,
)
any_texts = st.one_of(
    keys_twice,
    json_texts,
    edited(json_texts, _TOKENS),
    st.lists(st.sampled_from(_TOKENS), max_size=8).map(b"".join),
    st.sampled_from(_TOKENS),
    st.sampled_from(_TOKENS).map(lambda token: b"[" + token + b"]"),
    deep_texts,
    st.binary(max_size=12),
)

# --- base64url ----------------------------------------------------------------------------------------------------

b64_texts = st.one_of(
    st.binary(max_size=40).map(b64.encode),
    st.text("AQgwxyz019-_", max_size=12),
    st.text("AQgw-_+/= \n.\x00\x7fé\uff21\U0001f600", max_size=8),
    edited(st.binary(max_size=20).map(b64.encode).map(str.encode), [b"=", b"==", b"\n", b" ", b"+", b"/", b"A"]).map(
        lambda text: text.decode("latin-1")
    ),
)
