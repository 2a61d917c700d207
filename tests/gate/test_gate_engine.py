"""A gate decides decorated calls: what it is asked, what it says in the signed entry, and that every call counts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kest.core import MockPolicyEngine, Passport, PassportVerifier, PolicyDeniedError, configure, kest_verified
from kest.core.claims import Claims
from kest.core.context import Caller, caller_var, get_current_passport, lineage
from kest.core.engine import decide, decide_async
from kest.core.engine.base import PolicyEngine, as_engine
from kest.errors import PolicyEngineError
from kest.gate import Gate, InMemoryInvalidationBroadcaster, InMemorySessionStore, LimitKey
from kest.gate.as_engine import GateEngine, action_context

Make = Callable[..., Any]

REFUNDS = {
    "policies": [
        {
            "name": "agent small refunds",
            "effect": "permit",
            "conditions": [
                {"identity_kind": "agent"}, {"action": "refunds"}, {"param_max": {"field": "amount", "max": 1000}},
                {"trust_min": 40}, {"taint_absent": "pii"}, {"rate_limit": {"max": 3, "window": "1h"}},
            ],
        }
    ]
}  # fmt: skip


def evidence(passport: Passport | None = None) -> dict[str, str]:
    """What the newest entry says of the decision."""
    entries = (passport or get_current_passport()).decode()
    return dict(part.split("=", 1) for part in entries[-1]["labels"]["kest.decision"].split(" "))


def gate_of(*conditions: dict[str, Any], **options: Any) -> Gate:
    return Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": list(conditions)}]}, **options)


def test_a_gate_decides(identity: Any, sink: Any) -> None:
    gate = Gate.from_dict(REFUNDS, invariants=[("hard_cap", "amount", 50_000.0)])
    configure(identity=identity, audit=sink)
    ran = []

    @kest_verified(policy="refunds", engine=gate, agent="agent-bot", context_map={"amount": "amount"})
    def refund(amount: float) -> str:
        ran.append(amount)
        return "refunded"

    assert refund(500.0) == "refunded"
    said = evidence()
    assert said["policy_set"] == gate.policy_digest
    assert len(said["permit"]) == 36
    PassportVerifier.verify(get_current_passport(), {identity.get_identity(): identity})
    with pytest.raises(PolicyDeniedError) as denied:
        refund(5000.0)
    assert (denied.value.policy, denied.value.code) == ("refunds", "NO_POLICY_MATCH")
    assert denied.value.reason == "[NO_POLICY_MATCH] policy: no policy permits 'refunds' for principal 'agent-bot'"
    (record,) = sink.payloads("denial")
    assert f"policy_set={gate.policy_digest}" in record["decided_by"]
    assert ran == [500.0]


def test_every_call_counts(identity: Any) -> None:
    """The decision cache is on; a gate's decisions are never taken from it."""
    gate = Gate.from_dict(REFUNDS)
    configure(engine=gate, identity=identity)

    @kest_verified("refunds", agent="bot", context_map={"amount": "amount"})
    def refund(amount: int) -> None: ...

    permits = set()
    for _ in range(3):
        refund(1)
        permits.add(evidence()["permit"])
    assert len(permits) == 3
    with pytest.raises(PolicyDeniedError) as denied:
        refund(1)
    assert denied.value.code == "RATE_LIMIT_EXCEEDED"
    assert "rate limit of policy 'agent small refunds' exceeded: at most 3 per 1h" in denied.value.reason


def test_invariants_trust_and_taints(identity: Any) -> None:
    gate = Gate.from_dict(REFUNDS, invariants=[("cap", "amount", 100.0)])
    configure(engine=gate, identity=identity)

    def refund(**settings: Any) -> Callable[[Any], None]:
        @kest_verified("refunds", agent="bot", context_map={"amount": "amount"}, **settings)
        def call(amount: Any) -> None: ...

        return call

    for settings, amount, code in (
        ({}, 101, "INVARIANT_VIOLATION"),
        ({}, "12", "NO_POLICY_MATCH"),
        ({}, None, "NO_POLICY_MATCH"),
        ({"source_type": "internet"}, 1, "NO_POLICY_MATCH"),
        ({"added_taints": ["pii"]}, 1, "NO_POLICY_MATCH"),
        ({"source_type": "user_input"}, 1, ""),
    ):
        with lineage():
            if not code:
                refund(**settings)(amount)
                continue
            with pytest.raises(PolicyDeniedError) as denied:
                refund(**settings)(amount)
            assert denied.value.code == code, settings


