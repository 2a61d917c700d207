"""Verification of bearer tokens (RFC 7519) and what they say of user, agent and task (RFC 8693)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kest.core.claims import Claims
from kest.core.context import Caller
from kest.core.users import hashed_user, is_hashed
from kest.errors import ConfigurationError, MissingExtraError, TokenError
from kest.http.egress import warn_once
from kest.http.token_kind import TOKEN_TYPES, check_kind, token_types_of

if TYPE_CHECKING:
    from kest.http.jwks import KeySet

__all__ = ["ALGORITHMS", "TOKEN_TYPES", "InsecureConfigurationError", "JWTVerifier"]

log = logging.getLogger("kest.http")

ALGORITHMS = ("EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
"""Signatures that a public key verifies. HS* would make the public key the secret, and none is no signature."""

MAX_TOKEN = 16 * 1024
MAX_ACTORS = 8

ClaimNames = str | Sequence[str]


class InsecureConfigurationError(ConfigurationError, RuntimeError):
    """Tokens could not be verified as configured."""


class JWTVerifier:
    """Turns a bearer token into a `Caller`, or raises `TokenError`.

    Args:
        keys: the issuer's keys; None only with ``KEST_INSECURE_NO_VERIFY=true``, and then nothing is verified.
        issuer, audience: values that ``iss`` and ``aud`` must have (one of them, where several are given).
        algorithms: allow-list, a subset of `ALGORITHMS`.
        leeway: seconds of clock difference that are forgiven.
        user_claim, agent_claims, task_claim: names of claims; a dotted path reaches into objects.
        user_salt: keep users as salted hashes only.
        token_types: values of the header ``typ`` that access tokens have here (RFC 8725, section 3.11); ``""`` stands for
            none. With ``["at+jwt"]``, only tokens that say that they are access tokens are taken (RFC 9068, section 4).
            Whatever it is, ID, refresh and logout tokens are refused where they can be told: see `kest.http.token_kind`.
    """

    def __init__(
        self,
        keys: KeySet | None,
        *,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        algorithms: Sequence[str] = ALGORITHMS,
        leeway: float = 30.0,
        user_claim: str = "sub",
        agent_claims: ClaimNames = ("client_id",),
        task_claim: ClaimNames = ("scope",),
        user_salt: str | bytes | None = None,
        token_types: Sequence[str] = TOKEN_TYPES,
    ) -> None:
        if isinstance(algorithms, str):
            raise ConfigurationError("algorithms is a list, not one str")
        bad = [name for name in algorithms if name not in ALGORITHMS]
        if bad or not algorithms:
            raise ConfigurationError(
                f"algorithm {bad[0]!r} is not allowed for bearer tokens" if bad else "algorithms is empty"
            )
        if not 0 <= leeway <= 300:
            raise ConfigurationError(f"leeway is 0 to 300 seconds, not {leeway!r}")
        if user_salt is not None:
            hashed_user("", user_salt)
        try:
            import jwt
        except ImportError as error:
            raise MissingExtraError('bearer tokens need PyJWT: pip install "kest[oidc]"') from error
        self._jwt = jwt
        self._keys = keys
        self._algorithms = list(algorithms)
        self._issuers, self._audiences = _names(issuer), _names(audience)
        self._leeway = leeway
        self._user, self._agents, self._task = user_claim, _names(agent_claims), _names(task_claim)
        self._salt = user_salt
        self._types = token_types_of(token_types)

    # --- verification ---

    def verify(self, token: str) -> Caller:
        """The caller that a token names; may block while keys are fetched.

        Raises:
            TokenError: with the reason; never with the token.
        """
        return self.caller(self.claims(token), token)

    def known(self, token: str) -> bool:
        """Whether `verify` will not have to wait for the issuer."""
        if self._keys is None:
            return True
        header = self._header(token)
        return self._keys.has(header.get("kid"))

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature, times, issuer and audience are right."""
        header = self._header(token)
        if self._keys is None:
            return self._unverified(token)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenError("the token is signed with an algorithm that is not on the allow-list")
        if "crit" in header:
            raise TokenError("the token's header has critical extensions, and none is understood here")
        problem = "the token was not signed by a key of its issuer"
        # No kid: every key of the right kind may be tried (RFC 7515, section 4.1.4, makes kid optional).
        for key in self._keys.find(header.get("kid")):
            if algorithm not in key.algorithms:
                continue
            try:
                claims = self._decoded(token, key.key, algorithm)
                check_kind(header, claims, self._types)
                return claims
            except self._jwt.InvalidSignatureError:
                continue
            except TokenError as error:
                problem = str(error)
            except Exception as error:  # whatever a library makes of hostile input, the token is no good
                problem = _reason(self._jwt, error)
            break
        raise TokenError(problem)

    def _header(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN or not token.isascii() or token.count(".") != 2:
            raise TokenError("the bearer token is not a signed JWT (three base64url parts, at most 16 KiB)")
        try:
            header: dict[str, Any] = self._jwt.get_unverified_header(token)
        except Exception:
            header = {}
        if not header:
            raise TokenError("the bearer token's header cannot be read")
        return header

    def _decoded(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        # Issuer and audience are compared below; iat says nothing about validity (RFC 7519, section 4.1.6).
        unused = ("verify_iss", "verify_aud", "verify_iat", "verify_sub", "verify_jti")
        options: Any = {"require": ["exp"], **dict.fromkeys(unused, False)}
        claims: dict[str, Any] = self._jwt.decode(
            token, key, algorithms=[algorithm], leeway=self._leeway, options=options
        )
        if self._issuers and claims.get("iss") not in self._issuers:
            raise TokenError("the token comes from another issuer")
        named = claims.get("aud")
        if self._audiences and not set(self._audiences) & {a for a in _listed(named) if isinstance(a, str)}:
            raise TokenError("the token is meant for another audience")
        return claims

    def _unverified(self, token: str) -> dict[str, Any]:
        warn_once("no_verify", "KEST_INSECURE_NO_VERIFY: bearer tokens are believed without verification")
        try:
            claims = self._jwt.decode(
                token, options={"verify_signature": False, "verify_exp": True, "verify_nbf": True}
            )
        except Exception as error:
            problem = _reason(self._jwt, error)
        else:
            return dict(claims)
        raise TokenError(problem)

    # --- meaning ---

    def caller(self, claims: Mapping[str, Any], token: str) -> Caller:
        """User, agent and task of verified claims.

        The user is ``sub``. The actors are the ``sub`` of ``act`` and of those nested in it, the current one first (RFC 8693,
        section 4.1); an actor is never inferred from anything else, and a chain that is not of that form, or longer than
        `MAX_ACTORS`, makes the token invalid. The agent is the current actor; without ``act`` what ``agent_claims`` name:
        the client that the token was issued to, which acts for itself. The task is ``scope``.
        """
        user = _text(claims, self._user)
        if user is None:
            raise TokenError(f"the token has no {self._user} claim that names a user")
        if is_hashed(user):
            # Whoever may choose such an id at the issuer would pass for the user whose hash it is.
            raise TokenError(f"the token's {self._user} claim has the form of a salted hash, which no issuer gives out")
        if self._salt is not None:
            user = hashed_user(user, self._salt)
        actors = _actors(claims["act"]) if "act" in claims else ()
        agent = actors[0] if actors else _first(_text(claims, name) for name in self._agents)
        task = _first(_text(claims, name) for name in self._task)
        try:
            seen = Claims(claims)
        except (ValueError, TypeError, RecursionError):
            raise TokenError(
                "the token's claims are not plain JSON (NaN, a lone surrogate, or nested too deeply)"
            ) from None
        return Caller(user, agent, task, token, actors, seen)


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value is not None), None)


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def _actors(act: object) -> tuple[str, ...]:
    actors: list[str] = []
    while True:
        if not isinstance(act, Mapping):
            raise TokenError("the token's act claim is not an object (RFC 8693, section 4.1)")
        actor = act.get("sub")
        if not isinstance(actor, str) or not actor:
            raise TokenError("the token's act claim does not name an actor by its sub (RFC 8693, section 4.1)")
        actors.append(actor)
        if len(actors) > MAX_ACTORS:
            raise TokenError(f"the token's act claim is nested deeper than {MAX_ACTORS} actors")
        if "act" not in act:
            return tuple(actors)
        act = act["act"]


def _text(claims: Mapping[str, Any], path: str) -> str | None:
    """A claim as text: by its name, or by a dotted path into objects. Lists of words (some issuers' scopes) are joined."""
    value: Any = claims.get(path)
    if value is None and "." in path:
        value = claims
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = " ".join(value)
    return value if isinstance(value, str) and value else None


_REASONS: tuple[tuple[str, str], ...] = (
    ("ExpiredSignatureError", "the token has expired"),
    ("ImmatureSignatureError", "the token is not valid yet"),
)


def _reason(jwt: Any, error: Exception) -> str:
    # PyJWT's own messages may quote claims.
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token has no {getattr(error, 'claim', 'required')} claim"
    for name, text in _REASONS:
        if isinstance(error, getattr(jwt, name)):
            return text
    return f"the token is malformed ({type(error).__name__})"


def insecure() -> bool:
    """Whether the environment says that nothing needs to be verified."""
    return os.environ.get("KEST_INSECURE_NO_VERIFY", "").lower() == "true"
