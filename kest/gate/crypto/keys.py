"""KeyPair: signs permits and audit entries, opens sealed messages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, final

from kest._kestcore import Signer, uuid7
from kest.errors import GateInputError, KeyFormatError, SigningError
from kest.gate.crypto import clock
from kest.gate.crypto.bundles import LATEST, PublicKeyBundle, check_times
from kest.gate.crypto.cose import HYBRID, Algorithm, SigningKeys, check_key_id
from kest.gate.crypto.pq import MLDSA, MLKEM, x25519, x25519_public

__all__ = ["KeyPair", "SecretKeys"]


class SecretKeys(NamedTuple):
    """The seeds of a key pair. Lives as short as possible; its repr says nothing."""

    ed25519: bytes
    x25519: bytes
    ml_dsa: bytes
    ml_kem: bytes

    def __repr__(self) -> str:
        return "SecretKeys(...)"


@final
class KeyPair:
    """Four keys under one id: Ed25519 and ML-DSA-65 for signatures, X25519 and ML-KEM-768 for sealing.

    The Ed25519 key is in locked memory that is wiped when the object dies; the others are in the memory of ``cryptography``.
    Nothing secret is in a repr, and a key pair is neither pickled nor copied: save it under a passphrase.
    """

    __slots__ = ("_bundle", "_ed25519", "_ml_dsa", "_ml_kem", "_x25519")

    def __init__(self, id: str, secrets: SecretKeys, created_at: int, expires_at: int | None = None) -> None:
        check_times(created_at, expires_at)
        if len(secrets.ed25519) != 32:
            raise KeyFormatError("an Ed25519 signing key is a seed of 32 bytes")
        self._ed25519 = Signer(check_key_id(id), secrets.ed25519)
        self._x25519 = x25519(secrets.x25519)
        self._ml_dsa, self._ml_kem = MLDSA(secrets.ml_dsa), MLKEM(secrets.ml_kem)
        public = self._x25519.public_key().public_bytes_raw()
        self._bundle = PublicKeyBundle(
            id, self._ml_dsa.public, self._ml_kem.public, self._ed25519.public_key, public, created_at, expires_at
        )

    @classmethod
    def generate(cls, *, id: str | None = None) -> KeyPair:
        """A new key pair that does not expire, under a UUIDv7 or the given id.

        Raises:
            MissingExtraError: the extra ``pq`` is not installed.
        """
        return cls._random(id, int(clock.now()), None)

    @classmethod
    def generate_with_expiry(cls, seconds: int, *, id: str | None = None) -> KeyPair:
        """A new key pair that neither signs, nor opens channels, nor is believed after so many seconds."""
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise TypeError(f"seconds is an int, not {type(seconds).__name__}")
        created = int(clock.now())
        if not -created < seconds <= LATEST - created:
            raise GateInputError(f"an expiry in {seconds} seconds is no time in this era")
        return cls._random(id, created, created + seconds)

    @classmethod
    def _random(cls, id: str | None, created: int, expires: int | None) -> KeyPair:
        secrets = SecretKeys(*(os.urandom(length) for length in (32, 32, 32, 64)))
        return cls(uuid7() if id is None else id, secrets, created, expires)

    @classmethod
    def load(cls, path: str | Path, passphrase: str | bytes) -> KeyPair:
        """The key pair that `save` wrote.

        Raises:
            KeyFileError: the file is missing, readable by others, damaged, or of another passphrase.
        """
        from kest.gate.crypto.keyfile import load

        return load(path, passphrase)

    load_from_file = load

    def save(self, path: str | Path, passphrase: str | bytes) -> None:
        """Write it encrypted (Argon2id, XChaCha20-Poly1305), mode 0600, in one step: whole or not at all.

        Raises:
            KeyFileError: it cannot be written, or the passphrase is shorter than 8 bytes.
        """
        from kest.gate.crypto.keyfile import save

        save(self, path, passphrase)

    save_to_file = save

    @property
    def id(self) -> str:
        """The key id that signatures name."""
        return self._bundle.id

    @property
    def created_at(self) -> int:
        """Unix seconds."""
        return self._bundle.created_at

    @property
    def expires_at(self) -> int | None:
        """Unix seconds, or None."""
        return self._bundle.expires_at

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self._bundle.is_expired

    def public_keys(self) -> PublicKeyBundle:
        """What to hand to others."""
        return self._bundle

    def build_signed_manifest(
        self,
        bundles: Iterable[PublicKeyBundle],
        *,
        version: int | None = None,
        expires_in: int | None = 365 * 86_400,
    ) -> bytes:
        """A key directory of these bundles, signed by this key as its root; see `PublicKeyDirectory.from_signed_file`.

        Args:
            bundles: whose keys the directory vouches for.
            version: must grow with every change; Unix milliseconds when not given.
            expires_in: seconds for which it is believed; None: without end.
        """
        from kest.gate.crypto.manifest import build_signed

        return build_signed(self, bundles, version, expires_in)

    # --- for the rest of this package ---

    def signing_keys(self, algorithm: Algorithm = HYBRID) -> SigningKeys:
        """Its secret keys, for signatures of this algorithm.

        Raises:
            SigningError: it has expired.
        """
        self.check_usable()
        ed25519 = None if algorithm == "ml-dsa-65" else self._ed25519
        return SigningKeys(self.id, algorithm, ed25519, None if algorithm == "ed25519" else self._ml_dsa)

    def check_usable(self) -> None:
        """Raise SigningError when the time of the pair is over."""
        if self.is_expired:
            raise SigningError(f"key {self.id!r} expired at {self.expires_at}: generate and distribute a new one")

    def decapsulate(self, ciphertext: bytes, ephemeral: bytes) -> bytes:
        """The ML-KEM and the X25519 secret, one after the other (64 bytes). ValueError for a low-order point."""
        return self._ml_kem.decapsulate(ciphertext) + self._x25519.exchange(x25519_public(ephemeral))

    def secrets(self) -> SecretKeys:
        """The seeds, for whoever encrypts them right away."""
        ed25519, x25519_seed = self._ed25519.export_seed(), self._x25519.private_bytes_raw()
        return SecretKeys(ed25519, x25519_seed, self._ml_dsa.seed(), self._ml_kem.seed())

    def __repr__(self) -> str:
        return f"KeyPair(id={self.id}, expired={'true' if self.is_expired else 'false'})"

    def __reduce__(self) -> Any:
        raise TypeError("a KeyPair is neither pickled nor copied; save() writes it encrypted")
