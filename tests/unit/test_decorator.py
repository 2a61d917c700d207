"""`kest_verified` as a decorator: every parameter, every kind of function, and what it preserves."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from kest.core import (
    DefaultTrustEvaluator,
    LocalEd25519Provider,
    MockPolicyEngine,
    PolicyDeniedError,
    configure,
    get_active_engine,
    kest_verified,
    register_origin_trust,
)
from kest.core.context import get_current_agent, get_current_passport, get_current_task, get_current_user

pytestmark = pytest.mark.usefixtures("configured")


def last() -> dict[str, Any]:
    return get_current_passport().decode()[-1]


def asked() -> dict[str, Any]:
    """The policy input of the last question."""
    return get_active_engine().asked[-1][1]  # type: ignore[no-any-return]


# --- kinds of callables ----------------------------------------------------------------------------------------------


def test_sync_function_returns_and_raises_as_it_is() -> None:
    marker = object()

    @kest_verified("p")
    def f(raises: bool) -> object:
        if raises:
            raise LookupError("mine")
        return marker

    assert f(False) is marker
    with pytest.raises(LookupError, match="mine"):
        f(True)
    assert len(get_current_passport()) == 2  # the call that raised was decided and signed like the other


async def test_coroutine_function() -> None:
    @kest_verified("p")
    async def f(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    assert inspect.iscoroutinefunction(f)
    assert asyncio.iscoroutinefunction(f) or True  # deprecated in 3.14; inspect's answer is what counts
    coroutine = f(1)
    assert len(get_current_passport()) == 0  # nothing happens before it is awaited
    assert await coroutine == 2
    assert len(get_current_passport()) == 1


def test_generator_function() -> None:
    @kest_verified("p")
    def f(n: int) -> Iterator[Any]:
        received = []
        for i in range(n):
            received.append((yield i))
        return received

    assert inspect.isgeneratorfunction(f)
    steps = f(2)
    assert len(get_current_passport()) == 0  # undecided: not a line has run
    assert next(steps) == 0
    assert steps.send("a") == 1
    with pytest.raises(StopIteration) as stopped:
        steps.send("b")
    assert stopped.value.value == ["a", "b"]
    assert len(get_current_passport()) == 1


def test_generator_receives_thrown_exceptions_and_close() -> None:
    events: list[str] = []

    @kest_verified("p")
    def f() -> Iterator[str]:
        try:
            while True:
                try:
                    yield "item"
                except KeyError:
                    yield "caught"
        finally:
            events.append("finally")

    steps = f()
    next(steps)
    assert steps.throw(KeyError("x")) == "caught"  # type: ignore[attr-defined]
    steps.close()  # type: ignore[attr-defined]
    assert events == ["finally"]
    with pytest.raises(StopIteration):
        next(steps)


def test_yield_from_a_decorated_generator() -> None:
    @kest_verified("p")
    def inner() -> Any:
        got = yield 1
        return got

    def outer() -> Any:
        result = yield from inner()
        yield ("result", result)

    steps = outer()
    assert next(steps) == 1
    assert steps.send("sent") == ("result", "sent")


async def test_async_generator_function() -> None:
    events: list[str] = []

    @kest_verified("p")
    async def f(n: int) -> AsyncIterator[Any]:
        try:
            for i in range(n):
                await asyncio.sleep(0)
                got = yield i
                if got:
                    events.append(got)
        finally:
            events.append("finally")

    assert inspect.isasyncgenfunction(f)
    assert [item async for item in f(3)] == [0, 1, 2]
    assert events == ["finally"]
    steps: Any = f(5)
    await steps.__anext__()
    assert await steps.asend("hello") == 1
    await steps.aclose()
    assert events == ["finally", "hello", "finally"]
    with pytest.raises(StopAsyncIteration):
        await steps.__anext__()


async def test_async_generator_receives_thrown_exceptions() -> None:
    @kest_verified("p")
    async def f() -> AsyncIterator[str]:
        try:
            yield "item"
        except KeyError:
            yield "caught"

    steps: Any = f()
    await steps.__anext__()
    assert await steps.athrow(KeyError("x")) == "caught"
    with pytest.raises(StopAsyncIteration):
        await steps.__anext__()


class Service:
    """Decorated in every position."""

    factor = 3

    @kest_verified("p")
    def method(self, x: int) -> int:
        return x * self.factor

    @classmethod
    @kest_verified("p")
    def class_inside(cls, x: int) -> int:
        return x * cls.factor

    @kest_verified("p")
    @classmethod
    def class_outside(cls, x: int) -> int:
        return x * cls.factor

    @staticmethod
    @kest_verified("p")
    def static_inside(x: int) -> int:
        return x

    @kest_verified("p")
    @staticmethod
    def static_outside(x: int) -> int:
        return x

    @property
    @kest_verified("p")
    def prop(self) -> int:
        return self.factor

    @kest_verified("p")
    async def amethod(self, x: int) -> int:
        return x * self.factor

    @kest_verified("p")
    def steps(self, n: int) -> Iterator[int]:
        yield from range(n)


@pytest.mark.parametrize("name", ["method", "class_inside", "class_outside", "static_inside", "static_outside"])
def test_methods(name: str) -> None:
    service = Service()
    expected = 5 if name.startswith("static") else 15
    assert getattr(service, name)(5) == expected
    assert last()["operation"] == f"Service.{name}"
    if name != "method":
        assert getattr(Service, name)(x=5) == expected
    assert "kest.opaque_args" not in last()["labels"]  # the receiver is no argument


async def test_other_methods() -> None:
    service = Service()
    assert service.prop == 3
    assert await service.amethod(2) == 6
    assert list(service.steps(2)) == [0, 1]
    assert [entry["operation"] for entry in get_current_passport().decode()] == [
        "Service.prop",
        "Service.amethod",
        "Service.steps",
    ]


def test_the_receiver_does_not_enter_the_input_hash() -> None:
    Service().method(1)
    first = last()["input_hash"]
    Service().method(1)
    assert last()["input_hash"] == first
    Service().method(2)
    assert last()["input_hash"] != first


def test_arguments_bind_by_name_for_the_hash() -> None:
    @kest_verified("p")
    def f(a: int, b: int = 2, *args: int, c: int = 3, **kwargs: int) -> None: ...

    def hashed(*args: int, **kwargs: int) -> str:
        f(*args, **kwargs)
        return str(last()["input_hash"])

    assert hashed(1) == hashed(a=1) == hashed(1, 2) == hashed(1, b=2, c=3)
    assert len({hashed(1), hashed(2), hashed(1, 3), hashed(1, 2, 3), hashed(1, c=4), hashed(1, d=3)}) == 6


def test_wrong_arguments_are_a_type_error_and_no_entry() -> None:
    @kest_verified("p")
    def f(a: int) -> None: ...

    with pytest.raises(TypeError):
        f()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        f(1, 2)  # type: ignore[call-arg]
    assert len(get_current_passport()) == 0


def test_partials() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    decorated = kest_verified("p")(functools.partial(add, 1))
    assert decorated(2) == 3
    assert last()["operation"].endswith("add")
    assert list(inspect.signature(decorated).parameters) == ["b"]


async def test_partial_of_a_coroutine_function() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    decorated: Any = kest_verified("p")(functools.partial(add, 1))
    assert inspect.iscoroutinefunction(decorated)
    assert await decorated(2) == 3


class Sync:
    def __call__(self, x: int) -> int:
        return x + 1


class Async:
    async def __call__(self, x: int) -> int:
        await asyncio.sleep(0)
        return x + 1


class Stream:
    def __call__(self, x: int) -> Iterator[int]:
        yield x


async def test_callable_objects_without_a_name() -> None:
    decorated: Any = kest_verified("p")(Sync())
    assert decorated(1) == 2
    assert last()["operation"] == "Sync"
    adecorated: Any = kest_verified("p")(Async())
    assert inspect.iscoroutinefunction(adecorated)
    assert await adecorated(1) == 2
    assert last()["operation"] == "Async"
    stream: Any = kest_verified("p")(Stream())
    assert inspect.isgeneratorfunction(stream)
    assert list(stream(4)) == [4]
    assert decorated.__name__ == "Sync"


async def test_function_that_returns_a_coroutine() -> None:
    @kest_verified("p", added_taints=["t"], source_type="user_input", user="carol")
    def f() -> Any:
        async def body() -> Any:
            await asyncio.sleep(0)
            return get_current_passport().taints, get_current_passport().trust_score, get_current_user()

        return body()

    assert not inspect.iscoroutinefunction(f)
    assert await f() == (("t",), 40, "carol")
    assert get_current_user() is None


def test_lambdas_and_builtins() -> None:
    assert kest_verified("p")(lambda x: x * 2)(4) == 8
    assert kest_verified("p", operation_name="length")(len)([1, 2]) == 2
    assert last()["operation"] == "length"


@pytest.mark.parametrize("thing", [int, Service, 3, None, "f"])
def test_what_cannot_be_decorated(thing: Any) -> None:
    with pytest.raises(TypeError, match="kest_verified"):
        kest_verified("p")(thing)


# --- what stays ------------------------------------------------------------------------------------------------------


def test_signature_name_docstring_and_annotations() -> None:
    def original(a: int, /, b: str = "x", *, c: float | None = None, **rest: bytes) -> list[int]:
        """What it does."""
        return [a]

    original.attribute = 1  # type: ignore[attr-defined]
    decorated = kest_verified("p")(original)
    assert inspect.signature(decorated) == inspect.signature(original)
    assert decorated.__annotations__ == original.__annotations__
    assert (decorated.__name__, decorated.__qualname__, decorated.__module__, decorated.__doc__) == (
        original.__name__, original.__qualname__, original.__module__, original.__doc__,
    )  # fmt: skip
    assert decorated.__wrapped__ is original  # type: ignore[attr-defined]
    assert decorated.attribute == 1  # type: ignore[attr-defined]


def test_kinds_are_not_confused() -> None:
    def sync() -> None: ...

    async def coro() -> None: ...

    def gen() -> Any:
        yield

    async def agen() -> Any:
        yield

    questions = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for fn in (sync, coro, gen, agen):
        decorated = kest_verified("p")(fn)
        assert [ask(decorated) for ask in questions] == [ask(fn) for ask in questions]


def test_decorated_twice() -> None:
    @kest_verified("outer", operation_name="outer")
    @kest_verified("inner", operation_name="inner")
    def f() -> int:
        return 1

    assert f() == 1
    assert [entry["operation"] for entry in get_current_passport().decode()] == ["outer", "inner"]


# --- parameters ------------------------------------------------------------------------------------------------------


def test_policy_one_or_several() -> None:
    kest_verified("a")(lambda: 1)()
    assert get_active_engine().asked[-1][0] == ("a",)
    kest_verified(["a", "b", "a"])(lambda: 1)()
    assert get_active_engine().asked[-1][0] == ("a", "b")
    kest_verified(name for name in ("x", "y"))(lambda: 1)()
    assert get_active_engine().asked[-1][0] == ("x", "y")


def test_engine_and_identity_per_function(recording_engine: Any) -> None:
    own, other = recording_engine(), LocalEd25519Provider("spiffe://kest.test/other")
    kest_verified("p", engine=own, identity=other)(lambda: 1)()
    assert len(own.asked) == 1
    assert not get_active_engine().asked
    assert last()["labels"]["principal"] == "spiffe://kest.test/other"
    denies = kest_verified("p", engine=MockPolicyEngine(allow=False))(lambda: 1)
    with pytest.raises(PolicyDeniedError):
        denies()


@pytest.mark.parametrize("keyword", ["source_type", "origin"])
@pytest.mark.parametrize(
    ("name", "score"),
    [("system", 100), ("internal", 100), ("verified_rag", 90), ("third_party_api", 60), ("user_input", 40),
     ("internet", 10), ("llm", 0), ("adversarial", 0)],
)  # fmt: skip
def test_origin(keyword: str, name: str, score: int) -> None:
    kest_verified("p", **{keyword: name})(lambda: 1)()  # type: ignore[arg-type]
    assert last()["trust_score"] == score
    assert asked()["source_type"] == name


def test_registered_origin() -> None:
    register_origin_trust("test_decorator.partner", 73)
    kest_verified("p", source_type="test_decorator.partner")(lambda: 1)()
    assert last()["trust_score"] == 73


def test_trust_override() -> None:
    kest_verified("p", source_type="internet")(lambda: 1)()
    kest_verified("p", trust_override=95)(lambda: 1)()
    assert last()["trust_score"] == 95
    assert last()["labels"]["kest.trust_override"] == "95"
    kest_verified("p", trust_override=0)(lambda: 1)()
    assert last()["trust_score"] == 0
    assert "kest.trust_override" not in last()["labels"]


def test_trust_evaluator() -> None:
    calls: list[Any] = []

    class Average:
        def calculate(self, self_score: int, parent_scores: Any) -> int:
            calls.append((self_score, tuple(parent_scores)))
            return 55

    kest_verified("p", trust_evaluator=Average(), source_type="user_input")(lambda: 1)()
    kest_verified("p", trust_evaluator=Average())(lambda: 1)()
    assert calls == [(40, ()), (100, (55,))]
    assert last()["trust_score"] == 55
    kest_verified("p", trust_evaluator=DefaultTrustEvaluator(), source_type="third_party_api")(lambda: 1)()
    assert last()["trust_score"] == 55 * 60 // 100


def test_taints() -> None:
    kest_verified("p", added_taints=["b", "a", "b"])(lambda: 1)()
    assert (last()["added_taints"], last()["taints"]) == (["a", "b"], ["a", "b"])
    kest_verified("p", removed_taints={"a"}, added_taints=("é", "z"))(lambda: 1)()
    assert last()["removed_taints"] == ["a"]
    assert last()["taints"] == ["b", "z", "é"]


@pytest.mark.parametrize("name", ["user", "agent", "task"])
def test_who(name: str) -> None:
    getter = {"user": get_current_user, "agent": get_current_agent, "task": get_current_task}[name]

    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        @kest_verified("p", **{name: value})
        def f(who: str = "from-argument", other: int = 0) -> Any:
            return getter()

        result = f(*args, **kwargs)
        identity = json.loads(last()["labels"]["kest.identity"])
        assert identity[name] == asked()[name] == asked()["subject"][name] == result
        assert getter() is None
        return result

    assert call("static") == "static"
    assert call(lambda: "zero") == "zero"
    assert call(lambda who: who + "!") == "from-argument!"
    assert call(lambda who: who, "positional") == "positional"
    assert call(lambda other, who: f"{who}{other}", other=3) == "from-argument3"
    assert call(lambda **everything: ",".join(everything)) == "who,other"


def test_nested_calls_inherit_the_caller() -> None:
    seen = []

    @kest_verified("p")
    def inner() -> None:
        seen.append((get_current_user(), get_current_agent(), get_current_task()))

    @kest_verified("p", agent="a2", task=lambda: None)
    def middle() -> None:
        inner()

    @kest_verified("p", user="u", agent="a", task="t")
    def outer() -> None:
        inner()
        middle()
        inner()

    outer()
    assert seen == [("u", "a", "t"), ("u", "a2", None), ("u", "a", "t")]
    assert get_current_user() is None


def test_resource() -> None:
    @kest_verified("p", resource_id=lambda doc: f"doc/{doc}", resource_attr=lambda doc: {"id": doc, "tags": ["x"]})
    def f(doc: str) -> None: ...

    f("7")
    assert asked()["object"] == {"id": "doc/7", "attributes": {"id": "7", "tags": ["x"]}}
    assert json.loads(last()["labels"]["kest.resource_attr"]) == {"id": "7", "tags": ["x"]}
    kest_verified("p", resource_id="fixed", resource_attr={"a": 1})(lambda: 1)()
    assert asked()["object"] == {"id": "fixed", "attributes": {"a": 1}}
    kest_verified("p", operation_name="op")(lambda: 1)()
    assert asked()["object"] == {"id": "op", "attributes": {}}
    assert "kest.resource_attr" not in last()["labels"]


def test_context_map() -> None:
    @kest_verified("p", context_map={"n": "amount", "big": lambda amount: amount > 10, "zero": lambda: 0})
    def f(amount: int, note: str = "") -> None: ...

    f(12)
    assert asked()["args"] == {"n": 12, "big": True, "zero": 0}
    kest_verified("p")(lambda x: 1)(5)
    assert asked()["args"] == {}


def test_operation_name_and_classification() -> None:
    def f() -> None: ...

    kest_verified("p")(f)()
    assert last()["operation"] == "test_operation_name_and_classification.f"
    for classification in ("system", "data", "critic", "snapshot", "sanitizer"):
        kest_verified("p", operation_name="named", classification=classification)(f)()
        assert (last()["operation"], last()["classification"]) == ("named", classification)


def test_secret_parameters_do_not_enter_the_hash() -> None:
    @kest_verified("p", secret=["pin"])
    def f(pin: str, amount: int = 1) -> None: ...

    @kest_verified("p")
    def g(pin: str, amount: int = 1) -> None: ...

    hashes = []
    for fn in (f, g):
        for pin, amount in (("1234", 1), ("9999", 1), ("1234", 2)):
            fn(pin, amount)
            hashes.append(last()["input_hash"])
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(set(hashes[3:])) == 3
    assert hashes[0] not in hashes[3:]


# --- wrong when the decorator is applied -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "names"),
    [
        ({"policy": []}, ValueError, "policy"),
        ({"policy": ()}, ValueError, "policy"),
        ({"policy": ""}, ValueError, "policy"),
        ({"policy": " "}, ValueError, "policy"),
        ({"policy": ["a", ""]}, ValueError, "policy"),
        ({"policy": [1]}, TypeError, "policy"),
        ({"policy": 1}, TypeError, None),
        ({"policy": None}, TypeError, None),
        ({"engine": object()}, TypeError, "engine"),
        ({"engine": MockPolicyEngine}, TypeError, "engine"),
        ({"identity": object()}, TypeError, "identity"),
        ({"identity": LocalEd25519Provider}, TypeError, "identity"),
        ({"source_type": "nowhere"}, ValueError, "source_type"),
        ({"source_type": ""}, ValueError, "source_type"),
        ({"source_type": 5}, TypeError, "source_type"),
        ({"origin": "nowhere"}, ValueError, "source_type"),
        ({"origin": ""}, ValueError, "source_type"),
        ({"origin": "llm", "source_type": "system"}, ValueError, "origin"),
        ({"trust_override": True}, TypeError, "trust_override"),
        ({"trust_override": 50.0}, TypeError, "trust_override"),
        ({"trust_override": "50"}, TypeError, "trust_override"),
        ({"trust_override": -1}, ValueError, "trust_override"),
        ({"trust_override": 101}, ValueError, "trust_override"),
        ({"trust_evaluator": object()}, TypeError, "trust_evaluator"),
        ({"trust_evaluator": DefaultTrustEvaluator}, TypeError, "trust_evaluator"),
        ({"added_taints": [""]}, ValueError, "added_taints"),
        ({"added_taints": [1]}, TypeError, "added_taints"),
        ({"added_taints": [None]}, TypeError, "added_taints"),
        ({"added_taints": "pii"}, TypeError, "added_taints"),
        ({"removed_taints": [""]}, ValueError, "removed_taints"),
        ({"removed_taints": [b"x"]}, TypeError, "removed_taints"),
        ({"removed_taints": "pii"}, TypeError, "removed_taints"),
        ({"user": 5}, TypeError, "user"),
        ({"agent": ["x"]}, TypeError, "agent"),
        ({"task": b"x"}, TypeError, "task"),
        ({"resource_id": 5}, TypeError, "resource_id"),
        ({"resource_attr": [1]}, TypeError, "resource_attr"),
        ({"user": lambda nobody: "x"}, TypeError, "user"),
        ({"resource_attr": lambda nobody: {}}, TypeError, "resource_attr"),
        ({"context_map": ["x"]}, TypeError, "context_map"),
        ({"context_map": {"n": "nobody"}}, ValueError, "context_map"),
        ({"context_map": {"": "x"}}, TypeError, "context_map"),
        ({"context_map": {1: "x"}}, TypeError, "context_map"),
        ({"context_map": {"n": lambda nobody: 1}}, TypeError, "context_map"),
        ({"operation_name": ""}, TypeError, "operation_name"),
        ({"operation_name": 5}, TypeError, "operation_name"),
        ({"classification": "secret"}, ValueError, "classification"),
        ({"classification": ""}, ValueError, "classification"),
        ({"secret": "x"}, TypeError, "secret"),
        ({"secret": ["nobody"]}, ValueError, "secret"),
    ],
)
def test_errors_when_the_decorator_is_applied(
    kwargs: dict[str, Any], error: type[Exception], names: str | None
) -> None:
    def f(x: int = 0) -> None: ...

    with pytest.raises(error, match=names):
        kest_verified(**{"policy": "p", **kwargs})(f)


def test_unknown_keyword() -> None:
    with pytest.raises(TypeError):
        kest_verified("p", polcy="q")  # type: ignore[call-arg]


def test_decorating_needs_no_configuration() -> None:
    configure(clear=True)

    @kest_verified("p")
    def f() -> int:
        return 1

    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())
    assert f() == 1
