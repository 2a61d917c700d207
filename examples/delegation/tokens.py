"""Tokens from the issuer: token exchange as a workload does it (RFC 8693)."""

from __future__ import annotations

import time
from typing import Any

import httpx

__all__ = ["ACCESS_TOKEN", "EXCHANGE", "LOGIN", "Refused", "TokenClient"]

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
LOGIN = "urn:kest:params:oauth:grant-type:test-login"


class Refused(Exception):
    """The issuer refused: ``status``, and its reason as the message."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class TokenClient:
    """One client of the issuer, with its own credentials.

    Args:
        http: an httpx client.
        endpoint: the issuer's token endpoint.
        client: the client's id, and the name of the audience that tokens for it carry.
        secret: what it authenticates with.
        actors: whether the issuer takes actor tokens, and names who acts in what it issues.
    """

    def __init__(
        self, http: httpx.AsyncClient, endpoint: str, client: str, secret: str, *, actors: bool = True
    ) -> None:
        self._http, self._endpoint, self._actors = http, endpoint, actors
        self._auth = httpx.BasicAuth(client, secret)
        self._own, self._expires = "", 0.0

    async def exchange(self, subject: str, audience: str, *, scope: str | None = None, act: bool = True) -> str:
        """A token for ``audience``, on behalf of whom ``subject`` names.

        Args:
            subject: the token that came, which must have been meant for this client.
            scope: what of the subject's scope is needed; all of it by default.
            act: say who acts, with an actor token. The new token then has this client as its current actor.
        """
        form = {
            "grant_type": EXCHANGE,
            "subject_token": subject,
            "subject_token_type": ACCESS_TOKEN,
            "audience": audience,
        }
        if scope is not None:
            form["scope"] = scope
        if act and self._actors:
            form |= {"actor_token": await self._own_token(), "actor_token_type": ACCESS_TOKEN}
        return str((await self._ask(form))["access_token"])

    async def login(self, user: str, audience: str, scope: str) -> str:
        """What a browser would bring: a token for a person who signed in and agreed to this scope. For tests only."""
        form = {"grant_type": LOGIN, "login": user, "audience": audience, "scope": scope}
        return str((await self._ask(form))["access_token"])

    async def _own_token(self) -> str:
        if time.monotonic() >= self._expires:
            answer = await self._ask({"grant_type": "client_credentials"})
            self._own, self._expires = answer["access_token"], time.monotonic() + answer["expires_in"] - 30
        return self._own

    async def _ask(self, form: dict[str, str]) -> dict[str, Any]:
        response = await self._http.post(self._endpoint, data=form, auth=self._auth)
        answer: dict[str, Any] = response.json()
        if response.status_code != 200:
            raise Refused(response.status_code, answer.get("error_description") or answer["error"])
        return answer
