"""Records (dataclasses, pydantic models) that the C core has learned are hashed as Python hashes those that it has not."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import math
import sys
import weakref
from typing import Any, ClassVar

import pytest

from kest import _kestcore
from kest.core.hashing import encode, hash_arguments, hash_value


def asked(value: Any) -> tuple[str, bool, list[type]]:
    """The hash of a value, and the classes that Python was asked about for it."""
    classes: list[type] = []

    def fallback(one: object) -> Any:
        classes.append(type(one))
        return encode(one)

    text, is_opaque = _kestcore.hash_value(value, fallback)
    return text, is_opaque, classes


def learned(value: Any, *inner: type) -> str:
    """The hash, the same from Python and from the C core, which needs no help from the second time on."""
    first = asked(value)
    second = asked(value)
    assert first[:2] == second[:2]
    assert [cls for cls in second[2] if cls not in inner] == []
    return second[0]


def form(value: Any, tag: str, name: str, **fields: Any) -> str:
    text = _kestcore.canonicalize({"$kest": tag, "fields": fields, "type": f"{type(value).__module__}.{name}"})
    return hashlib.sha256(text).hexdigest()


@dataclasses.dataclass
class Line:
    sku: str
    price: float
    kind: ClassVar[str] = "line"
    extra: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class Slotted:
    __slots__ = ("a", "b")
    b: int
    a: Any


def test_dataclasses() -> None:
    assert learned(Line("x", 1.5)) == form(Line("x", 1.5), "dataclass", "Line", sku="x", price=1.5)
    assert learned(Slotted(1, None)) == form(Slotted(1, None), "dataclass", "Slotted", a=None, b=1)
    assert learned([Slotted(1, Slotted(2, Line("ü", 0.1)))] * 3)


def test_many_fields() -> None:
    names = [f"f{number}" for number in range(100)]
    many = dataclasses.make_dataclass("Many", names)(*range(100))
    assert learned(many) == form(many, "dataclass", "Many", **{name: at for at, name in enumerate(names)})


def test_empty_ones() -> None:
    nothing = dataclasses.make_dataclass("Nothing", [])()
    assert learned(nothing) == form(nothing, "dataclass", "Nothing")


def test_models() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        b: int
        a: Any = None

    class Open(Model):
        model_config = pydantic.ConfigDict(extra="allow")

    name = "test_models.<locals>.Model"
    assert learned(Model(b=1)) == form(Model(b=1), "pydantic", name, a=None, b=1)
    assert learned(Model(b=1, a=Model(b=2)))
    plain, more = Open(b=1), Open(b=1, c=2)
    assert learned(plain) == form(plain, "pydantic", "test_models.<locals>.Open", a=None, b=1)
    assert learned(more, Open) == form(more, "pydantic", "test_models.<locals>.Open", a=None, b=1, c=2)
    part = Model.model_construct(b=1)
    del part.__dict__["a"]
    assert learned(part, Model) == form(part, "pydantic", name, b=1)
    part.__dict__["more"] = 1
    assert learned(part, Model) == form(part, "pydantic", name, b=1)


def test_a_class_that_changes_is_learned_anew() -> None:
    @dataclasses.dataclass
    class Base:
        a: int

    class Below(Base):
        pass

    one = Below(1)
    before = learned(one)
    Below.__qualname__ = "Other"
    assert learned(one) == form(one, "dataclass", "Other", a=1) != before
    Below.__module__ = "elsewhere"
    assert learned(one) == form(one, "dataclass", "Other", a=1)
    Base.__kest_hash__ = lambda self: "itself"  # type: ignore[attr-defined]
    assert asked(one)[2] == [Below]
    assert asked(one)[0] == asked(one)[0] != before


def test_a_class_in_the_place_of_one_that_is_gone() -> None:
    seen = set()
    for number in range(300):
        cls = dataclasses.make_dataclass("Same", [f"f{number}"])
        seen.add(hash_value(cls(1)))
        seen.add(hash_value(cls(1)))
        del cls
        gc.collect() if number % 50 == 0 else None
    assert len(seen) == 300


def test_classes_that_take_each_others_places() -> None:
    classes = [dataclasses.make_dataclass(f"C{number}", ["a"]) for number in range(600)]
    hashes = [hash_value([cls(1) for cls in classes]) for _ in range(3)]
    assert len(set(hashes)) == 1
    assert len({hash_value(cls(1)) for cls in classes}) == 600


def test_no_class_is_kept() -> None:
    cls = dataclasses.make_dataclass("Gone", ["a"])
    learned(cls(1))
    reference = weakref.ref(cls)
    del cls
    gc.collect()
    assert reference() is None


def test_a_field_that_is_missing() -> None:
    learned(Line("x", 1.5))
    part = Line("x", 1.5)
    del part.sku
    text, is_opaque, classes = asked(part)
    assert is_opaque
    assert classes == [Line]
    assert text == hash_value(part)[0]


def test_reading_a_field_may_run_code() -> None:
    """As ``object.__getattribute__`` does for a descriptor; here it makes others take the class's place."""
    others = [dataclasses.make_dataclass(f"O{number}", ["a"])(1) for number in range(600)]

    class Reads:
        def __get__(self, instance: Any, owner: Any) -> Any:
            if instance is None:
                raise AttributeError
            for other in others:
                hash_value(other)
            return len(others)

        def __set__(self, instance: Any, value: Any) -> None:
            pass

    @dataclasses.dataclass
    class Late:
        a: Any
        b: Any = 2

    Late.a = Reads()  # type: ignore[assignment]
    late = Late(1)
    assert learned(late, Late) == form(late, "dataclass", f"{Late.__qualname__}", a=600, b=2)

    class Interrupts(Reads):
        def __get__(self, instance: Any, owner: Any) -> Any:
            raise KeyboardInterrupt

    learned(Line("x", 1.5))
    late = Late(1)
    hash_value(late)
    Late.a = Interrupts()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        hash_value(late)


