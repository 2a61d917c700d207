"""Two gates over one set of counters and sessions, while policies, clocks and what is invalidated change: each verdict is
what the specification says it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from differential.gates import contexts, documents, focused_contexts, focused_documents, starts
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import histories
from reference.gate import NS, Decision, ReferenceGate

from kest._kestcore import InMemoryRateLimitStore, InMemorySessionStore
from kest.gate import Gate, InMemoryInvalidationBroadcaster, PermitToken, context_from_record

WALL, STEADY = 1_700_000_000 * NS, 10**15
BAD: tuple[Any, ...] = (
    {"policies": [{"name": "x"}]},
    {"policies": [{"name": "x", "effect": "allow", "conditions": []}]},
    {"policies": [{"name": "x", "effect": "permit", "conditions": [{"unheard_of": 1}]}]},
    {"policies": [{"name": "x", "effect": "permit", "conditions": [{"rate_limit": {"max": -1, "window": "1s"}}]}]},
    {"policies": "none"},
    "[[policies]]\nname = ",
    '{"policies": [',
)

# Where everything is drawn at random, few actions come as far as to a limit: these do.
limited = st.builds(
    lambda most, refused: [
        {"name": "p0", "effect": "permit", "conditions": [{"rate_limit": {"max": most, "window": "1h", **refused}}]}
    ],
    st.integers(1, 3),
    st.sampled_from([{}, {}, {"count_refused": True}]),
)
plain = st.sampled_from(
    [
        {"principal_id": "alice", "principal_kind": "user", "action_name": "pay", **more}
        for more in ({}, {"session_id": "s1"})
    ]
)
policies = st.one_of(limited, focused_documents, documents())
asked = st.one_of(plain, plain, focused_contexts, contexts)
targets = st.sampled_from(
    [("session", "s1"), ("session", "s2"), ("principal", "alice"), ("principal", "bob"), ("role", "admin")]
)
options = st.fixed_dictionaries(
    {
        "invariants": st.sampled_from([[], [], [("cap", "amount", 10.0)]]),
        "drift": st.booleans(),
        "max_km": st.sampled_from([None, 500.0]),
        "max_actions": st.sampled_from([None, None, 3]),
    }
)


class Signer:
    """Signs permits, unless it is out of order."""

    def __init__(self) -> None:
        self.broken = False

    def sign(self, token: PermitToken) -> bytes:
        if self.broken:
            raise OSError("out of order")
        return b"signed"


class Gates(RuleBasedStateMachine):
    """What the gates share in memory, their models share in lists."""

    @initialize(
        first=policies, second=policies, given=options, ttl=st.sampled_from([14_400, 86_400]), signs=st.booleans()
    )
    def begin(
        self, first: list[dict[str, Any]], second: list[dict[str, Any]], given: dict[str, Any], ttl: int, signs: bool
    ) -> None:
        self.signer, self.ttl = Signer(), ttl
        self.rates, self.sessions = InMemoryRateLimitStore(), InMemorySessionStore(float(ttl))
        broadcaster = InMemoryInvalidationBroadcaster()
        settings: dict[str, Any] = {
            "invariants": given["invariants"],
            "enable_drift": given["drift"],
            "geo_drift_max_km": given["max_km"],
            "max_session_actions": given["max_actions"],
            "rate_store": self.rates,
            "session_store": self.sessions,
        }
        self.gates = [
            Gate.from_dict({"policies": first}, token_signer=self.signer if signs else None, **settings),
            Gate.from_dict({"policies": second}, broadcaster=broadcaster, **settings),
        ]
        self.signs = signs
        self.models = [ReferenceGate(first, **given), ReferenceGate(second, **given)]
        self.models[1].events = self.models[0].events
        self.models[1].sessions = self.models[0].sessions
        self.models[1].revoked = self.models[0].revoked
        self.wall, self.steady = WALL, STEADY
        self.last: Any = None

    # --- what operators do ---

    @rule(which=st.integers(0, 1), document=policies)
    def reload(self, which: int, document: list[dict[str, Any]]) -> None:
        """Counters and sessions stay."""
        self.gates[which].reload({"policies": document})
        assert self.gates[which].last_reload_error is None
        self.models[which].policies = sorted(document, key=lambda policy: policy.get("priority", 100))

    @rule(which=st.integers(0, 1), bad=st.sampled_from(BAD))
    def reload_what_is_wrong(self, which: int, bad: Any) -> None:
        gate = self.gates[which]
        digest = gate.policy_digest
        with pytest.raises(ValueError) as refused:
            gate.reload(bad)
        assert gate.last_reload_error is refused.value
        assert gate.policy_digest == digest

    @rule(which=st.integers(0, 1), whom=targets, over=st.sampled_from([True, False, False]))
    def invalidate(self, which: int, whom: tuple[str, str], over: bool) -> None:
        if not over:
            self.reinstate(whom)
            return
        kind, name = whom
        self.gates[which].invalidate(name, kind)
        self.models[0].revoked.add(whom)

    def reinstate(self, whom: tuple[str, str]) -> None:
        kind, name = whom
        assert self.sessions.reinstate(name, kind) == (whom in self.models[0].revoked)
        self.models[0].revoked.discard(whom)

    # --- time ---

    @rule(
        pause=st.sampled_from([1, NS - 1, NS, NS + 1, 2 * NS, 60 * NS, 7200 * NS, 14_400 * NS - 1, 14_400 * NS]),
        step=st.sampled_from([0, 0, 0, -7200, -61, -60, -1, 1, 3600]),
    )
    def wait(self, pause: int, step: int) -> None:
        """And perhaps an administrator sets the wall clock, which rates and sessions do not mind."""
        self.wall, self.steady = self.wall + pause + step * NS, self.steady + pause
        self.gates[0].sweep()  # forgets nothing that counts

    # --- what is asked ---

    @rule(
        which=st.integers(0, 1),
        record=asked,
        started=starts,
        explain=st.booleans(),
        broken=st.sampled_from([False, False, True]),
    )
    def evaluate(self, which: int, record: dict[str, Any], started: int | None, explain: bool, broken: bool) -> None:
        """``broken``: a permit cannot be signed, and what was counted for it is taken back."""
        self.last = record, started
        self.signer.broken = broken
        context = dict(record)
        if started is not None:
            context["session_started_at"] = self.wall // NS - started
        gate = self.gates[which]
        for one in self.gates:
            one._core.set_clock(self.wall, self.steady)
        if explain:
            assert str(gate.explain(context_from_record(context)))
        verdict = gate.evaluate(context_from_record(context))
        expected = self.expected(which, context)
        assert (verdict.kind, verdict.code, verdict.evaluator) == tuple(expected[:3]), (context, verdict)
        if expected.policy is not None and verdict.evaluator in (None, "policy"):
            assert verdict.policy == expected.policy
        assert verdict.is_permit or verdict.reason
        assert (verdict.signature == b"signed") == (verdict.is_permit and which == 0 and self.signs)

    @precondition(lambda self: self.last is not None)
    @rule(
        which=st.sampled_from([0, 0, 1]),
        pause=st.sampled_from([0, 0, 1, NS]),
        broken=st.sampled_from([False, False, True]),
    )
    def ask_again(self, which: int, pause: int, broken: bool) -> None:
        self.wall, self.steady = self.wall + pause, self.steady + pause
        record, started = self.last
        self.evaluate(which, record, started, False, broken)

    def expected(self, which: int, context: dict[str, Any]) -> Decision:
        model = self.models[which]
        for name, session in list(model.sessions.items()):
            if self.steady - session["seen"] >= self.ttl * NS:
                del model.sessions[name]
        session_id = context.get("session_id")
        before = copy.deepcopy(model.events)
        decision = model.evaluate(context, self.wall, self.steady)
        if decision.kind != "permit":
            return decision
        if session_id:
            model.sessions[session_id]["seen"] = self.steady
        if which == 0 and self.signs and self.signer.broken:
            stays = {
                key: model.events[key] for key, refused in model.consulted if refused
            }  # a refused call counts there
            model.events.clear()
            model.events.update({**before, **stays})
            if session_id:  # it stays open, but nothing was done in it
                model.sessions[session_id]["actions"] -= 1
            return Decision("refuse", "IDENTITY_FAILED", "gate")
        return decision

    @invariant()
    def the_same_is_over(self) -> None:
        if hasattr(self, "models"):
            for kind, name in (("session", "s1"), ("session", "s2"), ("principal", "alice"), ("role", "admin")):
                assert self.sessions.is_invalidated(name, kind) == ((kind, name) in self.models[0].revoked)


Gates.TestCase.settings = histories(150, 40)
TestGates = Gates.TestCase
