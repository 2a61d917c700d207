"""A gate before Flask and other WSGI applications, with werkzeug's server and wsgiref's."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from flask import Flask, request
from werkzeug.serving import make_server as make_werkzeug
from wire import ALICE, grown, keys

from kest.core import MockPolicyEngine, configure
from kest.core.context import lineage
from kest.errors import GateRequestError
from kest.gate import Gate, Refused
from kest.gate.http import GateWSGIMiddleware, HttpGate, current_permit
from kest.gate.http.flask import install, install_problem_handlers
from kest.http import KestHttpxInterceptor, KestWSGIMiddleware


def refund_gate(*conditions: dict[str, Any], **options: Any) -> Gate:
    policy = {"name": "p", "effect": "permit", "conditions": [{"action": "refunds.*"}, *conditions]}
    return Gate.from_dict({"policies": [policy]}, **options)


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(app: Any, make: Any = None) -> Iterator[str]:
    """The base URL of a WSGI application behind a real server."""
    server = make("127.0.0.1", 0, app) if make else make_server("127.0.0.1", 0, app, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def flask_app(ran: list[Any]) -> Flask:
    app = Flask("shop")

    @app.post("/refunds")
    def create() -> dict[str, Any]:
        ran.append(request.get_json())
        return {"action": request.environ["kest.permit"].action_name}

    @app.get("/refunds")
    @app.post("/health")
    def other() -> dict[str, Any]:
        ran.append("other")
        return {}

    @app.post("/raise")
    def denied() -> None:
        raise Refused("no", "policy", "RATE_LIMIT_EXCEEDED", retry_after=7)

    return app


SMALL = {"param_max": {"field": "amount", "max": 100}}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("werkzeug"), "disabled", True)


@pytest.mark.parametrize("how", ["installed", "in front"])
def test_a_real_flask_server(how: str) -> None:
    ran: list[Any] = []
    app = flask_app(ran)
    if how == "installed":
        install(app, HttpGate(refund_gate(SMALL), max_body=1000))
    else:
        app.wsgi_app = GateWSGIMiddleware(app.wsgi_app, refund_gate(SMALL), max_body=1000)  # type: ignore[method-assign]
    json_type = {"content-type": "application/json"}
    with served(app, make_werkzeug) as url, httpx.Client(base_url=url) as client:
        answer = client.post("/refunds", json={"amount": 5})
        assert (answer.status_code, answer.json()) == (200, {"action": "refunds.create"})
        assert client.get("/refunds").status_code == 200
        assert client.post("/health").status_code == 200
        refused = client.post("/refunds", json={"amount": 500})
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
        assert (refused.json()["code"], refused.json()["evaluator"]) == ("NO_POLICY_MATCH", "policy")
        for body in (b'{"amount":1,"amount":500}', b"{", b'{"amount":NaN}', '{"amount":1}'.encode("utf-16")):
            assert client.post("/refunds", content=body, headers=json_type).status_code == 400
        assert client.post("/refunds", content=b" " * 1001, headers=json_type).status_code == 413
        assert client.post("/refunds?amount=1", json={"amount": 5}).status_code == 403
        assert client.post("/health/../refunds", json={"amount": 500}).status_code == 403
        assert client.post("/health/%2e%2e/refunds", json={"amount": 500}).status_code == 403
        assert client.post("/health%2f..%2frefunds", json={"amount": 500}).status_code == 403
    assert ran == [{"amount": 5}, "other", "other"]


def test_errors_of_views_are_problem_documents() -> None:
    app = flask_app([])
    install_problem_handlers(app)
    answer = app.test_client().post("/raise")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.get_json()["code"] == "RATE_LIMIT_EXCEEDED"


def test_flask_takes_the_principal_from_verified_lineage() -> None:
    configure(engine=MockPolicyEngine(), identity=ALICE)
    ran: list[Any] = []
    app = flask_app(ran)
    install(app, HttpGate(refund_gate({"identity_kind": "service"}, {"trust_min": 50})))
    app.wsgi_app = KestWSGIMiddleware(app.wsgi_app, trust_store=keys(ALICE))  # type: ignore[method-assign]
    with served(app) as url:
        with lineage(grown(1)), httpx.Client(transport=KestHttpxInterceptor()) as client:
            assert client.post(f"{url}/refunds", json={}).status_code == 200
        with lineage(grown(1, source_type="internet")), httpx.Client(transport=KestHttpxInterceptor()) as client:
            assert client.post(f"{url}/refunds", json={}).status_code == 403
        assert httpx.post(f"{url}/refunds", json={}, headers={"X-Principal-Kind": "service"}).status_code == 403
    assert len(ran) == 1


def test_sessions_and_headers_with_flask() -> None:
    app = flask_app([])
    install(app, HttpGate(refund_gate(max_session_actions=2), trust_header_identity=True))
    client = app.test_client()
    who = {"X-Principal-Id": "bob", "X-Session-Id": "s"}
    statuses = [client.post("/refunds", json={}, headers=who).status_code for _ in range(3)]
    assert statuses == [200, 200, 403]
    moved = client.post(
        "/refunds", json={}, headers={**who, "X-Session-Id": "t"}, environ_base={"REMOTE_ADDR": "1.1.1.1"}
    )
    assert moved.status_code == 200
    moved = client.post(
        "/refunds", json={}, headers={**who, "X-Session-Id": "t"}, environ_base={"REMOTE_ADDR": "2.2.2.2"}
    )
    assert (moved.status_code, moved.get_json()["code"]) == (401, "SESSION_INVALID")
    assert "WWW-Authenticate" in moved.headers


def test_evaluate_flask_gives_the_verdict() -> None:
    http = HttpGate(refund_gate(SMALL), max_body=20)
    app = Flask("shop")
    with app.test_request_context("/refunds", method="POST", json={"amount": 5}):
        verdict = http.evaluate_flask(request)
        assert (verdict.kind, verdict.context.params) == ("permit", {"amount": 5})
        assert http.evaluate_flask(request, action="other").is_refuse
        assert request.get_json() == {"amount": 5}
    with (
        app.test_request_context("/refunds", method="POST", json={"amount": "x" * 20}),
        pytest.raises(GateRequestError),
    ):
        http.evaluate_flask(request)
    with app.test_request_context("/x", method="GET"):
        assert http.evaluate_flask(request).is_permit


# --- WSGI by itself ---


def environ(body: bytes = b"", **more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/refunds", "QUERY_STRING": "", "REMOTE_ADDR": "10.0.0.1",
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **more,
    }  # fmt: skip


def call(app: Any, environ: dict[str, Any]) -> tuple[str, bytes]:
    statuses: list[str] = []
    body = b"".join(app(environ, lambda status, headers, exc_info=None: statuses.append(status)))
    return statuses[0], body


def echo(environ: dict[str, Any], start_response: Any) -> Any:
    """Streams its request's body, under the permit."""
    start_response("200 OK", [])
    while chunk := environ["wsgi.input"].read(3):
        permit = current_permit()
        assert permit is None or permit.action_name == "refunds.create"
        yield chunk


