"""Who asks: principals, made of what was verified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from kest._kestcore import Passport
from kest.core.context import Caller

__all__ = [
    "ANONYMOUS",
    "UNKNOWN",
    "Principal",
    "acting",
    "lineage_facts",
    "lineage_principal",
    "roles_in",
    "session_in",
]

MAX_SESSION_ID = 128


class Principal(NamedTuple):
    """Who asks a gate: ``kind`` is user, agent, service, scheduler or external; ``session_id`` None: in no session."""

    id: str
    kind: str = "user"
    roles: tuple[str, ...] = ()
    session_id: str | None = None


ANONYMOUS = Principal("anonymous", "external")
"""A request that nobody vouches for."""
UNKNOWN = Principal("unknown", "external")
"""A call that does not say on whose behalf it is."""


def acting(caller: Caller, roles_claim: str = "roles", session_claim: str = "sid") -> Principal | None:
    """The principal that a verified caller is; None where it names nobody.

    The current actor of a token with ``act`` (RFC 8693, section 4.1) is the principal, as an agent, whoever it acts for.
    Otherwise the user is; one that is its own client is a service (RFC 9068, section 2.2); without a user, the agent.
    """
    if caller.actors:
        who, kind = caller.actors[0], "agent"
    elif caller.user is not None:
        who, kind = caller.user, "service" if caller.user == caller.agent else "user"
    elif caller.agent is not None:
        who, kind = caller.agent, "agent"
    else:
        return None
    claims: Mapping[str, Any] = {} if caller.claims is None else caller.claims.all()
    return Principal(who, kind, roles_in(claims, roles_claim), session_in(claims, caller.jwt, session_claim))


def roles_in(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The roles that a claim lists, or the one it names; found by name, or by a dotted path (``realm_access.roles``)."""
    value: Any = claims.get(path)
    if value is None and "." in path:
        value = claims
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    listed = value if isinstance(value, list) else [value]
    return tuple(role for role in listed if isinstance(role, str) and role)


def session_in(claims: Mapping[str, Any], token: str | None, session_claim: str = "sid") -> str | None:
    """The session of a token: its ``sid`` (OpenID Connect), else its ``jti``, else the token itself, hashed.

    So no session is chosen by a client, and a client's next token is its next session unless both have the same ``sid``.
    """
    for name in (session_claim, "jti"):
        value = claims.get(name)
        if isinstance(value, str) and value:
            plain = len(value) <= MAX_SESSION_ID and value.isascii() and value.isprintable() and " " not in value
            return value if plain else _hashed(value)
    return None if token is None else _hashed(token)


def _hashed(text: str) -> str:
    return hashlib.sha256(b"kest-gate-session\0" + text.encode("utf-8", "backslashreplace")).hexdigest()


def lineage_principal(passport: Passport) -> Principal | None:
    """The workload whose entries lineage ends in, as a service; None where that is nobody, or several."""
    principals = set(passport.tip_principals)
    who = principals.pop() if len(principals) == 1 else None
    return None if who is None else Principal(who, "service")


def lineage_facts(passport: Passport | None) -> dict[str, Any]:
    """Trust and taints for a context; unknown (and so of no use to a permit) where there is no lineage to tell them."""
    if passport is None or not (passport or passport.trust_score < 100 or passport.taints):
        return {}
    return {"trust": passport.trust_score, "taints": passport.taints}
