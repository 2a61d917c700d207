"""BaggageManager: three tiers at their exact limits, claim checks, contradictions."""

from __future__ import annotations

import json
import uuid
import zlib
from typing import Any

import pytest

from kest._kestcore import b64url_decode, b64url_encode, sha256
from kest.core import BaggageManager, KestEntry, LocalEd25519Provider, Passport, SimpleCache, sign_entry
from kest.core.baggage import KEYS, MAX_PAIR, MAX_UNPACKED_ENTRIES, encoded_size
from kest.errors import BaggageError, ClaimCheckError, KestError, PassportTooLargeError

IDENTITY = LocalEd25519Provider("spiffe://kest.test/baggage")


def made(n: int, operation: str = "op", identity: Any = IDENTITY) -> Passport:
    passport, parents = Passport(), ("0",)
    for _ in range(n):
        jws = sign_entry(KestEntry(operation, parent_ids=parents), identity)
        parents = (sha256(jws.encode()).hex(),)
        passport.add_signature(jws)
    return passport


def test_an_empty_passport_needs_no_baggage() -> None:
    assert BaggageManager.pack(Passport()) == {}
    assert len(BaggageManager.unpack({})) == 0
    assert len(BaggageManager.unpack({"other": "x"})) == 0


def test_inline_form_is_the_json_array_itself() -> None:
    passport = made(1)
    packed = BaggageManager.pack(passport)
    assert set(packed) == {"kest.passport", "kest.chain_tip"}
    assert json.loads(packed["kest.passport"]) == passport.entries
    assert packed["kest.chain_tip"] == passport.chain_tip


def test_compressed_form_is_zlib_level_1_in_base64url() -> None:
    passport = made(6)
    packed = BaggageManager.pack(passport)
    assert set(packed) == {"kest.passport_z", "kest.chain_tip"}
    text = packed["kest.passport_z"]
    assert "=" not in text
    assert zlib.decompress(b64url_decode(text)) == passport.serialize().encode()
    assert b64url_decode(text) == zlib.compress(passport.serialize().encode(), 1)


@pytest.mark.parametrize("n", [1, 2, 4, 7, 16, 17, 50, 300, 1000])
def test_round_trip_of_every_length(n: int) -> None:
    passport, cache = made(n), SimpleCache()
    packed = BaggageManager.pack(passport, cache)
    assert len(packed) == 2
    assert all(encoded_size(key, value) <= MAX_PAIR for key, value in packed.items())
    for source in (packed, packed.get):
        again = BaggageManager.unpack(source, cache)
        assert again.entries == passport.entries
    if "kest.claim_check" in packed:
        with pytest.raises(PassportTooLargeError, match="cache"):
            BaggageManager.pack(passport)


def test_at_least_seven_realistic_hops_are_compressed_inline() -> None:
    assert "kest.passport_z" in BaggageManager.pack(made(7))


def sized(target: int) -> Passport:
    """A one-entry passport whose inline pair takes exactly ``target`` encoded bytes."""
    for width in range(8):
        identity = LocalEd25519Provider("spiffe://kest.test/" + "x" * (width + 1))
        low, high = 1, target
        while low < high:
            middle = (low + high) // 2
            size = encoded_size("kest.passport", made(1, "o" * middle, identity).serialize())
            low, high = (middle + 1, high) if size < target else (low, middle)
        passport = made(1, "o" * low, identity)
        if encoded_size("kest.passport", passport.serialize()) == target:
            return passport
    raise AssertionError(f"no passport of exactly {target} bytes was found")


def test_the_inline_limit_is_exact() -> None:
    assert set(BaggageManager.pack(sized(MAX_PAIR))) == {"kest.passport", "kest.chain_tip"}
    assert set(BaggageManager.pack(sized(MAX_PAIR + 1))) == {"kest.passport_z", "kest.chain_tip"}


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_every_limit_is_exact(n: int) -> None:
    passport, cache = made(n), SimpleCache()
    inline = encoded_size("kest.passport", passport.serialize())
    packed = BaggageManager.pack(passport, cache, limit=inline)
    assert "kest.passport" in packed
    packed = BaggageManager.pack(passport, cache, limit=inline - 1)
    assert "kest.passport_z" in packed
    compressed = encoded_size("kest.passport_z", packed["kest.passport_z"])
    assert "kest.passport_z" in BaggageManager.pack(passport, cache, limit=compressed)
    assert "kest.claim_check" in BaggageManager.pack(passport, cache, limit=compressed - 1)
    with pytest.raises(PassportTooLargeError):
        BaggageManager.pack(passport, limit=compressed - 1)


def test_dense_form_only_on_request_and_whole() -> None:
    for n in (1, 10, 28):
        passport, cache = made(n), SimpleCache()
        assert "kest.passport_d" not in BaggageManager.pack(passport, cache)
        packed = BaggageManager.pack(passport, cache, dense=True)
        assert BaggageManager.unpack(packed, cache).entries == passport.entries


def test_packing_is_not_stale_after_adding() -> None:
    passport = made(2)
    before = BaggageManager.pack(passport)
    other = sign_entry(KestEntry("other"), IDENTITY)
    passport.add_signature(other)
    after = BaggageManager.pack(passport)
    assert before["kest.chain_tip"] != after["kest.chain_tip"]
    assert BaggageManager.unpack(after).entries == passport.entries


def test_store_and_restore_are_the_same() -> None:
    passport, cache = made(60), SimpleCache()
    stored = BaggageManager.store(passport, cache)
    assert uuid.UUID(stored["kest.claim_check"]).version == 4
    assert BaggageManager.restore(stored, cache).entries == passport.entries
    assert BaggageManager.restore(stored, cache).entries == passport.entries  # a hop may be retried


