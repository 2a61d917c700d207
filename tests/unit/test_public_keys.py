"""Public keys in and out: what is taken, and the one JWK of each (RFC 7517, 7518, 7638, 8037)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest._kestcore import PublicKey, b64url_decode, b64url_encode
from kest.errors import KeyFormatError

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def spki(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def number(text: str) -> int:
    return int.from_bytes(b64url_decode(text), "big")


RSA = rsa.generate_private_key(65537, 2048).public_key()
EC = ec.generate_private_key(ec.SECP256R1()).public_key()
OKP = ed25519.Ed25519PrivateKey.generate().public_key()


def test_the_jwk_of_an_ed25519_key() -> None:
    raw = OKP.public_bytes(Encoding.Raw, PublicFormat.Raw)
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": b64url_encode(raw)}
    for key in (
        PublicKey.from_raw(raw),
        PublicKey.from_spki(spki(OKP)),
        PublicKey.from_jwk({**jwk, "kid": "k", "use": "sig"}),
    ):
        assert key.public_jwk() == jwk


@given(st.integers(1, 2**255))  # below the order of the group
@settings(max_examples=50)
def test_the_jwk_of_a_p256_key(secret: int) -> None:
    public = ec.derive_private_key(secret, ec.SECP256R1()).public_key()
    numbers = public.public_numbers()
    key = PublicKey.from_spki(spki(public))
    jwk = key.public_jwk()
    assert jwk == {
        "crv": "P-256", "kty": "EC", "x": b64url_encode(numbers.x.to_bytes(32, "big")),
        "y": b64url_encode(numbers.y.to_bytes(32, "big")),
    }  # fmt: skip
    assert (key.alg, PublicKey.from_jwk(dict(jwk)).public_jwk()) == ("ES256", jwk)


def test_coordinates_keep_their_leading_zeros() -> None:
    """RFC 7518, section 6.2.1.2: the length is that of the curve, whatever the number."""
    short = set()
    for secret in range(1, 2000):
        public = ec.derive_private_key(secret, ec.SECP256R1()).public_key()
        numbers = public.public_numbers()
        if min(numbers.x, numbers.y) < 2**248:
            short.add("x" if numbers.x < numbers.y else "y")
            jwk = PublicKey.from_spki(spki(public)).public_jwk()
            assert (number(jwk["x"]), number(jwk["y"])) == (numbers.x, numbers.y)
            assert len(b64url_decode(jwk["x"])) == len(b64url_decode(jwk["y"])) == 32
    assert short == {"x", "y"}


def test_a_compressed_point_is_the_same_key() -> None:
    whole = spki(EC)
    point = whole[-65:]
    compressed = bytes([2 + (point[-1] & 1)]) + point[1:33]
    # SEQUENCE { AlgorithmIdentifier, BIT STRING }, with 32 bytes less in it
    algorithm = whole[2:-68]
    body = algorithm + bytes([3, len(compressed) + 1, 0]) + compressed
    key = PublicKey.from_spki(bytes([0x30, len(body)]) + body)
    assert key.public_jwk() == PublicKey.from_spki(whole).public_jwk()


def test_the_jwk_of_an_rsa_key_has_no_leading_zeros() -> None:
    """RFC 7518, section 2 (Base64urlUInt): one spelling, hence one thumbprint."""
    numbers = RSA.public_numbers()
    key = PublicKey.from_spki(spki(RSA))
    jwk = key.public_jwk()
    assert key.alg == "RS256"
    assert set(jwk) == {"kty", "n", "e"}
    assert (jwk["kty"], number(jwk["n"]), number(jwk["e"])) == ("RSA", numbers.n, 65537)
    assert (len(b64url_decode(jwk["n"])), jwk["e"]) == (256, "AQAB")
    padded = {**jwk, "n": b64url_encode(bytes(3) + b64url_decode(jwk["n"])), "e": b64url_encode(b"\0\1\0\1")}
    assert PublicKey.from_jwk(dict(padded)).public_jwk() == jwk


def taken(n: int, e: int) -> bool:
    size = (n.bit_length() + 7) // 8
    jwk = {
        "kty": "RSA",
        "n": b64url_encode(n.to_bytes(size, "big")),
        "e": b64url_encode(e.to_bytes((e.bit_length() + 7) // 8, "big")),
    }
    found = []
    for make in (
        lambda: PublicKey.from_jwk(dict(jwk)),
        lambda: PublicKey.from_spki(spki(rsa.RSAPublicNumbers(e, n).public_key())),
    ):
        try:
            key = make()
        except KeyFormatError:
            found.append(False)
        else:
            found.append(True)
            assert key.public_jwk() == jwk
    assert found[0] == found[1], "a JWK and SubjectPublicKeyInfo differ about the same key"
    return found[0]


@pytest.mark.parametrize(
    ("bits", "exponent", "good"),
    [
        (2047, 65537, False), (2048, 65537, True), (16384, 65537, True), (16385, 65537, False),
        (2048, 2**64 - 1, True), (2048, 2**64 + 1, False), (3072, 2**64 + 1, False),
    ],
)  # fmt: skip
def test_rsa_keys_that_only_burn_time_are_refused(bits: int, exponent: int, good: bool) -> None:
    assert taken(2 ** (bits - 1) + 1, exponent) is good


@pytest.mark.parametrize("exponent", [b"", b"\0", b"\1", b"\2", b"\1\0\0"])
def test_rsa_exponents_that_are_none(exponent: bytes) -> None:
    """Under an exponent of 1, whoever knows the key can sign (RFC 8017, section 3.1 asks for an odd one from 3 on)."""
    n = PublicKey.from_spki(spki(RSA)).public_jwk()["n"]
    assert PublicKey.from_jwk({"kty": "RSA", "n": n, "e": b64url_encode(b"\3")}).alg == "RS256"
    with pytest.raises(KeyFormatError):
        PublicKey.from_jwk({"kty": "RSA", "n": n, "e": b64url_encode(exponent)})


def test_rsa_keys_that_are_no_der() -> None:
    """SubjectPublicKeyInfo (RFC 5280, section 4.1) over RSAPublicKey (RFC 8017, appendix A.1.1), piece by piece."""

    def element(tag: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size]) if size < 0x80 else bytes([0x82]) + size.to_bytes(2, "big")
        return bytes([tag]) + length + content

    algorithm = element(0x30, element(6, bytes.fromhex("2a864886f70d010101")) + b"\x05\x00")

    def info(bits: bytes) -> bytes:
        return element(0x30, algorithm + bits)

    def numbers(*values: bytes) -> bytes:
        return info(element(3, b"\0" + element(0x30, b"".join(element(2, value) for value in values))))

    n = (2**2047 + 1).to_bytes(257, "big")
    assert number(PublicKey.from_spki(numbers(n, b"\x03")).public_jwk()["n"]) == 2**2047 + 1
    bad = [
        info(element(3, b"\x01" + element(0x30, element(2, n) + element(2, b"\x03")))),  # unused bits
        numbers(n), numbers(b"", b"\x03"), numbers(n, b"\x03", b"\x01"),
        numbers(n[1:], b"\x03"), numbers(n, b"\x83"),  # negative
        numbers(b"\0" + n, b"\x03"), numbers(n, b"\0\x03"),  # longer than need be
    ]  # fmt: skip
    for der in bad:
        with pytest.raises(KeyFormatError):
            PublicKey.from_spki(der)


def test_what_is_no_key() -> None:
    for good in (RSA, EC, OKP):
        der = spki(good)
        assert PublicKey.from_spki(der).verify(b"m", b"") is False
        for cut in range(len(der)):
            with pytest.raises(KeyFormatError):
                PublicKey.from_spki(der[:cut])
        with pytest.raises(KeyFormatError):
            PublicKey.from_spki(der + b"\0")
    for other in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(KeyFormatError):
            PublicKey.from_spki(spki(other.public_key()))
