"""Trust scores: the origin map, the weakest link, the evaluator interface."""

from __future__ import annotations

from typing import Any

import pytest

from kest.core import (
    ORIGIN_TRUST_MAP,
    DefaultTrustEvaluator,
    LocalEd25519Provider,
    MockPolicyEngine,
    TrustEvaluator,
    configure,
    kest_verified,
    register_origin_trust,
)
from kest.core.context import get_current_passport
from kest.core.trust import check_score, origin_trust

DEFAULTS = {
    "system": 100, "internal": 100, "verified_rag": 90, "third_party_api": 60, "user_input": 40, "internet": 10, "llm": 0,
    "adversarial": 0,
}  # fmt: skip


def test_defaults() -> None:
    assert {name: ORIGIN_TRUST_MAP[name] for name in DEFAULTS} == DEFAULTS


def test_the_map_is_read_only() -> None:
    with pytest.raises(TypeError):
        ORIGIN_TRUST_MAP["llm"] = 100  # type: ignore[index]


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_defaults_cannot_be_changed(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        register_origin_trust(name, 50 if DEFAULTS[name] != 50 else 51)
    register_origin_trust(name, DEFAULTS[name])  # the same again is no change
    assert ORIGIN_TRUST_MAP[name] == DEFAULTS[name]


def test_additions() -> None:
    register_origin_trust("test_trust.a", 0)
    register_origin_trust("test_trust.b", 100)
    with pytest.raises(ValueError, match="already"):
        register_origin_trust("test_trust.a", 1)
    assert origin_trust("test_trust.a") == 0
    assert origin_trust("test_trust.never") == 10


@pytest.mark.parametrize("score", [True, False, 1.0, "50", None, 10**30, -1, 101])
def test_scores_are_ints_from_0_to_100(score: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="score"):
        register_origin_trust("test_trust.wrong", score)
    with pytest.raises((TypeError, ValueError), match="score"):
        check_score(score, "score")
    assert "test_trust.wrong" not in ORIGIN_TRUST_MAP


@pytest.mark.parametrize("name", ["", None, 5])
def test_names_of_origins(name: Any) -> None:
    with pytest.raises(TypeError):
        register_origin_trust(name, 50)


def test_default_evaluator() -> None:
    evaluator = DefaultTrustEvaluator()
    assert isinstance(evaluator, TrustEvaluator)
    assert evaluator.calculate(40, ()) == 40
    assert evaluator.calculate(100, (10,)) == 10  # TC-04
    for own in range(0, 101, 7):
        for parent in range(0, 101, 3):
            assert evaluator.calculate(own, (100, parent)) == parent * own // 100


def test_every_score_follows_the_rule_through_the_decorator() -> None:
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())
    for own in (0, 1, 33, 99):
        register_origin_trust(f"test_trust.{own}", own)
        expected = 100
        kest_verified("p", trust_override=100)(lambda: 1)()
        for _ in range(4):
            kest_verified("p", source_type=f"test_trust.{own}")(lambda: 1)()
            expected = expected * own // 100
            assert get_current_passport().trust_score == expected
            assert type(get_current_passport().trust_score) is int
