"""KestEntry, Passport and PassportVerifier as objects: building, reading, merging, serialising, verifying."""

from __future__ import annotations

import copy
import json
import pickle
from types import MappingProxyType
from typing import Any

import pytest

from kest._kestcore import sha256
from kest.core import (
    KestEntry,
    LocalEd25519Provider,
    Passport,
    PassportVerifier,
    VerificationError,
    kest_verified,
    sign_entry,
)
from kest.core.context import get_current_passport, lineage
from kest.errors import BaggageError, KestError, PassportError

NAME = "spiffe://kest.test/unit"


def tip(jws: str) -> str:
    return sha256(jws.encode()).hex()


def entry(identity: Any, operation: str = "op", *parents: str, **kwargs: Any) -> str:
    ids = tuple(tip(parent) for parent in parents) or ("0",)
    return sign_entry(KestEntry(operation, parent_ids=ids, **kwargs), identity)


@pytest.fixture
def chain(identity: Any) -> list[str]:
    first = entry(identity, "a")
    second = entry(identity, "b", first)
    return [first, second, entry(identity, "c", second)]


# --- entries ---------------------------------------------------------------------------------------------------------


def test_entry_defaults(identity: Any) -> None:
    made = KestEntry("op")
    assert (made.operation, made.trust_score, made.classification, made.parent_ids) == ("op", 100, "system", ("0",))
    assert (made.labels, made.added_taints, made.removed_taints, made.taints) == ({}, (), (), ())
    assert made.input_hash == ""
    assert made.entry_id[14] == "7"
    assert abs(made.timestamp_ms - int(made.entry_id.replace("-", "")[:12], 16)) <= 1
    assert "op" in repr(made)


def test_entry_payload_is_canonical_and_signed(identity: Any) -> None:
    rfc8785 = pytest.importorskip("rfc8785")
    made = KestEntry(
        "öp", trust_score=3, classification="data", labels={"ß": "€", "a": "\u2028"}, added_taints=["b", "a"],
        taints=("b", "a"), input_hash="0" * 64, timestamp_ms=5,
    )  # fmt: skip
    payload = made.payload(NAME)
    assert rfc8785.dumps(json.loads(payload)) == payload
    parsed = json.loads(payload)
    assert parsed["taints"] == parsed["added_taints"] == ["a", "b"]
    assert parsed["labels"] == {"principal": NAME, "ß": "€", "a": "\u2028"}
    header, body, signature = sign_entry(made, identity).split(".")
    from kest._kestcore import PublicKey, b64url_decode

    assert b64url_decode(body) == payload
    assert json.loads(b64url_decode(header)) == {"alg": "EdDSA", "kid": NAME, "typ": "JWS"}
    assert PublicKey.from_raw(identity.signer.public_key).verify(f"{header}.{body}".encode(), b64url_decode(signature))


@pytest.mark.parametrize(
    "wrong",
    [{"trust_score": True}, {"trust_score": 101}, {"trust_score": -1}, {"trust_score": 1.0}, {"trust_score": "1"},
     {"classification": "other"}, {"parent_ids": ("1",)}, {"parent_ids": ("A" * 64,)},
     {"parent_ids": ("0", "0" * 64)}, {"parent_ids": ("a" * 64, "a" * 64)}, {"labels": {"a": 1}},
     {"labels": {"principal": "another"}}, {"labels": {1: "a"}}, {"added_taints": [""]}, {"added_taints": "abc"},
     {"added_taints": [1]}, {"taints": ["\ud800"]}, {"input_hash": "xyz"}, {"input_hash": 5}, {"entry_id": "x"},
     {"entry_id": "00000000-0000-4000-8000-000000000000"}, {"timestamp_ms": -1}, {"timestamp_ms": 1.5},
     {"timestamp_ms": 2**53}, {"policy_context": {}}, {"policy_context": {"deviations": []}}, {"policy_context": 5},
     {"operation": ""}, {"operation": "\ud800"}, {"operation": None}],
)  # fmt: skip
def test_an_entry_that_no_verifier_would_accept_is_never_signed(wrong: dict[str, Any], identity: Any) -> None:
    with pytest.raises((KestError, TypeError, ValueError)):
        sign_entry(KestEntry(**{"operation": "op", **wrong}), identity)


