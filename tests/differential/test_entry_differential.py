"""Entries and passports that Kest builds are the ones the specification builds, byte for byte."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import canonical, chain, entry, verify

from .actors import ALICE, BOB, Actor
from .strategies import Suspect, entry_fields, hashes, passports, taint_lists
from .values import SETTINGS

# Ed25519 signs the same way twice. An identity's own name may hold anything printable (a verifier takes any name).
ED25519 = [ALICE, BOB, Actor('agent "ü/β"\\ 😀', "EdDSA")]

arguments: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda fields, **more: {**fields, **more},
    entry_fields,
    trust_score=st.integers(0, 100),
    parent_ids=st.one_of(st.just(("0",)), st.lists(hashes, min_size=1, max_size=4, unique=True).map(tuple)),
    added_taints=taint_lists,
    removed_taints=taint_lists,
    taints=taint_lists,
)


@settings(SETTINGS)
@given(arguments, st.sampled_from(ED25519))
def test_sign_entry(kest_core: ModuleType, given_fields: dict[str, Any], actor: Actor) -> None:
    fields = dict(given_fields)
    built = kest_core.KestEntry(fields.pop("operation"), **fields)
    jws = kest_core.sign_entry(built, kest_core.StaticIdentity(actor.name, key=actor.seed))
    runtime = chain.payload_of(jws)["runtime"]
    assert runtime["name"] == "kest-c"
    expected = entry.build_payload(principal=actor.name, runtime=runtime, **given_fields)
    assert jws == entry.sign_entry(expected, actor.private, actor.name)


def test_defaults(kest_core: ModuleType) -> None:
    actor = ED25519[0]
    jws = kest_core.sign_entry(kest_core.KestEntry("op"), kest_core.StaticIdentity(actor.name, key=actor.seed))
    payload = chain.payload_of(jws)
    made = {name: payload[name] for name in ("entry_id", "timestamp_ms", "runtime")}
    assert payload == entry.build_payload(operation="op", principal=actor.name, **made)
    assert verify.verify([jws], {actor.name: actor.info()}).trust == 100  # so the generated id and time are well formed


def each(member: str, *values: Any) -> list[dict[str, Any]]:
    return [{member: value} for value in values]


@pytest.mark.parametrize(
    "change",
    [
        *each("operation", "", None, 1, "\ud800"),
        *each("trust_score", -1, 101, True, 50.0, "50", None),
        *each("classification", "System", "", None),
        *each("parent_ids", (), ("1",), ("0", "0"), ("A" * 64,), ("a" * 64, "a" * 64), ("0", "a" * 64), (1,)),
        *(
            {name: v}
            for name in ("added_taints", "removed_taints", "taints")
            for v in (("",), (1,), (None,), ("\ud800",))
        ),
        *each("labels", {"x": 1}, {1: "x"}, {"x": None}, {"x": "\udfff"}),
        *each("input_hash", "x", "A" * 64, "a" * 63, b"a" * 64),
        *each("entry_id", "", "x", "0192f0c1-7a3b-4c4d-8e5f-0123456789ab", "0192F0C1-7A3B-7C4D-8E5F-0123456789AB"),
        *each("timestamp_ms", -1, True, 1.0, "1", 2**53),
        *each("policy_context", {"extra": []}, {"app_policies": "p"}, {"app_policies": [1]}, {"deviations": ["p"]}),
    ],
    ids=repr,
)
def test_an_entry_that_no_verifier_would_take_is_not_signed(
    kest_core: ModuleType, errors: ModuleType, change: dict[str, Any]
) -> None:
    actor = ED25519[0]
    identity = kest_core.StaticIdentity(actor.name, key=actor.seed)
    fields = {"operation": "op", **change}
    try:
        jws = kest_core.sign_entry(kest_core.KestEntry(fields.pop("operation"), **fields), identity)
    except (errors.KestError, ValueError, TypeError):
        return
    # Otherwise it was read as something sensible: no parents as a root, True as 1.
    assert change in ({"parent_ids": ()}, {"timestamp_ms": True}), "this has no sensible reading"
    verify.verify([jws], {actor.name: actor.info()})


@settings(SETTINGS)
@given(passports())
def test_passport(kest_core: ModuleType, suspect: Suspect) -> None:
    ours, theirs = chain.Passport(suspect.entries), kest_core.Passport(suspect.entries)
    assert list(theirs.entries) == ours.entries
    assert len(theirs) == len(ours.entries)
    assert list(theirs.tips) == ours.tips()
    assert list(theirs.taints) == ours.taints()
    if ours.entries:
        assert theirs.trust_score == ours.trust_score()
    assert list(theirs.decode()) == [chain.payload_of(jws) for jws in ours.entries]
    assert theirs.serialize() == ours.serialize()
    assert list(kest_core.Passport.deserialize(ours.serialize()).entries) == ours.entries


@settings(SETTINGS)
@given(passports(max_size=3), st.data())
def test_deserialize_refuses_what_the_specification_refuses(
    kest_core: ModuleType, errors: ModuleType, suspect: Suspect, data: st.DataObject
) -> None:
    text = canonical.canonicalize(suspect.entries).decode()
    at = data.draw(st.integers(0, len(text)))
    piece = data.draw(st.sampled_from(["", ",", "]", "[", '"', "1", "null", "\\", "\n", "\ufeff", "{}", "é", "\x00"]))
    text = text[:at] + piece + text[at + data.draw(st.integers(0, 2)) :]
    try:
        expected = chain.Passport.deserialize(text).entries
    except ValueError:
        with pytest.raises(errors.KestError):
            kest_core.Passport.deserialize(text)
        return
    try:  # an entry that cannot be read may be refused here already, but never changed or dropped
        assert list(kest_core.Passport.deserialize(text).entries) == expected
    except errors.KestError:
        assert text != canonical.canonicalize(suspect.entries).decode()
