"""Tokens of an issuer that is not ours: Keycloak's, over real sockets, behind uvicorn."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI

from kest.core import KestIdentityMiddleware, KestMiddleware, LocalEd25519Provider, configure, kest_verified
from kest.core.context import get_current_agent, get_current_jwt, get_current_task, get_current_user
from kest.http.jwks import KeySet

sys.path.append(str(Path(__file__).resolve().parents[1] / "http"))

from kest_services.keycloak import INSTALL, UNAVAILABLE
from keycloak_server import ACCESS_TOKEN, Keycloak, running
from wire import serving

AUDIENCE = "kest-api"
WORKER = LocalEd25519Provider("spiffe://kest.test/worker", seed=b"w" * 32)


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    with running(tmp_path_factory.mktemp("keycloak")) as server:
        yield server


class Site:
    """A service that takes Keycloak's tokens; ``ran`` counts what was executed."""

    def __init__(self, url: str, ran: list[str]) -> None:
        self.url, self.ran = url, ran

    def post(self, token: str) -> httpx.Response:
        return httpx.post(f"{self.url}/work", headers={"authorization": f"Bearer {token}"})

    def accepted(self, token: str) -> dict[str, Any]:
        before = len(self.ran)
        answer = self.post(token)
        assert answer.status_code == 200, answer.text
        assert self.ran[before:] == [token]
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, token: str) -> str:
        """The reason; nothing ran, and the answer does not repeat the token."""
        before = len(self.ran)
        answer = self.post(token)
        assert answer.status_code == 401, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert self.ran[before:] == []
        assert token.split(".")[2] not in answer.text
        return str(answer.json()["detail"])


@contextlib.contextmanager
def service(keycloak: Keycloak, **settings: Any) -> Iterator[Site]:
    ran: list[str] = []
    app = FastAPI()
    app.add_middleware(KestMiddleware)
    given = {
        "jwks_uri": keycloak.jwks_uri(),
        "issuer": keycloak.issuer(),
        "audience": AUDIENCE,
        "agent_claims": ("client_id",),
        "leeway": 0,
        "required": True,
        "jwks_min_interval": 0.0,
        **settings,
    }
    app.add_middleware(KestIdentityMiddleware, **given)

    @app.post("/work")
    @kest_verified("work", identity=WORKER)
    async def work() -> dict[str, Any]:
        ran.append(get_current_jwt() or "")
        return {"user": get_current_user(), "agent": get_current_agent(), "task": get_current_task()}

    with serving(app) as url:
        yield Site(url, ran)


@pytest.fixture
def site(keycloak: Keycloak, recording: Any) -> Iterator[Site]:
    configure(engine=recording, identity=WORKER)
    with service(keycloak) as one:
        yield one


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def test_the_published_keys_are_read(keycloak: Keycloak) -> None:
    published = {key["kid"]: key for key in keycloak.jwks()}
    signing = {kid for kid, key in published.items() if key["use"] == "sig"}
    assert {key["alg"] for key in published.values()} == {"RS256", "ES256", "EdDSA", "RSA-OAEP"}
    found = KeySet(keycloak.jwks_uri())
    for kid in published:
        assert len(found.find(kid)) == (kid in signing), published[kid]["alg"]
    assert len(found.find(None)) == len(signing)


def test_client_credentials(keycloak: Keycloak, site: Site, recording: Any) -> None:
    token = keycloak.tokens("portal")["access_token"]
    said = site.accepted(token)
    assert said["user"] == claims(token)["sub"]
    assert said["agent"] == "portal"
    assert recording.asked[-1][1]["user"] == said["user"]
    assert token not in repr(recording.asked)


@pytest.mark.parametrize(
    ("client", "algorithm"), [("portal", "RS256"), ("portal-es256", "ES256"), ("portal-eddsa", "EdDSA")]
)
def test_a_users_token(client: str, algorithm: str, keycloak: Keycloak, site: Site, recording: Any) -> None:
    token = keycloak.login("alice", client)["access_token"]
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    said = site.accepted(token)
    assert said["user"] == claims(token)["sub"]
    assert set(said["task"].split()) == {"profile", "email"}
    assert recording.asked[-1][1]["subject"]["user"] == said["user"]


def test_claims_of_other_names(keycloak: Keycloak, site: Site) -> None:
    token = keycloak.login("alice", "portal")["access_token"]
    with service(keycloak, user_claim="preferred_username", task_claim="realm_access.roles") as by_name:
        said = by_name.accepted(token)
    assert said["user"] == "alice"
    assert set(said["task"].split()) == {"reader", "writer"}


@pytest.mark.parametrize("path", ["realm_access.roles", "realm_access", "resource_access.account.roles"])
def test_roles_that_are_null_or_missing(path: str, keycloak: Keycloak, site: Site) -> None:
    token = keycloak.login("alice", "without-roles")["access_token"]
    assert claims(token)["realm_access"] is None
    assert "resource_access" not in claims(token)
    site.accepted(token)
    with service(keycloak, task_claim=path) as by_role:
        assert by_role.accepted(token)["task"] is None


