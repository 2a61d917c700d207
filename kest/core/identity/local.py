"""An identity for development and tests: a key that exists as long as the process does."""

from __future__ import annotations

from typing import ClassVar

from kest.core.identity.ed25519 import Ed25519Identity

__all__ = ["DEFAULT_PRINCIPAL", "LocalEd25519Provider"]

DEFAULT_PRINCIPAL = "spiffe://kest.internal/local-workload"


class LocalEd25519Provider(Ed25519Identity):
    """An ephemeral Ed25519 key under a name of your choice.

    The key is in memory only (F-ID-04), so nobody can verify its entries after the process has ended unless the public
    key (`public_jwk`) was kept. In production use `SPIREProvider`, `AWSWorkloadIdentity` or `StaticIdentity`.

    Args:
        principal: the workload's name; give each workload its own where their entries meet.
        seed: 32 bytes (RFC 8032) for a key that is to be the same again; None: a random key.
    """

    __slots__ = ()
    _direct: ClassVar[bool] = True

    def __init__(self, principal: str = DEFAULT_PRINCIPAL, seed: bytes | None = None) -> None:
        try:
            super().__init__(principal, seed)
        finally:
            seed = None  # see keys.parse_private_key
