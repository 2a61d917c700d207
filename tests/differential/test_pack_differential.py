"""Baggage that Kest writes is what the specification writes, and each reads the other's."""

from __future__ import annotations

import zlib
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import b64, chain, pack

from .actors import ALICE, encoded
from .strategies import Suspect, passports
from .values import SETTINGS

FORMS = (pack.INLINE, pack.COMPRESSED, pack.CLAIM)
# Another zlib may compress the same text a little differently: forms may differ only this close to the limit.
SLACK = 160

sizes = passports(max_size=10, actors=[ALICE])
some = passports(max_size=10, min_size=1, actors=[ALICE])


def form_of(members: dict[str, str]) -> str:
    (form,) = [key for key in members if key in FORMS]
    return form


def near_the_limit(passport: chain.Passport) -> bool:
    return abs(pack.pair_length(pack.COMPRESSED, pack.compress(passport.serialize())) - pack.MAX_PAIR) <= SLACK


@settings(SETTINGS)
@given(sizes)
def test_kest_packs_as_specified(kest_core: ModuleType, errors: ModuleType, suspect: Suspect) -> None:
    ours, theirs = chain.Passport(suspect.entries), kest_core.Passport(suspect.entries)
    try:
        expected = pack.pack(ours)
    except pack.TooLarge:
        try:
            members = kest_core.BaggageManager.pack(theirs)
        except errors.PassportTooLargeError:
            return
        # A denser compressed form may fit where the specified one does not; then it has to give everything back.
        assert form_of(members) == pack.COMPRESSED
        assert list(kest_core.BaggageManager.unpack(members).entries) == ours.entries
        return
    if not ours.entries:
        return  # nothing to carry: sending nothing and sending an empty array say the same
    try:
        members = kest_core.BaggageManager.pack(theirs)
    except errors.PassportTooLargeError:
        assert near_the_limit(ours)
        return
    assert members[pack.TIP] == expected[pack.TIP]
    form = form_of(members)
    assert form == form_of(expected)
    assert pack.pair_length(form, members[form]) <= pack.MAX_PAIR
    if form == pack.INLINE:
        assert members[form] == expected[form]
    assert list(kest_core.BaggageManager.unpack(members).entries) == ours.entries


@settings(SETTINGS)
@given(some, st.sampled_from([pack.INLINE, pack.COMPRESSED]), st.sampled_from([1, 6, 9]))
def test_kest_reads_what_the_specification_writes(
    kest_core: ModuleType, suspect: Suspect, form: str, level: int
) -> None:
    text = chain.Passport(suspect.entries).serialize()
    value = text if form == pack.INLINE else b64.encode(zlib.compress(text.encode(), level))
    members = {form: value, pack.TIP: chain.Passport(suspect.entries).chain_tip()}
    assert list(kest_core.BaggageManager.unpack(members).entries) == suspect.entries


def nothing_to_believe(kest_core: ModuleType, passport: Any) -> None:
    """An entry that cannot be read may be reported as late as here: by everything that a reader would rely on."""
    assert len(passport) > 0, "never an empty passport"
    for name in ("tips", "chain_tip", "trust_score", "taints"):
        with pytest.raises(kest_core.VerificationError):
            getattr(passport, name)
    kest_core.PassportVerifier.verify(passport, {ALICE.name: encoded(ALICE.private.public_key())})


@settings(SETTINGS)
@given(some, st.data())
def test_kest_refuses_what_the_specification_refuses(
    kest_core: ModuleType, errors: ModuleType, suspect: Suspect, data: st.DataObject
) -> None:
    passport = chain.Passport(suspect.entries)
    text, tip = passport.serialize(), passport.chain_tip()
    form = data.draw(st.sampled_from([pack.INLINE, pack.COMPRESSED]))
    value = text if form == pack.INLINE else pack.compress(text)
    at, gone = data.draw(st.integers(0, len(value))), data.draw(st.integers(0, 3))
    piece = data.draw(st.sampled_from(["", "", "A", "_", "=", " ", '"', ",", "]", "é", "\x00"]))
    broken = data.draw(st.sampled_from([value, value[:at] + piece + value[at + gone :], value[:at], value[at:]]))
    other_tip = data.draw(st.sampled_from([tip, tip, "0" * 64, tip.upper(), tip[:-1], tip + ","]))
    members = {form: broken, pack.TIP: other_tip}
    try:
        expected = pack.unpack(members).entries
    except pack.BadBaggage:
        with pytest.raises(errors.KestError):
            nothing_to_believe(kest_core, kest_core.BaggageManager.unpack(members))
        return
    try:  # Kest may already look closer at the entries than the specification does here
        assert list(kest_core.BaggageManager.unpack(members).entries) == expected
    except errors.KestError:
        assert broken != value


@pytest.mark.parametrize(
    "raw",
    [
        zlib.compress(b"x" * (pack.MAX_INFLATED + 1), 9),
        zlib.compress(b"[" + b'"",' * 2_000_000 + b'""]', 9),
        zlib.compress(b'["' + b" " * 100_000_000 + b'"]', 9),
        zlib.compress(b'["e30.e30."' + b',"e30.e30."' * 2000 + b"]", 9),
        zlib.compress(b"[]", 1) + b"\x00",
        zlib.compress(b"[]", 1)[:-1],
        zlib.compress(b"[]", 1) * 2,
        zlib.compress(b"{}", 1),
        zlib.compress(b"[\xff]", 1),
        b"",
        b"\x00",
    ],
    ids=["limit+1", "many empty", "bomb", "2001 entries", "trailing", "cut", "two", "object", "utf-8", "empty", "nul"],
)
def test_bombs_and_broken_streams(kest_core: ModuleType, errors: ModuleType, raw: bytes) -> None:
    with pytest.raises(pack.BadBaggage):
        pack.unpack({pack.COMPRESSED: b64.encode(raw)})
    with pytest.raises(errors.KestError):
        kest_core.BaggageManager.unpack({pack.COMPRESSED: b64.encode(raw)})


def test_large_passports_go_through_the_cache(kest_core: ModuleType, errors: ModuleType) -> None:
    passport = chain.Passport()
    for at in range(60):
        fields: dict[str, Any] = {
            "operation": "op",
            "entry_id": "0192f0c1-7a3b-7c4d-8e5f-0123456789ab",
            "timestamp_ms": at,
        }
        passport.append(ALICE.private, ALICE.name, labels={"x": b64.encode(ALICE.seed) * 8, "y": str(at)}, **fields)
    with pytest.raises(pack.TooLarge):
        pack.pack(passport)
    cache = kest_core.SimpleCache()
    members = kest_core.BaggageManager.pack(kest_core.Passport(passport.entries), cache)
    assert form_of(members) in (pack.CLAIM, pack.COMPRESSED)
    assert list(kest_core.BaggageManager.unpack(members, cache).entries) == passport.entries
    with pytest.raises(errors.KestError):
        kest_core.BaggageManager.unpack({pack.CLAIM: "c0ffee00-0000-4000-8000-000000000000"}, cache)
