"""NumPy, pandas and Arrow values by their content, for input hashes.

None of the three is imported here: a value of theirs can only exist once they are. Only their own classes are
recognised; a subclass may mean something else by the same data (a unit, a mask), so it is opaque unless it has
``__kest_hash__``. Bytes that are not content never reach a hash: pointers, padding, values behind nulls, offsets.
"""

from __future__ import annotations

import sys
from typing import Any

from kest import _kestcore

__all__ = ["encode_array"]

_TAG = "$kest"
#: Stands for "one of theirs, but not representable"; the caller names the type.
OPAQUE: tuple[object, bool] = ({}, True)


def encode_array(value: Any, mro: tuple[type, ...]) -> tuple[object, bool] | None:
    """The stand-in for a value of NumPy, pandas or Arrow, `OPAQUE`, or None if it is none of theirs."""
    for cls in mro:
        package = _package(cls)
        if package == "numpy":
            return _encode_numpy(value, sys.modules["numpy"])
        if package == "pandas":
            from kest.core.hashing_frames import encode_pandas

            return encode_pandas(value, sys.modules["pandas"])
        if package == "pyarrow":
            from kest.core.hashing_frames import encode_arrow

            return encode_arrow(value, sys.modules["pyarrow"])
    return None


def _package(cls: type) -> str:
    module = type.__dict__["__module__"].__get__(cls)
    package = module.partition(".")[0] if isinstance(module, str) else ""
    return package if package in ("numpy", "pandas", "pyarrow") and package in sys.modules else ""


def _encode_numpy(value: Any, np: Any) -> tuple[object, bool]:
    cls = type(value)
    if np.generic in cls.__mro__:
        if _package(cls) != "numpy":
            return OPAQUE
        return encode_ndarray(np.asarray(value), np)
    if cls is np.ma.MaskedArray:
        return _encode_masked(value, np)
    if cls in (np.ndarray, np.memmap, np.matrix, np.recarray):
        return encode_ndarray(np.ndarray.view(value, np.ndarray), np)
    return OPAQUE


def encode_ndarray(array: Any, np: Any) -> tuple[object, bool]:
    """Data type, shape and the SHA-256 of the elements in C order. `array` is exactly an ndarray."""
    dtype, shape = array.dtype, list(array.shape)
    if dtype.names is not None:
        # Field by field: between fields there may be padding with anything in it.
        fields = [[name, array[name]] for name in dtype.names]
        return {_TAG: "numpy.structured", "shape": shape, "fields": fields}, False
    if dtype.kind == "O":
        return {_TAG: "numpy.object", "shape": shape, "items": array.ravel(order="C").tolist()}, False
    if dtype.kind == "T":  # StringDType: the buffer has pointers
        return {_TAG: "numpy.string", "shape": shape, "items": array.ravel(order="C").tolist()}, False
    if dtype.kind not in "biufcmMSUV" or dtype.hasobject:
        return OPAQUE
    data = content_bytes(array, np)
    digest = _kestcore.sha256(data).hex()
    return {_TAG: "numpy", "dtype": dtype.str, "shape": shape, "sha256": digest}, False


def content_bytes(array: Any, np: Any) -> Any:
    """The elements of an array of plain numbers or fixed-length text, in C order, as a one-dimensional uint8 array."""
    if array.size == 0 or array.dtype.itemsize == 0:
        return b""
    flat = np.ascontiguousarray(array).reshape(-1)
    data = flat.view(np.uint8)
    if array.dtype.kind in "fc" and np.finfo(array.dtype).nmant == 63:
        # x87 extended precision: ten bytes of number in twelve or sixteen, the rest is whatever was in memory.
        width = np.dtype(np.longdouble).itemsize
        data = data.copy().reshape(-1, width)
        data[:, 10:] = 0
        data = data.reshape(-1)
    return data


def _encode_masked(value: Any, np: Any) -> tuple[object, bool]:
    if value.dtype.names is not None or value.dtype.hasobject:
        return OPAQUE
    mask = np.ma.getmaskarray(value)
    data = np.array(np.ma.getdata(value, subok=False), copy=True)
    data[mask] = np.zeros((), data.dtype)  # what lies behind the mask is not content
    return {_TAG: "numpy.masked", "data": data, "mask": np.asarray(mask)}, False
