"""An identity for development and tests: a key that exists as long as the process does."""

from __future__ import annotations

import logging
from typing import ClassVar

from kest.core.identity.ed25519 import Ed25519Identity

__all__ = ["DEFAULT_PRINCIPAL", "LocalEd25519Provider"]

DEFAULT_PRINCIPAL = "spiffe://kest.internal/local-workload"

_log = logging.getLogger("kest.identity")
_warned = False


def warn(principal: str, why: str) -> None:
    """Say that entries are signed with a key that ends with this process; keys made later do not say it again."""
    global _warned
    _warned = True
    _log.warning(
        "%s: an ephemeral Ed25519 key signs as %s. It ends with this process, and others can verify its entries only if "
        "they are given its public key. In production set SPIFFE_ENDPOINT_SOCKET (SPIRE) or KEST_KMS_KEY_ID (AWS), or "
        "pass another identity, such as StaticIdentity, to kest.configure(identity=…)",
        why,
        principal,
    )


class LocalEd25519Provider(Ed25519Identity):
    """An ephemeral Ed25519 key under a name of your choice.

    The key is in memory only (F-ID-04), so nobody can verify its entries after the process has ended unless the public
    key (`public_jwk`) was kept. In production use `SPIREProvider`, `AWSWorkloadIdentity` or `StaticIdentity`: the first
    ephemeral key of a process logs a warning that says so.

    Args:
        principal: the workload's name; give each workload its own where their entries meet.
        seed: 32 bytes (RFC 8032) for a key that is to be the same again; None: a random key.
    """

    __slots__ = ()
    _direct: ClassVar[bool] = True

    def __init__(self, principal: str = DEFAULT_PRINCIPAL, seed: bytes | None = None) -> None:
        try:
            super().__init__(principal, seed)
            if seed is None and not _warned:
                warn(principal, type(self).__name__)
        finally:
            seed = None  # see keys.parse_private_key
