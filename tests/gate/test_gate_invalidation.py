"""Invalidations reach gates at once and listeners on their own threads, after a fork as well."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kest.gate import (
    Gate,
    GateInputError,
    InMemoryInvalidationBroadcaster,
    InvalidationScope,
    InvalidationTarget,
    spawn_invalidation_listener,
)  # fmt: skip

Make = Callable[..., Any]


class Heard:
    """Remembers scopes, and lets a test wait for them."""

    def __init__(self) -> None:
        self.scopes: list[InvalidationScope] = []
        self.changed = threading.Condition()

    def __call__(self, scope: InvalidationScope) -> None:
        with self.changed:
            self.scopes.append(scope)
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.scopes) >= count, 20), self.scopes


def test_003_single_node_sample(permitting: Make, context: Make) -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    gate = permitting(broadcaster=broadcaster)
    heard = Heard()
    printed: list[str] = []

    def callback(scope: InvalidationScope) -> None:
        printed.append(f"invalidated: {scope.target} ({scope.reason})")
        heard(scope)

    handle = spawn_invalidation_listener(broadcaster, callback)
    try:
        assert gate.evaluate(context(session_id="s", ip="2.2.2.2", origin_ip="1.1.1.1")).is_invalidate
        heard.wait(1)
        (scope,) = heard.scopes
        assert (scope.target_kind, scope.target_id, scope.evaluator) == ("session", "s", "drift")
        assert scope.target == InvalidationTarget("session", "s")
        assert "IP changed" in scope.reason
        assert "invalidated" in printed[0]
    finally:
        handle.abort()
        handle.abort()
        handle.join(20)
    assert handle.is_finished
    assert handle.dropped == 0
    assert broadcaster.subscriber_count == 0


def test_a_gate_does_what_another_one_says(permitting: Make, context: Make) -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    gates = [permitting(broadcaster=broadcaster) for _ in range(2)]
    assert gates[0].evaluate(context(session_id="s", ip="2.2.2.2", origin_ip="1.1.1.1")).is_invalidate
    assert gates[1].evaluate(context(session_id="s")).code == "SESSION_INVALID"
    broadcaster.publish("principal", "alice", "left the company")
    assert gates[1].evaluate(context()).reason == "principal was invalidated"


def test_a_gate_that_is_gone_is_not_kept_alive(permitting: Make) -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    gate = permitting(broadcaster=broadcaster)
    del gate
    gc.collect()
    broadcaster.publish("session", "s", "x")
    assert not broadcaster._deliveries


def test_observing_broadcasts_nothing(permitting: Make, context: Make) -> None:
    class Loud:
        def publish(self, *_: object) -> None:
            raise AssertionError("published")

        def attach(self, deliver: object) -> Callable[[], None]:
            return lambda: None

    gate = permitting(broadcaster=Loud(), observe_only=True)
    assert gate.evaluate(context(ip="2.2.2.2", origin_ip="1.1.1.1")).observed.is_invalidate


def test_a_publisher_that_fails_changes_no_verdict(
    permitting: Make, context: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def publish(self, *_: object) -> None:
            raise ConnectionError("down")

        def attach(self, deliver: object) -> Callable[[], None]:
            return lambda: None

    gate = permitting(broadcaster=Broken())
    assert gate.evaluate(context(ip="2.2.2.2", origin_ip="1.1.1.1")).is_invalidate
    assert "could not be broadcast" in caplog.text


def test_a_callback_may_raise_and_use_everything(
    permitting: Make, context: Make, caplog: pytest.LogCaptureFixture
) -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    gate = permitting(broadcaster=broadcaster)
    heard = Heard()

    def callback(scope: InvalidationScope) -> None:
        heard(scope)
        if scope.target_id == "first":
            gate.invalidate("second")  # publishes from within
            gate.reload("")
            assert gate.evaluate(context()).is_refuse
            inner = spawn_invalidation_listener(broadcaster, lambda _: None)
            inner.abort()
            raise RuntimeError("callback failed")

    with caplog.at_level(logging.ERROR, "kest.gate"):
        handle = spawn_invalidation_listener(broadcaster, callback)
        broadcaster.publish("session", "first", "x")
        heard.wait(2)
        broadcaster.publish("session", "third", "x")
        heard.wait(3)
    handle.abort()
    handle.join(20)
    assert [scope.target_id for scope in heard.scopes] == ["first", "second", "third"]
    assert "callback raised" in caplog.text


def test_what_waits_is_joined_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from kest.gate import invalidation

    monkeypatch.setattr(invalidation, "MAX_PENDING", 10)
    broadcaster = InMemoryInvalidationBroadcaster()
    heard, entered, release = Heard(), threading.Event(), threading.Event()

    def callback(scope: InvalidationScope) -> None:
        entered.set()
        release.wait(20)
        heard(scope)

    handle = spawn_invalidation_listener(broadcaster, callback)
    broadcaster.publish("session", "hangs", "x")
    assert entered.wait(20)
    for number in range(15):
        broadcaster.publish("session", f"s{number}", "first")
        broadcaster.publish("session", "s0", f"again {number}")
    assert handle.dropped == 5
    release.set()
    heard.wait(11)
    handle.abort()
    handle.join(20)
    assert [scope.target_id for scope in heard.scopes] == ["hangs", *(f"s{n}" for n in range(10))]
    assert heard.scopes[1].reason == "again 14"


async def test_a_coroutine_runs_on_the_loop_that_asked() -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[str, bool]] = loop.create_future()

    async def callback(scope: InvalidationScope) -> None:
        await asyncio.sleep(0)
        done.set_result((scope.target_id, asyncio.get_running_loop() is loop))

    handle = spawn_invalidation_listener(broadcaster, callback)
    broadcaster.publish("role", "admin", "x")
    assert await asyncio.wait_for(done, 20) == ("admin", True)
    handle.abort()
    await asyncio.to_thread(handle.join, 20)
    assert handle.is_finished


def test_a_coroutine_without_a_loop_gets_one() -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    heard = Heard()

    async def callback(scope: InvalidationScope) -> None:
        await asyncio.sleep(0)
        heard(scope)

    handle = spawn_invalidation_listener(broadcaster, callback)
    broadcaster.publish("role", "admin", "x")
    heard.wait(1)
    handle.abort()
    handle.join(20)


def test_bad_arguments() -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    with pytest.raises(GateInputError, match="broadcaster must be"):
        spawn_invalidation_listener(object(), print)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        spawn_invalidation_listener(broadcaster, 5)  # type: ignore[arg-type]
    for bad in (("tenant", "x", "r"), ("session", "", "r"), ("session", "a b", "r")):
        with pytest.raises(GateInputError):
            broadcaster.publish(*bad)
    with pytest.raises(TypeError):
        broadcaster.publish("session", 5, "r")  # type: ignore[arg-type]


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
def test_fork_with_listeners(run_python: Any) -> None:
    """In the child a listener has a thread of its own as soon as it is needed; no lock is left locked."""
    run_python(
        """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from kest.gate import *
