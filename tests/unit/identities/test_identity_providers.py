"""Providers that users write: nothing but a JWS over this payload passes (D5)."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import pytest
from identity_samples import PAYLOAD, PRINCIPAL, SEED, Returns, ours, parts, verifies

from kest import _kestcore
from kest.core.identity import (
    BaseIdentity,
    IdentityProvider,
    StaticIdentity,
    checked_jws,
    ecdsa_der_to_raw,
    principal_of,
    sign_payload,
    signing_input,
)
from kest.core.identity.jws import compact
from kest.errors import IdentityError, KestError


def with_header(**changes: Any) -> str:
    header = {"alg": "EdDSA", "kid": PRINCIPAL, "typ": "JWS", **changes}
    kept = {name: value for name, value in header.items() if value is not None}
    message = (_kestcore.b64url_encode(_kestcore.canonicalize(kept)) + "." + _kestcore.b64url_encode(PAYLOAD)).encode()
    return compact(message, _kestcore.Signer(PRINCIPAL, SEED).sign(message))


async def coroutine() -> str:
    return ours()


STUBS = {
    "none": None,
    "pending": "pending",
    "empty": "",
    "stub": "stub-signature",
    "three parts of nonsense": "a.b.c",
    "empty parts": "..",
    "two parts": ours().rpartition(".")[0],
    "four parts": ours() + ".x",
    "unsigned": ours().rpartition(".")[0] + ".",
    "padded": ours() + "==",
    "white space": " " + ours(),
    "newline": ours() + "\n",
    "other payload": ours(b'{"a":2}'),
    "other principal": ours(principal="spiffe://example.test/other"),
    "alg none": with_header(alg="none"),
    "HS256": with_header(alg="HS256"),
    "alg missing": with_header(alg=None),
    "kid missing": with_header(kid=None),
    "typ missing": with_header(typ=None),
    "typ other": with_header(typ="JWT"),
    "crit": with_header(crit=["b64"]),
    "jwk in header": with_header(jwk={}),
    "x5c with EdDSA": with_header(x5c=["AAAA"]),
    "non-ascii": ours()[:-1] + "é",
    "number": 7,
    "true": True,
    "bytes of a jws": ours().encode(),
    "list": [ours()],
    "json": '{"payload":"","signatures":[]}',
}


@pytest.mark.parametrize("name", STUBS)
def test_d5_nothing_but_a_jws_over_this_payload_passes(name: str) -> None:
    for attributes in ({}, {"algorithm": "EdDSA", "public_jwk": StaticIdentity(PRINCIPAL, key=SEED).public_jwk}):
        with pytest.raises(IdentityError) as caught:
            sign_payload(Returns(STUBS[name], **attributes), PAYLOAD)
        assert "Returns" in str(caught.value)


def test_d5_the_error_does_not_quote_what_came_back() -> None:
    with pytest.raises(IdentityError) as caught:
        sign_payload(Returns("hunter2-is-no-signature"), PAYLOAD)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(IdentityError) as caught:
        sign_payload(Returns(RuntimeError("password=hunter2")), PAYLOAD)
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_d5_a_coroutine_from_sign_is_named_and_closed() -> None:
    with pytest.raises(IdentityError, match="async_sign"):
        sign_payload(Returns(lambda payload: coroutine()), PAYLOAD)


def test_a_header_that_is_not_canonical_is_refused() -> None:
    header = json.dumps({"typ": "JWS", "alg": "EdDSA", "kid": PRINCIPAL}).encode()
    duplicate = f'{{"alg":"EdDSA","alg":"EdDSA","kid":"{PRINCIPAL}","typ":"JWS"}}'.encode()
    for text in (header, duplicate, b"\xff", b"[]", b"nonsense"):
        message = f"{_kestcore.b64url_encode(text)}.{_kestcore.b64url_encode(PAYLOAD)}".encode()
        with pytest.raises(IdentityError):
            sign_payload(Returns(compact(message, _kestcore.Signer(PRINCIPAL, SEED).sign(message))), PAYLOAD)


def test_the_first_signature_is_verified_under_the_providers_own_key() -> None:
    right = StaticIdentity(PRINCIPAL, key=SEED).public_jwk()
    wrong = StaticIdentity(PRINCIPAL).public_jwk()
    asked: list[int] = []

    def key() -> dict[str, Any]:
        asked.append(1)
        return right

    provider = Returns(ours(), public_jwk=key)
    assert sign_payload(provider, PAYLOAD) == sign_payload(provider, PAYLOAD) == ours()
    assert len(asked) == 1
    impostor = Returns(ours(), public_jwk=lambda: wrong)
    for _ in range(2):  # a failure is not remembered as success
        with pytest.raises(IdentityError, match="does not verify"):
            sign_payload(impostor, PAYLOAD)
    for nonsense in (None, "x", {}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "oct", "k": "AAAA"}, [], [7]):
        with pytest.raises(KestError):
            sign_payload(Returns(ours(), public_jwk=lambda value=nonsense: value), PAYLOAD)
    with pytest.raises(IdentityError, match="public_jwk"):
        sign_payload(Returns(ours(), public_jwk=lambda: 1 / 0), PAYLOAD)
    assert checked_jws(impostor, PRINCIPAL, PAYLOAD, ours(), right) == ours()
    with pytest.raises(IdentityError):
        checked_jws(provider, PRINCIPAL, PAYLOAD, ours(), wrong)


def test_objects_that_compare_equal_do_not_share_the_check() -> None:
    class Alike(Returns):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Alike)

        def __hash__(self) -> int:
            return 1

    assert sign_payload(Alike(ours(), public_jwk=StaticIdentity(PRINCIPAL, key=SEED).public_jwk), PAYLOAD)
    with pytest.raises(IdentityError):
        sign_payload(Alike(ours(), public_jwk=StaticIdentity(PRINCIPAL).public_jwk), PAYLOAD)


def test_a_provider_without_a_public_key_is_checked_for_everything_else() -> None:
    assert sign_payload(Returns(ours()), PAYLOAD) == ours()


def test_raw_signatures_become_a_jws() -> None:
    signer = _kestcore.Signer(PRINCIPAL, SEED)
    jwk = StaticIdentity(PRINCIPAL, key=SEED).public_jwk

    class Raw:
        algorithm = "EdDSA"
        public_jwk = staticmethod(jwk)

        def get_workload_id(self) -> str:  # the older name alone does
            return PRINCIPAL

        def sign(self, payload: bytes) -> bytes:
            return signer.sign(signing_input(PRINCIPAL, payload, "EdDSA")[1])

    class Signs:
        algorithm = "EdDSA"
        public_jwk = staticmethod(jwk)

        def get_identity(self) -> str:
            return PRINCIPAL

        def sign(self, payload: bytes) -> bytes:
            raise AssertionError("sign_message is there")

        def sign_message(self, message: bytes) -> bytes:
            return signer.sign(message)

    assert sign_payload(Raw(), PAYLOAD) == ours()
    assert sign_payload(Signs(), PAYLOAD) == ours()
    with pytest.raises(IdentityError, match="signing_input"):
        sign_payload(Returns(signer.sign, algorithm="EdDSA", public_jwk=jwk), PAYLOAD)
    raw = signer.sign(signing_input(PRINCIPAL, PAYLOAD, "EdDSA")[1])
    with pytest.raises(IdentityError, match="public_jwk"):
        sign_payload(Returns(raw, algorithm="EdDSA"), PAYLOAD)
    for algorithm in (None, "none", "HS256", "ES384", 7):
        with pytest.raises(IdentityError, match="algorithm"):
            sign_payload(Returns(raw, algorithm=algorithm, public_jwk=jwk), PAYLOAD)
    for length in (0, 63, 65, 70, 72):
        with pytest.raises(IdentityError, match="ecdsa_der_to_raw"):
            sign_payload(Returns(b"0" * length, algorithm="ES256", public_jwk=jwk), PAYLOAD)
    with pytest.raises(IdentityError, match="not what its public key is for"):
        sign_payload(Returns(raw, algorithm="ES256", public_jwk=jwk), PAYLOAD)


def test_a_subclass_of_the_protocol_may_use_either_getter() -> None:
    class Older(IdentityProvider):
        def get_workload_id(self) -> str:
            return PRINCIPAL

        def sign(self, payload: bytes) -> str:
            return ours(payload)

    class Neither(IdentityProvider):
        def sign(self, payload: bytes) -> str:
            return ours(payload)

    assert sign_payload(Older(), PAYLOAD) == ours()
    with pytest.raises(IdentityError, match="define one"):
        principal_of(Neither())
    with pytest.raises(IdentityError, match="not an identity provider"):
        principal_of(object())
    with pytest.raises(IdentityError, match="ZeroDivisionError"):
        principal_of(type("Broken", (), {"get_identity": lambda self: 1 / 0})())


def test_base_identity_needs_four_members_only() -> None:
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    class Hardware(BaseIdentity):
        algorithm = "ES256"

        def get_identity(self) -> str:
            return PRINCIPAL

        def sign_message(self, message: bytes) -> bytes:
            return ecdsa_der_to_raw(key.sign(message, ec.ECDSA(hashes.SHA256())))

        def public_jwk(self) -> dict[str, Any]:
            return dict(_kestcore.PublicKey.from_spki(spki).public_jwk())

    jws = sign_payload(Hardware(), PAYLOAD)
    assert parts(jws)[0] == {"alg": "ES256", "kid": PRINCIPAL, "typ": "JWS"}
    assert verifies(jws, Hardware().public_jwk())
    assert Hardware().signer is None


def test_signing_input() -> None:
    header, message = signing_input(PRINCIPAL, PAYLOAD, "ES256", ["AAAA"])
    expected = f'{{"alg":"ES256","kid":"{PRINCIPAL}","typ":"JWS","x5c":["AAAA"]}}'
    assert _kestcore.b64url_decode(header) == expected.encode()
    assert message == f"{header}.{_kestcore.b64url_encode(PAYLOAD)}".encode()
    with pytest.raises(IdentityError):
        signing_input(PRINCIPAL, PAYLOAD, "none")
    with pytest.raises(IdentityError):
        signing_input(PRINCIPAL, PAYLOAD, "EdDSA", ["AAAA"])


def test_ecdsa_der_to_raw_agrees_with_cryptography() -> None:
    utils = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.utils")
    top = 2**256 - 1
    for r, s in [(1, 1), (top, top), (2**255, 2**247), (2**248 - 1, 127), (128, 255)]:
        der = utils.encode_dss_signature(r, s)
        assert ecdsa_der_to_raw(der) == r.to_bytes(32, "big") + s.to_bytes(32, "big")
    good = utils.encode_dss_signature(2**255, 5)
    bad = [good + b"\0", good[:-1], b"", b"\x30\x00", b"\x30\x06\x02\x01\x00\x02\x01\x01", os.urandom(64)]
    bad += [utils.encode_dss_signature(top + 1, 1), b"\x30\x06\x02\x01\xff\x02\x01\x01"]
    bad += [b"\x30\x07\x02\x02\x00\x01\x02\x01\x01", b"\x31" + good[1:], good[:2] + b"\x03" + good[3:]]
    for der in bad:
        with pytest.raises(IdentityError):
            ecdsa_der_to_raw(der)
    for at in range(len(good)):  # no byte string raises anything else
        with contextlib.suppress(IdentityError):
            assert len(ecdsa_der_to_raw(good[:at] + bytes([good[at] ^ 0x81]) + good[at + 1 :])) == 64
