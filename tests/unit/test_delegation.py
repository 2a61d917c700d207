"""On whose behalf a call runs: actors, claims, parents' principals, hashed user ids, and lineage that comes back."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from kest.core import (
    CedarLocalEngine,
    LocalEd25519Provider,
    Passport,
    PassportVerifier,
    PolicyDeniedError,
    RegoLocalEngine,
    VerificationError,
    configure,
    invalidate_policy_cache,
    kest_verified,
)
from kest.core.claims import PER_TOKEN, Claims, scopes_of
from kest.core.config import settings
from kest.core.context import (
    Caller,
    caller_var,
    continue_with,
    get_current_actors,
    get_current_agent,
    get_current_claims,
    get_current_passport,
    get_current_user,
    join,
    lineage,
    passport_var,
)
from kest.core.passport import VerifiedPassport
from kest.core.users import hashed_user, same_user
from kest.errors import ConfigurationError, PassportError

SALT = "a salt of 16 bytes or more"
ME, OTHER = "spiffe://kest.test/unit", "spiffe://kest.test/other"
OTHERS = LocalEd25519Provider(OTHER)


@kest_verified("p", operation_name="act")
def act() -> dict[str, Any]:
    return get_current_passport().decode()[-1]


def caller(**changes: Any) -> Caller:
    claims = {
        "sub": "alice",
        "scope": "a b",
        "exp": 1,
        "iat": 1,
        "jti": "1",
        "roles": ["r"],
        **changes.pop("claims", {}),
    }
    values: dict[str, Any] = {"user": "alice", "agent": "gateway", "jwt": "e.y.J", "actors": ("gateway", "bot")}
    return Caller(**{**values, "claims": Claims(claims), **changes})


def asked(configured: Any) -> dict[str, Any]:
    given: dict[str, Any] = configured.engine.asked[-1][1]
    return given


# --- actors and claims ---


def test_actors_and_claims_reach_the_entry_and_policy(configured: Any) -> None:
    assert (get_current_actors(), get_current_claims()) == ((), {})
    caller_var.set(caller())
    entry = act()
    assert json.loads(entry["labels"]["kest.identity"]) == {"agent": "gateway", "task": None, "user": "alice"}
    assert json.loads(entry["labels"]["kest.actors"]) == ["gateway", "bot"]
    subject = asked(configured)["subject"]
    assert (subject["actors"], subject["scopes"]) == (["gateway", "bot"], ["a", "b"])
    assert subject["claims"] == {"sub": "alice", "scope": "a b", "roles": ["r"]}
    assert (get_current_agent(), get_current_actors()) == ("gateway", ("gateway", "bot"))
    assert get_current_claims()["jti"] == "1"
    assert "e.y.J" not in json.dumps(asked(configured)) + repr(caller_var.get()) + json.dumps(entry)


@pytest.mark.parametrize("actors", [(), ("gateway",)])
def test_a_chain_of_one_needs_no_label(configured: Any, actors: tuple[str, ...]) -> None:
    caller_var.set(caller(actors=actors))
    assert "kest.actors" not in act()["labels"]
    assert asked(configured)["subject"]["actors"] == list(actors)


def test_an_explicit_agent_leaves_the_verified_chain_alone(configured: Any) -> None:
    caller_var.set(caller())
    explicit = kest_verified("p", agent="me", user="bob")(lambda: (get_current_agent(), get_current_actors()))
    assert explicit() == ("me", ("gateway", "bot"))
    subject = asked(configured)["subject"]
    assert (subject["user"], subject["agent"], subject["claims"]["sub"]) == ("bob", "me", "alice")


def test_nobody_can_change_what_others_are_given(configured: Any) -> None:
    caller_var.set(caller())
    act()
    asked(configured)["subject"]["claims"]["roles"].append("admin")
    get_current_claims()["roles"].append("admin")
    configure(user_salt=SALT)  # empties the cache
    act()
    assert asked(configured)["subject"]["claims"]["roles"] == ["r"]
    assert get_current_claims()["roles"] == ["r"]


def test_a_caller_travels_without_its_token() -> None:
    for again in (pickle.loads(pickle.dumps(caller())), copy.copy(caller())):
        assert again == caller(jwt=None)
        assert again.claims.all() == caller().claims.all()  # type: ignore[union-attr]
    assert b"e.y.J" not in pickle.dumps(caller())
    assert "alice" not in repr(caller().claims)


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": "\ud800"}, {"x": b"y"}])
def test_claims_that_are_no_json(bad: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Claims(bad)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, []),
        ({"scope": "b a b"}, ["a", "b"]),
        ({"scp": ["x"]}, ["x"]),
        ({"scope": None}, []),
        ({"scp": [1, ""]}, []),
    ],
)
def test_scopes(claims: dict[str, Any], scopes: list[str]) -> None:
    assert scopes_of(claims) == scopes


def test_tokens_that_policy_cannot_tell_apart_share_a_decision(configured: Any) -> None:
    for number in range(3):
        caller_var.set(caller(claims=dict.fromkeys(PER_TOKEN, number)))
        act()
        passport_var.set(None)
    assert len(configured.engine.asked) == 1
    assert not PER_TOKEN & set(asked(configured)["subject"]["claims"])


@pytest.mark.parametrize(
    "other",
    [{"claims": {"roles": ["admin"]}}, {"claims": {"scope": "a"}}, {"claims": {"new": None}}, {"claims": {"n": 1}},
     {"actors": ("gateway",)}, {"actors": ("gateway", "eve")}, {"actors": ()}, {"claims": {"act": {"sub": "x"}}}],
)  # fmt: skip
def test_c4_what_policy_can_tell_apart_shares_no_decision(configured: Any, other: dict[str, Any]) -> None:
    for who in (caller(), caller(**other), caller(), caller(**other)):
        caller_var.set(who)
        act()
        passport_var.set(None)
    assert len(configured.engine.asked) == 2
    first, second = (given["subject"] for _, given in configured.engine.asked)
    assert first != second


def test_c4_kinds_of_numbers_are_told_apart(configured: Any) -> None:
    for level in (1, 1.0, True, "1"):
        caller_var.set(caller(claims={"level": level}))
        act()
        passport_var.set(None)
    assert len(configured.engine.asked) == 4


@pytest.mark.parametrize("kind", ["rego", "cedar"])
def test_local_engines_read_claims_actors_and_parents(identity: Any, kind: str) -> None:
    if kind == "rego":
        engine: Any = RegoLocalEngine({"p": """package p
            import rego.v1
            default allow := false
            allow if {
                "a" in input.subject.scopes
                "r" in input.subject.claims.realm.roles
                input.subject.actors[0] == "gateway"
                input.environment.parent_principals == ["spiffe://kest.test/unit"]
            }"""})  # fmt: skip
    else:
        engine = CedarLocalEngine({"p": """permit(principal, action, resource) when {
            context.subject.scopes.contains("a") && context.subject.claims.realm.roles.contains("r") &&
            context.subject.actors.contains("gateway") && !(context.subject.claims has gone) &&
            context.subject.claims.level == 3 && context.subject.claims["https://x/y"] == "z" &&
            context.environment.parent_principals == ["spiffe://kest.test/unit"] };"""})  # fmt: skip
    more = {"realm": {"roles": ["r"]}, "level": 3, "share": 0.5, "big": 2**70, "gone": None, "https://x/y": "z"}
    caller_var.set(caller(claims=more))
    configure(engine=engine, identity=identity)
    with pytest.raises(PolicyDeniedError):
        act()  # a root has no parents
    kest_verified("any", engine=CedarLocalEngine({"any": "permit(principal, action, resource);"}))(lambda: None)()
    act()
    caller_var.set(caller(claims={**more, "scope": "ab"}))
    with pytest.raises(PolicyDeniedError):
        act()


# --- environment.parent_principals ---


def test_parent_principals_are_those_of_the_tips(configured: Any) -> None:
    by_other = kest_verified("p", identity=OTHERS, operation_name="other")(lambda: None)

    def parents() -> list[str]:
        act()
        result: list[str] = asked(configured)["environment"]["parent_principals"]
        return result

    assert parents() == []
    assert parents() == [ME]
    by_other()
    assert parents() == [OTHER]  # the newest only, not all of the past
    with lineage():
        act()
        first = get_current_passport()
    with lineage():
        by_other()
        second = get_current_passport()
    join(first, second)
    assert parents() == sorted([ME, OTHER])
    join(first)
    configure(max_entries=1)
    assert parents() == [ME]  # a flow that rolls over still comes from somebody
    assert asked(configured)["is_root"] is False


def test_c4_parents_by_others_share_no_decision(configured: Any) -> None:
    for signer in (configured.identity, OTHERS, configured.identity, OTHERS):
        with lineage():
            kest_verified("p", identity=signer, operation_name="first")(lambda: None)()
            act()
    assert sum(given["operation"] == "act" for _, given in configured.engine.asked) == 2


def test_nobody_vouches_for_parents_that_were_not_verified(configured: Any) -> None:
    act()
    text = get_current_passport().serialize()
    claimed = Passport.deserialize(text)
    assert claimed.tip_principals == (None,)
    for unverified in (claimed, claimed.restrict(10, ["kest.unverified"]), pickle.loads(pickle.dumps(claimed))):
        with lineage(unverified):
            invalidate_policy_cache()
            act()
            assert asked(configured)["environment"]["parent_principals"] == ["kest.unverified"]
            act()  # our own entry is known again
            assert asked(configured)["environment"]["parent_principals"] == [ME]
    with pytest.raises(VerificationError):
        PassportVerifier.verify(claimed, {ME: OTHERS})
    assert claimed.tip_principals == (None,)
    verified = PassportVerifier.verify(claimed, configured.keys)
    with lineage(verified.passport):
        act()
        assert asked(configured)["environment"]["parent_principals"] == [ME]


def test_an_entry_signed_elsewhere_for_us_is_known(configured: Any) -> None:
    class Remote:
        def get_identity(self) -> str:
            return OTHER

        def sign(self, payload: bytes) -> str:
            return OTHERS.sign(payload)

    kest_verified("p", identity=Remote())(lambda: None)()
    assert get_current_passport().tip_principals == (OTHER,)
    assert Passport().adopt(get_current_passport().entries[0]).tip_principals == (None,)


# --- continue_with ---


def test_continue_with_goes_on_from_what_came_back(configured: Any) -> None:
    act()
    sent = get_current_passport()
    with lineage(sent):
        kest_verified("p", identity=OTHERS, added_taints=["theirs"])(lambda: None)()
        text = get_current_passport().serialize()
    keys = {**configured.keys, OTHER: OTHERS}
    flow = continue_with(PassportVerifier.verify(text, keys))
    assert flow is get_current_passport()
    assert (len(flow), len(flow.tips), flow.taints) == (2, 1, ("theirs",))
    entry = act()
    assert entry["parent_ids"] == list(flow.tips)
    assert PassportVerifier.verify(get_current_passport(), keys).trust_score == 100


def test_continue_with_loses_nothing_of_either_flow(configured: Any) -> None:
    kest_verified("p", added_taints=["mine"])(lambda: None)()
    with lineage():
        kest_verified("p", added_taints=["theirs"])(lambda: None)()
        other = get_current_passport()
    assert continue_with(other).taints == ("mine", "theirs")
    assert len(act()["parent_ids"]) == 2
    before = get_current_passport()
    assert continue_with(Passport()).tips == before.tips


def test_continue_with_takes_verified_lineage_only(configured: Any) -> None:
    act()
    before = get_current_passport()
    passport = Passport(before.entries)
    forged = VerifiedPassport(passport, 100, (), passport.tips, frozenset((ME,)))
    unverified: list[Any] = [
        passport, Passport.merge(passport), passport.restrict(10, []), pickle.loads(pickle.dumps(before)), forged,
        before.serialize(), before.entries, None,
    ]  # fmt: skip
    for given in unverified:
        with pytest.raises(PassportError, match=r"PassportVerifier\.verify"):
            continue_with(given)
        assert get_current_passport() is before
    with pytest.raises(VerificationError):
        continue_with(Passport(["x.y.z"]))


# --- hashed user ids ---


def test_users_are_hashed_where_they_are_written_down_and_real_for_policy(
    configured: Any, sink: Any, caplog: Any
) -> None:
    configure(user_salt=SALT, audit=sink)
    configured.engine.answer = lambda names, given: given["user"] == "alice"
    hashed = hashed_user("alice", SALT)
    caller_var.set(Caller("alice", "bot", "t", "e.y.J"))
    entry = act()
    assert json.loads(entry["labels"]["kest.identity"]) == {"agent": "bot", "task": "t", "user": hashed}
    given = asked(configured)
    assert given["user"] == given["subject"]["user"] == "alice"
    assert get_current_user() == "alice"
    with caplog.at_level(logging.DEBUG), pytest.raises(PolicyDeniedError) as denied:
        kest_verified("p", user="mallory")(lambda: None)()
    written = caplog.text + str(denied.value) + json.dumps([sink.payloads(k) for k in ("entry", "denial", "outcome")])
    assert "alice" not in written
    assert "mallory" not in written
    assert hashed_user("mallory", SALT) in written
    assert SALT not in written + repr(settings())


def test_a_user_is_hashed_once() -> None:
    hashed = hashed_user("alice", SALT)
    assert hashed_user(hashed, SALT) == hashed == hashed_user("alice", SALT.encode())
    assert Caller(hashed).labels(SALT.encode()) == Caller("alice").labels(SALT.encode())
    assert same_user("alice", hashed, SALT)
    assert same_user(hashed, "alice", SALT)
    assert not same_user("bob", hashed, SALT)
    assert not same_user("alice", hashed, "another salt of enough bytes")
    assert not same_user("alice", hashed)
    assert not same_user(None, None, SALT)
    assert same_user(hashed, hashed)


def test_the_salt_is_configured_in_one_place(monkeypatch: Any, tmp_path: Path) -> None:
    assert settings().user_salt is None
    configure(user_salt=SALT)
    configure(max_entries=5)  # changes only what it names
    assert settings().user_salt == SALT.encode()
    file = tmp_path / "kest.json"
    file.write_text(json.dumps({"user_salt": SALT}))
    monkeypatch.setenv("KEST_CONFIG", str(file))
    configure(clear=True)
    assert settings().user_salt == SALT.encode()
    configure(user_salt=SALT)
    with pytest.raises(ConfigurationError, match="operator") as refused:
        configure(user_salt="another salt of enough bytes")
    assert "another" not in str(refused.value)
    monkeypatch.setenv("KEST_USER_SALT", "the environment comes first")
    configure(clear=True)
    assert settings().user_salt == b"the environment comes first"
    monkeypatch.delenv("KEST_USER_SALT")


@pytest.mark.parametrize("salt", ["short", b"", 7, ["x" * 16]])
def test_salts_that_hide_nothing(monkeypatch: Any, tmp_path: Path, salt: Any) -> None:
    with pytest.raises(ConfigurationError, match="salt"):
        configure(user_salt=salt)
    if isinstance(salt, str):
        monkeypatch.setenv("KEST_USER_SALT", salt)
        with pytest.raises(ConfigurationError, match="KEST_USER_SALT"):
            configure(clear=True)
        monkeypatch.delenv("KEST_USER_SALT")
        file = tmp_path / "kest.json"
        file.write_text(json.dumps({"user_salt": salt}))
        monkeypatch.setenv("KEST_CONFIG", str(file))
        with pytest.raises(ConfigurationError, match=r"kest\.json"):
            configure(clear=True)
