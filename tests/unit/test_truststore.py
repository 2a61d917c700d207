"""TrustStore: every form of key, rights, validity times, rotation, JWK sets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from kest.core import (
    KestEntry,
    LocalEd25519Provider,
    Passport,
    PassportVerifier,
    TrustStore,
    VerificationError,
    sign_entry,
)
from kest.core.grants import FOREVER, make_grant
from kest.core.trust_sources import KeySnapshot
from kest.core.truststore import public_key_of
from kest.errors import ConfigurationError, JSONSyntaxError, KestError, KeyFormatError

NAME = "spiffe://kest.test/unit"


def passport(identity: Any, **kwargs: Any) -> Passport:
    return Passport([sign_entry(KestEntry("op", **kwargs), identity)])


def pem(identity: Any) -> str:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = ed25519.Ed25519PublicKey.from_public_bytes(identity.signer.public_key)
    text: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def test_every_form_of_key(identity: Any) -> None:
    raw = identity.signer.public_key
    forms = [
        identity,
        raw,
        bytearray(raw),
        identity.public_jwk(),
        public_key_of(raw),
        pem(identity),
        pem(identity).encode(),
    ]
    for form in forms:
        assert len(PassportVerifier.verify(passport(identity), TrustStore({NAME: form}))) == 1
        assert len(PassportVerifier.verify(passport(identity), {NAME: form})) == 1
        with pytest.raises(VerificationError):
            PassportVerifier.verify(passport(LocalEd25519Provider(NAME)), {NAME: form})


def test_a_key_that_is_one_already_is_not_made_anew(identity: Any) -> None:
    key = public_key_of(identity)
    assert public_key_of(key) is key


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33, "", "text", 5, None, {}, {"kty": "oct", "k": "AAAA"}, [1]])
def test_what_is_no_key(key: Any) -> None:
    with pytest.raises(KeyFormatError):
        TrustStore().add(NAME, key)


def test_secret_keys_are_refused_without_being_quoted(identity: Any) -> None:
    secret = identity.signer.export_seed().hex()
    jwk = {**identity.public_jwk(), "d": secret}
    with pytest.raises(KeyFormatError) as caught:
        TrustStore({NAME: jwk})
    assert secret not in str(caught.value)


def test_small_order_and_zero_keys_are_refused() -> None:
    for raw in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        with pytest.raises(KeyFormatError):
            TrustStore({NAME: raw})


@pytest.mark.parametrize("principal", ["", None, 5, b"x"])
def test_principals(principal: Any, identity: Any) -> None:
    with pytest.raises(KeyFormatError):
        TrustStore().add(principal, identity)


@pytest.mark.parametrize(
    "rights", [{"max_trust": 101}, {"max_trust": -1}, {"max_trust": True}, {"max_trust": 50.0}, {"may_sanitise": 1},
               {"may_sanitise": "no"}, {"not_before": 2, "not_after": 1}]
)  # fmt: skip
def test_malformed_rights(rights: dict[str, Any], identity: Any) -> None:
    with pytest.raises((TypeError, ValueError, ConfigurationError)):
        TrustStore().add(NAME, identity, **rights)


def test_collection_behaviour(identity: Any) -> None:
    store = TrustStore({"a": identity, "b": [identity, LocalEd25519Provider("x")]})
    assert len(store) == 3
    assert list(store) == ["a", "b"]
    assert "b" in store
    assert "c" not in store
    assert store.remove("b") is True
    assert store.remove("b") is False
    assert list(store) == ["a"]
    assert "keys" in repr(store)


def test_changes_take_effect_at_once(identity: Any) -> None:
    store = TrustStore()
    one = passport(identity)
    with pytest.raises(VerificationError, match="principal"):
        PassportVerifier.verify(one, store)
    store.add(NAME, identity)
    PassportVerifier.verify(one, store)
    store.remove(NAME)
    with pytest.raises(VerificationError):
        PassportVerifier.verify(one, store)


def test_rotation_by_validity_times() -> None:
    old, new = LocalEd25519Provider(NAME), LocalEd25519Provider(NAME)
    store = TrustStore()
    store.add(NAME, old, not_after=1000)
    store.add(NAME, new, not_before=1001)
    for identity, at, good in ((old, 1000, True), (old, 1001, False), (new, 1000, False), (new, 1001, True)):
        one = passport(identity, timestamp_ms=at)
        if good:
            PassportVerifier.verify(one, store)
        else:
            with pytest.raises(VerificationError):
                PassportVerifier.verify(one, store)


def test_two_keys_at_the_same_time() -> None:
    keys = [LocalEd25519Provider(NAME), LocalEd25519Provider(NAME)]
    store = TrustStore({NAME: keys})
    for key in keys:
        PassportVerifier.verify(passport(key), store)
    with pytest.raises(VerificationError):
        PassportVerifier.verify(passport(LocalEd25519Provider(NAME)), store)


def test_default_validity_is_unlimited(identity: Any) -> None:
    for at in (0, int(time.time() * 1000), 2**52):
        PassportVerifier.verify(passport(identity, timestamp_ms=at), {NAME: identity})


def test_max_trust_bounds_roots(identity: Any) -> None:
    store = TrustStore()
    store.add(NAME, identity, max_trust=60)
    PassportVerifier.verify(passport(identity, trust_score=60), store)
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(passport(identity, trust_score=61), store)
    assert caught.value.index == 0


def test_jwk_set(identity: Any, tmp_path: Path) -> None:
    other = LocalEd25519Provider("spiffe://kest.test/other")
    keys = [
        {**identity.public_jwk(), "kest_max_trust": 40},
        {**other.public_jwk(), "use": "enc"},
        {**other.public_jwk(), "kest_may_sanitise": False, "kest_not_before": 0, "kest_not_after": 2**50},
    ]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    for source in (path, str(path), {"keys": keys}):
        store = TrustStore.from_jwks(source)  # type: ignore[arg-type]
        assert len(store) == 2
        PassportVerifier.verify(passport(identity, trust_score=40), store)
        with pytest.raises(VerificationError):
            PassportVerifier.verify(passport(identity, trust_score=41), store)


@pytest.mark.parametrize(
    "document",
    [{}, {"keys": {}}, {"keys": [5]}, {"keys": [{}]}, {"keys": [{"kid": "a"}]}, {"keys": [{"kid": 5, "kty": "OKP"}]},
     {"keys": [{"kid": "", "kty": "OKP", "crv": "Ed25519", "x": "A" * 43}]}],
)  # fmt: skip
def test_malformed_jwk_sets(document: Any) -> None:
    with pytest.raises(KestError):
        TrustStore.from_jwks(document)


@pytest.mark.parametrize("field", [{"kest_max_trust": 500}, {"kest_max_trust": "40"}, {"kest_may_sanitise": "false"},
                                   {"kest_not_before": "soon"}, {"kest_not_after": 1.5}, {"kest_not_before": True},
                                   {"kest_max_trust": None}])  # fmt: skip
def test_malformed_rights_in_a_jwk_set_are_errors(field: dict[str, Any], identity: Any) -> None:
    with pytest.raises(KestError, match=r"keys\[0\]"):
        TrustStore.from_jwks({"keys": [{**identity.public_jwk(), **field}]})


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"{", JSONSyntaxError), (b"[]", KestError), (b"\xff\xfe", KestError), (b"[" * 100_000, KestError)],
)
def test_malformed_key_files(content: bytes, error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(error):
        TrustStore.from_jwks(path)
    with pytest.raises(ConfigurationError):
        TrustStore.from_jwks(tmp_path / "nowhere.json")


def test_a_key_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b" " * (5 * 1024 * 1024))
    with pytest.raises(KeyFormatError):
        TrustStore.from_jwks(path)


def test_grants_lists_the_keys_and_what_each_may_do(identity: Any) -> None:
    store = TrustStore()
    assert store.grants() == ()
    assert not store
    store.add("a", identity, max_trust=40, may_sanitise=False, not_before=5, not_after=9)
    store.add("b", identity)
    first, second = store.grants()
    assert (first[0], *first[2:]) == ("a", 40, False, 5, 9)
    assert (second[0], *second[2:]) == ("b", 100, True, 0, 2**62)
    assert first[1].raw == identity.signer.public_key
    store.remove("a")
    assert store.grants() == (second,)
    assert store


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_raw_keys_of_another_size_are_named(size: int) -> None:
    with pytest.raises(KeyFormatError, match=f"32 bytes, not {size}"):
        public_key_of(bytes(size))


def test_a_key_that_is_removed_does_not_verify_any_more() -> None:
    alice, bob = LocalEd25519Provider("a"), LocalEd25519Provider("b")
    store = TrustStore({"a": alice, "b": bob})
    assert len(store.ring()) == 2
    PassportVerifier.verify(passport(alice), store)
    assert store.remove("a")
    assert len(store.ring()) == 1
    PassportVerifier.verify(passport(bob), store)
    with pytest.raises(VerificationError):
        PassportVerifier.verify(passport(alice), store)


def test_what_was_verified_cannot_be_given_other_attributes(identity: Any) -> None:
    verified = PassportVerifier.verify(passport(identity), {NAME: identity})
    for name in ("passport", "trust", "anything"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(verified, name, None)
    assert not hasattr(verified, "__dict__")


class Source:
    """Keys from somewhere else."""

    def __init__(self, snapshot: KeySnapshot) -> None:
        self.now, self.asked = snapshot, 0

    def snapshot(self) -> KeySnapshot:
        return self.now

    def refresh_soon(self) -> None:
        self.asked += 1

    def close(self) -> None:
        pass


def grant(identity: Any, **rights: Any) -> Any:
    return make_grant(identity.get_identity(), identity, **rights)


def test_sources_count_from_when_they_are_added() -> None:
    alice, bob, carol = (LocalEd25519Provider(name) for name in "abc")
    store = TrustStore({"a": alice})
    assert len(store.ring()) == 1
    source = Source(KeySnapshot((grant(bob),)))
    store.add_source(source)
    assert len(store.ring()) == 2
    store.add_source(Source(KeySnapshot((grant(carol),))))
    assert len(store.ring()) == 3
    for one in (alice, bob, carol):
        PassportVerifier.verify(passport(one), store)
    source.now = KeySnapshot()
    with pytest.raises(VerificationError):
        PassportVerifier.verify(passport(bob), store)
    assert source.asked == 1


def test_what_is_wrong_with_a_source_is_said_where_it_may_explain_a_refusal() -> None:
    alice, mallory = LocalEd25519Provider("a"), LocalEd25519Provider("m")
    ill, well = Source(KeySnapshot(problem="gone fishing")), Source(KeySnapshot())

    def refusal(source: Source, identity: Any) -> VerificationError:
        store = TrustStore({"a": alice})
        store.add_source(source)
        with pytest.raises(VerificationError) as caught:
            PassportVerifier.verify(passport(identity), store)
        return caught.value

    assert refusal(ill, mallory).reason.endswith("; gone fishing")
    assert "fishing" not in str(refusal(ill, LocalEd25519Provider("a")))  # its key is known, and another
    assert refusal(well, mallory).reason == refusal(well, LocalEd25519Provider("n")).reason
    assert not refusal(well, mallory).reason.endswith((";", "; "))
    store = TrustStore({"a": alice})
    store.add_source(ill)
    asked = ill.asked

    def fails(ring: Any) -> None:
        raise VerificationError("of no entry", index=None, reason="of no entry")

    with pytest.raises(VerificationError, match="of no entry") as caught:
        store.verify(passport(alice), fails)
    assert caught.value.reason == "of no entry"
    assert ill.asked == asked


def test_a_key_may_be_valid_for_one_instant() -> None:
    alice = LocalEd25519Provider("a")
    assert grant(alice)[2:] == (100, True, 0, FOREVER)
    assert grant(alice, not_before=5, not_after=5)[4:] == (5, 5)
    with pytest.raises(ConfigurationError):
        grant(alice, not_before=6, not_after=5)
    store = TrustStore()
    store.add("a", alice, not_before=5, not_after=5)
    PassportVerifier.verify(passport(alice, timestamp_ms=5), store)
    for moment in (4, 6):
        with pytest.raises(VerificationError):
            PassportVerifier.verify(passport(alice, timestamp_ms=moment), store)


def test_entries_are_signed_by_whatever_signs(identity: Any) -> None:
    """A provider that is no Signer of the core's goes the long way."""

    class Remote:
        def get_identity(self) -> str:
            return NAME

        def sign(self, payload: bytes) -> Any:
            return identity.sign(payload)

        public_jwk = identity.public_jwk

    PassportVerifier.verify(passport(Remote()), {NAME: Remote()})


def test_who_signed_is_a_claim_until_it_is_verified(identity: Any) -> None:
    entry = sign_entry(KestEntry("op"), identity)
    read = Passport([entry])
    assert read.tip_principals == (None,)
    PassportVerifier.verify(read, {NAME: identity})
    assert read.tip_principals == (identity.get_identity(),)
    assert Passport.deserialize(read.serialize()).tip_principals == (None,)
