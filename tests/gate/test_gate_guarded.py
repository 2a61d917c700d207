"""`guarded` and `guarded_tool`: what does not run, for every kind of function, and what the gate gets to see of a call."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import functools
import inspect
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from kest.core import LocalEd25519Provider, MockPolicyEngine, configure, kest_verified
from kest.core.claims import Claims
from kest.core.context import Caller, caller_var, lineage
from kest.gate import Gate, GateInputError, Invalidated, Refused, guarded, guarded_tool
from kest.gate.current import current_permit

Make = Callable[..., Any]
ALICE: dict[str, Any] = {"_principal_id": "alice"}


class Watched(Gate):
    """A gate that remembers what it was asked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.asked: list[Any] = []
        decide = self._decide

        def remembering(context: Any) -> Any:
            self.asked.append(context)
            return decide(context)

        self._decide = remembering


def gate(*conditions: dict[str, Any], **options: Any) -> Watched:
    return Watched({"policies": [{"name": "p", "effect": "permit", "conditions": list(conditions)}]}, **options)


@pytest.fixture
def small() -> Watched:
    """Permits refunds of at most 100; an invariant caps them at 1000."""
    return gate(
        {"action": "refund"}, {"param_max": {"field": "amount", "max": 100}}, invariants=[("cap", "amount", 1000)]
    )


# --- every kind of function ---


def test_a_function(small: Watched) -> None:
    ran = []

    @guarded(small, param_fields={"amount": "sum"})
    def refund(order: str, sum: float = 50.0, **more: Any) -> tuple[Any, ...]:
        """Pays back."""
        ran.append(order)
        return order, sum, more

    assert refund("A", **ALICE) == ("A", 50.0, {})  # defaults count
    assert refund("B", sum=100, **ALICE, _other=1) == ("B", 100, {"_other": 1})  # not ours
    with pytest.raises(Refused) as refused:
        refund("C", 100.01, **ALICE)
    assert (refused.value.code, refused.value.evaluator) == ("NO_POLICY_MATCH", "policy")
    assert ran == ["A", "B"]
    assert (refund.__name__, refund.__doc__) == ("refund", "Pays back.")
    assert list(inspect.signature(refund).parameters) == ["order", "sum", "more"]
    context = small.asked[0]
    assert (context.principal_id, context.principal_kind, context.action_name) == ("alice", "user", "refund")
    assert (context.params, context.roles, context.trust) == ({"amount": 50.0}, (), None)
    with pytest.raises(TypeError, match="missing"):
        refund(**ALICE)


def test_everything_that_a_call_can_say() -> None:
    watched = gate()

    @guarded(watched, action="orders.read")
    def read() -> None: ...

    from kest.gate import DeviceFingerprint, GeoLocation

    read(
        **ALICE, _principal_kind="agent", _roles=["support"], _resource="orders/1", _ip="10.0.0.1", _session_id="sess-1",
        _current_geo=GeoLocation("IN"), _device=DeviceFingerprint("d"),
    )  # fmt: skip
    context = watched.asked[0]
    assert (context.action_name, context.principal_kind, context.roles) == ("orders.read", "agent", ("support",))
    assert (context.resource, context.ip, context.session_id) == ("orders/1", "10.0.0.1", "sess-1")
    assert (context.current_geo, context.device) == (GeoLocation("IN"), DeviceFingerprint("d"))
    for bad in ({"_ip": "nowhere"}, {"_principal_kind": "root"}, {"_session_id": "a b"}):
        with pytest.raises(ValueError):
            read(**ALICE, **bad)


async def test_a_coroutine_function(small: Watched) -> None:
    ran = []

    @guarded(small, param_fields={"amount": "amount"})
    async def refund(amount: float) -> float:
        ran.append(amount)
        await asyncio.sleep(0)
        return amount

    assert inspect.iscoroutinefunction(refund)
    assert await refund(1.0, **ALICE) == 1.0
    pending = refund(5000.0, **ALICE)
    with pytest.raises(Refused):
        await pending
    assert ran == [1.0]


def test_a_generator_is_gated_before_its_first_step(small: Watched) -> None:
    ran = []

    @guarded(small, param_fields={"amount": "amount"})
    def refund(amount: float) -> Iterator[float]:
        ran.append(amount)
        got = yield amount
        while True:
            try:
                got = yield got
            except KeyError:
                got = "caught"

    assert inspect.isgeneratorfunction(refund)
    steps: Any = refund(1.0, **ALICE)
    assert (next(steps), steps.send("x"), steps.throw(KeyError())) == (1.0, "x", "caught")
    steps.close()
    with pytest.raises(Refused):
        next(refund(5000.0, **ALICE))
    assert ran == [1.0]


