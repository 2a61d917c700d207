"""COSE_Sign (RFC 9052, section 4.1) with Ed25519 (RFC 9864), ML-DSA-65 (draft-ietf-cose-dilithium), or both.

Which algorithms must verify stands in the body's protected header, so each signature covers it: whoever takes one away
or relabels the rest breaks the other. The kind of object is in there too (``typ``, RFC 9596) and, as a label of its own, in
``external_aad``: nothing signed as one kind verifies as another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from kest._kestcore import PublicKey, Signer
from kest.errors import GateError, GateInputError, KeyFormatError
from kest.gate.crypto import cbor
from kest.gate.crypto.pq import ML_DSA_SIG_LEN, MLDSA, MLDSAPublic

__all__ = [
    "ALGORITHMS",
    "HYBRID",
    "MAX_KEY_ID",
    "Algorithm",
    "CoseError",
    "Envelope",
    "Kind",
    "SigningKeys",
    "VerifyingKeys",
    "build",
    "check",
    "check_key_id",
    "parse",
    "protected_header",
    "sign",
]

Algorithm = Literal["ed25519", "ml-dsa-65", "ml-dsa-65+ed25519"]
"""What must verify. The last is called hybrid."""

HYBRID: Algorithm = "ml-dsa-65+ed25519"

ED25519, ML_DSA_65 = -19, -49  # IANA, COSE Algorithms
ALGORITHMS: dict[Algorithm, tuple[int, ...]] = {
    "ed25519": (ED25519,),
    "ml-dsa-65": (ML_DSA_65,),
    HYBRID: (ED25519, ML_DSA_65),
}
_TITLES = {ED25519: "Ed25519", ML_DSA_65: "ML-DSA-65"}
_SIG_LEN = {ED25519: 64, ML_DSA_65: ML_DSA_SIG_LEN}
_SIGN_HEADERS = {number: cbor.encode({1: number}) for number in _TITLES}

ALG, CRIT, KID, TYP, ALGS = 1, 2, 4, 16, "algs"
_TAG = b"\xd8\x62"  # tag 98, COSE_Sign
MAX_KEY_ID = 256


class CoseError(GateError, ValueError):
    """Not an envelope of the expected kind, or one that does not verify. Callers word it for what was being verified."""


@dataclass(frozen=True)
class Kind:
    """A kind of signed object: its media type, and the label that separates its signatures from all others."""

    typ: str
    label: bytes
    max_bytes: int = 16_384


@dataclass(frozen=True, repr=False)
class SigningKeys:
    """What signs. Without the secret half it only says whose it would be."""

    key_id: str
    algorithm: Algorithm
    ed25519: Signer | None
    ml_dsa: MLDSA | None

    def __repr__(self) -> str:
        return f"SigningKeys(key_id={self.key_id!r}, algorithm={self.algorithm!r})"

    def __reduce__(self) -> Any:
        raise TypeError("secret keys are not pickled")


@dataclass(frozen=True, eq=False)
class VerifyingKeys:
    """Whose signatures are believed."""

    key_id: str
    ed25519: PublicKey | None
    ml_dsa: MLDSAPublic | None


@dataclass(frozen=True)
class Envelope:
    """A parsed envelope, nothing of it verified. ``header``: the body's protected members beyond the four fixed ones."""

    key_id: str
    algorithm: Algorithm
    protected: bytes
    header: dict[int | str, Any]
    unprotected: dict[int | str, Any]
    payload: bytes
    signatures: dict[int, bytes]


def check_key_id(key_id: object) -> str:
    """The key id, if it can be one.

    Raises:
        GateInputError: empty, longer than 256 bytes, or not text.
    """
    if not isinstance(key_id, str) or not key_id or not key_id.isprintable() or len(key_id.encode()) > MAX_KEY_ID:
        raise GateInputError(f"a key id is printable text of 1 to {MAX_KEY_ID} bytes")
    return key_id


