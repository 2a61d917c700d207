"""The verified claims of a bearer token, as far as anybody but the verifier gets to see them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["PER_TOKEN", "Claims", "scopes_of"]

PER_TOKEN = frozenset(("exp", "nbf", "iat", "jti", "nonce", "at_hash", "c_hash"))
"""Claims that differ from token to token of one caller (RFC 7519, sections 4.1.4 to 4.1.7; OpenID Connect Core, sections 2
and 3.3.2.11). They have done their work when the token is verified. Policy is not given them: whatever it is given is part
of the key of a cached decision, and these would make every token a question of its own."""


class Claims:
    """The claims of one verified token. Immutable: each reader gets objects of its own. Never holds the token itself.

    Args:
        claims: what the verifier found.

    Raises:
        ValueError: they have no exact JSON form (NaN, a lone surrogate).
    """

    __slots__ = ("_all", "_policy", "digest")

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self._all = _text(claims)
        policy = {name: value for name, value in claims.items() if name not in PER_TOKEN}
        self._policy = self._all if len(policy) == len(claims) else _text(policy)
        self.digest = hashlib.sha256(self._policy.encode()).hexdigest()
        """SHA-256 of what policy is given: the same for two tokens that policy cannot tell apart."""

    def all(self) -> dict[str, Any]:
        """Every claim."""
        result: dict[str, Any] = json.loads(self._all)
        return result

    def for_policy(self) -> dict[str, Any]:
        """Every claim but `PER_TOKEN`."""
        result: dict[str, Any] = json.loads(self._policy)
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Claims) and other._all == self._all

    def __hash__(self) -> int:
        return hash(self._all)

    def __reduce__(self) -> tuple[type[Claims], tuple[dict[str, Any]]]:
        return Claims, (self.all(),)

    def __repr__(self) -> str:
        return f"<Claims {self.digest[:8]}>"  # what they say is about a person


def scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """The scopes that claims grant, ascending: ``scope`` (RFC 8693, section 4.2: words with spaces between) or ``scp``."""
    given = claims.get("scope", claims.get("scp"))
    words = given.split(" ") if isinstance(given, str) else given if isinstance(given, list) else []
    return sorted({word for word in words if isinstance(word, str) and word})


def _text(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    text.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    return text