def test_labels_are_any_mapping_and_nothing_else() -> None:
    labels = {"a": "b"}
    made = KestEntry("op", labels=MappingProxyType(labels))
    labels["a"] = "c"
    assert made.labels == {"a": "b"}
    for wrong in (["a"], "a", 1, {"a"}, object()):
        with pytest.raises(TypeError, match="labels is a mapping"):
            KestEntry("op", labels=wrong)  # type: ignore[arg-type]


def test_sign_entry_needs_an_identity() -> None:
    with pytest.raises(KestError):
        sign_entry(KestEntry("op"), object())


# --- building and reading --------------------------------------------------------------------------------------------


def test_empty_passport_is_valid() -> None:
    empty = Passport()
    assert (len(empty), bool(empty), empty.entries, empty.decode(), empty.tips, empty.chain_tip) == (
        0,
        False,
        [],
        [],
        (),
        "",
    )
    assert (empty.trust_score, empty.taints, empty.serialize()) == (100, (), "[]")
    assert len(PassportVerifier.verify(empty, {})) == 0


def test_building_by_hand(chain: list[str], identity: Any) -> None:
    built = Passport()
    for i, jws in enumerate(chain):
        assert built.add_signature(jws) is built
        assert len(built) == i + 1
        assert built.tips == (tip(jws),)
        assert json.loads(built.serialize()) == chain[: i + 1]
    assert built.entries == Passport(chain).entries == Passport(tuple(chain)).entries == chain
    assert [payload["operation"] for payload in built.decode()] == ["a", "b", "c"]
    assert PassportVerifier.verify(built, {NAME: identity}).tips == (tip(chain[-1]),)


def test_constructor_takes_no_text(chain: list[str]) -> None:
    with pytest.raises(TypeError, match="deserialize"):
        Passport(json.dumps(chain))
    for wrong in (5, [5], [None], [b"a.b.c"]):
        with pytest.raises((TypeError, KestError)):
            Passport(wrong)  # type: ignore[arg-type]


def test_serialisation_round_trip(chain: list[str]) -> None:
    text = Passport(chain).serialize()
    assert json.loads(text) == chain
    for source in (text, text.encode(), bytearray(text.encode()), memoryview(text.encode())):
        again = Passport.deserialize(source)  # type: ignore[arg-type]
        assert again.entries == chain
        assert again.serialize() == text
    assert Passport.deserialize("  [ ] ").entries == []
    assert Passport.deserialize(json.dumps(chain, indent=2)).entries == chain


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", '"a.b.c"', "[1]", "[null]", "[[]]", '["a"', '["a"],', '["a"]x', "[,]", '["\ud800"]', "\xff"],
)
def test_what_is_no_passport_is_an_error(text: str) -> None:
    with pytest.raises(KestError):
        Passport.deserialize(text)
    with pytest.raises(KestError):
        Passport.deserialize(text.encode("utf-8", "surrogatepass"))


def test_deserialize_is_bounded(chain: list[str]) -> None:
    text = json.dumps(chain)
    assert len(Passport.deserialize(text, 3)) == 3
    with pytest.raises(BaggageError):
        Passport.deserialize(text, 2)


def test_decode_gives_fresh_dicts(chain: list[str]) -> None:
    passport = Passport(chain)
    passport.decode()[0]["operation"] = "changed"
    passport.entries.append("changed")
    assert passport.decode()[0]["operation"] == "a"
    assert len(passport.entries) == 3


# --- broken entries --------------------------------------------------------------------------------------------------

