"""`HttpGate` by itself: what is gated, what actions are called, whose they are, and what the gate gets to see."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kest.errors import ConfigurationError, GateRequestError
from kest.gate import Gate, GateInputError, GeoLocation, Invalidated, Refused
from kest.gate.addresses import TrustedProxies
from kest.gate.http import HttpGate

Make = Callable[..., Any]
POST = {"method": "POST", "path": "/api/v1/refunds"}
BERLIN = GeoLocation("DE", latitude=52.52, longitude=13.4)
NEW_YORK = GeoLocation("US", latitude=40.71, longitude=-74.0)


# --- what is gated ---


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_safe_methods_pass_unless_told_otherwise(permitting: Make, method: str) -> None:
    assert not HttpGate(permitting()).should_gate(method, "/refunds")
    assert HttpGate(permitting(), gate_mutations_only=False).should_gate(method, "/refunds")
    assert not HttpGate(permitting(), gate_mutations_only=False).should_gate(method, "/health")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "Get", ""])
def test_all_other_methods_are_gated(permitting: Make, method: str) -> None:
    assert HttpGate(permitting()).should_gate(method, "/refunds")


@pytest.mark.parametrize("path", ["/health", "/health/", "/health/live", "/ready", "/metrics/x/y"])
def test_excluded_paths(permitting: Make, path: str) -> None:
    assert not HttpGate(permitting()).should_gate("POST", path)
    assert HttpGate(permitting(), excluded_paths=[]).should_gate("POST", path)  # none means none
    assert HttpGate(permitting(), excluded_paths=["/status"]).should_gate("POST", path)


@pytest.mark.parametrize(
    "path",
    [
        "/healthy", "/health-admin", "/healthcheck/x", "/HEALTH", "/x/health", "/health/../refunds", "/health/..",
        "/health/.", "//health", "/health//x", "/health/./x", "/health\\..\\refunds", "/health/%2e%2e/refunds",
        "/health%2f..%2frefunds", "/health/%252e%252e/refunds", "/health;x", "/health?x", "/health/\x00", "/health/\n",
        "/../health", "health", "", "/", "/health/..;/x", "/health#x", "/health/\uff0e\uff0e/x",
    ],
)  # fmt: skip
def test_what_only_looks_excluded_is_gated(permitting: Make, path: str) -> None:
    assert HttpGate(permitting()).should_gate("POST", path)


def test_exclusions_are_checked(permitting: Make) -> None:
    for bad in (["health"], ["/a/../b"], ["/a//b"], ["/a%2fb"], [7]):
        with pytest.raises(GateInputError, match="excluded_paths"):
            HttpGate(permitting(), excluded_paths=bad)
    with pytest.raises(TypeError):
        HttpGate(permitting(), excluded_paths="/health")
    assert not HttpGate(permitting(), excluded_paths=["/"]).should_gate("POST", "/anything")
    assert not HttpGate(permitting(), excluded_paths=["/a/"]).should_gate("POST", "/a")
    for wrong in ({"max_body": -1}, {"max_body": True}, {"trusted_proxies": "10.0.0.1"}, {"trusted_proxies": ["x"]}):
        with pytest.raises((TypeError, ValueError)):
            HttpGate(permitting(), **wrong)
    with pytest.raises(TypeError, match="takes a Gate"):
        HttpGate("gate")  # type: ignore[arg-type]


# --- names ---


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/api/v1/refunds", "refunds.create"),
        ("GET", "/api/v2beta/refunds/17", "refunds.read"),
        ("HEAD", "/refunds", "refunds.read"),
        ("PUT", "/refunds/17/", "refunds.update"),
        ("PATCH", "/v1.2/refunds", "refunds.update"),
        ("DELETE", "/orders/0192f0c1-7a3b-7c4d-8e5f-0123456789ab", "orders.delete"),
        ("POST", "/vendors", "vendors.create"),
        ("POST", "/refunds/verify", "verify.create"),
        ("POST", "/a//b/../refunds", "refunds.create"),
        ("POST", "/a/%72efunds", "refunds.create"),
        ("OPTIONS", "/refunds", "refunds.unknown"),
        ("post", "/refunds", "refunds.unknown"),
        ("POST", "/", "unknown.create"),
        ("POST", "/api/v1/17", "unknown.create"),
        ("POST", "/..", "unknown.create"),
    ],
)
def test_action_names(permitting: Make, method: str, path: str, name: str) -> None:
    assert HttpGate(permitting()).derive_action_name(method, path) == name


def test_an_application_names_its_actions(permitting: Make) -> None:
    http = HttpGate(
        permitting({"action": "pay.back"}), action_name=lambda method, path: {"/back": "pay.back"}.get(path)
    )
    assert http.evaluate(method="POST", path="/back").is_permit
    assert http.evaluate(method="POST", path="/x/back").is_refuse  # the derived name: back.create


# --- evaluate and check ---


def test_evaluate_sees_what_it_is_told(permitting: Make) -> None:
    http = HttpGate(permitting({"param_max": {"field": "amount", "max": 100}}))
    verdict = http.evaluate(
        **POST, principal_id="alice", roles=["support"], body={"amount": 7, "note": "x", "deep": {}}, ip="10.0.0.1",
        session_id="s", current_geo=BERLIN,
    )  # fmt: skip
    context = verdict.context
    assert verdict.is_permit
    assert (context.principal_id, context.principal_kind, context.roles) == ("alice", "user", ("support",))
    assert (context.action_name, context.resource, context.ip) == ("refunds.create", "/api/v1/refunds", "10.0.0.1")
    assert context.params == {"amount": 7, "note": "x", "deep": None}
    assert (context.session_id, context.current_geo) == ("s", BERLIN)
    for body in (None, {}, {"amount": "7"}, {"amount": float("nan")}, {"amount": 101}, [7], "amount"):
        assert http.evaluate(**POST, body=body).is_refuse
    with pytest.raises(TypeError, match="sesion_id"):
        http.evaluate(**POST, sesion_id="s")  # type: ignore[call-arg]
    for bad in ({"ip": "nowhere"}, {"principal_kind": "root"}, {"session_id": "a b"}):
        with pytest.raises(GateRequestError):
            http.evaluate(**POST, **bad)  # type: ignore[arg-type]


def test_nobody_is_anonymous_and_external(permitting: Make) -> None:
    context = HttpGate(permitting()).evaluate(**POST).context
    assert (context.principal_id, context.principal_kind) == ("anonymous", "external")
    assert HttpGate(permitting({"identity_kind": "user"})).evaluate(**POST).is_refuse
    assert HttpGate(permitting({"identity_kind": "user"})).evaluate(**POST, principal_kind="user").is_permit


def test_evaluate_honours_should_gate() -> None:
    nothing = HttpGate(Gate({"policies": []}))
    assert nothing.evaluate(**POST).is_refuse
    for request in ({"method": "GET", "path": "/refunds"}, {"method": "POST", "path": "/health"}):
        verdict = nothing.evaluate(**request)  # type: ignore[arg-type]
        assert (verdict.kind, verdict.context.action_name) == ("permit", "not gated")
        nothing.check(**request)  # type: ignore[arg-type]


def test_check_raises_and_sessions_belong_to_the_gate(permitting: Make) -> None:
    http = HttpGate(permitting(max_session_actions=2))
    with pytest.raises(Refused):
        HttpGate(Gate({"policies": []})).check(**POST)
    for _ in range(2):
        http.check(**POST, principal_id="a", session_id="s")
    with pytest.raises(Refused, match="max_session_actions"):
        http.check(**POST, principal_id="a", session_id="s")
    http.check(**POST, principal_id="a", session_id="t", ip="1.1.1.1")
    with pytest.raises(Invalidated):
        http.check(**POST, principal_id="a", session_id="t", ip="2.2.2.2")
    with pytest.raises(Refused) as refused:
        http.check(**POST, principal_id="a", session_id="t", ip="1.1.1.1")
    assert refused.value.code == "SESSION_INVALID"


async def test_async_evaluate_and_check(permitting: Make) -> None:
    http = HttpGate(permitting({"identity_id": "alice"}))
    assert (await http.evaluate_async(**POST, principal_id="alice")).is_permit
    assert (await http.evaluate_async(method="GET", path="/x")).is_permit
    await http.check_async(**POST, principal_id="alice")
    with pytest.raises(Refused):
        await http.check_async(**POST, principal_id="bob")


# --- places ---


def test_a_geo_resolver(permitting: Make, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[dict[str, Any]] = []

    def resolve(**request: Any) -> Any:
        asked.append(request)
        return answers.pop(0)

    http = HttpGate(permitting({"geo_country": "DE"}), geo_resolver=resolve)
    answers: list[Any] = [BERLIN, NEW_YORK, None, (BERLIN, None), (NEW_YORK, BERLIN), "DE", (BERLIN,)]
    kinds = [http.evaluate(**POST, ip="1.1.1.1").kind for _ in range(7)]
    assert kinds == ["permit", "refuse", "refuse", "permit", "refuse", "refuse", "refuse"]
    assert asked[0] == {"method": "POST", "path": "/api/v1/refunds", "ip": "1.1.1.1", "headers": {}}
    assert len(asked) == 7
    assert http.evaluate(**POST, current_geo=BERLIN).is_permit  # not asked
    assert http.evaluate(**POST, origin_geo=BERLIN).is_refuse
    assert http.evaluate(method="GET", path="/x").is_permit
    assert len(asked) == 7
    assert "not a GeoLocation" in caplog.text
    with pytest.raises(TypeError):
        HttpGate(permitting(), geo_resolver="DE")  # type: ignore[arg-type]


async def test_a_geo_resolver_that_is_a_coroutine_function(permitting: Make) -> None:
    async def resolve(*, method: str, path: str, ip: str | None, headers: Any) -> GeoLocation:
        await asyncio.sleep(0)
        return BERLIN

    http = HttpGate(permitting({"geo_country": "DE"}), geo_resolver=resolve)
    assert (await http.evaluate_async(**POST)).is_permit
    assert (await asyncio.to_thread(http.evaluate, **POST)).is_permit
    with pytest.raises(ConfigurationError, match="coroutine"):
        http.evaluate(**POST)
    behind = HttpGate(permitting({"geo_country": "DE"}), geo_resolver=lambda **request: resolve(**request))
    assert (await behind.evaluate_async(**POST)).is_permit


async def test_a_geo_resolver_that_raises_knows_no_place(permitting: Make, caplog: pytest.LogCaptureFixture) -> None:
    def resolve(**request: Any) -> Any:
        raise OSError("no database")

    async def later(**request: Any) -> Any:
        raise OSError("no database")

    for resolver in (resolve, later):
        http = HttpGate(permitting({"geo_country": "DE"}), geo_resolver=resolver)
        assert (await http.evaluate_async(**POST)).is_refuse
    assert "the place is unknown" in caplog.text


async def test_a_slow_geo_resolver_does_not_hold_up_the_loop(permitting: Make) -> None:
    asked, go = threading.Event(), threading.Event()

    def resolve(**request: Any) -> GeoLocation:
        asked.set()
        assert go.wait(30)
        return BERLIN

    task = asyncio.create_task(HttpGate(permitting({"geo_country": "DE"}), geo_resolver=resolve).evaluate_async(**POST))
    await asyncio.to_thread(asked.wait, 30)
    assert not task.done()
    go.set()
    assert (await task).is_permit


# --- addresses ---


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("8.8.8.8", ["1.1.1.1"], "8.8.8.8"),  # not from a proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),  # what stands before, the client wrote
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.9.9.9"], "1.1.1.1"),
        ("10.0.0.1", ["10.1.1.1"], "10.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, junk"], None),
        ("10.0.0.1", ["1.1.1.1:4711"], "1.1.1.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("2001:db8:1::1", ["1.1.1.1"], "1.1.1.1"),
        (None, ["1.1.1.1"], None),
        ("testclient", ["1.1.1.1"], None),
    ],
)
def test_the_address_of_a_client(peer: str | None, forwarded: list[str], client: str | None) -> None:
    assert TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48"]).client(peer, forwarded) == client
    assert TrustedProxies([]).client("10.0.0.1", ["1.1.1.1"]) == "10.0.0.1"


def test_the_warning_about_believed_headers_comes_once(permitting: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        HttpGate(permitting())
        assert "trust_header_identity" not in caplog.text
        HttpGate(permitting(), trust_header_identity=True)
        HttpGate(permitting(), trust_header_identity=True)
    assert caplog.text.count("trust_header_identity") == 1
