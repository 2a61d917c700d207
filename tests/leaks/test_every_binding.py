"""Everything that the native module offers, called wrongly: an error that says so, and never a crash or a SystemError."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from every_binding import CALLS, INSTANCES, Call, attributes

from kest import _kestcore as core

ODD: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2**31, 2**63, 2**70, -(2**70), 0.5, float("nan"), "", "x", "\ud800", "é" * 5000, b"", b"\xff" * 40,
    bytearray(b"x"), (), ("x",), [], [None], ["x", 5], {}, {"x": None}, {5: "x"}, {"\ud800": "x"}, object(), type, ...,
)  # fmt: skip


def offered() -> set[str]:
    found = set()
    for name, thing in vars(core).items():
        if name.startswith("_") or not callable(thing):
            continue
        if not isinstance(thing, type):
            found.add(name)
            continue
        found |= {
            f"{name}.{method}" for method in vars(thing) if not method.startswith("__") and callable(getattr(thing, method))
        }
        try:
            thing()
        except TypeError as error:
            if "cannot create" in str(error):
                continue
        except Exception:  # noqa: S110 - arguments are missing
            pass
        found.add(name)
    return found


def test_each_is_called() -> None:
    """What is new in the module needs a line in `every_binding`."""
    called = {name.partition(" ")[0] for name in CALLS}
    assert offered() - {"fail_allocation"} <= called  # of builds for tests
    for call in CALLS.values():
        call()


def wrongly(name: str, call: Call) -> None:
    try:
        call()
    except SystemError as error:
        pytest.fail(f"{name}{call.args!r}: {error}")
    except Exception:  # noqa: S110 - whatever it is, it was noticed
        pass


@pytest.mark.parametrize("name", CALLS)
def test_odd_arguments_are_refused_or_taken(name: str) -> None:
    target, args, named = CALLS[name]
    try:
        for at, odd in itertools.product(range(len(args)), ODD):
            wrongly(name, Call(target, (*args[:at], odd, *args[at + 1 :]), named))
        for key, odd in itertools.product(named, ODD):
            wrongly(name, Call(target, args, {**named, key: odd}))
        for at, thing in enumerate(args):
            for inside in range(len(thing)) if isinstance(thing, (tuple, list)) else ():
                if inside > 3:
                    break
                for odd in ODD:
                    changed = type(thing)([*thing[:inside], odd, *thing[inside + 1 :]])
                    wrongly(name, Call(target, (*args[:at], changed, *args[at + 1 :]), named))
    finally:
        if name.startswith(("gate_register", "lock_mode")):
            CALLS["gate_register"]()
            CALLS["lock_mode"]()


@pytest.mark.parametrize("name", CALLS)
def test_too_many_arguments(name: str) -> None:
    target, args, named = CALLS[name]
    if name != "Passport.merge":
        with pytest.raises(TypeError):
            target()(*args, *[None] * 30, **named)
    with pytest.raises(TypeError):
        target()(*args, **named, no_such_name=1)


@pytest.mark.parametrize("name", INSTANCES)
def test_what_is_read_is_not_written(name: str) -> None:
    thing = INSTANCES[name]()
    for attribute in attributes(thing):
        getattr(thing, attribute)
        with pytest.raises((AttributeError, TypeError)):
            setattr(thing, attribute, None)
    with pytest.raises((AttributeError, TypeError)):
        thing.no_such_attribute = 1
