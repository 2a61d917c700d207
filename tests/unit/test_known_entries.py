"""KnownEntries: shares what verified before, believes nothing else, stays small."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest._kestcore import KeyRing, KnownEntries, Passport, PublicKey, pack_dense, pack_z
from kest.core import BaggageManager, KestEntry, LocalEd25519Provider, TrustStore, sign_entry
from kest.errors import BaggageError, KestError, VerificationError

ALICE = LocalEd25519Provider("spiffe://kest.test/alice", seed=bytes(32))
BOB = LocalEd25519Provider("spiffe://kest.test/bob", seed=bytes([1]) * 32)
CAPS = 1024 * 1024, 2000


def ring() -> KeyRing:
    return TrustStore({one.get_identity(): one for one in (ALICE, BOB)}).ring()


def grown(count: int, base: Passport | None = None, identity: Any = ALICE) -> Passport:
    passport = Passport(base.entries if base is not None else ())
    for n in range(count):
        parents = passport.tips or ["0"]
        entry = KestEntry(
            f"work.{n % 3}", parent_ids=parents, taints=["t"], added_taints=["t"] if parents == ["0"] else []
        )
        passport.add_signature(sign_entry(entry, identity))
    return passport


def text(entries: list[str]) -> str:
    return json.dumps(entries, separators=(",", ":"))


def forms(passport: Passport) -> list[tuple[str, str]]:
    dense = pack_dense(passport)
    assert dense is not None
    return [
        ("kest.passport", passport.serialize()),
        ("kest.passport_z", pack_z(passport)),
        ("kest.passport_d", dense),
    ]


@pytest.mark.parametrize("length", [1, 2, 5, 16, 17, 40])
def test_each_form_shares_its_prefix(length: int) -> None:
    base = grown(length)
    long = grown(2, base)
    for form in range(3):
        known = KnownEntries(ring())
        key, value = forms(base)[form]
        first = known.unpack(key, value, *CAPS)
        assert known.missing(first) == length
        known.verify(first)
        assert (known.missing(first), len(known)) == (0, length)
        second = known.unpack(*forms(long)[form], *CAPS)
        assert second.entries == long.entries
        assert (second.chain_tip, second.trust_score, second.taints) == (long.chain_tip, long.trust_score, long.taints)
        assert known.missing(second) == 2
        known.verify(second)
        assert known.missing(second) == 0


def test_nothing_is_known_before_it_verified() -> None:
    known = KnownEntries(TrustStore({ALICE.get_identity(): ALICE}).ring())
    passport = grown(1, grown(2), BOB)
    for key, value in forms(passport):
        got = known.unpack(key, value, *CAPS)
        with pytest.raises(VerificationError) as caught:
            known.verify(got)
        assert caught.value.index == 2
        assert len(known) == 0
        assert known.missing(known.unpack(key, value, *CAPS)) == 3


def test_a_forged_tail_behind_a_known_prefix_is_named() -> None:
    base, store = grown(3), ring()
    known = KnownEntries(store)
    known.verify(base)
    good = grown(1, base).entries
    other = grown(2, base).entries
    head, _, signature = good[3].rpartition(".")
    flipped = head + "." + ("A" if signature[0] != "A" else "B") + signature[1:]
    for bad in (
        [*good[:3], flipped],
        [*good[:2], good[3]],
        [*good, "x"],
        [*good, good[0]],
        [*good, good[3]],
        [good[0], *good],
    ):
        got = known.unpack("kest.passport", text(bad), *CAPS)
        reference = Passport.deserialize(text(bad))
        assert got.entries == reference.entries == bad
        with pytest.raises(VerificationError) as ours:
            known.verify(got)
        fresh = KnownEntries(store)
        with pytest.raises(VerificationError) as theirs:
            fresh.verify(reference)
        assert (ours.value.index, ours.value.reason) == (theirs.value.index, theirs.value.reason)
    assert known.unpack("kest.passport", text(other), *CAPS).entries == other


def test_a_branch_and_a_join_share_what_they_can() -> None:
    root = grown(2)
    known = KnownEntries(ring())
    known.verify(root)
    left, right = grown(1, root), grown(1, root, BOB)
    both = Passport.merge(left, right)
    joined = Passport(both.entries)
    joined.add_signature(sign_entry(KestEntry("join", parent_ids=joined.tips, taints=["t"]), ALICE))
    for _ in range(2):
        got = known.unpack("kest.passport", joined.serialize(), *CAPS)
        assert got.tips == joined.tips
        assert got.entries == joined.entries
        known.verify(got)
    assert known.missing(left) == known.missing(right) == 0
    # The other order of the branches is another text of the same passport.
    swapped = [*joined.entries[:2], joined.entries[3], joined.entries[2], joined.entries[4]]
    again = known.unpack("kest.passport", text(swapped), *CAPS)
    assert (again.entries, again.tips, known.missing(again)) == (swapped, joined.tips, 0)


def test_what_came_apart_from_its_ancestors_is_refused() -> None:
    passport = grown(4)
    known = KnownEntries(ring())
    known.verify(passport)
    got = known.unpack("kest.passport", text(passport.entries[2:]), *CAPS)
    with pytest.raises(VerificationError):
        known.verify(got)
    with pytest.raises(VerificationError):
        _ = got.tips


def test_it_stays_small() -> None:
    known = KnownEntries(ring(), 10)
    for _ in range(50):
        known.verify(grown(3))
        assert len(known) <= 10
    by_bytes = KnownEntries(ring(), 1000, 20_000)
    for _ in range(50):
        passport = grown(3)
        by_bytes.verify(passport)
        assert len(by_bytes) * min(map(len, passport.entries)) <= 20_000
    assert len(by_bytes)
    nothing = KnownEntries(ring(), 1000, 0)
    nothing.verify(grown(3))
    assert len(nothing) == 0


def test_what_is_used_is_kept() -> None:
    base = grown(4)
    known = KnownEntries(ring(), 64)
    known.verify(base)
    for _ in range(100):
        known.verify(grown(3))
        assert known.missing(known.unpack("kest.passport", base.serialize(), *CAPS)) == 0


def test_dense_prefixes_in_use_are_kept() -> None:
    base = grown(8)
    known = KnownEntries(ring())
    known.verify(known.unpack(*forms(base)[2], *CAPS))
    for _ in range(600):
        long = grown(1, base)
        got = known.unpack(*forms(long)[2], *CAPS)
        assert known.missing(got) == 1
        assert got.entries == long.entries
        known.verify(got)


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="capacity"):
        KnownEntries(ring(), 1)
    known = KnownEntries(ring())
    with pytest.raises(ValueError, match=r"kest\.other"):
        known.unpack("kest.other", "[]", *CAPS)
    with pytest.raises(BaggageError, match="more than 2 entries"):
        known.unpack("kest.passport", grown(3).serialize(), 100_000, 2)
    with pytest.raises(BaggageError, match="bytes"):
        known.unpack("kest.passport", grown(3).serialize(), 1000, 100)
    with pytest.raises(TypeError):
        known.missing("x")  # type: ignore[arg-type]


def test_a_passport_that_was_added_to_after_it_came_is_read_as_it_is() -> None:
    base = grown(3)
    known = KnownEntries(ring())
    got = known.unpack(*forms(base)[2], *CAPS)
    long = grown(1, base)
    got.add_signature(long.entries[3])
    known.verify(got)
    assert known.missing(long) == 0
    assert known.unpack(*forms(base)[2], *CAPS).entries == base.entries


# --- the same answer as without it, whatever comes ---

BASE = grown(5)
LONG = grown(3, BASE)
OTHER = grown(4, identity=BOB)
PIECES = [*LONG.entries, *OTHER.entries, "", "a.b.c", "\u00e9", 'quote"', LONG.entries[6][:-1]]
WARM = KnownEntries(ring())
for _value in (BASE, grown(1, BASE), OTHER):
    for _form in forms(_value):
        WARM.verify(WARM.unpack(*_form, *CAPS))


def outcome(passport: Any) -> Any:
    """What a passport is, or the error that reading it gives."""
    try:
        read = passport()
        state = [read.entries]
    except KestError as error:
        return type(error)
    try:
        KnownEntries(ring()).verify(read)
    except VerificationError as error:
        return [*state, error.index, error.reason]
    return [*state, read.tips, read.trust_score, read.taints]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=9),
    st.sampled_from(['["', ' ["', '["', "[", '[["']),
    st.sampled_from(['","', '", "', '"\n,"', '"",']),
    st.sampled_from(['"]', '"] ', '",]', '"', '"]]', '","']),
)
def test_hostile_texts(entries: list[str], start: str, between: str, end: str) -> None:
    value = start + between.join(entries) + end
    expected = outcome(lambda: BaggageManager.unpack({"kest.passport": value}))
    assert outcome(lambda: BaggageManager.unpack({"kest.passport": value}, known=WARM)) == expected


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(0, 10_000), st.sampled_from('AB-_z9=. "'))
def test_flipped_characters(form: int, at: int, char: str) -> None:
    key, value = forms(LONG)[form]
    at %= len(value)
    value = value[:at] + char + value[at + 1 :]
    expected = outcome(lambda: BaggageManager.unpack({key: value}))
    assert outcome(lambda: BaggageManager.unpack({key: value}, known=WARM)) == expected


def test_a_key_of_another_ring_is_no_longer_believed() -> None:
    strangers = KnownEntries(
        KeyRing([("spiffe://kest.test/alice", PublicKey.from_raw(BOB.signer.public_key), 100, True, 0, 2**62)])
    )
    with pytest.raises(VerificationError):
        strangers.verify(BASE)


def test_nothing_is_known_of_a_new_process(run_python: Any) -> None:
    """Not under the first ring of keys that a process makes, either."""
    run_python(
        """
