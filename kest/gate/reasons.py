"""Why not, in words. Made when somebody asks; names from outside are shortened and escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kest.errors import Invalidated, Refused
from kest.gate.invariants import Invariant
from kest.gate.words import shown, span

if TYPE_CHECKING:
    from kest._kestcore import Verdict

__all__ = ["GateSettings", "reason", "refusal", "session_cap_reason", "shown", "span"]

MAX_AGE = 14_400
MAX_RATE = 100


class GateSettings(NamedTuple):
    """What reasons refer to beyond the verdict itself."""

    invariants: tuple[Invariant, ...] = ()
    max_session_actions: int | None = None
    geo_drift_max_km: float | None = None


def _addresses(verdict: Verdict) -> str:
    context = verdict.context
    place = context.current_geo
    where = f" (current geo: {place.label})" if place is not None else ""
    return f"{context.origin_ip or 'the address it began with'} → {context.ip}{where}"


def _limit(verdict: Verdict, item: object) -> str:
    most, seconds = item if isinstance(item, tuple) else (0, 0)
    return f"rate limit of policy {shown(verdict.policy or '')} exceeded: at most {most} per {span(seconds)}"


def session_cap_reason(most: int | None) -> str:
    """A session has had its actions."""
    return f"invariant 'max_session_actions' violated: maximum {most} actions per session"


def reason(verdict: Verdict) -> str:
    """The reason of a verdict that is no permit."""
    name, number, item = verdict._facts
    context, settings = verdict.context, verdict._settings
    match name:
        case "no_policy":
            return f"no policy permits {shown(context.action_name)} for principal {shown(context.principal_id)}"
        case "policy":
            return f"denied by policy {shown(verdict.policy or '')}"
        case "rate":
            return _limit(verdict, item)
        case "rate_backend":
            return "rate-limit backend unavailable"
        case "revoked":
            what = {1: "session", 2: "principal", 3: "a role of the principal"}.get(int(number), "session")
            return f"{what} was invalidated"
        case "sessions_full":
            return "the session store has no room for another session"
        case "ip":
            return f"IP changed mid-session: {_addresses(verdict)}"
        case "ip_far":
            limit = f"{settings.geo_drift_max_km:.1f}"
            return f"IP changed mid-session and moved {number:.1f}km (> {limit}km threshold): {_addresses(verdict)}"
        case "ip_unverifiable":
            return f"IP changed mid-session and geo distance is unverifiable: {_addresses(verdict)}"
        case "age":
            return f"session age ({number:.0f}s) exceeds maximum ({MAX_AGE}s)"
        case "age_future":
            return f"session age is unknown: its start lies {number:.0f}s in the future"
        case "device":
            return "device fingerprint changed mid-session"
        case "behaviour":
            return f"action rate ({number:.0f}/min) exceeds violation threshold ({MAX_RATE})"
        case "warnings":
            return f"{number:.0f} concurrent drift warnings (threshold: 3)"
        case "invariant":
            invariant = settings.invariants[item if isinstance(item, int) else 0]
            where = f"parameter {shown(invariant.field)} must be {invariant.rule}"
            return f"invariant {shown(invariant.name)} violated: {where}"
        case "session_cap":
            return session_cap_reason(settings.max_session_actions)
    return name


def refusal(verdict: Verdict) -> Refused | Invalidated:
    """The exception that says what a verdict that is no permit says."""
    why, evaluator = verdict.reason or "refused", verdict.evaluator or "gate"
    if verdict.is_invalidate:
        return Invalidated(why, evaluator)
    code = verdict.code or "POLICY_DENIED"
    return Refused(why, evaluator, code, retry_after=_pace(verdict) if code == "RATE_LIMIT_EXCEEDED" else None)


def _pace(verdict: Verdict) -> int:
    """Seconds between two calls at the pace that the limit allows: when there is room again only the counter knows."""
    name, _, item = verdict._facts
    if name != "rate" or not isinstance(item, tuple):
        return 1  # calls at the same time were faster
    most, seconds = item
    return max(1, -(-seconds // max(most, 1)))
