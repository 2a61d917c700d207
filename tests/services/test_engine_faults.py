"""ATTACKS.md, row C2, and recovery: OPA and cedar-agent behind a proxy that fails, and the servers themselves killed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from engines import context
from kest_services.processes import Processes
from policy_servers import FAULTS, KINDS, FaultProxy, server

from kest.core import PolicyDeniedError, configure, kest_verified
from kest.core.context import lineage
from kest.core.engine import Decision, PolicyEngine, decide, decide_async, http_wire
from kest.errors import PolicyEngineError

PATIENCE = 0.6
TCP = ("cedar-agent", "opa")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Iterator[Callable[[str], Any]]:
    """The running server of a kind."""
    folder = tmp_path_factory.mktemp("servers")
    started: dict[str, Any] = {}
    with Processes(folder) as processes:

        def running(name: str) -> Any:
            built(name)
            if name not in started:
                started[name] = server(name, processes, folder / name)
                started[name].start()
            return started[name]

        yield running


@pytest.fixture
def proxied(
    request: pytest.FixtureRequest, servers: Callable[[str], Any], reader: str
) -> Iterator[tuple[FaultProxy, PolicyEngine]]:
    """A proxy in front of a real server, and an engine that asks it through the proxy; the parameter is the kind. Twice:
    with either reader of answers."""
    with FaultProxy(servers(request.param).port) as proxy, KINDS[request.param][1](proxy.url, timeout=PATIENCE) as made:
        yield proxy, made


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Any:
    """A coroutine function for (engine, context) → Decision, by either way into the engine."""

    async def asked(engine: PolicyEngine, given: Any) -> Decision:
        if request.param == "async":
            return await decide_async(engine, "e", ["contract/trusted"], given)
        return await asyncio.to_thread(decide, engine, "e", ["contract/trusted"], given)

    return asked


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "twice"])
@pytest.mark.parametrize("proxied", TCP, indirect=True)
async def test_c2_a_fault_denies_in_time_and_passes(
    proxied: tuple[FaultProxy, PolicyEngine], fault: str, ask: Any
) -> None:
    proxy, engine = proxied
    assert (await ask(engine, context())).allowed is True
    assert (await ask(engine, context(trust_score=1))).allowed is False
    assert proxy.connections == 1
    requests = proxy.requests
    proxy.fault = fault
    if fault == "refuse":
        proxy.refuse()
    start = time.monotonic()
    with pytest.raises(PolicyEngineError) as caught:
        await ask(engine, context())
    assert time.monotonic() - start < PATIENCE + 3  # the promise is PATIENCE; the rest is for busy machines
    assert "spiffe://" not in str(caught.value)
    assert proxy.requests == requests + (fault != "refuse")  # nothing is sent again
    if fault == "refuse":
        proxy.recover()
    proxy.fault = None
    assert (await ask(engine, context())).allowed is True
    assert (await ask(engine, context(trust_score=1))).allowed is False


@pytest.mark.parametrize("proxied", TCP, indirect=True)
async def test_c2_an_answer_said_twice_answers_no_other_question(
    proxied: tuple[FaultProxy, PolicyEngine], ask: Any
) -> None:
    proxy, engine = proxied
    proxy.fault = "twice"
    for trust in (80, 1, 80, 1, 80, 1):
        with suppress(PolicyEngineError):  # more than it announced: refused, if it arrives in one piece
            assert (await ask(engine, context(trust_score=trust))).allowed is (trust == 80)


@pytest.mark.parametrize("fault", ["reset", "stall", "500", "html", "truncate"])
@pytest.mark.parametrize("proxied", TCP, indirect=True)
async def test_c2_through_the_decorator(
    proxied: tuple[FaultProxy, PolicyEngine], fault: str, identity: Any, sink: Any
) -> None:
    proxy, engine = proxied
    proxy.fault = fault
    configure(engine=engine, identity=identity, audit=sink)
    ran: list[int] = []

    @kest_verified("contract/trusted", operation_name="op")
    async def call() -> None:
        ran.append(1)

    @kest_verified("contract/trusted", operation_name="op")
    def blocking() -> None:
        ran.append(1)

    with lineage(), pytest.raises(PolicyDeniedError, match="the policy engine failed"):
        await call()
    with lineage(), pytest.raises(PolicyDeniedError, match="the policy engine failed"):
        blocking()
    assert not ran
    assert [record["operation"] for record in sink.payloads("denial")] == ["op", "op"]
    proxy.fault = None  # an error is not remembered as a decision
    with lineage():
        await call()
    assert ran == [1]


@pytest.mark.parametrize("proxied", TCP, indirect=True)
async def test_c6_a_server_that_stalls_stops_no_loop(proxied: tuple[FaultProxy, PolicyEngine]) -> None:
    proxy, engine = proxied
    proxy.fault = "stall"
    asked = [asyncio.ensure_future(decide_async(engine, "e", ["contract/trusted"], context())) for _ in range(50)]
    turns, start = 0, time.monotonic()
    while not all(each.done() for each in asked):
        await asyncio.sleep(0.005)
        turns += 1
    assert all(isinstance(each.exception(), PolicyEngineError) for each in asked)
    assert time.monotonic() - start < PATIENCE + 3  # those that had to wait for a connection included
    assert turns > 20


@pytest.mark.parametrize("proxied", TCP, indirect=True)
async def test_what_they_answer_is_plain(
    proxied: tuple[FaultProxy, PolicyEngine], ask: Any, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No h11 is needed for it, yes or no; where h11 reads it, its absence is noticed."""
    monkeypatch.setattr(http_wire, "Connection", None)
    _, engine = proxied
    if reader == "h11":
        with pytest.raises(PolicyEngineError):
            await ask(engine, context())
        return
    assert (await ask(engine, context())).allowed is True
    assert (await ask(engine, context(trust_score=1))).allowed is False


