"""Where rate limits and sessions are kept: in memory (in C), or in a store that several replicas share.

A store elsewhere implements `RateLimitStore` or `SessionStore`; `evaluate_elsewhere` joins it to the core. A store that
fails refuses the action: nothing is permitted on a guess.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from kest._kestcore import ActionContext, GateCore, InMemoryRateLimitStore, InMemorySessionStore, Verdict
from kest.gate.reasons import session_cap_reason

if TYPE_CHECKING:
    from kest.gate.context import GeoLocation

__all__ = [
    "InMemoryRateLimitStore", "InMemorySessionStore", "LimitKey", "RateLimitStore", "SessionState", "SessionStore",
    "evaluate_elsewhere",
]  # fmt: skip

log = logging.getLogger("kest.gate")

Approve = Callable[[Verdict], Verdict]

REVOKED = {"session": 1, "principal": 2, "role": 3}


class LimitKey(NamedTuple):
    """One counter. ``key`` is unambiguous: each of principal, action and policy is preceded by its length."""

    key: bytes
    most: int
    window_ns: int


class SessionState(NamedTuple):
    """What a store knows of a session before an action; ip, geo and device are those it began with."""

    known: bool = False
    revoked: int = 0  # 0, or REVOKED[...] of what was invalidated
    age: float = 0.0  # seconds
    actions: int = 0  # permitted so far
    ip: str | None = None
    geo: GeoLocation | None = None
    device: str | None = None  # hash of the fingerprint


@runtime_checkable
class RateLimitStore(Protocol):
    """Sliding windows that several processes share. Any exception counts as "unavailable" and refuses the action."""

    def room(self, limits: Sequence[LimitKey]) -> Sequence[bool]:
        """For each limit whether one more event fits; records nothing."""
        ...

    def record(self, limits: Sequence[LimitKey], *, enforce: bool) -> bool:
        """Records one event under each limit, atomically: with ``enforce`` in all of them if all have room, else in none
        (False); without it in all."""
        ...


@runtime_checkable
class SessionStore(Protocol):
    """Sessions that several processes share. Any exception refuses the action."""

    def look(self, context: ActionContext) -> SessionState | None:
        """The context's session, and whether its session, principal or roles were invalidated."""
        ...

    def permitted(self, context: ActionContext, *, count: bool, most: int | None = None) -> bool | None:
        """An action was permitted: opens its session if need be, and counts it if ``count``. False, and nothing counted:
        ``most`` have been counted already, by actions at the same time."""
        ...

    def invalidate(self, id: str, kind: str = "session", /) -> None:
        """From now on the session, principal or role is refused."""
        ...

    def is_invalidated(self, id: str, kind: str = "session", /) -> bool:
        """Whether it was invalidated."""
        ...


def limit_key(context: ActionContext, limit: tuple[str, int, int, bool]) -> LimitKey:
    """The counter of a limit (policy, most, window, whether refused calls count) for this context."""
    policy, most, window_ns, _ = limit
    names = (part.encode() for part in (context.principal_id, context.action_name, policy))
    return LimitKey(b"".join(len(name).to_bytes(4, "big") + name for name in names), most, window_ns)


def evaluate_elsewhere(
    core: GateCore,
    context: ActionContext,
    rates: RateLimitStore | None,
    sessions: SessionStore | None,
    observing: bool,
    approve: Approve,
    here: InMemorySessionStore,
    most: int | None = None,
) -> Verdict:
    """Evaluate with one or both stores elsewhere (None: the one in memory). ``approve`` sees a permit before it is
    recorded elsewhere, and may turn it into a refusal. ``here`` knows the invalidations that this process was told of;
    ``most`` is the number of actions that a session may have."""
    try:
        known: Any = ... if sessions is None else _heard_of(here, context) or sessions.look(context)
    except Exception:
        return _unavailable(core, context, "session")
    if rates is None:
        verdict = approve(core.evaluate_with(context, known, ...)[0])
    else:
        verdict = _with_rates(core, context, rates, known, observing, approve)
    shown = verdict.observed or verdict
    if sessions is not None and shown.kind != "refuse":
        return _with_session(core, context, sessions, verdict, shown, observing, here, most)
    return verdict


