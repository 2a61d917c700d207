"""`McpGate` on the real SDK: in process, over stdio and over streamable HTTP, in both generations of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer, Server
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.types import CallToolResult, ListToolsResult, TextContent
from wire import serving

from kest.errors import ConfigurationError, MissingExtraError
from kest.gate import Gate, GeoLocation, InMemorySessionStore, Invalidated, Refused
from kest.gate.mcp import McpGate, McpSession, Principal, current_permit

Make = Callable[..., Any]
MODES = ("auto", "legacy")
BOTH = pytest.mark.parametrize("mode", MODES)
CALL: dict[str, Any] = {"tool_name": "refund", "params": {"amount": 5}, "caller_id": "bot"}


def refund_gate(*conditions: dict[str, Any], **options: Any) -> Gate:
    policy = {"name": "p", "effect": "permit", "conditions": [{"action": "refund"}, *conditions]}
    return Gate.from_dict({"policies": [policy]}, **options)


class Asked:
    """A gate's contexts, one per evaluation."""

    def __init__(self, gate: Gate) -> None:
        self.contexts: list[Any] = []
        decide = gate._decide

        def remembering(context: Any) -> Any:
            self.contexts.append(context)
            return decide(context)

        gate._decide = remembering

    @property
    def last(self) -> tuple[Any, ...]:
        context = self.contexts[-1]
        return context.principal_kind, context.principal_id, context.roles


def server_of(ran: list[Any], **options: Any) -> MCPServer:
    server = MCPServer("shop", log_level="CRITICAL", **options)

    @server.tool()
    def refund(amount: float, order: str = "A-1", resource: str = "") -> dict[str, Any]:
        permit = current_permit()
        ran.append(amount)
        return {"action": None if permit is None else permit.action_name}

    @server.tool()
    async def steal(amount: float) -> str:
        ran.append("stolen")
        return "gone"

    @server.resource("shop://orders")
    def orders() -> str:
        return "A-1"

    return server


SMALL = {"param_max": {"field": "amount", "max": 100}}


# --- asked about one call ---


def test_check_and_evaluate_tool_calls() -> None:
    gate = refund_gate(SMALL, {"resource": "orders/*"})
    asked = Asked(gate)
    mcp = McpGate(gate)
    params = {"amount": 5, "resource": "orders/1", "note": "hi", "deep": {}}
    mcp.check_tool_call(
        tool_name="refund", params=params, caller_id="bot", roles=["support"], session_id="s", ip="10.0.0.1",
        current_geo=GeoLocation("DE"),
    )  # fmt: skip
    context = asked.contexts[0]
    assert asked.last == ("agent", "bot", ("support",))
    assert (context.action_name, context.resource, context.ip) == ("refund", "orders/1", "10.0.0.1")
    assert (context.session_id, context.current_geo) == ("s", GeoLocation("DE"))
    assert context.params == {"amount": 5, "resource": "orders/1", "note": "hi", "deep": None}
    for change in ({"amount": 500}, {"amount": "5"}, {"amount": None}, {"resource": "x"}, {"resource": 7}):
        with pytest.raises(Refused):
            mcp.check_tool_call(**{**CALL, "params": {**params, **change}})
        assert mcp.evaluate_tool_call(**{**CALL, "params": {**params, **change}}).is_refuse
    assert mcp.evaluate_tool_call(**{**CALL, "params": params}).is_permit
    with pytest.raises(TypeError):
        mcp.check_tool_call(**{**CALL, "params": [5]})
    with pytest.raises(ValueError):
        mcp.check_tool_call(**CALL, caller_kind="root")