def test_the_body_is_there_for_the_application() -> None:
    app = GateWSGIMiddleware(echo, refund_gate(SMALL), max_body=20)
    assert call(app, environ(b'{"amount":5}')) == ("200 OK", b'{"amount":5}')
    chunked = environ(b'{"amount":5}', **{"CONTENT_LENGTH": "", "wsgi.input_terminated": True})
    assert call(app, chunked) == ("200 OK", b'{"amount":5}')
    assert call(app, environ(b'{"amount":5}', CONTENT_LENGTH=""))[0] == "403 Forbidden"  # no length, no end: no body
    assert call(app, environ(b'{"amount":500}'))[0] == "403 Forbidden"
    endless = environ(b" " * 21, **{"CONTENT_LENGTH": "", "wsgi.input_terminated": True})
    assert call(app, endless)[0].startswith("413 ")


def test_observing_loses_nothing_of_a_body() -> None:
    app = GateWSGIMiddleware(echo, refund_gate(observe_only=True), max_body=20)
    body = bytes(range(256)) * 10
    for more in ({}, {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}):
        assert call(app, environ(body, **more)) == ("200 OK", body)
    assert call(app, environ(b"{broken")) == ("200 OK", b"{broken")


def test_the_servers_raw_path_counts() -> None:
    app = GateWSGIMiddleware(echo, Gate({"policies": []}))
    for raw in ("/health/%2e%2e/x", "/health%2Fx", "/health/%5cx"):
        assert call(app, environ(PATH_INFO="/health/x", RAW_URI=raw))[0] == "403 Forbidden"
    assert call(app, environ(PATH_INFO="/health/x", RAW_URI="/health/x?%2f"))[0] == "200 OK"


def test_refusals_inside_the_application_are_answered_as_well() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise Refused("no", "policy", "POLICY_DENIED")

    status, body = call(GateWSGIMiddleware(app, refund_gate()), environ())
    assert status == "403 Forbidden"
    assert b'"POLICY_DENIED"' in body
