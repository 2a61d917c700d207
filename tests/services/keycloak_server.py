"""A Keycloak of our own: installed once, started with realms from files, and stopped with everything that it started."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "tools/services/keycloak/install"
REALMS = Path(__file__).resolve().parent / "keycloak"
UNAVAILABLE = 69  # what INSTALL answers where Keycloak cannot be had
START = 300.0
"""Seconds that it may take to start: 10 on an idle machine."""

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_LISTENS = re.compile(
    r"Listening on: http://127\.0\.0\.1:(\d+)\. Management interface listening on http://127\.0\.0\.1:(\d+)"
)


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


def installed() -> Path:
    """Where Keycloak is; the test is skipped where it cannot be had, and fails where it is not what is pinned."""
    done = subprocess.run([str(INSTALL)], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == UNAVAILABLE:
        pytest.skip(f"Keycloak cannot be installed here: {' '.join(done.stderr.split()[-40:])}")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Keycloak]:
    """Keycloak with the realms of `REALMS`, on ports that the system chose; ``folder`` holds its state and its log."""
    home = _home(installed(), folder)
    admin = ("kest-admin", secrets.token_urlsafe(24))
    log = folder / "keycloak.log"
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("KC_", "KEYCLOAK_", "JAVA_OPTS"))}
    ours.update(KC_BOOTSTRAP_ADMIN_CLIENT_ID=admin[0], KC_BOOTSTRAP_ADMIN_CLIENT_SECRET=admin[1])
    command = [
        str(home / "bin/kc.sh"), "start", "--optimized", "--import-realm",
        "--http-enabled=true", "--http-host=127.0.0.1", "--http-port=0",
        "--http-management-host=127.0.0.1", "--http-management-port=0",
        "--hostname-strict=false",
    ]  # fmt: skip
    with log.open("wb") as output:
        # A session of its own: kc.sh runs java beside itself, and both get the signals that end it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ours, start_new_session=True
        )
    try:
        port, management = _ports(process, log)
        with httpx.Client(timeout=30.0) as client:
            _ready(process, log, client, f"http://127.0.0.1:{management}/health/ready")
            yield Keycloak(f"http://127.0.0.1:{port}", admin, client)
    finally:
        stop(process)


def _home(installation: Path, folder: Path) -> Path:
    """A home of this run's own around what is shared: Keycloak reads realms from its home and writes into it."""
    home = folder / "home"
    (home / "bin").mkdir(parents=True)
    shutil.copy(installation / "bin/kc.sh", home / "bin")
    for part in ("conf", "lib", "providers", "themes"):
        (home / part).symlink_to(installation / part)
    shutil.copytree(REALMS, home / "data/import")
    return home


def _ports(process: subprocess.Popen[bytes], log: Path) -> tuple[int, int]:
    found = _until(process, log, lambda: _LISTENS.search(log.read_text("utf-8", "replace")))
    return int(found[1]), int(found[2])


def _ready(process: subprocess.Popen[bytes], log: Path, client: httpx.Client, url: str) -> None:
    def answers() -> bool:
        try:
            return client.get(url).status_code == 200
        except httpx.TransportError:
            return False

    _until(process, log, answers)


def _until(process: subprocess.Popen[bytes], log: Path, found: Any) -> Any:
    end = time.monotonic() + START
    while not (result := found()):
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
        assert process.poll() is None, f"Keycloak ended early:\n{tail}"
        assert time.monotonic() < end, f"Keycloak did not start within {START:.0f} seconds:\n{tail}"
        time.sleep(0.1)
    return result


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it and all it started; SIGKILL for what takes too long."""
    group = process.pid
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    process.wait(20)
