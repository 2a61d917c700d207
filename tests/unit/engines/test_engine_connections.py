"""The connections to policy servers: loops, threads, forks, replacement, names, and what is sent twice (never)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import time
import traceback
from typing import Any

import pytest
from answering_servers import OPA_ALLOW, Server, closing, response, saying, serving, stall
from engine_samples import CONTEXT

from kest.core.engine import OPAPolicyEngine, decide, decide_async
from kest.errors import PolicyEngineError


def test_one_engine_on_several_loops_and_threads() -> None:
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url, timeout=5) as engine:

        async def many() -> bool:
            asked = (decide_async(engine, "e", ["a"], CONTEXT) for _ in range(100))
            return all(decision.allowed for decision in await asyncio.gather(*asked))

        for _ in range(3):
            assert asyncio.run(many()) is True
        results: list[bool] = []
        threads = [threading.Thread(target=lambda: results.append(asyncio.run(many()))) for _ in range(4)]
        threads += [
            threading.Thread(target=lambda: results.append(decide(engine, "e", ["a"], CONTEXT).allowed))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 24


async def test_a_stalled_server_does_not_stop_the_loop_and_can_be_cancelled() -> None:
    with serving(stall) as server, OPAPolicyEngine(server.url, timeout=5) as engine:
        asked = asyncio.ensure_future(decide_async(engine, "e", ["a"], CONTEXT))
        start = time.monotonic()
        await asyncio.sleep(0.1)
        assert time.monotonic() - start < 3
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_connections_are_not_shared_with_a_child() -> None:
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        code = 1
        pid = os.fork()
        if pid == 0:
            try:
                code = 0 if decide(engine, "e", ["a"], CONTEXT).allowed is True else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        assert server.connections == 2


async def test_a_connection_that_the_server_closed_is_replaced(ask: Any) -> None:
    with serving(closing(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        for _ in range(3):
            assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True
            assert server.settles_at(0)
        assert (server.connections, len(server.requests)) == (3, 3)


async def test_a_request_is_never_sent_twice(ask: Any) -> None:
    def once(server: Server, connection: socket.socket, _: bytes) -> None:
        if len(server.requests) == 1:
            connection.sendall(response(OPA_ALLOW))
        else:
            connection.shutdown(socket.SHUT_RDWR)

    with serving(once) as server, OPAPolicyEngine(server.url) as engine:
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True
        with pytest.raises(PolicyEngineError):
            await ask(engine, "e", ["a"], CONTEXT)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_response_sent_before_its_request_is_refused(ask: Any) -> None:
    denial = response(b'{"result": {"allow": false}}')

    def ahead(server: Server, connection: socket.socket, _: bytes) -> None:
        connection.sendall(denial + response(OPA_ALLOW) if len(server.requests) == 1 else denial)

    with serving(ahead) as server, OPAPolicyEngine(server.url) as engine:
        with pytest.raises(PolicyEngineError, match="more than it announced"):
            await ask(engine, "e", ["a"], CONTEXT)
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is False
        assert server.connections == 2


async def test_a_response_sent_between_two_requests_is_not_taken_for_an_answer(ask: Any) -> None:
    denial, said = response(b'{"result": {"allow": false}}'), threading.Event()

    def ahead(server: Server, connection: socket.socket, _: bytes) -> None:
        connection.sendall(denial)
        if len(server.requests) == 1:
            assert go_on.wait(5)
            connection.sendall(response(OPA_ALLOW))
            said.set()

    go_on = threading.Event()
    with serving(ahead) as server, OPAPolicyEngine(server.url) as engine:
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is False
        go_on.set()
        assert said.wait(5)
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is False
        assert server.connections == 2


async def test_a_server_that_reads_slowly_is_late(ask: Any) -> None:
    stopped = threading.Event()

    def sip(listener: socket.socket) -> None:
        with contextlib.suppress(TimeoutError):  # a request that is late before it connects
            connection, _ = listener.accept()
            with connection:
                while not stopped.wait(0.02) and connection.recv(32_768):
                    pass

    with socket.socket() as listener:
        listener.settimeout(10)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=sip, args=(listener,), daemon=True)
        thread.start()
        try:
            with OPAPolicyEngine(host="127.0.0.1", port=listener.getsockname()[1], timeout=0.4) as engine:
                start = time.monotonic()
                with pytest.raises(PolicyEngineError, match=r"0\.4 s"):
                    await ask(engine, "e", ["a"], {**CONTEXT, "args": {"large": "x" * 24_000_000}})
                assert time.monotonic() - start < 5
        finally:
            stopped.set()
            thread.join()


async def test_names_are_resolved_within_the_timeout(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, released = socket.getaddrinfo, threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        released.wait(20)
        return real("127.0.0.1", 1)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with OPAPolicyEngine("http://opa.example:1", timeout=0.3) as engine:
        start = time.monotonic()
        with pytest.raises(PolicyEngineError, match=r"0\.3 s"):
            await ask(engine, "e", ["a"], CONTEXT)
        assert time.monotonic() - start < 4
    released.set()


async def test_every_address_of_a_name_is_tried(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def several(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        hosts = ("127.0.0.2", "127.0.0.1") if host in ("opa.example", b"opa.example") else (host,)
        return [found for each in hosts for found in real(each, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    with (
        serving(saying(response(OPA_ALLOW))) as server,
        OPAPolicyEngine(host="opa.example", port=server.port) as engine,
    ):
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True


async def test_a_body_may_have_a_megabyte(ask: Any) -> None:
    for size, fits in ((1_048_576, True), (1_048_577, False)):
        with serving(saying(response(OPA_ALLOW.ljust(size)))) as server, OPAPolicyEngine(server.url) as engine:
            if fits:
                assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True
            else:
                with pytest.raises(PolicyEngineError, match="too large"):
                    await ask(engine, "e", ["a"], CONTEXT)


async def test_proxies_of_the_environment_are_ignored(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 s3cr3t-value OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ns3cr3t-value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: s3cr3t-value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cr3t-value\r\n",
        b"HTTP/1.1 302 s3cr3t-value\r\nLocation: /s3cr3t-value\r\nContent-Length: 0\r\n\r\n",
        response(b"s3cr3t-value"),
    ],
)
async def test_errors_quote_nothing(ask: Any, data: bytes) -> None:
    with serving(saying(data)) as server, OPAPolicyEngine(server.url, headers={"X": "s3cr3t-value"}) as engine:
        with pytest.raises(PolicyEngineError) as caught:
            await ask(engine, "e", ["a"], CONTEXT)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_connections_end_with_their_loop_and_with_close() -> None:
    with serving(saying(response(OPA_ALLOW))) as server:
        engine = OPAPolicyEngine(server.url)

        async def several(engine: OPAPolicyEngine) -> None:
            await asyncio.gather(*(engine.async_decide("e", ["a"], CONTEXT) for _ in range(4)))

        for _ in range(3):
            asyncio.run(several(engine))
            assert server.settles_at(0)
        assert server.connections == 12
        assert len(engine._server._loops) == 1  # that of the last loop, until there is another

        async def closed(engine: OPAPolicyEngine) -> None:
            await several(engine)
            assert decide(engine, "e", ["a"], CONTEXT).allowed is True
            assert await asyncio.to_thread(server.settles_at, 5)
            engine.close()
            assert await asyncio.to_thread(server.settles_at, 0)
            await several(engine)

        asyncio.run(closed(engine))
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        assert server.settles_at(1)
        del engine
        gc.collect()
        assert server.settles_at(0)


def test_closing_does_not_disturb_a_request() -> None:
    asked, answer = threading.Event(), threading.Event()

    def wait(_: Server, connection: socket.socket, __: bytes) -> None:
        asked.set()
        answer.wait(2)
        connection.sendall(response(OPA_ALLOW))

    async def ask_and_close(engine: OPAPolicyEngine) -> bool:
        asking = asyncio.ensure_future(engine.async_decide("e", ["a"], CONTEXT))
        await asyncio.to_thread(asked.wait, 2)
        engine.close()
        answer.set()
        return (await asking).allowed

    with serving(wait) as server:
        engine = OPAPolicyEngine(server.url, timeout=5)
        results: list[bool] = []
        thread = threading.Thread(target=lambda: results.append(decide(engine, "e", ["a"], CONTEXT).allowed))
        thread.start()
        asked.wait(2)
        engine.close()
        answer.set()
        thread.join()
        assert results == [True]
        asked.clear()
        answer.clear()
        assert asyncio.run(ask_and_close(engine)) is True
        assert server.settles_at(0)
