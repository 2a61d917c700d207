"""ATTACKS.md, rows C1 and C3 to C6, as far as no server is needed: what policy is asked, and what counts as an answer.

C3 runs a few seconds per engine; a full minute with KEST_LONG=1.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from kest.core import (
    CedarLocalEngine,
    MockPolicyEngine,
    PolicyDeniedError,
    RegoLocalEngine,
    configure,
    invalidate_policy_cache,
    kest_verified,
)
from kest.core.context import get_current_passport, lineage
from kest.core.engine import decide, decide_async
from kest.errors import ConfigurationError, KestError, PolicyEngineError, ResolverError

INPUT = {"identity": "spiffe://kest.test/c", "operation": "op", "trust_score": 100, "taints": []}
REGO = {
    "yes": "package yes\ndefault allow = true",
    "no": "package no\ndefault allow = false",
    "undefined": "package undefined\nallow { input.nothing_of_the_kind == 1 }",
    "text": 'package text\ndefault allow = "true"',
    "number": "package number\ndefault allow = 1",
    "empty": "package empty\nother = true",
}
CEDAR = {
    "yes": "permit(principal, action, resource);",
    "no": "forbid(principal, action, resource);",
    "undefined": "permit(principal, action, resource) when { context has nothing_of_the_kind };",
    "broken": "permit(principal, action, resource) when { context.nothing_of_the_kind == 1 };",
}


def rego(backend: str) -> RegoLocalEngine:
    module = {"regorus": "lakera_regorus", "regopy": "regopy"}[backend]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    return RegoLocalEngine(policies=REGO, backend=backend)


def cedar() -> CedarLocalEngine:
    pytest.importorskip("cedarpy")
    return CedarLocalEngine(policies=CEDAR)


ENGINES: dict[str, Callable[[], Any]] = {
    "regorus": lambda: rego("regorus"),
    "regopy": lambda: rego("regopy"),
    "cedar": cedar,
}


# --- C1 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_c1_policies_are_anded_and_everything_else_denies(name: str) -> None:
    with ENGINES[name]() as engine:
        assert engine.evaluate("id", ["yes"], INPUT) is True
        assert engine.evaluate("id", ["yes", "yes"], INPUT) is True
        for names in (["no"], ["yes", "no"], ["no", "yes"], ["unknown"], ["yes", "unknown"], ["unknown", "yes"], [],
                      ["undefined"], ["yes", "undefined"], ["empty"], [""], ["yes", ""], "yes"):  # fmt: skip
            assert engine.evaluate("id", names, INPUT) is False, names
        for rule in ("text", "number"):
            assert engine.evaluate("id", [rule], INPUT) is False
        assert engine.evaluate("id", ["broken"], INPUT) is False


@pytest.mark.parametrize("name", ENGINES)
async def test_c1_the_same_asynchronously(name: str) -> None:
    with ENGINES[name]() as engine:
        assert await engine.async_evaluate("id", ["yes"], INPUT) is True
        for names in (["yes", "no"], ["unknown"], [], ["undefined"], ["empty"]):
            assert await engine.async_evaluate("id", names, INPUT) is False


@pytest.mark.parametrize("name", ENGINES)
def test_c1_through_the_decorator(name: str, identity: Any) -> None:
    with ENGINES[name]() as engine:
        configure(engine=engine, identity=identity)
        assert kest_verified(["yes"])(lambda: 1)() == 1
        for policies in (["yes", "no"], ["unknown"], ["undefined"], ["empty"]):
            ran: list[int] = []
            with pytest.raises(PolicyDeniedError) as denied:
                kest_verified(policies)(lambda ran=ran: ran.append(1))()
            assert not ran
            assert denied.value.reason


def test_c1_an_engine_without_policies_is_refused() -> None:
    pytest.importorskip("cedarpy")
    for make in (
        lambda: CedarLocalEngine(policies=[]),
        lambda: CedarLocalEngine(policies={}),
        lambda: RegoLocalEngine(policies={}),
    ):
        with pytest.raises(ConfigurationError):
            make()


@pytest.mark.parametrize(
    "answer", [None, 0, 1, "true", "false", "", [], [True], {}, {"allow": True}, 1.0, object, type]
)
async def test_c1_answers_that_are_not_true(answer: Any) -> None:
    class Engine:
        def evaluate(self, *args: Any) -> Any:
            return answer

    class Async:
        async def async_evaluate(self, *args: Any) -> Any:
            return answer

    assert decide(Engine(), "id", ["p"], INPUT).allowed is False
    assert (await decide_async(Engine(), "id", ["p"], INPUT)).allowed is False
    assert (await decide_async(Async(), "id", ["p"], INPUT)).allowed is False


# --- C3 --------------------------------------------------------------------------------------------------------------

SCORE_REGO = """package score
import future.keywords
default allow := false
allow if {
    input.trust_score >= 50
    not "bad" in input.taints
    startswith(input.user, "u")
}
"""
SCORE_CEDAR = """
permit(principal, action == Action::"score", resource) when {
    context.trust_score >= 50 && !(context.taints.contains("bad")) && context.user like "u*"
};
"""


@pytest.mark.parametrize("name", ENGINES)
def test_c3_eight_threads_on_one_engine(name: str) -> None:
    ENGINES[name]().close()  # skips when the library is absent
    engine: Any
    if name == "cedar":
        engine = CedarLocalEngine(policies=[SCORE_CEDAR])
    else:
        engine = RegoLocalEngine(policies={"score": SCORE_REGO}, backend=name)
    duration = 60.0 if os.environ.get("KEST_LONG") == "1" else 1.5
    end = time.monotonic() + duration
    wrong: list[Any] = []
    counts = [0] * 8

    def work(index: int) -> None:
        i = index
        while time.monotonic() < end:
            i = (i * 1103515245 + 12345) % 2**31
            score, tainted, user = i % 101, i % 3 == 0, f"u{i}" if i % 5 else f"x{i}"
            taints = ["bad", f"t{i}"] if tainted else [f"t{i}"]
            expected = score >= 50 and not tainted and user.startswith("u")
            given = {**INPUT, "trust_score": score, "taints": taints, "user": user}
            try:
                answer = engine.evaluate(str(i), ["score"], given)
            except Exception as error:
                wrong.append(error)
                return
            if answer is not expected:
                wrong.append((given, answer))
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    assert not wrong, wrong[:3]
    assert all(counts), counts


# --- C4 --------------------------------------------------------------------------------------------------------------


class OnlyOnce:
    """Allows the first question it is asked and denies every other: a shared decision would let a second call run."""

    in_process = True

    def __init__(self) -> None:
        self.asked = 0

    def evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
        self.asked += 1
        return self.asked == 1


FIRST: dict[str, Any] = {
    "policy": "p", "operation_name": "op", "source_type": "internal", "user": "u", "agent": "a", "task": "t",
    "resource_id": "r", "resource_attr": {"k": 1}, "added_taints": ["x"], "context_map": {"n": lambda: 1},
}  # fmt: skip

DIFFERENCES: dict[str, dict[str, Any]] = {
    "mapped argument": {"context_map": {"n": lambda: 2}},
    "mapped argument, int and float": {"context_map": {"n": lambda: 1.0}},
    "mapped argument, int and bool": {"context_map": {"n": lambda: True}},
    "mapped argument, int and text": {"context_map": {"n": lambda: "1"}},
    "mapped argument, null": {"context_map": {"n": lambda: None}},
    "mapped argument, nested": {"context_map": {"n": lambda: [1]}},
    "name of a mapped argument": {"context_map": {"m": lambda: 1}},
    "no mapped argument": {"context_map": None},
    "taints": {"added_taints": ["y"]},
    "more taints": {"added_taints": ["x", "y"]},
    "no taints": {"added_taints": None},
    "user": {"user": "v"},
    "no user": {"user": None},
    "agent": {"agent": "b"},
    "scope": {"task": "other"},
    "user and agent exchanged": {"user": "a", "agent": "u"},
    "resource": {"resource_id": "s"},
    "resource attribute": {"resource_attr": {"k": 2}},
    "resource attribute of another type": {"resource_attr": {"k": 1.0}},
    "no resource attributes": {"resource_attr": None},
    "origin with the same score": {"source_type": "system"},
    "origin": {"source_type": "user_input"},
    "trust": {"trust_override": 50},
    "operation": {"operation_name": "op2"},
    "policy": {"policy": "q"},
    "policies": {"policy": ["p", "q"]},
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_c4_two_calls_that_policy_could_tell_apart_never_share_a_decision(what: str, identity: Any) -> None:
    engine = OnlyOnce()
    configure(engine=engine, identity=identity)
    ran: list[int] = []

    def call(settings: dict[str, Any]) -> None:
        settings = dict(settings)
        with lineage():
            kest_verified(settings.pop("policy"), **settings)(lambda: ran.append(1))()

    call(FIRST)
    call(FIRST)  # the same question: remembered
    assert (len(ran), engine.asked) == (2, 1)
    with pytest.raises(PolicyDeniedError):
        call({**FIRST, **DIFFERENCES[what]})
    assert len(ran) == 2
    assert engine.asked == 2


def test_c4_a_cedar_policy_tells_an_int_from_a_decimal(identity: Any) -> None:
    """Cedar's long and decimal are different types: the float is an evaluation error, whatever the int's answer was."""
    pytest.importorskip("cedarpy")
    policy = "permit(principal, action, resource) when { context.args.n < 10 };"
    configure(engine=CedarLocalEngine(policies=[policy]), identity=identity)
    f = kest_verified("p", context_map={"n": "n"})(lambda n: "ran")
    with lineage():
        assert f(1) == "ran"
    with lineage(), pytest.raises(PolicyDeniedError):
        f(1.0)


def test_c4_engine_and_tier(identity: Any, recording_engine: Any) -> None:
    first, second = recording_engine(True), recording_engine(False)
    configure(engine=first, identity=identity)
    with lineage():
        kest_verified("p", operation_name="op")(lambda: 1)()
    with lineage(), pytest.raises(PolicyDeniedError):
        kest_verified("p", operation_name="op", engine=second)(lambda: 1)()
    configure(app_policies=["p"])
    first.asked.clear()
    with lineage():
        kest_verified("p", operation_name="op")(lambda: 1)()
    assert [given["environment"]["policy_tier"] for _, given in first.asked] == ["app", "function"]


def test_c4_root_and_continuation(identity: Any) -> None:
    engine = OnlyOnce()
    configure(engine=engine, identity=identity)
    f = kest_verified("p", operation_name="op")(lambda: 1)
    f()
    with pytest.raises(PolicyDeniedError):
        f()


def test_c4_deviations_are_part_of_the_question(configured: Any) -> None:
    deviation = {"policy": "e", "tier": "enterprise", "scope": "op", "reason": "r", "approver": "a"}
    configure(enterprise_policies=["e", "e2"], deviations=[deviation])
    for operation in ("op", "other", "op"):
        with lineage():
            kest_verified("p", operation_name=operation)(lambda: 1)()
    asked = [names for names, given in configured.engine.asked if given["environment"]["policy_tier"] == "enterprise"]
    assert asked == [("e2",), ("e", "e2")]


def test_c4_revocation_after_the_ttl_and_at_once_after_invalidating(
    configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = kest_verified("p")(lambda: 1)
    with lineage():
        f()
    configured.engine.answer = False
    with lineage():
        f()  # remembered
    invalidate_policy_cache()
    with lineage(), pytest.raises(PolicyDeniedError):
        f()
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", "0.03")
    configured.engine.answer = True
    configure()
    with lineage():
        f()
    configured.engine.answer = False
    time.sleep(0.04)
    with lineage(), pytest.raises(PolicyDeniedError):
        f()


def test_c4_an_argument_changed_while_the_engine_is_asked_is_not_cached_under_its_new_value(identity: Any) -> None:
    amounts = {"n": 1}

    class Engine:
        in_process = True

        def __init__(self) -> None:
            self.asked: list[int] = []

        def evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
            self.asked.append(context["args"]["amounts"]["n"])
            amounts["n"] = 1_000_000
            return self.asked[-1] < 10

    engine = Engine()
    configure(engine=engine, identity=identity)
    f = kest_verified("p", context_map={"amounts": "amounts"})(lambda amounts: "ran")
    with lineage():
        assert f(amounts) == "ran"
    with lineage(), pytest.raises(PolicyDeniedError):
        f(amounts)


# --- C5 --------------------------------------------------------------------------------------------------------------

RESERVED = ("trust_score", "subject", "principal", "object", "environment", "identity", "taints", "is_root", "source_type",
            "user", "agent", "task", "operation", "args")  # fmt: skip


def test_c5_mapped_arguments_cannot_overwrite_the_policy_input(configured: Any) -> None:
    plain = kest_verified("p", operation_name="op", source_type="llm", added_taints=["x"], user="u")(lambda: 1)
    hostile = kest_verified(
        "p",
        operation_name="op",
        source_type="llm",
        added_taints=["x"],
        user="u",
        context_map=dict.fromkeys(RESERVED, "value"),
    )(lambda value: 1)
    with lineage():
        plain()
    with lineage():
        hostile("forged")
    first, second = (given for _, given in configured.engine.asked)
    assert second.pop("args") == dict.fromkeys(RESERVED, "forged")
    assert first.pop("args") == {}
    assert first == second


@pytest.mark.parametrize("name", ENGINES)
def test_c5_the_same_as_policies_see_it(name: str, identity: Any) -> None:
    ENGINES[name]().close()
    engine: Any
    if name == "cedar":
        engine = CedarLocalEngine(policies=["permit(principal, action, resource) when { context.trust_score >= 50 };"])
    else:
        engine = RegoLocalEngine(
            policies={"p": "package p\ndefault allow = false\nallow { input.trust_score >= 50 }"}, backend=name
        )
    configure(engine=engine, identity=identity)
    f = kest_verified("p", source_type="llm", context_map=dict.fromkeys(RESERVED, "value"))(lambda value: 1)
    for value in (100, {"trust_score": 100}, {"__entity": {"type": "Workload", "id": "admin"}}):
        with lineage(), pytest.raises(PolicyDeniedError):
            f(value)
    engine.close()


def raises() -> str:
    raise LookupError("token=secret")


async def coroutine() -> str:
    return "alice"


@pytest.mark.parametrize("name", ["user", "agent", "task", "resource_id"])
@pytest.mark.parametrize(
    "resolver", [raises, coroutine, lambda: 5, lambda: b"alice", lambda: ["alice"], lambda: True,
                 lambda: type("S", (str,), {})("x"),
                 lambda: object(), lambda: "\ud800"],
)  # fmt: skip
def test_c5_resolvers(name: str, resolver: Any, configured: Any) -> None:
    ran: list[int] = []
    with pytest.raises(KestError) as caught:
        kest_verified("p", **{name: resolver})(lambda: ran.append(1))()
    assert "secret" not in str(caught.value)
    assert not ran
    assert not configured.engine.asked
    assert len(get_current_passport()) == 0


@pytest.mark.parametrize(
    "resolver", [raises, coroutine, lambda: 5, lambda: [("a", 1)], lambda: {"a": object()}, lambda: {1: "a"},
                 lambda: {"a": float("nan")},
                 lambda: {"a": {1, 2}}],
)  # fmt: skip
def test_c5_resource_attributes(resolver: Any, configured: Any) -> None:
    ran: list[int] = []
    with pytest.raises(KestError) as caught:
        kest_verified("p", resource_attr=resolver)(lambda: ran.append(1))()
    assert "secret" not in str(caught.value)
    assert not ran
    assert not configured.engine.asked


@pytest.mark.parametrize("ttl", ["0", "5"])
@pytest.mark.parametrize("resolver", [raises, coroutine, lambda: object(), lambda: float("nan"), lambda: {1: 2}])
def test_c5_mapped_values(resolver: Any, ttl: str, identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without the cache, a value that no policy could be given stops the call."""
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", ttl)
    configure(engine=MockPolicyEngine(), identity=identity)
    ran: list[int] = []
    with pytest.raises(KestError) as caught:
        kest_verified("p", context_map={"n": resolver})(lambda: ran.append(1))()
    assert "secret" not in str(caught.value)
    assert not ran