def test_an_archive_that_is_not_the_pinned_one_is_not_installed(tmp_path: Path) -> None:
    stub = tmp_path / "bin/mvn"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nfor last; do :; done\necho other > "${last#-DoutputDirectory=}/$(ls)"\n', "utf-8")
    stub.chmod(0o755)
    cwd = tmp_path / "names"
    cwd.mkdir()
    (cwd / (INSTALL.parent / "keycloak.sha256").read_text("utf-8").split()[1]).touch()
    cache = tmp_path / "cache"
    environment = {**os.environ, "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}", "KEST_SERVICES": str(cache)}
    done = subprocess.run([str(INSTALL)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, UNAVAILABLE)
    assert "checksum" in done.stderr
    assert done.stdout == ""
    assert list(cache.iterdir()) == []


# --- what is refused ---


def test_wrong_audience(keycloak: Keycloak, site: Site) -> None:
    assert "another audience" in site.refused(keycloak.login("alice", "elsewhere")["access_token"])
    assert "another audience" in site.refused(keycloak.tokens("elsewhere")["access_token"])


def test_wrong_realm(keycloak: Keycloak, site: Site) -> None:
    token = keycloak.tokens("portal", "other")["access_token"]
    assert AUDIENCE in claims(token)["aud"]
    assert "not signed by a key of its issuer" in site.refused(token)
    # Even where the keys of that realm are believed, the issuer decides.
    with service(keycloak, jwks_uri=keycloak.jwks_uri("other")) as mistaken:
        assert "another issuer" in mistaken.refused(token)
    with service(keycloak, jwks_uri=keycloak.jwks_uri("other"), issuer=keycloak.issuer("other")) as right:
        right.accepted(token)


def test_an_id_token_is_no_access_token(keycloak: Keycloak, site: Site) -> None:
    given = keycloak.login("alice", "portal", scope="openid")
    site.accepted(given["access_token"])
    assert claims(given["id_token"])["aud"] == "portal"
    site.refused(given["id_token"])


def test_a_refresh_token_is_no_access_token(keycloak: Keycloak, site: Site) -> None:
    site.refused(keycloak.login("alice", "portal")["refresh_token"])


def test_expired(keycloak: Keycloak, site: Site) -> None:
    token = keycloak.login("alice", "brief")["access_token"]
    said = claims(token)
    assert said["exp"] - said["iat"] == 1
    while time.time() < said["exp"] + 0.01:  # the clock decides, nobody races it
        time.sleep(0.05)
    assert site.refused(token) == "the token has expired"
    with service(keycloak, leeway=120) as patient:
        patient.accepted(token)


def test_tampered(keycloak: Keycloak, site: Site) -> None:
    token = keycloak.login("alice", "portal")["access_token"]
    other = keycloak.tokens("portal")["access_token"]
    head, body, signature = token.split(".")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    for bad in (f"{head}.{body}.{flipped}", f"{head}.{other.split('.')[1]}.{signature}"):
        assert "not signed by a key of its issuer" in site.refused(bad)
    assert site.post(f"{head}.{body}.").status_code == 401
    site.accepted(token)


# --- token exchange ---


@pytest.mark.parametrize("with_actor", [False, True], ids=["plain", "with-an-actor-token"])
def test_a_plain_exchange_names_the_user_and_no_actor(
    with_actor: bool, keycloak: Keycloak, site: Site, recording: Any
) -> None:
    """RFC 8693: Keycloak exchanges without `act`, even when it is given an actor_token; then nobody is known to act."""
    subject = keycloak.login("alice", "portal")["access_token"]
    form = {"audience": AUDIENCE}
    if with_actor:
        form.update(actor_token=keycloak.tokens("kest-agent")["access_token"], actor_token_type=ACCESS_TOKEN)
    token = keycloak.exchange(subject, "kest-agent", **form)["access_token"]
    before, after = claims(subject), claims(token)
    assert "act" not in after
    assert (before["azp"], after["azp"]) == ("portal", "kest-agent")
    assert after["aud"] == AUDIENCE

    def asked() -> tuple[Any, Any, Any]:
        context = recording.asked[-1][1]
        return context["user"], context["agent"], context["subject"]["agent"]

    said = site.accepted(token)
    assert (said["user"], said["agent"]) == (before["sub"], None)
    assert asked() == (before["sub"], None, None)
    # To take the client that the token was issued to for the agent is a service's explicit choice.
    with service(keycloak, agent_claims=("azp",)) as chosen:
        said = chosen.accepted(token)
        assert (said["user"], said["agent"]) == (before["sub"], "kest-agent")
        assert chosen.accepted(subject)["agent"] == "portal"


def test_an_exchange_that_was_not_allowed_gives_no_token(keycloak: Keycloak) -> None:
    subject = keycloak.login("alice", "portal")["access_token"]
    with pytest.raises(AssertionError, match=r"not enabled|not allowed|unauthorized"):
        keycloak.exchange(subject, "elsewhere")


# --- rotation ---


def test_realm_keys_rotate_without_a_restart(keycloak: Keycloak, site: Site) -> None:
    old = keycloak.login("alice", "portal")["access_token"]
    site.accepted(old)
    before = {key["kid"] for key in keycloak.jwks()}
    keycloak.add_key("rsa-generated", 200, algorithm="RS256", keySize="2048")
    new = keycloak.login("alice", "portal")["access_token"]
    kid = jwt.get_unverified_header(new)["kid"]
    assert kid not in before
    assert {key["kid"] for key in keycloak.jwks()} == before | {kid}
    site.accepted(new)
    site.accepted(old)  # issued before, and its key is still published
