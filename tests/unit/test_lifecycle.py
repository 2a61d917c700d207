"""The steps of one call (PRODUCT.md, section 3), in order, and what happens when one of them fails."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from kest._kestcore import sha256
from kest.core import (
    DefaultTrustEvaluator,
    LocalEd25519Provider,
    MockPolicyEngine,
    Passport,
    PassportVerifier,
    PolicyDeniedError,
    configure,
    kest_verified,
)
from kest.core.context import get_current_passport, lineage
from kest.errors import ConfigurationError, KestError, PolicyEngineError

PAYLOAD_MEMBERS = {
    "schema_version", "runtime", "entry_id", "operation", "classification", "trust_score", "parent_ids", "added_taints",
    "removed_taints", "taints", "labels", "policy_context", "environment", "otel_context", "metadata", "content_hash",
    "input_hash", "timestamp_ms",
}  # fmt: skip
INPUT_MEMBERS = {
    "subject", "object", "environment", "identity", "trust_score", "taints", "is_root", "source_type", "user", "agent",
    "task", "principal", "args", "operation",
}  # fmt: skip


def call(**kwargs: Any) -> dict[str, Any]:
    """One decorated call; the payload of its entry."""
    kest_verified(kwargs.pop("policy", "p"), **kwargs)(lambda: None)()
    return get_current_passport().decode()[-1]


def test_entry_has_exactly_the_members_of_the_wire_format(configured: Any) -> None:
    entry = call(user="u", resource_attr={"a": 1})
    assert set(entry) == PAYLOAD_MEMBERS
    assert entry["schema_version"] == "0.3.0"
    assert entry["runtime"]["name"] == "kest-c"
    assert (entry["environment"], entry["otel_context"], entry["metadata"], entry["content_hash"]) == ({}, {}, None, "")
    assert set(entry["policy_context"]) == {
        "enterprise_policies", "platform_policies", "app_policies", "function_policies", "deviations",
    }  # fmt: skip
    # trace_id is there when the process has a tracer provider, which another test may have set
    assert set(entry["labels"]) - {"trace_id"} == {"principal", "kest.identity", "kest.resource_attr"}
    assert len(entry["input_hash"]) == 64


def test_policy_input_has_the_members_of_section_7(configured: Any) -> None:
    call(policy=["p", "q"], user="u", agent="a", task="t", source_type="user_input", added_taints=["x"])
    ((names, given),) = configured.engine.asked
    assert names == ("p", "q")
    assert set(given) == INPUT_MEMBERS
    assert given["subject"] == {
        "workload": "spiffe://kest.test/unit", "user": "u", "agent": "a", "task": "t", "trust_score": 40, "taints": ["x"],
        "actors": [], "scopes": [], "claims": {},
    }  # fmt: skip
    assert given["environment"] == {
        "is_root": True, "source_type": "user_input", "parent_hash": "0", "parent_principals": [],
        "policy_names": ["p", "q"], "policy_tier": "function", "active_deviations": [],
    }  # fmt: skip
    assert given["identity"] == given["principal"] == "spiffe://kest.test/unit"
    assert (given["trust_score"], given["taints"], given["is_root"]) == (40, ["x"], True)
    tip = get_current_passport().chain_tip
    call()
    following = configured.engine.asked[-1][1]
    assert following["is_root"] is False
    assert following["environment"]["parent_hash"] == tip
    assert following["environment"]["parent_principals"] == ["spiffe://kest.test/unit"]
    assert following["user"] is None


def test_chain_links_by_the_hash_of_the_whole_jws(configured: Any) -> None:
    for _ in range(3):
        call()
    passport = get_current_passport()
    entries = passport.decode()
    assert entries[0]["parent_ids"] == ["0"]
    for i in (1, 2):
        assert entries[i]["parent_ids"] == [sha256(passport.entries[i - 1].encode()).hex()]
    assert passport.chain_tip == sha256(passport.entries[-1].encode()).hex()
    PassportVerifier.verify(passport, configured.keys, chain_tip=passport.chain_tip)


def test_nested_calls_continue_from_their_caller(configured: Any) -> None:
    @kest_verified("p", operation_name="inner")
    def inner() -> None: ...

    @kest_verified("p", operation_name="outer")
    def outer() -> None:
        inner()
        inner()

    outer()
    inner()
    assert [e["operation"] for e in get_current_passport().decode()] == ["outer", "inner", "inner", "inner"]
    entries = get_current_passport().decode()
    assert all(len(e["parent_ids"]) == 1 for e in entries)


def test_trust_is_the_weakest_link_in_integers(configured: Any) -> None:
    assert call(source_type="verified_rag")["trust_score"] == 90
    assert call(source_type="third_party_api")["trust_score"] == 54
    assert call(source_type="verified_rag")["trust_score"] == 48  # floor of 48.6
    assert call()["trust_score"] == 48
    assert call(source_type="llm")["trust_score"] == 0
    assert call()["trust_score"] == 0


def test_a_sanitisers_override_holds_until_something_weaker_joins(configured: Any) -> None:
    call(source_type="internet", added_taints=["raw"])
    assert call(trust_override=90, removed_taints=["raw"])["trust_score"] == 90
    for _ in range(3):
        entry = call()
        assert (entry["trust_score"], entry["taints"]) == (90, [])
        assert "kest.trust_override" not in entry["labels"]
    assert call(source_type="user_input")["trust_score"] == 36


@pytest.mark.parametrize("result", [True, 50.0, "50", None, -1, 101])
def test_a_trust_evaluator_must_answer_with_a_score(result: Any, configured: Any) -> None:
    class Evaluator:
        def calculate(self, self_score: int, parent_scores: Any) -> Any:
            return result

    ran: list[int] = []
    with pytest.raises(KestError):
        kest_verified("p", trust_evaluator=Evaluator())(lambda: ran.append(1))()
    assert not ran
    assert not configured.engine.asked


@pytest.mark.parametrize("error", [ValueError, KeyError, ZeroDivisionError, AttributeError])
def test_a_trust_evaluator_that_raises_is_a_kest_error(error: type[Exception], configured: Any) -> None:
    class Evaluator:
        def calculate(self, self_score: int, parent_scores: Any) -> int:
            raise error("inside the evaluator")

    with pytest.raises(KestError):
        call(trust_evaluator=Evaluator())
    assert not configured.engine.asked


def test_the_ceiling_of_an_unverified_edge_holds_for_every_evaluator(configured: Any) -> None:
    edge = Passport().restrict(10, ["kest.unverified"])
    for evaluator in (None, DefaultTrustEvaluator()):
        with lineage(edge):
            entry = call(trust_evaluator=evaluator)
        assert entry["trust_score"] == 10, evaluator
        assert entry["taints"] == ["kest.unverified"]
        assert "kest.trust_override" not in entry["labels"]


def test_tiers_in_order_and_all_of_them(configured: Any) -> None:
    configure(enterprise_policies=["e1", "e2"], platform_policies=["pl"], app_policies=["ap"])
    entry = call(policy=["f1", "f2"])
    assert [names for names, _ in configured.engine.asked] == [("e1", "e2"), ("pl",), ("ap",), ("f1", "f2")]
    assert [given["environment"]["policy_tier"] for _, given in configured.engine.asked] == [
        "enterprise", "platform", "app", "function",
    ]  # fmt: skip
    assert entry["policy_context"] == {
        "enterprise_policies": ["e1", "e2"], "platform_policies": ["pl"], "app_policies": ["ap"],
        "function_policies": ["f1", "f2"], "deviations": [],
    }  # fmt: skip


@pytest.mark.parametrize("tier", ["enterprise", "platform", "app", "function"])
def test_a_denial_in_any_tier_stops_the_call(tier: str, configured: Any, caplog: pytest.LogCaptureFixture) -> None:
    configure(enterprise_policies=["enterprise"], platform_policies=["platform"], app_policies=["app"])
    configured.engine.answer = lambda names, context: names[0] != tier
    ran: list[int] = []
    with caplog.at_level(logging.WARNING, "kest"), pytest.raises(PolicyDeniedError) as denied:
        kest_verified("function", operation_name="op")(lambda: ran.append(1))()
    assert not ran
    assert len(get_current_passport()) == 0
    error = denied.value
    assert (error.policy, error.tier, error.operation) == (tier, tier, "op")
    assert error.reason
    assert error.entry_id[14] == "7"
    assert isinstance(error, (PermissionError, KestError))
    order = ["enterprise", "platform", "app", "function"]
    assert [names[0] for names, _ in configured.engine.asked] == order[: order.index(tier) + 1]
    (record,) = [r for r in caplog.records if r.name == "kest"]
    message = record.getMessage()
    for part in (error.entry_id, tier, "spiffe://kest.test/unit", error.reason):
        assert part in message


def test_a_denied_call_leaves_the_flow_as_it_was(configured: Any) -> None:
    call(added_taints=["t"])
    before = get_current_passport()
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        call(source_type="llm", added_taints=["u"])
    assert get_current_passport() is before


@pytest.mark.parametrize("answer", [False, None, 1, "true", "True", [True], {"allow": True}, 1.0, object()])
def test_only_true_allows(answer: Any, configured: Any) -> None:
    configured.engine.answer = lambda names, context: answer
    with pytest.raises(PolicyDeniedError):
        call()


def test_an_engine_that_raises_denies_with_its_error_as_the_cause(configured: Any) -> None:
    def broken(names: Any, context: Any) -> bool:
        raise RuntimeError("connection lost: secret-host")

    configured.engine.answer = broken
    with pytest.raises(PolicyDeniedError) as denied:
        call()
    assert isinstance(denied.value.__cause__, PolicyEngineError)
    assert "secret-host" not in str(denied.value)


async def test_an_async_engine_is_awaited_and_denies_synchronous_calls() -> None:
    class Engine:
        def __init__(self) -> None:
            self.awaited = 0

        async def async_evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
            self.awaited += 1
            return True

        async def evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
            return True

    engine = Engine()
    configure(engine=engine, identity=LocalEd25519Provider())

    @kest_verified("p")
    async def f() -> int:
        return 1

    assert await f() == 1
    assert engine.awaited == 1
    with lineage(), pytest.raises(PolicyDeniedError):  # a coroutine is not True
        kest_verified("p", operation_name="sync")(lambda: 1)()


def test_nothing_configured_is_a_clear_error() -> None:
    ran: list[int] = []
    f = kest_verified("p")(lambda: ran.append(1))
    with pytest.raises(ConfigurationError, match="configure"):
        f()
    with pytest.raises(ConfigurationError, match="engine"):
        kest_verified("p", identity=LocalEd25519Provider())(lambda: ran.append(1))()
    assert not ran


def test_engine_is_asked_before_the_body_runs(configured: Any) -> None:
    order: list[str] = []

    def answer(names: Any, context: Any) -> bool:
        order.append("policy")
        return True

    configured.engine.answer = answer

    class Signs(LocalEd25519Provider):
        __slots__ = ()

        def sign(self, payload: bytes) -> str:
            order.append("sign")
            return super().sign(payload)

    kest_verified("p", identity=Signs("spiffe://kest.test/s"))(lambda: order.append("body"))()
    assert order == ["policy", "sign", "body"]


def test_foreign_identity_signs_once_and_the_entry_verifies(configured: Any) -> None:
    key = LocalEd25519Provider("spiffe://kest.test/foreign")
    calls: list[bytes] = []

    class Foreign:
        def get_identity(self) -> str:
            return key.get_identity()

        def sign(self, payload: bytes) -> str:
            calls.append(payload)
            return key.sign(payload)

    for _ in range(2):
        call(identity=Foreign(), added_taints=["x"])
    assert len(calls) == 2
    passport = get_current_passport()
    assert json.loads(calls[1]) == passport.decode()[1]
    PassportVerifier.verify(passport, {key.get_identity(): key})


def test_input_hash_is_of_the_bound_arguments(configured: Any) -> None:
    from kest.core.hashing import hash_arguments

    kest_verified("p")(lambda a, b=2: None)(1)
    assert get_current_passport().decode()[-1]["input_hash"] == hash_arguments({"a": 1, "b": 2})[0]


def test_what_cannot_be_hashed_is_named_as_opaque(configured: Any) -> None:
    kest_verified("p")(lambda a, b, c: None)(object(), 1, float("nan"))
    assert get_current_passport().decode()[-1]["labels"]["kest.opaque_args"] == "a,c"


def test_an_argument_is_not_consumed_by_hashing(configured: Any) -> None:
    items = iter([1, 2, 3])
    assert kest_verified("p")(lambda it: list(it))(items) == [1, 2, 3]


def test_labels_of_the_identity_are_recorded(configured: Any) -> None:
    class Labelled(LocalEd25519Provider):
        __slots__ = ()

        def labels(self) -> dict[str, str]:
            return {"aws.account": "123"}

    assert call(identity=Labelled("spiffe://kest.test/l"))["labels"]["aws.account"] == "123"


@pytest.mark.parametrize(
    "labels",
    [{"principal": "spiffe://someone/else"}, {"kest.trust_override": "100"}, {"a": 1}, {1: "a"}, "text",
     {f"l{i}": "x" for i in range(200)}, RuntimeError("labels failed")],
)  # fmt: skip
def test_labels_that_an_identity_may_not_set_fail_the_call_closed(labels: Any, configured: Any) -> None:
    class Labelled(LocalEd25519Provider):
        __slots__ = ()

        def labels(self) -> Any:
            if isinstance(labels, Exception):
                raise labels
            return labels

    ran: list[int] = []
    with lineage():
        call(source_type="internet")
        with pytest.raises(KestError):
            kest_verified("p", trust_override=50, identity=Labelled("spiffe://kest.test/l"))(lambda: ran.append(1))()
        assert len(get_current_passport()) == 1
    assert not ran


def test_mock_engine_denies_everything_on_request() -> None:
    configure(engine=MockPolicyEngine(allow=False), identity=LocalEd25519Provider())
    with pytest.raises(PolicyDeniedError):
        call()


def test_hundred_calls_make_one_verifiable_chain(configured: Any) -> None:
    f = kest_verified("p")(lambda i: i)
    assert [f(i) for i in range(100)] == list(range(100))
    verified = PassportVerifier.verify(get_current_passport(), configured.keys)
    assert len(verified) == 100
    assert verified.principals == {"spiffe://kest.test/unit"}


def test_nothing_is_printed(configured: Any, capfd: pytest.CaptureFixture[str]) -> None:
    call()
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        call(source_type="llm")
    assert capfd.readouterr().out == ""