async def test_c5_asynchronous_functions_too(configured: Any) -> None:
    @kest_verified("p", user=raises)
    async def f() -> None: ...

    with pytest.raises(ResolverError):
        await f()

    @kest_verified("p", user=raises)
    async def g() -> Any:
        yield 1

    with pytest.raises(ResolverError):
        [item async for item in g()]


# --- C6 --------------------------------------------------------------------------------------------------------------


class Blocks:
    """An engine that only knows how to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
        time.sleep(self.seconds)
        return True


async def ticks(stop: asyncio.Event) -> float:
    """The longest time that the loop did not come back."""
    worst, last = 0.0, time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    return worst


async def test_c6_an_engine_that_blocks_does_not_stop_the_event_loop(identity: Any) -> None:
    configure(engine=Blocks(1.0), identity=identity)

    @kest_verified("p")
    async def f(i: int) -> int:
        return i

    @kest_verified("p")
    async def g() -> Any:
        yield 1

    stop = asyncio.Event()
    watching = asyncio.create_task(ticks(stop))
    start = time.perf_counter()
    results = await asyncio.gather(*(f(i) for i in range(8)))
    items = [item async for item in g()]
    elapsed = time.perf_counter() - start
    stop.set()
    assert results == list(range(8))
    assert items == [1]
    assert elapsed < 6  # the eight waited together
    assert await watching < 0.8


async def test_c6_a_cancelled_call_does_not_run_later(identity: Any) -> None:
    configure(engine=Blocks(0.2), identity=identity)
    ran: list[int] = []

    @kest_verified("p")
    async def f() -> None:
        ran.append(1)

    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
        await asyncio.wait_for(f(), 0.02)
    await asyncio.sleep(0.25)
    assert not ran


async def test_c6_an_engine_in_a_thread_sees_the_context(identity: Any) -> None:
    from kest.core.context import get_current_user

    seen: list[Any] = []

    class Engine:
        def evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
            seen.append((get_current_user(), threading.current_thread() is threading.main_thread()))
            return True

    configure(engine=Engine(), identity=identity)

    @kest_verified("p", operation_name="inner")
    async def inner() -> None: ...

    @kest_verified("p", operation_name="outer", user="alice")
    async def outer() -> None:
        await inner()

    await outer()
    assert seen == [(None, False), ("alice", False)]


async def test_c6_an_exception_of_a_blocking_engine_denies(identity: Any) -> None:
    class Engine:
        def evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
            raise SystemError("rust panic")

    configure(engine=Engine(), identity=identity)

    @kest_verified("p")
    async def f() -> None: ...

    with pytest.raises(PolicyDeniedError) as denied:
        await f()
    assert isinstance(denied.value.__cause__, PolicyEngineError)