def test_what_has_no_form_is_opaque_as_a_whole() -> None:
    for value in (Line("\ud800", 1.0), Line("x", math.nan), Slotted(2**70, object())):
        first, second = asked(value), asked(value)
        assert first[:2] == second[:2]
        assert second[1]


def test_depth_is_bounded_where_it_was() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = Slotted(0, value)
        return value

    hashes = []
    for depth in range(1, 40):
        fresh = dataclasses.make_dataclass("Slotted", ["b", "a"], slots=True) if depth == 39 else None
        assert fresh is None or fresh(1, 2)
        hashes.append(asked(nested(depth))[:2])
    depths = [is_opaque for _, is_opaque in hashes]
    assert depths == sorted(depths)
    assert depths[0] is False
    assert depths[-1] is True
    loop = Slotted(0, None)
    loop.a = loop
    assert asked(loop)[1]


@pytest.mark.parametrize("depth", range(28, 36))
def test_depth_from_python_and_from_c(depth: int, run_python: Any) -> None:
    """The first time each level asks Python, the second time none does: refused at the same depth."""
    code = f"""
import dataclasses
from kest.core.hashing import hash_value
value = 1
for number in range({depth}):
    value = dataclasses.make_dataclass("Level", ["a"])(value)  # a class for each: all are new
first = hash_value(value)
assert hash_value(value) == first, first
print(first)
"""
    assert run_python(code).stdout


def test_names_that_cannot_be_members() -> None:
    assert _kestcore.know_record(Line, False, "x", ("$kest",)) is False
    assert _kestcore.know_record(int, False, "x", ("a",)) is False
    assert _kestcore.know_record(Line, False, "x", (5,)) is False  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _kestcore.know_record(Line(1, 2), False, "x", ())  # type: ignore[arg-type]
    learned(Line("x", 1.5))


def test_arguments_name_the_opaque_ones() -> None:
    values = {"good": Line("x", 1.0), "bad": Line("x", math.inf), "part": Slotted(1, object())}
    assert hash_arguments(values) == hash_arguments(values)
    assert hash_arguments(values)[1] == ("bad", "part")


def test_threads_learn_at_once(run_python: Any) -> None:
    code = """
import dataclasses, sys, threading
from kest.core.hashing import hash_value
sys.setswitchinterval(1e-6)
classes = [dataclasses.make_dataclass(f"C{n}", [f"f{n}", "b"]) for n in range(400)]
expected = [hash_value(cls(1, [2])) for cls in classes]
wrong = []
def run(start):
    for at in range(len(classes)):
        at = (at * 7 + start) % len(classes)
        if hash_value(classes[at](1, [2])) != expected[at]:
            wrong.append(at)
threads = [threading.Thread(target=run, args=(n * 50,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert not wrong
"""
    run_python(code)
    assert sys.getswitchinterval() > 1e-5