async def test_an_async_generator_is_gated_before_its_first_step(small: Watched) -> None:
    ran: list[Any] = []

    @guarded(small, param_fields={"amount": "amount"})
    async def refund(amount: float) -> AsyncIterator[Any]:
        ran.append(amount)
        got: Any = yield amount
        try:
            while got != "end":
                try:
                    got = yield got
                except KeyError:
                    got = "caught"
        finally:
            ran.append("closed")

    assert inspect.isasyncgenfunction(refund)
    steps: Any = refund(1.0, **ALICE)
    assert await steps.__anext__() == 1.0
    assert await steps.asend("x") == "x"
    assert await steps.athrow(KeyError()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await steps.asend("end")
    other: Any = refund(2.0, **ALICE)
    await other.__anext__()
    await other.asend(1)
    await other.aclose()
    with pytest.raises(Refused):
        await refund(5000.0, **ALICE).__anext__()
    assert ran == [1.0, "closed", 2.0, "closed"]


def test_methods_partials_and_callable_objects(small: Watched) -> None:
    ran = []
    protect = guarded(small, action="refund", param_fields={"amount": "amount"})

    class Shop:
        @protect
        def method(self, amount: float) -> Any:
            ran.append((type(self).__name__, amount))

        @protect
        @classmethod
        def of_class(cls, amount: float) -> Any:
            ran.append((cls.__name__, amount))

        @classmethod
        @protect
        def inner(cls, amount: float) -> Any:
            ran.append((cls.__name__, amount))

        @protect
        @staticmethod
        def static(amount: float) -> Any:
            ran.append(("static", amount))

        def __call__(self, amount: float) -> None:
            ran.append(("called", amount))

    def two(who: str, amount: float) -> None:
        ran.append((who, amount))

    calls: list[Any] = [
        Shop().method, Shop.of_class, Shop.inner, Shop.static, protect(Shop()), protect(functools.partial(two, "partial")),
    ]  # fmt: skip
    for call in calls:
        call(1.0, **ALICE)
        with pytest.raises(Refused):
            call(5000.0, **ALICE)
    assert [name for name, _ in ran] == ["Shop", "Shop", "Shop", "static", "called", "partial"]
    assert guarded(small)(functools.partial(two, "x")).__name__  # has a name of its own now
    amounts = protect(functools.partial(two, "bound", 5000.0))  # the value that a partial brings counts as well
    with pytest.raises(Refused):
        amounts(**ALICE)


async def test_coroutine_functions_behind_partials_and_objects(small: Watched) -> None:
    async def refund(amount: float) -> float:
        return amount

    class Async:
        async def __call__(self, amount: float) -> float:
            return amount

    for fn in (functools.partial(refund), Async()):
        wrapped: Any = guarded(small, action="refund", param_fields={"amount": "amount"})(fn)
        assert inspect.iscoroutinefunction(wrapped)
        assert await wrapped(1.0, **ALICE) == 1.0
        with pytest.raises(Refused):
            await wrapped(5000.0, **ALICE)


# --- parameters ---


@pytest.mark.parametrize(
    "value",
    [
        math.nan, math.inf, -math.inf, "10", b"10", None, True, [], [10], {"amount": 10}, object(), 10**400, 1j,
        decimal.Decimal("NaN"), decimal.Decimal("Infinity"), "\ud800",
    ],
)  # fmt: skip
def test_a_parameter_of_another_type_violates(value: Any) -> None:
    """Policy asks nothing about it; the invariant alone refuses."""
    ran = []

    @guarded(gate(invariants=[("cap", "amount", 1000)]), param_fields={"amount": "amount"})
    def refund(amount: Any) -> None:
        ran.append(amount)

    refund(10, **ALICE)
    refund(decimal.Decimal("10.5"), **ALICE)
    with pytest.raises(Refused, match="invariant 'cap' violated") as refused:
        refund(value, **ALICE)
    assert refused.value.code == "INVARIANT_VIOLATION"
    assert ran == [10, decimal.Decimal("10.5")]


def test_a_number_that_raises_on_conversion_violates() -> None:
    class Odd:
        def __float__(self) -> float:
            raise RuntimeError

    fn: Any = guarded(gate(invariants=[("cap", "amount", 1)]), param_fields={"amount": "amount"})(lambda amount: None)
    with pytest.raises(Refused):
        fn(Odd(), **ALICE)


def test_an_omitted_parameter_violates() -> None:
    @guarded(gate(invariants=[("cap", "amount", 1000)]), param_fields={"amount": "amount"})
    def refund(**fields: Any) -> Any:
        return fields

    assert refund(amount=1, **ALICE) == {"amount": 1}
    with pytest.raises(Refused):
        refund(**ALICE)
    no_fields: Any = guarded(gate(invariants=[("cap", "amount", 1000)]))(lambda amount: None)
    with pytest.raises(Refused):
        no_fields(1, **ALICE)


def test_text_bool_and_list_parameters() -> None:
    decided = gate(
        {"param_in": {"field": "currency", "values": ["EUR", "CHF"]}},
        {"param_equals": {"field": "draft", "value": True}},
        {"param_in": {"field": "tags", "values": ["a", "b"]}},
    )
    fields = {"currency": "currency", "draft": "draft", "tags": "tags"}

    @guarded(decided, param_fields=fields)
    def pay(currency: Any, draft: Any, tags: Any) -> None: ...

    pay("EUR", True, ["a"], **ALICE)
    pay("CHF", True, ("a", "b"), **ALICE)
    for wrong in (
        ("USD", True, ["a"]),
        ("EUR", 1, ["a"]),
        ("EUR", True, ["c"]),
        ("EUR", True, [["a"]]),
        (1, True, ["a"]),
    ):
        with pytest.raises(Refused):
            pay(*wrong, **ALICE)


def test_a_large_text_is_no_error_but_no_answer_either() -> None:
    fields = {"text": "text"}
    indifferent: Any = guarded(gate(), param_fields=fields)(lambda text: len(text))
    assert indifferent("x" * 1_000_000, **ALICE) == 1_000_000
    asking: Any = guarded(gate({"param_matches": {"field": "text", "pattern": "x*"}}), param_fields=fields)(
        lambda text: 1
    )
    assert asking("xyz", **ALICE) == 1
    with pytest.raises(Refused):
        asking("x" * 1_000_000, **ALICE)


def test_what_is_wrong_when_the_decorator_is_applied() -> None:
    def fn(a: int) -> None: ...

    def own(_ip: str) -> None: ...

    with pytest.raises(ValueError, match="'b', which is no parameter"):
        guarded(gate(), param_fields={"amount": "b"})(fn)
    with pytest.raises(TypeError, match="_ip"):
        guarded(gate())(own)
    with pytest.raises(TypeError, match="decorates functions"):
        guarded(gate())(int)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a Gate"):
        guarded("gate")(fn)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="action"):
        guarded(gate(), action="")(fn)
    with pytest.raises(TypeError, match="takes no params"):
        guarded_tool(gate())(lambda: None)


