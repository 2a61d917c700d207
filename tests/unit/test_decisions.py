"""The decision cache: who shares a decision, for how long, and that it stays bounded (ATTACKS C4 has the rest)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kest.core import (
    LocalEd25519Provider,
    PolicyDeniedError,
    configure,
    invalidate_policy_cache,
    kest_verified,
)
from kest.core.context import lineage
from kest.core.decisions import MAX_DECISIONS, DecisionCache, decisions
from kest.core.engine import Decision
from kest.errors import CanonicalizationError, KestError


def decided(fn: Any, *args: Any) -> Any:
    with lineage():
        return fn(*args)


def test_the_same_question_is_asked_once(configured: Any) -> None:
    f = kest_verified("p", context_map={"n": "n"})(lambda n: n)
    assert [decided(f, n) for n in (1, 2, 1, 2, 1)] == [1, 2, 1, 2, 1]
    assert len(configured.engine.asked) == 2


def test_denials_are_remembered_with_their_reason(recording_engine: Any, identity: Any) -> None:
    engine = recording_engine(Decision(False, "because", "p2", ("id",)))
    configure(engine=engine, identity=identity)
    f = kest_verified(["p1", "p2"])(lambda: 1)
    reasons = []
    for _ in range(3):
        with pytest.raises(PolicyDeniedError) as denied:
            decided(f)
        reasons.append((denied.value.policy, denied.value.reason, denied.value.entry_id))
    assert len(engine.asked) == 1
    assert {reason[:2] for reason in reasons} == {("p2", "because")}
    assert len({reason[2] for reason in reasons}) == 3


def test_errors_are_not_remembered(configured: Any) -> None:
    def broken(names: Any, context: Any) -> bool:
        raise OSError("down")

    configured.engine.answer = broken
    f = kest_verified("p")(lambda: 1)
    for _ in range(2):
        with pytest.raises(PolicyDeniedError):
            decided(f)
    assert len(configured.engine.asked) == 2
    configured.engine.answer = True
    assert decided(f) == 1


def test_zero_turns_the_cache_off(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", "0")
    configure()
    f = kest_verified("p")(lambda: 1)
    for _ in range(3):
        decided(f)
    assert len(configured.engine.asked) == 3
    assert len(decisions) == 0


def test_a_decision_expires(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", "0.05")
    configure()
    f = kest_verified("p")(lambda: 1)
    decided(f)
    decided(f)
    assert len(configured.engine.asked) == 1
    time.sleep(0.06)
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        decided(f)


def test_configure_empties_the_cache(configured: Any) -> None:
    f = kest_verified("p")(lambda: 1)
    decided(f)
    configure(app_policies=["a"])
    decided(f)
    assert [names for names, _ in configured.engine.asked] == [("p",), ("a",), ("p",)]


def test_a_decision_asked_before_an_invalidation_is_not_stored(configured: Any) -> None:
    def revoked_meanwhile(names: Any, context: Any) -> bool:
        invalidate_policy_cache()
        return True

    configured.engine.answer = revoked_meanwhile
    f = kest_verified("p")(lambda: 1)
    decided(f)
    decided(f)
    assert len(configured.engine.asked) == 2


def test_an_input_that_has_no_canonical_form_fails_closed(configured: Any) -> None:
    ran: list[int] = []
    f = kest_verified("p", context_map={"n": "n"})(lambda n: ran.append(1))
    for value in (float("nan"), object(), "\ud800", 2**60, {1: 2}):
        with pytest.raises(KestError) as caught:
            decided(f, value)
        assert isinstance(caught.value, CanonicalizationError)
    assert not ran
    assert not configured.engine.asked


def test_the_cache_is_bounded(configured: Any) -> None:
    assert MAX_DECISIONS <= 100_000
    cache = DecisionCache(60.0, bound=10)
    for i in range(100):
        cache.put((i, "", (), (), b""), None, Decision(True), cache.generation)
    assert len(cache) == 10
    assert cache.get((99, "", (), (), b"")) is not None
    assert cache.get((0, "", (), (), b"")) is None


def test_the_cache_keeps_the_engine_alive_so_that_its_id_is_not_reused(recording_engine: Any, identity: Any) -> None:
    configure(identity=identity)
    asked = 0
    for _ in range(50):
        engine = recording_engine()
        f = kest_verified("p", engine=engine, operation_name="same")(lambda: 1)
        decided(f)
        asked += len(engine.asked)
        del engine, f
    assert asked == 50


def test_identities_do_not_share(configured: Any) -> None:
    for name in ("spiffe://kest.test/a", "spiffe://kest.test/b", "spiffe://kest.test/a"):
        identity = LocalEd25519Provider(name)
        decided(kest_verified("p", identity=identity, operation_name="same")(lambda: 1))
    assert [given["identity"] for _, given in configured.engine.asked] == [
        "spiffe://kest.test/a",
        "spiffe://kest.test/b",
    ]
