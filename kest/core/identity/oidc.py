"""An identity that an OpenID Connect issuer vouches for: Kubernetes service accounts, CI jobs, cloud workloads."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

from kest import _kestcore
from kest.core.identity.base import BaseIdentity, checked_principal
from kest.core.identity.static import StaticIdentity
from kest.errors import ConfigurationError, IdentityError, KestError, MissingExtraError
from kest.locks import Lock

__all__ = ["OIDCIdentity"]

_MAX_TOKEN = 64 * 1024
_LEEWAY = 30.0  # seconds of clock difference that are forgiven
_TOKEN_ALGORITHMS = ["EdDSA", "ES256", "ES384", "PS256", "RS256", "RS384", "RS512"]


class OIDCIdentity(BaseIdentity):
    """Named by a token's issuer and subject, signing with an Ed25519 key of its own.

    The principal is ``oidc:<iss>#<sub>`` (an issuer has no fragment, so the first # ends it). The token itself never
    appears in an entry, label, message or repr. It must be within its validity at every signature; a token file is read
    again when it changes, and must keep naming the same issuer and subject.

    What ties the key to the name is either the token's confirmation claim (``cnf`` with ``jkt`` or ``jwk``, RFC 7800
    and RFC 9449: a mismatch is an error), or that the verifier got `public_jwk` from a place it trusts. With `jwks_url`
    the token's signature is verified too; without, it is read as this workload's own credential.

    Args:
        token_file: path of the token, for example /var/run/secrets/tokens/kest.
        token: the token as text, for one that is not renewed. Exactly one of the two.
        issuer: the ``iss`` to insist on.
        subject: the ``sub`` to insist on.
        audience: a member of ``aud`` to insist on.
        key: see `StaticIdentity`.
        key_file: see `StaticIdentity`; without `key` and `key_file` the key is ephemeral.
        jwks_url: the issuer's key set, https (needs ``kest[oidc]``).
    Raises:
        ConfigurationError: the arguments contradict each other. A bad token is an IdentityError at first use.
    """

    __slots__ = (
        "_audience", "_claims", "_issuer", "_jwks", "_jwks_url", "_key", "_lock", "_principal", "_stamp", "_subject",
        "_token", "_token_file",
    )  # fmt: skip

    def __init__(
        self,
        token_file: str | os.PathLike[str] | None = None,
        token: str | None = None,
        issuer: str | None = None,
        subject: str | None = None,
        audience: str | None = None,
        *,
        key: bytes | str | Mapping[str, Any] | None = None,
        key_file: str | os.PathLike[str] | None = None,
        jwks_url: str | None = None,
    ) -> None:
        if (token_file is None) == (token is None):
            raise ConfigurationError("OIDCIdentity: give exactly one of token_file and token")
        if jwks_url is not None and not _is_protected(jwks_url):
            raise ConfigurationError("OIDCIdentity: jwks_url must be an https URL")
        self._token_file = None if token_file is None else os.fspath(token_file)
        self._token = token
        self._issuer, self._subject, self._audience = issuer, subject, audience
        self._key = StaticIdentity("oidc", key=key, key_file=key_file)
        self._jwks_url = jwks_url
        self._jwks: Any = None
        self._lock = Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._claims: dict[str, Any] = {}
        self._principal: str | None = None

    @property
    def blocking(self) -> bool:
        """True while the issuer's keys may have to be fetched."""
        return self._jwks_url is not None

    def get_identity(self) -> str:
        return self._current()[0]

    def sign_message(self, message: bytes) -> bytes:
        self._current()  # no signature without a valid token
        return self._key.sign_message(message)

    def public_jwk(self) -> dict[str, Any]:
        return {**self._key.public_jwk(), "kid": self.get_identity()}

    def labels(self) -> dict[str, str]:
        """Issuer and subject, how the key is bound to them, and whether the token's signature was verified."""
        _, claims = self._current()
        return {
            "kest.oidc.issuer": claims["iss"],
            "kest.oidc.subject": claims["sub"],
            "kest.oidc.binding": "cnf" if "cnf" in claims else "published",
            "kest.oidc.verified": "true" if self._jwks_url is not None else "false",
        }

    def __repr__(self) -> str:
        return f"OIDCIdentity({self._principal or 'token not read'!r})"

    # -- the token -----------------------------------------------------------------------------------------------

    def _current(self) -> tuple[str, dict[str, Any]]:
        with self._lock:
            self._refresh()
            principal, claims = self._principal, self._claims
        if principal is None:
            self._fail("could not be read")
        now = time.time()
        if claims["exp"] + _LEEWAY <= now:
            self._fail("has expired: whatever issues it must renew it")
        if claims.get("nbf", 0) - _LEEWAY > now:
            self._fail("is not valid yet: check the clocks")
        return principal, claims

    def _refresh(self) -> None:
        if self._token_file is None:
            if self._principal is None and self._token is not None:
                self._accept(self._token)
            return
        try:
            info = os.stat(self._token_file)
            # Renewal replaces the file (or the link to it) or rewrites it in place.
            stamp = (info.st_ino, info.st_mtime_ns, info.st_size)
            if stamp == self._stamp:
                return
            with open(self._token_file, "rb") as file:
                data = file.read(_MAX_TOKEN + 1)
        except OSError as error:
            self._fail(f"cannot be read ({error.strerror})")
        self._accept(data.decode("ascii", "replace").strip())
        self._stamp = stamp

    def _accept(self, token: str) -> None:
        claims = self._read(token)
        if self._jwks_url is not None:
            self._verify(token)
        principal = checked_principal(f"oidc:{claims['iss']}#{claims['sub']}", "the OIDC token")
        if self._principal is not None and principal != self._principal:
            self._fail("now names another issuer or subject; an identity does not change while a process runs")
        self._claims, self._principal = claims, principal

    def _read(self, token: str) -> dict[str, Any]:
        claims = _claims_of(token)
        if claims is None:
            self._fail("is not a signed JWT (three base64url parts, a JSON object each for header and claims)")
        for name in ("iss", "sub"):
            if not isinstance(claims.get(name), str) or not claims[name]:
                self._fail(f"has no {name} claim")
        if "#" in claims["iss"]:
            self._fail("has an iss claim with a fragment, which no issuer has (OpenID Connect Core, section 2)")
        for name in ("exp", "nbf"):
            if type(claims.get(name, 0)) not in (int, float):
                self._fail(f"has an {name} claim that is not a number")
        if "exp" not in claims:
            self._fail("has no exp claim; a token that never expires is not accepted")
        if self._issuer is not None and claims["iss"] != self._issuer:
            self._fail(f"was not issued by {self._issuer!r}")
        if self._subject is not None and claims["sub"] != self._subject:
            self._fail(f"is not about {self._subject!r}")
        named = claims.get("aud", [])
        audiences = named if isinstance(named, list) else [named]
        if self._audience is not None and self._audience not in audiences:
            self._fail(f"is not meant for {self._audience!r}")
        if "cnf" in claims and not _confirms(claims["cnf"], self._key):
            self._fail("is bound to another key (its cnf claim): pass the key it names as key or key_file")
        return claims

    def _verify(self, token: str) -> None:
        try:
            import jwt
        except ImportError as error:
            raise MissingExtraError('OIDCIdentity(jwks_url=…) needs PyJWT: pip install "kest[oidc]"') from error
        if self._jwks is None:
            self._jwks = jwt.PyJWKClient(str(self._jwks_url), timeout=3)
        problem = None
        try:
            key = self._jwks.get_signing_key_from_jwt(token)
            # Names and times are checked by us, at every signature; here it is only the signature that counts.
            jwt.PyJWS().decode(token, key, algorithms=_TOKEN_ALGORITHMS)
        except jwt.PyJWKClientConnectionError:
            problem = f"cannot be verified: {self._jwks_url} did not answer"
        except jwt.PyJWTError as error:
            problem = f"does not verify under the keys of {self._jwks_url} ({type(error).__name__})"
        if problem:
            self._fail(problem)

    def _fail(self, what: str) -> NoReturn:
        where = "the OIDC token" if self._token_file is None else f"the OIDC token in {self._token_file!r}"
        raise IdentityError(f"{where} {what}")


def _is_protected(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))


def _claims_of(token: str) -> dict[str, Any] | None:
    # Answers None rather than raising from an except block, whose context would hold the token.
    parts = token.split(".")
    if len(token) > _MAX_TOKEN or len(parts) != 3 or not all(parts) or not token.isascii():
        return None
    try:
        header, claims = (_kestcore.parse(_kestcore.b64url_decode(part)) for part in parts[:2])
    except (KestError, ValueError):
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict) or header.get("alg") in (None, "none"):
        return None
    return claims


def _confirms(cnf: object, key: StaticIdentity) -> bool:
    """Whether a confirmation claim (RFC 7800) names our key, by value or by thumbprint (RFC 7638, RFC 9449)."""
    if not isinstance(cnf, dict):
        return False
    jwk = {name: key.public_jwk()[name] for name in ("crv", "kty", "x")}
    if "jkt" in cnf:
        return bool(cnf["jkt"] == _kestcore.b64url_encode(_kestcore.sha256(_kestcore.canonicalize(jwk))))
    bound = cnf.get("jwk")
    return isinstance(bound, dict) and all(bound.get(name) == value for name, value in jwk.items())
