"""Weaknesses that systems of this kind are known for in keys, permits, directories, audit and channels, one test each.

Numbered on from test_rows_gate.py. D4: secret keys never leave.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from kest._kestcore import canonicalize
from kest.errors import GateError, KeyFormatError
from kest.gate import (
    ActionContext,
    AuditChainError,
    AuditEntry,
    ChannelError,
    DirectoryError,
    DirectoryTokenVerifier,
    Gate,
    GateInputError,
    KeyFileError,
    KeyPair,
    ManagedAuditChain,
    PermitError,
    PermitToken,
    PqTokenSigner,
    PublicKeyBundle,
    PublicKeyDirectory,
    SecureChannel,
    SignedAuditChain,
    SigningError,
)
from kest.gate.crypto import cbor, channel_format, clock, keyfile

POLICY = {"policies": [{"name": "p", "effect": "permit", "conditions": []}]}


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate()


def token() -> PermitToken:
    now = int(time.time())
    return PermitToken(str(uuid.uuid4()), str(uuid.uuid4()), now, now + 30, "pay")


def test_q22_a_lifetime_that_is_none_is_an_error() -> None:
    for seconds in (2**63 - 1, 2**31 * 1000 * 1000, -(2**62)):
        with pytest.raises(GateInputError):
            KeyPair.generate_with_expiry(seconds)


def test_q23_expired_keys_sign_append_and_open_nothing(pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    short = KeyPair.generate_with_expiry(5)
    signer, chain = PqTokenSigner.from_keypair_hybrid(short), SignedAuditChain(short)
    channel = SecureChannel(short, pair.public_keys())
    gate = Gate.from_dict(POLICY, token_signer=signer)
    context = ActionContext("p", "agent", "pay")
    assert gate.evaluate(context).is_permit
    later = clock.now() + 7
    monkeypatch.setattr(clock, "now", lambda: later)
    assert gate.evaluate(context).code == "IDENTITY_FAILED"
    for work in (
        lambda: signer.sign(token()),
        lambda: chain.append(AuditEntry("a", "b", "permit", "c")),
        lambda: channel.send_signed(b"", "c"),
        lambda: channel.send_data(b""),
        lambda: channel.session("c"),
        lambda: SecureChannel(pair, short.public_keys()),
        lambda: short.build_signed_manifest([]),
    ):
        with pytest.raises(SigningError, match="expired"):
            work()


def test_q24_key_files_are_encrypted_checked_and_private(pair: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_bytes(keyfile.seal(pair, "a passphrase", passes=1, memory=8192))
    data = path.read_bytes()
    assert not any(secret in data or secret.hex().encode() in data for secret in pair.secrets())
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyPair.load(path, "a passphrase")
    path.chmod(0o600)
    path.write_bytes(data[:-1])
    with pytest.raises(KeyFileError, match="checksum"):
        KeyPair.load(path, "a passphrase")
    bundle = pair.public_keys().to_dict()
    for bad in ({**bundle, "note": "x"}, {**bundle, "ed25519_verifying_key": "AAAA"}):
        with pytest.raises(KeyFormatError):
            PublicKeyBundle.from_json(json.dumps(bad))


def test_q25_the_key_id_of_an_envelope_counts(pair: KeyPair) -> None:
    permit = token()
    signed = PqTokenSigner.from_keypair_hybrid(pair, "name-one").sign(permit)
    with pytest.raises(PermitError, match="signed by key"):
        PqTokenSigner.from_keypair_hybrid(pair, "name-two").verify(permit, signed)


def test_q26_a_hybrid_permit_is_no_weaker_one(pair: KeyPair) -> None:
    parts: list[Any] = cbor.decode(PqTokenSigner.from_keypair_hybrid(pair).sign(token())[2:])
    header = cbor.decode(parts[0])
    header["algs"] = [-49]
    relabelled = b"\xd8\x62" + cbor.encode([cbor.encode(header), parts[1], parts[2], parts[3][1:]])
    with pytest.raises(PermitError, match="signature verification failed"):
        PqTokenSigner.from_keypair_pq_only(pair).verify(None, relabelled)


def test_q27_a_directory_does_not_go_back(pair: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    old, new = pair.build_signed_manifest([pair.public_keys()], version=1), pair.build_signed_manifest([], version=2)
    path.write_bytes(new)
    directory = PublicKeyDirectory.from_signed_file(path, root=pair.public_keys())
    path.write_bytes(old)
    with pytest.raises(DirectoryError, match="rollback"):
        directory.reload()
    with pytest.raises(DirectoryError, match="rollback"):
        PublicKeyDirectory.from_signed_file(path, root=pair.public_keys())
    with pytest.raises(PermitError, match="public key not found"):  # the revoked key stays revoked
        DirectoryTokenVerifier(directory).verify(None, PqTokenSigner.from_keypair_hybrid(pair).sign(token()))


def test_q28_place_and_key_of_an_audit_entry_are_signed(pair: KeyPair) -> None:
    chain = SignedAuditChain(pair)
    chain.append(AuditEntry("a", "b", "permit", "c"))
    members = json.loads(chain.export_jsonl())
    for name, value in (("index", 1), ("previous_hash", "0" * 64), ("key_id", "other"), ("mode", "pq"), ("time_ms", 1)):
        altered = {**members, "entry": {**members["entry"], name: value}}
        with pytest.raises(AuditChainError):
            SignedAuditChain.verify_jsonl(canonicalize(altered), pair.public_keys())


def test_q29_a_chain_does_not_say_how_little_will_do(pair: KeyPair) -> None:
    weaker = SignedAuditChain(pair, hybrid=False)
    weaker.append(AuditEntry("a", "b", "permit", "c"))
    with pytest.raises(AuditChainError, match="mode mismatch"):
        SignedAuditChain.verify_jsonl(weaker.export_jsonl(), pair.public_keys())


def test_q30_an_audit_file_is_continued(pair: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(3):
        with ManagedAuditChain(pair, path) as chain:
            assert chain.append(AuditEntry("a", "b", "permit", "c")) == number + 1
    assert SignedAuditChain.verify_jsonl(path.read_bytes(), pair.public_keys()) == 3


def test_q31_context_and_correlation_of_a_message_are_signed(pair: KeyPair) -> None:
    other = KeyPair.generate()
    sealed = SecureChannel(pair, other.public_keys()).send_signed(b"x", "refunds", "c-1")
    secret, signed, data = channel_format.open_message(sealed, channel_format.SIGNED, pair.id, other)
    envelope: list[Any] = cbor.decode(signed[2:])
    for name in ("ctx", "cor", "seq", "tms", "rcp", "snd", "str", "dig", "bnd"):
        header = cbor.decode(envelope[2])
        header[name] = {int: lambda v: v + 1, str: lambda v: v + "x", bytes: lambda v: v[::-1]}[type(header[name])](
            header[name]
        )
        forged = b"\xd8\x62" + cbor.encode([*envelope[:2], cbor.encode(header), envelope[3]])
        ahead = channel_format._ahead(*cbor.decode(sealed)[1:5])
        message = channel_format.seal_message(channel_format.Sealed(secret, ahead), forged, data)
        with pytest.raises(ChannelError, match="signature verification failed"):
            SecureChannel(other, pair.public_keys()).receive_signed(message, "refunds")


def test_d4_secret_keys_never_leave(pair: KeyPair, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import copy
    import pickle

    signer, chain = PqTokenSigner.from_keypair_hybrid(pair), SignedAuditChain(pair)
    channel = SecureChannel(pair, KeyPair.generate().public_keys())
    shown: list[str] = [repr(thing) for thing in (pair, signer, chain, channel, channel.session("c"))]
    errors: list[Any] = [
        lambda: KeyPair.load(tmp_path / "none", "the secret passphrase"),
        lambda: pair.save(tmp_path / "none" / "k", "the secret passphrase"),
        lambda: pickle.dumps(pair),
        lambda: pickle.dumps(signer),
        lambda: pickle.dumps(channel),
        lambda: copy.deepcopy(pair),
        lambda: vars(pair),
    ]
    for work in errors:
        with pytest.raises((GateError, TypeError)) as caught:
            work()
        shown.append(str(caught.value))
    shown.append(caplog.text)
    for secret in pair.secrets():
        for form in (secret.hex(), repr(secret), secret.hex()[:16]):
            assert not any(form in text for text in shown)
    assert not any("the secret passphrase" in text for text in shown)
