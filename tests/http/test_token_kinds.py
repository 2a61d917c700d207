"""Which tokens are access tokens: what issuers really send, and what else they sign with the same keys."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from publisher import body, publishing, silent
from test_http_identity import EDDSA, Issuer, application, public, token
from wire import serving, until

from kest.core.fetch import fetch
from kest.errors import ConfigurationError, TokenError
from kest.http.jwks import KeySet
from kest.http.jwt_verifier import JWTVerifier


@pytest.fixture
def issuer() -> Any:
    one = Issuer()
    yield one
    one.close()


def taken(header: dict[str, Any], claims: dict[str, Any], url: str, **settings: Any) -> bool:
    """Whether a token with these members is an access token to us."""
    verifier = JWTVerifier(KeySet(url, min_interval=0.0), **settings)
    # PyJWT writes typ "JWT" unless told otherwise, and leaves it out for None.
    text = token(headers={"typ": None, **header}, **claims)
    try:
        verifier.verify(text)
    except TokenError:
        return False
    return True


ACCESS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "keycloak": ({"typ": "JWT"}, {"typ": "Bearer", "azp": "web", "session_state": "x", "realm_access": {"roles": []}}),
    "keycloak before 25": ({"typ": "JWT"}, {"typ": "Bearer", "nonce": "n"}),
    "keycloak, dpop": ({"typ": "JWT"}, {"typ": "DPoP"}),
    "keycloak, at+jwt": ({"typ": "at+jwt"}, {"typ": "Bearer"}),
    "auth0": ({"typ": "JWT"}, {"azp": "web", "gty": "client-credentials"}),
    "auth0, rfc 9068": ({"typ": "at+jwt"}, {"jti": "1"}),
    "oidc-provider": ({"typ": "at+jwt"}, {"jti": "1"}),
    "entra v1": ({"typ": "JWT", "x5t": "x"}, {"appid": "x", "ver": "1.0", "uti": "x", "idtyp": "app"}),
    "entra v2": ({"typ": "JWT"}, {"azp": "x", "ver": "2.0", "scp": "a"}),
    "okta": ({}, {"cid": "x", "scp": ["a"]}),
    "cognito": ({}, {"token_use": "access", "event_id": "x"}),
    "media type in full": ({"typ": "application/at+JWT"}, {}),
}

OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "keycloak id": ({"typ": "JWT"}, {"typ": "ID"}),
    "keycloak refresh": ({"typ": "JWT"}, {"typ": "Refresh"}),
    "keycloak offline": ({"typ": "JWT"}, {"typ": "Offline"}),
    "keycloak logout": ({"typ": "logout+jwt"}, {"typ": "Logout"}),
    "logout claim only": ({"typ": "JWT"}, {"typ": "Logout"}),
    "back-channel logout": ({"typ": "JWT"}, {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
    "logout+jwt": ({"typ": "logout+jwt"}, {}),
    "security event": ({"typ": "secevent+jwt"}, {}),
    "security event in full": ({"typ": "application/secevent+jwt"}, {}),
    "event in an at+jwt": ({"typ": "at+jwt"}, {"events": {}}),
    "id token, nonce": ({"typ": "JWT"}, {"nonce": "n"}),
    "id token, at_hash": ({}, {"at_hash": "x"}),
    "id token, c_hash": ({"typ": "JWT"}, {"c_hash": "x"}),
    "id token, s_hash": ({"typ": "JWT"}, {"s_hash": "x"}),
    "cognito id": ({}, {"token_use": "id"}),
    "refresh of a framework": ({"typ": "JWT"}, {"token_type": "refresh"}),
    "request object": ({"typ": "oauth-authz-req+jwt"}, {}),
    "dpop proof": ({"typ": "dpop+jwt"}, {}),
    "typ that is no text": ({"typ": 5}, {}),
}


@pytest.mark.parametrize("kind", sorted(ACCESS))
def test_access_tokens_as_issuers_send_them(kind: str, issuer: Issuer) -> None:
    assert taken(*ACCESS[kind], issuer.url)


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_other_tokens_of_the_same_issuer(kind: str, issuer: Issuer) -> None:
    assert not taken(*OTHERS[kind], issuer.url)


def test_only_what_says_that_it_is_an_access_token(issuer: Issuer) -> None:
    for name, (header, claims) in ACCESS.items():
        explicit = str(header.get("typ", "")).lower().endswith("at+jwt")
        assert taken(header, claims, issuer.url, token_types=["at+jwt"]) is explicit, name
    assert taken({"typ": "weird"}, {}, issuer.url, token_types=["application/weird"])
    assert not taken({}, {}, issuer.url, token_types=["JWT"])


@pytest.mark.parametrize("given", ["at+jwt", [], [None], [5]])
def test_settings_that_are_none(given: Any, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError, match="token_types"):
        JWTVerifier(KeySet(issuer.url), token_types=given)


def test_through_the_middleware(issuer: Issuer) -> None:
    ran: list[Any] = []
    with serving(application(ran, jwks_uri=issuer.url, token_types=["at+jwt"])) as url:

        def post(**headers: Any) -> httpx.Response:
            return httpx.post(f"{url}/work", headers={"authorization": f"Bearer {token(headers=headers)}"})

        answer = post()
        assert (answer.status_code, bool(ran)) == (401, False)
        assert "typ" in answer.json()["detail"]
        assert post(typ="at+jwt").status_code == 200


# --- prefetch ---


def test_the_keys_are_there_before_the_first_request(issuer: Issuer) -> None:
    with serving(application([], jwks_uri=issuer.url)) as url:
        until(lambda: issuer.asked == 1)
        assert httpx.post(f"{url}/work", headers={"authorization": f"Bearer {token()}"}).status_code == 200
    assert issuer.asked == 1


def test_prefetch_can_be_switched_off(issuer: Issuer) -> None:
    with serving(application([], jwks_uri=issuer.url, prefetch=False)) as url:
        assert httpx.post(f"{url}/work").status_code == 200
    assert issuer.asked == 0


def test_a_prefetch_that_fails_is_logged_and_delays_nothing(issuer: Issuer, caplog: Any) -> None:
    with publishing(silent) as slow:
        before = time.monotonic()
        with serving(application([], jwks_uri=slow.url, jwks_timeout=60.0)) as url:
            assert httpx.post(f"{url}/work").status_code == 200
            assert time.monotonic() - before < 20  # silent answers after 30 s
        until(lambda: slow.asked == 1)
    issuer.down = True
    with serving(application([], jwks_uri=issuer.url, jwks_min_interval=0.0)) as url:
        until(lambda: "could not be fetched" in caplog.text and "HTTP 503" in caplog.text)
        issuer.down = False
        assert httpx.post(f"{url}/work", headers={"authorization": f"Bearer {token()}"}).status_code == 200


async def test_lifespan_messages_pass_untouched(issuer: Issuer) -> None:
    from kest.http import KestIdentityMiddleware

    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Any:
        return {}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    await KestIdentityMiddleware(app, issuer.url)(scope, receive, send)
    assert seen == [(scope, receive, send)]
    assert list(scope) == ["type", "asgi"]
    until(lambda: issuer.asked == 1)


# --- fetching ---


def test_no_environment_proxy_for_an_issuer_on_this_machine(issuer: Issuer, monkeypatch: Any) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert len(KeySet(issuer.url).find("ed")) == 1


def test_a_slow_issuer_is_given_up_at_the_deadline() -> None:
    from publisher import dripping_header

    with publishing(dripping_header) as slow:
        before = time.monotonic()
        with pytest.raises(TokenError, match="not available"):
            KeySet(slow.url, timeout=0.3).find("ed")
        assert time.monotonic() - before < 5


def test_a_redirect_of_an_issuer_is_not_followed(issuer: Issuer) -> None:
    with publishing(body(b"", 302, location=issuer.url)) as other, pytest.raises(TokenError):
        KeySet(other.url).find("ed")
    assert issuer.asked == 0


def test_what_is_sent_to_an_issuer(issuer: Issuer) -> None:
    requests: list[Any] = []

    def answer(request: Any, closing: Any) -> None:
        requests.append((request.path, dict(request.headers)))
        body(b"{}")(request, closing)

    with publishing(answer) as server:
        fetch(server.url, timeout=5, max_bytes=10)
        path, headers = requests[0]
        assert path == "/keys?secret=1"
        assert headers["Host"] == server.url.split("/")[2]
    assert public(EDDSA, "ed")["kid"] == "ed"
