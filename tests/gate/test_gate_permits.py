"""Signed permits: what they bind, what is refused, batches, single use, and the gate that hands them out."""

from __future__ import annotations

import dataclasses
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest.gate import (
    ActionContext,
    DirectoryTokenVerifier,
    FileReplayStore,
    Gate,
    GateInputError,
    InMemoryReplayStore,
    KeyPair,
    PermitClaims,
    PermitError,
    PermitToken,
    PqTokenSigner,
    PublicKeyDirectory,
    ReplayStore,
    ReplayStoreError,
    SigningError,
    envelope_text,
)
from kest.gate.crypto import cbor, clock, cose
from kest.gate.crypto.permits import PERMIT

DIGEST = "ab" * 32


def token(**given: Any) -> PermitToken:
    now = int(time.time())
    members = {
        "token_id": str(uuid.uuid4()), "evaluation_id": str(uuid.uuid4()), "issued_at": now, "expires_at": now + 30,
        "action_name": "issue_refund", **given,
    }  # fmt: skip
    return PermitToken(**members)


def claims(**given: Any) -> PermitClaims:
    base = PermitClaims.of_token(token())
    full: dict[str, Any] = {
        "principal_id": "agent-bot", "principal_kind": "agent", "resource": "orders/ORD-42", "params_hash": DIGEST,
        "policy_digest": "cd" * 32, "passport_tip": "ef" * 32, **given,
    }  # fmt: skip
    return dataclasses.replace(base, **full)