def test_a_session_that_drifts_is_over(identity: Any) -> None:
    broadcaster, heard = InMemoryInvalidationBroadcaster(), []
    broadcaster.attach(heard.append)
    configure(engine=gate_of(broadcaster=broadcaster), identity=identity)

    @kest_verified("read", user="alice", context_map={"session_id": "session", "ip": "address"})
    def read(session: str, address: str) -> None: ...

    read("s", "1.1.1.1")
    read("s", "1.1.1.1")
    with pytest.raises(PolicyDeniedError) as denied:
        read("s", "2.2.2.2")
    assert denied.value.code == "INVALIDATED"
    assert denied.value.reason.startswith("session invalidated by drift: IP changed mid-session")
    assert [scope.target_id for scope in heard] == ["s"]
    with pytest.raises(PolicyDeniedError) as denied:
        read("s", "1.1.1.1")
    assert denied.value.code == "SESSION_INVALID"
    read("t", "2.2.2.2")
    for session, address in (("t", "nonsense"), ("a b", "1.1.1.1"), (7, "1.1.1.1")):
        with pytest.raises(PolicyDeniedError, match="cannot be put to the gate"):
            read(session, address)  # type: ignore[arg-type]


def test_an_invalidated_principal(identity: Any) -> None:
    gate = gate_of()
    configure(engine=gate, identity=identity)

    @kest_verified("read", user="mallory")
    def read() -> None: ...

    read()
    gate.invalidate("mallory", "principal")
    with pytest.raises(PolicyDeniedError, match="principal was invalidated"):
        read()


def test_observing_permits_and_says_so_in_the_entry(identity: Any) -> None:
    configure(engine=Gate.from_dict({"policies": []}, observe_only=True), identity=identity)

    @kest_verified("anything")
    def call() -> str:
        return "ran"

    assert call() == "ran"
    assert evidence()["observed"] == "refuse:NO_POLICY_MATCH"


def test_reloaded_policies_decide_the_next_call(identity: Any) -> None:
    gate = gate_of()
    configure(engine=gate, identity=identity)

    @kest_verified("read")
    def read() -> None: ...

    read()
    before = evidence()["policy_set"]
    gate.reload("")
    with pytest.raises(PolicyDeniedError):
        read()
    gate.reload({"policies": [{"name": "q", "effect": "permit", "conditions": [{"action": "read"}]}]})
    read()
    assert evidence()["policy_set"] == gate.policy_digest != before


def test_all_names_of_all_tiers_are_actions(identity: Any) -> None:
    policies = [{"name": name, "effect": "permit", "conditions": [{"action": name}]} for name in ("a", "b", "c.d")]
    configure(engine=Gate.from_dict({"policies": policies}), identity=identity, enterprise_policies=["a"])

    @kest_verified(["b", "c.d"])
    def good() -> None: ...

    @kest_verified(["b", "unknown"])
    def bad() -> None: ...

    good()
    said = get_current_passport().decode()[-1]["labels"]["kest.decision"]
    assert said.count("permit=") == 3
    assert said.count("policy_set=") == 1
    with pytest.raises(PolicyDeniedError) as denied:
        bad()
    assert denied.value.policy == "unknown"


def test_a_later_name_that_is_refused_gives_the_quota_back() -> None:
    gate = gate_of({"action": "a"}, {"rate_limit": {"max": 1, "window": "1h"}})
    given = {"identity": "w"}
    for _ in range(3):
        assert decide(gate, "e", ["a", "b"], given).policy == "b"
    assert decide(gate, "e", ["a"], given).allowed
    assert decide(gate, "e", ["a"], given).code == "RATE_LIMIT_EXCEEDED"


# --- sync and async ---


