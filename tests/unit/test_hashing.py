"""Input hashing: every kind of value, told apart, the same in every process, and never by guessing (PRODUCT.md, 6)."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import itertools
import math
import os
import pathlib
import subprocess
import sys
import uuid
from typing import Any

import pytest

from kest import _kestcore
from kest.core.hashing import encode, hash_arguments, hash_value, opaque, type_name

UTC = datetime.timezone.utc


def walk(value: Any, depth: int = 0) -> tuple[Any, bool]:
    """What the C walker does, slowly: JSON stays, everything else is asked of `encode`."""
    if depth > 64:
        raise RecursionError
    cls = type(value)
    if value is None or cls is bool or cls is str:
        return value, False
    if (cls is int and abs(value) < 2**53) or (cls is float and math.isfinite(value)):
        return value, False
    if cls in (list, tuple):
        items = [walk(item, depth + 1) for item in value]
        return [item for item, _ in items], any(flag for _, flag in items)
    if cls is dict and "$kest" not in value and all(type(key) is str for key in value):
        return members(value, depth, False)
    replacement, is_opaque = encode(value)
    if type(replacement) is dict:
        return members(replacement, depth, is_opaque)
    tree, flag = walk(replacement, depth + 1)
    return tree, flag or is_opaque


def members(value: dict[str, Any], depth: int, flag: bool) -> tuple[Any, bool]:
    assert all(type(key) is str for key in value)
    out = {}
    for key, item in value.items():
        out[key], inner = walk(item, depth + 1)
        flag = flag or inner
    return out, flag


def digest(value: Any) -> str:
    """The hash of a value that is not opaque; the C walker and the one above must agree."""
    tree, flag = walk(value)
    assert not flag, tree
    expected = hashlib.sha256(_kestcore.canonicalize(tree)).hexdigest()
    assert hash_value(value) == (expected, False)
    return expected


def assert_opaque(value: Any) -> None:
    replacement, flag = encode(value)
    assert (replacement, flag) == ({"$kest": "opaque", "type": type_name(type(value))}, True)
    assert hash_value(value)[1] is True


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    pass


class Number(int):
    pass


class Real(float):
    pass


class Sequence(list):  # type: ignore[type-arg]
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


class Blob(bytes):
    pass


class Ring(bytearray):
    pass


class Moment(datetime.datetime):
    pass


Point = collections.namedtuple("Point", "x y")
Pixel = collections.namedtuple("Pixel", "x y")


@dataclasses.dataclass
class Order:
    item: str
    count: int = 1
    parts: Any = None


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("a",)
    a: int


# -- exact forms: a change here changes every recorded hash ----------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (2**53, {"$kest": "int", "value": "9007199254740992"}),
        (-(2**53), {"$kest": "int", "value": "-9007199254740992"}),
        (b"ab", {"$kest": "bytes", "len": 2, "sha256": hashlib.sha256(b"ab").hexdigest()}),
        (datetime.datetime(2024, 5, 6, 7, 8, 9), {"$kest": "datetime", "naive": "2024-05-06T07:08:09.000000"}),
        (datetime.datetime(2024, 5, 6, tzinfo=UTC), {"$kest": "datetime", "value": "2024-05-06T00:00:00.000000Z"}),
        (datetime.date(2024, 5, 6), {"$kest": "date", "value": "2024-05-06"}),
        (datetime.time(1, 2), {"$kest": "time", "value": "01:02:00.000000"}),
        (datetime.timedelta(-1, 5), {"$kest": "timedelta", "days": -1, "seconds": 5, "microseconds": 0}),
        (uuid.UUID(int=5), {"$kest": "uuid", "value": "00000000-0000-0000-0000-000000000005"}),
        (decimal.Decimal("-1.50"), {"$kest": "decimal", "value": "-150E-2"}),
        (fractions.Fraction(2, 4), {"$kest": "fraction", "numerator": 1, "denominator": 2}),
        (1 + 2j, {"$kest": "complex", "real": 1.0, "imag": 2.0}),
        (range(1, 9, 3), {"$kest": "range", "start": 1, "stop": 9, "step": 3}),
        (Colour.RED, {"$kest": "enum", "type": f"{__name__}.Colour", "value": 1, "name": "RED"}),
        (Mode.READ | Mode.WRITE, {"$kest": "enum", "type": f"{__name__}.Mode", "value": 3}),
        ({"b", "a"}, {"$kest": "set", "items": ["a", "b"]}),
        ({1: "a"}, {"$kest": "dict", "items": [[1, "a"]]}),
        ({"$kest": 1}, {"$kest": "dict", "items": [["$kest", 1]]}),
        (pathlib.PurePosixPath("/a/b"), {"$kest": "path", "flavour": "posix", "value": "/a/b"}),
        (pathlib.PureWindowsPath("c:/a"), {"$kest": "path", "flavour": "windows", "value": "c:\\a"}),
        (Point(1, 2), {"$kest": "namedtuple", "type": f"{__name__}.Point", "fields": {"x": 1, "y": 2}}),
        (
            Order("a"),
            {"$kest": "dataclass", "type": f"{__name__}.Order", "fields": {"item": "a", "count": 1, "parts": None}},
        ),
        (Text("a"), "a"),
        (Number(7), 7),
        (Real(0.5), 0.5),
        (Sequence([1]), [1]),
        (Mapping(a=1), {"a": 1}),
    ],
    ids=repr,
)
def test_forms(value: Any, form: Any) -> None:
    replacement, flag = encode(value)
    assert replacement == form
    assert type(replacement) is type(form)
    assert flag is False
    digest(value)


DISTINCT: list[Any] = [
    None, True, False, 0, 1, -1, "1", "", [], {}, [[]], [1], ["1"], {"1": 1}, {1: 1}, {"$kest": 1}, [["$kest", 1]],
    {"$kest": "int", "value": "9007199254740992"}, 2**53, "9007199254740992", 2**53 + 1, -(2**53), 2**5000, -(2**5000),
    2**5000 + 1, b"", b"1", "a", b"a", "YQ==", {"len": 1}, datetime.datetime(2024, 1, 1),
    datetime.datetime(2024, 1, 1, fold=1), datetime.datetime(2024, 1, 1, tzinfo=UTC), datetime.date(2024, 1, 1),
    "2024-01-01", datetime.time(0), datetime.time(0, tzinfo=UTC), datetime.timedelta(0), datetime.timedelta(1),
    uuid.UUID(int=1), decimal.Decimal(1), decimal.Decimal("1.0"), decimal.Decimal("-0"), decimal.Decimal(0),
    fractions.Fraction(1, 3), 1j, 2j, range(3), range(0, 3, 2), set(), {1}, {"1"}, {1, 2}, frozenset({frozenset()}),
    Colour.RED, Colour.BLUE, Level.LOW, Mode.READ, Mode.READ | Mode.WRITE, Point(1, 2), Point(2, 1), Pixel(1, 2),
    [1, 2], pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), Order("a"), Order("a", 2), Slotted(1),
    {"item": "a", "count": 1, "parts": None}, Order("a", 1, Order("b")), {True: 1, "a": 2}, {None: 1}, {(1, 2): 3},
    memoryview(b"abcd").cast("H"),
]  # fmt: skip


def test_different_values_have_different_hashes() -> None:
    seen: dict[str, Any] = {}
    for value in DISTINCT:
        key = digest(value)
        assert key not in seen, (value, seen.get(key))
        seen[key] = value


@pytest.mark.parametrize(
    "alike",
    [
        (
            b"a",
            bytearray(b"a"),
            memoryview(b"a"),
            memoryview(b"xax")[1:2],
            memoryview(b"axa")[::2][:1],
            Blob(b"a"),
            Ring(b"a"),
        ),
        ("a", Text("a")),
        (7, Number(7), 7.0, Real(7)),
        ([1, 2], (1, 2), Sequence([1, 2])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, Mapping(b=2, a=1), collections.OrderedDict(b=2, a=1)),
        ({1: 2, "a": 3}, {"a": 3, 1: 2}, Mapping({"a": 3, 1: 2})),
        ({"$kest": 1}, Mapping({"$kest": 1})),
        ({1, 2, "a"}, frozenset(["a", 2, 1]), {1.0, 2.0, "a"}),
        (2**60, Number(2**60)),
        (2**5000, Number(2**5000)),
        (
            datetime.datetime(2024, 1, 1, 12, tzinfo=UTC),
            datetime.datetime(2024, 1, 1, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            Moment(2024, 1, 1, 12, tzinfo=UTC),
        ),
    ],
    ids=lambda values: repr(values[0]),
)
def test_the_same_value_has_the_same_hash(alike: tuple[Any, ...]) -> None:
    assert len({digest(value) for value in alike}) == 1


def test_zones_are_converted() -> None:
    zoneinfo = pytest.importorskip("zoneinfo")
    try:
        paris = zoneinfo.ZoneInfo("Europe/Paris")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("this system has no time zone database")
    first = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=paris)
    assert encode(first)[0] == {"$kest": "datetime", "value": "2024-10-27T00:30:00.000000Z"}
    assert encode(first.replace(fold=1))[0] == {"$kest": "datetime", "value": "2024-10-27T01:30:00.000000Z"}


def test_huge_ints_do_not_meet_pythons_limit_on_digits() -> None:
    for number in (10**5000, -(10**5000), 1 << 100_000):
        digest(number)
    assert encode(1 << 2048)[0] == {
        "$kest": "int", "bits": 2049, "negative": False,
        "sha256": hashlib.sha256((1 << 2048).to_bytes(257, "big")).hexdigest(),
    }  # fmt: skip


def test_decimals_do_not_depend_on_the_context() -> None:
    value = decimal.Decimal("1E+20")
    before = digest(value)
    with decimal.localcontext() as context:
        context.capitals, context.prec = 0, 2
        assert digest(value) == before


def test_set_order_does_not_depend_on_the_hash_seed() -> None:
    script = (
        "from kest.core.hashing import hash_value; import sys, datetime, pathlib;"
        "v = {'a', 'b', 'c', 1, 2.5, (1, 'x'), b'bytes', frozenset({'p', 'q', None}), datetime.date(2024, 1, 1),"
        " pathlib.PurePosixPath('/x')};"
        "sys.stdout.write(str(hash_value([v, {k: 1 for k in v}])))"
    )
    outputs = set()
    for seed in ("0", "1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        outputs.add(run.stdout)
    assert len(outputs) == 1
    assert outputs.pop().endswith("False)")


def test_sets_within_sets_take_reasonable_time() -> None:
    nested: Any = frozenset({"end"})
    for level in range(18):  # encoding each level twice would double the time with each
        nested = frozenset({level, nested})
    digest(nested)


# -- opaque values ----------------------------------------------------------------------------------------------------


class Plain:
    def __init__(self) -> None:
        self.secret = 1


class Impostor:
    """Claims to be an int to anything that asks politely."""

    @property
    def __class__(self) -> Any:
        raise AssertionError("asked for __class__")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


class Loud(str):
    def __str__(self) -> str:
        raise AssertionError

    __repr__ = __iter__ = __hash__ = __eq__ = __len__ = __getitem__ = encode = __str__  # type: ignore[assignment]


class LoudList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise AssertionError

    __len__ = __getitem__ = __repr__ = __iter__


class LoudDict(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise AssertionError

    __iter__ = keys = values = __getitem__ = __len__ = __contains__ = __repr__ = items


class LoudInt(int):
    def __index__(self) -> int:
        raise AssertionError

    __int__ = __str__ = __repr__ = __abs__ = __lt__ = __le__ = __hash__ = __eq__ = __index__  # type: ignore[assignment]


class LoudMoment(datetime.datetime):
    def isoformat(self, *args: Any, **kwargs: Any) -> str:
        raise AssertionError

    utcoffset = astimezone = __str__ = __repr__ = timetuple = strftime = isoformat  # type: ignore[assignment]

    @property
    def year(self) -> int:  # type: ignore[override]
        raise AssertionError


class Zone(datetime.tzinfo):
    def utcoffset(self, when: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    "value",
    [
        object(), Plain(), Plain, int, len, math, lambda: 1, ..., NotImplemented, iter([]), (x for x in ()),
        float("nan"), float("inf"), Real("inf"), complex("nan"), decimal.Decimal("NaN"), decimal.Decimal("sNaN"),
        decimal.Decimal("Infinity"), datetime.datetime(2024, 1, 1, tzinfo=Zone()), datetime.time(1, tzinfo=Zone()),
        ValueError("x"), type("Unknown", (), {})(), datetime.datetime.min.replace(
            tzinfo=datetime.timezone(datetime.timedelta(hours=5))
        ),
    ],
    ids=lambda value: type(value).__qualname__,
)  # fmt: skip
def test_what_cannot_be_represented_is_opaque(value: Any) -> None:
    if type(value) is float:  # the C core marks these itself
        assert hash_value(value)[1] is True
    else:
        assert_opaque(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Loud("a"), "a"),
        (LoudList([1, 2]), [1, 2]),
        (LoudDict(a=1), {"a": 1}),
        (LoudInt(5), 5),
        (LoudInt(2**60), 2**60),
        (LoudMoment(2024, 1, 1, tzinfo=UTC), datetime.datetime(2024, 1, 1, tzinfo=UTC)),
    ],
    ids=lambda value: type(value).__qualname__,
)
def test_code_of_the_values_own_is_not_run(value: Any, plain: Any) -> None:
    assert hash_value(value) == hash_value(plain)


def test_nothing_is_asked_of_the_value() -> None:
    value = Impostor()
    replacement, flag = encode(value)
    assert replacement == {"$kest": "opaque", "type": f"{__name__}.Impostor"}
    assert flag
    assert hash_value([value])[1] is True


def test_opaque_names_the_type_and_nothing_else() -> None:
    first, second = Plain(), Plain()
    second.secret = 2
    assert hash_value(first) == hash_value(second)
    assert opaque(first)[0] == {"$kest": "opaque", "type": f"{__name__}.Plain"}
    assert type_name(type(Plain.__init__)) == "builtins.function"

    class Meta(type):
        @property
        def __module__(cls) -> str:  # type: ignore[override]
            raise AssertionError

    assert "Odd" in type_name(Meta("Odd", (), {}))
    assert type_name(type("NoModule", (), {"__module__": 7})) == "?.NoModule"


def test_arguments_say_which_are_opaque() -> None:
    deep: list[Any] = []
    deep.append(deep)
    arguments = {"a": 1, "b": object(), "c": [Plain()], "d": {"x": float("nan")}, "e": deep, "f": "\ud800", "g": {1}}
    text, names = hash_arguments(arguments)
    assert names == ("b", "c", "d", "e", "f")
    assert len(text) == 64
    assert hash_arguments({**arguments, "a": 2})[0] != text
    cyclic = Order("a")
    cyclic.parts = cyclic
    assert hash_arguments({"cyclic": cyclic})[1] == ("cyclic",)
    for odd in ({"\ud800", 1}, {"\ud800": 1, 2: 3}, {object(), 1}):
        assert hash_value(odd)[1] is True


# -- __kest_hash__ ----------------------------------------------------------------------------------------------------


class Hashed:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __kest_hash__(self) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class HashedInt(int):
    def __kest_hash__(self) -> str:
        return "own"


@dataclasses.dataclass
class HashedFields:
    a: int

    def __kest_hash__(self) -> str:
        return "own"


def test_kest_hash() -> None:
    assert encode(Hashed("x"))[0] == {"$kest": "custom", "type": f"{__name__}.Hashed", "value": "x"}
    assert len({digest(Hashed(answer)) for answer in ("1", b"1", 1, 2**70, "2")}) == 5
    assert digest(HashedInt(1)) == digest(HashedInt(2)) != digest(1)
    assert digest(HashedFields(1)) == digest(HashedFields(2))
    for answer in (None, 1.5, True, [1], Text("x"), ValueError("secret"), RecursionError()):
        assert_opaque(Hashed(answer))
    with pytest.raises(KeyboardInterrupt):
        encode(Hashed(KeyboardInterrupt()))
    with pytest.raises(MemoryError):
        encode(Hashed(MemoryError()))
    instance = Plain()
    instance.__kest_hash__ = lambda: "x"  # type: ignore[attr-defined]
    assert_opaque(instance)  # special methods belong to the class
    assert_opaque(Hashed)  # and the class itself is not an instance

    class Coroutine:
        async def __kest_hash__(self) -> str:
            return "x"

    assert_opaque(Coroutine())


# -- dataclasses, pydantic --------------------------------------------------------------------------------------------


def test_dataclasses() -> None:
    @dataclasses.dataclass
    class Sneaky:
        a: int

        @property
        def b(self) -> int:
            raise AssertionError

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError

    replacement, flag = encode(Sneaky(1))
    assert not flag
    assert replacement["fields"] == {"a": 1}  # type: ignore[index]
    incomplete = Order("a")
    del incomplete.item
    assert_opaque(incomplete)
    assert_opaque(Order)


def test_pydantic() -> None:
    pydantic = pytest.importorskip("pydantic")
    import functools

    class Model(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        model_config = pydantic.ConfigDict(extra="allow")
        a: int
        secret: pydantic.SecretStr | None = None
        _private: int = 1

        @functools.cached_property
        def cached(self) -> int:
            return 1

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def computed(self) -> int:
            raise AssertionError

    class Root(pydantic.RootModel[list[int]]):  # type: ignore[name-defined,misc]
        pass

    model = Model(a=1)
    before = digest(model)
    assert encode(model)[0] == {
        "$kest": "pydantic",
        "type": type_name(Model),
        "fields": {"a": 1, "secret": None},
    }
    assert model.cached == 1
    assert digest(model) == before
    assert len({before, digest(Model(a=2)), digest(Model(a=1, b=2)), digest(Model(a=1, **{"$kest": "x"}))}) == 4
    assert hash_value(Model(a=1, secret="s"))[1] is True  # a secret is never hashed
    assert digest(Root([1])) != digest(Root([2]))
    aware = pydantic.TypeAdapter(datetime.datetime).validate_python("2024-01-01T02:00:00+02:00")
    assert digest(aware) == digest(datetime.datetime(2024, 1, 1, tzinfo=UTC))


# -- buffers ----------------------------------------------------------------------------------------------------------


def test_memoryviews() -> None:
    assert len({digest(memoryview(b"abcd").cast(code)) for code in ("B", "H", "I", "f")}) == 4
    assert_opaque(memoryview(b"abcd").cast("P") if sys.maxsize < 2**32 else memoryview(b"abcdefgh").cast("P"))
    released = memoryview(b"a")
    released.release()
    assert_opaque(released)


def test_numpy_arrays() -> None:
    np = pytest.importorskip("numpy")
    base = np.arange(12, dtype="<i4")
    assert digest(base) == digest(np.arange(24, dtype="<i4")[::2] // 2) == digest(base.copy())
    grid = base.reshape(3, 4)
    assert digest(grid) == digest(np.asfortranarray(grid)) == digest(grid.T.copy().T)
    other = [base, grid, grid.T, base.astype("<i8"), base.astype("<u4"), base.astype("<f4"), base[:11], base[::-1]]
    other += [base.astype(">i4"), np.zeros((0, 3)), np.zeros((3, 0)), np.array(1), np.array([1]), np.array(True)]
    other += [np.array(["a"]), np.array([b"a"]), np.array(["a"], dtype=object), np.array(["a", "bb"])]
    other += [
        np.array(["2024"], "M8[D]"),
        np.array(["2024"], "M8[s]"),
        np.array(["NaT"], "M8[s]"),
        np.array([1], "m8[s]"),
    ]
    other += [
        np.float32(1),
        np.float64(1),
        np.int8(1),
        np.bool_(False),
        np.str_("a"),
        np.bytes_(b"a"),
        np.float64("nan"),
    ]
    assert len({digest(value) for value in other}) == len(other)
    assert digest(np.float64(1.5)) == digest(np.array(1.5)) != digest(1.5)
    assert hash_value(base.view(type("Quantity", (np.ndarray,), {})))[1] is True
    assert_opaque(np.random.default_rng(0))
    assert_opaque(np.dtype("i4"))
    assert_opaque(np.ndarray)
    large = np.zeros(1 << 20, dtype=np.uint8)
    assert encode(large)[0]["sha256"] == hashlib.sha256(large.tobytes()).hexdigest()  # type: ignore[index]


def test_numpy_never_hashes_pointers_or_padding() -> None:
    np = pytest.importorskip("numpy")
    text = "".join(["un", "interned ", str(os.getpid())])
    first, second = (np.array([text, [1], {"k": "".join(list(text))}], dtype=object) for _ in range(2))
    assert digest(first) == digest(second)
    assert hash_value(np.array([object()], dtype=object))[1] is True

    aligned = np.dtype([("a", "i1"), ("b", "i8")], align=True)
    dirty = np.frombuffer(os.urandom(aligned.itemsize * 3), dtype=aligned).copy()
    clean = np.zeros(3, dtype=aligned)
    dirty["a"] = clean["a"] = [1, 2, 3]
    dirty["b"] = clean["b"] = [4, 5, 6]
    assert dirty.tobytes() != clean.tobytes()
    assert digest(dirty) == digest(clean)
    assert digest(dirty[1]) == digest(clean[1])
    assert digest(dirty) == digest(dirty.view(np.recarray))
    nested = np.zeros(2, dtype=[("p", aligned), ("o", object), ("s", "f4", (2, 2))])
    nested["o"] = [text, None]
    digest(nested)

    size = np.dtype(np.longdouble).itemsize
    if size == 16 and np.finfo(np.longdouble).nmant == 63:
        for kind in (np.longdouble, np.clongdouble):
            noisy = np.array([1.5, 2.5], dtype=kind)
            noisy.view(np.uint8).reshape(-1, 16)[:, 10:] = 0xAB
            assert digest(noisy) == digest(np.array([1.5, 2.5], dtype=kind))
            assert digest(noisy) != digest(np.array([1.5, 3.5], dtype=kind))


def test_numpy_masked_and_strings() -> None:
    np = pytest.importorskip("numpy")
    first = np.ma.array([1, 2, 3], mask=[0, 1, 0])
    second = np.ma.array([1, 9, 3], mask=[0, 1, 0])
    assert digest(first) == digest(second)
    assert digest(first) != digest(np.ma.array([1, 2, 3], mask=[0, 0, 0]))
    if hasattr(np.dtypes, "StringDType"):
        value = np.array(["a" * 40, "b"], dtype=np.dtypes.StringDType())
        assert digest(value) == digest(value.copy())
        assert digest(value) != digest(value[::-1])


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    np = pytest.importorskip("numpy")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"])})
    assert digest(frame) == digest(frame.copy()) == digest(frame[["a", "b", "c"]])
    series = pd.Series([1, 2, 3], name="s")
    distinct: list[Any] = [
        frame, frame[["b", "a", "c"]], frame.rename(columns={"a": "z"}), frame.set_index("a"), frame.iloc[:1],
        frame.astype({"a": "int8"}), series, series.rename("t"), series.astype("Int64"), series.astype("float64"),
        series.set_axis([1, 2, 3]), pd.Index([1, 2, 3]), pd.Index([1, 2, 3], name="n"), pd.RangeIndex(3),
        pd.MultiIndex.from_tuples([(1, "a")]), pd.MultiIndex.from_tuples([("a", 1)]), pd.Timestamp("2024"),
        pd.Timestamp("2024", tz="UTC"), pd.Timedelta(1, "s"), pd.NaT, pd.NA, pd.Period("2024-01"), pd.Interval(0, 1),
        pd.date_range("2024", periods=2), pd.date_range("2024", periods=2, tz="UTC"), pd.interval_range(0, 2),
        pd.period_range("2024", periods=2, freq="D"), pd.Series([True, None], dtype="boolean"),
        pd.Series([True, False], dtype="boolean"), pd.Series(["a", "bc"]), pd.Series(["ab", "c"]),
        pd.Series(["a"], dtype="category"), pd.Series([{"k": 1}]), pd.Series(pd.arrays.SparseArray([0, 1])),
        pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame([[2, 1]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=[1, 2]), pd.DataFrame(), pd.timedelta_range(0, periods=2),
    ]  # fmt: skip
    assert len({digest(value) for value in distinct}) == len(distinct)
    masked = pd.Series([1, None, 3], dtype="Int64")
    behind = pd.Series(pd.arrays.IntegerArray(np.array([1, 77, 3]), np.array([False, True, False])))
    assert digest(masked) == digest(behind)
    assert digest(pd.Timestamp("2024-01-01").as_unit("s")) == digest(pd.Timestamp("2024-01-01").as_unit("ns"))
    assert_opaque(type("Geo", (pd.DataFrame,), {})({"a": [1]}))
    assert_opaque(frame.groupby("a"))
    assert hash_value(pd.Series([object()]))[1] is True


def test_pandas_text_does_not_depend_on_its_storage() -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    values = ["a", None, "é", ""]
    assert digest(pd.Series(values, dtype="string[python]")) == digest(pd.Series(values, dtype="string[pyarrow]"))
    digest(pd.Series([1, None], dtype="int64[pyarrow]"))


def arrow_cases(pa: Any) -> dict[str, tuple[Any, list[Any]]]:
    struct = pa.struct([("a", pa.int64()), ("b", pa.string())])
    return {
        "int64": (pa.int64(), [1, None, 3, 4, None]),
        "int8": (pa.int8(), [1, None, 3, 4, None]),
        "no nulls": (pa.int64(), [1, 2, 3, 4, 5]),
        "bool": (pa.bool_(), [True, None, False, True, True]),
        "float": (pa.float64(), [1.5, None, 2.5, 0.0, float("nan")]),
        "string": (pa.string(), ["a", None, "", "bcd", "é"]),
        "large_string": (pa.large_string(), ["a", None, "", "bcd", "é"]),
        "binary": (pa.binary(), [b"a", None, b"", b"bcd", b"\0"]),
        "fixed binary": (pa.binary(2), [b"ab", None, b"cd", b"ef", b"gh"]),
        "timestamp": (pa.timestamp("ns", "UTC"), [1, None, 3, 4, 5]),
        "date": (pa.date32(), [1, None, 3, 4, 5]),
        "decimal": (pa.decimal128(5, 2), [decimal.Decimal("1.25"), None, decimal.Decimal(2), decimal.Decimal(3), None]),
        "list": (pa.list_(pa.string()), [["a"], None, [], ["b", None], ["c"]]),
        "large_list": (pa.large_list(pa.int8()), [[1], None, [], [2, None], [3]]),
        "fixed list": (pa.list_(pa.int16(), 2), [[1, 2], None, [3, None], [5, 6], [7, 8]]),
        "struct": (struct, [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {"a": 3, "b": None}, {"a": 4, "b": ""}]),
        "map": (pa.map_(pa.string(), pa.int32()), [[("k", 1)], None, [], [("l", 2), ("m", None)], [("n", 3)]]),
        "null": (pa.null(), [None] * 5),
        "list of struct": (pa.list_(struct), [[{"a": 1, "b": "x"}], None, [], [None], [{"a": 2, "b": None}]]),
    }


def test_arrow_hashes_are_of_the_content_only() -> None:
    pa = pytest.importorskip("pyarrow")
    seen: dict[str, str] = {}
    for name, (kind, values) in arrow_cases(pa).items():
        whole = pa.array(values, kind)
        expected = digest(whole)
        assert expected not in seen, (name, seen.get(expected))
        seen[expected] = name
        padded = pa.concat_arrays([pa.array(values[:3], kind), whole, pa.array(values[2:], kind)])
        assert digest(padded.slice(3, 5)) == expected, name
        for cuts in ((0, 5), (0, 1, 5), (0, 0, 2, 3, 5), (0, 4, 4, 5)):
            chunks = [padded.slice(3 + a, b - a) for a, b in itertools.pairwise(cuts)]
            assert digest(pa.chunked_array(chunks, kind)) == expected, (name, cuts)
        digest(pa.chunked_array([], kind))
        assert name == "null" or digest(pa.array(list(reversed(values)), kind)) != expected, name
        assert digest(pa.array(values[:4], kind)) != expected
        assert digest(whole[0]) == digest(padded[3])
        assert digest(pa.table({"x": whole})) == digest(pa.table({"x": pa.chunked_array([whole[:2], whole[2:]])}))


def test_arrow_values_behind_nulls_do_not_count() -> None:
    pa = pytest.importorskip("pyarrow")
    validity = pa.py_buffer(b"\x05")
    for width, kind in ((8, pa.int64()), (1, pa.uint8()), (4, pa.float32())):
        arrays = [
            pa.Array.from_buffers(kind, 3, [validity, pa.py_buffer(b"\1" * width + junk * width + b"\2" * width)])
            for junk in (b"\0", b"\x77")
        ]
        assert digest(arrays[0]) == digest(arrays[1])
    offsets = [pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in ends)) for ends in ((0, 1, 1, 2), (0, 1, 4, 5))]
    texts = [
        pa.Array.from_buffers(pa.string(), 3, [validity, ends, pa.py_buffer(data)])
        for ends, data in zip(offsets, (b"ab", b"aXYZb"), strict=True)
    ]
    assert texts[0].equals(texts[1])
    assert digest(texts[0]) == digest(texts[1])


def test_arrow_encodings_and_tables() -> None:
    pa = pytest.importorskip("pyarrow")
    kind = pa.dictionary(pa.int32(), pa.string())
    first = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array(["a", "b"]))
    second = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2], pa.int32()), pa.array(["b", "z", "a"]))
    assert first.type == second.type == kind
    assert digest(first) == digest(second)
    assert digest(first) != digest(pa.array(["a", "b", "a"]))
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert digest(table) == digest(table.replace_schema_metadata({"k": "v"}))
    assert digest(table) == digest(table.to_batches()[0])
    distinct = [table, table.select(["b", "a"]), table.rename_columns(["a", "c"]), table.slice(0, 1), pa.table({})]
    assert len({digest(value) for value in distinct}) == len(distinct)
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    for unknown in (union, table.schema, pa.int64(), pa.py_buffer(b"x")):
        assert_opaque(unknown)


def test_nothing_optional_is_imported() -> None:
    script = (
        "import sys; from kest.core.hashing import hash_value; hash_value([1, object(), {1}, 2**60]);"
        "sys.exit(str({'numpy', 'pandas', 'pyarrow', 'pydantic'} & set(sys.modules) or 0))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.stderr.strip() in ("", "0"), run.stderr


# -- the C walker against the slow one --------------------------------------------------------------------------------


def test_the_c_walker_and_the_slow_one_agree_on_generated_values() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    st = pytest.importorskip("hypothesis.strategies")
    text = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
    scalars = (
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
        | st.binary(max_size=5) | st.datetimes() | st.dates() | st.times() | st.timedeltas() | st.uuids()
        | st.decimals(allow_nan=False, allow_infinity=False) | st.fractions()
    )  # fmt: skip
    keys = scalars | st.tuples(scalars, scalars) | st.frozensets(scalars, max_size=3) | st.just("$kest")
    values = st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.sets(keys, max_size=4)
        ),
        max_leaves=12,
    )

    @hypothesis.settings(max_examples=300, deadline=None)
    @hypothesis.given(values)
    def check(value: Any) -> None:
        digest(value)
        text, names = hash_arguments({"v": value})
        tree, _ = walk(value)
        assert names == ()
        assert text == hashlib.sha256(_kestcore.canonicalize({"v": tree})).hexdigest()

    check()
