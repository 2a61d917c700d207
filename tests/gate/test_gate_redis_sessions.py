"""Sessions in a real Redis: what one replica permits or ends, all know; what is no session is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("redis", reason="redis-py is not installed")

from kest.errors import GateStoreError
from kest.gate import (
    ActionContext,
    DeviceFingerprint,
    Gate,
    GateInputError,
    GeoLocation,
    RedisSessionStore,
    SessionState,
    SessionStore,
)

Make = Callable[..., Any]
BERLIN = GeoLocation("DE", city="Berlin", latitude=52.52, longitude=13.4)
HAMBURG = GeoLocation("DE", "HH", "Hamburg", 53.55, 10.0)


@pytest.fixture
def stores(shared: SimpleNamespace, closing: Make) -> list[RedisSessionStore]:
    """Those of two replicas."""
    return [closing(RedisSessionStore(shared.url, prefix=shared.prefix)) for _ in range(2)]


@pytest.fixture
def record(shared: SimpleNamespace) -> Callable[[], bytes]:
    """The key of the one session that there is."""

    def find() -> bytes:
        (key,) = shared.client.keys(shared.prefix + "session:*")
        return bytes(key)

    return find


def test_003_constructors(shared: SimpleNamespace, closing: Make) -> None:
    for store in (
        RedisSessionStore(shared.url),
        RedisSessionStore.from_url(shared.url),
        RedisSessionStore.from_url_with_ttl(shared.url, 20_000),
    ):
        assert isinstance(closing(store), SessionStore)
    for ttl in (0, 14_399, 10**10):
        with pytest.raises(GateInputError, match="ttl"):
            RedisSessionStore.from_url_with_ttl(shared.url, ttl)
    with pytest.raises(TypeError):
        RedisSessionStore(shared.url, ttl=1e5)  # type: ignore[arg-type]


def test_a_session_is_kept_whole(stores: list[RedisSessionStore], context: Make) -> None:
    first = context(session_id="s", ip="2001:db8::1", current_geo=HAMBURG, device=DeviceFingerprint("d1", "a phone"))
    assert stores[0].look(first) is None
    assert stores[0].permitted(first, count=True)
    assert stores[1].permitted(context(session_id="s", ip="9.9.9.9"), count=True)
    state = stores[1].look(context(session_id="s"))
    assert state is not None
    assert state[:2] == (True, 0)
    assert 0 < state.age < 10
    assert state[3:] == (2, "2001:db8::1", HAMBURG, "d1")
    assert stores[0].look(context(session_id="t")) is None
    assert stores[0].look(context()) is None
    assert stores[0].permitted(context(), count=True)


def test_what_the_first_action_did_not_say(stores: list[RedisSessionStore], context: Make) -> None:
    stores[0].permitted(context(session_id="s"), count=False)
    stores[1].permitted(context(session_id="s", ip="1.1.1.1", device=DeviceFingerprint("d")), count=True)
    stores[0].permitted(context(session_id="s", ip="2.2.2.2", current_geo=BERLIN), count=True)
    state = stores[0].look(context(session_id="s"))
    assert state is not None
    assert state[3:] == (2, "1.1.1.1", BERLIN, "d")


def test_origins_that_the_context_states(stores: list[RedisSessionStore], context: Make) -> None:
    stores[0].permitted(
        context(
            session_id="s", ip="2.2.2.2", origin_ip="1.1.1.1", current_geo=BERLIN, origin_geo=HAMBURG,
            device=DeviceFingerprint("b"), origin_device=DeviceFingerprint("a"), session_started_at=int(time.time()) - 600,
        ),
        count=True,
    )  # fmt: skip
    state = stores[1].look(context(session_id="s"))
    assert state is not None
    assert state[3:] == (1, "1.1.1.1", HAMBURG, "a")
    assert 595 < state.age < 700
    for started in (int(time.time()) + 10_000, -8_000_000_000_000):
        stores[0].permitted(context(session_id=f"t{started}", session_started_at=started), count=True)
        state = stores[0].look(context(session_id=f"t{started}"))
        assert state is not None
        assert state.age < 5 or state.age > 3.9e9


def test_drift_ends_a_session_for_all(stores: list[RedisSessionStore], permitting: Make, context: Make) -> None:
    gates = [permitting(session_store=store) for store in stores]
    for number, changed in enumerate(({"ip": "2.2.2.2"}, {"device": DeviceFingerprint("other")})):
        begun = {"session_id": f"s{number}", "ip": "1.1.1.1", "device": DeviceFingerprint("d")}
        assert gates[0].evaluate(context(**begun)).is_permit
        assert gates[1].evaluate(context(**{**begun, **changed})).is_invalidate
        for gate in gates:
            assert gate.evaluate(context(**begun)).code == "SESSION_INVALID"
    tolerant = [permitting(session_store=store, geo_drift_max_km=300) for store in stores]
    assert tolerant[0].evaluate(context(session_id="g", ip="1.1.1.1", current_geo=BERLIN)).is_permit
    assert tolerant[1].evaluate(context(session_id="g", ip="2.2.2.2", current_geo=HAMBURG)).is_permit
    new_york = GeoLocation("US", latitude=40.7, longitude=-74.0)
    assert tolerant[0].evaluate(context(session_id="g", ip="3.3.3.3", current_geo=new_york)).is_invalidate


@pytest.mark.parametrize("kind", ["session", "principal", "role"])
def test_what_is_over_is_over_everywhere(
    kind: str, stores: list[RedisSessionStore], permitting: Make, context: Make, shared: SimpleNamespace
) -> None:
    gates = [permitting(session_store=store) for store in stores]
    target = {"session": "s", "principal": "alice", "role": "clerk"}[kind]
    given = {"session_id": "s", "roles": ["other", "clerk"]}
    assert gates[1].evaluate(context(**given)).is_permit
    gates[0].invalidate(target, kind)
    verdict = gates[1].evaluate(context(**given))
    assert (verdict.code, verdict.evaluator) == ("SESSION_INVALID", "gate")
    assert verdict.reason.startswith({"role": "a role of the principal"}.get(kind, kind))
    assert gates[1].evaluate(context(principal_id="bob", session_id="t")).is_permit
    assert stores[1].is_invalidated(target, kind)
    assert not stores[1].is_invalidated(target, "role" if kind != "role" else "session")
    (key,) = shared.client.keys(f"{shared.prefix}over:*")
    assert 29 * 86_400_000 < shared.client.pttl(key) <= 30 * 86_400_000
    with pytest.raises(GateInputError):
        stores[0].invalidate(target, "user")
    with pytest.raises(TypeError):
        stores[0].is_invalidated(7)  # type: ignore[arg-type]


def test_over_between_looking_and_counting(stores: list[RedisSessionStore], permitting: Make, context: Make) -> None:
    class Slow:
        """Somebody else ends the session after this one has looked."""

        look = stores[0].look
        invalidate, is_invalidated = stores[0].invalidate, stores[0].is_invalidated

        def permitted(self, context: ActionContext, **more: Any) -> bool:
            stores[1].invalidate("s")
            return stores[0].permitted(context, **more)

    gate = permitting(session_store=Slow())
    assert gate.evaluate(context(session_id="s")).code == "SESSION_INVALID"
    assert stores[0].look(context(session_id="s")) == SessionState(revoked=1)


def test_a_cap_holds_for_calls_at_the_same_time(
    stores: list[RedisSessionStore], permitting: Make, context: Make
) -> None:
    gates = [permitting(session_store=store, max_session_actions=7) for store in stores]
    verdicts: list[Any] = []

    def work(gate: Gate) -> None:
        for _ in range(5):
            verdicts.append(gate.evaluate(context(session_id="s")))

    threads = [threading.Thread(target=work, args=(gates[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(verdict.is_permit for verdict in verdicts) == 7
    assert {v.code for v in verdicts if not v.is_permit} == {"INVARIANT_VIOLATION"}


def test_observing_opens_and_counts_nothing(stores: list[RedisSessionStore], permitting: Make, context: Make) -> None:
    gate = permitting(session_store=stores[0], observe_only=True, max_session_actions=1)
    for _ in range(3):
        assert gate.evaluate(context(session_id="s", ip="1.1.1.1")).observed.is_permit
    assert gate.evaluate(context(session_id="s", ip="2.2.2.2")).observed.is_invalidate
    assert not stores[1].is_invalidated("s")
    state = stores[1].look(context(session_id="s"))
    assert state is not None
    assert state.actions == 0


def test_sessions_expire(shared: SimpleNamespace, closing: Make, context: Make, record: Callable[[], bytes]) -> None:
    store = closing(RedisSessionStore.from_url_with_ttl(shared.url, 20_000, prefix=shared.prefix))
    store.permitted(context(session_id="s"), count=True)
    shared.client.pexpire(record(), 1000)
    store.permitted(context(session_id="s"), count=True)
    assert 19_990_000 < shared.client.pttl(record()) <= 20_000_000


def test_keys_tell_nobody_who(stores: list[RedisSessionStore], context: Make, shared: SimpleNamespace) -> None:
    """A session id is as good as a password, in Redis's key space and slow log too."""
    secret = "c0ffee-" * 4
    stores[0].permitted(context(session_id=secret), count=True)
    stores[0].invalidate("mallory@example.org", "principal")
    for key in shared.client.keys(shared.prefix + "*"):
        assert secret.encode() not in key
        assert b"mallory" not in key