async def test_every_kind_of_function(identity: Any) -> None:
    configure(engine=gate_of({"action": "yes"}), identity=identity)

    @kest_verified("yes")
    async def coroutine() -> int:
        return 1

    @kest_verified("yes")
    def generator() -> Iterator[int]:
        yield 1

    @kest_verified("yes")
    async def async_generator() -> Any:
        yield 1

    @kest_verified("no")
    async def denied() -> int:
        raise AssertionError("ran")

    assert await coroutine() == 1
    assert list(generator()) == [1]
    assert [one async for one in async_generator()] == [1]
    with pytest.raises(PolicyDeniedError):
        await denied()
    assert len(get_current_passport().decode()) == 3


async def test_a_gate_that_waits_does_not_stop_the_loop(identity: Any) -> None:
    waiting, go = threading.Event(), threading.Event()

    class Slow:
        def room(self, limits: list[LimitKey]) -> list[bool]:
            waiting.set()
            assert go.wait(20)
            return [True] * len(limits)

        def record(self, limits: list[LimitKey], *, enforce: bool) -> bool:
            return True

    gate = gate_of({"rate_limit": {"max": 1, "window": "1h"}}, rate_store=Slow())
    assert gate.as_policy_engine().in_process is False
    assert gate_of(session_store=InMemorySessionStore()).as_policy_engine().in_process is True
    configure(engine=gate, identity=identity)

    @kest_verified("pay")
    async def pay() -> str:
        return "paid"

    task = asyncio.ensure_future(pay())
    assert await asyncio.to_thread(waiting.wait, 20), "in a thread: the loop goes on"
    go.set()
    assert await task == "paid"


async def test_as_an_engine_by_itself() -> None:
    gate = gate_of({"action": "a"})
    engine = gate.as_policy_engine()
    assert isinstance(engine, GateEngine)
    assert isinstance(engine, PolicyEngine)
    assert engine.gate is gate
    assert as_engine(engine) is engine
    assert isinstance(as_engine(gate), GateEngine)
    mock = MockPolicyEngine()
    assert as_engine(mock) is mock
    assert engine.evaluate("e", ["a"], {"identity": "w"}) is True
    for asked in (gate, engine):
        assert decide(asked, "e", ["a"], {"identity": "w"}).allowed
        assert (await decide_async(asked, "e", ["b"], {"identity": "w"})).allowed is False
        for names in ([], "a"):
            assert not decide(asked, "e", names, {"identity": "w"}).allowed
        with pytest.raises(PolicyEngineError):
            decide(asked, "e", ["a"], {})


