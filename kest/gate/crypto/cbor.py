"""Deterministic CBOR (RFC 8949, section 4.2.1), as much of it as Kest's formats use, and nothing else.

Integers of 64 bits, byte and text strings, arrays, maps with int or str keys, false, true and null. A reader accepts exactly
what the writer would have written: shortest lengths, keys in bytewise order, nothing twice, nothing behind the end.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MAX_DEPTH", "CBORError", "byte_string", "decode", "encode", "head"]

MAX_DEPTH = 8

_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_LEAST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}
_SIMPLE = {0xF4: False, 0xF5: True, 0xF6: None}


class CBORError(ValueError):
    """Not deterministic CBOR of the kind that Kest writes. Callers turn it into an error of their own."""


def head(major: int, number: int) -> bytes:
    """The initial bytes of a data item: major type (already shifted) and argument in its shortest form."""
    if number < 24:
        return bytes((major | number,))
    if number < 1 << 8:
        return bytes((major | 24, number))
    if number < 1 << 16:
        return bytes((major | 25,)) + number.to_bytes(2, "big")
    if number < 1 << 32:
        return bytes((major | 26,)) + number.to_bytes(4, "big")
    if number < 1 << 64:
        return bytes((major | 27,)) + number.to_bytes(8, "big")
    raise CBORError("an integer is beyond 64 bits")


def encode(value: object) -> bytes:
    """The one encoding of a value.

    Raises:
        CBORError: the value is of a type that these formats do not have.
    """
    kind = type(value)
    if isinstance(value, bytes) and kind is bytes:
        return head(0x40, len(value)) + value
    if isinstance(value, str) and kind is str:
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise CBORError("text holds a lone surrogate") from None
        return head(0x60, len(text)) + text
    if isinstance(value, int) and kind is int:
        return head(0x00, value) if value >= 0 else head(0x20, -1 - value)
    if isinstance(value, (list, tuple)):
        return head(0x80, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        if any(type(key) is not str and type(key) is not int for key in value):
            raise CBORError("keys are int or str")
        members = sorted((encode(key), encode(item)) for key, item in value.items())
        return head(0xA0, len(members)) + b"".join(key + item for key, item in members)
    if value is None:
        return b"\xf6"
    if kind is bool:
        return b"\xf5" if value else b"\xf4"
    raise CBORError(f"{kind.__name__} has no form here")


def decode(data: bytes) -> Any:
    """The value of exactly one encoded item.

    Raises:
        CBORError: anything but what `encode` writes.
    """
    value, end = _item(data, 0, MAX_DEPTH)
    if end != len(data):
        raise CBORError("data after the end")
    return value


def _argument(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument and the position after them."""
    if at >= len(data):
        raise CBORError("cut short")
    first = data[at]
    info = first & 0x1F
    if info < 24:
        return first & 0xE0, info, at + 1
    size = _SIZES.get(info)
    if size is None:
        raise CBORError("an indefinite or reserved length")
    end = at + 1 + size
    if end > len(data):
        raise CBORError("cut short")
    number = int.from_bytes(data[at + 1 : end], "big")
    if number < _LEAST[info]:
        raise CBORError("a number that is not in its shortest form")
    return first & 0xE0, number, end


def byte_string(data: bytes, at: int) -> tuple[bytes, int]:
    """The byte string at a position, and the position after it.

    Raises:
        CBORError: there is none.
    """
    major, number, start = _argument(data, at)
    if major != 0x40 or start + number > len(data):
        raise CBORError("no byte string, or one that is cut short")
    return data[start : start + number], start + number


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    major, number, start = _argument(data, at)
    if major == 0x40 or major == 0x60:
        end = start + number
        if end > len(data):
            raise CBORError("cut short")
        chunk = data[start:end]
        if major == 0x40:
            return chunk, end
        try:
            return chunk.decode(), end
        except UnicodeDecodeError:
            raise CBORError("text that is not UTF-8") from None
    if major == 0x00:
        return number, start
    if major == 0x20:
        return -1 - number, start
    if major == 0xE0:
        if start != at + 1 or data[at] not in _SIMPLE:
            raise CBORError("a simple value or float that is not used here")
        return _SIMPLE[data[at]], start
    if major == 0xC0:
        raise CBORError("a tag that is not used here")
    if depth == 0:
        raise CBORError("nested too deeply")
    if number > len(data):
        raise CBORError("cut short")
    if major == 0x80:
        items = []
        for _ in range(number):
            item, start = _item(data, start, depth - 1)
            items.append(item)
        return items, start
    return _map(data, start, number, depth - 1)


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[int | str, Any], int]:
    members: dict[int | str, Any] = {}
    before = b""
    for _ in range(count):
        start = at
        key, at = _item(data, at, 0)
        if type(key) is not int and type(key) is not str:
            raise CBORError("a key that is neither int nor text")
        if data[start:at] <= before:
            raise CBORError("keys out of order, or twice")
        before = data[start:at]
        members[key], at = _item(data, at, depth)
    return members, at
