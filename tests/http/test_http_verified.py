"""The memory of verified passports: shares what is known, believes nothing else, stays small."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from wire import BOB, grown, header_of, inline, keys

from kest._kestcore import KeyRing, KnownEntries
from kest.core import BaggageManager, Passport, TrustStore
from kest.errors import VerificationError
from kest.http import verified
from kest.http.edge import Edge


class Counting:
    """Stands before what is known and counts the entries that have to be verified."""

    def __init__(self, monkeypatch: Any) -> None:
        self.entries: list[int] = []
        counting = self

        class Known:
            def __init__(self, ring: KeyRing) -> None:
                self._known = KnownEntries(ring)
                self.unpack, self.arrive = self._known.unpack, self._known.arrive
                self.missing = self._known.missing

            def verify(self, passport: Passport) -> None:
                counting.entries.append(self.missing(passport))
                self._known.verify(passport)

        monkeypatch.setattr(verified, "KnownEntries", Known)


def z(passport: Passport) -> bytes:
    return header_of(BaggageManager.pack(passport, limit=4096)).encode()


def test_growth_costs_the_new_entry(monkeypatch: Any) -> None:
    """In every form that a header takes: inline, compressed, dense."""
    counting = Counting(monkeypatch)
    edge, passport = Edge(keys()), Passport()
    for _ in range(20):
        passport = grown(1, passport=passport)
        header = header_of(BaggageManager.pack(passport, limit=4096, dense=True)).encode()
        assert edge.read([header]).passport.entries == passport.entries
    assert counting.entries == [1] * 20


@pytest.mark.parametrize("n", [1, 3, 6])
def test_the_same_again_costs_nothing(monkeypatch: Any, n: int) -> None:
    counting = Counting(monkeypatch)
    edge, passport = Edge(keys()), grown(n)
    for header in (z(passport), z(passport), inline(passport.entries).encode()):
        assert edge.read([header]).passport.entries == passport.entries
    assert counting.entries == [n, 0, 0]


def test_another_ring_forgets(monkeypatch: Any) -> None:
    counting = Counting(monkeypatch)
    store = TrustStore(keys())
    edge, passport = Edge(store), grown(2, identity=BOB)
    for _ in range(2):
        edge.read([z(passport)])
    store.remove(BOB.get_identity())
    for _ in range(2):
        with pytest.raises(VerificationError):
            edge.read([z(passport)])
    store.add(BOB.get_identity(), BOB)
    edge.read([z(passport)])
    assert counting.entries == [2, 0, 2, 2, 2]


def test_a_passport_that_grew_shares_the_entries_it_had() -> None:
    edge = Edge(keys())
    short = grown(2)
    first = edge.read([z(short)]).passport
    long = grown(3, passport=short)
    grew = edge.read([z(long)]).passport
    assert grew.entries == long.entries
    assert first.entries == short.entries
    assert grew.trust_score == long.trust_score


def test_changed_growth_is_refused() -> None:
    edge = Edge(keys())
    short = grown(2)
    edge.read([z(short)])
    long = grown(2, passport=short).entries
    for bad in ([*long[:2], long[3]], [*long, "x"], [*long, long[0]], [*long[:3], long[3][:-1]]):
        with pytest.raises(ValueError):
            edge.read([inline(bad).encode()])


def test_branches_from_a_known_passport() -> None:
    edge = Edge(keys())
    root = grown(1)
    edge.read([z(root)])
    left, right = grown(1, passport=root), grown(1, identity=BOB, passport=root)
    both = Passport.merge(left, right)
    header = inline(both.entries, both.chain_tip).encode()
    for _ in range(2):
        assert sorted(edge.read([header]).passport.entries) == sorted(both.entries)


def test_what_a_request_gets_cannot_be_added_to_for_others() -> None:
    edge = Edge(keys())
    passport = grown(1)
    for _ in range(3):
        got = edge.read([z(passport)]).passport
        extra = grown(1, passport=passport).entries[-1]
        with contextlib.suppress(ValueError):
            got.add_signature(extra)
        assert edge.read([z(passport)]).passport.entries == passport.entries


def test_many_threads() -> None:
    store = TrustStore(keys())
    edge = Edge(store)
    headers = [(z(p), p.entries) for p in (grown(n % 5 + 1) for n in range(20))]
    failures: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            for n in range(200):
                header, entries = headers[(n * 7 + offset) % 20]
                assert edge.read([header]).passport.entries == entries
                if n % 50 == 0:
                    store.add("spiffe://kest.test/other", BOB)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