from kest._kestcore import KeyRing, KnownEntries, Passport, PublicKey, Signer
from kest.core import KestEntry, LocalEd25519Provider, sign_entry
from kest.errors import VerificationError
alice, mallory = LocalEd25519Provider("a"), LocalEd25519Provider("a")
forged = Passport([sign_entry(KestEntry("x"), mallory)])
ring = KeyRing([("a", PublicKey.from_raw(alice.signer.public_key), 100, True, 0, 2**60)])
known = KnownEntries(ring)
assert known.missing(forged) == 1
try: known.verify(forged)
except VerificationError: pass
else: raise SystemExit("it verified")
"""
    )


def test_what_was_forgotten_leaves_room() -> None:
    """By their bytes, too: however many came before, the latest are known."""
    one = len(grown(1).entries[0])
    for limits in ((8, 1 << 20), (1000, 8 * (one + 20))):
        known = KnownEntries(ring(), *limits)
        for _ in range(20):
            passport = grown(3)
            known.verify(passport)
            assert known.missing(passport) == 0
            assert 3 <= len(known) <= 8


def test_a_join_needs_all_its_parents_also_where_it_is_known() -> None:
    root = grown(1)
    left, right = grown(1, root), grown(1, root, BOB)
    join = sign_entry(
        KestEntry("join", parent_ids=sorted([*left.tips, *right.tips]), taints=["t"]),
        ALICE,
    )
    entries = [root.entries[0], left.entries[1], right.entries[1], join]
    known = KnownEntries(ring())
    known.verify(Passport(entries))
    for order in itertools.permutations(range(4)):
        for count in (2, 3, 4):
            some = [entries[n] for n in order[:count]]
            expected = tip_or_error(lambda some=some: Passport(some).chain_tip)  # type: ignore[misc]
            shared = tip_or_error(lambda some=some: known.unpack("kest.passport", text(some), *CAPS).chain_tip)  # type: ignore[misc]
            assert shared == expected, order


def tip_or_error(work: Any) -> Any:
    try:
        return work()
    except KestError as error:
        return type(error), str(error)