BROKEN: dict[str, Callable[[Any, bytes], object]] = {
    "no start": lambda client, key: client.hdel(key, "started"),
    "start": lambda client, key: client.hset(key, "started", "yesterday"),
    "seen": lambda client, key: client.hset(key, "seen", "1e5"),
    "actions": lambda client, key: client.hset(key, "actions", "-1"),
    "many actions": lambda client, key: client.hset(key, "actions", str(2**64)),
    "no actions": lambda client, key: client.hdel(key, "actions"),
    "address": lambda client, key: client.hset(key, "ip", "1.2.3"),
    "place": lambda client, key: client.hset(key, "geo", "{"),
    "country": lambda client, key: client.hset(key, "geo", '["Germany", null, null, null, null]'),
    "latitude": lambda client, key: client.hset(key, "geo", '["DE", null, null, 91, 0]'),
    "device": lambda client, key: client.hset(key, "device", ""),
    "bytes": lambda client, key: client.hset(key, "ip", b"\xff"),
    "string": lambda client, key: (client.delete(key), client.set(key, '{"started_at": 1}')),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_record_that_is_no_session_refuses(
    how: str, stores: list[RedisSessionStore], permitting: Make, context: Make, shared: SimpleNamespace,
    record: Callable[[], bytes],
) -> None:  # fmt: skip
    gate = permitting(session_store=stores[0])
    given = {"session_id": "s", "ip": "1.1.1.1", "current_geo": BERLIN, "device": DeviceFingerprint("d")}
    assert gate.evaluate(context(**given)).is_permit
    BROKEN[how](shared.client, record())
    with pytest.raises(GateStoreError):
        stores[1].look(context(**given))
    verdict = gate.evaluate(context(**given))
    assert (verdict.code, verdict.reason) == ("SESSION_INVALID", "session store unavailable")
    assert gate.evaluate(context(session_id="t")).is_permit


def test_no_redis_no_action(own_redis: Make, closing: Make, permitting: Make, context: Make, stopped: Make) -> None:
    server = own_redis()
    gate = permitting(session_store=closing(RedisSessionStore(server.url, timeout=0.2)))
    assert gate.evaluate(context(session_id="s")).is_permit
    with stopped(server):
        assert gate.evaluate(context(session_id="s")).reason == "session store unavailable"
    assert gate.evaluate(context(session_id="s")).is_permit
    server.stop()
    assert gate.evaluate(context(session_id="s")).reason == "session store unavailable"
    with pytest.raises(GateStoreError):
        gate.invalidate("u")
    assert gate.evaluate(context(session_id="u")).is_refuse
    server.start()
    assert gate.evaluate(context(session_id="s")).is_permit
    assert gate.evaluate(context(session_id="u")).code == "SESSION_INVALID", "this process knows, whatever Redis lost"


def test_a_redis_that_lost_its_data_is_told_again(own_redis: Make, closing: Make, context: Make) -> None:
    server = own_redis()
    made, met, fresh = (closing(RedisSessionStore(server.url)) for _ in range(3))
    made.invalidate("mallory", "principal")
    assert met.look(context(principal_id="mallory")) == SessionState(revoked=2)
    met.invalidate("s")
    for lose in (server.restart, lambda: made._link.client().flushall()):
        lose()
        assert met.look(context()) is None, "anybody's next look gives back what this store knows"
        for target in (("mallory", "principal"), ("s", "session")):
            assert fresh.is_invalidated(*target)
    assert made.look(context(session_id="s")) == SessionState(revoked=1)


def test_a_url_that_asks_for_text(shared: SimpleNamespace, closing: Make, context: Make) -> None:
    store = closing(RedisSessionStore(f"{shared.url}?decode_responses=true", prefix=shared.prefix))
    store.permitted(context(session_id="e", ip="1.1.1.1"), count=True)
    state = store.look(context(session_id="e"))
    assert state is not None
    assert state.ip == "1.1.1.1"