broadcaster = InMemoryInvalidationBroadcaster()
gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": []}]}, broadcaster=broadcaster)
heard, event = [], threading.Event()
def callback(scope):
    heard.append((os.getpid(), scope.target_id)); event.set()
handle = spawn_invalidation_listener(broadcaster, callback)
stop = threading.Event()
def noise():
    n = 0
    while not stop.is_set():
        n += 1
        broadcaster.publish("session", f"n{n % 50}", "x")
        gate.evaluate(ActionContext("a", "user", "x", session_id="q"))
thread = threading.Thread(target=noise); thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        heard.clear(); event.clear()
        broadcaster.publish("session", "from-child", "x")
        ok = event.wait(20)
        while ok and (os.getpid(), "from-child") not in heard:
            event.clear(); ok = (os.getpid(), "from-child") in heard or event.wait(20)
        ok = ok and gate.evaluate(ActionContext("a", "user", "x", session_id="from-child")).code == "SESSION_INVALID"
        handle.abort()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set(); thread.join(); handle.abort(); handle.join(20)
assert handle.is_finished
"""
    )


def test_the_interpreter_ends_with_listeners_alive(run_python: Any) -> None:
    run_python(
        "from kest.gate import *\n"
        "b = InMemoryInvalidationBroadcaster()\n"
        "spawn_invalidation_listener(b, lambda scope: None)\n"
        "for n in range(1000): b.publish('session', f's{n}', 'x')\n"
    )


def test_dead_gates_leave_nothing_behind(permitting: Make) -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    for _ in range(200):
        gate: Gate = permitting(broadcaster=broadcaster)
        gate.invalidate("s")
    gc.collect()
    broadcaster.publish("session", "t", "x")
    assert len(broadcaster._deliveries) == 1
    del gate
