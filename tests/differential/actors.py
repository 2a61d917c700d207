"""Who signs in generated passports: fixed Ed25519, ES256 and RS256 keys, and what a verifier knows about them."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from reference import entry, verify


@dataclass(frozen=True)
class Actor:
    name: str
    alg: str
    generation: int = 0  # a principal may have had other keys before

    @property
    def seed(self) -> bytes:
        """32 bytes; only Ed25519 keys are made from it."""
        return hashlib.sha256(f"{self.name} {self.generation}".encode()).digest()

    @property
    def private(self) -> entry.PrivateKey:
        return _private(self)

    def info(self, **policy: int | bool | None) -> verify.KeyInfo:
        return verify.KeyInfo(self.private.public_key(), alg=self.alg, **policy)  # type: ignore[arg-type]


@functools.cache
def _private(actor: Actor) -> entry.PrivateKey:
    if actor.alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.from_private_bytes(actor.seed)
    if actor.alg == "ES256":
        return ec.derive_private_key(int.from_bytes(actor.seed, "big") >> 1, ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


ALICE = Actor("spiffe://kest.internal/alice", "EdDSA")
BOB = Actor("spiffe://kest.internal/bob", "EdDSA")
ODD = Actor('agent "ü/β"\\\n 😀', "EdDSA")
EVE = Actor("spiffe://kest.internal/ec", "ES256")
RON = Actor("spiffe://kest.internal/rsa", "RS256")
ACTORS = (ALICE, BOB, ODD, EVE, RON)
STRANGER = Actor("spiffe://elsewhere.example/nobody", "EdDSA")


def encoded(key: verify.PublicKey) -> bytes:
    """What a trust store takes: 32 raw bytes for Ed25519, PEM for the others."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
