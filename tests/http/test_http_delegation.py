"""Delegation over real sockets: actors and claims of a token, of signed entries, and users known by their hashes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from test_http_identity import EDDSA, Issuer, application, issuer, token
from wire import grown, header_of, inline, keys, serving

from kest.core import Passport, configure
from kest.core.context import Caller, caller_var, get_current_passport, lineage
from kest.http import KestHttpxInterceptor
from kest.http.edge import Edge
from kest.http.jwt_verifier import JWTVerifier
from kest.http.problem import TokenError

__all__ = ["issuer"]  # a fixture

SALT = "a salt of 16 bytes or more"
ACT = {"sub": "gateway", "act": {"sub": "bot", "iss": "https://x", "act": {"sub": "first"}}}


def asked_with(issuer: Issuer, allowed: Any, bearer: str | None, baggage: str | None = None) -> tuple[Any, Any]:
    """The last entry's labels, and what policy was given."""
    headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
    with serving(application([], jwks_uri=issuer.url)) as url:
        answer = httpx.post(f"{url}/work", headers=headers | ({} if baggage is None else {"baggage": baggage}))
    assert answer.status_code == 200, answer.text
    return Passport(answer.json()["entries"]).decode()[-1]["labels"], allowed.asked[-1]


def test_a_token_names_all_its_actors(issuer: Issuer, allowed: Any) -> None:
    labels, given = asked_with(issuer, allowed, token(act=ACT, realm_access={"roles": ["r"]}, jti="once"))
    assert json.loads(labels["kest.identity"]) == {"user": "alice", "agent": "gateway", "task": "task:read"}
    assert json.loads(labels["kest.actors"]) == ["gateway", "bot", "first"]
    subject = given["subject"]
    assert (subject["agent"], subject["actors"]) == ("gateway", ["gateway", "bot", "first"])
    assert (subject["claims"]["realm_access"], subject["scopes"]) == ({"roles": ["r"]}, ["task:read"])
    assert subject["claims"]["act"] == ACT
    assert not {"exp", "jti"} & set(subject["claims"])


def test_a_token_without_act_has_no_actor(issuer: Issuer, allowed: Any) -> None:
    for claims, agent in (({}, "app"), ({"client_id": ..., "azp": "web", "cid": "web"}, None)):
        labels, given = asked_with(issuer, allowed, token(**claims))
        assert (given["subject"]["agent"], given["subject"]["actors"]) == (agent, [])
        assert "kest.actors" not in labels


def test_d1_a_token_overrides_the_actors_of_upstream(issuer: Issuer, allowed: Any) -> None:
    upstream = delegated(("evil", "worse"), agent="evil")
    baggage = inline(upstream.entries, user="alice", agent="evil")
    _, given = asked_with(issuer, allowed, token(act={"sub": "gateway"}), baggage)
    assert given["subject"]["actors"] == ["gateway"]
    _, given = asked_with(issuer, allowed, token(client_id=...), baggage)
    assert (given["subject"]["agent"], given["subject"]["actors"]) == (None, [])


def delegated(actors: tuple[str, ...], agent: str | None = None, user: str = "alice") -> Passport:
    """One entry, signed for a caller with these actors."""
    before = caller_var.set(Caller(user, agent or actors[0], None, None, actors))
    try:
        return grown(1)
    finally:
        caller_var.reset(before)


def test_actors_of_a_verified_entry_count_like_its_agent(issuer: Issuer, allowed: Any) -> None:
    entries = delegated(("gateway", "bot")).entries
    for header, agent, actors in (
        ({"user": "alice", "agent": "gateway"}, "gateway", ["gateway", "bot"]),
        ({"user": "alice"}, None, []),
        ({"user": "alice", "agent": "bot"}, None, []),
    ):
        _, given = asked_with(issuer, allowed, None, inline(entries, **header))
        assert (given["subject"]["agent"], given["subject"]["actors"]) == (agent, actors)
        assert given["environment"]["parent_principals"] == ["spiffe://kest.test/alice"]
    # an agent that the entry's author named itself is nobody's actor
    _, given = asked_with(issuer, allowed, None, inline(grown(1, agent="me").entries, agent="me"))
    assert (given["subject"]["agent"], given["subject"]["actors"]) == ("me", [])
    assert given["subject"]["claims"] == {}


