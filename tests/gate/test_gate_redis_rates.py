"""Rate limits in a real Redis: the same arithmetic as in memory, atomic, bounded, by Redis's clock, closed when it fails."""

from __future__ import annotations

import itertools
import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("redis", reason="redis-py is not installed")

from kest.errors import ConfigurationError, GateStoreError
from kest.gate import ActionContext, Gate, GateInputError, LimitKey, RateLimitStore, RedisRateLimitStore
from kest.gate import redis_rates as module
from kest.gate.redis_link import Script

Make = Callable[..., Any]
MINUTE = 60 * 10**9


def limit(most: int, window: str = "60s", **more: Any) -> dict[str, Any]:
    return {"rate_limit": {"max": most, "window": window, **more}}


@pytest.fixture
def store(shared: SimpleNamespace, closing: Make) -> RedisRateLimitStore:
    one: RedisRateLimitStore = closing(RedisRateLimitStore(shared.url, prefix=shared.prefix))
    return one


def test_counts_for_all_gates(store: RedisRateLimitStore, permitting: Make, context: Make) -> None:
    assert isinstance(store, RateLimitStore)
    gates = [permitting(limit(3), rate_store=store) for _ in range(2)]
    assert [gates[i % 2].evaluate(context()).is_permit for i in range(5)] == [True, True, True, False, False]
    refused = gates[0].evaluate(context())
    assert (refused.code, refused.evaluator) == ("RATE_LIMIT_EXCEEDED", "policy")
    assert "rate" in refused.reason
    assert gates[0].evaluate(context(principal_id="bob")).is_permit


def test_names_do_not_run_together(store: RedisRateLimitStore, permitting: Make, context: Make) -> None:
    gate = permitting(limit(1), rate_store=store)
    for principal, action in (("a:b", "c"), ("a", "b:c"), ("a:b:c", "d")):
        assert gate.evaluate(context(action, principal_id=principal)).is_permit
        assert gate.evaluate(context(action, principal_id=principal)).is_refuse


def test_refused_calls_consume_no_quota(store: RedisRateLimitStore, permitting: Make, context: Make) -> None:
    gate = permitting(limit(1), rate_store=store, invariants=[("cap", "n", 1.0)])
    for _ in range(3):
        assert gate.evaluate(context(params={"n": 2})).code == "INVARIANT_VIOLATION"
    assert gate.evaluate(context(params={"n": 1})).is_permit
    assert gate.evaluate(context(params={"n": 1})).code == "RATE_LIMIT_EXCEEDED"
    counting = permitting(limit(2, "61s", count_refused=True), rate_store=store, invariants=[("cap", "n", 1.0)])
    for _ in range(2):
        assert counting.evaluate(context(params={"n": 2})).code == "INVARIANT_VIOLATION"
    assert counting.evaluate(context(params={"n": 1})).code == "RATE_LIMIT_EXCEEDED"


def test_all_limits_or_none(store: RedisRateLimitStore) -> None:
    wide, narrow = LimitKey(b"wide", 5, MINUTE), LimitKey(b"narrow", 1, MINUTE)
    assert store.record([narrow], enforce=True)
    assert not store.record([wide, narrow], enforce=True)
    assert store.room([wide._replace(most=1), narrow]) == [True, False]
    assert store.record([wide, narrow], enforce=False)
    assert store.room([wide._replace(most=1), narrow._replace(most=2)]) == [False, False]
    assert store.room([]) == []
    assert store.record([], enforce=True)


def test_the_same_answers_as_in_memory(
    store: RedisRateLimitStore, shared: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, permitting: Make, context: Make,
    at: Make,
) -> None:  # fmt: skip
    """The same calls at the same times, quiet and in bursts, over many windows: the same verdicts, one by one."""
    clock = shared.prefix + "now"
    script = Script("")
    script.text = module._COUNT.text.replace(
        "seconds[1] * 1000000 + seconds[2]", f"tonumber(redis.call('GET', '{clock}'))"
    )
    assert script.text != module._COUNT.text
    script.digest = "0" * 40  # nothing has that: EVAL each time
    monkeypatch.setattr(module, "_COUNT", script)
    store._link._learn = lambda redis_time: None  # type: ignore[method-assign]
    store._link._ahead = None
    chance = random.Random(7)
    conditions = (limit(45, "10s"), limit(150, "1m"), limit(9, "1s"))
    here, there = permitting(*conditions), permitting(*conditions, rate_store=store)
    now = 1_700_000_000_000_000
    permits = 0
    for _ in range(2500):
        # Mostly more than is allowed, so that each verdict tells when an earlier event left its window.
        now += chance.choice((0, 1, 1000, 40_000, 90_000, 200_000, chance.randrange(500_000)))
        shared.client.set(clock, now)
        at(here, now / 1e6)
        here._core.set_clock(now * 1000, now * 1000)
        one, other = here.evaluate(context()), there.evaluate(context())
        assert (one.kind, one.code, one.policy) == (other.kind, other.code, other.policy)
        permits += one.is_permit
    assert 300 < permits < 2000


