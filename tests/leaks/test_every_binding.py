"""Everything that the native module offers, called wrongly: an error that says so, and never a crash or a SystemError."""

from __future__ import annotations

import binascii
import decimal
import gc
import sys
from collections.abc import Iterator
from typing import Any

import every_binding
import pytest
from every_binding import CALLS, INSTANCES, Call, attributes

from kest import _kestcore as core
from kest import errors
from kest.errors import GateInputError, KestError, KeyFormatError
from kest.gate import ActionContext, DeviceFingerprint, Gate, GeoLocation
from kest.gate import _reason as gate_reason
from kest.gate import compile as gate_compile
from kest.gate.permit import PermitToken

ODD: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2**31, 2**63, 2**70, -(2**70), 0.5, float("nan"), "", "x", "\ud800", "é" * 5000, "x" * 70_000, b"",
    b"\xff" * 40, bytearray(b"x"), (), ("x",), [], [None], ["x", 5], {}, {"x": None}, {5: "x"}, {"\ud800": "x"}, {1, "x"},
    frozenset(), range(3), 101, 1j, decimal.Decimal("1.5"), object(), type, ...,
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
            f"{name}.{method}"
            for method in vars(thing)
            if not method.startswith("__") and callable(getattr(thing, method))
        }
        try:
            thing()
        except TypeError as error:
            if "cannot create" in str(error):
                continue
        except Exception:
            pass
        found.add(name)
    return found


def test_each_is_called() -> None:
    """What is new in the module needs a line in `every_binding`."""
    called = {name.partition(" ")[0] for name in CALLS}
    assert offered() - {"fail_allocation"} <= called  # of builds for tests
    for call in CALLS.values():
        call()


def changed(value: Any, depth: int = 2) -> Iterator[Any]:
    """The value with one of the odd ones somewhere in it, or without a part."""
    yield from ODD
    if depth and isinstance(value, dict):
        for key in list(value)[:8]:
            rest = {name: item for name, item in value.items() if name != key}
            yield rest
            yield from ({**rest, key: odd} for odd in changed(value[key], depth - 1))
    elif depth and isinstance(value, (tuple, list)):
        for at in range(min(len(value), 8 if depth == 2 else 11)):
            yield type(value)([*value[:at], *value[at + 1 :]])
            for odd in changed(value[at], depth - 1):
                yield type(value)([*value[:at], odd, *value[at + 1 :]])


def wrongly(name: str, call: Call) -> None:
    try:
        call()
    except SystemError as error:
        pytest.fail(f"{name}{call.args!r}: {error}")
    except Exception:
        pass


@pytest.mark.parametrize("name", CALLS)
def test_odd_arguments_are_refused_or_taken(name: str) -> None:
    target, args, named = CALLS[name]
    try:
        for at, given in enumerate(args):
            for odd in changed(given):
                wrongly(name, Call(target, (*args[:at], odd, *args[at + 1 :]), named))
        for key, given in named.items():
            for odd in changed(given):
                wrongly(name, Call(target, args, {**named, key: odd}))
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


def test_the_collector_sees_what_they_hold() -> None:
    """What a module or an object refers to without saying so is never freed in a cycle, or freed too early."""
    held = [thing for thing in vars(core).values() if isinstance(thing, type)]
    held += [GeoLocation, DeviceFingerprint, PermitToken, gate_reason, errors.PassportError, errors.VerificationError]
    held += [errors.CanonicalizationError, errors.JSONSyntaxError, errors.KeyFormatError, errors.BaggageError]
    held += [errors.GateInputError, binascii.a2b_base64]
    for thing in held:
        assert any(one is core for one in gc.get_referrers(thing)), thing
    for name in ("principal_id", "taints"):
        gc.get_referrers(sys.intern(name))
    entry = INSTANCES["KestEntry"]()
    for name in ("labels", "policy_context", "parent_ids", "added_taints", "removed_taints", "taints"):
        assert any(one is entry for one in gc.get_referrers(getattr(entry, name))), name
    assert any(one is entry for one in gc.get_referrers(type(entry)))


