"""What the identities whose Ed25519 key lives in this process have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from kest import _kestcore
from kest.core.identity.base import BaseIdentity, checked_principal
from kest.core.identity.keys import public_jwk

__all__ = ["Ed25519Identity"]


class Ed25519Identity(BaseIdentity):
    """An identity with a key in the C core's locked memory. Signing never blocks and never fails for lack of a peer."""

    # Slots, so that no instance can be given another sign() behind the fast path's back.
    __slots__ = ("_signer",)

    # Set in the body of each class whose `sign` is the one below. Subclasses do not inherit the promise.
    _direct: ClassVar[bool] = True

    def __init__(self, principal: str, seed: bytes | None) -> None:
        try:
            self._signer = _kestcore.Signer(checked_principal(principal, type(self).__name__), seed)
        finally:
            seed = None  # see keys.parse_private_key

    @property
    def blocking(self) -> bool:
        """Never: the key is here."""
        return False

    def get_identity(self) -> str:
        return self._signer.principal

    def sign_message(self, message: bytes) -> bytes:
        return self._signer.sign(message)

    def sign(self, payload: bytes) -> str:
        return self._signer.sign_jws(payload)

    def public_jwk(self) -> dict[str, Any]:
        return public_jwk(self._signer.public_key, self._signer.principal)

    @property
    def signer(self) -> _kestcore.Signer | None:
        cls = type(self)
        # A subclass, or a class that a test has patched, may sign differently: it must not be bypassed.
        direct = "_direct" in cls.__dict__ and cls.sign is _SIGN and cls.get_identity is _GET_IDENTITY
        return self._signer if direct else None

    def __repr__(self) -> str:
        signer = getattr(self, "_signer", None)  # None while a constructor that failed is being reported
        return f"{type(self).__name__}({signer.principal!r})" if signer is not None else f"<{type(self).__name__}>"


_SIGN = Ed25519Identity.sign
_GET_IDENTITY = Ed25519Identity.get_identity
