"""pandas and Arrow values by their logical content, for input hashes. See `hashing_arrays`.

Arrow lets the same values lie in memory in many ways: slices with offsets, chunks, anything at all behind a null. The
forms here are made of the logical content only, so that equal content gives equal hashes.
"""

from __future__ import annotations

import sys
from typing import Any

from kest import _kestcore
from kest.core.hashing_arrays import OPAQUE, content_bytes

__all__ = ["encode_arrow", "encode_pandas"]

_TAG = "$kest"


def _sha256(data: Any) -> str:
    return _kestcore.sha256(data).hex()


class _UnsupportedError(Exception):
    """A type whose content has no form here; the whole value becomes opaque."""


# -- Arrow ------------------------------------------------------------------------------------------------------------


def encode_arrow(value: Any, pa: Any) -> tuple[object, bool]:
    """Arrays, chunked arrays, scalars, record batches and tables."""
    cls = type(value)
    try:
        if cls is pa.Table or cls is pa.RecordBatch:
            columns = [[field.name, _arrow_column(value.column(i), pa)] for i, field in enumerate(value.schema)]
            return {_TAG: "arrow.table", "rows": value.num_rows, "columns": columns}, False
        if pa.Array in cls.__mro__ or cls is pa.ChunkedArray:
            return {_TAG: "arrow", **_arrow_column(value, pa)}, False
        if pa.Scalar in cls.__mro__:
            return {_TAG: "arrow.scalar", **_arrow_column(pa.repeat(value, 1), pa)}, False
    except (_UnsupportedError, pa.ArrowException, NotImplementedError):
        return OPAQUE
    return OPAQUE


def _arrow_column(column: Any, pa: Any) -> dict[str, object]:
    """Type, length, nulls and content of an array or a chunked array."""
    name = str(column.type)
    if isinstance(column, pa.ChunkedArray):
        chunks = [_plain(chunk, pa) for chunk in column.chunks]
        array = pa.concat_arrays(chunks) if chunks else _plain(pa.array([], column.type), pa)
    else:
        array = _plain(column, pa)
    return {"type": name, **_arrow_content(array, pa)}


def _plain(array: Any, pa: Any) -> Any:
    """The same values in one of the few layouts that `_arrow_content` reads."""
    types, kind = pa.types, array.type
    if isinstance(kind, pa.BaseExtensionType):
        if isinstance(kind, (pa.ExtensionType, pa.UnknownExtensionType)):
            raise _UnsupportedError  # defined in Python: only its author knows what its parameters mean
        return _plain(array.storage, pa)
    if types.is_dictionary(kind):
        return _plain(array.dictionary_decode(), pa)
    if types.is_run_end_encoded(kind):
        return _plain(sys.modules["pyarrow"].compute.run_end_decode(array), pa)
    if types.is_string(kind) or types.is_binary(kind) or types.is_string_view(kind) or types.is_binary_view(kind):
        return array.cast(pa.large_binary())  # 64-bit offsets, so that chunks can be joined
    return array