def test_facts_that_only_the_new_policies_ask_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies are reloaded between looking at what they ask about and asking them."""
    gate = gate_of({"param_equals": {"field": "subject.user", "value": "bob"}})
    before, asked = gate.policies, []

    def evaluate(context: Any) -> Any:
        asked.append(context)
        if gate.policies is before:
            gate.reload({"policies": [{"name": "q", "effect": "permit", "conditions": [
                {"any": [{"not": {"param_equals": {"field": "subject.agent", "value": "x"}}}]}]}]})  # fmt: skip
        return gate._decide(context)

    monkeypatch.setattr(gate, "evaluate", evaluate)
    assert decide(gate.as_policy_engine(), "e", ["a"], {"identity": "w", "user": "alice"}).allowed
    assert [sorted(context.params) for context in asked] == [["subject.user"], ["subject.agent"]]


# --- who and what ---


@pytest.mark.parametrize(
    ("caller", "who", "kind"),
    [
        ({}, "spiffe://w", "service"),
        ({"user": "alice"}, "alice", "user"),
        ({"agent": "bot"}, "bot", "agent"),
        ({"user": "alice", "agent": "bot"}, "bot", "agent"),
        ({"user": "alice", "agent": "portal", "claims": {"client_id": "portal"}}, "alice", "user"),
        ({"user": "cron", "agent": "cron", "claims": {"client_id": "cron"}}, "cron", "service"),
        ({"user": "alice", "agent": "portal", "actors": ["bot", "portal"]}, "bot", "agent"),
    ],
)
def test_who_acts(caller: dict[str, Any], who: str, kind: str) -> None:
    subject = {"actors": caller.pop("actors", []), "claims": caller.pop("claims", {})}
    facts = ("subject.user", "subject.workload", "subject.nobody")
    made = action_context("x", {"identity": "spiffe://w", "subject": subject, **caller}, facts)
    assert (made.principal_id, made.principal_kind) == (who, kind)
    assert made.params["subject.workload"] == "spiffe://w"
    assert made.params["subject.user"] == caller.get("user", "")
    assert made.params["subject.nobody"] is None


def test_what_policies_can_ask_about() -> None:
    made = action_context(
        "pay",
        {
            "identity": "w", "user": "alice", "trust_score": 70, "taints": ["a"], "source_type": "llm", "is_root": False,
            "subject": {"claims": {"realm_access": {"roles": ["clerk", 7]}, "sid": "s-1"}, "scopes": ["pay"]},
            "object": {"id": "orders/../x", "attributes": {"level": {"name": "high"}, "tags": ["t"]}},
            "args": {"amount": 5, "subject.user": "mallory", "doc": {"k": 1}, "ip": "1.1.1.1"},
        },
        ["subject.user", "subject.scopes", "environment.source_type", "environment.user", "object.level.name",
         "object.tags", "object.tags.x", "object.level"],
    )  # fmt: skip
    assert (made.action_name, made.roles, made.session_id, made.ip) == ("pay", ("clerk",), "s-1", "1.1.1.1")
    assert (made.trust, made.taints, made.resource) == (70, ("a",), "orders/../x")
    params = made.params
    assert params["subject.user"] == "alice", "a mapped argument cannot pass for a fact"
    assert (params["amount"], params["doc"]) == (5, None)
    assert (params["object.level.name"], params["object.tags"]) == ("high", ("t",))
    assert (params["subject.scopes"], params["environment.source_type"]) == (("pay",), "llm")
    assert (params["environment.user"], params["object.tags.x"], params["object.level"]) == (None, None, None)
    assert "ip" not in params
    plain = action_context("x", {"identity": "w", "user": "alice", "args": {"amount": 5}})
    assert plain.params == {"amount": 5}, "and nothing that nobody asks about: a signed permit binds parameters"
    assert action_context("x", {"identity": "w", "subject": {"claims": {"realm_access": None}}}).roles == ()
    assert action_context("x", {"identity": "w", "subject": {"claims": {"roles": ["r"]}}}).roles == ("r",)


def test_a_verified_token(identity: Any) -> None:
    """Roles and session of a request's token, as the identity middleware leaves them."""
    gate = gate_of({"identity_role": "clerk"}, {"param_equals": {"field": "subject.scopes", "value": "pay"}})
    configure(engine=gate, identity=identity)

    @kest_verified("pay")
    def pay() -> None: ...

    for roles, allowed in ((["clerk"], True), (["guest"], False)):
        claims = Claims({"sub": "alice", "roles": roles, "scope": "pay", "sid": f"s-{allowed}"})
        token = caller_var.set(Caller(user="alice", claims=claims))
        try:
            if allowed:
                pay()
            else:
                with pytest.raises(PolicyDeniedError):
                    pay()
        finally:
            caller_var.reset(token)


def test_denials_are_recorded_with_the_gates_reason(identity: Any, sink: Any) -> None:
    configure(engine=gate_of(invariants=[("cap", "n", 1.0)]), identity=identity, audit=sink)

    @kest_verified("pay", context_map={"n": "n"})
    def pay(n: int) -> None: ...

    with pytest.raises(PolicyDeniedError):
        pay(2)
    (record,) = sink.payloads("denial")
    assert (
        record["reason"]
        == "[INVARIANT_VIOLATION] invariants: invariant 'cap' violated: parameter 'n' must be at most 1"
    )
    assert json.dumps(record["decided_by"]).count("evaluation=") == 1


def test_a_shared_gate(identity: Any, shared: SimpleNamespace, closing: Make) -> None:
    """Decorated functions of two processes share a limit through Redis."""
    from kest.gate import RedisRateLimitStore

    configure(identity=identity)
    ran = []
    for _ in range(2):
        store = closing(RedisRateLimitStore(shared.url, prefix=shared.prefix))
        gate = gate_of({"rate_limit": {"max": 3, "window": "1h"}}, rate_store=store)

        @kest_verified("pay", engine=gate, user="alice")
        def pay() -> None:
            ran.append(1)

        for _ in range(2):
            if len(ran) < 3:
                pay()
                continue
            with pytest.raises(PolicyDeniedError, match="RATE_LIMIT_EXCEEDED"):
                pay()
    assert len(ran) == 3
