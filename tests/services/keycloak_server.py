"""A client of a Keycloak of our own, with the realms of the folder ``keycloak``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kest_services import keycloak
from kest_services.processes import Processes
from kest_services.toolchains import MissingToolError

REALMS = Path(__file__).resolve().parent / "keycloak"

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class Keycloak:
    """A running server. Clients authenticate with ``<id>-secret``, as the realm files say."""

    def __init__(self, url: str, admin: tuple[str, str], client: httpx.Client) -> None:
        self.url = url
        self._admin = admin
        self._client = client

    def issuer(self, realm: str = "kest") -> str:
        return f"{self.url}/realms/{realm}"

    def jwks_uri(self, realm: str = "kest") -> str:
        return f"{self.issuer(realm)}/protocol/openid-connect/certs"

    def jwks(self, realm: str = "kest") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.get(self.jwks_uri(realm)).raise_for_status().json()["keys"]
        return found

    def tokens(self, client: str, realm: str = "kest", **form: str) -> dict[str, Any]:
        """The answer of the token endpoint; by default to client credentials."""
        given = {"grant_type": "client_credentials", **form}
        return self._token(realm, (client, f"{client}-secret"), given)

    def login(self, user: str, client: str, realm: str = "kest", **form: str) -> dict[str, Any]:
        """A user's own tokens (the resource owner password grant, which only a test would want)."""
        return self.tokens(client, realm, grant_type="password", username=user, password=f"{user}-password", **form)

    def exchange(self, token: str, client: str, **form: str) -> dict[str, Any]:
        """RFC 8693: an access token for ``client``, on behalf of the subject of ``token``."""
        given = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN, **form}
        return self.tokens(client, **given)

    def add_key(self, provider: str, priority: int, realm: str = "kest", **config: str) -> None:
        """A new realm key, which signs from now on if its priority is the highest of its algorithm."""
        token = self._token("master", self._admin, {"grant_type": "client_credentials"})["access_token"]
        settings = {"priority": str(priority), "enabled": "true", "active": "true", **config}
        component = {
            "name": f"{provider}-{priority}",
            "providerId": provider,
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": {name: [value] for name, value in settings.items()},
        }
        self._client.post(
            f"{self.url}/admin/realms/{realm}/components", json=component, headers={"authorization": f"Bearer {token}"}
        ).raise_for_status()

    def _token(self, realm: str, client: tuple[str, str], form: dict[str, str]) -> dict[str, Any]:
        answer = self._client.post(f"{self.issuer(realm)}/protocol/openid-connect/token", data=form, auth=client)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Keycloak]:
    """Keycloak with the realms of `REALMS`; ``folder`` holds its state and its log. Skipped where it cannot be had."""
    with Processes(folder) as processes:
        try:
            server = keycloak.Keycloak(processes, folder / "keycloak", realms=REALMS)
        except MissingToolError as error:
            pytest.skip(str(error))
        with server, httpx.Client(timeout=30.0) as client:
            yield Keycloak(server.url, server.admin, client)