def test_a_context_by_position() -> None:
    given = dict(every_binding.asked)
    names = ["principal_id", "principal_kind", "action_name", "roles", "resource", "params", "ip", "session_id"]
    context = ActionContext(*(given[name] for name in names))
    assert (context.principal_id, context.params["t"], context.session_id) == ("a", "x", "s")
    with pytest.raises(TypeError, match="at most"):
        ActionContext(*[None] * 40)
    with pytest.raises(TypeError):
        ActionContext("a", "user", "b", principal_id="again")
    with pytest.raises(GateInputError, match="at most"):
        ActionContext("a", "user", "b", params={f"p{n}": n for n in range(5000)})
    with pytest.raises(GateInputError, match=r"64 KiB|65536"):
        ActionContext("a" * 70_000, "user", "b")
    with pytest.raises(GateInputError, match=r"64 KiB|65536"):
        ActionContext("é" * 40_000, "user", "b")

    class Odd(dict[str, Any]):
        def items(self) -> Any:
            return [5]

    with pytest.raises(TypeError, match="pairs"):
        ActionContext("a", "user", "b", params=Odd(x=1))


def test_sets_of_policies_are_sealed_once() -> None:
    made = every_binding.policy_set()
    for call in (
        lambda: made.add("x", True, ()),
        lambda: made.seal("again"),
        lambda: made.add_zone(*every_binding.zones[0]),
    ):
        with pytest.raises(ValueError, match="malformed"):
            call()
    with pytest.raises(ValueError, match="sealed"):
        core.GateCore(
            every_binding.policy_set(False),
            every_binding.rates,
            every_binding.sessions,
            (),
            False,
            1.0,
            None,
            False,
            60,
            None,
        )
    with pytest.raises((TypeError, ValueError)):
        every_binding.decider.replace(every_binding.policy_set(False))


def test_a_zone_goes_forward() -> None:
    for starts in ((0, 0), (5, 4), (0,)):
        with pytest.raises(ValueError, match="malformed"):
            core.GatePolicySet().add_zone(starts, (0,) * (len(starts) - 1))
    core.GatePolicySet().add_zone((0, 1), (3600,))


def test_a_window_lasts_at_least_a_nanosecond() -> None:
    rated = next(
        node for policy in every_binding.policies for node in policy[2] if node[0] == gate_compile.OPS["rate_limit"]
    )
    for until, good in ((1, True), (0, False), (-1, False)):
        made = core.GatePolicySet()
        if good:
            made.add("p", True, ((*rated[:8], until, *rated[9:]),))
            continue
        with pytest.raises(ValueError, match="malformed"):
            made.add("p", True, ((*rated[:8], until, *rated[9:]),))


def test_many_policies_and_values_give_way_to_other_threads() -> None:
    """Sets so large that the interpreter's lock is released while they are made and freed."""
    values = [f"v{n}" for n in range(900)]
    policies = [
        {"name": f"p{n}", "effect": "refuse", "conditions": [{"param_in": {"field": "f", "values": [f"x{n}"]}}]}
        for n in range(1300)
    ]
    policies.append(
        {"name": "last", "effect": "permit", "conditions": [{"param_in": {"field": "f", "values": values}}]}
    )
    gate = Gate.from_dict({"policies": policies})
    for value, kind in (("v0", "permit"), ("v899", "permit"), ("x1299", "refuse"), ("other", "refuse")):
        assert gate.evaluate(ActionContext("a", "user", "b", params={"f": value})).kind == kind
    del gate


def test_a_context_made_the_long_way() -> None:
    """By ``__new__``, as subclasses and copies would."""
    make = ActionContext.__new__
    given = dict(every_binding.asked)
    assert make(ActionContext, **given).session_id == "s"
    assert make(ActionContext, "a", "user", "b", roles=["r"]).roles == ("r",)
    assert make(ActionContext, "a", "user", "b").params == {}
    for args, named in (
        ((None,) * 40, {}),
        ((5, "user", "b"), {}),
        (("a", "user", "b"), {"principal_id": "again"}),
        (("a", "user", "b"), {"nothing": 1}),
        (("a", "user", "b"), {"trust": "x"}),
    ):
        with pytest.raises((TypeError, GateInputError)):
            make(ActionContext, *args, **named)
    full = ActionContext("a", "user", "b")

    def fill() -> None:
        for n in range(5000):
            full.with_param(f"p{n}", n)

    with pytest.raises(GateInputError, match="at most"):
        fill()
    assert len(full.params) < 5000