def test_sessions_are_counted_and_ended() -> None:
    mcp = McpGate(refund_gate(max_session_actions=2))
    session = str(uuid.uuid4())
    assert mcp.get_session(session) is None
    for _ in range(2):
        mcp.check_tool_call(**CALL, session_id=session, ip="1.1.1.1", roles=["support"])
    assert mcp.get_session(session.upper()) == McpSession(session, "bot", "agent", ("support",), "1.1.1.1", 2, False)
    with pytest.raises(Refused, match="max_session_actions"):
        mcp.check_tool_call(**CALL, session_id=session, ip="1.1.1.1")
    assert mcp.get_session(session).action_count == 2  # type: ignore[union-attr]
    mcp.check_tool_call(**CALL, session_id="other", ip="1.1.1.1")
    with pytest.raises(Invalidated, match="IP changed"):
        mcp.check_tool_call(**CALL, session_id="other", ip="2.2.2.2")
    assert mcp.get_session("other").invalidated  # type: ignore[union-attr]
    mcp.invalidate_session(session)
    assert mcp.get_session(session).invalidated  # type: ignore[union-attr]
    with pytest.raises(Invalidated, match=f"session {session} invalidated by a peer node") as over:
        mcp.check_tool_call(**CALL, session_id=session)
    assert over.value.evaluator == "session_store"
    refused = mcp.evaluate_tool_call(**CALL, session_id=session)
    assert (refused.kind, refused.code) == ("refuse", "SESSION_INVALID")


def test_another_store_of_sessions() -> None:
    store = InMemorySessionStore()
    mcp = McpGate(refund_gate(), session_store=store)
    store.invalidate("s")
    with pytest.raises(Invalidated):
        mcp.check_tool_call(**CALL, session_id="s")
    assert mcp.evaluate_tool_call(**CALL, session_id="s").is_permit  # looks at the gate's store only
    mcp.check_tool_call(**CALL, session_id="t")
    mcp.invalidate_session("t")
    assert store.is_invalidated("t")
    assert mcp.gate.session_store.is_invalidated("t")
    observing = McpGate(refund_gate(observe_only=True), session_store=store)
    observing.check_tool_call(**CALL, session_id="s")

    class Broken:
        def is_invalidated(self, id: str, kind: str = "session") -> bool:
            raise OSError("down")

    with pytest.raises(Refused, match="session store unavailable"):
        McpGate(refund_gate(), session_store=Broken()).check_tool_call(**CALL, session_id="s")  # type: ignore[arg-type]


def test_sessions_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kest.gate.mcp.MAX_SESSIONS", 3)
    mcp = McpGate(refund_gate())
    for i in (0, 1, 2, 0, 3):  # 1 is the one that was used longest ago
        mcp.check_tool_call(**CALL, session_id=f"s{i}")
    assert [mcp.get_session(f"s{i}") is not None for i in range(4)] == [True, False, True, True]


