"""`GateMiddleware` and FastAPI behind uvicorn, over real sockets: who is asked about, what runs, and how a refusal reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
import websockets.exceptions
import websockets.sync.client
from cryptography.hazmat.primitives.asymmetric import ed25519
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from wire import ALICE, BOB, grown, keys, service, serving

from kest.core import MockPolicyEngine, configure
from kest.core.context import Caller, caller_var, lineage
from kest.gate import Gate, GeoLocation, PermitToken, guarded
from kest.gate.http import GateMiddleware, HttpGate, Principal, current_permit
from kest.gate.http.fastapi import gated, install_problem_handlers
from kest.http import KestHttpxInterceptor, KestIdentityMiddleware, KestMiddleware

Make = Callable[..., Any]
KEY = ed25519.Ed25519PrivateKey.generate()


def refund_gate(*conditions: dict[str, Any], **options: Any) -> Gate:
    policy = {"name": "p", "effect": "permit", "conditions": [{"action": "refunds.*"}, *conditions]}
    return Gate.from_dict({"policies": [policy]}, **options)


def app_of(gate: Any, ran: list[Any], **settings: Any) -> FastAPI:
    """POST /refunds, GET /refunds, POST /health, all of them recorded."""
    app = FastAPI()
    app.add_middleware(GateMiddleware, gate=gate, **settings)

    @app.post("/refunds")
    async def create(request: Request) -> dict[str, Any]:
        ran.append(await request.body())
        permit = current_permit()
        assert permit is request.state.kest_permit
        assert permit is request.scope["kest.permit"]
        return {"action": None if permit is None else permit.action_name}

    @app.get("/refunds")
    @app.post("/health/{rest:path}")
    @app.post("/health")
    async def other() -> dict[str, Any]:
        ran.append("other")
        return {"permitted": current_permit() is not None}

    return app


@contextlib.contextmanager
def served(gate: Any, **settings: Any) -> Iterator[SimpleNamespace]:
    ran: list[Any] = []
    with serving(app_of(gate, ran, **settings), proxy_headers=False) as url, httpx.Client(base_url=url) as client:
        yield SimpleNamespace(client=client, ran=ran, url=url)


def problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    assert document["status"] == response.status_code
    return document


# --- what runs ---


def test_permits_run_and_refusals_are_problem_documents() -> None:
    with served(refund_gate({"param_max": {"field": "amount", "max": 100}})) as at:
        answer = at.client.post("/refunds", json={"amount": 5})
        assert (answer.status_code, answer.json()) == (200, {"action": "refunds.create"})
        assert json.loads(at.ran[0]) == {"amount": 5}  # the application reads the same body
        refused = problem(at.client.post("/refunds", json={"amount": 500}))
        assert refused == {
            "type": "urn:kest:problem:refused",
            "title": "Refused by the gate",
            "status": 403,
            "detail": "[NO_POLICY_MATCH] policy: no policy permits 'refunds.create' for principal 'anonymous'",
            "code": "NO_POLICY_MATCH",
            "evaluator": "policy",
            "reason": "no policy permits 'refunds.create' for principal 'anonymous'",
        }
        assert at.client.get("/refunds").json() == {"permitted": False}
        assert at.client.post("/health").status_code == 200
        assert len(at.ran) == 3


def test_everything_is_gated_when_asked_for() -> None:
    with served(refund_gate(), gate_mutations_only=False, excluded_paths=[]) as at:
        assert at.client.get("/refunds").status_code == 200
        assert (
            at.client.request("OPTIONS", "/refunds").status_code == 405
        )  # gated as refunds.unknown; there is no handler
        assert at.client.post("/health").status_code == 403
        assert at.ran == ["other"]


@pytest.mark.parametrize(
    "path",
    [
        "/health/../refunds", "/health/%2e%2e/refunds", "/health%2f..%2frefunds", "//health/x", "/health//x", "/health/%2F",
        "/health/%5c..%5crefunds", "/health/%252e%252e/x", "/health/./x", "/healthy", "/health/%2e",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_past_the_gate(path: str) -> None:
    """Sent byte by byte: clients tidy paths up."""
    with served(Gate({"policies": []})) as at:
        port = int(at.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            raw.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert answer.split(b" ", 2)[1] == b"403"
        assert at.ran == []


def test_a_mounted_application_sees_its_own_paths() -> None:
    ran: list[Any] = []
    outer = Starlette()
    outer.mount("/shop", app_of(Gate({"policies": []}), ran))
    with serving(outer) as url, httpx.Client(base_url=url) as client:
        assert client.post("/shop/health").status_code == 200
        assert client.post("/shop/refunds").status_code == 403
    assert ran == ["other"]


# --- bodies ---


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"amount": 1, "amount": 500}', "twice"),
        (b'{"amount": 1, "\\u0061mount": 500}', "twice"),
        (b'{"amount": NaN}', "JSON"),
        (b'{"amount": 1e999}', "range"),
        (b"{amount: 1}", "JSON"),
        (b'{"amount": 1} x', "JSON"),
        ('{"amount": 1}'.encode("utf-16"), "JSON"),
        (b'\xef\xbb\xbf{"amount": 1}', "JSON"),
        (b"[" * 100_000, "deep"),
        (b'{"amount": 1, "x": "\\ud800"}', "surrogate"),
        (b"\xff", "JSON"),
    ],
)
def test_json_that_two_readers_may_take_for_two_things(body: bytes, why: str) -> None:
    with served(refund_gate({"param_max": {"field": "amount", "max": 100}})) as at:
        for content_type in ("application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"):
            answer = at.client.post("/refunds", content=body, headers={"content-type": content_type})
            assert answer.status_code == 400
            assert why in problem(answer)["detail"]
        assert at.ran == []


def test_bodies_that_are_no_json_give_no_parameters() -> None:
    asking = refund_gate({"param_max": {"field": "amount", "max": 100}})
    with served(asking) as at:
        assert at.client.post("/refunds", data={"amount": "5"}).status_code == 403
        assert (
            at.client.post("/refunds", content=b'{"amount":5}', headers={"content-type": "text/plain"}).status_code
            == 403
        )
        assert at.client.post("/refunds", json=[5]).status_code == 403
        assert at.client.post("/refunds", content=b"", headers={"content-type": "application/json"}).status_code == 403
        coded = {"content-type": "application/json", "content-encoding": "gzip"}
        assert at.client.post("/refunds", content=b'{"amount":5}', headers=coded).status_code == 403
        for amount in ("5", True, None, [], {"x": 1}):
            assert at.client.post("/refunds", json={"amount": amount}).status_code == 403
        assert at.ran == []
    with served(refund_gate()) as at:  # nobody asks, so nothing is read, and nothing is lost
        assert at.client.post("/refunds", content=b"\xff" * 3_000_000).status_code == 200
        assert at.ran == [b"\xff" * 3_000_000]


def test_a_parameter_in_query_and_body_is_neither() -> None:
    with served(refund_gate({"param_max": {"field": "amount", "max": 100}})) as at:
        assert at.client.post("/refunds?amount=5", json={"amount": 5}).status_code == 403
        assert at.client.post("/refunds?%61mount=", json={"amount": 5}).status_code == 403
        assert at.client.post("/refunds?other=5", json={"amount": 5}).status_code == 200
        fields = "&".join(f"f{i}=" for i in range(1001))
        assert at.client.post(f"/refunds?{fields}", json={"amount": 5}).status_code == 400


def test_text_and_list_parameters() -> None:
    wants = (
        {"param_equals": {"field": "currency", "value": "EUR"}},
        {"param_in": {"field": "tags", "values": ["a", "b"]}},
    )
    with served(refund_gate(*wants)) as at:
        assert at.client.post("/refunds", json={"currency": "EUR", "tags": ["a", "b"]}).status_code == 200
        assert at.client.post("/refunds", json={"currency": "EUR", "tags": ["a", "c"]}).status_code == 403
        assert at.client.post("/refunds", json={"currency": 5, "tags": ["a"]}).status_code == 403


def test_bodies_have_a_limit() -> None:
    with served(refund_gate(), max_body=100) as at:
        fits, over = b'"' + b"x" * 98 + b'"', b'"' + b"x" * 99 + b'"'
        json_type = {"content-type": "application/json"}
        assert at.client.post("/refunds", content=fits, headers=json_type).status_code == 200
        answer = at.client.post("/refunds", content=over, headers=json_type)
        assert "100 bytes" in problem(answer)["detail"]
        assert answer.status_code == 413
        assert (
            at.client.post("/refunds", content=iter([over, over]), headers=json_type).status_code == 413
        )  # undeclared
        assert at.client.post("/refunds", content=iter([fits[:50], fits[50:]]), headers=json_type).status_code == 200
        assert at.ran == [fits, fits]
    with served(refund_gate(), max_body=0) as at:
        assert at.client.post("/refunds", content=b"{not json", headers=json_type).status_code == 200
        assert at.ran == [b"{not json"]


def test_a_large_document_passes_if_no_policy_asks_about_it() -> None:
    document = {"text": "x" * 200_000, "amount": 5, **{f"k{i}": "y" * 500 for i in range(100)}}
    with served(refund_gate({"param_max": {"field": "amount", "max": 100}})) as at:
        assert at.client.post("/refunds", json=document).status_code == 200
        assert at.client.post("/refunds", json={str(i): i for i in range(300)} | {"amount": 5}).status_code == 403


async def test_a_client_that_hangs_up_before_its_body_is_complete() -> None:
    ran: list[Any] = []
    sent: list[Any] = []
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/refunds", "headers": [(b"content-type", b"application/json")],
        "query_string": b"", "client": None,
    }  # fmt: skip
    await app_of(refund_gate(), ran)(scope, receive, send)
    assert (ran, sent) == ([], [])


# --- who ---


@pytest.fixture
def jwks(tmp_path: Path) -> str:
    key = jwt.algorithms.OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [{**key, "kid": "k", "alg": "EdDSA"}]}))
    return str(path)


def bearer(**claims: Any) -> dict[str, str]:
    given = {"sub": "alice", "iss": "https://login.test", "aud": "shop", "exp": int(time.time()) + 60, **claims}
    return {"authorization": f"Bearer {jwt.encode(given, KEY, 'EdDSA', {'kid': 'k', 'typ': 'at+jwt'})}"}


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


def test_the_verified_token_says_who(jwks: str) -> None:
    gate = refund_gate({"identity_role": "support"})
    asked = Asked(gate)
    app = app_of(gate, [], roles_claim="realm.roles")
    app.add_middleware(KestMiddleware)
    app.add_middleware(
        KestIdentityMiddleware, jwks_uri=jwks, issuer="https://login.test", audience="shop", prefetch=False
    )
    with serving(app) as url, httpx.Client(base_url=url) as client:
        realm = {"realm": {"roles": ["support"]}}
        assert client.post("/refunds", headers=bearer(**realm, sid="sid-1")).status_code == 200
        assert asked.last == ("user", "alice", ("support",))
        assert (asked.contexts[-1].session_id, asked.contexts[-1].ip) == ("sid-1", "127.0.0.1")
        assert client.post("/refunds", headers=bearer(**realm, act={"sub": "bot"})).status_code == 200
        assert asked.last == ("agent", "bot", ("support",))
        assert len(asked.contexts[-1].session_id) == 64
        assert client.post("/refunds", headers=bearer(**realm, sub="svc", client_id="svc")).status_code == 200
        assert asked.last[:2] == ("service", "svc")
        # Headers are nothing but text, with a token and without one.
        claimed = {"X-Principal-Id": "root", "X-Roles": "support", "X-Principal-Kind": "user", "X-Session-Id": "s"}
        assert client.post("/refunds", headers={**bearer(), **claimed}).status_code == 403
        assert asked.last == ("user", "alice", ())
        assert client.post("/refunds", headers=claimed).status_code == 403
        assert asked.last == ("external", "anonymous", ())
        assert asked.contexts[-1].session_id is None
        assert client.post("/refunds", headers=bearer(iss="https://elsewhere")).status_code == 401
        assert len(asked.contexts) == 5


def test_verified_lineage_says_who_and_how_trusted() -> None:
    gate = refund_gate({"trust_min": 30}, {"taint_absent": "raw"})
    asked = Asked(gate)
    app = app_of(gate, [])
    app.add_middleware(KestMiddleware, trust_store=keys(ALICE))
    configure(engine=MockPolicyEngine(), identity=ALICE)

    def post(passport: Any) -> int:
        transport = KestHttpxInterceptor()
        with lineage(passport), httpx.Client(base_url=url, transport=transport) as client:
            return client.post("/refunds").status_code

    with serving(app) as url:
        assert post(None) == 403  # no lineage: no trust is known
        assert asked.last == ("external", "anonymous", ())
        assert asked.contexts[-1].trust is None
        assert post(grown(1)) == 200
        assert asked.last == ("service", ALICE.get_identity(), ())
        assert asked.contexts[-1].trust == 100
        assert post(grown(1, source_type="internet")) == 403
        assert post(grown(1, added_taints=["raw"])) == 403
        before = caller_var.set(Caller("carol", "bot"))
        try:
            assert post(grown(1)) == 200
        finally:
            caller_var.reset(before)
        assert asked.last == ("user", "carol", ())
        count = len(asked.contexts)
        assert post(grown(1, identity=BOB)) == 403  # a signature that nobody here knows: the middleware before
        assert len(asked.contexts) == count


def test_unverified_lineage_says_nothing() -> None:
    gate = refund_gate({"identity_kind": "external"}, {"taint_present": "kest.unverified"})
    asked = Asked(gate)
    app = app_of(gate, [])
    app.add_middleware(KestMiddleware)
    configure(engine=MockPolicyEngine(), identity=ALICE)
    with serving(app) as url, lineage(grown(1, user="carol")), httpx.Client(transport=KestHttpxInterceptor()) as client:
        assert client.post(f"{url}/refunds").status_code == 200
    assert asked.last == ("external", "anonymous", ())
    assert asked.contexts[-1].trust == 10


def test_header_identity_is_believed_when_asked_for() -> None:
    gate = refund_gate({"identity_role": "support"}, max_session_actions=3)
    asked = Asked(gate)
    with served(gate, trust_header_identity=True) as at:
        claimed = {"X-Principal-Id": "bob", "X-Roles": "sales , support", "X-Session-Id": "s"}
        assert at.client.post("/refunds", headers=claimed).status_code == 200
        assert asked.last == ("user", "bob", ("sales", "support"))
        assert at.client.post("/refunds", headers={**claimed, "X-Principal-Kind": "agent"}).status_code == 200
        assert asked.last[0] == "agent"
        assert at.client.post("/refunds", headers={**claimed, "X-Principal-Kind": "root"}).status_code == 400
        twice = [("X-Principal-Id", "bob"), ("X-Principal-Id", "admin"), ("X-Roles", "support")]
        assert at.client.post("/refunds", headers=twice).status_code == 400
        assert at.client.post("/refunds", headers={"X-Roles": "support"}).status_code == 403  # roles of nobody
        assert asked.last == ("external", "anonymous", ())
        assert at.client.post("/refunds", headers=claimed).status_code == 200
        answer = at.client.post("/refunds", headers=claimed)
        assert (answer.status_code, problem(answer)["code"]) == (403, "INVARIANT_VIOLATION")


def test_an_application_can_vouch_for_its_principals() -> None:
    gate = refund_gate({"identity_role": "support"})
    asked = Asked(gate)

    def identify(scope: Any) -> Principal | None:
        return Principal("dora", roles=("support",)) if scope["path"] == "/refunds" else None

    with served(gate, identify=identify) as at:
        assert at.client.post("/refunds").status_code == 200
        assert asked.last == ("user", "dora", ("support",))
        assert at.client.post("/elsewhere").status_code == 403
        assert asked.last == ("external", "anonymous", ())


def test_the_address_is_the_peers_unless_a_proxy_is_trusted() -> None:
    forwarded = {"X-Forwarded-For": "6.6.6.6, 1.1.1.1"}
    for proxies, address in (((), "127.0.0.1"), (["127.0.0.0/8"], "1.1.1.1")):
        gate = refund_gate()
        asked = Asked(gate)
        ran: list[Any] = []
        app = app_of(gate, ran, trusted_proxies=proxies)
        with serving(app, proxy_headers=False) as url:
            assert httpx.post(f"{url}/refunds", headers=forwarded).status_code == 200
        assert asked.contexts[-1].ip == address


def test_a_resolver_sees_the_headers() -> None:
    async def resolve(*, method: str, path: str, ip: str, headers: dict[str, str]) -> GeoLocation:
        return GeoLocation(headers["cf-ipcountry"])

    with served(refund_gate({"geo_country": "DE"}), geo_resolver=resolve) as at:
        assert at.client.post("/refunds", headers={"CF-IPCountry": "DE"}).status_code == 200
        assert at.client.post("/refunds", headers={"CF-IPCountry": "FR"}).status_code == 403
        assert at.client.post("/refunds").status_code == 403


# --- sessions and limits ---


def test_drift_ends_the_session_and_says_so() -> None:
    with served(refund_gate(), trust_header_identity=True, trusted_proxies=["127.0.0.1"]) as at:
        who = {"X-Principal-Id": "bob", "X-Session-Id": "s"}
        for address, status in (("1.1.1.1", 200), ("2.2.2.2", 401), ("1.1.1.1", 401)):
            answer = at.client.post("/refunds", headers={**who, "X-Forwarded-For": address})
            assert answer.status_code == status
        document = problem(answer)
        assert (document["code"], document["evaluator"]) == ("SESSION_INVALID", "gate")
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert len(at.ran) == 1
    with served(refund_gate(), trust_header_identity=True, trusted_proxies=["127.0.0.1"]) as at:
        assert at.client.post("/refunds", headers={**who, "X-Forwarded-For": "1.1.1.1"}).status_code == 200
        document = problem(at.client.post("/refunds", headers={**who, "X-Forwarded-For": "2.2.2.2"}))
        assert (document["type"], document["code"]) == ("urn:kest:problem:invalidated", "SESSION_INVALID")
        assert "IP changed" in document["reason"]


def test_rate_limits_say_when_to_come_back() -> None:
    with served(refund_gate({"rate_limit": {"max": 2, "window": "60s"}})) as at:
        assert [at.client.post("/refunds").status_code for _ in range(3)] == [200, 200, 429]
        answer = at.client.post("/refunds")
        assert answer.headers["retry-after"] == "30"  # two in a minute
        assert problem(answer)["code"] == "RATE_LIMIT_EXCEEDED"
        assert len(at.ran) == 2


def test_a_store_that_fails_is_no_permission() -> None:
    class Broken:
        def room(self, limits: Any) -> Any:
            raise OSError("down")

        def record(self, limits: Any, *, enforce: bool) -> bool:
            raise OSError("down")

    with served(refund_gate({"rate_limit": {"max": 2, "window": "60s"}}, rate_store=Broken())) as at:
        answer = at.client.post("/refunds")
        assert answer.status_code == 503
        assert "detail" not in problem(answer)
        assert at.ran == []


def test_the_loop_serves_others_while_a_store_is_waited_for() -> None:
    go, asked = threading.Event(), threading.Event()

    class Slow:
        def room(self, limits: Any) -> Any:
            asked.set()
            assert go.wait(30)
            return [True] * len(limits)

        def record(self, limits: Any, *, enforce: bool) -> bool:
            return True

    with served(refund_gate({"rate_limit": {"max": 2, "window": "60s"}}, rate_store=Slow())) as at:
        statuses: list[int] = []
        waiting = threading.Thread(target=lambda: statuses.append(httpx.post(f"{at.url}/refunds").status_code))
        waiting.start()
        assert asked.wait(30)
        assert at.client.get("/refunds").status_code == 200  # answered by the same loop
        assert not statuses
        go.set()
        waiting.join(30)
        assert statuses == [200]


def test_observing_blocks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "kest.gate"),
        served(Gate({"policies": []}, observe_only=True), max_body=20) as at,
    ):
        json_type = {"content-type": "application/json"}
        bodies = [b'{"amount": 5}', b"{broken", b'"' + b"x" * 50 + b'"']
        for body in bodies:
            assert at.client.post("/refunds", content=body, headers=json_type).status_code == 200
        assert at.client.post("/refunds", content=iter(bodies), headers=json_type).status_code == 200
        assert at.ran == [*bodies, b"".join(bodies)]
    assert "would refuse" in caplog.text
    assert "would answer 413" in caplog.text


# --- WebSockets ---


def test_websockets_are_gated_before_they_open() -> None:
    gate = Gate.from_dict(
        {
            "policies": [
                {"name": "p", "effect": "permit", "conditions": [{"action": "live.connect"}, {"resource": "/live"}]}
            ]
        }
    )
    ran: list[Any] = []
    app = app_of(gate, ran)

    @app.websocket("/live")
    @app.websocket("/health")
    @app.websocket("/other")
    async def live(socket: WebSocket) -> None:
        permit = current_permit()
        ran.append(None if permit is None else permit.action_name)
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    with serving(app) as url:
        address = url.replace("http", "ws")
        for path in ("/live", "/health"):
            with websockets.sync.client.connect(address + path) as connection:
                assert connection.recv() == "hello"
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            websockets.sync.client.connect(f"{address}/other")
        response = refused.value.response
        assert response.status_code == 403
        assert json.loads(response.body)["code"] == "NO_POLICY_MATCH"
    assert ran == ["live.connect", None]


# --- errors of the application ---


def test_refusals_inside_the_application_are_answered_as_well() -> None:
    app = FastAPI()
    app.add_middleware(GateMiddleware, gate=refund_gate())

    @app.post("/refunds")
    @guarded(Gate({"policies": []}))
    async def refund() -> None: ...

    with serving(app) as url:
        answer = httpx.post(f"{url}/refunds")
        assert (answer.status_code, problem(answer)["reason"][-19:]) == (403, "principal 'unknown'")


def test_what_the_gate_cannot_decide_does_not_run() -> None:
    def identify(scope: Any) -> Principal | None:
        raise LookupError("no database")

    with served(refund_gate(), identify=identify) as at:
        assert at.client.post("/refunds").status_code == 500
        assert at.ran == []


def test_settings_belong_to_one_place() -> None:
    http = HttpGate(refund_gate())
    assert GateMiddleware(Starlette(), http).http is http
    with pytest.raises(TypeError, match="max_body"):
        GateMiddleware(Starlette(), http, max_body=5)


# --- FastAPI ---


def test_a_dependency_gates_single_routes() -> None:
    http = HttpGate(refund_gate({"param_max": {"field": "amount", "max": 100}}))
    app = FastAPI()
    install_problem_handlers(app)
    ran: list[Any] = []

    @app.post("/orders/{order}/notes")
    async def notes(body: dict[str, Any], permit: PermitToken = Depends(gated(http, "refunds.create"))) -> Any:
        ran.append(body)
        return permit.action_name

    @app.post("/refunds", dependencies=[Depends(gated(http))])
    async def refunds(request: Request) -> Any:
        ran.append(await request.json())
        return request.state.kest_permit.action_name

    with serving(app) as url, httpx.Client(base_url=url) as client:
        assert client.post("/orders/1/notes", json={"amount": 5}).json() == "refunds.create"
        assert client.post("/refunds", json={"amount": 5}).json() == "refunds.create"
        assert problem(client.post("/orders/1/notes", json={"amount": 500}))["code"] == "NO_POLICY_MATCH"
        assert client.post("/refunds", json={"amount": 500}).status_code == 403
        assert client.post("/refunds", content=b'{"amount":1,"amount":2}', headers={"content-type": "application/json"}
                           ).status_code == 400  # fmt: skip
    assert ran == [{"amount": 5}, {"amount": 5}]


def test_evaluate_fastapi_gives_the_verdict() -> None:
    http = HttpGate(refund_gate(), max_body=10)
    app = FastAPI()
    install_problem_handlers(app)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def anything(request: Request) -> Any:
        return (await http.evaluate_fastapi(request)).kind

    with serving(app) as url, httpx.Client(base_url=url) as client:
        assert client.post("/refunds", json={"a": 5}).json() == "permit"
        assert client.post("/other", json={"a": 5}).json() == "refuse"
        assert client.get("/other").json() == "permit"
        assert client.post("/refunds", json={"amount": 5_000_000}).status_code == 413


def test_the_order_of_middlewares_does_not_matter_to_those_of_kest() -> None:
    """The governed service of the other tests, behind a gate."""
    ran: list[Any] = []
    app = service(ran)
    app.add_middleware(GateMiddleware, gate=Gate({"policies": []}))
    configure(engine=MockPolicyEngine(), identity=ALICE)
    with serving(app) as url:
        assert httpx.post(f"{url}/work").status_code == 403
    assert ran == []


async def test_lifespan_passes() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await GateMiddleware(app, Gate({"policies": []}))({"type": "lifespan"}, asyncio.Queue().get, asyncio.Queue().put)
    assert seen == ["lifespan"]
