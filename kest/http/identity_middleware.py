"""`KestIdentityMiddleware`: who is calling, from a verified bearer token."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kest.core.context import caller_var
from kest.errors import TokenError
from kest.http.jwks import KeySet
from kest.http.jwt_verifier import ALGORITHMS, TOKEN_TYPES, InsecureConfigurationError, JWTVerifier, insecure
from kest.http.middleware import IDENTITY, ASGIApp, Receive, Scope, Send, refuse

__all__ = ["KestIdentityMiddleware"]


class KestIdentityMiddleware:
    """Verifies the bearer token of a request (RFC 6750, section 2.1) and binds user, agent and task for the calls it runs.

    ``app.add_middleware(KestIdentityMiddleware, jwks_uri="https://issuer/jwks", issuer="https://issuer", audience="me")``.
    A bad token is answered with 401 and a problem document, and the application is not run. What a verified token says
    replaces what lineage says; the token itself is to be had from `kest.core.context.get_current_jwt` only. It may stand
    before or after `KestMiddleware`.

    Args:
        app: the application.
        jwks_uri: where the issuer publishes its keys. Required, unless ``KEST_INSECURE_NO_VERIFY=true``.
        issuer, audience, algorithms, leeway, user_claim, agent_claims, task_claim, token_types: see `JWTVerifier`.
        required: refuse requests without a token (401). Without it they run with no user, and policy decides.
        user_salt: know users by salted hashes only (see `hashed_user`); entries, policies and baggage then carry the hash.
        prefetch: fetch the keys when the server starts the application (ASGI lifespan), so that the first request does not
            wait for them. It happens in the background: the start is neither delayed nor, when it fails, prevented.
        jwks_refresh, jwks_keep, jwks_timeout, jwks_min_interval: see `KeySet`.

    Raises:
        RuntimeError: at start-up, when there is no way to verify anything.
    """

    def __init__(
        self,
        app: ASGIApp,
        jwks_uri: str | None = None,
        *,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        algorithms: Sequence[str] = ALGORITHMS,
        leeway: float = 30.0,
        user_claim: str = "sub",
        agent_claims: str | Sequence[str] = ("client_id",),
        task_claim: str | Sequence[str] = ("scope",),
        token_types: Sequence[str] = TOKEN_TYPES,
        required: bool = False,
        user_salt: str | bytes | None = None,
        prefetch: bool = True,
        jwks_refresh: float = 300.0,
        jwks_keep: float = 86400.0,
        jwks_timeout: float = 5.0,
        jwks_min_interval: float = 1.0,
    ) -> None:
        self.app = app
        if jwks_uri is None and not insecure():
            raise InsecureConfigurationError(
                "KestIdentityMiddleware cannot verify tokens without jwks_uri: pass the issuer's JWKS URL; for development "
                "only, KEST_INSECURE_NO_VERIFY=true believes any token"
            )
        keys = None
        if jwks_uri is not None:
            keys = KeySet(
                jwks_uri, refresh=jwks_refresh, keep=jwks_keep, timeout=jwks_timeout, min_interval=jwks_min_interval
            )
        self._verifier = JWTVerifier(
            keys,
            issuer=issuer,
            audience=audience,
            algorithms=algorithms,
            leeway=leeway,
            user_claim=user_claim,
            agent_claims=agent_claims,
            task_claim=task_claim,
            user_salt=user_salt,
            token_types=token_types,
        )
        self._prefetch = keys if prefetch else None
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification, version 3."""
        if scope["type"] not in ("http", "websocket"):
            if scope["type"] == "lifespan" and self._prefetch is not None:
                self._prefetch.prefetch()
            await self.app(scope, receive, send)
            return
        token: str | None = None
        try:
            token = bearer_token([value for name, value in scope["headers"] if name == b"authorization"])
            if token is None and self._required:
                raise TokenError("this service needs a bearer token: Authorization: Bearer ...")
            caller = None if token is None else await self._verified(token)
        except TokenError as error:
            await refuse(scope, send, error, [(b"www-authenticate", _challenge(token is not None))])
            return
        if caller is None:
            await self.app(scope, receive, send)
            return
        scope[IDENTITY] = caller
        before = caller_var.set(caller)
        try:
            await self.app(scope, receive, send)
        finally:
            caller_var.reset(before)

    async def _verified(self, token: str) -> Any:
        if self._verifier.known(token):
            return self._verifier.verify(token)
        return await asyncio.to_thread(self._verifier.verify, token)


def bearer_token(values: Sequence[bytes]) -> str | None:
    """The bearer token in ``Authorization`` headers; None where none of them is of that scheme.

    Raises:
        TokenError: several headers, or a malformed one.
    """
    if not values:
        return None
    if len(values) > 1:
        raise TokenError("a request has one Authorization header")
    scheme, _, token = values[0].partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    token = token.strip(b" ")
    if not token or not token.isascii() or b" " in token:
        raise TokenError("the Authorization header is malformed: Authorization: Bearer <token> (RFC 6750, section 2.1)")
    return token.decode("ascii")


def _challenge(invalid: bool) -> bytes:
    return b'Bearer error="invalid_token"' if invalid else b"Bearer"
