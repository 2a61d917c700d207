"""Turning arguments and results into canonical JSON, so that they can be hashed (PRODUCT.md, section 6).

The walker in the C core handles what JSON has: None, bool, str, int within 2^53, finite float, list, tuple and dict
with str keys. For every other value it calls `encode`, which answers with JSON-able stand-ins that carry a tag,
``{"$kest": <tag>, …}``. Three rules hold throughout:

* Values that a function could tell apart should differ; the same value gives the same text in every process. So nothing
  depends on repr, id, hash order, locale or the decimal context.
* Hashing runs no code of the value's own: no properties, no ``__iter__``, ``__str__`` or ``__getattr__`` of subclasses.
  The exceptions are ``__kest_hash__`` and what a time zone answers for an aware time.
* What cannot be represented is *opaque*: its type is recorded, its content is not guessed.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import fractions
import logging
import math
import os
import pathlib
import sys
import uuid
import weakref
from collections.abc import Callable
from typing import Any, Final

from kest import _kestcore
from kest.core.hashing_arrays import OPAQUE, encode_array
from kest.errors import CanonicalizationError

__all__ = ["TAG", "encode", "hash_arguments", "hash_value", "opaque", "type_name"]

_log = logging.getLogger("kest.hashing")

#: The key that marks a stand-in. A dict of the user's that has this key is itself encoded under a tag.
TAG: Final = "$kest"
_MAX_SAFE_INT = 2**53 - 1
_MAX_DEPTH = 64  # as in the C core
# An int beyond this many bits is hashed: decimal text takes quadratic time, and Python limits it (4,300 digits, which
# can be lowered to 640).
_MAX_DECIMAL_BITS = 2048

Encoded = tuple[object, bool]

# Read past metaclasses and descriptors that a class may define.
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_dict_of: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_module_of: Callable[[type], Any] = type.__dict__["__module__"].__get__
_qualname_of: Callable[[type], str] = type.__dict__["__qualname__"].__get__


def hash_arguments(arguments: dict[str, object]) -> tuple[str, tuple[str, ...]]:
    """SHA-256 (lower-case hex) of bound arguments, and the names of those that are opaque in part or whole."""
    return _kestcore.hash_arguments(arguments, encode)


def hash_value(value: object) -> tuple[str, bool]:
    """SHA-256 (lower-case hex) of one value, and whether any part of it is opaque."""
    return _kestcore.hash_value(value, encode)


def encode(value: object) -> Encoded:
    """A stand-in for a value that JSON does not have.

    Returns:
        ``(replacement, is_opaque)``. The replacement is a plain str, int, float, list or dict. If it is a dict, it is
        written as it is, tag included; the values within it are walked like any others and may need encoding in turn.
    """
    try:
        return _encode(value)
    except MemoryError:
        raise
    except Exception as error:
        # The value's own fault (or a library's); its text may be confidential, so only types are logged.
        _log.debug("a value of type %s could not be encoded: %s", type_name(type(value)), type(error).__name__)
        return opaque(value)


def opaque(value: object) -> Encoded:
    """The stand-in for a value that cannot be represented."""
    return {TAG: "opaque", "type": type_name(type(value))}, True


def type_name(cls: type) -> str:
    """Module and qualified name of a class, as its definition says."""
    module = _module_of(cls)
    return f"{module if isinstance(module, str) else '?'}.{_qualname_of(cls)}"


def _encode(value: object) -> Encoded:
    cls = type(value)
    encoder = _EXACT.get(cls) or _records.get(cls)
    if encoder is not None:
        return encoder(value)
    mro = _mro(cls)
    custom = _find(mro, "__kest_hash__")
    if custom is not None:
        return _encode_custom(value, custom)
    found = encode_array(value, mro)
    if found is not None:
        return opaque(value) if found is OPAQUE else found
    for base in mro[1:-1]:
        encoder = _BY_BASE.get(base)
        if encoder is not None:
            return encoder(value)
    if _find(mro, "__dataclass_fields__") is not None:
        _records[cls] = _encode_dataclass
        return _encode_dataclass(value)
    if _is_pydantic(mro):
        _records[cls] = _encode_pydantic
        return _encode_pydantic(value)
    encoder = next((_EXACT[base] for base in mro[1:] if base in _EXACT), None)
    return encoder(value) if encoder is not None else opaque(value)


# Classes that came this far are records; to find that out again for each of a thousand rows takes most of the time. The C
# core remembers them too (`know_record`), and asks only for those that it has forgotten or that have more than their fields.
_records: weakref.WeakKeyDictionary[type, Callable[[Any], Encoded]] = weakref.WeakKeyDictionary()


def _find(mro: tuple[type, ...], name: str) -> Any:
    for cls in mro:
        found = _dict_of(cls).get(name)
        if found is not None:
            return found
    return None


# -- what the value says of itself, and records -----------------------------------------------------------------------


def _encode_custom(value: object, method: Any) -> Encoded:
    bound = method.__get__(value, type(value)) if hasattr(type(method), "__get__") else method
    result = bound()
    if type(result) not in (str, bytes, int):
        if isinstance(result, collections.abc.Coroutine):
            result.close()
        return opaque(value)
    return {TAG: "custom", "type": type_name(type(value)), "value": result}, False


def _encode_dataclass(value: Any) -> Encoded:
    cls = type(value)
    names = tuple(field.name for field in dataclasses.fields(cls))
    fields = {name: object.__getattribute__(value, name) for name in names}
    name = type_name(cls)
    _kestcore.know_record(cls, False, name, names)
    return {TAG: "dataclass", "type": name, "fields": fields}, False


def _is_pydantic(mro: tuple[type, ...]) -> bool:
    # Not imported: a model can only exist once pydantic is.
    return getattr(sys.modules.get("pydantic.main"), "BaseModel", None) in mro


def _encode_pydantic(value: object) -> Encoded:
    # __dict__ holds cached properties too, so the model's own list of fields decides.
    cls = type(value)
    mro = _mro(cls)
    known = _find(mro, "__pydantic_fields__") or _find(mro, "model_fields")
    if not isinstance(known, dict):
        return opaque(value)
    state = object.__getattribute__(value, "__dict__")
    whole = state.keys() == known.keys()
    fields = dict(state) if whole else {name: state[name] for name in known if name in state}
    extra = object.__getattribute__(value, "__pydantic_extra__")
    if extra:
        fields.update(extra)
    name = type_name(cls)
    if whole and not extra:
        _kestcore.know_record(cls, True, name, tuple(known))
    return {TAG: "pydantic", "type": name, "fields": fields}, False


# -- numbers ----------------------------------------------------------------------------------------------------------


def _encode_int(value: Any) -> Encoded:
    number = int.__int__(value)
    if -_MAX_SAFE_INT <= number <= _MAX_SAFE_INT:
        return number, False
    bits = number.bit_length()
    if bits <= _MAX_DECIMAL_BITS:
        return {TAG: "int", "value": str(number)}, False
    magnitude = abs(number).to_bytes((bits + 7) // 8, "big")
    return {TAG: "int", "bits": bits, "negative": number < 0, "sha256": _kestcore.sha256(magnitude).hex()}, False


def _encode_float(value: Any) -> Encoded:
    number = float.__float__(value)
    return (number, False) if math.isfinite(number) else opaque(value)


def _encode_complex(value: Any) -> Encoded:
    real, imag = complex.real.__get__(value), complex.imag.__get__(value)
    if not (math.isfinite(real) and math.isfinite(imag)):
        return opaque(value)
    return {TAG: "complex", "real": real, "imag": imag}, False


def _encode_decimal(value: Any) -> Encoded:
    # Not str(): that depends on the context (capitals). 1.0 and 1.00 stay apart, as a function can tell them apart.
    sign, digits, exponent = decimal.Decimal.as_tuple(value)
    if not isinstance(exponent, int):
        return opaque(value)  # NaN or infinity
    return {TAG: "decimal", "value": f"{'-' if sign else ''}{''.join(map(str, digits))}E{exponent}"}, False


def _encode_fraction(value: Any) -> Encoded:
    numerator, denominator = (slot.fget(value) for slot in _FRACTION_PARTS)
    return {TAG: "fraction", "numerator": numerator, "denominator": denominator}, False


# -- bytes and text ---------------------------------------------------------------------------------------------------


def _encode_bytes(value: Any) -> Encoded:
    if type(value) not in (bytes, bytearray):
        base = bytes if bytes in _mro(type(value)) else bytearray
        value = base.__getitem__(value, slice(None))
    return {TAG: "bytes", "len": len(value), "sha256": _kestcore.sha256(value).hex()}, False


def _encode_memoryview(value: Any) -> Encoded:
    # Only elements without padding or pointers; "O" would hash addresses.
    if value.format.lstrip("@=<>!") not in tuple("cbB?hHiIlLqQnNefd"):
        return opaque(value)
    whole = value if value.c_contiguous else value.tobytes()
    out: dict[str, object] = {TAG: "bytes", "len": value.nbytes, "sha256": _kestcore.sha256(whole).hex()}
    if value.format not in ("B", "b", "c") or value.ndim != 1:
        out.update(format=value.format, shape=list(value.shape))
    return out, False


def _encode_str(value: Any) -> Encoded:
    return str.__str__(value), False


def _encode_path(value: Any) -> Encoded:
    windows = pathlib.PureWindowsPath in _mro(type(value))
    text = pathlib.PurePath.__str__(value)
    name: object = text
    try:
        text.encode()
    except UnicodeEncodeError:
        name = os.fsencode(text)  # a file name that is not text
    return {TAG: "path", "flavour": "windows" if windows else "posix", "value": name}, False


# -- time -------------------------------------------------------------------------------------------------------------


def _encode_datetime(value: Any) -> Encoded:
    if not _known_zone(datetime.datetime.tzinfo.__get__(value)):
        return opaque(value)
    # The base class's isoformat looks at the value's own fields; reading it back gives a plain datetime.
    plain = datetime.datetime.fromisoformat(datetime.datetime.isoformat(value))
    if plain.tzinfo is None:
        out: dict[str, object] = {TAG: "datetime", "naive": plain.isoformat(timespec="microseconds")}
        if datetime.datetime.fold.__get__(value):
            out["fold"] = 1
        return out, False
    utc = plain.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return {TAG: "datetime", "value": utc.isoformat(timespec="microseconds") + "Z"}, False


def _encode_date(value: Any) -> Encoded:
    return {TAG: "date", "value": datetime.date.isoformat(value)}, False


def _encode_time(value: Any) -> Encoded:
    if not _known_zone(datetime.time.tzinfo.__get__(value)):
        return opaque(value)
    out: dict[str, object] = {TAG: "time", "value": datetime.time.isoformat(value, timespec="microseconds")}
    if datetime.time.fold.__get__(value):
        out["fold"] = 1
    return out, False


def _encode_timedelta(value: Any) -> Encoded:
    cls = datetime.timedelta
    days, seconds, micros = (part.__get__(value) for part in (cls.days, cls.seconds, cls.microseconds))
    return {TAG: "timedelta", "days": days, "seconds": seconds, "microseconds": micros}, False


_ZONE_PACKAGES = frozenset(
    ("arrow", "backports", "datetime", "dateutil", "pendulum", "psycopg2", "pydantic_core", "pytz", "zoneinfo")
)


def _known_zone(zone: object) -> bool:
    """An offset is asked of the zone object, which is code: only of those that come with well-known packages."""
    return zone is None or type_name(type(zone)).partition(".")[0] in _ZONE_PACKAGES


# -- containers -------------------------------------------------------------------------------------------------------


def _encode_list(value: Any) -> Encoded:
    return list(list.__iter__(value)), False


def _encode_tuple(value: Any) -> Encoded:
    items = list(tuple.__iter__(value))
    names = _find(_mro(type(value)), "_fields")
    if type(names) is tuple and len(names) == len(items) and all(type(name) is str for name in names):
        fields = dict(zip(names, items, strict=True))
        return {TAG: "namedtuple", "type": type_name(type(value)), "fields": fields}, False
    return items, False


def _encode_dict(value: Any) -> Encoded:
    plain: dict[Any, Any] = dict(dict.items(value))
    if all(type(key) is str for key in plain) and TAG not in plain:
        return plain, False
    return {TAG: "dict", "items": [[key, plain[key]] for key in _ordered(plain)]}, False


def _encode_set(value: Any) -> Encoded:
    base = set if set in _mro(type(value)) else frozenset
    return {TAG: "set", "items": _ordered(list(base.__iter__(value)))}, False


def _ordered(elements: collections.abc.Iterable[Any]) -> list[Any]:
    """Elements of a set, or keys of a dict, in the order of their canonical encodings."""
    return [element for _, element in sorted(((_text(item, 0), item) for item in elements), key=lambda pair: pair[0])]


def _text(value: object, depth: int) -> bytes:
    return _kestcore.canonicalize([_expand(value, depth)])


def _expand(value: Any, depth: int) -> Any:
    """`value` with everything special replaced, in one pass: what the C walker writes, as a tree."""
    if depth > _MAX_DEPTH:
        raise CanonicalizationError(f"nesting of more than {_MAX_DEPTH} levels")
    cls = type(value)
    if value is None or cls is bool or cls is str:
        return value
    if (cls is int and -_MAX_SAFE_INT <= value <= _MAX_SAFE_INT) or (cls is float and math.isfinite(value)):
        return value
    if cls is list or cls is tuple:
        return [_expand(item, depth + 1) for item in value]
    if cls is frozenset or cls is set:  # once, not once for the order and again for the content
        members = [_expand(item, depth + 2) for item in value]
        return {TAG: "set", "items": sorted(members, key=lambda member: _kestcore.canonicalize([member]))}
    if cls is dict and TAG not in value and all(type(key) is str for key in value):
        return {key: _expand(item, depth + 1) for key, item in value.items()}
    replacement, _ = encode(value)
    if type(replacement) is dict:
        return {key: _expand(item, depth + 1) for key, item in replacement.items()}
    return _expand(replacement, depth) if type(replacement) is list else replacement


def _encode_range(value: Any) -> Encoded:
    return {TAG: "range", "start": value.start, "stop": value.stop, "step": value.step}, False


def _encode_enum(value: Any) -> Encoded:
    state = object.__getattribute__(value, "__dict__")
    out = {TAG: "enum", "type": type_name(type(value)), "value": state["_value_"]}
    if enum.Flag not in _mro(type(value)):  # a combination of flags has a name in some versions of Python only
        out["name"] = state["_name_"]
    return out, False


def _encode_uuid(value: Any) -> Encoded:
    return {TAG: "uuid", "value": str(uuid.UUID(int=uuid.UUID.__dict__["int"].__get__(value)))}, False


_FRACTION_PARTS: Any = (fractions.Fraction.__dict__["numerator"], fractions.Fraction.__dict__["denominator"])

_EXACT: dict[type, Callable[[Any], Encoded]] = {
    int: _encode_int,
    float: _encode_float,
    complex: _encode_complex,
    str: _encode_str,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    memoryview: _encode_memoryview,
    list: _encode_list,
    tuple: _encode_tuple,
    dict: _encode_dict,
    set: _encode_set,
    frozenset: _encode_set,
    range: _encode_range,
    datetime.datetime: _encode_datetime,
    datetime.date: _encode_date,
    datetime.time: _encode_time,
    datetime.timedelta: _encode_timedelta,
    decimal.Decimal: _encode_decimal,
    fractions.Fraction: _encode_fraction,
    uuid.UUID: _encode_uuid,
    pathlib.PosixPath: _encode_path,
    pathlib.WindowsPath: _encode_path,
    pathlib.PurePosixPath: _encode_path,
    pathlib.PureWindowsPath: _encode_path,
}
# Found anywhere among the bases, before fields and base values: an IntEnum is an Enum first.
_BY_BASE: dict[type, Callable[[Any], Encoded]] = {enum.Enum: _encode_enum, pathlib.PurePath: _encode_path}