@pytest.mark.parametrize("kind", TCP)
def test_c2_the_limit_is_one_second_unless_told(kind: str, servers: Callable[[str], Any]) -> None:
    with FaultProxy(servers(kind).port) as proxy, KINDS[kind][1](proxy.url) as engine:
        proxy.fault = "stall"
        start = time.monotonic()
        with pytest.raises(PolicyEngineError, match="within 1 s"):
            decide(engine, "e", ["contract/trusted"], context())
        assert 0.9 < time.monotonic() - start < 4


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_recovery_after_a_restart_while_it_is_asked(
    kind: str, processes: Processes, tmp_path: Path, built: Callable[[str], Path]
) -> None:
    """Four threads ask and know the right answer; meanwhile the server is killed, and started at the same address."""
    name, make = KINDS[kind]
    built(name.removesuffix("-unix"))
    wrong: list[object] = []
    failed, answered, over = threading.Event(), threading.Semaphore(0), threading.Event()

    def work(engine: PolicyEngine) -> None:
        trust = 0
        while not over.is_set():
            trust = (trust + 37) % 101
            try:
                decision = decide(engine, "e", ["contract/trusted"], context(trust_score=trust))
            except PolicyEngineError:
                failed.set()
                continue
            # An agent that has just started has no policies yet, and denies.
            forgetful = name == "cedar-agent" and not decision.allowed
            if decision.allowed is not (trust >= 70) and not forgetful:
                wrong.append((trust, decision))
            answered.release()

    with server(name, processes, tmp_path / "server") as running, make(running.url, timeout=5.0) as engine:
        address = running.url
        threads = [threading.Thread(target=work, args=(engine,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                assert answered.acquire(timeout=10)
            running.kill()
            assert failed.wait(10)
            running.start()
            assert running.url == address
            while answered.acquire(blocking=False):
                pass
            for _ in range(20):
                assert answered.acquire(timeout=10)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not wrong
        assert decide(engine, "e", ["contract/trusted"], context()).allowed is True
        assert asyncio.run(decide_async(engine, "e", ["contract/trusted"], context())).allowed is True
