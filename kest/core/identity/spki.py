"""Public keys from SubjectPublicKeyInfo (RFC 5280, section 4.1) to JWK, for the three kinds that Kest verifies.

Written out because `cryptography` is not a dependency, and the forms are few: two are of fixed length.
"""

from __future__ import annotations

from typing import Any

from kest import _kestcore

__all__ = ["jwk_from_spki"]

_ED25519 = bytes.fromhex("302a300506032b6570032100")  # RFC 8410
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")  # RFC 5480, uncompressed point
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")  # RFC 8017


def jwk_from_spki(der: bytes) -> tuple[str, dict[str, Any]] | None:
    """Algorithm and JWK of a public key; None for kinds that Kest does not use, RSA below 2,048 bits, or bad DER."""
    encode = _kestcore.b64url_encode
    if der.startswith(_ED25519) and len(der) == len(_ED25519) + 32:
        return "EdDSA", {"kty": "OKP", "crv": "Ed25519", "x": encode(der[-32:])}
    if der.startswith(_P256) and len(der) == len(_P256) + 64:
        return "ES256", {"kty": "EC", "crv": "P-256", "x": encode(der[-64:-32]), "y": encode(der[-32:])}
    numbers = _rsa_numbers(der)
    if numbers is None or numbers[0].bit_length() < 2048:
        return None
    n, e = (encode(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in numbers)
    return "RS256", {"kty": "RSA", "n": n, "e": e}


def _rsa_numbers(der: bytes) -> tuple[int, int] | None:
    outer = _element(der, 0x30)
    if outer is None or outer[1] or not outer[0].startswith(_RSA_ALGORITHM):
        return None
    bits = _element(outer[0][len(_RSA_ALGORITHM) :], 0x03)
    if bits is None or bits[1] or bits[0][:1] != b"\0":
        return None
    key = _element(bits[0][1:], 0x30)
    modulus = _element(key[0], 0x02) if key and not key[1] else None
    exponent = _element(modulus[1], 0x02) if modulus else None
    if not modulus or not exponent or exponent[1] or not modulus[0] or not exponent[0]:
        return None
    if modulus[0][0] & 0x80 or exponent[0][0] & 0x80:
        return None  # negative
    return int.from_bytes(modulus[0], "big"), int.from_bytes(exponent[0], "big")


def _element(data: bytes, tag: int) -> tuple[bytes, bytes] | None:
    """The content of the DER element at the start of `data`, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        return None
    length, at = data[1], 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        if not 1 <= size <= 3 or length < 0x80:
            return None
    end = at + length
    return (data[at:end], data[end:]) if end <= len(data) else None
