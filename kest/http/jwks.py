"""An issuer's keys (RFC 7517): fetched once, refreshed in the background, rotated without a restart.

The last set that could be fetched stays in force until it expires, so that an issuer that is down for a while stops nobody;
after that, tokens are refused. An unknown ``kid`` causes a fetch at once, but not more often than every few seconds, whatever
clients send: here the caller waits for it, in a thread, since the user who has just logged in with a new key is no attacker.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kest.core.fetch import FetchError, check_url, fetch
from kest.errors import ConfigurationError, TokenError
from kest.locks import Lock

__all__ = ["IssuerKey", "KeySet"]

log = logging.getLogger("kest.http")

MAX_BYTES = 1024 * 1024
MAX_KEYS = 256
MIN_RSA_BITS = 2048

# What a key of a kind can verify (RFC 7518, section 3.1; RFC 8037, section 3.1).
_ALGORITHMS: dict[tuple[object, object], tuple[str, ...]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key, and the algorithms that it may be used with: the key decides, never a token's header."""

    key: Any
    algorithms: tuple[str, ...]


class KeySet:
    """The signing keys at a JWKS URL (or in a file).

    Args:
        uri: https, or http on this machine; or the path of a file. Redirects are refused; proxies of the environment are
            used for other machines only.
        refresh: seconds after which the set is fetched again, in the background.
        keep: seconds for which the last good set counts while the issuer does not answer.
        timeout: seconds for one fetch, from the first byte to the last.
        min_interval: seconds between two fetches at least.
    """

    def __init__(
        self,
        uri: str,
        *,
        refresh: float = 300.0,
        keep: float = 86400.0,
        timeout: float = 5.0,
        min_interval: float = 1.0,
    ) -> None:
        if urlsplit(uri).scheme:
            check_url(uri, "jwks_uri")
        if not 0 < refresh <= keep or not timeout > 0 or min_interval < 0:
            raise ConfigurationError("jwks_uri: refresh, keep and timeout are positive, and keep is not below refresh")
        self._uri, self._refresh, self._keep = uri, refresh, keep
        self._timeout, self._min_interval = timeout, min_interval
        self._keys: dict[str | None, list[IssuerKey]] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = Lock()
        self._runner = 0  # the process in which a thread fetches: in the child of a fork there is none

    def has(self, kid: object) -> bool:
        """Whether `find` can answer without fetching."""
        return self._usable() and (kid is None or kid in self._keys or not self._may_try())

    def find(self, kid: object) -> list[IssuerKey]:
        """The keys with this id; all of them for None. Fetches when the set is missing, stale or lacks the id.

        Raises:
            TokenError: there is no usable key set.
        """
        now = time.monotonic()
        if not self._usable() or (isinstance(kid, str) and kid not in self._keys):
            self._fetch_now()
        elif now - self._fetched > self._refresh:
            self._fetch_later()
        if not self._usable():
            raise TokenError("the token cannot be verified: the issuer's keys are not available")
        keys = self._keys
        if kid is None:
            return [key for group in keys.values() for key in group]
        return list(keys.get(kid, ())) if isinstance(kid, str) else []

    def prefetch(self) -> None:
        """Start fetching in the background, so that the first request finds the keys. A failure is logged."""
        if not self._usable():
            self._fetch_later()

    def _usable(self) -> bool:
        return time.monotonic() - self._fetched <= self._keep

    def _may_try(self) -> bool:
        return time.monotonic() - self._tried >= self._min_interval

    def _fetch_later(self) -> None:
        with self._lock:
            if self._runner == os.getpid() or not self._may_try():
                return
            self._runner = os.getpid()
        threading.Thread(target=self._background, name="kest-jwks", daemon=True).start()

    def _background(self) -> None:
        try:
            self._fetch_now()
        finally:
            self._runner = 0

    def _fetch_now(self) -> None:
        before = self._tried
        with self._lock:
            if self._tried != before or not self._may_try():  # another thread was just there, or it is too soon
                return
            try:
                keys = self._parsed(self._read())
            except Exception as error:
                log.warning("the keys at jwks_uri could not be fetched: %s", _short(error))
            else:
                self._keys, self._fetched = keys, time.monotonic()
            self._tried = time.monotonic()

    def _read(self) -> bytes:
        if not urlsplit(self._uri).scheme:
            with open(self._uri, "rb") as file:
                return file.read(MAX_BYTES + 1)
        return fetch(self._uri, timeout=self._timeout, max_bytes=MAX_BYTES).body

    def _parsed(self, raw: bytes) -> dict[str | None, list[IssuerKey]]:
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        document = json.loads(raw)
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list) or len(listed) > MAX_KEYS:
            raise ValueError("not a JWK set (RFC 7517, section 5)")
        keys: dict[str | None, list[IssuerKey]] = {}
        for jwk in listed:
            key = _issuer_key(jwk) if isinstance(jwk, dict) else None
            if key is not None:  # one that we cannot use does not spoil the others
                kid = jwk.get("kid")
                keys.setdefault(kid if isinstance(kid, str) else None, []).append(key)
        if not keys:
            raise ValueError("no usable signing key in it")
        return keys


def _issuer_key(jwk: dict[str, Any]) -> IssuerKey | None:
    import jwt

    kty = jwk.get("kty")
    kind = (kty, None if kty == "RSA" else jwk.get("crv"))
    # Symmetric keys have no place in a published set; encryption keys do not sign.
    if not all(isinstance(part, (str, type(None))) for part in kind) or jwk.get("use", "sig") != "sig":
        return None
    algorithms = _ALGORITHMS.get(kind, ())
    named = jwk.get("alg")
    if named is not None:
        algorithms = tuple(name for name in algorithms if name == ("EdDSA" if named == "Ed25519" else named))
    if not algorithms:
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in jwk.items() if name not in ("d", "alg")}, algorithms[0]).key
    except Exception:
        return None
    return None if kty == "RSA" and key.key_size < MIN_RSA_BITS else IssuerKey(key, algorithms)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, (ValueError, FetchError)) else type(error).__name__
