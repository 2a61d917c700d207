"""What the C core reads of a header in one go is what the readable functions read of it, and nothing that they refuse."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from wire import ALICE, BOB, grown, header_of, keys

from kest._kestcore import KeyRing, KnownEntries
from kest.core import BaggageManager, SimpleCache, configure
from kest.errors import KestError
from kest.http.edge import Edge

CACHE = SimpleCache()


class Readable(Edge):
    """Without the way through C."""

    def _usual(self, lines: Any) -> None:
        return None


def outcome(edge: Edge, header: bytes) -> Any:
    try:
        arrival = edge.read([header])
    except KestError as error:
        return type(error), str(error)
    passport = arrival.passport
    return passport.entries, passport.chain_tip, arrival.caller, arrival.foreign, arrival.verified


def same(header: bytes, *edges: Edge) -> Any:
    """What both ways make of it, the first time and when its entries are known."""
    fast, readable = edges or (Edge(keys(), cache=CACHE), Readable(keys(), cache=CACHE))
    first = outcome(fast, header)
    assert first == outcome(readable, header)
    assert first == outcome(fast, header) == outcome(readable, header)
    return first


def members(count: int, dense: bool, limit: int, **more: str) -> list[bytes]:
    packed = BaggageManager.pack(grown(count, user="alice", agent="a", task="t"), CACHE, limit=limit, dense=dense)
    return header_of({**packed, **more}).encode().split(b",")


def taken(header: bytes) -> bool:
    store = Edge(keys())
    return store._usual((header,)) is not None


@pytest.fixture(autouse=True)
def _configured(allowed: Any) -> None:
    configure(engine=allowed, identity=ALICE, cache=CACHE)


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "more", [{}, {"kest.user": "alice", "kest.agent": "a", "kest.task": "t"}, {"kest.user": "mallory"}]
)
def test_usual_headers_are_read_in_one_go(count: int, dense: bool, more: dict[str, str]) -> None:
    header = b", ".join([b"theirs=1;p=2", *members(count, dense, 4096, **more), b" x = y "])
    assert taken(header)
    entries, _, caller, foreign, verified = same(header)
    assert len(entries) == count
    assert foreign == (b"theirs=1;p=2", b"x = y")
    assert caller.user == ("alice" if more.get("kest.user") == "alice" else None)
    assert verified


def test_unusual_headers_are_left_to_others() -> None:
    one = members(1, False, 4096)
    passport, tip = one
    key, _, value = passport.partition(b"=")
    other = header_of(BaggageManager.pack(grown(2, identity=BOB), limit=4096)).encode().split(b",")
    cases = [
        b"",
        b",",
        b"x=y",
        b"kest.passport=",
        b"kest.passport",
        b"kest.passport=[]",
        b"kest.passport_z=",
        tip,
        passport,  # without a tip it may come, too
        *(
            b",".join(parts)
            for parts in ([passport, passport], [tip, tip, passport], [*one, other[0]], [passport, other[1]])
        ),
        b",".join(members(40, True, 300)),  # a claim check
        b",".join([*one, b"kest.claim_check=x"]),
        b",".join([*one, b"kest.unknown=1"]),
        b",".join([*one, b"%6best.user=mallory"]),
        b",".join([*one, b"kest%2euser=mallory"]),
        b",".join([*one, b"kest.user=%FF"]),
        b",".join([*one, b"kest.user=a b"]),
        b",".join([*one, b"kest.user=alice;p=1"]),
        b",".join([*one, b"kest.user = alice"]),
        b",".join([*one, b"kest.user=alice", b"kest.user=alice"]),
        b",".join([*one, b"kest.user=alice", b"kest.user=bob"]),
        b",".join([*one, b"kest.user"]),
        b",".join([*one, b"kest.user="]),
        b",".join([passport, b"kest.chain_tip="]),
        b",".join([passport, tip[:-1]]),
        b",".join([passport, tip.upper()]),
        b",".join([passport, tip[:-1] + (b"0" if tip[-1:] != b"0" else b"1")]),
        b",".join([key + b"=" + value[:-1], tip]),
        b",".join([key + b"=" + value + b"%", tip]),
        b",".join([*one, b"x=" + b"y" * 70_000]),
        b",".join([*one, b"x=\xff\x00"]),
        b",".join([header_of({"kest.passport": '["a.b.c"]'}).encode()]),
        b",".join([b"kest.passport=" + quote('["' + "A" * 5000 + '"]').encode()]),
    ]
    outcomes = [same(header) for header in cases]
    assert sum(1 for one in outcomes if not isinstance(one[0], type)) >= 5


def test_a_forged_entry_is_refused_with_the_same_words() -> None:
    entries = grown(3).entries
    entries[1] = entries[1][:-8] + "AAAAAAAA"
    text = header_of({"kest.passport": str(entries).replace("'", '"').replace(" ", "")}).encode()
    kind, said = same(text)
    assert kind.__name__ == "VerificationError"
    assert "entry 1" in said


def test_what_is_not_bytes_is_left_to_others() -> None:
    known = KnownEntries(KeyRing([]))
    header = b",".join(members(1, False, 4096))
    assert known.arrive(header, 1 << 20, 10) is not None
    assert known.arrive(header, 10, 10) is None
    assert known.arrive(header, 1 << 20, 0) is None
    for wrong in (bytearray(header), header.decode(), None, 5):
        assert known.arrive(wrong, 1 << 20, 10) is None  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        known.arrive(header)  # type: ignore[call-arg]


def claimed(record: Any, claim: str = "3c6a7a50-62b8-4d1a-9d0e-6a1f7c1d2e3f", tip: str | None = None) -> Any:
    """What both ways make of a claim check for this record."""
    cache: dict[str, Any] = {claim: record}
    values = {"kest.claim_check": claim, **({} if tip is None else {"kest.chain_tip": tip})}
    edges = Edge(keys(), cache=cache), Readable(keys(), cache=cache)
    return same(header_of(values).encode(), *edges)


def test_claim_checks_of_a_cache_in_memory() -> None:
    passport, other = grown(5), grown(2)
    tip, text = passport.chain_tip, passport.serialize()
    record = f"{tip}\n{text}"
    for cache in (SimpleCache(), {}):
        values = BaggageManager.pack(passport, cache, limit=0)
        assert Edge(keys(), cache=cache)._usual((header_of(values).encode(),)) is not None
    assert claimed(record, tip=tip)[0] == passport.entries
    assert claimed(record.encode(), tip=tip)[0] == passport.entries
    refused = [
        claimed(record),
        claimed(record, tip=other.chain_tip),
        claimed(record, "3C6A7A50-62b8-4d1a-9d0e-6a1f7c1d2e3f", tip),
        claimed(record, "3c6a7a50-62b8-4d1a-9d0e-6a1f7c1d2e3", tip),
        claimed(record, "3c6a7a50062b8-4d1a-9d0e-6a1f7c1d2e3f", tip),
        claimed(record, tip=tip + "\n"),
        *(
            claimed(bad, tip=tip)
            for bad in (None, 5, "", tip, text, f"{tip}\n", f"{tip} {text}", f"{tip}\n{other.serialize()}")
        ),
        claimed(f"{tip}\n{text[:-9]}", tip=tip),
        claimed(f"{tip}\n{text}\xe9", tip=tip),
        claimed(f"{tip}\n{text[:-1]}{' ' * 5_000_000}]", tip=tip),
    ]
    assert all(isinstance(one[0], type) for one in refused)


def test_an_interruption_while_a_claim_is_redeemed_is_not_swallowed() -> None:
    def get(claim: str) -> str:
        raise KeyboardInterrupt

    header = header_of(BaggageManager.pack(grown(2), {}, limit=0)).encode()
    known = KnownEntries(KeyRing([]))
    with pytest.raises(KeyboardInterrupt):
        known.arrive(header, 1 << 20, 10, get, 1 << 20)
    assert known.arrive(header, 1 << 20, 10, lambda claim: 1 / 0, 1 << 20) is None
    assert known.arrive(header, 1 << 20, 10, lambda claim: None, -1) is None


def test_flows_that_part_and_meet_again() -> None:
    """Which entry follows which is guessed from the last time; here the guess is wrong again and again."""
    stem = grown(3)
    branches = [stem, *(grown(count, passport=stem) for count in (1, 2, 4)), grown(2)]
    branches += [grown(2, passport=branch) for branch in branches]
    texts = [branch.serialize() for branch in branches]
    ring = Edge(keys())._trusted
    assert ring is not None
    for capacity in (2, 6, 16, 1000):
        known = KnownEntries(ring.ring(), capacity)
        rng = random.Random(capacity)
        for _ in range(300):
            at = rng.randrange(len(texts))
            passport = known.unpack("kest.passport", texts[at], 1 << 20, 100)
            assert passport.entries == branches[at].entries
            assert passport.chain_tip == branches[at].chain_tip
            known.verify(passport)


HONEST: list[list[bytes]] = []


def honest() -> list[list[bytes]]:
    if not HONEST:
        for count in (1, 4):
            for dense, limit in ((False, 4096), (True, 4096), (False, 1500 * count)):
                HONEST.append(members(count, dense, limit, **{"kest.user": "alice"}))
        HONEST.append(members(30, False, 300))
    return HONEST


PIECES = st.sampled_from(
    [
        *(bytes([octet]) for octet in b" \t,=;%\x00\xff"),
        b"",
        b"%2",
        b"%20",
        b"%2C",
        b"kest.",
        b"kest.user=",
        b"kest.chain_tip=",
    ]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@example(None)
def test_whatever_bytes_come_both_ways_agree(data: Any) -> None:
    edges = Edge(keys(), cache=CACHE), Readable(keys(), cache=CACHE)
    if data is None:
        for parts in honest():
            assert not isinstance(same(b",".join(parts), *edges)[0], type)
        return
    parts = list(data.draw(st.sampled_from(honest())))
    for _ in range(data.draw(st.integers(0, 3))):
        how = data.draw(st.sampled_from(["drop", "repeat", "swap", "foreign", "other"]))
        at = data.draw(st.integers(0, max(0, len(parts) - 1)))
        if how == "drop" and parts:
            del parts[at]
        elif how == "repeat" and parts:
            parts.append(parts[at])
        elif how == "swap":
            parts.reverse()
        elif how == "foreign":
            parts.insert(at, data.draw(st.binary(max_size=12)))
        else:
            parts.append(data.draw(st.sampled_from(data.draw(st.sampled_from(honest())))))
    header = bytearray(b",".join(parts))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(header)))
        header[at : at + data.draw(st.integers(0, 2))] = data.draw(st.one_of(PIECES, st.binary(max_size=3)))
    same(bytes(header), *edges)
