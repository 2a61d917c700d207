"""Rows B6, C1 and C3 to C6 of ATTACKS.md, through the decorator, for whatever engine the fixture ``engine`` gives.

C2 is about what servers answer: tests/unit/engines with servers made for it, tests/services/test_engine_faults.py
with real ones behind a proxy.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from kest.core import PolicyDeniedError, configure, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.core.engine import PolicyEngine

YES, NO = "contract/always", "contract/never"
TIERS = ("enterprise", "platform", "app")


def denied(function: Any, *arguments: Any) -> PolicyDeniedError:
    """The denial; the body has not run."""
    with lineage(), pytest.raises(PolicyDeniedError) as caught:
        function(*arguments)
    return caught.value


def never_runs(policies: Any, **settings: Any) -> Any:
    """A function that must be denied."""

    def body(city: str = "") -> None:
        pytest.fail("the body ran")

    return kest_verified(policies, **settings)(body)


# --- B6


def test_b6_each_tier_is_asked_of_the_engine(engine: PolicyEngine, identity: Any) -> None:
    for wrong in TIERS:
        tiers = {f"{tier}_policies": [NO] if tier == wrong else [YES, "contract/trusted"] for tier in TIERS}
        configure(engine=engine, identity=identity, **tiers)
        assert denied(never_runs(YES)).tier == wrong
    configure(enterprise_policies=[YES], platform_policies=["contract/trusted"], app_policies=["contract/untainted"])
    assert denied(never_runs(NO)).tier == "function"
    with lineage():
        assert kest_verified(["contract/anonymous", YES])(lambda: "ran")() == "ran"
        recorded = get_current_passport().decode()[0]["policy_context"]
    assert recorded == {
        "enterprise_policies": [YES],
        "platform_policies": ["contract/trusted"],
        "app_policies": ["contract/untainted"],
        "function_policies": ["contract/anonymous", YES],
        "deviations": [],
    }


def test_b6_a_deviation_is_for_its_operation_only(engine: PolicyEngine, identity: Any) -> None:
    deviation = {"policy": NO, "tier": "platform", "scope": "op", "reason": "r", "approver": "a"}
    configure(engine=engine, identity=identity, platform_policies=[YES, NO], deviations=[deviation])
    with lineage():
        assert kest_verified(YES, operation_name="op")(lambda: "ran")() == "ran"
        recorded = get_current_passport().decode()[0]["policy_context"]
    assert recorded["platform_policies"] == [YES]
    assert [each["policy"] for each in recorded["deviations"]] == [NO]
    assert denied(never_runs(YES, operation_name="other")).tier == "platform"


# --- C1


def test_c1_all_must_allow_and_everything_else_denies(engine: PolicyEngine, identity: Any) -> None:
    configure(engine=engine, identity=identity)
    with lineage():
        assert kest_verified([YES, "contract/trusted"])(lambda: "ran")() == "ran"
    for policies in ([YES, NO], [NO, YES], ["contract/undefined"], ["contract/unknown"], [YES, "unknown"], ["x y"]):
        denial = denied(never_runs(policies))
        assert denial.reason
        assert denial.tier == "function"
    with pytest.raises(ValueError, match="policy"):
        kest_verified([])(lambda: 1)


# --- C3


def test_c3_threads_with_different_inputs(engine: PolicyEngine, identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", "0")
    configure(engine=engine, identity=identity)
    call = kest_verified("contract/escaped", context_map={"city": "city"})(lambda city: city)
    wrong: list[object] = []

    def work(index: int) -> None:
        for step in range(40):
            right = (step + index) % 2 == 0
            with lineage():
                try:
                    call("é/" if right else "e/")
                    allowed = True
                except PolicyDeniedError:
                    allowed = False
            if allowed is not right:
                wrong.append((index, step, allowed))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- C4


def test_c4_calls_that_policy_can_tell_apart_share_no_decision(engine: PolicyEngine, identity: Any) -> None:
    configure(engine=engine, identity=identity)
    policies = ["contract/untainted", "contract/trusted", "contract/tokyo", "contract/sensitive"]
    good: dict[str, Any] = {
        "operation_name": "op",
        "user": "alice",
        "resource_attr": {"level": {"name": "high"}},
        "context_map": {"city": "city"},
    }
    city = '東京 é😀 "q" \\'
    for _ in range(2):  # asked, and remembered
        with lineage():
            assert kest_verified(policies, **good)(lambda city: "ran")(city) == "ran"
    denied(never_runs(policies, **good), city + " ")
    for change in (
        {"user": "bob"},
        {"user": None},
        {"resource_attr": {"level": {"name": "low"}}},
        {"resource_attr": {}},
        {"added_taints": ["contains_pii"]},
        {"source_type": "user_input"},
        {"trust_override": 69},
        {"context_map": None},
    ):
        denied(never_runs(policies, **{**good, **change}), city)
    denied(never_runs([*policies, NO], **good), city)
    configure(app_policies=[NO])
    denied(never_runs(policies, **good), city)


# --- C5


def test_c5_arguments_cannot_pose_as_the_policy_input(engine: PolicyEngine, identity: Any) -> None:
    configure(engine=engine, identity=identity)
    names = ("trust_score", "subject", "principal", "object", "identity", "taints", "user", "context", "input", "args")
    hostile: dict[str, Any] = {"source_type": "llm", "user": "mallory", "context_map": dict.fromkeys(names, "value")}

    def call(value: Any) -> None:
        pytest.fail("the body ran")

    for value in (100, "alice", {"trust_score": 100, "user": "alice"}, [], {"level": {"name": "high"}}):
        denied(kest_verified("contract/trusted", **hostile)(call), value)
        denied(kest_verified("contract/sensitive", **hostile)(call), value)
    tainted = kest_verified("contract/untainted", added_taints=["contains_pii"], context_map={"taints": "value"})
    denied(tainted(call), [])


# --- C6


async def test_c6_the_loop_goes_on(engine: PolicyEngine, identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", "0")
    configure(engine=engine, identity=identity)

    @kest_verified("contract/trusted", context_map={"n": "n"})
    async def call(n: int) -> int:
        return n

    done, worst = asyncio.Event(), 0.0

    async def watch() -> None:
        nonlocal worst
        last = time.monotonic()
        while not done.is_set():
            await asyncio.sleep(0.001)
            worst, last = max(worst, time.monotonic() - last), time.monotonic()

    watching = asyncio.ensure_future(watch())
    assert await asyncio.gather(*(call(n) for n in range(200))) == list(range(200))
    done.set()
    await watching
    assert worst < 2.0  # all the decisions together, if they did not share the loop, on a busy machine too