def test_a_plain_mapping_is_a_cache() -> None:
    passport, cache = made(60), {}
    stored = BaggageManager.pack(passport, cache)
    assert BaggageManager.unpack(stored, cache).entries == passport.entries


def test_every_claim_check_is_new() -> None:
    passport, cache = made(60), SimpleCache()
    assert len({BaggageManager.pack(passport, cache)["kest.claim_check"] for _ in range(10)}) == 10


def test_claim_checks_live_300_seconds() -> None:
    class Remembering:
        def __init__(self) -> None:
            self.calls: list[tuple[str, str, float]] = []

        def get(self, key: str) -> str | None:
            return None

        def set(self, key: str, value: str, ttl: float) -> None:
            self.calls.append((key, value, ttl))

    cache = Remembering()
    packed = BaggageManager.pack(made(60), cache)
    ((key, _, ttl),) = cache.calls
    assert (key, ttl) == (packed["kest.claim_check"], 300.0)


def test_a_cache_that_fails_is_an_error_before_anything_is_sent() -> None:
    class Broken:
        def get(self, key: str) -> str | None:
            raise ConnectionError("secret-host")

        def set(self, key: str, value: str, ttl: float) -> None:
            raise ConnectionError("secret-host")

    with pytest.raises(ClaimCheckError) as caught:
        BaggageManager.pack(made(60), Broken())
    assert "secret-host" not in str(caught.value)
    with pytest.raises(ClaimCheckError) as caught:
        BaggageManager.unpack({"kest.claim_check": str(uuid.uuid4())}, Broken())
    assert "secret-host" not in str(caught.value)


@pytest.mark.parametrize("keys", [("kest.passport", "kest.passport_z"), ("kest.passport", "kest.claim_check"),
                                  ("kest.passport_z", "kest.claim_check"), ("kest.passport", "kest.passport_d")])  # fmt: skip
def test_two_generations_contradict(keys: tuple[str, ...]) -> None:
    passport, cache = made(1), SimpleCache()
    forms = {
        "kest.passport": BaggageManager.pack(passport)["kest.passport"],
        "kest.passport_z": BaggageManager.pack(passport, limit=MAX_PAIR // 4 + 200).get("kest.passport_z", "eJw"),
        "kest.claim_check": BaggageManager.pack(passport, cache, limit=100)["kest.claim_check"],
        "kest.passport_d": "AAAA",
    }
    with pytest.raises(BaggageError, match="generations"):
        BaggageManager.unpack({key: forms[key] for key in keys}, cache)


def test_tip_contradictions() -> None:
    passport, other = made(2), made(2)
    packed = BaggageManager.pack(passport)
    for tip in (other.chain_tip, sha256(passport.entries[0].encode()).hex(), f"{passport.chain_tip},{other.chain_tip}"):
        with pytest.raises(BaggageError, match="chain_tip"):
            BaggageManager.unpack({**packed, "kest.chain_tip": tip})
    with pytest.raises(BaggageError, match="without a passport"):
        BaggageManager.unpack({"kest.chain_tip": passport.chain_tip})


@pytest.mark.parametrize("value", ["", 5, b"bytes", ["x"], True])
@pytest.mark.parametrize("key", KEYS)
def test_wrong_types_are_errors(key: str, value: Any) -> None:
    with pytest.raises(BaggageError):
        BaggageManager.unpack({key: value}, SimpleCache())


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["\ud800", "\x00", "é", "💥", " ", "%5B%5D", "null", "{}", "=", "A", "AA=="])
def test_nonsense_is_a_baggage_error_never_an_empty_passport(key: str, value: str) -> None:
    with pytest.raises(BaggageError):
        BaggageManager.unpack({key: value}, SimpleCache())


def test_empty_arrays_are_not_lineage() -> None:
    """An empty passport is never sent, so one that arrives has lost its entries or its tip."""
    with pytest.raises(BaggageError):
        BaggageManager.unpack({"kest.passport": "[]", "kest.chain_tip": "0" * 64})
    for key, value in (("kest.passport", "[]"), ("kest.passport_z", b64url_encode(zlib.compress(b"[]")))):
        with pytest.raises(BaggageError):
            BaggageManager.unpack({key: value})


def test_caps() -> None:
    entries = json.dumps(["a.b.c"] * (MAX_UNPACKED_ENTRIES + 1))
    for key, value in (("kest.passport", entries), ("kest.passport_z", b64url_encode(zlib.compress(entries.encode())))):
        with pytest.raises(BaggageError):
            BaggageManager.unpack({key: value})
        with pytest.raises(BaggageError):
            BaggageManager.unpack({key: value}, max_entries=10_000, max_bytes=1000)
        assert len(BaggageManager.unpack({key: value}, max_entries=10_000)) == MAX_UNPACKED_ENTRIES + 1


def test_simple_cache_is_bounded_and_forgets() -> None:
    cache = SimpleCache(max_items=3, max_bytes=100)
    for i in range(10):
        cache.set(str(i), "x")
    assert len(cache) == 3
    assert cache.get("9") == "x"
    assert cache.get("0") is None
    cache.set("big", "y" * 99)
    assert 1 <= len(cache) <= 2
    assert cache.get("big") == "y" * 99
    with pytest.raises(KestError):
        cache.set("bigger", "z" * 101)
    cache.delete("big")
    assert cache.get("big") is None
    expired = SimpleCache(ttl=1e-9)
    expired.set("a", "b")
    assert expired.get("a") is None
    for wrong in ({"ttl": 0}, {"ttl": -1}, {"max_items": 0}, {"max_bytes": 0}):
        with pytest.raises(KestError):
            SimpleCache(**wrong)  # type: ignore[arg-type]
