"""OIDCIdentity with tokens of real issuers: npm's oidc-provider and Keycloak; keys bound by DPoP, or published."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kest_services.oidc_issuer import OidcIssuer
from kest_services.processes import Processes
from keycloak_server import Keycloak, running

from kest import _kestcore
from kest.core import OIDCIdentity, PassportVerifier, StaticIdentity, configure, kest_verified
from kest.core.context import get_current_passport
from kest.errors import IdentityError

AUDIENCES = {alg: {"scope": "sign", "alg": alg} for alg in ("EdDSA", "ES256", "RS256")}
CLIENTS = [
    {"id": name, "secret": f"{name}-secret", "targets": list(AUDIENCES), "logins": [name]} for name in ("shop", "stock")
]
LOGIN = "urn:kest:params:oauth:grant-type:test-login"
SEED = b"o" * 32
KEY = StaticIdentity("the key", key=SEED)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Iterator[OidcIssuer]:
    built("oidc-issuer")
    folder = tmp_path_factory.mktemp("issuer")
    with (
        Processes(folder) as processes,
        OidcIssuer(processes, folder / "i", audiences=AUDIENCES, clients=CLIENTS) as one,
    ):
        yield one


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    with running(tmp_path_factory.mktemp("keycloak")) as server:
        yield server


def dpop(key: StaticIdentity, url: str) -> str:
    """A proof (RFC 9449, section 4.2) that whoever asks ``url`` for a token has ``key``."""
    jwk = {name: key.public_jwk()[name] for name in ("crv", "kty", "x")}
    header = {"alg": "EdDSA", "jwk": jwk, "typ": "dpop+jwt"}
    claims = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": str(uuid.uuid4())}
    message = ".".join(_kestcore.b64url_encode(json.dumps(part).encode()) for part in (header, claims))
    return f"{message}.{_kestcore.b64url_encode(key.sign_message(message.encode()))}"


def token(url: str, client: str = "shop", key: StaticIdentity | None = None, **form: str) -> str:
    """An access token of the issuer whose token endpoint this is; with ``key``, bound to it."""
    headers = {} if key is None else {"DPoP": dpop(key, url)}
    given = {"grant_type": "client_credentials", **form}
    answer = httpx.post(url, data=given, auth=(client, f"{client}-secret"), headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def claims_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_kestcore.b64url_decode(text.split(".")[1]))
    return found


def renew(file: Path, text: str) -> None:
    """As a kubelet or an agent does it: a new file in the place of the old one."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text + "\n")
    os.replace(fresh, file)


def refusal(identity: OIDCIdentity) -> str:
    """Why a call does not run."""
    ran: list[int] = []
    before = len(get_current_passport())
    with pytest.raises(IdentityError) as caught:
        kest_verified("work", identity=identity)(lambda: ran.append(1))()
    assert not ran
    assert len(get_current_passport()) == before
    return str(caught.value)


def test_a_token_bound_to_the_key_by_dpop(issuer: OidcIssuer, tmp_path: Path, recording: Any, payload_of: Any) -> None:
    file = tmp_path / "token"
    text = token(f"{issuer.url}/token", key=KEY)
    file.write_text(text)
    identity = OIDCIdentity(
        file, key=SEED, issuer=issuer.url, subject="shop", audience=issuer.url, jwks_url=f"{issuer.url}/jwks"
    )
    configure(engine=recording, identity=identity)
    kest_verified("work")(lambda: None)()
    passport = get_current_passport()
    principal = f"oidc:{issuer.url}#shop"
    assert PassportVerifier.verify(passport, {principal: KEY.public_jwk()}).principals == {principal}
    labels = payload_of(passport.entries[0])["labels"]
    assert {name: text for name, text in labels.items() if name == "principal" or name.startswith("kest.oidc.")} == {
        "principal": principal, "kest.oidc.issuer": issuer.url, "kest.oidc.subject": "shop",
        "kest.oidc.binding": "cnf", "kest.oidc.verified": "true",
    }  # fmt: skip
    for place in (passport.serialize(), repr(identity), json.dumps(recording.asked)):
        assert text.split(".")[1] not in place
        assert text.split(".")[2] not in place
    # Bound to this key means: to no other.
    assert "bound to another key" in refusal(OIDCIdentity(file, key=b"x" * 32))


@pytest.mark.parametrize("alg", AUDIENCES)
def test_each_algorithm_of_tokens_with_a_published_key(alg: str, issuer: OidcIssuer, recording: Any) -> None:
    text = token(f"{issuer.url}/token", grant_type=LOGIN, login="shop", audience=alg, scope="sign")
    identity = OIDCIdentity(token=text, key=SEED, audience=alg, jwks_url=f"{issuer.url}/jwks")
    configure(engine=recording, identity=identity)
    kest_verified("work")(lambda: None)()
    assert identity.labels()["kest.oidc.binding"] == "published"
    keys = {identity.get_identity(): identity.public_jwk()}
    assert PassportVerifier.verify(get_current_passport(), keys).principals == {f"oidc:{issuer.url}#shop"}


