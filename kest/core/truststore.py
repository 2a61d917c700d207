"""Whose signatures are believed: principals, their keys, and what each may claim."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kest._kestcore import KeyRing, PublicKey
from kest.core.trust import check_score
from kest.errors import ConfigurationError, JSONSyntaxError, KestError, KeyFormatError
from kest.locks import Lock

__all__ = ["TrustStore", "public_key_of"]

log = logging.getLogger("kest")

_KINDS = (("OKP", "Ed25519"), ("EC", "P-256"), ("RSA", None))
FOREVER = 2**62  # milliseconds; any int64 time is before it
MAX_JWKS_BYTES = 4 * 1024 * 1024

Grant = tuple[str, PublicKey, int, bool, int, int]


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


class TrustStore:
    """Maps principals to the keys that they sign with. Thread-safe; a verification sees one consistent state.

    ``TrustStore({"spiffe://example.org/agent": provider_or_key, ...})``; a list of keys is allowed as a value.
    """

    def __init__(self, keys: Mapping[str, Any] | None = None) -> None:
        self._lock = Lock()
        self._grants: list[Grant] = []
        self._ring: KeyRing | None = None
        for principal, key in (keys or {}).items():
            for one in key if isinstance(key, (list, tuple)) else (key,):
                self.add(principal, one)

    def add(
        self,
        principal: str,
        key: Any,
        *,
        max_trust: int = 100,
        may_sanitise: bool = True,
        not_before: int | None = None,
        not_after: int | None = None,
    ) -> None:
        """Believe ``key`` for ``principal``.

        Args:
            principal: as it stands in the signed entries.
            key: a provider, 32 raw bytes (Ed25519), a JWK dict, or PEM.
            max_trust: the most that its roots and its raises of trust may claim, 0..100.
            may_sanitise: whether its trust overrides and taint removals count; if not, such entries are refused.
            not_before, not_after: Unix milliseconds, inclusive, compared with the time in the entry. A principal may
                have several keys, so that keys can be rotated.
        """
        if not isinstance(principal, str) or not principal:
            raise KeyFormatError("a principal is a non-empty str")
        check_score(max_trust, "max_trust")
        if not isinstance(may_sanitise, bool):
            raise TypeError("may_sanitise must be a bool")
        for name, value in (("not_before", not_before), ("not_after", not_after)):
            if value is not None and type(value) is not int:
                raise TypeError(f"{name} is Unix milliseconds (int), not {type(value).__name__}")
        start, end = (0 if not_before is None else not_before), (FOREVER if not_after is None else not_after)
        if start > end:
            raise ConfigurationError("not_before is later than not_after: the key would never be valid")
        grant = (principal, public_key_of(key), max_trust, may_sanitise, start, end)
        with self._lock:
            self._grants.append(grant)
            self._ring = None

    def remove(self, principal: str) -> bool:
        """Forget every key of ``principal``; whether there was one."""
        with self._lock:
            kept = [grant for grant in self._grants if grant[0] != principal]
            found = len(kept) != len(self._grants)
            self._grants, self._ring = kept, None
        return found

    def ring(self) -> KeyRing:
        """The keys as the C core takes them: an immutable snapshot."""
        ring = self._ring
        if ring is None:
            with self._lock:
                ring = self._ring = KeyRing(self._grants)
        return ring

    def __contains__(self, principal: object) -> bool:
        return any(grant[0] == principal for grant in self._grants)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(grant[0] for grant in self._grants))

    def __len__(self) -> int:
        return len(self._grants)

    def __repr__(self) -> str:
        return f"<TrustStore of {len(self)} keys>"

    @classmethod
    def from_jwks(cls, source: str | Path | Mapping[str, Any]) -> TrustStore:
        """From a JWK set (RFC 7517, section 5): a file, or the parsed dict. Each key's ``kid`` is the principal.

        Private members of Kest's own (RFC 7517, section 4, allows them) say what a key may do: ``kest_max_trust``,
        ``kest_may_sanitise``, ``kest_not_before``, ``kest_not_after``.
        """
        document, where = (source, "JWK set") if isinstance(source, Mapping) else (_read_jwks(source), str(source))
        keys = document.get("keys")
        if not isinstance(keys, list):
            raise KeyFormatError(f"{where}: a JWK set is an object with a list 'keys' (RFC 7517, section 5)")
        store = cls()
        for index, jwk in enumerate(keys):
            try:
                store._add_jwk(jwk)
            except (KestError, TypeError, ValueError) as error:
                raise KeyFormatError(f"{where}: keys[{index}]: {error}") from error
        return store

    def _add_jwk(self, jwk: Any) -> None:
        if not isinstance(jwk, Mapping) or not isinstance(jwk.get("kid"), str):
            raise KeyFormatError("each key is an object whose 'kid' names the principal")
        if jwk.get("use", "sig") != "sig" or (
            isinstance(jwk.get("kty"), str) and (jwk["kty"], jwk.get("crv")) not in _KINDS
        ):
            # A set may hold keys for other purposes; section 5 says to ignore them.
            log.info("key %r of a JWK set is not for signatures that Kest verifies; ignored", jwk["kid"])
            return
        self.add(
            jwk["kid"],
            jwk,
            max_trust=jwk.get("kest_max_trust", 100),
            may_sanitise=jwk.get("kest_may_sanitise", True),
            not_before=jwk.get("kest_not_before"),
            not_after=jwk.get("kest_not_after"),
        )


def _read_jwks(source: str | Path) -> dict[str, Any]:
    text = str(source)
    if text.startswith(("http://", "https://")):
        raw = _fetch(text)
    else:
        try:
            with Path(source).open("rb") as file:
                raw = file.read(MAX_JWKS_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"cannot read the key file {text}: {error.strerror}") from None
    if len(raw) > MAX_JWKS_BYTES:
        raise KeyFormatError(f"{text}: more than {MAX_JWKS_BYTES} bytes")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise JSONSyntaxError(f"{text} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise KeyFormatError(f"{text}: a JWK set is an object")
    return document


def _fetch(url: str) -> bytes:
    import httpx

    try:
        with httpx.stream("GET", url, timeout=5.0, follow_redirects=False) as response:
            response.raise_for_status()
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_JWKS_BYTES:
                    break
            return bytes(body)
    except httpx.HTTPError as error:
        raise ConfigurationError(f"cannot fetch keys from {url}: {error}") from error
