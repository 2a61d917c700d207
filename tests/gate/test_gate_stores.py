"""Stores elsewhere, behind the interfaces that shared ones implement: here lists and dicts in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kest.gate import (
    ActionContext,
    Gate,
    GateInputError,
    InMemoryInvalidationBroadcaster,
    InMemorySessionStore,
    LimitKey,
    RateLimitStore,
    SessionState,
    SessionStore,
)

Make = Callable[..., Any]


class ListedRates:
    """Sliding windows as lists of times. ``broken``: every call raises."""

    def __init__(self) -> None:
        self.events: dict[tuple[bytes, int], list[int]] = {}
        self.now = 0
        self.broken = False
        self.lock = threading.Lock()
        self.asked = 0

    def inside(self, limit: LimitKey) -> int:
        if self.broken:
            raise ConnectionError("store down")
        return sum(self.now - at < limit.window_ns for at in self.events.get((limit.key, limit.window_ns), []))

    def room(self, limits: Sequence[LimitKey]) -> list[bool]:
        self.asked += 1
        return [self.inside(limit) < limit.most for limit in limits]

    def record(self, limits: Sequence[LimitKey], *, enforce: bool) -> bool:
        with self.lock:
            if enforce and not all(self.inside(limit) < limit.most for limit in limits):
                return False
            for limit in limits:
                self.events.setdefault((limit.key, limit.window_ns), []).append(self.now)
            return True


class DictSessions:
    """Sessions as a dict."""

    def __init__(self) -> None:
        self.open: dict[str, SessionState] = {}
        self.over: set[tuple[str, str]] = set()
        self.broken = ""

    def fail(self, where: str) -> None:
        if self.broken == where:
            raise ConnectionError("store down")

    def look(self, context: ActionContext) -> SessionState | None:
        self.fail("look")
        if ("session", context.session_id or "") in self.over:
            return SessionState(revoked=1)
        return self.open.get(context.session_id or "")

    def permitted(self, context: ActionContext, *, count: bool, most: int | None = None) -> None:
        self.fail("permitted")
        if context.session_id:
            state = self.open.get(context.session_id, SessionState(True, ip=context.ip, geo=context.current_geo))
            self.open[context.session_id] = state._replace(actions=state.actions + count)

    def invalidate(self, id: str, kind: str = "session", /) -> None:
        self.fail("invalidate")
        self.over.add((kind, id))

    def is_invalidated(self, id: str, kind: str = "session", /) -> bool:
        return (kind, id) in self.over


def limit(most: int, **more: Any) -> dict[str, Any]:
    return {"rate_limit": {"max": most, "window": "60s", **more}}


def test_the_examples_are_stores() -> None:
    assert isinstance(ListedRates(), RateLimitStore)
    assert isinstance(DictSessions(), SessionStore)


def test_rate_limits_elsewhere(context: Make) -> None:
    store = ListedRates()
    policies = [
        {"name": "a", "effect": "permit", "conditions": [limit(1), {"action": "pay"}]},
        {"name": "b", "effect": "permit", "conditions": [limit(1)]},
    ]
    gates = [Gate.from_dict({"policies": policies}, rate_store=store) for _ in range(2)]
    assert [gate.evaluate(context()).policy for gate in gates] == ["a", "b"]
    verdict = gates[0].evaluate(context())
    assert (verdict.code, verdict.policy) == ("RATE_LIMIT_EXCEEDED", "a")
    assert sum(map(len, store.events.values())) == 2, "a call counts only where it was permitted"
    store.now = 60 * 10**9
    assert gates[1].evaluate(context()).policy == "a"
    before = store.asked
    assert gates[1].evaluate(context(params={})).policy == "b"
    assert store.asked <= before + 2


def test_a_store_that_fails_refuses_and_recovers(permitting: Make, context: Make) -> None:
    store = ListedRates()
    gate = permitting(limit(5), rate_store=store)
    store.broken = True
    verdict = gate.evaluate(context())
    assert (verdict.kind, verdict.code, verdict.reason) == ("refuse", "POLICY_DENIED", "rate-limit backend unavailable")
    store.broken = False
    assert gate.evaluate(context()).is_permit


def test_a_store_that_answers_nonsense_refuses(permitting: Make, context: Make) -> None:
    class Nonsense(ListedRates):
        answer: Any = None

        def room(self, limits: Sequence[LimitKey]) -> Any:
            return self.answer

    store = Nonsense()
    gate = permitting(limit(5), rate_store=store)
    for store.answer in (None, [], [1], ["true"], [True, True]):
        assert gate.evaluate(context()).is_refuse, store.answer
    store.answer = [True]
    assert gate.evaluate(context()).is_permit


def test_two_calls_at_the_same_time_share_one_last_place(permitting: Make, context: Make) -> None:
    class Racing(ListedRates):
        def room(self, limits: Sequence[LimitKey]) -> list[bool]:
            answer = super().room(limits)
            super().record(limits, enforce=False)  # somebody else, just now
            return answer

    verdict = permitting(limit(1), rate_store=Racing()).evaluate(context())
    assert (verdict.kind, verdict.code) == ("refuse", "RATE_LIMIT_EXCEEDED")


def test_refused_calls_count_where_the_policy_says_so(permitting: Make, context: Make) -> None:
    store = ListedRates()
    gate = permitting(limit(2, count_refused=True), rate_store=store, invariants=[("cap", "n", 1.0)])
    for _ in range(2):
        assert gate.evaluate(context()).code == "INVARIANT_VIOLATION"
    assert gate.evaluate(context(params={"n": 1})).code == "RATE_LIMIT_EXCEEDED"


def test_sessions_elsewhere(permitting: Make, context: Make) -> None:
    store = DictSessions()
    gates = [permitting(session_store=store, max_session_actions=3) for _ in range(2)]
    assert gates[0].evaluate(context(session_id="s", ip="1.1.1.1")).is_permit
    assert gates[1].evaluate(context(session_id="s", ip="1.1.1.1")).is_permit
    assert gates[0].evaluate(context(session_id="s", ip="2.2.2.2")).is_invalidate
    assert gates[1].evaluate(context(session_id="s", ip="1.1.1.1")).code == "SESSION_INVALID"
    for gate in (gates[0], gates[1], gates[0]):
        assert gate.evaluate(context(session_id="t")).is_permit
    assert gates[1].evaluate(context(session_id="t")).code == "INVARIANT_VIOLATION"
    gates[0].invalidate("u")
    assert gates[1].evaluate(context(session_id="u")).code == "SESSION_INVALID"


def test_a_session_store_that_fails_refuses(permitting: Make, context: Make) -> None:
    store = DictSessions()
    gate = permitting(session_store=store)
    for where in ("look", "permitted"):
        store.broken = where
        verdict = gate.evaluate(context(session_id="s"))
        assert (verdict.kind, verdict.code, verdict.reason) == (
            "refuse",
            "SESSION_INVALID",
            "session store unavailable",
        )
    store.broken = "invalidate"
    store.open["s"] = SessionState(True, ip="1.1.1.1")
    assert gate.evaluate(context(session_id="s", ip="2.2.2.2")).is_invalidate  # the verdict stands


def test_a_failed_signature_records_nothing_elsewhere(permitting: Make, context: Make) -> None:
    class Signer:
        def sign(self, token: object) -> bytes:
            raise RuntimeError("no key")

    rates, sessions = ListedRates(), DictSessions()
    gate = permitting(limit(1), rate_store=rates, session_store=sessions, token_signer=Signer())
    assert gate.evaluate(context(session_id="s")).code == "IDENTITY_FAILED"
    assert not rates.events
    assert not sessions.open
    gate = permitting(limit(1), session_store=sessions, token_signer=Signer())
    for _ in range(2):
        assert gate.evaluate(context(session_id="s")).code == "IDENTITY_FAILED"


def test_limits_here_and_sessions_elsewhere(permitting: Make, context: Make) -> None:
    gate = permitting(limit(1), session_store=DictSessions())
    assert gate.evaluate(context()).is_permit
    assert gate.evaluate(context()).code == "RATE_LIMIT_EXCEEDED"


def test_observing_with_stores_elsewhere_changes_nothing(permitting: Make, context: Make) -> None:
    rates, sessions = ListedRates(), DictSessions()
    gate = permitting(limit(1), rate_store=rates, session_store=sessions, observe_only=True)
    for _ in range(3):
        assert gate.evaluate(context(session_id="s", ip="1.1.1.1")).observed.is_permit
    assert gate.evaluate(context(session_id="s", ip="2.2.2.2")).observed.is_invalidate
    assert not rates.events
    assert not sessions.over
    assert sessions.open["s"].actions == 0
    rates.broken = True
    verdict = gate.evaluate(context(session_id="s", ip="1.1.1.1"))
    assert verdict.is_permit
    assert verdict.observed.is_refuse
    sessions.broken = "look"
    verdict = gate.evaluate(context(session_id="s", ip="1.1.1.1"))
    assert verdict.is_permit
    assert verdict.observed.is_refuse


def test_two_limits_over_one_window_share_a_counter(permitting: Make, context: Make) -> None:
    store = ListedRates()
    gate = permitting(limit(3), limit(2), rate_store=store)
    assert [gate.evaluate(context()).is_permit for _ in range(3)] == [True, True, False]
    assert [len(times) for times in store.events.values()] == [2]


def test_policies_reloaded_while_the_store_is_asked(permitting: Make, context: Make) -> None:
    """The numbers by which limits are asked about are those of one set of policies."""

    class Reloading(ListedRates):
        gate: Gate | None = None

        def room(self, limits: Sequence[LimitKey]) -> list[bool]:
            if (gate := self.gate) is not None:
                self.gate = None
                gate.reload({"policies": [{"name": "q", "effect": "permit", "conditions": [limit(0)]}]})
            return super().room(limits)

    store = Reloading()
    store.gate = gate = permitting(limit(5), limit(4, window="5s"), rate_store=store)
    assert gate.evaluate(context()).code == "RATE_LIMIT_EXCEEDED"


def test_what_was_heard_is_refused_whatever_the_store_says(permitting: Make, context: Make) -> None:
    """An invalidation that was published by somebody who has no store, or while the store was down."""
    broadcaster = InMemoryInvalidationBroadcaster()
    store = DictSessions()
    gate = permitting(session_store=store, broadcaster=broadcaster)
    assert gate.evaluate(context(session_id="s", roles=["clerk"])).is_permit
    broadcaster.publish("role", "clerk", "all of them")
    assert gate.evaluate(context(session_id="s", roles=["clerk"])).reason == "a role of the principal was invalidated"
    store.broken = "invalidate"
    for target in (("s", "session"), ("bob", "principal")):
        with pytest.raises(ConnectionError):
            gate.invalidate(*target)
    assert gate.evaluate(context(session_id="s")).code == "SESSION_INVALID"
    assert gate.evaluate(context(principal_id="bob")).reason == "principal was invalidated"
    assert gate.evaluate(context()).is_permit


def test_a_session_at_its_cap_by_calls_at_the_same_time(permitting: Make, context: Make) -> None:
    class Full(DictSessions):
        def permitted(self, context: ActionContext, *, count: bool, most: int | None = None) -> bool:
            return most != 3

    gate = permitting(limit(1), session_store=Full(), max_session_actions=3)
    for _ in range(2):
        verdict = gate.evaluate(context(session_id="s"))
        assert (verdict.code, verdict.evaluator) == ("INVARIANT_VIOLATION", "invariants"), "no quota was consumed"
    assert verdict.reason == "invariant 'max_session_actions' violated: maximum 3 actions per session"


def test_an_invalidation_goes_as_far_as_it_can(permitting: Make, context: Make) -> None:
    """No room in memory, or the store down: the others are told all the same."""
    broadcaster, heard = InMemoryInvalidationBroadcaster(), []
    store = DictSessions()
    gate = permitting(session_store=store, broadcaster=broadcaster)
    gate._local_sessions = InMemorySessionStore(max_sessions=1)
    gate.invalidate("a", "principal")
    broadcaster.attach(heard.append)
    with pytest.raises(GateInputError, match="as many"):
        gate.invalidate("b", "principal")
    assert ("principal", "b") in store.over
    store.broken = "invalidate"
    with pytest.raises(ConnectionError):
        gate.invalidate("a", "principal")
    assert [scope.target_id for scope in heard] == ["b", "a"]
    store.broken = ""
    assert gate.evaluate(context(session_id="s", ip="1.1.1.1")).is_permit
    assert gate.evaluate(context(session_id="s", ip="2.2.2.2")).is_invalidate
    assert ("session", "s") in store.over
