"""The public half of a key pair."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kest._kestcore import PublicKey, b64url_decode, b64url_encode, canonicalize, parse, sha256
from kest.errors import JSONSyntaxError, KestError, KeyFormatError
from kest.gate.crypto import clock
from kest.gate.crypto.cose import VerifyingKeys, check_key_id
from kest.gate.crypto.pq import ML_DSA_KEY_LEN, ML_KEM_KEY_LEN, MLDSAPublic

__all__ = ["PublicKeyBundle", "check_times"]

EARLIEST, LATEST = -62_135_596_800, 253_402_300_799  # Unix seconds of the years 1 and 9999
MAX_BUNDLE = 16_384


def check_times(created_at: object, expires_at: object) -> None:
    """Raise KeyFormatError unless these are Unix seconds (expires_at: or None)."""
    for name, value in (("created_at", created_at), ("expires_at", expires_at)):
        if value is None and name == "expires_at":
            continue
        if type(value) is not int or not EARLIEST <= value <= LATEST:
            raise KeyFormatError(f"{name} is an int of Unix seconds between the years 1 and 9999")


@dataclass(frozen=True, slots=True, repr=False)
class PublicKeyBundle:
    """What others need to verify and to seal for the owner of a key pair. Immutable; holds nothing secret.

    Attributes:
        id: the key id that signatures name.
        ml_dsa_verifying_key: ML-DSA-65, 1,952 bytes.
        ml_kem_encapsulation_key: ML-KEM-768, 1,184 bytes.
        ed25519_verifying_key, x25519_public_key: 32 bytes each.
        created_at, expires_at: Unix seconds; None: does not expire.
    """

    id: str
    ml_dsa_verifying_key: bytes
    ml_kem_encapsulation_key: bytes
    ed25519_verifying_key: bytes
    x25519_public_key: bytes
    created_at: int
    expires_at: int | None = None
    _expanded: list[VerifyingKeys] = field(default_factory=list, init=False, compare=False)

    _KEYS: ClassVar[dict[str, int]] = {
        "ml_dsa_verifying_key": ML_DSA_KEY_LEN,
        "ml_kem_encapsulation_key": ML_KEM_KEY_LEN,
        "ed25519_verifying_key": 32,
        "x25519_public_key": 32,
    }

    def __post_init__(self) -> None:
        check_key_id(self.id)
        for name, length in self._KEYS.items():
            value = getattr(self, name)
            if not isinstance(value, bytes):
                raise TypeError(f"{name} is bytes, not {type(value).__name__}")
            if len(value) != length:
                raise KeyFormatError(f"{name} is {length} bytes, not {len(value)}")
        check_times(self.created_at, self.expires_at)
        PublicKey.from_raw(self.ed25519_verifying_key)

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and clock.now() > self.expires_at

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the bundle: what two people compare."""
        return sha256(self.to_json().encode()).hex()

    def verifying_keys(self) -> VerifyingKeys:
        """The keys, expanded once."""
        if not self._expanded:
            ed25519 = PublicKey.from_raw(self.ed25519_verifying_key)
            self._expanded.append(VerifyingKeys(self.id, ed25519, MLDSAPublic(self.ml_dsa_verifying_key)))
        return self._expanded[0]

    def to_dict(self) -> dict[str, Any]:
        """Its members, keys as base64url without padding."""
        keys = {name: b64url_encode(getattr(self, name)) for name in self._KEYS}
        return {"id": self.id, **keys, "created_at": self.created_at, "expires_at": self.expires_at}

    def to_json(self) -> str:
        """RFC 8785 canonical JSON, about 4.4 kB."""
        return canonicalize(self.to_dict()).decode()

    def to_bytes(self) -> bytes:
        """``KPUB``, a version byte, and the JSON."""
        return b"KPUB\x01" + self.to_json().encode()

    @classmethod
    def from_dict(cls, members: object) -> PublicKeyBundle:
        """The bundle of these members.

        Raises:
            KeyFormatError: a member is missing, unknown, or malformed.
        """
        names = {"id", *cls._KEYS, "created_at", "expires_at"}
        if not isinstance(members, Mapping) or set(members) != names:
            raise KeyFormatError(f"a public key bundle is an object with exactly {', '.join(sorted(names))}")
        try:
            keys = {name: b64url_decode(members[name]) for name in cls._KEYS}
            return cls(members["id"], created_at=members["created_at"], expires_at=members["expires_at"], **keys)
        except (KestError, TypeError, ValueError) as error:
            raise KeyFormatError(f"public key bundle: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> PublicKeyBundle:
        """The bundle in a JSON text.

        Raises:
            KeyFormatError: it is none.
        """
        if not isinstance(text, str):
            raise TypeError(f"from_json takes a str, not {type(text).__name__}; from_bytes takes bytes")
        if len(text) > MAX_BUNDLE:
            raise KeyFormatError("public key bundle: longer than one can be")
        try:
            return cls.from_dict(parse(text))
        except JSONSyntaxError as error:
            raise KeyFormatError(f"public key bundle: {error}") from None
        except ValueError as error:
            raise error if isinstance(error, KestError) else KeyFormatError("public key bundle: not text") from None

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKeyBundle:
        """The bundle that `to_bytes` wrote.

        Raises:
            KeyFormatError: it is none.
        """
        if len(data) < 5:
            raise KeyFormatError("public key bundle: too short for header")
        if data[:4] != b"KPUB":
            raise KeyFormatError("public key bundle: magic mismatch")
        if data[4] != 1:
            raise KeyFormatError(f"public key bundle: unsupported format version {data[4]}")
        try:
            return cls.from_json(bytes(data[5:]).decode())
        except UnicodeDecodeError:
            raise KeyFormatError("public key bundle: not UTF-8") from None

    def public_jwk(self) -> dict[str, str]:
        """The Ed25519 key as a JWK (RFC 8037), so that a `TrustStore` takes a bundle as it is."""
        x = base64.urlsafe_b64encode(self.ed25519_verifying_key).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id, "alg": "EdDSA", "use": "sig"}

    def __repr__(self) -> str:
        lengths = ", ".join(f"{name}={len(getattr(self, name))} bytes" for name in self._KEYS)
        return f"PublicKeyBundle(id={self.id}, {lengths}, created_at={self.created_at}, expires_at={self.expires_at})"