def test_a_hot_key_stays_small_and_expires(store: RedisRateLimitStore, shared: SimpleNamespace) -> None:
    hot = LimitKey(b"hot", 2**32 - 1, 1000 * MINUTE)
    sizes = []
    for _ in range(600):
        assert store.record([hot], enforce=True)
        (key,) = shared.client.keys(shared.prefix + "*")
        sizes.append(shared.client.strlen(key))
    assert max(sizes) <= 450
    assert 59_900_000 < shared.client.pttl(key) <= 60_000_001
    assert store.room([hot._replace(most=600), hot._replace(most=601)]) == [False, True]
    long = LimitKey(b"long", 1, 100 * 366 * 86_400 * 10**9)
    assert store.record([long], enforce=True)
    assert store.room([long]) == [False]


def test_events_leave_the_window(store: RedisRateLimitStore) -> None:
    short = LimitKey(b"short", 1, 10**9)
    begun = time.monotonic()
    assert store.record([short], enforce=True)
    refused = 0
    while not store.record([short], enforce=True):
        refused += 1
        time.sleep(0.02)
    assert time.monotonic() - begun >= 0.99
    assert refused


def test_scripts_that_redis_forgot(store: RedisRateLimitStore, shared: SimpleNamespace) -> None:
    one = LimitKey(b"k", 2, MINUTE)
    assert store.record([one], enforce=True)
    shared.client.script_flush()
    assert store.record([one], enforce=True)
    assert not store.record([one], enforce=True)