# --- who ---


def test_without_a_principal_nobody_vouches_for_the_call() -> None:
    watched = gate({"identity_kind": "user"})

    @guarded(watched)
    def act() -> None: ...

    with pytest.raises(Refused):
        act()
    assert (watched.asked[0].principal_id, watched.asked[0].principal_kind) == ("unknown", "external")
    act(_principal_kind="user")  # the caller's code says so


def test_the_verified_caller_is_the_principal() -> None:
    watched = gate()

    @guarded(watched)
    def act() -> None: ...

    def asked_as(caller: Caller, **given: Any) -> Any:
        before = caller_var.set(caller)
        try:
            act(**given)
        finally:
            caller_var.reset(before)
        context = watched.asked[-1]
        return context.principal_kind, context.principal_id, context.roles, context.session_id

    claims = Claims({"roles": ["support", 7, ""], "sid": "session-1", "jti": "token-1"})
    assert asked_as(Caller("alice", "web", jwt="x.y.z", claims=claims)) == ("user", "alice", ("support",), "session-1")
    assert asked_as(Caller("alice", "bot", actors=("bot", "other")))[:2] == ("agent", "bot")
    assert asked_as(Caller("svc", "svc"))[:2] == ("service", "svc")
    assert asked_as(Caller(None, "bot"))[:2] == ("agent", "bot")
    assert asked_as(Caller())[:2] == ("external", "unknown")
    by_token = asked_as(Caller("alice", jwt="x.y.z"))
    assert len(by_token[3]) == 64
    assert "x.y.z" not in by_token[3]
    assert asked_as(Caller("alice", claims=Claims({"sid": "has space"})))[3].isalnum()
    # A principal that is given is all there is of it: no roles or session of another one.
    assert asked_as(Caller("alice", claims=claims), _principal_id="bob") == ("user", "bob", (), None)


def test_trust_and_taints_are_those_of_the_lineage() -> None:
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())
    trusted = gate({"trust_min": 50}, {"taint_absent": "raw"})
    act: Any = guarded(trusted)(lambda: "ran")

    @kest_verified("x", source_type="user_input", added_taints=["raw"])
    def weak() -> Any:
        return act(**ALICE)

    @kest_verified("x")
    def strong() -> Any:
        return act(**ALICE)

    with lineage():
        with pytest.raises(Refused):
            act(**ALICE)  # nothing is known
        assert strong() == "ran"
        with pytest.raises(Refused):
            weak()


