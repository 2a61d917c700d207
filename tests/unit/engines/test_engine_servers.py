"""OPA and cedar-agent: the request, and what a bad server may say (C2)."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import pytest
from answering_servers import (
    AGENT_ALLOW,
    ENGINES,
    OPA_ALLOW,
    WIRE_FAULTS,
    Server,
    closing,
    response,
    saying,
    serving,
    with_allow,
)
from engine_samples import CONTEXT, decide_in_a_coroutine

from kest.core.engine import CedarPolicyEngine, Decision, OPAPolicyEngine, decide, decide_async
from kest.errors import ConfigurationError, PolicyEngineError


@pytest.mark.parametrize("fault", WIRE_FAULTS)
@pytest.mark.parametrize("which", ENGINES)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_server_faults_deny_within_the_timeout(which: str, fault: str, mode: str) -> None:
    make, allow = ENGINES[which]
    stalls = "stall" in fault  # the rest is refused for what it is, however slow the machine
    timeout = 0.4 if stalls else 3
    with serving(with_allow(WIRE_FAULTS[fault], allow)) as server, make(server.url, timeout=timeout) as engine:
        start = time.monotonic()
        ask = decide_async if mode == "async" else decide_in_a_coroutine
        with pytest.raises(PolicyEngineError) as caught:
            await ask(engine, "e", ["kest/allow"], CONTEXT)
        assert time.monotonic() - start < 4
        assert "s3cr3t" not in str(caught.value)
        assert len(server.requests) == 1 or (stalls and not server.requests)  # nothing is retried, no redirect followed


@pytest.mark.parametrize(
    "body",
    [
        b'{"result": {"allow": "true"}}',
        b'{"result": {"allow": "false"}}',
        b'{"result": {"allow": 1}}',
        b'{"result": {"allow": []}}',
        b'{"result": {"allow": {}}}',
        b'{"result": {"allow": null}}',
        b'{"result": {"allow": false}}',
        b'{"result": {}}',
        b'{"result": true}',
        b'{"result": [true]}',
        b'{"allow": true}',
        b"{}",
        b"[]",
        b"true",
        b"null",
        b'{"decision": "allow"}',
        b'{"decision": "ALLOW"}',
        b'{"decision": "Deny"}',
        b'{"decision": true}',
        b'{"decision": ["Allow"]}',
        b'{"decision": "Allow", "diagnostics": {"errors": ["x"]}}',
        b'{"decision": "Allow", "diagnostics": {"errors": null}}',
        b'{"decision": "Allow", "diagnostics": "x"}',
    ],
)
async def test_answers_that_are_not_yes_deny(body: bytes) -> None:
    with serving(saying(response(body))) as server:
        for make, _ in ENGINES.values():
            with make(server.url) as engine:
                assert decide(engine, "e", ["kest/allow"], CONTEXT).allowed is False
                decision = await decide_async(engine, "e", ["kest/allow"], CONTEXT)
                assert decision.allowed is False
                assert decision.reason
                assert decision.policy == "kest/allow"


@pytest.mark.parametrize(
    "body", [b'{"result": {"allow": false, "allow": true}}', b'{"result": {"allow": true}, "x": NaN}']
)
def test_ambiguous_json_is_refused(body: bytes) -> None:
    with (
        serving(saying(response(body))) as server,
        OPAPolicyEngine(server.url) as engine,
        pytest.raises(PolicyEngineError, match="not JSON"),
    ):
        decide(engine, "e", ["a"], CONTEXT)


async def test_opa_request_and_kept_connection() -> None:
    answer = b'{"decision_id": "d-1", "provenance": {"bundles": {"b": {"revision": "r7"}}}, "result": {"allow": true}}'
    with serving(saying(response(answer))) as server:
        with OPAPolicyEngine(host="127.0.0.1", port=server.port, headers={"Authorization": "Bearer t0k3n"}) as engine:
            decision = decide(engine, "e", ["kest/allow_trusted", "kest.other-one"], CONTEXT)
            assert decision.allowed is True
            assert decision.ids == ("decision_id=d-1", "revision=b@r7", "decision_id=d-1")
            assert server.connections == 1
            for _ in range(2):
                assert (await decide_async(engine, "e", ["kest.allow_trusted"], CONTEXT)).allowed is True
            assert server.connections == 2  # one of this event loop's
            assert "t0k3n" not in repr(engine) + str(vars(engine))
        first = server.requests[0]
        assert first.startswith(b"POST /v1/data/kest/allow_trusted HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer t0k3n\r\n" in first
        assert json.loads(first.partition(b"\r\n\r\n")[2]) == {"input": CONTEXT}
        assert server.requests[1].startswith(b"POST /v1/data/kest/other-one HTTP/1.1\r\n")


def test_opa_options() -> None:
    with serving(saying(response(b'{"result": true}'))) as server:
        with OPAPolicyEngine(server.url + "/opa/", decision_path="result", provenance=True) as engine:
            assert decide(engine, "e", ["kest/allow/allow"], CONTEXT).allowed is True
        assert server.requests[0].startswith(b"POST /opa/v1/data/kest/allow/allow?provenance=true HTTP/1.1\r\n")


def test_opa_over_a_unix_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "opa.sock")
    server = Server(saying(response(OPA_ALLOW)), socket.AF_UNIX).start(path)
    try:
        with OPAPolicyEngine(uds=path) as engine:
            assert decide(engine, "e", ["a"], CONTEXT).allowed is True
            assert asyncio.run(decide_async(engine, "e", ["a"], CONTEXT)).allowed is True
    finally:
        server.stop()
    with pytest.raises(PolicyEngineError, match="unix:"):
        decide(OPAPolicyEngine(uds=str(tmp_path / "none")), "e", ["a"], CONTEXT)


@pytest.mark.parametrize(
    "name", ["../admin", "a//b", "a/../b", "/a", "a/", "a?b", "a#b", "a%2e", "a b", "é", "a\r\nX: y", ".", "a..b"]
)
async def test_opa_policy_names_cannot_reach_elsewhere(name: str) -> None:
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        with pytest.raises(PolicyEngineError):
            decide(engine, "e", [name], CONTEXT)
        with pytest.raises(PolicyEngineError):
            await decide_async(engine, "e", ["fine", name], CONTEXT)
        assert server.requests == []


async def test_agent_request() -> None:
    with serving(saying(response(AGENT_ALLOW))) as server:
        with CedarPolicyEngine(host="127.0.0.1", port=server.port) as engine:
            decision = decide(engine, "e", ['we"ird\n'], {**CONTEXT, "args": {"f": 1.5}})
            assert decision == Decision(True, "", None, ("p1",))
        with CedarPolicyEngine(server.url, path="/is_authorized") as engine:
            assert (await decide_async(engine, "e", ["a"], CONTEXT)).allowed is True
        assert server.requests[0].startswith(b"POST /v1/is_authorized HTTP/1.1\r\n")
        assert server.requests[1].startswith(b"POST /is_authorized HTTP/1.1\r\n")
        body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
        assert body["principal"] == 'Workload::"spiffe://t/w"'
        assert body["action"] == 'Action::"we\\"ird\\n"'
        assert body["resource"] == 'Resource::"doc-1"'
        assert body["context"]["args"] == {"f": {"__extn": {"fn": "decimal", "arg": "1.5"}}}
        assert "agent" not in body["context"]


def test_chunked_and_interim_responses_are_read() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += (
        b"".join(b"%x;e=1\r\n%s\r\n" % (len(part), part) for part in (OPA_ALLOW[:5], OPA_ALLOW[5:]))
        + b"0\r\nT: x\r\n\r\n"
    )

    def byte_by_byte(_: Server, connection: socket.socket, __: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            connection.sendall(data[index : index + 1])

    for behave in (saying(data), byte_by_byte, closing(b"HTTP/1.0 200 OK\r\n\r\n" + OPA_ALLOW)):
        with serving(behave) as server, OPAPolicyEngine(server.url) as engine:
            assert decide(engine, "e", ["a", "b"], CONTEXT).allowed is True


def test_connection_refused_and_unknown_hosts() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for engine in (
        OPAPolicyEngine(host="127.0.0.1", port=port),
        OPAPolicyEngine("http://no-such-host.invalid:1", timeout=0.5),
    ):
        start = time.monotonic()
        with pytest.raises(PolicyEngineError):
            decide(engine, "e", ["a"], CONTEXT)
        with pytest.raises(PolicyEngineError):
            asyncio.run(decide_async(engine, "e", ["a"], CONTEXT))
        assert time.monotonic() - start < 5


async def test_recovery_after_restart() -> None:
    server = Server(closing(response(OPA_ALLOW))).start()
    engine = OPAPolicyEngine(server.url)
    assert decide(engine, "e", ["a"], CONTEXT).allowed is True
    port = server.port
    server.stop()
    await asyncio.sleep(0.05)
    with pytest.raises(PolicyEngineError):
        decide(engine, "e", ["a"], CONTEXT)
    again = Server(saying(response(OPA_ALLOW))).start(("127.0.0.1", port))
    try:
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        assert (await decide_async(engine, "e", ["a"], CONTEXT)).allowed is True
    finally:
        again.stop()
        engine.close()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"url": "ftp://x"},
        {"url": "http://"},
        {"url": "localhost:8181"},
        {"url": "http://user:pw-s3cr3t@host"},
        {"url": "http://host/a?b=c"},
        {"url": "http://host/#f"},
        {"url": "http://host:99999"},
        {"url": "http://ho st"},
        {"url": "http://host\r\nX: y"},
        {"url": "http://a", "host": "b"},
        {"host": "h", "port": 0},
        {"host": "h", "port": "8181"},
        {"host": "h/../x"},
        {"url": "http://h", "timeout": 0},
        {"url": "http://h", "timeout": float("nan")},
        {"url": "http://h", "timeout": None},
        {"url": "http://h", "headers": {"X": "a\r\nY: b"}},
        {"url": "http://h", "headers": {"Host": "x"}},
    ],
)
def test_bad_server_arguments(arguments: dict[str, Any]) -> None:
    for make in (OPAPolicyEngine, CedarPolicyEngine):
        with pytest.raises(ConfigurationError) as caught:
            make(**arguments)
        assert "s3cr3t" not in str(caught.value)
    for path in ("", "result..allow", None):
        with pytest.raises(ConfigurationError):
            OPAPolicyEngine("http://h", decision_path=path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        CedarPolicyEngine("http://h", path="/v2")


def test_document_samples_servers() -> None:
    for engine in (
        OPAPolicyEngine(url="http://opa:8181"),
        OPAPolicyEngine(host="localhost", port=8181),
        OPAPolicyEngine(url="https://[::1]:8181"),
        OPAPolicyEngine(host="::1"),
        CedarPolicyEngine(url="http://cedar:8080"),
        CedarPolicyEngine(host="localhost", port=8180),
    ):
        engine.close()