@pytest.fixture(scope="module")
def signer() -> PqTokenSigner:
    return PqTokenSigner.generate_hybrid("issuer-1")


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stops the clock of signed things."""

    def stop(seconds: float) -> None:
        monkeypatch.setattr(clock, "now", lambda: seconds)

    return stop


# --- what is signed, and what comes back ---


@pytest.mark.parametrize("made", ["generate_hybrid", "generate_pq_only", "generate_ed25519_only"])
def test_a_permit_verifies_and_says_everything(made: str) -> None:
    signer = getattr(PqTokenSigner, made)()
    permit = token()
    found = signer.verify(permit, signer.sign(permit))
    assert found
    assert found.token_id == permit.token_id
    assert found.key_id == signer.key_id
    assert signer.is_hybrid is (made == "generate_hybrid")
    everything = claims(key_id=signer.key_id)
    assert signer.verify(everything.token(), signer.sign_claims(everything)) == everything


def test_a_hybrid_permit_is_small(signer: PqTokenSigner) -> None:
    principal = "spiffe://e.org/" + "p" * 100
    largest = claims(resource="r" * 200, audience="https://payments.example/refunds", principal_id=principal)
    assert len(signer.sign_claims(largest)) <= 4_800
    assert len(signer.sign(token())) <= 3_700
    assert len(envelope_text(signer.sign(token()))) <= 4_800


def test_the_text_form(signer: PqTokenSigner) -> None:
    permit = token()
    text = envelope_text(signer.sign(permit))
    assert signer.verify(permit, text)
    for bad in (text + "=", text[:-1], text + " ", "é", "", text.replace(text[50], "+", 1)):
        with pytest.raises(PermitError, match="verify failed"):
            signer.verify(permit, bad)


@pytest.mark.parametrize("name", ["token_id", "evaluation_id", "issued_at", "expires_at", "action_name"])
def test_each_field_of_the_token_must_be_the_signed_one(name: str, signer: PqTokenSigner) -> None:
    permit = token()
    envelope = signer.sign(permit)
    value: Any = getattr(permit, name)
    other = value + 1 if isinstance(value, int) else str(uuid.uuid4()) if name.endswith("_id") else value + "x"
    fields = {n: getattr(permit, n) for n in ("token_id", "evaluation_id", "issued_at", "expires_at", "action_name")}
    with pytest.raises(PermitError, match=f"signature verification failed.*{name}"):
        signer.verify(PermitToken(**{**fields, name: other}), envelope)


def test_what_is_required_must_be_said(signer: PqTokenSigner) -> None:
    gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": []}]}, token_signer=signer)
    params = {"amount": 500.0, "to": "alice", "lines": ["a", 1]}
    verdict = gate.evaluate(ActionContext("bot", "agent", "refund", resource="orders/1", params=params))
    assert verdict.permit_token is not None
    assert verdict.signature is not None

    def verify(**require: Any) -> PermitClaims:
        return signer.verify(verdict.permit_token, verdict.signature or b"", require=require)

    found = verify(principal="bot", kind="agent", action="refund", resource="orders/1", params=params)
    assert found.policy_digest == gate.policy_digest == verdict.policy_digest
    assert found.evaluation_id == verdict.evaluation_id
    assert verify(params={"amount": 500, "to": "alice", "lines": ("a", 1)}), "RFC 8785 knows one number"
    for name, other in {
        "principal": "eve", "kind": "user", "action": "refunds", "resource": "orders/2", "policy_digest": DIGEST,
        "params": {"amount": 501.0, "to": "alice", "lines": ["a", 1]}, "passport_tip": DIGEST, "key_id": "x",
        "expires_at": float(found.expires_at), "evaluation_id": str(uuid.uuid4()), "principal_id": None,
    }.items():  # fmt: skip
        with pytest.raises(PermitError, match="does not match"):
            verify(**{name: other})
    with pytest.raises(GateInputError, match="no claim"):
        verify(amount=500)
    with pytest.raises(GateInputError, match="mapping"):
        verify(params=5)
    with pytest.raises(PermitError, match="principal_id does not match: the permit says nothing"):
        signer.verify(None, signer.sign(token()), require={"principal": "bot"})


def test_an_audience_honours_its_own_permits_only(signer: PqTokenSigner, pair: KeyPair) -> None:
    own = PqTokenSigner.from_keypair_hybrid(pair)
    directory = PublicKeyDirectory.in_memory([pair.public_keys()])
    for_payments = own.sign_claims(claims(audience="payments"))
    payments = DirectoryTokenVerifier(directory, audience="payments")
    assert payments.verify(None, for_payments).audience == "payments"
    with pytest.raises(PermitError, match="audience"):
        payments.verify(None, own.sign_claims(claims()))
    for stranger in (DirectoryTokenVerifier(directory), DirectoryTokenVerifier(directory, audience="shipping")):
        with pytest.raises(PermitError, match="audience"):
            stranger.verify(None, for_payments)
    assert DirectoryTokenVerifier(directory).verify(None, for_payments, require={"audience": "payments"})


# --- time ---


def test_expiry_is_enforced_with_leeway(signer: PqTokenSigner, at: Callable[[float], None]) -> None:
    permit = token(issued_at=1_000_000, expires_at=1_000_030)
    at(1_000_000)
    envelope = signer.sign(permit)
    for now, good in ((999_994.9, False), (999_995.0, True), (1_000_035.0, True), (1_000_035.1, False)):
        at(now)
        if good:
            assert signer.verify(permit, envelope)
        else:
            with pytest.raises(PermitError, match=r"expired|not valid before"):
                signer.verify(permit, envelope)
    at(1_000_031)
    with pytest.raises(PermitError, match="expired"):
        signer.verify(permit, envelope, leeway=0)
    assert signer.verify(permit, envelope, enforce_expiry=False)
    with pytest.raises(GateInputError):
        signer.verify(permit, envelope, leeway=-1)


def test_an_expired_key_neither_signs_nor_is_believed(at: Callable[[float], None]) -> None:
    at(5_000)
    short = KeyPair.generate_with_expiry(60)
    signer = PqTokenSigner.from_keypair_hybrid(short)
    verifier = DirectoryTokenVerifier(PublicKeyDirectory.in_memory([short.public_keys()]))
    permit = token(issued_at=5_000, expires_at=9_000)
    envelope = signer.sign(permit)
    assert verifier.verify(permit, envelope)
    at(5_061)
    assert short.is_expired
    for signing in (lambda: signer.sign(permit), lambda: signer.sign_batch([permit])):
        with pytest.raises(SigningError, match="expired"):
            signing()
    with pytest.raises(SigningError, match="expired"):
        PqTokenSigner.from_keypair_hybrid(short)
    for verify in (verifier.verify, signer.verify):
        with pytest.raises(PermitError, match="keypair expired"):
            verify(permit, envelope)
    assert verifier.verify(permit, envelope, enforce_expiry=False)


# --- algorithms ---


def test_no_downgrade_in_either_direction(pair: KeyPair) -> None:
    hybrid, pq = PqTokenSigner.from_keypair_hybrid(pair), PqTokenSigner.from_keypair_pq_only(pair)
    permit = token()
    directory = PublicKeyDirectory.in_memory([pair.public_keys()])
    of_hybrid, of_pq = hybrid.sign(permit), pq.sign(permit)
    for verifier, envelope, message in (
        (hybrid, of_pq, "hybrid verifier rejects non-hybrid"),
        (pq, of_hybrid, "PQ-only verifier expected"),
        (DirectoryTokenVerifier(directory), of_pq, "algorithm mismatch"),
        (DirectoryTokenVerifier(directory, hybrid=False), of_hybrid, "algorithm mismatch"),
        (DirectoryTokenVerifier(directory, algorithm="ed25519"), of_hybrid, "algorithm mismatch"),
    ):
        with pytest.raises(PermitError, match=message):
            verifier.verify(permit, envelope)
    assert DirectoryTokenVerifier(directory, hybrid=False).verify(permit, of_pq)


def taken_apart(envelope: bytes) -> list[Any]:
    parts: list[Any] = cbor.decode(envelope[2:])
    return parts


def together(parts: list[Any]) -> bytes:
    return envelope_head() + cbor.encode(parts)


def envelope_head() -> bytes:
    return b"\xd8\x62"


def relabelled(envelope: bytes, algorithm: cose.Algorithm) -> bytes:
    """The same signatures, as far as this algorithm has them, under a header that says so."""
    protected, loose, payload, rows = taken_apart(envelope)
    header = cbor.decode(protected)
    header["algs"] = list(cose.ALGORITHMS[algorithm])
    kept = [row for row in rows if cbor.decode(row[0])[1] in cose.ALGORITHMS[algorithm]]
    return together([cbor.encode(header), loose, payload, kept])


@pytest.mark.parametrize("algorithm", ["ml-dsa-65", "ed25519"])
def test_a_signature_cannot_be_taken_away(algorithm: Any, pair: KeyPair) -> None:
    hybrid = PqTokenSigner.from_keypair_hybrid(pair)
    permit = token()
    stripped = relabelled(hybrid.sign(permit), algorithm)
    directory = PublicKeyDirectory.in_memory([pair.public_keys()])
    with pytest.raises(PermitError, match="signature verification failed"):
        DirectoryTokenVerifier(directory, algorithm=algorithm).verify(permit, stripped)
    parts = taken_apart(hybrid.sign(permit))
    with pytest.raises(PermitError, match="hybrid envelope missing"):
        hybrid.verify(permit, together([*parts[:3], parts[3][:1]]))
    with pytest.raises(PermitError, match="envelope parse"):
        hybrid.verify(permit, together([*parts[:3], parts[3][::-1]]))
    with pytest.raises(PermitError, match="twice"):
        hybrid.verify(permit, together([*parts[:3], [parts[3][0], parts[3][0]]]))


def test_parts_of_two_permits_do_not_mix(signer: PqTokenSigner) -> None:
    one, other = taken_apart(signer.sign(token())), taken_apart(signer.sign(token()))
    for place in range(4):
        if one[place] == other[place]:
            continue
        mixed = [*one]
        mixed[place] = other[place]
        with pytest.raises(PermitError, match="signature verification failed"):
            signer.verify(None, together(mixed))
    for row in (0, 1):
        rows = [list(entry) for entry in one[3]]
        rows[row] = other[3][row]
        with pytest.raises(PermitError, match="signature verification failed"):
            signer.verify(None, together([*one[:3], rows]))
    with pytest.raises(PermitError, match="unprotected"):
        signer.verify(None, together([one[0], {"x": 1}, *one[2:]]))


def test_the_key_id_is_bound_and_compared(pair: KeyPair, signer: PqTokenSigner) -> None:
    permit = token()
    own = PqTokenSigner.from_keypair_hybrid(pair)
    other = PqTokenSigner.from_keypair_hybrid(pair, "another-name")
    with pytest.raises(PermitError, match="signed by key"):
        other.verify(permit, own.sign(permit))
    parts = taken_apart(own.sign(permit))
    header = cbor.decode(parts[0])
    header[4] = b"another-name"
    with pytest.raises(PermitError, match="signature verification failed"):
        other.verify(permit, together([cbor.encode(header), *parts[1:]]))
    with pytest.raises(PermitError, match="public key not found"):
        DirectoryTokenVerifier(PublicKeyDirectory.in_memory()).verify(permit, own.sign(permit))


def test_other_signed_things_are_no_permits(pair: KeyPair) -> None:
    """A checkpoint, or anything else that the key signs, does not verify as a permit even with the same payload."""
    keys = pair.signing_keys()
    payload = PermitClaims.of_token(token()).to_payload()
    for kind in (cose.Kind("kest-permit+cwt", b"kest.gate audit seal v1"), cose.Kind("x", PERMIT.label)):
        protected, signatures = cose.sign(keys, kind, payload)
        with pytest.raises(PermitError, match=r"signature verification failed|of type"):
            PqTokenSigner.from_keypair_hybrid(pair).verify(None, cose.build(protected, payload, signatures))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_flip_is_refused(data: st.DataObject) -> None:
    envelope, proof, batch = flips()
    which = data.draw(st.sampled_from(["permit", "batch", "proof"]))
    body = {"permit": envelope, "batch": batch, "proof": proof}[which]
    at_byte, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(1, 255))
    bad = body[:at_byte] + bytes([body[at_byte] ^ bit]) + body[at_byte + 1 :]
    signer = PqTokenSigner.from_keypair_hybrid(FLIP_PAIR[0])
    with pytest.raises(PermitError, match="verify failed"):
        signer.verify(None, batch if which == "proof" else bad, proof=bad if which == "proof" else proof)


@settings(max_examples=100, deadline=None)
@given(junk=st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"\xd8\x62\x84" + tail)))
def test_junk_is_refused(junk: bytes) -> None:
    flips()
    with pytest.raises(PermitError, match="verify failed"):
        PqTokenSigner.from_keypair_hybrid(FLIP_PAIR[0]).verify(None, junk)


FLIP_PAIR: list[KeyPair] = []
FLIP_BYTES: list[bytes] = []


def flips() -> tuple[bytes, bytes, bytes]:
    if not FLIP_PAIR:
        FLIP_PAIR.append(KeyPair.generate())
        signer = PqTokenSigner.from_keypair_hybrid(FLIP_PAIR[0])
        now = int(time.time())
        batch = signer.sign_batch([claims(expires_at=now + 3600) for _ in range(5)])
        FLIP_BYTES.extend((signer.sign_claims(claims(expires_at=now + 3600)), batch.proof, batch.permits[3]))
    return FLIP_BYTES[0], FLIP_BYTES[1], FLIP_BYTES[2]


def test_cut_short_and_longer_is_refused(signer: PqTokenSigner) -> None:
    envelope = signer.sign(token())
    for bad in (b"", envelope[:-1], envelope[:100], envelope + b"\x00", envelope[2:], b"\x00" * 70_000):
        with pytest.raises(PermitError, match="verify failed"):
            signer.verify(None, bad)
    with pytest.raises(TypeError):
        signer.verify(None, bytearray(envelope))  # type: ignore[arg-type]


# --- batches ---


def test_a_batch_shares_one_signature(pair: KeyPair) -> None:
    signer = PqTokenSigner.from_keypair_hybrid(pair)
    all_claims = [claims(audience="payments") for _ in range(256)]
    batch = signer.sign_batch(all_claims)
    assert len(batch) == 256
    assert max(map(len, batch)) <= 700
    verifier = DirectoryTokenVerifier(PublicKeyDirectory.in_memory([pair.public_keys()]), audience="payments")
    with pytest.raises(PermitError, match="proof of this permit's batch"):
        verifier.verify(None, batch.permits[0])
    assert verifier.verify(None, batch.permits[0], proof=batch.proof).token_id == all_claims[0].token_id
    for permit, one in zip(batch, all_claims, strict=True):  # the proof is fetched once
        assert verifier.verify(one.token(), permit).token_id == one.token_id


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 100])
def test_batches_of_all_sizes(size: int, signer: PqTokenSigner) -> None:
    batch = signer.sign_batch([token() for _ in range(size)])
    assert all(signer.verify(None, permit, proof=batch.proof) for permit in batch)


def test_a_batch_is_bound_together(pair: KeyPair) -> None:
    signer = PqTokenSigner.from_keypair_hybrid(pair)
    one, other = signer.sign_batch([token() for _ in range(4)]), signer.sign_batch([token() for _ in range(4)])

    def verify(permit: bytes, proof: bytes | None = None) -> PermitClaims:
        return PqTokenSigner.from_keypair_hybrid(pair).verify(None, permit, proof=proof)

    with pytest.raises(PermitError, match="another batch"):
        verify(one.permits[0], other.proof)
    parts, foreign = taken_apart(one.permits[0]), taken_apart(other.permits[0])
    for loose in (foreign[1], {**parts[1], "i": 1}, {**parts[1], "n": 3}, {**parts[1], "i": -1}, {**parts[1], "path": b""},
                  {**parts[1], "n": 2**40}, {}, {**parts[1], "x": 1}, {**parts[1], "i": True}):  # fmt: skip
        with pytest.raises(PermitError, match="verify failed"):
            verify(together([parts[0], loose, *parts[2:]]), one.proof)
    with pytest.raises(PermitError, match="verify failed"):
        verify(one.permits[0], one.permits[0])
    with pytest.raises(PermitError, match="verify failed"):
        verify(signer.sign(token())[:50], one.proof)
    # A permit of a batch is no hybrid permit without its batch, nor the other way round.
    whole = taken_apart(signer.sign(token()))
    for loose, message in (({}, "missing ML-DSA-65"), (parts[1], "unprotected header")):
        with pytest.raises(PermitError, match=message):
            verify(together([whole[0], loose, whole[2], whole[3][:1]]), one.proof)


def test_what_cannot_be_a_batch(signer: PqTokenSigner) -> None:
    for permits in ([], [token()] * 257):
        with pytest.raises(GateInputError, match="1 to 256"):
            signer.sign_batch(permits)
    with pytest.raises(GateInputError, match="hybrid"):
        PqTokenSigner.generate_pq_only().sign_batch([token()])


# --- single use ---


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[FileReplayStore]:
    with FileReplayStore(tmp_path / "used.sqlite") as store:
        yield store


def test_a_permit_is_used_once(signer: PqTokenSigner, file_store: FileReplayStore) -> None:
    for store in (InMemoryReplayStore(), file_store):
        assert isinstance(store, ReplayStore)
        permit = token()
        envelope = signer.sign(permit)
        with pytest.raises(PermitError):  # what fails is not used up
            signer.verify(permit, envelope, replay_store=store, require={"principal": "x"})
        assert signer.verify(permit, envelope, replay_store=store)
        with pytest.raises(PermitError, match="replay"):
            signer.verify(permit, envelope, replay_store=store)
        assert len(store) == 1


def test_use_is_remembered_across_restarts_and_processes(
    signer: PqTokenSigner, tmp_path: Path, run_python: Any
) -> None:
    path = tmp_path / "used.sqlite"
    permit = token()
    envelope = signer.sign(permit)
    with FileReplayStore(path) as store:
        assert signer.verify(permit, envelope, replay_store=store)
    assert path.stat().st_mode & 0o777 == 0o600
    with FileReplayStore(path) as store, pytest.raises(PermitError, match="replay"):
        signer.verify(permit, envelope, replay_store=store)
    program = (
        "import sys\nfrom kest.gate import FileReplayStore\n"
        f"with FileReplayStore({str(path)!r}) as store: print(len(store), store.first_use(b'k' * 32, 9e9))\n"
    )
    assert run_python(program).stdout == "1 True\n"
    with FileReplayStore(path) as store:
        assert not store.first_use(b"k" * 32, 9e9)


def test_a_store_that_cannot_tell_refuses(signer: PqTokenSigner, tmp_path: Path) -> None:
    full = InMemoryReplayStore(max_entries=1)
    assert signer.verify(None, signer.sign(token()), replay_store=full)
    with pytest.raises(PermitError, match="single use cannot be established"):
        signer.verify(None, signer.sign(token()), replay_store=full)

    class Broken:
        def first_use(self, key: bytes, expires_at: float, /) -> bool:
            raise ReplayStoreError("down")

    class Vague:
        def first_use(self, key: bytes, expires_at: float, /) -> Any:
            return "yes"

    for store in (Broken(), Vague()):
        with pytest.raises(PermitError):
            signer.verify(None, signer.sign(token()), replay_store=store)
    with pytest.raises(GateInputError, match="first_use"):
        signer.verify(None, signer.sign(token()), replay_store=object())  # type: ignore[arg-type]
    (tmp_path / "junk").write_bytes(b"x" * 5000)
    with pytest.raises(ReplayStoreError, match="cannot be opened"):
        FileReplayStore(tmp_path / "junk")


def test_a_memory_store_forgets_what_has_expired(at: Callable[[float], None]) -> None:
    at(1_000)
    store = InMemoryReplayStore(max_entries=100)
    for number in range(100):
        assert store.first_use(number.to_bytes(32, "big"), 1_010)
    at(1_011)
    for number in range(100, 150):
        assert store.first_use(number.to_bytes(32, "big"), 1_020)
    assert len(store) == 50


def test_a_file_store_forgets_what_has_expired(at: Callable[[float], None], file_store: FileReplayStore) -> None:
    at(1_000)
    for number in range(50):
        assert file_store.first_use(number.to_bytes(32, "big"), 1_010)
    at(1_011)
    for number in range(50, 70):
        assert file_store.first_use(number.to_bytes(32, "big"), 1_020)
    assert len(file_store) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_file_store_survives_a_fork(file_store: FileReplayStore, run_python: Any, tmp_path: Path) -> None:
    program = (
        "import os\nfrom kest.gate import FileReplayStore\n"
        f"store = FileReplayStore({str(tmp_path / 'forked')!r})\n"
        "assert store.first_use(b'a' * 32, 9e9)\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    ok = not store.first_use(b'a' * 32, 9e9) and store.first_use(b'b' * 32, 9e9)\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert not store.first_use(b'b' * 32, 9e9)\nstore.close()\n"
    )
    run_python(program)


# --- raw keys ---


def test_raw_keys(pair: KeyPair) -> None:
    public, secrets = pair.public_keys(), pair.secrets()
    raw = PqTokenSigner.hybrid(
        secrets.ml_dsa, public.ml_dsa_verifying_key, secrets.ed25519, public.ed25519_verifying_key, key_id=pair.id
    )
    permit = token()
    assert PqTokenSigner.from_keypair_hybrid(pair).verify(permit, raw.sign(permit))
    verifier = PqTokenSigner.pq_only(
        ml_dsa_signing_key=b"", ml_dsa_verifying_key=public.ml_dsa_verifying_key, key_id=pair.id
    )
    assert verifier.verify(permit, PqTokenSigner.from_keypair_pq_only(pair).sign(permit))
    with pytest.raises(SigningError, match="only verify"):
        verifier.sign(permit)
    other = KeyPair.generate().public_keys()
    with pytest.raises(ValueError, match="does not belong"):
        PqTokenSigner.pq_only(secrets.ml_dsa, other.ml_dsa_verifying_key, "x")
    with pytest.raises(ValueError, match="does not belong"):
        PqTokenSigner.ed25519_only(secrets.ed25519, other.ed25519_verifying_key, "x")
    for bad in (b"short", b"x" * 33):
        with pytest.raises(ValueError, match="32 bytes"):
            PqTokenSigner.pq_only(bad, public.ml_dsa_verifying_key, "x")
    for key_id in ("", "x" * 257, "a\nb"):
        with pytest.raises(GateInputError, match="key id"):
            PqTokenSigner.generate_hybrid(key_id)


# --- the gate ---


def test_a_gate_signs_what_it_permits(permitting: Any, context: Any, signer: PqTokenSigner) -> None:
    gate = permitting(token_signer=signer, permit_audience="payments", permit_ttl=7)
    verdict = gate.evaluate(context("refund", resource="orders/1"))
    found = signer.verify(
        verdict.permit_token, verdict.signature, require={"audience": "payments", "principal": "alice"}
    )
    assert (found.audience, found.principal_kind, found.resource) == ("payments", "user", "orders/1")
    assert found.passport_tip is None
    assert found.expires_at - found.issued_at == 7
    assert gate.evaluate(context("refund")).token_id != verdict.token_id


def test_a_permit_names_the_lineage_it_was_asked_from(permitting: Any, context: Any, signer: PqTokenSigner) -> None:
    from kest.core import LocalEd25519Provider, MockPolicyEngine, kest_verified
    from kest.core.context import get_current_passport, lineage

    gate = permitting(token_signer=signer)

    @kest_verified("p", engine=MockPolicyEngine(), identity=LocalEd25519Provider())
    def inside() -> tuple[Any, str]:
        return gate.evaluate(context()), get_current_passport().chain_tip

    with lineage():
        verdict, tip = inside()
    assert signer.verify(verdict.permit_token, verdict.signature, require={"passport_tip": tip}).passport_tip == tip


def test_a_gate_binds_the_policies_that_decided(signer: PqTokenSigner, context: Any) -> None:
    first = {"policies": [{"name": "a", "effect": "permit", "conditions": []}]}
    second = {"policies": [{"name": "b", "effect": "permit", "conditions": []}]}
    gate = Gate.from_dict(first, token_signer=signer)
    digest = gate.policy_digest

    verdict = gate.evaluate(context())
    gate.reload(second)
    assert gate.policy_digest != digest
    assert verdict.policy_digest == digest
    assert signer.verify(None, verdict.signature or b"").policy_digest == digest
    assert gate.evaluate(context()).policy_digest == gate.policy_digest


def test_signing_that_fails_refuses_without_saying_why(permitting: Any, context: Any, pair: KeyPair) -> None:
    public = pair.public_keys()
    cannot = PqTokenSigner.pq_only(b"", public.ml_dsa_verifying_key, "secret-key-name")
    verdict = permitting(token_signer=cannot).evaluate(context())
    assert (verdict.kind, verdict.code, verdict.evaluator) == ("refuse", "IDENTITY_FAILED", "gate")
    assert verdict.reason == "token signing failed: SigningError"
    with pytest.raises(TypeError, match="permit_audience"):
        permitting(permit_audience=5)
    too_long = permitting(token_signer=PqTokenSigner.generate_ed25519_only()).evaluate(
        context("a", principal_id="p" * 9000)
    )
    assert too_long.code == "IDENTITY_FAILED"


def test_secrets_stay_secret(pair: KeyPair, signer: PqTokenSigner) -> None:
    import copy
    import pickle

    shown = repr(pair) + repr(signer) + repr(pair.secrets()) + repr(pair.signing_keys()) + str(pair)
    for secret in pair.secrets():
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    for thing in (pair, signer, pair.signing_keys(), pair._ml_dsa, pair._ml_kem):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                attempt(thing)


def test_four_threads_sign_and_verify(signer: PqTokenSigner) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def once(_: int) -> str:
        permit = token()
        return signer.verify(permit, signer.sign(permit)).token_id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(once, range(40)))) == 40
