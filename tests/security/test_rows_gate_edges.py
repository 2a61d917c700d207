"""Weaknesses that the decorators and middlewares of gates are known for, one test each."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import math
import random
from typing import Any
from urllib.parse import unquote

import pytest

from kest.gate import Gate, Invalidated, Refused, guarded, guarded_tool
from kest.gate.http import GateMiddleware, HttpGate
from kest.gate.http.request import asked_of_scope
from kest.gate.mcp import McpGate

WHO: dict[str, Any] = {"_principal_id": "p"}


def gate(*conditions: Any, **options: Any) -> Gate:
    return Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": list(conditions)}]}, **options)


def denying() -> Gate:
    return Gate.from_dict({"policies": []})


@pytest.mark.parametrize("value", ["5", None, True, math.nan, math.inf, [5], {"amount": 5}, b"5"])
def test_q_a_guarded_parameter_of_another_type_is_not_left_out(value: Any) -> None:
    capped = gate(invariants=[("cap", "amount", 10.0)])
    ran: list[Any] = []
    guarded(capped, param_fields={"amount": "amount"})(lambda amount: ran.append(amount))(5, **WHO)  # type: ignore[call-arg]
    for call in (
        lambda: guarded(capped, param_fields={"amount": "amount"})(ran.append)(value, **WHO),  # type: ignore[call-arg]
        lambda: guarded_tool(capped)(lambda params: ran.append(params))({"amount": value}, **WHO),  # type: ignore[call-arg]
        lambda: McpGate(capped).check_tool_call(tool_name="t", params={"amount": value}, caller_id="p"),
        lambda: HttpGate(capped).check(method="POST", path="/x", body={"amount": value}),
    ):
        with pytest.raises((Refused, ValueError)):
            call()
    assert ran == [5]


def test_q_an_empty_list_of_excluded_paths_excludes_nothing() -> None:
    assert HttpGate(denying(), excluded_paths=[]).should_gate("POST", "/health")


def test_q_evaluate_honours_should_gate() -> None:
    assert HttpGate(denying()).evaluate(method="POST", path="/health").is_permit
    assert HttpGate(denying()).evaluate(method="GET", path="/x").is_permit
    assert HttpGate(denying()).evaluate(method="POST", path="/x").is_refuse


def test_q_a_prefix_is_made_of_whole_segments() -> None:
    for path in ("/healthy", "/health-admin", "/healthz/x", "/health.json"):
        assert HttpGate(denying()).should_gate("POST", path)


def test_q_sessions_have_caps_and_drift_through_every_edge() -> None:
    def by_decorator(owner: Gate, session: str, ip: str) -> None:
        guarded(owner, action="x")(lambda: None)(**WHO, _session_id=session, _ip=ip)  # type: ignore[call-arg]

    def by_tool(owner: Gate, session: str, ip: str) -> None:
        guarded_tool(owner, action="x")(lambda params: None)({}, **WHO, _session_id=session, _ip=ip)  # type: ignore[call-arg]

    def by_http(owner: Gate, session: str, ip: str) -> None:
        HttpGate(owner).check(method="POST", path="/x", principal_id="p", session_id=session, ip=ip)

    def by_mcp(owner: Gate, session: str, ip: str) -> None:
        McpGate(owner).check_tool_call(tool_name="x", params={}, caller_id="p", session_id=session, ip=ip)

    edges = (by_decorator, by_tool, by_http, by_mcp)
    for edge in edges:
        owner = gate(max_session_actions=2)
        edge(owner, "s", "1.1.1.1")
        edge(owner, "s", "1.1.1.1")
        with pytest.raises(Refused, match="max_session_actions"):
            edge(owner, "s", "1.1.1.1")
        edge(owner, "t", "1.1.1.1")
        with pytest.raises(Invalidated, match="IP changed"):
            edge(owner, "t", "2.2.2.2")
    shared = gate(max_session_actions=4)  # one session, whichever way its actions come
    for edge in edges:
        edge(shared, "s", "1.1.1.1")
    for edge in edges:
        with pytest.raises(Refused):
            edge(shared, "s", "1.1.1.1")


async def first_step(fn: Any) -> None:
    result = fn()
    if inspect.iscoroutine(result):
        await result
    elif inspect.isasyncgen(result):
        await result.__anext__()
    else:
        next(result)


async def test_q_no_kind_of_function_takes_a_step_before_the_gate() -> None:
    ran: list[str] = []
    protect = guarded(denying(), action="x")

    def plain() -> None:
        ran.append("plain")

    async def coroutine() -> None:
        ran.append("coroutine")

    def generator() -> Any:
        ran.append("generator")
        yield

    async def stream() -> Any:
        ran.append("stream")
        yield

    class Owner:
        @protect
        def method(self) -> None:
            ran.append("method")

        @protect
        async def stream(self) -> Any:
            ran.append("method stream")
            yield

    for wrap in (lambda fn: fn, functools.partial):
        functions: list[Any] = [protect(wrap(fn)) for fn in (plain, coroutine, generator, stream)]
        functions += [Owner().method, Owner().stream]
        for fn in functions:
            with pytest.raises(Refused):
                await first_step(fn)
    assert ran == []


def test_no_spelling_of_a_path_is_excluded_that_leads_elsewhere() -> None:
    """Whatever a client writes: what passes ungated is below an excluded path for every reader, however it decodes."""
    http = HttpGate(denying(), excluded_paths=["/health", "/api/open"])
    pieces = [
        "health", "api", "open", "refunds", "..", ".", "", "%2e%2e", "%2E.", "%2f", "%5c", "\\", "%252e%252e", "%00", ";",
        "?", "healthy", "health%2f", "..;", "\u2025", "\uff0e\uff0e", "%c0%ae%c0%ae",
    ]  # fmt: skip
    rng = random.Random(3)
    passed = 0
    for _ in range(50_000):
        raw = "/" + "/".join(rng.choice(pieces) for _ in range(rng.randint(1, 5)))
        scope = {"type": "http", "method": "POST", "headers": [], "raw_path": raw.encode(), "path": unquote(raw)}
        if not http.gates(asked_of_scope(scope)):
            passed += 1
            segments = raw.split("/")
            assert segments[1] == "health" or segments[1:3] == ["api", "open"], raw
            assert not {"", ".", ".."} & set(segments[1:-1]), raw
            assert not any(odd in raw for odd in ("%", ";", "\\", "?", "\u2025", "\uff0e")), raw
    assert passed > 500


async def test_d1_identity_headers_count_for_nothing_by_default() -> None:
    asked: list[Any] = []
    owner = gate({"identity_kind": "user"})
    decide = owner._decide
    owner._decide = lambda context: asked.append(context) or decide(context)  # type: ignore[func-returns-value]
    ran: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ran.append(scope)

    async def send(message: Any) -> None:
        pass

    names = (
        b"x-principal-id",
        b"x-principal-kind",
        b"x-roles",
        b"x-session-id",
        b"x-forwarded-for",
        b"x-user",
        b"forwarded",
    )
    headers = [*itertools.product(names, (b"user", b"root", b"1.1.1.1"))]
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers, "client": ("9.9.9.9", 1)}
    await GateMiddleware(app, owner)(scope, asyncio.Queue().get, send)
    assert ran == []
    context = asked[0]
    assert (context.principal_id, context.principal_kind, context.roles) == ("anonymous", "external", ())
    assert (context.session_id, context.ip) == (None, "9.9.9.9")
