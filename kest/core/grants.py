"""What a trust store says of one key: whose it is, since and until when, and what its owner may claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kest._kestcore import PublicKey
from kest.core.trust import check_score
from kest.errors import ConfigurationError, KeyFormatError

__all__ = ["FOREVER", "Grant", "make_grant", "public_key_of"]

FOREVER = 2**62
"""Milliseconds; any time in an entry is before it."""

Grant = tuple[str, PublicKey, int, bool, int, int]
"""Principal, key, max_trust, may_sanitise, not_before, not_after (Unix milliseconds, inclusive)."""


def public_key_of(key: Any) -> PublicKey:
    """A public key from what people have: a provider, 32 raw bytes, a JWK dict, or PEM (str or bytes).

    Raises:
        KeyFormatError: for anything else, secret keys among them.
    """
    if isinstance(key, PublicKey):
        return key
    if isinstance(key, (bytes, bytearray)):
        data = bytes(key)
        if len(data) == 32:
            return PublicKey.from_raw(data)
        if data.lstrip().startswith(b"-----BEGIN"):
            return PublicKey.from_pem(data)
        raise KeyFormatError(f"a raw Ed25519 public key is 32 bytes, not {len(data)}; other kinds come as JWK or PEM")
    if isinstance(key, str):
        return PublicKey.from_pem(key)
    if isinstance(key, Mapping):
        if "d" in key:
            raise KeyFormatError("this JWK holds a secret key; a trust store takes public ones")
        return PublicKey.from_jwk(dict(key))
    public_jwk = getattr(key, "public_jwk", None)
    if callable(public_jwk):
        jwk: Any = public_jwk()
        return PublicKey.from_jwk(dict(jwk))
    raise KeyFormatError(f"a key is a provider, 32 raw bytes, a JWK dict or PEM text, not {type(key).__name__}")


def make_grant(
    principal: str,
    key: Any,
    *,
    max_trust: int = 100,
    may_sanitise: bool = True,
    not_before: int | None = None,
    not_after: int | None = None,
) -> Grant:
    """A grant of checked arguments; see `TrustStore.add`."""
    if not isinstance(principal, str) or not principal:
        raise KeyFormatError("a principal is a non-empty str")
    check_rights(max_trust, may_sanitise)
    for name, value in (("not_before", not_before), ("not_after", not_after)):
        if value is not None and type(value) is not int:
            raise TypeError(f"{name} is Unix milliseconds (int), not {type(value).__name__}")
    start, end = (0 if not_before is None else not_before), (FOREVER if not_after is None else not_after)
    if start > end:
        raise ConfigurationError("not_before is later than not_after: the key would never be valid")
    return principal, public_key_of(key), max_trust, may_sanitise, start, end


def check_rights(max_trust: int, may_sanitise: bool) -> None:
    """Raise ValueError or TypeError unless these are rights."""
    check_score(max_trust, "max_trust")
    if not isinstance(may_sanitise, bool):
        raise TypeError("may_sanitise must be a bool")