# --- sessions ---


def test_caps_drift_and_invalidation_hold_through_the_decorator() -> None:
    decided = gate(max_session_actions=2)
    act: Any = guarded(decided)(lambda: "ran")
    assert [act(**ALICE, _session_id="s") for _ in range(2)] == ["ran", "ran"]
    with pytest.raises(Refused, match="max_session_actions"):
        act(**ALICE, _session_id="s")
    assert act(**ALICE, _session_id="t", _ip="1.1.1.1") == "ran"
    with pytest.raises(Invalidated, match="IP changed"):
        act(**ALICE, _session_id="t", _ip="2.2.2.2")
    with pytest.raises(Refused) as refused:
        act(**ALICE, _session_id="t", _ip="1.1.1.1")
    assert refused.value.code == "SESSION_INVALID"
    decided.invalidate("alice", "principal")
    with pytest.raises(Refused):
        act(**ALICE)


def test_the_permit_is_current_while_the_function_runs() -> None:
    act: Any = guarded(gate(), action="orders.read")(current_permit)
    assert act(**ALICE).action_name == "orders.read"
    assert current_permit() is None


async def test_a_coroutine_closed_elsewhere() -> None:
    @guarded(gate())
    async def wait() -> None:
        await asyncio.sleep(60)

    coroutine = wait(**ALICE)
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()  # in a context that it never entered
    assert current_permit() is None


class SlowStore:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def room(self, limits: Any) -> Any:
        self.asked.set()
        assert self.go.wait(30)
        return [True] * len(limits)

    def record(self, limits: Any, *, enforce: bool) -> bool:
        return True


async def test_the_event_loop_runs_while_a_store_is_waited_for() -> None:
    store = SlowStore()
    act: Any = guarded(gate({"rate_limit": {"max": 5, "window": "60s"}}, rate_store=store))(_now)
    task = asyncio.create_task(act(**ALICE))
    await asyncio.to_thread(store.asked.wait, 30)  # would never be reached by a loop that is held up
    assert not task.done()
    store.go.set()
    assert await task == "ran"

    async def steps() -> AsyncIterator[str]:
        yield "step"

    stream: Any = guarded(gate({"rate_limit": {"max": 5, "window": "60s"}}, rate_store=(slow := SlowStore())))(steps)
    first = asyncio.ensure_future(stream(**ALICE).__anext__())
    await asyncio.to_thread(slow.asked.wait, 30)
    slow.go.set()
    assert await first == "step"


async def _now() -> str:
    return "ran"


# --- tools ---


def test_a_tool_hands_over_all_of_its_parameters() -> None:
    watched = gate({"param_max": {"field": "amount", "max": 100}}, {"resource": "orders/*"})

    @guarded_tool(watched, action="refund_tool")
    def refund(params: dict[str, Any], verbose: bool = False, **more: Any) -> Any:
        return params["amount"], verbose, more

    call = {"amount": 5, "resource": "orders/1", "note": "hi", "urgent": True, "nested": {"x": 1}}
    assert refund(call, verbose=True, **ALICE, _trace="t") == (
        5,
        True,
        {},
    )  # every kwarg with an underscore is stripped
    assert refund(params=call, **ALICE)[0] == 5
    context = watched.asked[0]
    assert (context.principal_kind, context.action_name, context.resource) == ("agent", "refund_tool", "orders/1")
    assert context.params == {"amount": 5, "resource": "orders/1", "note": "hi", "urgent": True, "nested": None}
    for change in ({"amount": 500}, {"amount": "5"}, {"resource": "secrets/1"}, {"resource": 7}):
        with pytest.raises(Refused):
            refund({**call, **change}, **ALICE)
    with pytest.raises(TypeError, match="mapping"):
        refund([], **ALICE)
    with pytest.raises(TypeError, match="mapping"):
        refund({1: 2}, **ALICE)


async def test_async_tools_and_methods() -> None:
    class Tools:
        @guarded_tool(gate({"action": "refund"}))
        async def refund(self, arguments: dict[str, Any]) -> Any:
            return arguments["amount"]

        @guarded_tool(gate({"action": "refund"}))
        async def steal(self, arguments: dict[str, Any]) -> None: ...

    assert await Tools().refund({"amount": 1}, **ALICE) == 1
    with pytest.raises(Refused):
        await Tools().steal({"amount": 1}, **ALICE)


def test_too_many_parameters_are_none() -> None:
    watched = gate()
    tool: Any = guarded_tool(watched)(lambda params: len(params))
    assert tool({str(i): i for i in range(300)}, **ALICE) == 300
    assert watched.asked[0].params == {}
    with pytest.raises(GateInputError):
        tool({}, _principal_id="\ud800")
