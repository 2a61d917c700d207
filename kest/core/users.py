"""User ids as salted hashes, where the real ones must not be written down or sent."""

from __future__ import annotations

import functools
import hashlib
import hmac
import re

from kest.errors import ConfigurationError

__all__ = ["MIN_SALT", "checked_salt", "hashed_user", "is_hashed", "same_user"]

MIN_SALT = 16
"""Bytes that a salt has at least: user ids can be listed, so a salt that can be guessed hides nothing."""
_HASHED = re.compile(r"hmac-sha256:[0-9a-f]{64}\Z")


def checked_salt(salt: object) -> bytes:
    """The salt as bytes; text is UTF-8.

    Raises:
        ConfigurationError: it is neither str nor bytes, or shorter than `MIN_SALT` bytes. Never with the salt.
    """
    if not isinstance(salt, (str, bytes, bytearray)):
        raise ConfigurationError(f"user_salt is a str or bytes, not {type(salt).__name__}")
    key = salt.encode() if isinstance(salt, str) else bytes(salt)
    if len(key) < MIN_SALT:
        raise ConfigurationError(
            f"the salt for user ids must have at least {MIN_SALT} bytes, or the ids can be guessed; make one with "
            "secrets.token_hex(32)"
        )
    return key


def is_hashed(user: str) -> bool:
    """Whether this text has the form that `hashed_user` gives."""
    return _HASHED.match(user) is not None


def hashed_user(user: str, salt: str | bytes) -> str:
    """A user id as a salted hash: ``hmac-sha256:`` and 64 hexadecimal digits (HMAC-SHA-256, RFC 2104, keyed with the salt).

    The same user gives the same text wherever the salt is the same, so that policies and audits can tell users apart
    without naming them. A value that is such a text already stays as it is.
    """
    return _hashed(user, checked_salt(salt))


@functools.lru_cache(maxsize=1024)
def _hashed(user: str, key: bytes) -> str:
    if is_hashed(user):
        return user
    return f"hmac-sha256:{hmac.new(key, user.encode('utf-8', 'surrogatepass'), hashlib.sha256).hexdigest()}"


def same_user(one: str | None, other: str | None, salt: str | bytes | None = None) -> bool:
    """Whether two ids, each as it is or as a salted hash, name the same user. None names nobody, and is like nobody."""
    if one is None or other is None:
        return False
    if one == other:
        return True
    if salt is None or is_hashed(one) is is_hashed(other):
        return False
    return hmac.compare_digest(hashed_user(one, salt), hashed_user(other, salt))