BROKEN = ["", "text", "a.b", "a.b.c", "a.b.c.d", "..", "eyJ.eyJ.AAAA", "ä.ö.ü"]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("index", [0, 1, 3])
def test_broken_entries_are_kept_and_named(text: str, index: int, chain: list[str], identity: Any) -> None:
    entries = [*chain[:index], text, *chain[index:]]
    passport = Passport(entries)
    assert passport.entries == entries
    assert len(passport) == 4
    assert json.loads(passport.serialize()) == entries
    assert Passport.deserialize(passport.serialize()).entries == entries
    for read in ("trust_score", "taints", "tips", "chain_tip", "tip_scores", "tip_entry"):
        with pytest.raises(VerificationError) as caught:
            getattr(passport, read)
        assert caught.value.index == index
        assert caught.value.reason
    with pytest.raises(VerificationError):
        passport.decode()
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(passport, {NAME: identity})
    assert caught.value.index == index
    with pytest.raises(VerificationError):
        Passport.merge(passport)


def test_a_flow_does_not_continue_from_a_broken_passport(configured: Any) -> None:
    ran: list[int] = []
    with lineage(Passport(["nonsense"])), pytest.raises(KestError):
        kest_verified("p")(lambda: ran.append(1))()
    assert not ran


# --- views of a flow -------------------------------------------------------------------------------------------------


def flow(n: int = 3) -> Passport:
    for i in range(n):
        kest_verified("p", operation_name=f"op{i}", added_taints=[f"t{i}"])(lambda: 1)()
    return get_current_passport()


def test_a_view_of_a_flow_is_immutable(configured: Any, chain: list[str]) -> None:
    view = flow()
    before = view.entries
    with pytest.raises(PassportError, match=r"Passport\(passport\.entries\)"):
        view.add_signature(chain[0])
    flow()
    assert view.entries == before
    by_hand = Passport(view.entries)
    by_hand.add_signature(chain[0])
    assert view.entries == before
    for name in ("entries", "tips", "trust_score"):
        with pytest.raises(AttributeError):
            setattr(view, name, None)
    with pytest.raises(AttributeError):
        view.new_attribute = 1  # type: ignore[attr-defined]


def test_views_share_their_past(configured: Any) -> None:
    first = flow(2)
    branches = []
    for _ in range(2):
        with lineage(first):
            branches.append(flow(1))
    assert branches[0].entries[:2] == branches[1].entries[:2] == first.entries
    merged = Passport.merge(*branches)
    assert len(merged) == 4
    assert merged.tips == tuple(sorted(b.tips[0] for b in branches))
    assert merged.chain_tip == ",".join(merged.tips)
    assert merged.tip_entry is None
    assert Passport.merge(merged, first, *branches).tips == merged.tips
    assert len(PassportVerifier.verify(merged, configured.keys, chain_tip=merged.chain_tip)) == 4


