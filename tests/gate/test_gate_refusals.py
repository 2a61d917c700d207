"""What the gate and its cryptography refuse: wrong arguments, malformed parts, and a few forms of what they accept."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kest._kestcore import b64url_encode, canonicalize, sha256
from kest.errors import KeyFormatError, MissingExtraError
from kest.gate import (
    ActionContext,
    AuditChainError,
    AuditEntry,
    ChannelError,
    DeviceFingerprint,
    DirectoryError,
    DirectoryTokenVerifier,
    FileReplayStore,
    Gate,
    GateInputError,
    GatePolicyError,
    GeoLocation,
    InMemoryInvalidationBroadcaster,
    InMemoryReplayStore,
    InvalidationScope,
    Invariant,
    KeyFileError,
    KeyPair,
    ManagedAuditChain,
    PermitClaims,
    PermitError,
    PermitToken,
    PqTokenSigner,
    PublicKeyBundle,
    PublicKeyDirectory,
    RedisRateLimitStore,
    ReplayStoreError,
    SecureChannel,
    SignedAuditChain,
    SigningError,
    spawn_invalidation_listener,
)
from kest.gate.crypto import cbor, channel_format, cose, keyfile, manifest, pq
from kest.gate.crypto.audit_format import CHECKPOINT
from kest.gate.crypto.batch import PROOF, _proven
from kest.gate.crypto.cose import HYBRID, CoseError
from kest.gate.invalidation import MAX_PENDING
from kest.gate.params import gate_params, gate_value
from kest.gate.policies import MAX_FILE, load_toml
from kest.gate.replay import read_records
from kest.gate.subscription import InvalidationSubscription

NUMBERS = {"ed25519": cose.ED25519, "ml_dsa_65": cose.ML_DSA_65}
IDENT = "123e4567-e89b-12d3-a456-426614174000"
ANY: Any = object()
"""An argument of a type that nothing here takes."""


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture(scope="module")
def other() -> KeyPair:
    return KeyPair.generate()


def signed(pair: KeyPair, kind: cose.Kind, payload: bytes, algorithm: cose.Algorithm = HYBRID) -> bytes:
    """An envelope around anything."""
    protected, signatures = cose.sign(pair.signing_keys(algorithm), kind, payload)
    return cose.build(protected, payload, signatures)


# --- arguments of the wrong type ---


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: GeoLocation(ANY), "country_code is a str, not object"),
        (lambda: GeoLocation("IN", latitude=ANY), "latitude is a number of degrees, not object"),
        (lambda: GeoLocation("IN", longitude=True), "longitude is a number of degrees, not bool"),
        (lambda: DeviceFingerprint(b"x"), "hash is a str, not bytes"),  # type: ignore[arg-type]
        (lambda: load_toml(b""), "TOML is a str, not bytes"),  # type: ignore[arg-type]
        (lambda: PermitToken(ANY, ANY, 0, 1, "pay"), "is a str, not object"),
        (lambda: PermitClaims.of_token(ANY), "a permit is a PermitToken, not object"),
        (lambda: PqTokenSigner.from_keypair_hybrid(ANY), "a KeyPair is expected, not object"),
        (lambda: SignedAuditChain(ANY), "a KeyPair is expected, not object"),
        (lambda: DirectoryTokenVerifier(ANY), "directory is a PublicKeyDirectory, not object"),
        (lambda: cose.parse(ANY, PROOF), "an envelope is bytes, not object"),
    ],
)
def test_arguments_of_the_wrong_type(work: Callable[[], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        work()


def test_an_audit_chain_refuses_other_types(pair: KeyPair) -> None:
    chain = SignedAuditChain(pair)
    with pytest.raises(TypeError, match="an index is an int, not bool"):
        chain.entries_since_jsonl(True)
    with pytest.raises(TypeError, match="a chain is bytes of JSON lines, not str"):
        SignedAuditChain.verify_jsonl("", pair.public_keys())  # type: ignore[arg-type]
    with pytest.raises(SigningError, match="an audit chain is not pickled"):
        pickle.dumps(chain)


def test_a_session_refuses_other_types(pair: KeyPair, other: KeyPair) -> None:
    here, there = SecureChannel(pair, other.public_keys()), SecureChannel(other, pair.public_keys())
    session = here.session("talk")
    answering = there.accept(session.opening, "talk")
    with pytest.raises(TypeError, match="data is bytes, not str"):
        session.send("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a frame is bytes, not str"):
        answering.receive("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(session)
    assert answering.receive(session.send(b"still works")) == b"still works"


# --- values beyond their bounds ---


def test_texts_and_bounds() -> None:
    with pytest.raises(GateInputError, match="city is longer than"):
        GeoLocation("IN", city="x" * 100_000)
    with pytest.raises(GateInputError, match="max_entries is an int of at least 1"):
        InMemoryReplayStore(True)
    with pytest.raises(GateInputError, match="an object is expected, not list"):
        list(read_records(["[]"]))
    assert {DeviceFingerprint("a"), DeviceFingerprint("a", "again"), DeviceFingerprint("b")} == {
        DeviceFingerprint("a"),
        DeviceFingerprint("b"),
    }


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ({"policies": {"a"}}, "a list is expected, not a set"),
        ({"policies": [{"name": "a", "effect": "permit", "conditions": {"a"}}]}, "a list is expected, not a set"),
        (
            {
                "policies": [
                    {
                        "name": "a",
                        "effect": "permit",
                        "conditions": [{"param_in": {"field": "to", "values": ["x"] * 100_000}}],
                    }
                ]
            },
            "more than ",
        ),
    ],
)
def test_policies_in_other_forms(policies: dict[str, Any], words: str) -> None:
    with pytest.raises(GatePolicyError, match=words):
        Gate.from_dict(policies)


def test_a_policy_file_that_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    with file.open("wb") as out:
        out.truncate(MAX_FILE + 1)
    with pytest.raises(GatePolicyError, match="is larger than"):
        Gate.from_file(file)


def test_parameters_that_are_no_parameters() -> None:
    class Index:
        def __index__(self) -> int:
            return 7

    assert gate_value(Index()) == 7
    assert gate_value(Decimal("1.5")) == 1.5
    assert gate_params({"é": 1}) == {"é": 1}
    assert gate_params({"x" * 40_000: 1}) == {}
    assert gate_params({"\ud800": 1}) == {}


def test_an_invariant_that_is_one_already() -> None:
    one = Invariant("cap", "amount", 5.0)
    gate = Gate.from_toml('[[policies]]\nname = "a"\neffect = "permit"\nconditions = []\n', invariants=[one])
    context = ActionContext(principal_id="alice", principal_kind="user", action_name="pay", params={"amount": 6})
    assert "invariant 'cap' violated: parameter 'amount' must be" in str(gate.evaluate(context).reason)


def test_permits_are_immutable_and_checked() -> None:
    token = PermitToken(IDENT, IDENT, 0, 1, "pay")
    with pytest.raises(AttributeError, match="'action_name' cannot be deleted"):
        del token.action_name
    with pytest.raises(TypeError, match="action_name is a str, not bytes"):
        PermitToken(IDENT, IDENT, 0, 1, b"pay")  # type: ignore[arg-type]
    with pytest.raises(GateInputError, match="UUID"):
        PermitToken(IDENT.replace("1", "g"), IDENT, 0, 1, "pay")


@pytest.mark.parametrize("spelled", ["-" * 4 + IDENT.replace("-", ""), IDENT.upper(), IDENT.replace("-", "")])
def test_one_uuid_has_one_spelling(spelled: str) -> None:
    assert PermitToken(spelled, IDENT, 0, 1, "pay").token_id == IDENT


@pytest.mark.parametrize("start", ["0x3e4567", "12_e4567", " 23e4567", "\u0661\u0662\u0663e4567"])
def test_what_only_looks_like_a_uuid(start: str) -> None:
    with pytest.raises(GateInputError, match="token_id not a UUID"):
        PermitToken(start + IDENT[8:], IDENT, 0, 1, "pay")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policy_digest": "ab"}, "a digest is 64 hexadecimal digits"),
        ({"policy_digest": "z" * 64}, "a digest is 64 hexadecimal digits"),
        ({"params_hash": "ab " * 21 + " "}, "a digest is 64 hexadecimal digits"),
        ({"passport_tip": "ab"}, "a digest is 64 hexadecimal digits"),
        ({"token_id": "no id"}, "is a UUID"),
        ({"evaluation_id": "abcd"}, "is a UUID"),
        ({"action_name": "\ud800"}, "a lone surrogate"),
        ({"principal_id": "x" * 1_000_000}, "a permit's texts have at most"),
    ],
)
def test_claims_that_cannot_be_written(changed: dict[str, Any], words: str) -> None:
    claims = dataclasses.replace(PermitClaims(IDENT, IDENT, "pay", 0, 1), **changed)
    with pytest.raises(GateInputError, match=words):
        claims.to_payload()
    signer = PqTokenSigner.generate_hybrid()
    with pytest.raises(SigningError, match=f"sign failed: .*{words}"):
        signer.sign_claims(claims)
    with pytest.raises((SigningError, GateInputError), match=words):
        signer.sign_batch([claims])


def test_a_verifier_describes_itself() -> None:
    verifier = DirectoryTokenVerifier(PublicKeyDirectory.in_memory())
    assert repr(verifier).startswith("DirectoryTokenVerifier(algorithm='ml-dsa-65+ed25519', directory=")


def test_a_permit_whose_action_is_no_text() -> None:
    with pytest.raises(TypeError, match="token_id is a str, not int"):
        PermitToken(7, IDENT, 0, 1, "pay")  # type: ignore[arg-type]


# --- keys ---


def test_keys_of_wrong_lengths() -> None:
    with pytest.raises(KeyFormatError, match="an ML-KEM-768 encapsulation key is 1184 bytes, not 3"):
        pq.ml_kem_public(b"abc")
    with pytest.raises(KeyFormatError, match="not an ML-KEM-768 encapsulation key"):
        pq.ml_kem_public(b"\xff" * 1184)  # coefficients beyond the modulus: FIPS 203, section 7.2
    with pytest.raises(KeyFormatError, match="an X25519 public key is 32 bytes, not 31"):
        pq.x25519_public(bytes(31))
    with pytest.raises(KeyFormatError, match="an Ed25519 verifying key is 32 bytes, not 31"):
        PqTokenSigner.ed25519_only(b"", bytes(31), "key")


def test_a_signature_of_another_length_is_none(pair: KeyPair) -> None:
    keys = pair.public_keys().verifying_keys()
    assert keys.ml_dsa is not None
    assert keys.ml_dsa.verify(b"message", b"short") is False


def test_a_raw_ed25519_key_signs(pair: KeyPair) -> None:
    public = pair.public_keys().ed25519_verifying_key
    signer = PqTokenSigner.ed25519_only(pair.secrets().ed25519, public, "key")
    token = PermitToken(IDENT, IDENT, 0, 4_000_000_000, "pay")
    assert signer.algorithm == "ed25519"
    assert PqTokenSigner.ed25519_only(b"", public, "key").verify(token, signer.sign(token)).token_id == IDENT


def test_a_bundle(pair: KeyPair) -> None:
    bundle = pair.public_keys()
    assert bundle.fingerprint == PublicKeyBundle.from_json(bundle.to_json()).fingerprint
    assert len(bytes.fromhex(bundle.fingerprint)) == 32
    jwk = bundle.public_jwk()
    assert (jwk["kty"], jwk["crv"], jwk["kid"], len(jwk["x"])) == ("OKP", "Ed25519", bundle.id, 43)
    with pytest.raises(KeyFormatError, match="public key bundle: "):
        PublicKeyBundle.from_json("{")
    members = {name: getattr(bundle, name) for name in PublicKeyBundle._KEYS}
    members["x25519_public_key"] = members["x25519_public_key"].hex()
    with pytest.raises(TypeError, match="x25519_public_key is bytes, not str"):
        PublicKeyBundle(bundle.id, **members, created_at=0)


def test_a_passphrase_is_text(pair: KeyPair, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a passphrase is str or bytes, not int"):
        pair.save(tmp_path / "key", 7)  # type: ignore[arg-type]
    assert not (tmp_path / "key").exists()


def test_a_key_file_of_another_format() -> None:
    with pytest.raises(KeyFileError, match="of a format that this version does not know"):
        keyfile.open_sealed(keyfile.MAGIC[:4] + b"\x63" + bytes(100), "a passphrase")
    header = {"id": "a", "created_at": 0, "expires_at": None, "public": b"", "kdf": ["scrypt", 1, 2, b""], "nonce": b""}
    encoded = cbor.encode(header)
    whole = keyfile.MAGIC + cbor.head(0x40, len(encoded)) + encoded + cbor.encode(b"sealed")
    with pytest.raises(KeyFileError, match="the key file is malformed"):
        keyfile.open_sealed(whole + sha256(whole), "a passphrase")


# --- CBOR and COSE ---


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1 << 64, "beyond 64 bits"),
        ("\ud800", "a lone surrogate"),
        ({1.5: 1}, "keys are int or str"),
        (1.5, "float has no form here"),
    ],
)
def test_what_has_no_cbor(value: object, words: str) -> None:
    with pytest.raises(cbor.CBORError, match=words):
        cbor.encode(value)


def test_bool_and_null() -> None:
    assert [cbor.encode(value) for value in (None, True, False)] == [b"\xf6", b"\xf5", b"\xf4"]


def test_a_key_that_is_neither_int_nor_text() -> None:
    with pytest.raises(cbor.CBORError, match="a key that is neither int nor text"):
        cbor.decode(b"\xa1\x41x\x01")


def test_malformed_envelopes(pair: KeyPair) -> None:
    def envelope(protected: bytes, rows: object = ()) -> bytes:
        return b"\xd8\x62" + cbor.encode([protected, {}, b"", rows])

    good = cose.protected_header("key", "ed25519", PROOF)
    bad_kid = {**dict(cbor.decode(good)), cose.KID: "key"}
    for data, words in (
        (b"\xd8\x62" + cbor.encode([1, 2]), "not a COSE_Sign object"),
        (envelope(cbor.encode([])), "no protected header"),
        (envelope(cbor.encode(bad_kid)), "envelope parse: "),
        (envelope(good, [[b"", {}]]), "a malformed signature"),
        (envelope(good, [[b"", {1: 1}, b""]]), "a malformed signature"),
    ):
        with pytest.raises(CoseError, match=words):
            cose.parse(data, PROOF)


def test_malformed_batch_proofs(pair: KeyPair, other: KeyPair) -> None:
    keys = pair.public_keys().verifying_keys()
    payload = cbor.encode({"n": 1, "root": bytes(32)})
    assert _proven(signed(pair, PROOF, payload), keys) == (pair.id, bytes(32), 1)
    for proof, words in (
        (signed(other, PROOF, payload), "the proof is of another key or algorithm"),
        (signed(pair, PROOF, payload, "ed25519"), "the proof is of another key or algorithm"),
        (signed(pair, PROOF, b"\xff"), "envelope parse: "),
        (signed(pair, PROOF, cbor.encode({"n": 1})), "a malformed batch proof"),
        (signed(pair, PROOF, cbor.encode({"n": 1, "root": "text"})), "a malformed batch proof"),
    ):
        with pytest.raises(CoseError, match=words):
            _proven(proof, keys)


def test_claims_that_are_no_cbor() -> None:
    with pytest.raises(PermitError, match="verify failed: claims parse: "):
        PermitClaims.from_payload(b"\xff", "key")


def test_checkpoints_that_are_none(pair: KeyPair) -> None:
    good = {"head": "x", "length": 0, "time_ms": 0}
    members: Any
    for members in ([], {"head": "x"}, {**good, "length": -1}, {**good, "head": b"x"}, {**good, "time_ms": True}):
        with pytest.raises(AuditChainError, match="checkpoint: not a checkpoint"):
            SignedAuditChain.verify_jsonl(
                b"", pair.public_keys(), checkpoint=signed(pair, CHECKPOINT, cbor.encode(members))
            )


def test_signed_directories_that_are_none(pair: KeyPair) -> None:
    """Right signatures by the right root, around something else."""
    public = pair.public_keys()
    root = manifest.Root(public.ml_dsa_verifying_key, public.ed25519_verifying_key)

    def directory(content: Any) -> bytes:
        _, signatures = cose.sign(pair.signing_keys(), manifest.MANIFEST, canonicalize(content))
        texts = {name: b64url_encode(signatures[number]) for name, number in NUMBERS.items()}
        return canonicalize({"manifest": content, **texts})

    good: dict[str, Any] = {"bundles": [], "expires_at": None, "issued_at": 0, "root": pair.id, "version": 1}
    assert manifest.read_signed(directory(good), root).version == 1
    for content, words in (
        ([], "corrupt: parse: not a signed directory"),
        ({**good, "root": 1}, "corrupt: parse: not a signed directory"),
        ({**good, "more": 1}, "corrupt: parse: not a signed directory"),
        ({**good, "version": 0}, "corrupt: version or expiry"),
        ({**good, "expires_at": "never"}, "corrupt: version or expiry"),
    ):
        with pytest.raises(DirectoryError, match=words):
            manifest.read_signed(directory(content), root)


# --- the secure channel ---


def test_malformed_messages(pair: KeyPair, other: KeyPair) -> None:
    channel = SecureChannel(pair, other.public_keys())
    for parts, words in (
        (["KSC9", 1, pair.id, b"", b"", b""], "not a sealed message of this version"),
        (["KSC1", 9, pair.id, b"", b"", b""], "not a sealed message of this version"),
        (["KSC1", 1, pair.id, b"", bytes(32), b""], "a key is of the wrong length"),
        (["KSC1", 1, pair.id, bytes(pq.ML_KEM_CT_LEN), b"", b""], "a key is of the wrong length"),
    ):
        with pytest.raises(ChannelError, match=words):
            channel.receive_signed(cbor.encode(parts), "talk")
    fields = {"bnd": b"", "cor": "", "ctx": "", "dig": b"", "rcp": "", "seq": 0, "snd": "", "str": bytes(16), "tms": 0}
    assert channel_format.Header.decode(cbor.encode(fields)).stream == bytes(16)
    for wrong in ({"seq": "0"}, {"str": bytes(15)}):
        with pytest.raises(ChannelError, match="a member is of the wrong type"):
            channel_format.Header.decode(cbor.encode({**fields, **wrong}))


def test_a_recipient_with_a_key_of_small_order(pair: KeyPair, other: KeyPair) -> None:
    bundle = other.public_keys()
    members = {name: getattr(bundle, name) for name in PublicKeyBundle._KEYS}
    members["x25519_public_key"] = bytes(32)
    weak = PublicKeyBundle(bundle.id, **members, created_at=0)
    with pytest.raises(ChannelError, match="the recipient's X25519 key is not one that can be used"):
        SecureChannel(pair, weak).send_data(b"data")


def sealed_with(header: bytes, data: bytes, kind: int, pair: KeyPair, other: KeyPair) -> bytes:
    return channel_format.seal_message(channel_format.start(kind, pair.id, other.public_keys()), header, data)


def test_a_header_that_another_signed(pair: KeyPair, other: KeyPair) -> None:
    receiving = SecureChannel(other, pair.public_keys())
    header = signed(other, channel_format.HEADER, b"header")
    with pytest.raises(ChannelError, match="not a hybrid signature of the other end"):
        receiving.receive_signed(sealed_with(header, b"", channel_format.SIGNED, pair, other), "talk")


def test_a_header_that_names_others(pair: KeyPair, other: KeyPair) -> None:
    receiving = SecureChannel(other, pair.public_keys())
    start = channel_format.start(channel_format.DATA, pair.id, other.public_keys())
    header = channel_format.Header("mallory", other.id, "", "", bytes(16), 0, 0, b"", start.secret.binding).encode()
    with pytest.raises(ChannelError, match="the header names other parties"):
        receiving.receive_data(channel_format.seal_message(start, header, b""))


# --- stores, audit chains, invalidations ---


def test_a_replay_store_whose_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "used.db"
    store = FileReplayStore(file)
    assert store.first_use(b"key", 4e9)
    store.close()
    store.close()
    file.write_bytes(b"not a database" * 100)
    file.chmod(0o600)
    with pytest.raises(ReplayStoreError, match="replay store"):
        store.first_use(b"other", 4e9)
    store.close()


def test_a_managed_chain_describes_itself(pair: KeyPair, tmp_path: Path) -> None:
    chain = ManagedAuditChain(pair, tmp_path / "audit.jsonl")
    anchor = chain.anchor_hash
    assert chain.head_hash == anchor
    chain.append(AuditEntry("alice", "pay", "refuse", "no policy"))
    assert (len(chain), chain.is_hybrid) == (1, True)
    assert chain.anchor_hash == anchor != chain.head_hash
    assert repr(chain) == f"ManagedAuditChain(sink={str(tmp_path / 'audit.jsonl')!r}, length=1, resident=1)"
    chain.close()
    chain.close()
    assert SignedAuditChain.verify_jsonl((tmp_path / "audit.jsonl").read_bytes(), pair.public_keys()) == 1


def test_a_context_of_an_entry_is_a_dict() -> None:
    with pytest.raises(TypeError, match="context is a dict, not list"):
        AuditEntry("alice", "pay", "refuse", "no policy", context=[])  # type: ignore[arg-type]


def test_a_managed_chain_without_a_folder(pair: KeyPair, tmp_path: Path) -> None:
    with pytest.raises(AuditChainError, match="cannot be opened: No such file or directory"):
        ManagedAuditChain(pair, tmp_path / "none" / "audit.jsonl")


def scope(number: int) -> InvalidationScope:
    seen: list[InvalidationScope] = []
    broadcaster = InMemoryInvalidationBroadcaster()
    broadcaster.attach(seen.append)
    broadcaster.publish("session", f"s{number}", "over")
    return seen[0]


def test_a_subscription_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        broadcaster = InMemoryInvalidationBroadcaster()
        idle = broadcaster.subscribe()
        assert isinstance(idle, InvalidationSubscription)
        idle.deliver(scope(0))  # not begun: nowhere to put it
        async with broadcaster.subscribe() as events:
            for number in range(MAX_PENDING + 1):
                broadcaster.publish("session", f"s{number}", "over")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(events._pending) == MAX_PENDING
            broadcaster.publish("session", "late", "over")
        await asyncio.sleep(0)  # what was on its way when it closed
        assert not events._pending
        assert not idle._pending

    asyncio.run(run())
    assert "one was dropped: nobody reads it" in caplog.text


def test_a_listener_that_was_aborted() -> None:
    broadcaster = InMemoryInvalidationBroadcaster()
    seen: list[InvalidationScope] = []
    handle = spawn_invalidation_listener(broadcaster, seen.append)
    assert not handle.is_finished
    handle.abort()
    handle._listener.deliver(scope(1))
    assert seen == []


def test_redis_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtraError, match=r"kest\[redis\]"):
        RedisRateLimitStore("redis://localhost:1")