def test_d1_what_nobody_verified_names_neither_actors_nor_parents(allowed: Any) -> None:
    from wire import service

    with serving(service()) as url:  # no trust store: degraded
        header = inline(delegated(("gateway", "bot")).entries, user="alice", agent="gateway")
        assert httpx.post(f"{url}/work", headers={"baggage": header}).status_code == 200
    given = allowed.asked[-1]
    assert (given["subject"]["user"], given["subject"]["actors"]) == (None, [])
    assert given["environment"]["parent_principals"] == ["kest.unverified"]


def sent(passport: Passport, **settings: Any) -> str:
    """The ``baggage`` header that leaves for a flow of alice's."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["baggage"])
        return httpx.Response(200)

    transport = KestHttpxInterceptor(httpx.MockTransport(answer), allowed_hosts=["*"], **settings)
    before = caller_var.set(Caller("alice"))
    try:
        with httpx.Client(transport=transport) as client, lineage(passport):
            client.get("http://peer.example/")
    finally:
        caller_var.reset(before)
    return seen[0]


def test_d3_a_configured_salt_holds_for_header_and_entry(allowed: Any) -> None:
    configure(user_salt=SALT)
    passport = grown(1, user="alice")
    header = sent(passport)
    assert "alice" not in json.dumps([e["labels"].get("kest.identity") for e in passport.decode()])
    assert "kest.user=hmac-sha256" in header
    assert "kest.user=alice" not in header
    # The next hop knows the same user, by the same name, and signs the same hash.
    arrival = Edge(keys()).read([header.encode()])
    assert arrival.caller.user is not None
    assert arrival.caller.user.startswith("hmac-sha256:")
    again = grown(1, user=arrival.caller.user).decode()[0]["labels"]["kest.identity"]
    assert again == passport.decode()[0]["labels"]["kest.identity"]


@pytest.mark.parametrize("salted", ["entry", "header"])
def test_d3_hashed_and_real_ids_of_one_user_agree_under_the_salt(allowed: Any, salted: str) -> None:
    configure(user_salt=SALT)
    hashed_entry = grown(1, user="alice")
    configure(clear=True)
    from wire import ALICE

    configure(engine=allowed, identity=ALICE)
    header = sent(hashed_entry) if salted == "entry" else sent(grown(1, user="alice"), user_salt=SALT)
    assert Edge(keys()).read([header.encode()]).caller.user is None  # nobody here can tell
    configure(user_salt=SALT)
    assert Edge(keys()).read([header.encode()]).caller.user == "alice"
    assert Edge(keys()).read([header.replace("alice", "mallory").encode()]).caller.user in (None, "alice")
    configure(clear=True)
    configure(engine=allowed, identity=ALICE, user_salt="another salt of enough bytes")
    assert Edge(keys()).read([header.encode()]).caller.user is None


def test_d3_a_token_with_a_hashed_upstream_names_the_real_user_and_signs_the_hash(issuer: Issuer, allowed: Any) -> None:
    configure(user_salt=SALT)
    passport = grown(1, user="alice")
    labels, given = asked_with(issuer, allowed, token(), sent(passport))
    assert given["user"] == "alice"
    assert json.loads(labels["kest.identity"])["user"] == json.loads(
        passport.decode()[0]["labels"]["kest.identity"])["user"]  # fmt: skip


@pytest.mark.parametrize("claims", [{"sub": "hmac-sha256:" + "0" * 64}, {"x": "\ud800"}, {"x": float("nan")}])
def test_d1_claims_that_could_pass_for_something_else(claims: dict[str, Any]) -> None:
    verifier = JWTVerifier.__new__(JWTVerifier)
    verifier._user, verifier._agents, verifier._task, verifier._salt = "sub", (), (), None
    with pytest.raises(TokenError):
        verifier.caller({"sub": "alice", **claims}, "t")


def test_baggage_of_a_client_names_no_actor(issuer: Issuer, allowed: Any) -> None:
    _, given = asked_with(issuer, allowed, None, header_of({"kest.actors": '["root"]', "kest.agent": "root"}))
    assert (given["subject"]["agent"], given["subject"]["actors"]) == (None, [])
    assert EDDSA is not None
    assert not get_current_passport()