def test_a_clients_clock_does_not_matter(
    store: RedisRateLimitStore, permitting: Make, context: Make, at: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = [permitting(limit(2), rate_store=store) for _ in range(2)]
    at(gates[0], 0, 0)
    at(gates[1], 4_000_000_000, 10)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert [gates[i % 2].evaluate(context()).is_permit for i in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("record", [b"", b"\xff", b"\x93\x02\x01\x01", b"\x92\x01\x01", b"\x93\x01\xa1x\x01", b"\x01"])
def test_a_counter_that_is_none_refuses(
    record: bytes, store: RedisRateLimitStore, shared: SimpleNamespace, permitting: Make, context: Make
) -> None:
    gate = permitting(limit(5), rate_store=store)
    assert gate.evaluate(context()).is_permit
    (key,) = shared.client.keys(shared.prefix + "*")
    shared.client.set(key, record)
    verdict = gate.evaluate(context())
    assert (verdict.code, verdict.reason) == ("POLICY_DENIED", "rate-limit backend unavailable")
    shared.client.delete(key)
    shared.client.lpush(key, "x")
    assert gate.evaluate(context()).code == "POLICY_DENIED"
    shared.client.delete(key)
    assert gate.evaluate(context()).is_permit


def test_a_full_redis_refuses(own_redis: Make, closing: Make, permitting: Make, context: Make) -> None:
    server = own_redis(limit=1)
    gate = permitting(limit(5), rate_store=closing(RedisRateLimitStore(server.url)))
    assert gate.evaluate(context()).reason == "rate-limit backend unavailable"


def test_a_redis_that_may_forget_is_warned_of(own_redis: Make, closing: Make, caplog: pytest.LogCaptureFixture) -> None:
    import redis

    server = own_redis()
    with caplog.at_level(logging.WARNING, "kest.gate"):
        closing(RedisRateLimitStore(server.url))
        assert not caplog.records
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        closing(RedisRateLimitStore(server.url))
    assert "noeviction" in caplog.text


# --- when Redis does not answer ---


def test_no_redis_is_a_value_error_at_once() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"redis://:hunter2@127.0.0.1:{listener.getsockname()[1]}/0"
        with pytest.raises(ValueError, match="redis connect failed: ConnectionError") as refused:
            RedisRateLimitStore(url)
        listener.listen()
        with pytest.raises(ValueError, match=r"redis connect timed out after 0\.2s") as silent:
            RedisRateLimitStore.from_url(url, connect_timeout=0.2)
        later = RedisRateLimitStore(url, connect_timeout=None, timeout=0.1)
        with pytest.raises(GateStoreError) as late:
            later.room([LimitKey(b"k", 1, MINUTE)])
    for error in (refused, silent, late):
        assert "hunter2" not in f"{error.value!r}{error.value.__cause__!r}{later!r}"
    assert isinstance(refused.value, GateInputError)


@pytest.mark.parametrize("bad", [{"timeout": 0}, {"connect_timeout": -1}, {"prefix": ""}, {"prefix": None}])
def test_settings_that_make_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisRateLimitStore("redis://127.0.0.1", **bad)
    for url in ("http://x", "nonsense", 7):
        with pytest.raises(GateInputError):
            RedisRateLimitStore(url)  # type: ignore[arg-type]


def test_a_paused_redis_refuses_counts_nothing_and_stops_nobody(
    own_redis: Make, closing: Make, permitting: Make, context: Make, stopped: Make
) -> None:
    server = own_redis()
    store = closing(RedisRateLimitStore(server.url, timeout=0.3))
    gate = permitting(limit(2), rate_store=store)
    one = LimitKey(b"k", 1, MINUTE)
    others = [closing(RedisRateLimitStore(server.url, timeout=0.3)) for _ in range(2)]
    for each in (store, *others):
        each.room([one])
    ticks, done = [], threading.Event()

    def tick() -> None:
        while not done.wait(0.002):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    with stopped(server):
        ticker.start()
        begun = time.monotonic()
        assert gate.evaluate(context()).reason == "rate-limit backend unavailable"
        for enforce, each in zip((True, False), others, strict=True):
            with pytest.raises(GateStoreError):
                each.record([one], enforce=enforce)
        waited = time.monotonic() - begun
        done.set()
        ticker.join()
    assert 0.5 < waited < 3
    assert len(ticks) > 50
    assert max(b - a for a, b in itertools.pairwise(ticks)) < waited / 2
    # At once, and what was sent while it was paused was not counted when it went on.
    assert [gate.evaluate(context()).is_permit for _ in range(3)] == [True, True, False]
    assert store.record([one], enforce=True)


def test_a_redis_that_comes_back(own_redis: Make, closing: Make, permitting: Make, context: Make) -> None:
    server = own_redis(durable=True)
    gate = permitting(limit(4), rate_store=closing(RedisRateLimitStore(server.url)))
    assert gate.evaluate(context()).is_permit
    for end in (server.stop, server.kill):
        end()
        assert gate.evaluate(context()).reason == "rate-limit backend unavailable"
        server.start()
        assert gate.evaluate(context()).is_permit  # over a connection that died meanwhile; the first call already
    assert [gate.evaluate(context()).is_permit for _ in range(2)] == [True, False]  # and it remembers


def test_an_answer_that_comes_too_late_is_asked_for_once_more(
    store: RedisRateLimitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis's clock may be set forward, or this machine sleep, between two calls."""
    one = LimitKey(b"k", 1, MINUTE)
    link = store._link
    store.room([one])
    assert link._ahead is not None
    ahead, at = link._ahead
    link._ahead = ahead - 3600 * 10**6, at
    assert store.record([one], enforce=True)
    assert abs(link._ahead[0] - ahead) < 10**6
    monkeypatch.setattr(link, "_learn", lambda redis_time: None)
    link._ahead = ahead - 3600 * 10**6, at
    with pytest.raises(GateStoreError, match="too late"):
        store.room([one])


def test_what_is_known_of_redis_clock(store: RedisRateLimitStore) -> None:
    """Answers that arrive late tell less; a clock that was set back is believed."""
    link = store._link
    now = time.monotonic_ns() // 1000
    link._ahead = 10**12, now
    link._learn(10**12 + now - 400_000)
    assert 10**12 - 100_000 < link._ahead[0] <= 10**12
    link._learn(10**12 + now + 2 * 10**6)
    assert link._ahead[0] > 10**12
    link._learn(10**12 + now - 3600 * 10**6)
    assert link._ahead[0] < 10**12 - 3000 * 10**6


def test_threads_share_a_limit_exactly(store: RedisRateLimitStore, permitting: Make) -> None:
    gate = permitting(limit(25), rate_store=store)
    permits = []

    def work() -> None:
        for _ in range(20):
            permits.append(gate.evaluate(ActionContext("alice", "user", "pay")).is_permit)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(permits), sum(permits)) == (80, 25)


def test_003_sample(shared: SimpleNamespace, closing: Make, context: Make) -> None:
    rate_store = closing(RedisRateLimitStore(shared.url))
    policy = {"policies": [{"name": shared.prefix, "effect": "permit", "conditions": [limit(1, "24h")]}]}
    gate = Gate.from_dict(policy, rate_store=rate_store)
    assert [gate.evaluate(context()).is_permit for _ in range(2)] == [True, False]