def test_entries_that_cannot_be_written() -> None:
    make = core.KestEntry
    for entry in (
        make("\ud800"),
        make("op", classification="\ud800"),
        make("op", input_hash="\ud800"),
        make("op", entry_id="\ud800"),
        make("op", labels={"principal": "q"}),
    ):
        with pytest.raises(KestError):
            entry.payload("p")
    taints = [f"t{n:03}" for n in range(200)]
    assert b"t199" in make("op", added_taints=taints, taints=taints).payload("p")


def test_what_a_fallback_may_answer() -> None:
    class Unsure:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    for answer, error in ((5, TypeError), (("x",), TypeError), (("x", Unsure()), ZeroDivisionError)):
        with pytest.raises(error):
            core.hash_value(object(), lambda value, answer=answer: answer)  # type: ignore[misc]


def test_keys_in_armour_that_is_damaged() -> None:
    for body in ("A", "AAAA=", "\u00e9", "?" * 60):
        with pytest.raises(KeyFormatError):
            core.PublicKey.from_pem(f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")


def test_verdicts_of_every_kind_say_what_they_are() -> None:
    gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": []}]})
    assert gate.evaluate(ActionContext("a", "user", "b", session_id="z", ip="1.2.3.4")).is_permit
    verdict = gate.evaluate(ActionContext("a", "user", "b", session_id="z", ip="9.2.3.4"))
    assert (verdict.kind, repr(verdict)[:19]) == ("invalidate", "Verdict.Invalidate("), verdict


def test_the_core_alone_has_no_words_for_verdicts(run_python: Any) -> None:
    run_python(
        """
import sys
from kest import _kestcore as core
assert "kest.gate" not in sys.modules
policies = core.GatePolicySet()
policies.add("p", True, ())
stores = core.InMemoryRateLimitStore(), core.InMemorySessionStore()
gate = core.GateCore(policies.seal("d"), *stores, (), False, 1.0, None, False, 60, None)
verdict = gate.evaluate(core.ActionContext("a", "user", "b"))
assert verdict.is_permit
for read in (lambda: verdict.permit_token, lambda: verdict._refused("gate", "X", "y").reason):
    try: read()
    except RuntimeError as error: assert "import kest.gate" in str(error)
"""
    )


def test_a_session_is_the_same_in_each_spelling_of_its_uuid() -> None:
    plain = "01890a5d-ac96-774b-bcce-b302099a8057"
    upper, bare = plain.upper(), plain.replace("-", "")
    for spelling in (plain, upper, bare, bare.upper(), f"{{{plain}}}", f"urn:uuid:{plain}", f"{{{upper}}}"):
        assert ActionContext("a", "user", "b", session_id=spelling).session_id == plain
    others = [
        plain.replace("a", "g"), plain.replace("a", "/"), plain.replace("a", ":"), bare.replace("a", "`"), f"({plain})",
        f"{{{plain})", f"urn:uuie:{plain}", plain.replace("-", "+"), plain.replace("-", "0"), bare[:-1] + "-", bare + "0000",
        "-" * 36, "-" * 32, plain[:-1] + "-", f"0{plain[:-1]}",
    ]  # fmt: skip
    for other in others:
        assert ActionContext("a", "user", "b", session_id=other).session_id == other


def test_a_window_in_which_an_answer_is_no_truth() -> None:
    """A store elsewhere answers for a limit with something that is not True: no."""

    class Unsure:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    decider, context = every_binding.gate(), every_binding.context
    answers: Any = {0: Unsure(), 1: Unsure()}
    assert not decider.evaluate_with(context, every_binding.known_session, answers)[0].is_permit
    for session in (
        (1, 9, 4.5, 3, None, None, None),
        (1, -1, 5e9, 3, None, None, None),
        (0, 0, -1.0, 0, "::1", None, "d"),
    ):
        verdict, _, _ = decider.evaluate_with(context, session, {0: True, 1: True})
        assert verdict.kind in ("permit", "refuse", "invalidate")
    for session in (
        (1, 0, 1.0, 0, "nowhere", None, None),
        (1, 0, 1.0, 0, None, None, 5),
        (1, 0, 1.0, 0, 5, None, None),
    ):
        with pytest.raises((TypeError, ValueError)):
            decider.evaluate_with(context, session, {})
