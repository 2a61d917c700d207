"""ATTACKS, rows D1, D2, D3 and D6 over real sockets: who is calling, and what must not leak."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from wire import ALICE, HOP, grown, header_of, inline, keys, report, serving

from kest.core import SimpleCache, configure, kest_verified
from kest.core.context import caller_var, get_current_jwt, lineage
from kest.errors import ConfigurationError
from kest.http import KestHttpxInterceptor, KestIdentityMiddleware, KestMiddleware, hashed_user

ISSUER, AUDIENCE = "https://issuer.test", "kest-service"
EDDSA, ECDSA = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
OTHER = ed25519.Ed25519PrivateKey.generate()


def public(key: Any, kid: str | None, **members: Any) -> dict[str, Any]:
    algorithm = "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "ES256"
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = "RS256"
    text = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key())
    return {**json.loads(text), **({} if kid is None else {"kid": kid}), **members}


class Issuer:
    """Publishes keys; may be down, slow to tell, or rotate."""

    def __init__(self) -> None:
        self.keys = [public(EDDSA, "ed"), public(ECDSA, "ec"), public(RSA, "rsa")]
        self.down = False
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                if issuer.down:
                    self.send_error(503)
                    return
                body = json.dumps({"keys": issuer.keys}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    one = Issuer()
    yield one
    one.close()


def token(key: Any = EDDSA, kid: str | None = "ed", alg: str = "EdDSA", headers: Any = None, **claims: Any) -> str:
    now = int(time.time())
    base = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "client_id": "app", "scope": "task:read"}
    given = {name: value for name, value in {**base, **claims}.items() if value is not ...}
    return jwt.encode(given, key, alg, headers={**({} if kid is None else {"kid": kid}), **(headers or {})})


def application(ran: list[Any], order: str = "identity-outside", **settings: Any) -> FastAPI:
    app = FastAPI()
    steps = [
        lambda: app.add_middleware(KestMiddleware, trust_store=keys()),
        lambda: app.add_middleware(KestIdentityMiddleware, **settings),
    ]
    for step in steps if order == "identity-outside" else reversed(steps):
        step()

    @app.post("/work")
    @kest_verified(policy="p", identity=HOP)
    async def work() -> Any:
        ran.append(get_current_jwt())
        return report()

    return app


@pytest.fixture(params=["identity-outside", "identity-inside"])
def site(request: Any, issuer: Issuer) -> Iterator[SimpleNamespace]:
    ran: list[Any] = []
    settings = {"issuer": ISSUER, "audience": AUDIENCE, "leeway": 5, "jwks_min_interval": 0.0, "prefetch": False}
    with serving(application(ran, request.param, jwks_uri=issuer.url, **settings)) as url:

        def post(bearer: str | None, baggage: str | None = None) -> httpx.Response:
            headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
            return httpx.post(f"{url}/work", headers={**headers, **({} if baggage is None else {"baggage": baggage})})

        yield SimpleNamespace(post=post, ran=ran, issuer=issuer, url=url)


# --- D1 ---


def test_d1_names_sent_by_a_client_are_ignored(site: Any) -> None:
    claimed = {"kest.user": "root", "kest.agent": "root", "kest.task": "all", "kest.jwt": "x.y.z"}
    answer = site.post(None, header_of(claimed)).json()
    assert (answer["user"], answer["agent"], answer["task"]) == (None, None, None)
    passport = grown(1)
    answer = site.post(None, inline(passport.entries, user="root", agent="root")).json()
    assert (answer["user"], answer["agent"], answer["task"]) == (None, None, None)
    assert site.ran == [None, None]


def test_d1_names_count_when_a_verified_tip_says_the_same(site: Any) -> None:
    passport = grown(1, user="alice", agent="bot", task="t")
    answer = site.post(None, inline(passport.entries, user="alice", agent="bot", task="other")).json()
    assert (answer["user"], answer["agent"], answer["task"]) == ("alice", "bot", None)
    # an older entry's word is not that of the tip
    answer = site.post(None, inline(grown(1, passport=passport).entries, user="alice")).json()
    assert answer["user"] is None
    # and unsaid is unsaid: the sender acts for itself now
    assert site.post(None, inline(passport.entries)).json()["user"] is None


def test_d1_a_verified_token_overrides_upstream(site: Any) -> None:
    passport = grown(1, user="mallory", agent="evil", task="all")
    baggage = inline(passport.entries, user="mallory", agent="evil", task="all")
    answer = site.post(token(scope=...), baggage).json()
    assert (answer["user"], answer["agent"], answer["task"]) == ("alice", "app", None)
    assert answer["entries"][:-1] == passport.entries


def test_d1_delegation_is_read_as_rfc_8693_says(site: Any) -> None:
    act = {"sub": "gateway", "act": {"sub": "agent", "act": {"sub": "first"}}}
    assert site.post(token(act=act)).json()["agent"] == "gateway"
    # Keycloak's exchanges bring azp and no act (and some issuers cid): nobody acts, and nobody is guessed to.
    assert site.post(token(client_id=..., azp="web", cid="web")).json()["agent"] is None
    assert site.post(token(client_id=...)).json()["agent"] is None
    assert site.post(token(client_id=..., actor="x", may_act={"sub": "y"})).json()["agent"] is None
    for bad in ({}, {"sub": ""}, {"sub": 1}, "gateway", None, [], [{"sub": "a"}], {"act": {"sub": "a"}}):
        assert site.post(token(act=bad)).status_code == 401, bad
        assert site.post(token(act={"sub": "a", "act": bad})).status_code == 401, bad
    deep: dict[str, Any] = {"sub": "x"}
    for _ in range(7):
        deep = {"sub": "x", "act": deep}
    assert site.post(token(act=deep)).status_code == 200
    assert site.post(token(act={"sub": "x", "act": deep})).status_code == 401


# --- D2 ---


def tampered(bearer: str) -> str:
    head, body, signature = bearer.split(".")
    return f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def unsigned(alg: str) -> str:
    body = token().split(".")[1]
    from kest._kestcore import b64url_encode

    return f"{b64url_encode(json.dumps({'alg': alg, 'kid': 'ed'}).encode())}.{body}."


def confused() -> str:
    """HS256 with the RSA public key as its secret."""
    import hashlib
    import hmac

    from kest._kestcore import b64url_encode

    secret = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = b64url_encode(json.dumps({"alg": "HS256", "kid": "rsa", "typ": "JWT"}).encode())
    body = token().split(".")[1]
    return f"{head}.{body}.{b64url_encode(hmac.new(secret, f'{head}.{body}'.encode(), hashlib.sha256).digest())}"


BAD: dict[str, Any] = {
    "expired": lambda: token(exp=int(time.time()) - 60),
    "not yet valid": lambda: token(nbf=int(time.time()) + 60),
    "no exp": lambda: token(exp=...),
    "exp null": lambda: token(exp=None),
    "exp text": lambda: token(exp="soon"),
    "no issuer": lambda: token(iss=...),
    "wrong issuer": lambda: token(iss="https://evil.test"),
    "issuer prefix": lambda: token(iss=ISSUER + ".evil.test"),
    "no audience": lambda: token(aud=...),
    "wrong audience": lambda: token(aud="other"),
    "wrong audiences": lambda: token(aud=["a", "b"]),
    "no subject": lambda: token(sub=...),
    "empty subject": lambda: token(sub=""),
    "none": lambda: unsigned("none"),
    "None": lambda: unsigned("None"),
    "hs256 with the public key": confused,
    "hs256": lambda: token(key="secret" * 8, alg="HS256"),
    "unknown kid": lambda: token(key=OTHER, kid="other"),
    "another key under a known kid": lambda: token(key=OTHER),
    "kid of another kind": lambda: token(kid="rsa"),
    "no kid, unknown key": lambda: token(key=OTHER, kid=None),
    "altered": lambda: tampered(token()),
    "crit": lambda: token(headers={"crit": ["b64"], "b64": True}),
    "not a jwt": lambda: "abc",
    "two dots": lambda: "..",
    "huge": lambda: token(x="x" * 20000),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_d2_bad_tokens(site: Any, kind: str) -> None:
    answer = site.post(BAD[kind]())
    assert answer.status_code == 401, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["detail"]
    assert not site.ran


@pytest.mark.parametrize(("key", "kid", "alg"), [(EDDSA, "ed", "EdDSA"), (ECDSA, "ec", "ES256"), (RSA, "rsa", "RS256"),
                                                 (RSA, "rsa", "PS256"), (EDDSA, None, "EdDSA")])  # fmt: skip
def test_d2_good_tokens(site: Any, key: Any, kid: str | None, alg: str) -> None:
    answer = site.post(token(key, kid, alg, aud=["x", AUDIENCE], realm_access=None))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["user"], answer.json()["agent"], answer.json()["task"]) == ("alice", "app", "task:read")
    signed = json.loads(_payload(answer.json()["entries"][-1])["labels"]["kest.identity"])
    assert signed == {"user": "alice", "agent": "app", "task": "task:read"}


def _payload(jws: str) -> Any:
    from kest._kestcore import b64url_decode

    return json.loads(b64url_decode(jws.split(".")[1]))


@pytest.mark.parametrize("value", ["Bearer", "Bearer a b", "Bearer a  b", "Bearer ä"])
def test_d2_malformed_headers(site: Any, value: str) -> None:
    assert httpx.post(f"{site.url}/work", headers=[(b"authorization", value.encode())]).status_code == 401
    assert not site.ran


def test_d2_two_authorization_headers(site: Any) -> None:
    lines = [("authorization", f"Bearer {token()}"), ("authorization", f"Bearer {token()}")]
    assert httpx.post(f"{site.url}/work", headers=lines).status_code == 401


def test_d2_the_issuer_is_down(site: Any) -> None:
    site.issuer.down = True
    assert site.post(token()).status_code == 401
    assert not site.ran
    site.issuer.down = False
    assert site.post(token()).status_code == 200
    site.issuer.down = True  # the last good set stays in force
    assert site.post(token()).status_code == 200


def test_d2_rotation_without_a_restart(site: Any) -> None:
    assert site.post(token()).status_code == 200
    new = token(key=OTHER, kid="new")
    assert site.post(new).status_code == 401
    site.issuer.keys = [public(OTHER, "new")]
    assert site.post(new).status_code == 200
    assert site.post(token()).status_code == 401  # the old key is gone
    # a key under an old name
    site.issuer.keys = [public(RSA, "new2"), public(OTHER, "new")]
    assert site.post(token(RSA, "new2", "RS256")).status_code == 200


def test_d2_unknown_kids_do_not_hammer_the_issuer(issuer: Issuer) -> None:
    with serving(application([], jwks_uri=issuer.url, jwks_min_interval=60)) as url:
        for n in range(30):
            assert (
                httpx.post(
                    f"{url}/work", headers={"authorization": f"Bearer {token(key=OTHER, kid=str(n))}"}
                ).status_code
                == 401
            )
    assert issuer.asked == 1


def test_d2_keys_that_must_not_be_used(issuer: Issuer) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    issuer.keys = [
        public(weak, "weak"), {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "mac", "alg": "HS256"},
        public(EDDSA, "enc", use="enc"), public(RSA, "ps", alg="PS256"), {"kty": "RSA"}, "nonsense", None,
        public(ECDSA, "ec"),
    ]  # fmt: skip
    with serving(application([], jwks_uri=issuer.url)) as url:

        def status(bearer: str) -> int:
            return httpx.post(f"{url}/work", headers={"authorization": f"Bearer {bearer}"}).status_code

        assert status(token(ECDSA, "ec", "ES256")) == 200
        with pytest.warns(UserWarning, match="1024 bits"):
            short = token(weak, "weak", "RS256")
        assert status(short) == 401
        assert status(token("secret" * 8, "mac", "HS256")) == 401
        assert status(token(kid="enc")) == 401
        assert status(token(RSA, "ps", "RS256")) == 401
        assert status(token(RSA, "ps", "PS256")) == 200


def test_d2_without_keys_it_does_not_start(monkeypatch: Any) -> None:
    async def app(*args: Any) -> None:
        pass

    with pytest.raises(RuntimeError, match="jwks_uri"):
        KestIdentityMiddleware(app)
    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "true")
    ran: list[Any] = []
    with serving(application(ran)) as url:
        answer = httpx.post(f"{url}/work", headers={"authorization": f"Bearer {token(key=OTHER)}"})
        assert answer.json()["user"] == "alice"
        expired = token(key=OTHER, exp=1)
        assert httpx.post(f"{url}/work", headers={"authorization": f"Bearer {expired}"}).status_code == 401


@pytest.mark.parametrize(
    "settings",
    [{"algorithms": ["HS256"]}, {"algorithms": ["none"]}, {"algorithms": []}, {"algorithms": "RS256"}, {"leeway": -1},
     {"leeway": 1000}, {"user_salt": "short"}, {"jwks_uri": "http://issuer.example/jwks"}, {"jwks_uri": "ftp://x/"}],
)  # fmt: skip
def test_d2_settings_that_would_weaken_it(settings: dict[str, Any]) -> None:
    async def app(*args: Any) -> None:
        pass

    with pytest.raises(ConfigurationError):
        KestIdentityMiddleware(app, **{"jwks_uri": "https://issuer.test/jwks", **settings})


def test_d2_required(issuer: Issuer) -> None:
    ran: list[Any] = []
    with serving(application(ran, jwks_uri=issuer.url, required=True)) as url:
        assert httpx.post(f"{url}/work").status_code == 401
        assert httpx.post(f"{url}/work", auth=("user", "password")).status_code == 401
        assert not ran
        assert httpx.post(f"{url}/work", headers={"authorization": f"bearer {token()}"}).status_code == 200


def test_claim_names_are_settings(issuer: Issuer) -> None:
    settings = {"user_claim": "profile.name", "agent_claims": "realm_access.agent", "task_claim": ["scp", "scope"]}
    with serving(application([], jwks_uri=issuer.url, **settings)) as url:

        def asked(**claims: Any) -> Any:
            answer = httpx.post(f"{url}/work", headers={"authorization": f"Bearer {token(**claims)}"})
            return (answer.status_code, *(answer.json().get(n) for n in ("user", "agent", "task")))

        assert asked(profile={"name": "al"}, realm_access={"agent": "bot"}, scp=["a", "b"]) == (200, "al", "bot", "a b")
        assert asked(profile={"name": "al"}, realm_access=None) == (200, "al", None, "task:read")
        assert asked(profile=None)[0] == 401


# --- D3 ---


def test_d3_the_raw_token_is_nowhere(issuer: Issuer, caplog: Any, allowed: Any) -> None:
    records: list[Any] = []

    class Sink:
        def record(self, kind: str, jws: str) -> None:
            records.append((kind, _payload(jws)))

    configure(audit=Sink())
    sent: list[httpx.Request] = []
    seen: list[Any] = []
    bearer = token()
    app = FastAPI()
    app.add_middleware(KestMiddleware, trust_store=keys())
    app.add_middleware(KestIdentityMiddleware, jwks_uri=issuer.url)

    @app.post("/work")
    @kest_verified(policy="p", identity=HOP)
    async def work() -> Any:
        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return httpx.Response(200)

        seen.append(get_current_jwt())
        seen.append(repr(caller_var.get()))
        async with httpx.AsyncClient(transport=KestHttpxInterceptor(httpx.MockTransport(answer))) as client:
            await client.get("http://far.example/")
        return report()

    with serving(app) as url, caplog.at_level("DEBUG"):
        good = httpx.post(f"{url}/work", headers={"authorization": f"Bearer {bearer}"})
        bad = httpx.post(f"{url}/work", headers={"authorization": f"Bearer {tampered(bearer)}"})
    assert seen[0] == bearer
    secret = bearer.split(".")[2]
    everything = [
        good.text, bad.text, str(bad.headers), seen[1], repr(records), repr(allowed.asked), caplog.text,
        *(repr(request.headers.raw) for request in sent),
    ]  # fmt: skip
    assert records
    assert allowed.asked
    for text in everything:
        assert secret not in text
        assert bearer.split(".")[1] not in text
    assert b"authorization" not in dict(sent[0].headers.raw)


def test_d3_the_token_goes_to_named_hosts_only() -> None:
    sent: dict[str, httpx.Request] = {}

    def far(request: httpx.Request) -> httpx.Response:
        sent[str(request.url)] = request
        if request.url.host == "a.example" and request.url.path == "/away":
            return httpx.Response(302, headers={"location": "https://evil.example/"})
        return httpx.Response(200)

    token_var = caller_var.set(type(caller_var.get())(user="u", jwt="secret-token"))
    try:
        transport = KestHttpxInterceptor(httpx.MockTransport(far), token_hosts=["a.example", "*.b.example:8443"])
        with httpx.Client(transport=transport, follow_redirects=True) as client:
            for url in ("https://a.example/", "http://a.example/", "https://b.example:8443/", "https://x.b.example:8443/",
                        "https://x.b.example/", "https://evil.example/a.example", "https://a.example.evil.example/",
                        "https://a.example/away"):  # fmt: skip
                client.get(url)
            client.get("https://a.example/own", headers={"authorization": "Bearer mine"})
    finally:
        caller_var.reset(token_var)
    given = {url for url, request in sent.items() if request.headers.get("authorization") == "Bearer secret-token"}
    assert given == {"https://a.example/", "https://x.b.example:8443/", "https://a.example/away"}
    assert sent["https://a.example/own"].headers["authorization"] == "Bearer mine"
    assert not any("secret-token" in request.headers.get("baggage", "") for request in sent.values())


@pytest.mark.parametrize(
    ("patterns", "to", "expected"),
    [
        (["a.example"], "http://a.example/", True),
        (["a.example"], "http://A.EXAMPLE./", True),
        (["a.example"], "http://b.a.example/", False),
        (["a.example"], "http://a.example.evil/", False),
        (["*.a.example"], "http://b.a.example/", True),
        (["*.a.example"], "http://a.example/", False),
        (["*.a.example"], "http://evila.example/", False),
        (["a.example:8000"], "http://a.example:8000/", True),
        (["a.example:8000"], "http://a.example/", False),
        (["a.example:443"], "https://a.example/", True),
        (["127.0.0.1"], "http://127.0.0.1:9/", True),
        (["[::1]:9"], "http://[::1]:9/", True),
        (["bücher.example"], "http://xn--bcher-kva.example/", True),
        (["a.example"], "http://a.example@evil.example/", False),
        (["*"], "http://anything/", True),
        ([], "http://a.example/", False),
    ],
)
def test_d3_passports_go_to_allowed_hosts_only(patterns: list[str], to: str, expected: bool, monkeypatch: Any) -> None:
    sent: list[httpx.Request] = []

    def far(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    stale = "vendor = 1;p,kest.user=x,kest.passport=%5B%5D, w=\xff"
    monkeypatch.setenv("KEST_ALLOWED_HOSTS", ",".join(patterns))
    with lineage(grown(1)):
        for transport in (KestHttpxInterceptor(httpx.MockTransport(far), allowed_hosts=patterns),
                          KestHttpxInterceptor(httpx.MockTransport(far))):  # fmt: skip
            with httpx.Client(transport=transport) as client:
                client.get(to, headers=[(b"baggage", stale.encode("latin-1"))])
    for request in sent:
        raw = b",".join(value for name, value in request.headers.raw if name.lower() == b"baggage")
        assert (b"kest." in raw) is expected
        assert b"vendor = 1;p" in raw
        assert b"w=\xff" in raw
        assert b"kest.user=x" not in raw


def test_d3_a_redirect_to_another_host_takes_nothing_along() -> None:
    sent: dict[str, httpx.Request] = {}

    def far(request: httpx.Request) -> httpx.Response:
        sent[request.url.host] = request
        return (
            httpx.Response(302, headers={"location": "http://evil.example/"})
            if request.url.host == "a.example"
            else httpx.Response(200)
        )

    with lineage(grown(1)):
        transport = KestHttpxInterceptor(httpx.MockTransport(far), allowed_hosts=["a.example"])
        with httpx.Client(transport=transport, follow_redirects=True) as client:
            client.get("http://a.example/")
    assert "kest.passport" in sent["a.example"].headers["baggage"]
    assert "baggage" not in sent["evil.example"].headers


def test_d3_one_warning_names_the_setting(caplog: Any) -> None:
    with caplog.at_level("WARNING", "kest"), lineage(grown(1)):
        for _ in range(3):
            with httpx.Client(
                transport=KestHttpxInterceptor(httpx.MockTransport(lambda r: httpx.Response(200)))
            ) as client:
                client.get("http://a.example/")
    assert len([r for r in caplog.records if "allowed_hosts" in r.getMessage()]) == 1


@pytest.mark.parametrize("pattern", ["http://a.example", "a.example/x", "", "a b", "a.*", "**", "user@a", 1])
def test_d3_patterns_that_are_none(pattern: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        KestHttpxInterceptor(allowed_hosts=[pattern])
    with pytest.raises(ConfigurationError):
        KestHttpxInterceptor(allowed_hosts="a.example")


def test_d3_users_as_salted_hashes(issuer: Issuer) -> None:
    salt = "0123456789abcdef"
    with serving(application([], jwks_uri=issuer.url, user_salt=salt)) as url:
        answer = httpx.post(f"{url}/work", headers={"authorization": f"Bearer {token()}"})
    hashed = hashed_user("alice", salt)
    assert answer.json()["user"] == hashed == hashed_user(hashed, salt)
    assert "alice" not in _payload(answer.json()["entries"][-1])["labels"]["kest.identity"]
    assert hashed != hashed_user("alice", "another salt 123")


def test_d3_nothing_of_ours_pickles_a_token() -> None:
    from kest.http.interceptor import Prepared

    assert "secret" not in repr(Prepared(b"", token="secret"))
    assert "password" not in repr(SimpleCache())
    with pytest.raises(TypeError):
        pickle.dumps(ALICE.signer)


# --- D6 ---


def test_d6_a_client_chosen_trace_id_shares_nothing(issuer: Issuer, allowed: Any) -> None:
    trace = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    with serving(application([], jwks_uri=issuer.url)) as url:
        first = httpx.post(f"{url}/work", headers={**trace, "authorization": f"Bearer {token()}"}).json()
        second = httpx.post(f"{url}/work", headers=trace).json()
        third = httpx.post(f"{url}/work", headers={**trace, "authorization": f"Bearer {token(sub='bob')}"}).json()
    assert [a["user"] for a in (first, second, third)] == ["alice", None, "bob"]
    assert [len(a["entries"]) for a in (first, second, third)] == [1, 1, 1]
    assert [asked["user"] for asked in allowed.asked] == ["alice", None, "bob"]
