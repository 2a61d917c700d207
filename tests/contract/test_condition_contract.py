"""What every condition of a gate must do: `conditions.CASES` has the contexts in which each holds and does not."""

from __future__ import annotations

from typing import Any

import pytest
from conditions import CASES, NOW, Case, context

from kest.errors import GatePolicyError
from kest.gate import ActionContext, Gate
from kest.gate.conditions import CONDITIONS

SECOND = 1_000_000_000


def gate(*policies: tuple[str, list[Any]]) -> Gate:
    listed = [{"name": f"p{i}", "effect": effect, "conditions": given} for i, (effect, given) in enumerate(policies)]
    made = Gate.from_dict({"policies": listed})
    made._core.set_clock(NOW * SECOND, SECOND)
    return made


def outcomes(case: Case) -> list[tuple[str, Any, ActionContext]]:
    """(true, false or unknown; the condition's value; a context)."""
    found = [("true", case.value, context(**case.holds))]
    if case.fails is not None:
        found.append(("false", case.value, context(**case.fails)))
    if case.other is not None:
        found.append(("false", case.other, context(**case.holds)))
    if case.unknown is not None:
        found.append(("unknown", case.value, context(**case.unknown)))
    return found


def test_every_condition_is_under_contract() -> None:
    assert set(CASES) == set(CONDITIONS)


@pytest.mark.parametrize("name", CASES)
class TestCondition:
    def test_it_holds_and_fails(self, name: str) -> None:
        assert len(outcomes(CASES[name])) >= 2, "a context in which it does not hold belongs to the case"
        for outcome, value, given in outcomes(CASES[name]):
            assert gate(("permit", [{name: value}])).evaluate(given).is_permit is (outcome == "true"), outcome

    def test_what_it_cannot_tell_refuses(self, name: str) -> None:
        for outcome, value, given in outcomes(CASES[name]):
            verdict = gate(("refuse", [{name: value}]), ("permit", [])).evaluate(given)
            assert verdict.is_permit is (outcome == "false"), outcome

    def test_in_groups_it_is_the_same(self, name: str) -> None:
        negated = {"true": False, "false": True, "unknown": False}
        for outcome, value, given in outcomes(CASES[name]):
            assert gate(("permit", [{"not": {name: value}}])).evaluate(given).is_permit is negated[outcome]
            for group in ("any", "all"):
                assert gate(("permit", [{group: [{name: value}]}])).evaluate(given).is_permit is (outcome == "true")

    def test_it_says_what_it_compared(self, name: str) -> None:
        for outcome, value, given in outcomes(CASES[name]):
            (policy,) = gate(("permit", [{name: value}])).explain(given).policies
            (result,) = policy.conditions
            assert (result.condition, result.outcome) == (name, outcome)
            assert len(result.why) > 10
            assert result.why.isprintable()

    def test_values_that_it_does_not_take_are_named(self, name: str) -> None:
        for wrong in (None, [], {}, 1.5, object(), {"nothing": 1}, [["DE"]], "\ud800"):
            with pytest.raises(GatePolicyError) as caught:
                gate(("permit", [{name: wrong}]))
            assert str(caught.value.path).startswith(f"policies[0].conditions[0].{name}")

    def test_another_value_is_another_policy(self, name: str) -> None:
        case = CASES[name]
        same = gate(("permit", [{name: case.value}])).policies.digest
        assert gate(("permit", [{name: case.value}])).policies.digest == same
        assert gate(("permit", [{"not": {name: case.value}}])).policies.digest != same
