"""Compact JWS (RFC 7515) as identities need it: the signing input, strict reading, ECDSA's two encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kest import _kestcore
from kest.errors import IdentityError, KestError

__all__ = ["ALGORITHMS", "compact", "ecdsa_der_to_raw", "jwk_algorithm", "read_jws", "signing_input"]

#: What an entry may be signed with. HS256 and none are not signatures that others can check.
ALGORITHMS = ("EdDSA", "ES256", "RS256")
SIGNATURE_BYTES = {"EdDSA": "64", "ES256": "64 (r||s)", "RS256": "256 or more"}
_MAX_JWS = 16 * 1024 * 1024  # as in the C core
_KEY_KINDS = {
    ("OKP", "Ed25519"): "EdDSA",
    ("EC", "P-256"): "ES256",
    ("RSA", None): "RS256",
}


def signing_input(
    principal: str, payload: bytes, alg: str, x5c: Sequence[str] | None = None, *, typ: str = "JWS"
) -> tuple[str, bytes]:
    """The encoded protected header, and the bytes that a JWS signature covers (RFC 7515, section 5.1).

    Args:
        principal: becomes the kid.
        payload: the bytes of the payload, any content.
        alg: EdDSA, ES256 or RS256.
        x5c: certificate chain, leaf first, each the standard base64 of its DER form (RFC 7515, section 4.1.6).
    Returns:
        ``(header_b64, header_b64 + "." + payload_b64 as bytes)``.
    """
    if alg not in ALGORITHMS:
        raise IdentityError(f"algorithm {alg!r} is not allowed; use one of {', '.join(ALGORITHMS)}")
    header: dict[str, Any] = {"alg": alg, "kid": principal, "typ": typ}
    if x5c:
        if alg == "EdDSA":
            raise IdentityError("an x5c certificate chain goes with ES256 or RS256 keys, not with EdDSA")
        header["x5c"] = list(x5c)
    encoded = _kestcore.b64url_encode(_kestcore.canonicalize(header))
    return encoded, f"{encoded}.{_kestcore.b64url_encode(bytes(payload))}".encode("ascii")


def compact(message: bytes, signature: bytes) -> str:
    """The compact serialisation made of a signing input and its signature."""
    return f"{message.decode('ascii')}.{_kestcore.b64url_encode(bytes(signature))}"


def read_jws(jws: str, principal: str, payload: bytes, who: str, typ: str) -> tuple[str, bytes, bytes]:
    """Check everything about a JWS but its signature.

    Returns:
        Algorithm, signing input, signature.
    Raises:
        IdentityError: naming `who` returned it and what is wrong; never quoting what was returned.
    """
    if len(jws) > _MAX_JWS:
        raise IdentityError(f"{who} returned a string of {len(jws)} characters, too long for a JWS")
    parts = jws.split(".")
    if len(parts) != 3 or not all(parts) or not jws.isascii():
        raise IdentityError(f"{who} returned a string that is not a compact JWS (three base64url parts)")
    header_b64, payload_b64, signature_b64 = parts
    try:
        header_bytes = _kestcore.b64url_decode(header_b64)
        signed_payload = _kestcore.b64url_decode(payload_b64)
        signature = _kestcore.b64url_decode(signature_b64)
        header = _kestcore.parse(header_bytes)
        canonical = _kestcore.canonicalize(header) == header_bytes
    except (KestError, ValueError) as error:
        raise IdentityError(f"{who} returned a JWS that cannot be read ({type(error).__name__})") from error
    if not isinstance(header, dict) or not {"alg", "kid", "typ"} <= header.keys() <= {"alg", "kid", "typ", "x5c"}:
        raise IdentityError(f"{who} returned a JWS whose header does not have exactly alg, kid, typ (and x5c)")
    alg = header["alg"]
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise IdentityError(f"{who} returned a JWS with an algorithm other than {', '.join(ALGORITHMS)}")
    if header["kid"] != principal:
        raise IdentityError(f"{who} returned a JWS whose kid is not its principal {principal!r}")
    if header["typ"] != typ:
        raise IdentityError(f"{who} returned a JWS whose typ is not {typ!r}")
    if "x5c" in header and (alg == "EdDSA" or not _is_chain(header["x5c"])):
        raise IdentityError(f"{who} returned a JWS whose x5c is not a certificate chain for an ES256 or RS256 key")
    if not canonical:
        raise IdentityError(
            f"{who} returned a JWS whose header is not canonical JSON (RFC 8785: sorted keys, no white space); "
            "build it with signing_input"
        )
    if signed_payload != payload:
        raise IdentityError(f"{who} returned a JWS over another payload than the one it was given")
    if len(signature) != 64 if alg != "RS256" else len(signature) < 256:
        raise IdentityError(
            f"{who} returned a JWS with {len(signature)} signature bytes where {alg} has {SIGNATURE_BYTES[alg]}"
        )
    return alg, f"{header_b64}.{payload_b64}".encode("ascii"), signature


def _is_chain(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(cert, str) and cert for cert in value)


def jwk_algorithm(jwk: Mapping[str, Any]) -> str | None:
    """The one algorithm that a public JWK is used with, None where Kest does not use such keys."""
    kty = jwk.get("kty")
    curve = None if kty == "RSA" else jwk.get("crv")
    return _KEY_KINDS.get((kty, curve)) if isinstance(kty, str) else None


def ecdsa_der_to_raw(der: bytes) -> bytes:
    """An ECDSA P-256 signature from DER (``SEQUENCE {r, s}``, RFC 3279) to the 64 bytes r||s of JWS (RFC 7518, 3.4).

    Raises:
        IdentityError: `der` is not the one DER encoding of two positive integers below 2^256.
    """
    if len(der) < 8 or der[0] != 0x30 or der[1] != len(der) - 2:
        raise IdentityError("not an ECDSA P-256 signature in DER form: the outer sequence does not fit")
    raw, at = b"", 2
    for _ in range(2):
        length = der[at + 1] if at + 2 <= len(der) and der[at] == 0x02 else 0
        number = der[at + 2 : at + 2 + length]
        if not 1 <= length <= 33 or len(number) != length or number[0] & 0x80:
            raise IdentityError("not an ECDSA P-256 signature in DER form: r or s is not a positive 256-bit integer")
        if length > 1 and number[0] == 0 and not number[1] & 0x80:
            raise IdentityError("not an ECDSA P-256 signature in DER form: r or s has a superfluous zero byte")
        value = number.lstrip(b"\0")
        if not 1 <= len(value) <= 32:
            raise IdentityError("not an ECDSA P-256 signature in DER form: r or s is zero or too long")
        raw += value.rjust(32, b"\0")
        at += 2 + length
    if at != len(der):
        raise IdentityError("not an ECDSA P-256 signature in DER form: bytes follow it")
    return raw
