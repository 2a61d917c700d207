"""A deterministic identity for tests (NF-TEST-01)."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from kest.core.identity.base import checked_principal
from kest.core.identity.ed25519 import Ed25519Identity

__all__ = ["MockIdentityProvider"]


class MockIdentityProvider(Ed25519Identity):
    """Real Ed25519 signatures by a key that is derived from the principal: the same in every run and process.

    Whoever knows the principal can compute the key, so its entries prove nothing. A trust store believes them only
    if somebody added this very key (`public_jwk`) to it, which belongs in tests.

    Args:
        principal: the workload's name.
    """

    __slots__ = ()
    _direct: ClassVar[bool] = True

    def __init__(self, principal: str = "spiffe://kest.test/mock") -> None:
        name = checked_principal(principal, type(self).__name__)
        super().__init__(name, hashlib.sha256(b"kest mock identity 1\0" + name.encode()).digest())