def _heard_of(here: InMemorySessionStore, context: ActionContext) -> SessionState | None:
    if not here.len:
        return None
    session = context.session_id
    if session is not None and here.is_invalidated(session):
        return SessionState(revoked=REVOKED["session"])
    if here.is_invalidated(context.principal_id, "principal"):
        return SessionState(revoked=REVOKED["principal"])
    over = any(here.is_invalidated(role, "role") for role in context.roles)
    return SessionState(revoked=REVOKED["role"]) if over else None


def _with_session(
    core: GateCore,
    context: ActionContext,
    sessions: SessionStore,
    verdict: Verdict,
    shown: Verdict,
    observing: bool,
    here: InMemorySessionStore,
    most: int | None,
) -> Verdict:
    """What follows from the verdict for a session that is kept elsewhere."""
    try:
        if shown.is_permit:
            if sessions.permitted(context, count=not observing, most=None if observing else most) is not False:
                return verdict
            core.take_back(verdict)
            return verdict._refused("invariants", "INVARIANT_VIOLATION", session_cap_reason(most))
        if context.session_id is not None and not observing:
            try:
                here.invalidate(context.session_id)  # whatever becomes of the store
            finally:
                sessions.invalidate(context.session_id)
    except Exception:
        log.exception("the session store failed")
        if shown.is_permit and not observing:
            core.take_back(verdict)
            return verdict._refused("gate", "SESSION_INVALID", "session store unavailable")
    return verdict


def _with_rates(
    core: GateCore, context: ActionContext, rates: RateLimitStore, known: Any, observing: bool, approve: Approve
) -> Verdict:
    answers: dict[int, bool] = {}
    policies = core.policies
    limits = policies.limits
    while True:
        verdict, needed, consulted = core.evaluate_with(context, known, answers)
        if core.policies is not policies:  # reloaded meanwhile: the numbers of limits are others now
            policies = core.policies
            limits = policies.limits
            answers.clear()
            continue
        if not needed:
            break
        keys = [limit_key(context, limits[number]) for number in needed]
        try:
            room = rates.room(keys)
            answers.update((number, one is True) for number, one in zip(needed, room, strict=True))
        except Exception:
            log.exception("the rate-limit store failed")
            return verdict._refused("policy", "POLICY_DENIED", "rate-limit backend unavailable")
    verdict = approve(verdict)
    if observing or not consulted:
        return verdict
    counted = _counters(context, [limits[number] for number in consulted if verdict.is_permit or limits[number][3]])
    try:
        if counted and not rates.record(counted, enforce=verdict.is_permit):
            core.take_back(verdict)
            return verdict._refused("policy", "RATE_LIMIT_EXCEEDED", "rate limit exceeded by calls at the same time")
    except Exception:
        log.exception("the rate-limit store failed")
        if verdict.is_permit:
            core.take_back(verdict)
            return verdict._refused("policy", "POLICY_DENIED", "rate-limit backend unavailable")
    return verdict


def _counters(context: ActionContext, limits: list[tuple[str, int, int, bool]]) -> list[LimitKey]:
    """Each counter once: two limits of one policy over the same window share theirs, and the lower one binds."""
    keys: dict[tuple[bytes, int], LimitKey] = {}
    for limit in limits:
        key = limit_key(context, limit)
        known = keys.get((key.key, key.window_ns))
        if known is None or key.most < known.most:
            keys[key.key, key.window_ns] = key
    return list(keys.values())


def _unavailable(core: GateCore, context: ActionContext, what: str) -> Verdict:
    log.exception("the %s store failed", what)
    revoked = SessionState(revoked=REVOKED["session"])
    verdict, _, _ = core.evaluate_with(context, revoked, {})
    return verdict._refused("gate", "SESSION_INVALID", f"{what} store unavailable")