@lru_cache(maxsize=256)
def protected_header(key_id: str, algorithm: Algorithm, kind: Kind, *flags: str) -> bytes:
    """The body's protected header, encoded; ``flags`` are members of their own with the value true."""
    more: dict[int | str, Any] = dict.fromkeys(flags, True)
    members: dict[int | str, Any] = {KID: key_id.encode(), TYP: kind.typ, ALGS: list(ALGORITHMS[algorithm])}
    return cbor.encode({**members, CRIT: [ALGS, *flags], **more})


def _to_sign(protected: bytes, number: int, kind: Kind, payload: bytes) -> bytes:
    """Sig_structure (RFC 9052, section 4.4)."""
    parts = (protected, _SIGN_HEADERS[number], kind.label, payload)
    return b"\x85\x69Signature" + b"".join(cbor.head(0x40, len(part)) + part for part in parts)


def sign(
    keys: SigningKeys, kind: Kind, payload: bytes, *flags: str, only: tuple[int, ...] | None = None
) -> tuple[bytes, dict[int, bytes]]:
    """The body's protected header (see `protected_header`), and a signature for each algorithm, or for ``only`` these.

    Raises:
        KeyFormatError: a secret key is not there.
    """
    protected = protected_header(keys.key_id, keys.algorithm, kind, *flags)
    signatures: dict[int, bytes] = {}
    for number in ALGORITHMS[keys.algorithm] if only is None else only:
        key = keys.ed25519 if number == ED25519 else keys.ml_dsa
        if key is None:
            raise KeyFormatError(f"key {keys.key_id!r} has no {_TITLES[number]} secret half here: it can only verify")
        signatures[number] = key.sign(_to_sign(protected, number, kind, payload))
    return protected, signatures


def build(protected: bytes, payload: bytes, signatures: dict[int, bytes], unprotected: bytes = b"\xa0") -> bytes:
    """The envelope of these parts; ``unprotected`` is an encoded map."""
    encode_bytes = cbor.head
    out = [_TAG, b"\x84", encode_bytes(0x40, len(protected)), protected, unprotected]
    out += [encode_bytes(0x40, len(payload)), payload, encode_bytes(0x80, len(signatures))]
    for number, signature in signatures.items():
        header = _SIGN_HEADERS[number]
        out += [
            b"\x83",
            encode_bytes(0x40, len(header)),
            header,
            b"\xa0",
            encode_bytes(0x40, len(signature)),
            signature,
        ]
    return b"".join(out)


def parse(data: bytes, kind: Kind, *, only: tuple[int, ...] | None = None, unprotected: bool = False) -> Envelope:
    """Read an envelope; nothing is believed yet.

    Args:
        data: the envelope.
        kind: what it must be.
        only: the algorithms whose signatures it must carry, where these are fewer than must verify.
        unprotected: whether its unprotected header may have members.

    Raises:
        CoseError: it is something else, or not encoded as `build` does.
    """
    if type(data) is not bytes:
        raise TypeError(f"an envelope is bytes, not {type(data).__name__}")
    if len(data) > kind.max_bytes:
        raise CoseError(f"envelope parse: {len(data)} bytes, more than the {kind.max_bytes} that one can have")
    if data[:2] != _TAG:
        raise CoseError("envelope parse: not a COSE_Sign object")
    try:
        protected, loose, payload, rows = _split(data)
    except cbor.CBORError as error:
        raise CoseError(f"envelope parse: {error}") from None
    if loose and not unprotected:
        raise CoseError("envelope parse: an unprotected header that is not expected")
    key_id, algorithm, header = _read_header(protected, kind)
    expected = ALGORITHMS[algorithm] if only is None else only
    return Envelope(key_id, algorithm, protected, header, loose, payload, _read_signatures(rows, expected))