def _arrow_content(array: Any, pa: Any) -> dict[str, object]:
    np = sys.modules["numpy"]
    types, kind = pa.types, array.type
    out: dict[str, object] = {"len": len(array), "nulls": array.null_count}
    if types.is_null(kind):
        return out
    valid = array
    if array.null_count:
        out["validity"] = _sha256(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)))
        valid = array.drop_null()  # nulls have no content; their places are known
    if types.is_boolean(kind):
        out["values"] = _sha256(np.packbits(valid.to_numpy(zero_copy_only=False)))
    elif types.is_large_binary(kind) or types.is_large_string(kind):
        offsets = _fixed(valid.buffers()[1], np, 8, valid.offset, len(valid) + 1).view(np.int64).reshape(-1)
        data = valid.buffers()[2]
        content = b"" if data is None or not len(offsets) else memoryview(data)[offsets[0] : offsets[-1]]
        out["lengths"] = _sha256(np.diff(offsets))
        out["values"] = _sha256(content)
    elif types.is_struct(kind):
        out["fields"] = [
            [kind.field(i).name, _arrow_column(child, pa)] for i, child in enumerate(_struct_children(valid))
        ]
    elif types.is_map(kind):
        out["lengths"] = _sha256(np.diff(_offsets(valid, np)))
        entries = _between(valid, np)
        out["keys"] = _arrow_column(valid.keys.slice(*entries), pa)
        out["items"] = _arrow_column(valid.items.slice(*entries), pa)
    elif types.is_fixed_size_list(kind):
        out["values"] = _arrow_column(valid.flatten(), pa)
    elif _is_list(kind, types):
        out["lengths"] = _sha256(np.asarray(valid.value_lengths().cast(pa.int64())))
        out["values"] = _arrow_column(valid.flatten(), pa)
    elif _is_fixed_width(kind, pa):
        out["values"] = _sha256(_fixed(valid.buffers()[1], np, kind.bit_width // 8, valid.offset, len(valid)))
    else:
        raise _UnsupportedError
    return out


def _fixed(buffer: Any, np: Any, width: int, offset: int, count: int) -> Any:
    """`count` elements of `width` bytes from element `offset` on, as uint8."""
    if buffer is None or not count or not width:
        return np.zeros(0, np.uint8)
    return np.frombuffer(buffer, np.uint8, count * width, offset * width)


def _is_list(kind: Any, types: Any) -> bool:
    checks = ("is_list", "is_large_list", "is_list_view", "is_large_list_view")
    return any(getattr(types, name)(kind) for name in checks if hasattr(types, name))


def _is_fixed_width(kind: Any, pa: Any) -> bool:
    checks = (pa.types.is_primitive, pa.types.is_decimal, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks) or bool(kind == pa.month_day_nano_interval())


def _struct_children(array: Any) -> list[Any]:
    return list(array.flatten())


def _offsets(array: Any, np: Any) -> Any:
    return np.asarray(array.offsets) if len(array) else np.zeros(1, np.int32)


def _between(array: Any, np: Any) -> tuple[int, int]:
    offsets = _offsets(array, np)
    return int(offsets[0]), int(offsets[-1] - offsets[0])


# -- pandas -----------------------------------------------------------------------------------------------------------


def encode_pandas(value: Any, pd: Any) -> tuple[object, bool]:
    """Data frames, series, indexes, their arrays and scalars."""
    cls = type(value)
    try:
        if cls is pd.DataFrame:
            labels = list(value.columns)
            columns = [[label, *_values(value.iloc[:, i].array, pd)] for i, label in enumerate(labels)]
            names = list(value.columns.names)
            return {_TAG: "pandas.DataFrame", "index": value.index, "names": names, "columns": columns}, False
        if cls is pd.Series:
            dtype, values = _values(value.array, pd)
            head = {_TAG: "pandas.Series", "name": value.name, "index": value.index}
            return {**head, "dtype": dtype, "values": values}, False
        if pd.Index in cls.__mro__:
            return _encode_index(value, pd) if _is_own(cls) else OPAQUE
        if pd.api.extensions.ExtensionArray in cls.__mro__:
            dtype, values = _values(value, pd)
            return {_TAG: "pandas.array", "dtype": dtype, "values": values}, False
        return _encode_scalar(value, pd)
    except _UnsupportedError:
        return OPAQUE


def _is_own(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "pandas"


def _encode_index(index: Any, pd: Any) -> tuple[object, bool]:
    if type(index) is pd.RangeIndex:
        head = {_TAG: "pandas.RangeIndex", "name": index.name}
        return {**head, "start": index.start, "stop": index.stop, "step": index.step}, False
    if type(index) is pd.MultiIndex:
        levels = [_values(index.get_level_values(i).array, pd) for i in range(index.nlevels)]
        return {_TAG: "pandas.MultiIndex", "names": list(index.names), "levels": levels}, False
    dtype, values = _values(index.array, pd)
    return {_TAG: "pandas.Index", "name": index.name, "dtype": dtype, "values": values}, False


def _values(array: Any, pd: Any) -> list[Any]:
    """The name of the data type, and the content as something that the walker or `encode` can take."""
    cls, arrays, dtype = type(array), pd.arrays, array.dtype
    if not _is_own(cls):
        raise _UnsupportedError
    name = str(dtype)
    if cls is arrays.NumpyExtensionArray:
        return [name, array.to_numpy()]
    if isinstance(dtype, pd.StringDtype):
        return [name, _strings(array, pd)]
    if isinstance(dtype, pd.ArrowDtype):
        return [name, array.__arrow_array__()]
    if cls in (arrays.IntegerArray, arrays.FloatingArray, arrays.BooleanArray):
        mask = array.isna()
        numbers = array.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.type(0))
        return [name, {"mask": mask, "values": numbers}]
    if cls is pd.Categorical:
        categories = _values(array.categories.array, pd)
        return ["category", {"codes": array.codes, "categories": categories, "ordered": array.ordered}]
    if cls in (arrays.DatetimeArray, arrays.TimedeltaArray, arrays.PeriodArray):
        return [name, array.asi8]  # UTC, with NaT as the smallest integer; the unit is in the name
    if cls is arrays.IntervalArray:
        ends = [_values(side.array, pd) for side in (array.left, array.right)]
        return [name, {"left": ends[0], "right": ends[1], "closed": array.closed}]
    if cls is arrays.SparseArray:
        return [name, array.to_dense()]
    raise _UnsupportedError


def _strings(array: Any, pd: Any) -> dict[str, object]:
    """Text columns, the same whether Python objects or Arrow hold them."""
    np = sys.modules["numpy"]
    missing = np.asarray(array.isna(), dtype=bool)
    encoded = [text.encode() for text in array[~missing].tolist()]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    return {
        "missing": _sha256(np.packbits(missing)),
        "len": len(array),
        "lengths": _sha256(content_bytes(lengths, np)),
        "values": _sha256(b"".join(encoded)),
    }


def _encode_scalar(value: Any, pd: Any) -> tuple[object, bool]:
    cls = type(value)
    if value is pd.NaT:
        return {_TAG: "pandas.NaT"}, False
    if value is pd.NA:
        return {_TAG: "pandas.NA"}, False
    if cls is pd.Timestamp or cls is pd.Timedelta:
        # Nanoseconds whatever the unit: equal times are equal.
        count = int(value.as_unit("ns").value) if value.unit != "ns" else int(value.value)
        out: dict[str, object] = {_TAG: f"pandas.{cls.__name__}", "ns": count}
        if cls is pd.Timestamp:
            out["naive"] = value.tz is None
        return out, False
    if cls is pd.Period:
        return {_TAG: "pandas.Period", "ordinal": value.ordinal, "freq": value.freqstr}, False
    if cls is pd.Interval:
        return {_TAG: "pandas.Interval", "left": value.left, "right": value.right, "closed": value.closed}, False
    return OPAQUE