def test_a_renewed_token_is_read_again(issuer: OidcIssuer, tmp_path: Path, recording: Any) -> None:
    file, url = tmp_path / "token", f"{issuer.url}/token"
    file.write_text(token(url, key=KEY))
    identity = OIDCIdentity(file, key=SEED, jwks_url=f"{issuer.url}/jwks")
    configure(engine=recording, identity=identity)
    step = kest_verified("work")(lambda: None)
    step()
    renew(file, token(url, key=KEY))
    step()
    renew(file, token(url, "stock", key=KEY))
    assert "now names another issuer or subject" in refusal(identity)
    renew(file, token(url))  # no longer bound to a key: the binding is a fact of each entry
    step()
    assert identity.labels()["kest.oidc.binding"] == "published"
    file.unlink()
    assert "cannot be read (No such file or directory)" in refusal(identity)
    renew(file, token(url, key=KEY))
    step()
    assert len(PassportVerifier.verify(get_current_passport(), {identity.get_identity(): KEY.public_jwk()})) == 4


def test_what_does_not_fit_is_refused(issuer: OidcIssuer, recording: Any) -> None:
    text = token(f"{issuer.url}/token", key=KEY)
    configure(engine=recording)
    settings = {"key": SEED, "jwks_url": f"{issuer.url}/jwks"}
    assert "was not issued by" in refusal(OIDCIdentity(token=text, issuer="https://issuer.test", **settings))
    assert "is not about" in refusal(OIDCIdentity(token=text, subject="stock", **settings))
    assert "is not meant for" in refusal(OIDCIdentity(token=text, audience="ES256", **settings))
    head, body, signature = text.split(".")
    claims = {**claims_of(text), "sub": "stock"}
    forged = f"{head}.{_kestcore.b64url_encode(json.dumps(claims).encode())}.{signature}"
    assert "does not verify under the keys of" in refusal(OIDCIdentity(token=forged, **settings))
    header = {"alg": "none", "typ": "at+jwt"}
    unsigned = f"{_kestcore.b64url_encode(json.dumps(header).encode())}.{body}.{signature}"
    assert "is not a signed JWT" in refusal(OIDCIdentity(token=unsigned, **settings))


async def test_an_issuer_that_is_down(
    processes: Processes, tmp_path: Path, built: Callable[[str], Path], recording: Any
) -> None:
    built("oidc-issuer")
    with OidcIssuer(processes, tmp_path / "i", audiences=AUDIENCES, clients=CLIENTS) as issuer:
        text = token(f"{issuer.url}/token", key=KEY)
        configure(engine=recording)
        identity = OIDCIdentity(token=text, key=SEED, jwks_url=f"{issuer.url}/jwks")
        known = OIDCIdentity(token=text, key=SEED, jwks_url=f"{issuer.url}/jwks")
        kest_verified("work", identity=known)(lambda: None)()
        issuer.kill()
        assert "cannot be verified: " in refusal(identity)
        assert "did not answer" in refusal(identity)
        ran: list[int] = []

        @kest_verified("work", identity=identity)
        async def step() -> None:
            ran.append(1)

        with pytest.raises(IdentityError, match="did not answer"):
            await step()
        kest_verified("work", identity=known)(lambda: None)()  # verified before, and valid still
        issuer.start()  # with new keys
        with pytest.raises(IdentityError, match="does not verify under the keys of"):
            await step()
        assert not ran


def test_keycloak_vouches_for_its_clients(keycloak: Keycloak, tmp_path: Path, recording: Any, payload_of: Any) -> None:
    url = f"{keycloak.issuer()}/protocol/openid-connect/token"
    file = tmp_path / "token"
    for bound in (None, KEY):
        text = token(url, "portal", key=bound)
        renew(file, text)
        identity = OIDCIdentity(file, key=SEED, issuer=keycloak.issuer(), jwks_url=keycloak.jwks_uri())
        configure(engine=recording, identity=identity)
        kest_verified("work")(lambda: None)()
        principal = f"oidc:{keycloak.issuer()}#{claims_of(text)['sub']}"
        assert identity.get_identity() == principal
        labels = payload_of(get_current_passport().entries[-1])["labels"]
        assert labels["kest.oidc.verified"] == "true"
        assert labels["kest.oidc.binding"] == ("published" if bound is None else "cnf")
    assert "bound to another key" in refusal(OIDCIdentity(file, key=b"x" * 32))
    verified = PassportVerifier.verify(get_current_passport(), {principal: KEY.public_jwk()})
    assert len(verified) == 2


def test_another_realms_token_is_not_this_realms(keycloak: Keycloak, recording: Any) -> None:
    configure(engine=recording)
    text = keycloak.tokens("portal")["access_token"]
    other = keycloak.issuer("other")
    assert "was not issued by" in refusal(OIDCIdentity(token=text, issuer=other))
    settings = {"jwks_url": keycloak.jwks_uri("other")}
    assert "does not verify under the keys of" in refusal(OIDCIdentity(token=text, **settings))
    # Its keys change, and tokens under the new one verify.
    keycloak.add_key("rsa-generated", 500)
    renewed = keycloak.tokens("portal")["access_token"]
    assert renewed.split(".")[0] != text.split(".")[0]
    identity = OIDCIdentity(token=renewed, jwks_url=keycloak.jwks_uri())
    kest_verified("work", identity=identity)(lambda: None)()