def _split(data: bytes) -> tuple[bytes, dict[int | str, Any], bytes, list[Any]]:
    """Protected header, unprotected header, payload and signatures, of the right types."""
    end = len(data)
    if data[2:3] == b"\x84":  # step by step, which is several times as fast as the general reader
        protected, at = cbor.byte_string(data, 3)
        if data[at : at + 1] == b"\xa0":
            payload, at = cbor.byte_string(data, at + 1)
            rows, at = _split_rows(data, at)
            if at == end:
                return protected, {}, payload, rows
    body = cbor.decode(data[2:])
    if type(body) is not list or [type(part) for part in body] != [bytes, dict, bytes, list]:
        raise CoseError("envelope parse: not a COSE_Sign object")
    return body[0], body[1], body[2], body[3]


def _split_rows(data: bytes, at: int) -> tuple[list[Any], int]:
    """The signatures, as far as they look like ours; for anything else a position that is not the end."""
    count = data[at] - 0x80 if at < len(data) else 0
    rows: list[Any] = []
    at += 1
    for _ in range(count if 0 < count < 3 else 0):
        if data[at : at + 1] != b"\x83":
            return rows, -1
        header, at = cbor.byte_string(data, at + 1)
        if data[at : at + 1] != b"\xa0":
            return rows, -1
        signature, at = cbor.byte_string(data, at + 1)
        rows.append([header, {}, signature])
    return rows, at if rows else -1


@lru_cache(maxsize=256)
def _read_header(protected: bytes, kind: Kind) -> tuple[str, Algorithm, dict[int | str, Any]]:
    """Key id, algorithm, and further members (not to be changed). The same key writes the same header again and again."""
    try:
        members = cbor.decode(protected)
    except cbor.CBORError as error:
        raise CoseError(f"envelope parse: {error}") from None
    if type(members) is not dict:
        raise CoseError("envelope parse: no protected header")
    rest = dict(members)
    key_id, typ, algs, crit = (rest.pop(name, None) for name in (KID, TYP, ALGS, CRIT))
    if typ != kind.typ:
        raise CoseError(f"envelope parse: of type {str(typ)[:60]!r}, not {kind.typ!r}")
    algorithm: Algorithm | None = next((name for name in ALGORITHMS if algs == [*ALGORITHMS[name]]), None)
    if algorithm is None:
        raise CoseError("envelope parse: an algorithm that Kest does not use")
    if crit != [ALGS, *rest]:
        raise CoseError("envelope parse: its critical header members are not the ones it has")
    try:
        if type(key_id) is not bytes:
            raise ValueError
        return check_key_id(key_id.decode()), algorithm, rest
    except ValueError:
        raise CoseError("envelope parse: a malformed key id") from None


def _read_signatures(rows: list[Any], expected: tuple[int, ...]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for row in rows:
        if type(row) is not list or len(row) != 3 or row[1] != {} or type(row[0]) is not bytes:
            raise CoseError("envelope parse: a malformed signature")
        number = next((number for number, header in _SIGN_HEADERS.items() if header == row[0]), None)
        if number is None or type(row[2]) is not bytes or len(row[2]) != _SIG_LEN[number]:
            raise CoseError("envelope parse: a malformed signature")
        if number in found:
            raise CoseError("envelope parse: a signature twice")
        found[number] = row[2]
    if tuple(found) != expected:
        missing = [_TITLES[number] for number in expected if number not in found]
        reason = f"missing {' and '.join(missing)} signature" if missing else "signatures that its header does not name"
        raise CoseError(f"envelope parse: {'hybrid envelope ' if len(expected) > 1 else ''}{reason}")
    return found


def check(protected: bytes, payload: bytes, signatures: dict[int, bytes], keys: VerifyingKeys, kind: Kind) -> None:
    """Verify every signature.

    Raises:
        CoseError: one of them is wrong, or there is no key for it.
    """
    for number, signature in signatures.items():
        message = _to_sign(protected, number, kind, payload)
        if number == ED25519:
            right = keys.ed25519 is not None and keys.ed25519.verify(message, signature)
        else:
            right = keys.ml_dsa is not None and keys.ml_dsa.verify(message, signature)
        if not right:
            raise CoseError(f"signature verification failed: {_TITLES[number]} of key {keys.key_id!r}")