def test_merge_of_hand_made_passports(chain: list[str], identity: Any) -> None:
    other = [chain[0], entry(identity, "d", chain[0], trust_score=20, added_taints=["x"], taints=["x"])]
    merged = Passport.merge(Passport(chain), Passport(other))
    assert len(merged) == 4
    assert sorted(merged.entries) == sorted({*chain, *other})
    assert (merged.trust_score, merged.taints) == (20, ("x",))
    assert sorted(merged.tip_scores) == [20, 100]
    verified = PassportVerifier.verify(merged, {NAME: identity})
    assert (verified.trust_score, verified.taints) == (20, ("x",))
    assert Passport.merge().entries == []
    assert Passport.merge(Passport()).entries == []
    for wrong in (None, chain, "x"):
        with pytest.raises(TypeError):
            Passport.merge(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_and_pickles(copier: Any, chain: list[str], configured: Any) -> None:
    for passport in (Passport(), Passport(chain), flow(), Passport([*chain, "broken"])):
        again = copier(passport)
        assert type(again) is Passport
        assert again.entries == passport.entries


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_and_pickles_keep_ceiling_taints_and_continuation(
    copier: Any, chain: list[str], configured: Any
) -> None:
    for passport in (Passport(), Passport(chain), flow()):
        again = copier(passport.restrict(10, ["kest.unverified"]))
        assert again.trust_score == 10
        assert "kest.unverified" in again.taints
    rolled = copier(flow().restrict(30, []).roll_over())
    assert rolled.continues
    assert rolled.trust_score == 30
    assert rolled.taints == ("t0", "t1", "t2")


def test_restrict(chain: list[str]) -> None:
    passport = Passport(chain)
    low = passport.restrict(10, ["a"])
    assert (low.trust_score, low.taints, low.entries) == (10, ("a",), chain)
    lower = low.restrict(50, ["b"])
    assert (lower.trust_score, lower.taints) == (10, ("a", "b"))
    assert (passport.trust_score, passport.taints) == (100, ())
    for ceiling in (-1, 101):
        with pytest.raises(ValueError):
            passport.restrict(ceiling, [])
    for taints in (["b", "a"], ["a", "a"], [""], "a", [1]):
        with pytest.raises((TypeError, ValueError)):
            passport.restrict(10, taints)


def test_hash_is_of_the_whole_jws_so_equal_text_is_one_entry(chain: list[str]) -> None:
    assert Passport.merge(Passport(chain), Passport(list(chain))).entries == chain
    assert tip(chain[0]) == Passport(chain[:1]).chain_tip == Passport(json.loads(json.dumps(chain[:1]))).chain_tip


# --- verification ----------------------------------------------------------------------------------------------------


def test_verified_facts(configured: Any) -> None:
    other = LocalEd25519Provider("spiffe://kest.test/other")
    kest_verified("p", identity=other, source_type="user_input", added_taints=["x"])(lambda: 1)()
    flow(1)
    passport = get_current_passport()
    keys = {**configured.keys, other.get_identity(): other}
    for form in (passport, passport.serialize(), passport.entries, tuple(passport.entries)):
        verified = PassportVerifier.verify(form, keys, chain_tip=passport.chain_tip)
        assert (verified.trust_score, verified.taints) == (40, ("t0", "x"))
        assert verified.principals == {NAME, "spiffe://kest.test/other"}
        assert verified.tips == passport.tips
        assert len(verified) == 2
        assert verified.entries == passport.entries
        assert verified.decode() == passport.decode()


def test_what_was_verified_does_not_change_afterwards(chain: list[str], identity: Any) -> None:
    passport = Passport(chain)
    verified = PassportVerifier.verify(passport, {NAME: identity})
    passport.add_signature(entry(LocalEd25519Provider("spiffe://evil/x"), "evil", chain[-1]))
    assert len(verified) == 3
    assert verified.entries == chain
    assert [payload["operation"] for payload in verified.decode()] == ["a", "b", "c"]
    assert verified.passport.tips == verified.tips


def test_errors_name_index_and_reason(chain: list[str], identity: Any) -> None:
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(chain, {})
    assert caught.value.index == 0
    assert isinstance(caught.value, ValueError)
    assert caught.value.reason in str(caught.value)
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(chain, {NAME: identity}, chain_tip=tip(chain[1]))
    assert caught.value.index is None
    with pytest.raises(VerificationError):
        PassportVerifier.verify(Passport(), {NAME: identity}, chain_tip=tip(chain[1]))


def test_thousand_entries_name_the_bad_one(identity: Any) -> None:
    entries = [entry(identity, "0")]
    for i in range(1, 1000):
        entries.append(entry(identity, str(i), entries[-1]))
    keys = {NAME: identity}
    assert len(PassportVerifier.verify(entries, keys)) == 1000
    forger = LocalEd25519Provider(NAME)
    for bad in (0, 1, 63, 64, 500, 999):
        forged = list(entries[:bad])
        parents = (entries[bad - 1],) if bad else ()
        forged.append(entry(forger, "forged", *parents))
        for i in range(bad + 1, min(bad + 80, 1000)):
            forged.append(entry(identity, str(i), forged[-1]))
        with pytest.raises(VerificationError) as caught:
            PassportVerifier.verify(forged, keys)
        assert caught.value.index == bad
