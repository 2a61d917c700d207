"""ML-DSA-65 (FIPS 204), ML-KEM-768 (FIPS 203) and X25519 from the package ``cryptography``, loaded when first used.

``cryptography`` lets go of the interpreter's lock while it signs and verifies. Keys are expanded once, when they are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kest.errors import KeyFormatError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

__all__ = [
    "MLDSA",
    "MLKEM",
    "ML_DSA_KEY_LEN",
    "ML_DSA_SIG_LEN",
    "ML_KEM_CT_LEN",
    "ML_KEM_KEY_LEN",
    "MLDSAPublic",
    "encapsulate",
    "hkdf",
    "require",
    "x25519",
    "x25519_public",
]

ML_DSA_SEED_LEN, ML_DSA_KEY_LEN, ML_DSA_SIG_LEN = 32, 1952, 3309
ML_KEM_SEED_LEN, ML_KEM_KEY_LEN, ML_KEM_CT_LEN = 64, 1184, 1088

_loaded: Any = None


class _Modules:
    def __init__(self) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.backends.openssl.backend import backend
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem, x25519
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        if not backend.mldsa_supported():
            raise ImportError("its OpenSSL has no ML-DSA")
        self.invalid, self.hashes, self.hkdf = InvalidSignature, hashes, HKDF
        self.mldsa, self.mlkem, self.x25519 = mldsa, mlkem, x25519


def require() -> Any:
    """The modules of ``cryptography``.

    Raises:
        MissingExtraError: it is absent, too old, or was built without post-quantum algorithms.
    """
    global _loaded
    if _loaded is None:
        try:
            _loaded = _Modules()
        except (ImportError, AttributeError) as error:
            raise MissingExtraError(
                "post-quantum keys need cryptography 50 or newer with an OpenSSL that has ML-DSA and ML-KEM: "
                f'pip install "kest[pq]" ({error})'
            ) from error
    return _loaded


class MLDSA:
    """An ML-DSA-65 secret key. Its seed is in the memory of ``cryptography``, never in a repr or a pickle."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes | None = None) -> None:
        kind = require().mldsa.MLDSA65PrivateKey
        if seed is not None and len(seed) != ML_DSA_SEED_LEN:
            raise KeyFormatError(f"an ML-DSA-65 signing key is a seed of {ML_DSA_SEED_LEN} bytes, not {len(seed)}")
        self._key: MLDSA65PrivateKey = kind.generate() if seed is None else kind.from_seed_bytes(bytes(seed))
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """A hedged signature (FIPS 204, algorithm 2) with an empty context, 3,309 bytes."""
        return self._key.sign(message)

    def seed(self) -> bytes:
        """The 32 bytes that the key is made from."""
        return self._key.private_bytes_raw()

    def __reduce__(self) -> Any:
        raise TypeError("a secret key is not pickled; save its KeyPair under a passphrase instead")


class MLDSAPublic:
    """An ML-DSA-65 public key."""

    __slots__ = ("_invalid", "_key")

    def __init__(self, raw: bytes) -> None:
        modules = require()
        if len(raw) != ML_DSA_KEY_LEN:
            raise KeyFormatError(f"an ML-DSA-65 verifying key is {ML_DSA_KEY_LEN} bytes, not {len(raw)}")
        try:
            self._key: MLDSA65PublicKey = modules.mldsa.MLDSA65PublicKey.from_public_bytes(bytes(raw))
        except ValueError as error:
            raise KeyFormatError(f"not an ML-DSA-65 verifying key: {error}") from None
        self._invalid = modules.invalid

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is right."""
        if len(signature) != ML_DSA_SIG_LEN:
            return False
        try:
            self._key.verify(signature, message)
        except self._invalid:
            return False
        return True


class MLKEM:
    """An ML-KEM-768 secret key."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes | None = None) -> None:
        kind = require().mlkem.MLKEM768PrivateKey
        if seed is not None and len(seed) != ML_KEM_SEED_LEN:
            raise KeyFormatError(
                f"an ML-KEM-768 decapsulation key is a seed of {ML_KEM_SEED_LEN} bytes, not {len(seed)}"
            )
        self._key: MLKEM768PrivateKey = kind.generate() if seed is None else kind.from_seed_bytes(bytes(seed))
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret; for a ciphertext that was not made for this key, a secret that nobody else has."""
        return self._key.decapsulate(ciphertext)

    def seed(self) -> bytes:
        """d and z, 64 bytes."""
        return self._key.private_bytes_raw()

    def __reduce__(self) -> Any:
        raise TypeError("a secret key is not pickled; save its KeyPair under a passphrase instead")


def ml_kem_public(raw: bytes) -> MLKEM768PublicKey:
    """An ML-KEM-768 encapsulation key, checked (FIPS 203, section 7.2)."""
    modules = require()
    if len(raw) != ML_KEM_KEY_LEN:
        raise KeyFormatError(f"an ML-KEM-768 encapsulation key is {ML_KEM_KEY_LEN} bytes, not {len(raw)}")
    try:
        key: MLKEM768PublicKey = modules.mlkem.MLKEM768PublicKey.from_public_bytes(bytes(raw))
    except ValueError as error:
        raise KeyFormatError(f"not an ML-KEM-768 encapsulation key: {error}") from None
    return key


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A shared secret and its ciphertext for an encapsulation key."""
    return ml_kem_public(public).encapsulate()


def x25519(seed: bytes | None = None) -> X25519PrivateKey:
    """An X25519 secret key, random or from its 32 bytes."""
    kind = require().x25519.X25519PrivateKey
    if seed is not None and len(seed) != 32:
        raise KeyFormatError(f"an X25519 secret key is 32 bytes, not {len(seed)}")
    key: X25519PrivateKey = kind.generate() if seed is None else kind.from_private_bytes(bytes(seed))
    return key


def x25519_public(raw: bytes) -> X25519PublicKey:
    """An X25519 public key from its 32 bytes."""
    if len(raw) != 32:
        raise KeyFormatError(f"an X25519 public key is 32 bytes, not {len(raw)}")
    key: X25519PublicKey = require().x25519.X25519PublicKey.from_public_bytes(bytes(raw))
    return key


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 (RFC 5869)."""
    modules = require()
    key: bytes = modules.hkdf(modules.hashes.SHA256(), length, salt, info).derive(secret)
    return key