def test_settings_are_checked() -> None:
    for wrong in ({"caller_kind": "root"}, {"roles": "support"}, {"trusted_proxies": ["x"]}):
        with pytest.raises((TypeError, ValueError)):
            McpGate(refund_gate(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a Gate"):
        McpGate("gate")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="mcp 2"):
        McpGate(refund_gate()).install(object())
    server = MCPServer("shop", log_level="CRITICAL")
    gate = McpGate(refund_gate())
    assert gate.install(server) is gate.install(server)
    assert server.middleware.count(gate) == 1


def test_without_the_sdk_installing_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.context", None)
    with pytest.raises(MissingExtraError, match=r"kest\[mcp\]"):
        McpGate(refund_gate()).install(object())


# --- in process ---


def code_of(result: CallToolResult) -> str | None:
    return None if not result.is_error else (result.meta or {}).get("kest/code")


@BOTH
async def test_tools_run_only_when_permitted(mode: str) -> None:
    ran: list[Any] = []
    server = server_of(ran)
    gate = refund_gate(SMALL, invariants=[("cap", "amount", 50)])
    asked = Asked(gate)
    McpGate(gate, caller_id="desktop", roles=["support"]).install(server)
    async with Client(server, mode=mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"refund", "steal"}
        result = await client.call_tool("refund", {"amount": 5})
        assert (result.is_error, result.structured_content) == (False, {"action": "refund"})
        assert asked.last == ("agent", "desktop", ("support",))
        refused = await client.call_tool("refund", {"amount": 75})
        text = "[INVARIANT_VIOLATION] invariants: invariant 'cap' violated: parameter 'amount' must be at most 50"
        assert [item.text for item in refused.content if isinstance(item, TextContent)] == [text]
        assert refused.is_error
        assert refused.structured_content is None
        meta = refused.meta or {}
        assert (meta["kest/code"], meta["kest/evaluator"]) == ("INVARIANT_VIOLATION", "invariants")
        assert "cap" in meta["kest/reason"]
        assert code_of(await client.call_tool("steal", {"amount": 5})) == "NO_POLICY_MATCH"
        assert code_of(await client.call_tool("no_such_tool", {})) == "NO_POLICY_MATCH"
        # The SDK would make numbers of these; the gate does not, and asks about what came.
        for amount in ("5", True, None, [5]):
            assert code_of(await client.call_tool("refund", {"amount": amount})) is not None
        assert code_of(await client.call_tool("refund", {})) is not None
        assert (await client.read_resource("shop://orders")).contents
        await client.session.send_ping() if mode == "legacy" else None
    assert ran == [5.0]
    assert current_permit() is None


@BOTH
async def test_nobody_is_anonymous(mode: str) -> None:
    server = server_of([])
    gate = refund_gate({"identity_kind": "agent"})
    asked = Asked(gate)
    McpGate(gate).install(server)
    claims: Any = {"kest/principal_id": "root", "kest/principal_kind": "agent", "kest/roles": ["admin"]}
    async with Client(server, mode=mode) as client:
        assert code_of(await client.call_tool("refund", {"amount": 5}, meta=claims)) == "NO_POLICY_MATCH"
        assert code_of(await client.call_tool("refund", {"amount": 5, "caller_id": "root"})) == "NO_POLICY_MATCH"
    assert asked.last == ("external", "anonymous", ())


async def test_meta_is_believed_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    server = server_of([])
    gate = refund_gate(max_session_actions=1)
    asked = Asked(gate)
    McpGate(gate, trust_meta_identity=True).install(server)
    McpGate(gate, trust_meta_identity=True)
    assert caplog.text.count("trust_meta_identity") == 1
    claims: Any = {
        "kest/principal_id": "bot",
        "kest/principal_kind": "service",
        "kest/roles": ["a", 7],
        "kest/session_id": "s",
    }
    async with Client(server) as client:
        assert code_of(await client.call_tool("refund", {"amount": 5}, meta=claims)) is None
        assert asked.last == ("service", "bot", ("a",))
        assert code_of(await client.call_tool("refund", {"amount": 5}, meta=claims)) == "INVARIANT_VIOLATION"
        bad: Any = {"kest/principal_id": "bot", "kest/principal_kind": 7}
        assert code_of(await client.call_tool("refund", {"amount": 5}, meta=bad)) == "POLICY_DENIED"
        assert code_of(await client.call_tool("refund", {"amount": 5})) is None
        assert asked.last == ("external", "anonymous", ())


@BOTH
async def test_the_connection_is_the_session(mode: str) -> None:
    server = server_of([])
    mcp = McpGate(refund_gate({"rate_limit": {"max": 9, "window": "60s"}}, max_session_actions=2), caller_id="desktop")
    mcp.install(server)
    async with Client(server, mode=mode) as client:
        codes = [code_of(await client.call_tool("refund", {"amount": 5})) for _ in range(3)]
        assert codes == [None, None, "INVARIANT_VIOLATION"]
        session = mcp.get_session(mcp._local.session_id or "")
        assert session is not None
        assert (session.caller_id, session.action_count) == ("desktop", 2)
        mcp.invalidate_session(session.session_id)
        over = await client.call_tool("refund", {"amount": 5})
        assert (code_of(over), (over.meta or {})["kest/evaluator"]) == ("SESSION_INVALID", "session_store")


async def test_rate_limits_say_when_to_come_back() -> None:
    server = server_of([])
    McpGate(refund_gate({"rate_limit": {"max": 1, "window": "60s"}})).install(server)
    async with Client(server) as client:
        await client.call_tool("refund", {"amount": 5})
        refused = await client.call_tool("refund", {"amount": 5})
    assert (code_of(refused), (refused.meta or {})["kest/retry_after"]) == ("RATE_LIMIT_EXCEEDED", 60)


async def test_an_application_can_vouch_for_its_callers() -> None:
    server = server_of([])
    gate = refund_gate()
    asked = Asked(gate)
    known: list[Principal | None] = [Principal("dora", "user", ("admin",)), None]
    McpGate(gate, identify=lambda ctx: known.pop(0), caller_id="desktop").install(server)
    async with Client(server) as client:
        await client.call_tool("refund", {"amount": 5})
        assert asked.last == ("user", "dora", ("admin",))
        await client.call_tool("refund", {"amount": 5})
        assert asked.last == ("agent", "desktop", ())


async def test_a_low_level_server() -> None:
    ran: list[str] = []

    async def call(ctx: Any, params: Any) -> CallToolResult:
        ran.append(params.name)
        return CallToolResult(content=[TextContent(type="text", text="done")])

    async def list_tools(ctx: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[])

    server: Server[Any] = Server("low", on_call_tool=call, on_list_tools=list_tools)
    McpGate(refund_gate()).install(server)
    async with Client(server) as client:
        assert not (await client.call_tool("refund", {})).is_error
        assert (await client.call_tool("steal", {})).is_error
    assert ran == ["refund"]


async def test_a_call_that_names_no_tool_runs_none() -> None:
    gate = McpGate(refund_gate())
    ran: list[Any] = []

    async def call_next(ctx: Any) -> Any:
        ran.append(ctx.params)

    from mcp.server.context import ServerRequestContext

    for params in (None, {}, {"name": 7}, {"name": "refund", "arguments": [5]}):
        ctx: Any = ServerRequestContext(
            session=None,
            lifespan_context={},
            protocol_version="2026-07-28",
            method="tools/call",
            params=params,
            request_id=1,
        )  # type: ignore[arg-type]
        result: Any = await gate(ctx, call_next)
        assert (result["isError"], result["resultType"]) == (True, "complete")
    assert ran == []


async def test_the_event_loop_runs_while_a_store_is_waited_for() -> None:
    asked, go = threading.Event(), threading.Event()

    class Slow:
        def room(self, limits: Any) -> Any:
            asked.set()
            assert go.wait(30)
            return [True] * len(limits)

        def record(self, limits: Any, *, enforce: bool) -> bool:
            return True

    server = server_of([])
    McpGate(refund_gate({"rate_limit": {"max": 5, "window": "60s"}}, rate_store=Slow())).install(server)
    async with Client(server) as client:
        task = asyncio.create_task(client.call_tool("refund", {"amount": 5}))
        await asyncio.to_thread(asked.wait, 30)
        assert (await client.list_tools()).tools
        assert not task.done()
        go.set()
        assert not (await task).is_error


# --- streamable HTTP ---


class Tokens(TokenVerifier):
    """Verifies the tokens that it is given."""

    def __init__(self, **tokens: dict[str, Any]) -> None:
        self.tokens = tokens

    async def verify_token(self, token: str) -> AccessToken | None:
        known = self.tokens.get(token)
        return None if known is None else AccessToken(**{"token": token, "client_id": "app", "scopes": [], **known})


TOKENS = Tokens(
    alice={"subject": "alice", "claims": {"roles": ["support"], "sid": "sid-1"}},
    bot={"subject": "alice", "claims": {"act": {"sub": "bot"}, "realm": {"roles": ["x"]}}},
    client={"scopes": ["support"]},
    service={"subject": "app"},
    broken={"subject": "alice", "claims": {"act": "bot"}},
)


@contextlib.contextmanager
def serving_tools(
    gate: Gate, ran: list[Any], auth: bool = True, stateless: bool = False, **options: Any
) -> Iterator[str]:
    settings = AuthSettings(issuer_url="https://login.test", resource_server_url=None) if auth else None  # type: ignore[arg-type]
    server = server_of(ran, auth=settings, token_verifier=TOKENS if auth else None)
    McpGate(gate, caller_id="desktop", roles=["admin"], **options).install(server)
    with serving(server.streamable_http_app(stateless_http=stateless), proxy_headers=False) as url:
        yield f"{url}/mcp"


@contextlib.asynccontextmanager
async def client_of(url: str, token: str | None, mode: str, **headers: str) -> AsyncIterator[Client]:
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@BOTH
async def test_the_token_says_who_calls(mode: str) -> None:
    ran: list[Any] = []
    gate = refund_gate()
    asked = Asked(gate)
    claims: Any = {"kest/principal_id": "root", "kest/roles": ["admin"]}
    sessions = []
    with serving_tools(gate, ran) as url:
        for token, who in {
            "alice": ("user", "alice", ("support",)),
            "bot": ("agent", "bot", ()),
            "client": ("agent", "app", ()),
            "service": ("service", "app", ()),
        }.items():
            async with client_of(url, token, mode, **{"X-Principal-Id": "root"}) as client:
                assert not (await client.call_tool("refund", {"amount": 5}, meta=claims)).is_error
                assert not (await client.call_tool("refund", {"amount": 5})).is_error
            assert asked.last == who
            assert asked.contexts[-1].ip == "127.0.0.1"
            assert asked.contexts[-1].session_id == asked.contexts[-2].session_id
            sessions.append(asked.contexts[-1].session_id)
        assert sessions[0] == "sid-1"
        assert len(set(sessions)) == 4
        async with client_of(url, "broken", mode) as client:
            assert code_of(await client.call_tool("refund", {"amount": 5})) == "IDENTITY_FAILED"
        async with httpx2.AsyncClient(headers={"authorization": "Bearer forged"}) as http:
            assert (await http.post(url, json={})).status_code == 401
    assert len(ran) == 8


async def test_scopes_and_other_claims_as_roles() -> None:
    gate = refund_gate()
    asked = Asked(gate)
    with serving_tools(gate, [], scopes_as_roles=True, roles_claim="realm.roles") as url:
        for token, roles in {"client": ("support",), "bot": ("x",)}.items():
            async with client_of(url, token, "auto") as client:
                await client.call_tool("refund", {"amount": 5})
            assert asked.contexts[-1].roles == roles


@BOTH
@pytest.mark.parametrize("stateless", [False, True])
async def test_without_a_token_nobody_is_the_local_caller(mode: str, stateless: bool) -> None:
    gate = refund_gate({"identity_kind": "external"})
    asked = Asked(gate)
    with serving_tools(gate, [], auth=False, stateless=stateless) as url:
        async with client_of(url, None, mode) as client:
            assert not (await client.call_tool("refund", {"amount": 5})).is_error
        assert asked.last == ("external", "anonymous", ())
    session = asked.contexts[-1].session_id
    assert (session is not None) == (mode == "legacy" and not stateless)


async def test_sessions_of_tokens_drift_and_end() -> None:
    gate = refund_gate()
    with serving_tools(gate, [], trusted_proxies=["127.0.0.1"]) as url:
        for address, code in (
            ("1.1.1.1", None),
            ("1.1.1.1", None),
            ("2.2.2.2", "SESSION_INVALID"),
            ("1.1.1.1", "SESSION_INVALID"),
        ):
            async with client_of(url, "alice", "auto", **{"X-Forwarded-For": address}) as client:
                assert code_of(await client.call_tool("refund", {"amount": 5})) == code
    assert gate.session_store.is_invalidated("sid-1")


# --- the examples ---


EXPECTED = [
    ("ran", "A-1: one lamp, 42 EUR"),
    ("ran", "A-1: 42.0 EUR paid back under permit "),
    ("refused", "[NO_POLICY_MATCH] policy: no policy permits 'refund' for principal "),
    ("refused", "[NO_POLICY_MATCH] policy: no policy permits 'refund' for principal "),
]


def said(output: str) -> list[tuple[str, str]]:
    lines = [line.split(maxsplit=2) for line in output.splitlines()]
    return [(verdict, text[: len(begin)]) for (verdict, _, text), (_, begin) in zip(lines, EXPECTED, strict=True)]


def test_the_example_over_stdio(run_example: Make) -> None:
    assert said(run_example("gate/mcp_client.py").stdout) == EXPECTED


EXAMPLES = str(Path(__file__).resolve().parents[2] / "examples" / "gate")


async def test_the_example_over_http(
    login: Path, bearer: Make, monkeypatch: pytest.MonkeyPatch, run_example: Make
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import mcp_server

    with serving(mcp_server.server(str(login / "login.jwks.json")).streamable_http_app()) as url:
        output = (await asyncio.to_thread(run_example, "gate/mcp_client.py", f"{url}/mcp", bearer("support"))).stdout
        assert said(output) == EXPECTED
        assert output.count("'ann'") == 2
        output = (await asyncio.to_thread(run_example, "gate/mcp_client.py", f"{url}/mcp", bearer("sales"))).stdout
        assert output.count("refused") == 3
