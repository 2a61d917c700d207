"""Invalidations through a real Redis: signed, complete after whatever happens in between, to gates and to listeners."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kest_services.service import wait_until

redis = pytest.importorskip("redis", reason="redis-py is not installed")

from kest.core import LocalEd25519Provider  # noqa: E402
from kest.errors import ConfigurationError, GateStoreError  # noqa: E402
from kest.gate import (  # noqa: E402
    Gate,
    GateInputError,
    InvalidationBroadcaster,
    InvalidationScope,
    InvalidationTarget,
    RedisInvalidationBroadcaster,
    RedisRateLimitStore,
    RedisSessionStore,
    redis_messages,
    spawn_invalidation_listener,
)

Make = Callable[..., Any]
KEY = bytes(range(32))


class Heard:
    """Remembers what it is told; `wait` for it."""

    def __init__(self) -> None:
        self.scopes: list[InvalidationScope] = []
        self.changed = threading.Condition()

    def __call__(self, scope: InvalidationScope) -> None:
        with self.changed:
            self.scopes.append(scope)
            self.changed.notify_all()

    @property
    def ids(self) -> list[str]:
        return [scope.target_id for scope in self.scopes]

    def wait(self, *ids: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(ids) <= set(self.ids), 20), self.ids


@pytest.fixture
def replica(shared: SimpleNamespace, closing: Make) -> Callable[..., RedisInvalidationBroadcaster]:
    """A broadcaster as another process would have it."""

    def make(**options: Any) -> RedisInvalidationBroadcaster:
        options = {"channel": shared.channel, "key": KEY, **options}
        one: RedisInvalidationBroadcaster = closing(RedisInvalidationBroadcaster(shared.url, **options))
        return one

    return make


@pytest.fixture
def listen() -> Iterator[Callable[..., Any]]:
    handles: list[Any] = []

    def spawn(broadcaster: Any, callback: Any) -> Any:
        handles.append(spawn_invalidation_listener(broadcaster, callback))
        return handles[-1]

    yield spawn
    for handle in handles:
        handle.abort()
        handle.join(20)


def told(gate: Gate, context: Make, principal: str) -> bool:
    return bool(gate.evaluate(context(principal_id=principal)).code == "SESSION_INVALID")


def test_003_multi_replica_sample(shared: SimpleNamespace, closing: Make, context: Make) -> None:
    REDIS_URL = shared.url
    POLICY = {"policies": [{"name": "p", "effect": "permit", "conditions": []}]}
    rate_store = RedisRateLimitStore(REDIS_URL)
    broadcaster = RedisInvalidationBroadcaster(REDIS_URL, channel="kavach:invalidation")

    gate = Gate.from_dict(POLICY, rate_store=rate_store, broadcaster=broadcaster)

    handle = spawn_invalidation_listener(broadcaster, lambda scope: None)
    try:
        assert gate.evaluate(context(ip="2.2.2.2", origin_ip="1.1.1.1")).is_invalidate
        other = closing(RedisInvalidationBroadcaster.from_url(REDIS_URL, "kavach:invalidation"))
        assert isinstance(other, InvalidationBroadcaster)
        assert broadcaster.subscriber_count == 1
    finally:
        handle.abort()
        closing(rate_store)
        closing(broadcaster)


def test_gates_and_listeners_of_all_replicas(replica: Make, listen: Make, permitting: Make, context: Make) -> None:
    here, there = replica(), replica()
    gates = [permitting(broadcaster=one) for one in (here, here, there)]
    heard = [Heard(), Heard()]
    for one, callback in zip((here, there), heard, strict=True):
        listen(one, callback)
    assert gates[0].evaluate(context(session_id="s", ip="2.2.2.2", origin_ip="1.1.1.1")).is_invalidate
    for each in heard:
        each.wait("s")
        assert each.scopes[0].target_kind == "session"
        assert each.scopes[0].evaluator == "drift"
        assert "IP changed" in each.scopes[0].reason
    for gate in gates:
        assert gate.evaluate(context(session_id="s")).code == "SESSION_INVALID"
    there.publish("role", "clerk", "all")
    there.publish("principal", "bob", "left")
    heard[0].wait("clerk", "bob")
    heard[1].wait("clerk", "bob")
    assert told(gates[1], context, "bob")
    assert gates[0].evaluate(context(roles=["clerk"])).code == "SESSION_INVALID"
    for bad in (("user", "x", "r"), ("session", "a b", "r"), ("role", "", "r")):
        with pytest.raises(GateInputError):
            here.publish(*bad)
    assert [each.ids.count("s") for each in heard] == [1, 1], "what comes back through Redis is known"


def test_who_comes_later(replica: Make, listen: Make, permitting: Make, context: Make) -> None:
    """Gates know what stands; listeners hear what comes."""
    replica().publish("principal", "early", "r")
    late, heard = replica(), Heard()
    listen(late, heard)
    gates = [permitting(broadcaster=late) for _ in range(2)]
    for gate in gates:
        assert told(gate, context, "early")
        assert not told(gate, context, "next")
    replica().publish("principal", "next", "r")
    heard.wait("next")
    assert heard.ids == ["next"]
    assert told(gates[1], context, "next")


def test_gates_that_share_sessions_hear_as_well(
    replica: Make, shared: SimpleNamespace, closing: Make, permitting: Make, context: Make
) -> None:
    store = closing(RedisSessionStore(shared.url, prefix=shared.prefix))
    gate = permitting(session_store=store, broadcaster=replica())
    replica().publish("principal", "mallory", "by an operator who has no session store")
    wait_until(lambda: told(gate, context, "mallory"), 20)


# --- authenticity ---


def test_messages_without_a_good_signature_are_ignored(
    replica: Make, shared: SimpleNamespace, listen: Make, permitting: Make, context: Make, caplog: Any
) -> None:
    one, heard = replica(), Heard()
    gate = permitting(broadcaster=one)
    listen(one, heard)
    forgers = [
        replica(key=None), replica(key=bytes(32)), replica(key=None, signer=LocalEd25519Provider("spiffe://x/forger")),
        replica(channel=shared.channel + "other"),
    ]  # fmt: skip
    for number, forger in enumerate(forgers):
        forger.publish("principal", f"forged-{number}", "r")
    # A good message of another channel is none of this one, wherever it stands.
    good = redis_messages.Sealer(shared.channel + "other", KEY, None, None)
    text = good.seal(InvalidationScope(InvalidationTarget("principal", "moved"), "r"))
    header, body, signature = (
        redis_messages.Sealer(shared.channel, KEY, None, None)
        .seal(InvalidationScope(InvalidationTarget("principal", "cut"), "r"))
        .split(".")
    )
    for bad in (text, "", "a.b.c", "x" * 40_000, f"{header}.{body}.", f"{header}.{body}", f"{header}..{signature}"):
        shared.client.xadd(shared.channel, {"number": 9, "message": bad})
        shared.client.hset(f"{shared.channel}:over", f"k{len(bad)}", bad)
    shared.client.xadd(shared.channel, {"message": b"\xff"})
    shared.client.xadd(shared.channel, {"nothing": "x"})
    with caplog.at_level(logging.WARNING, "kest.gate"):
        replica().publish("principal", "real", "r")
        heard.wait("real")
    assert heard.ids == ["real"]
    wait_until(lambda: one.rejected >= 10, 20)
    assert "was ignored" in caplog.text
    assert told(gate, context, "real")
    for name in ("forged-0", "forged-1", "forged-2", "forged-3", "moved", "cut"):
        assert not told(gate, context, name)
    assert not told(permitting(broadcaster=replica()), context, "moved"), "nor to who comes later"


def test_keys_are_rotated(replica: Make, listen: Make) -> None:
    old, both, new = replica(), replica(key=[bytes(20), KEY]), replica(key=(bytes(20),))
    heard = Heard()
    listen(both, heard)
    old.publish("principal", "by-old", "r")
    new.publish("principal", "by-new", "r")
    heard.wait("by-old", "by-new")


def test_ed25519(replica: Make, listen: Make, caplog: Any) -> None:
    alice, bob = LocalEd25519Provider("spiffe://t/alice"), LocalEd25519Provider("spiffe://t/bob")
    impostor = LocalEd25519Provider("spiffe://t/alice")
    reader = replica(key=None, trusted={"spiffe://t/alice": alice, "spiffe://t/bob": [impostor, bob.public_jwk()]})
    heard = Heard()
    listen(reader, heard)
    replica(key=None, signer=impostor).publish("principal", "forged", "r")
    replica(key=None, signer=alice).publish("principal", "one", "r")
    replica(key=None, signer=bob, trusted={"spiffe://t/alice": alice}).publish("principal", "two", "r")
    heard.wait("one", "two")
    assert heard.ids == ["one", "two"]
    with pytest.raises(GateInputError, match="none to sign"):
        reader.publish("principal", "x", "r")
    itself, own = replica(key=None, signer=alice), Heard()
    listen(itself, own)
    replica(key=None, signer=alice).publish("principal", "three", "r")
    own.wait("three")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"key": b"short"}, GateInputError), ({"key": "text" * 8}, TypeError), ({"key": []}, GateInputError),
        ({"trusted": {}}, GateInputError), ({"trusted": {"a": b"x"}}, ValueError), ({"signer": object()}, GateInputError),
        ({"key": KEY, "trusted": {"a": bytes(32)}}, GateInputError), ({"max_stream": 0}, ConfigurationError),
        ({"channel": ""}, GateInputError), ({"timeout": 0}, ConfigurationError),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(given: dict[str, Any], error: type[Exception], shared: SimpleNamespace) -> None:
    with pytest.raises(error) as caught:
        RedisInvalidationBroadcaster(shared.url, **given)
    assert "short" not in str(caught.value)


def test_unsigned_channels_warn_once(replica: Make, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(redis_messages, "_warned", False)
    with caplog.at_level(logging.WARNING, "kest.gate"):
        assert "unsigned" not in repr(replica())
        assert not caplog.records
        for _ in range(2):
            assert "unsigned" in repr(replica(key=None))
    assert [record.message.count("not signed") for record in caplog.records] == [1]


# --- faults ---


def test_killed_connections(replica: Make, listen: Make, shared: SimpleNamespace) -> None:
    one, other, heard = replica(), replica(), Heard()
    listen(one, heard)
    for number in range(5):
        other.publish("principal", f"p{number}", "r")
        shared.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    heard.wait(*(f"p{number}" for number in range(5)))


def test_a_redis_that_pauses_restarts_and_dies(
    own_redis: Make, closing: Make, listen: Make, permitting: Make, context: Make, stopped: Make, caplog: Any
) -> None:
    server = own_redis(durable=True)
    one, other = (closing(RedisInvalidationBroadcaster(server.url, key=KEY, timeout=0.2)) for _ in range(2))
    heard = Heard()
    listen(one, heard)
    gate = permitting(broadcaster=other)
    with stopped(server):
        with pytest.raises(GateStoreError, match="stands here"):
            other.publish("principal", "while-paused", "r")
        assert told(gate, context, "while-paused"), "here at once"
    heard.wait("while-paused")
    for number, end in enumerate((server.stop, server.kill)):
        other.publish("principal", f"before-{number}", "r")
        end()
        with pytest.raises(GateStoreError):
            other.publish("principal", f"while-down-{number}", "r")
        assert gate.evaluate(context(session_id=f"s{number}", ip="2.2.2.2", origin_ip="1.1.1.1")).is_invalidate
        server.start()
        begun = time.monotonic()
        heard.wait(f"before-{number}", f"while-down-{number}", f"s{number}")
        assert time.monotonic() - begun < 5
    assert "do not arrive" in caplog.text


def test_a_redis_that_lost_everything(
    own_redis: Make, closing: Make, listen: Make, permitting: Make, context: Make
) -> None:
    """Who knows gives back: those who come later learn it, and nobody hears it twice."""
    server = own_redis()
    one, other = (closing(RedisInvalidationBroadcaster(server.url, key=KEY)) for _ in range(2))
    heard = Heard()
    listen(one, heard)
    other.publish("principal", "mallory", "r")
    heard.wait("mallory")
    with redis.Redis(port=server.port) as client:
        for lose in (client.flushall, server.restart):
            lose()
            wait_until(lambda: one._channel.state().messages > 0 if alive(server) else False, 20)
            late = permitting(broadcaster=closing(RedisInvalidationBroadcaster(server.url, key=KEY)))
            assert told(late, context, "mallory")
            other.publish("principal", f"after {lose.__name__}", "r")
            heard.wait(f"after {lose.__name__}")
    assert heard.ids.count("mallory") == 1


def alive(server: Any) -> bool:
    return bool(server.ready())


def test_what_the_stream_no_longer_holds(
    replica: Make, shared: SimpleNamespace, listen: Make, permitting: Make, context: Make
) -> None:
    """More than the stream holds while a replica is away: it reads what stands."""
    one, other, heard = replica(), replica(max_stream=1), Heard()
    listen(one, heard)
    other.publish("principal", "first", "r")
    heard.wait("first")
    worker, one._worker = one._worker, None  # away
    worker.stop()
    for number in range(300):
        other.publish("principal", f"p{number}", "r")
    assert shared.client.xlen(shared.channel) < 250, "or nothing was missed"
    with one._lock:
        one._work()
    heard.wait(*(f"p{number}" for number in range(300)))


def test_messages_that_somebody_deletes(replica: Make, shared: SimpleNamespace, listen: Make) -> None:
    one, other, heard = replica(), replica(), Heard()
    listen(one, heard)
    other.publish("principal", "first", "r")
    heard.wait("first")
    worker, one._worker = one._worker, None
    worker.stop()
    other.publish("principal", "deleted", "r")
    ((id, _),) = shared.client.xrevrange(shared.channel, count=1)
    shared.client.xdel(shared.channel, id)
    other.publish("principal", "last", "r")
    with one._lock:
        one._work()
    heard.wait("last", "deleted")


def test_old_targets_are_forgotten(replica: Make, shared: SimpleNamespace) -> None:
    one = replica()
    one.publish("principal", "old", "r")
    over, since = f"{shared.channel}:over", f"{shared.channel}:since"
    ((member, _),) = shared.client.zrange(since, 0, -1, withscores=True)
    shared.client.zadd(since, {member: time.time_ns() // 1000 - 31 * 86_400 * 10**6})
    one.publish("principal", "new", "r")
    assert shared.client.hlen(over) == shared.client.zcard(since) == 1
    assert member not in shared.client.hkeys(over)


# --- callbacks and async ---


def test_callbacks_may_use_everything(
    replica: Make, listen: Make, permitting: Make, context: Make, caplog: Any
) -> None:
    one, other, heard = replica(), replica(), Heard()
    gate = permitting(broadcaster=one)

    def callback(scope: InvalidationScope) -> None:
        heard(scope)
        if scope.target_id == "first":
            assert told(gate, context, "first")
            gate.invalidate("second", "principal")
            one.publish("role", "third", "r")
            raise RuntimeError("callbacks may fail")

    async def later(scope: InvalidationScope) -> None:
        await one.publish_async("role", f"async-{scope.target_id}", "r") if scope.target_id == "third" else None

    listen(one, callback)
    listen(one, later)
    seen = Heard()
    listen(other, seen)
    other.publish("principal", "first", "r")
    seen.wait("first", "second", "third", "async-third")
    heard.wait("first", "second", "third", "async-third")
    assert "callback raised" in caplog.text


async def test_async_iteration(replica: Make) -> None:
    one, other = replica(), replica()
    async with one.subscribe() as events:
        await other.publish_async("principal", "a", "r")
        await one.publish_async("principal", "b", "r")
        got = [await asyncio.wait_for(anext(events), 20) for _ in range(2)]
        assert {scope.target_id for scope in got} == {"a", "b"}
        assert one.subscriber_count == 1
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 20)
    assert one.subscriber_count == 0
    heard = []

    async def read() -> None:
        async for scope in one.subscribe():
            heard.append(scope.target_id)
            return

    task = asyncio.ensure_future(read())
    await asyncio.to_thread(wait_until, lambda: one.subscriber_count == 1, 20)
    await other.publish_async("principal", "c", "r")
    await asyncio.wait_for(task, 20)
    assert heard == ["c"]
    await one.aclose()


async def test_a_subscription_that_nobody_reads_any_more(replica: Make) -> None:
    one = replica()

    def elsewhere() -> Any:
        async def begin() -> Any:
            return await one.subscribe().__aenter__()

        return asyncio.run(begin())

    events = await asyncio.to_thread(elsewhere)
    one.publish("principal", "a", "r")  # its loop has ended
    await events.aclose()
    assert one.subscriber_count == 0


# --- ends ---


def test_a_broadcaster_can_be_closed_and_used_again(replica: Make, listen: Make) -> None:
    one, other, heard = replica(), replica(), Heard()
    listen(one, Heard())
    worker = one._worker
    one.close()
    one.close()
    assert one.subscriber_count == 0
    assert not worker._thread.is_alive()
    listen(one, heard)
    other.publish("principal", "a", "r")
    heard.wait("a")


def test_threads_end_with_what_they_serve(replica: Make, listen: Make, shared: SimpleNamespace) -> None:
    gone = RedisInvalidationBroadcaster(shared.url, shared.channel, key=KEY)
    gate = Gate.from_dict({"policies": []}, broadcaster=gone)
    worker, reference = gone._worker, weakref.ref(gone)
    assert worker is not None
    del gone, gate
    # Some versions of redis-py make cycles of errors and frames, which the worker's own frames can be part of.
    wait_until(lambda: bool(gc.collect() >= 0 and not worker._thread.is_alive()), 20)
    assert reference() is None
    kept, heard = RedisInvalidationBroadcaster(shared.url, shared.channel, key=KEY), Heard()
    reference = weakref.ref(kept)
    handle = listen(kept, heard)
    worker = kept._worker
    del kept
    gc.collect()
    replica().publish("principal", "a", "r")
    heard.wait("a")  # the handle keeps nothing alive; the listener does
    handle.abort()
    assert worker is not None
    worker._thread.join(20)
    del handle


def test_the_example_of_the_documentation(shared: SimpleNamespace, run_example: Make) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/gate.md").read_text("utf-8")
    example = Path(__file__).resolve().parents[2] / "examples/gate/replica.py"
    assert example.read_text("utf-8") in page
    shared.client.flushall()  # the example's names are not this test's own
    done = run_example("gate/replica.py", REDIS_URL=shared.url, INVALIDATION_KEY="07" * 32)
    said = done.stdout.splitlines()
    assert said[:3] == ["permit ", "permit ", "refuse RATE_LIMIT_EXCEEDED"]
    assert "principal was invalidated" in done.stdout  # on a line of its own, unless the listener printed meanwhile
