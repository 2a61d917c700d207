"""What every engine must do, asked of each with the same policies in its own language."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from typing import Any

import pytest
from engines import context

from kest.core.engine import PolicyEngine, decide, decide_async
from kest.core.engine.base import DecidingEngine
from kest.errors import PolicyEngineError


def allows(engine: PolicyEngine, names: Any, given: Any) -> bool:
    """Whether the engine allows; that it cannot decide is a no."""
    try:
        return decide(engine, "e", names, given).allowed
    except PolicyEngineError:
        return False


def culprit(engine: PolicyEngine, names: list[str], given: Any) -> str | None:
    """The policy that denied; for an engine that only says no, the one name that every engine here would give."""
    decision = decide(engine, "e", names, given)
    assert decision.allowed is False
    return decision.policy if deciding(engine) else None


def deciding(engine: PolicyEngine) -> bool:
    """Whether it speaks another language than Python, and explains itself."""
    return isinstance(engine, DecidingEngine)


CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("always", {}, True),
    ("never", {}, False),
    ("undefined", {}, False),
    ("trusted", {"trust_score": 70}, True),
    ("trusted", {"trust_score": 69}, False),
    ("trusted", {"trust_score": 0}, False),
    ("untainted", {"taints": []}, True),
    ("untainted", {"taints": ["unverified"]}, True),
    ("untainted", {"taints": ["unverified", "contains_pii"]}, False),
    ("sensitive", {"attributes": {"level": {"name": "high"}}}, True),
    ("sensitive", {"attributes": {"level": {"name": "low"}}}, False),
    ("sensitive", {"attributes": {}}, False),
    ("sensitive", {"attributes": {"level": {"name": "high"}}, "user": None}, False),
    ("anonymous", {"user": None}, True),
    ("anonymous", {"user": "null"}, False),
    ("tokyo", {"args": {"city": '東京 é😀 "q" \\'}}, True),
    ("tokyo", {"args": {"city": '東京 é😀 "q"'}}, False),
    ("exact", {"args": {"n": 9007199254740993}}, True),
    ("exact", {"args": {"n": 9007199254740992}}, False),
    ("escaped", {"args": {"city": "é/"}}, True),
    ("escaped", {"args": {"city": "\\u00e9/"}}, False),
    ("nul", {"args": {"city": "a\0b"}}, True),
    ("nul", {"args": {"city": "a"}}, False),
]


@pytest.mark.parametrize(("name", "changes", "allowed"), CASES)
def test_same_policy_same_answer(engine: PolicyEngine, name: str, changes: dict[str, Any], allowed: bool) -> None:
    given = context(**changes)
    before = copy.deepcopy(given)
    decision = decide(engine, "e", [f"contract/{name}"], given)
    assert decision.allowed is allowed
    assert allowed or decision.reason
    assert allowed or decision.policy == f"contract/{name}" or not deciding(engine)
    assert engine.evaluate("e", [f"contract/{name}"], given) is allowed
    assert given == before


async def test_async_agrees(engine: PolicyEngine) -> None:
    for name, changes, allowed in CASES:
        names = [f"contract/{name}"]
        assert (await decide_async(engine, "e", names, context(**changes))).allowed is allowed
        assert await engine.async_evaluate("e", names, context(**changes)) is allowed


def test_unknown_name_denies(engine: PolicyEngine) -> None:
    for name in ("contract/unknown", "unknown", "contract", "contract/always/allow", "../always", 'x" || true', "東京"):
        assert allows(engine, [name], context()) is False
        assert allows(engine, ["contract/always", name], context()) is False


def test_no_name_denies(engine: PolicyEngine) -> None:
    for names in ([], (), "", "contract/always", [""], [None]):
        assert allows(engine, names, context()) is False
    if not deciding(engine):
        return
    for names in ([], (), "", "contract/always", [""], [None]):
        assert engine.evaluate("e", names, context()) is False  # type: ignore[arg-type]


def test_all_names_must_allow(engine: PolicyEngine) -> None:
    both = ["contract/trusted", "contract/untainted"]
    assert decide(engine, "e", both, context()).allowed is True
    assert culprit(engine, both, context(trust_score=10)) in ("contract/trusted", None)
    assert culprit(engine, both, context(taints=["contains_pii"])) in ("contract/untainted", None)
    assert culprit(engine, [*both, "contract/never"], context()) in ("contract/never", None)
    assert decide(engine, "e", ["contract/always"] * 40, context()).allowed is True


def test_large_inputs(engine: PolicyEngine) -> None:
    for args in ({"text": "é" * 50_000}, {f"k{i}": {"v": i, "text": "abc"} for i in range(3_000)}):
        assert decide(engine, "e", ["contract/trusted"], context(args=args)).allowed is True
        assert decide(engine, "e", ["contract/trusted"], context(args=args, trust_score=1)).allowed is False


async def test_large_inputs_async(engine: PolicyEngine) -> None:
    args = {"text": "é" * 50_000}
    assert (await decide_async(engine, "e", ["contract/trusted"], context(args=args))).allowed is True


def test_values_of_every_kind_are_readable(engine: PolicyEngine) -> None:
    args = {
        "f": 1.5,
        "big": 2**63 - 1,
        "none": None,
        "list": [1, "a", [True]],
        "nested": {"": {"k": -0.0}},
        "t": (1, 2),
    }
    assert decide(engine, "e", ["contract/trusted"], context(args=args)).allowed is True


@pytest.mark.parametrize("value", [b"secret-42", object(), "\ud800secret-42", {1: "secret-42", "1": "x"}])
def test_what_json_cannot_say_denies_and_is_not_quoted(engine: PolicyEngine, value: object) -> None:
    if not deciding(engine):
        return  # it is given the value as it is
    with pytest.raises(PolicyEngineError) as caught:
        decide(engine, "e", ["contract/always"], context(args={"value": value}))
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "secret-42" not in str(shown)
        shown = shown.__cause__


def test_deep_nesting_is_survived(engine: PolicyEngine) -> None:
    for depth in (50, 5_000):
        deep: Any = 1
        for _ in range(depth):
            deep = {"a": deep}
        try:
            decision = decide(engine, "e", ["contract/trusted"], context(args={"deep": deep}, trust_score=1))
        except PolicyEngineError:
            continue
        assert decision.allowed is False


def test_eight_threads(engine: PolicyEngine) -> None:
    """Threads with different inputs never see each other's: each knows the only right answer."""
    wrong: list[object] = []
    decided = [0] * 8
    until = time.monotonic() + 2.0

    def work(thread: int) -> None:
        step = 0
        while step < 2 or time.monotonic() < until:  # also where another thread has the time to itself
            step += 1
            trust, tainted = (80, 10)[(step + thread) % 2], step % 3 == 0
            given = context(trust_score=trust, taints=["contains_pii"] if tainted else [], args={"n": thread})
            decision = decide(engine, "e", ["contract/trusted", "contract/untainted"], given)
            if decision.allowed is not (trust == 80 and not tainted):
                wrong.append((thread, step, decision))
            decided[thread] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert min(decided) > 1


async def test_many_tasks_on_one_loop(engine: PolicyEngine) -> None:
    async def ask(number: int) -> bool:
        given = context(trust_score=number)
        return (await decide_async(engine, "e", ["contract/trusted"], given)).allowed is (number >= 70)

    assert all(await asyncio.gather(*(ask(number) for number in range(101))))


def test_usable_after_close(engine: PolicyEngine) -> None:
    engine.close()
    engine.close()
    assert decide(engine, "e", ["contract/always"], context()).allowed is True


def test_nothing_goes_to_stdout(engine: PolicyEngine, capfd: pytest.CaptureFixture[str]) -> None:
    decide(engine, "e", ["contract/trusted"], context())
    decide(engine, "e", ["contract/undefined"], context())
    assert capfd.readouterr().out == ""
