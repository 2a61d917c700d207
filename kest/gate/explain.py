"""Why a context is decided as it is: every policy, every condition, and what it compared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from kest._kestcore import gate_path
from kest.gate.compile import nodes_of
from kest.gate.conditions import KINDS, Condition
from kest.gate.invariants import plain_number
from kest.gate.reasons import shown, span
from kest.gate.zones import zone_table

if TYPE_CHECKING:
    from kest._kestcore import ActionContext, GateCore
    from kest.gate.policies import Policies, Policy

__all__ = ["ConditionResult", "Explanation", "PolicyResult", "explain"]

OUTCOMES = ("false", "true", "unknown")


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """One condition. ``outcome`` is true, false or unknown; ``why`` says what was compared with what."""

    condition: str
    outcome: str
    why: str
    parts: tuple[ConditionResult, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy: ``applies`` says whether it would decide if it were asked first."""

    name: str
    effect: str
    applies: bool
    conditions: tuple[ConditionResult, ...]

    @property
    def failed(self) -> tuple[ConditionResult, ...]:
        """The conditions on account of which it does not apply."""
        wanted = ("true",) if self.effect == "permit" else ("true", "unknown")
        return tuple(result for result in self.conditions if result.outcome not in wanted)


@dataclass(frozen=True, slots=True)
class Explanation:
    """All policies in the order in which they are asked; the first that applies decides."""

    policies: tuple[PolicyResult, ...]

    @property
    def matched(self) -> PolicyResult | None:
        """The policy that decides; None: none applies, the action is refused."""
        return next((policy for policy in self.policies if policy.applies), None)

    def __str__(self) -> str:
        lines = []
        for policy in self.policies:
            verb = "would decide" if policy.applies else "does not apply"
            mark = "decides" if policy is self.matched else verb
            lines.append(f"{policy.effect} {shown(policy.name)}: {mark}")
            for result in policy.conditions if policy.applies else policy.failed:
                lines += _lines(result, "  ")
        return "\n".join(lines) or "there are no policies: everything is refused"


def _lines(result: ConditionResult, indent: str) -> list[str]:
    lines = [f"{indent}{result.condition} is {result.outcome}: {result.why}"]
    for part in result.parts:
        lines += _lines(part, indent + "  ")
    return lines


def explain(core: GateCore, policies: Policies, context: ActionContext) -> Explanation:
    """Every policy against one context, nothing counted or changed."""
    return Explanation(tuple(_policy(core, i, policy, context) for i, policy in enumerate(policies.policies)))


def _policy(core: GateCore, number: int, policy: Policy, context: ActionContext) -> PolicyResult:
    outcomes = list(core.explain(context, number))
    wall = core.clock()[0]
    results, at = [], 0
    for condition in policy.conditions:
        size = len(nodes_of(condition))
        results.append(_condition(condition, outcomes[at : at + size], context, wall))
        at += size
    wanted = ("true",) if policy.permit else ("true", "unknown")
    applies = all(result.outcome in wanted for result in results)
    return PolicyResult(policy.name, "permit" if policy.permit else "refuse", applies, tuple(results))


def _condition(condition: Condition, outcomes: list[int], context: ActionContext, wall_ns: int) -> ConditionResult:
    parts, at = [], 1
    for part in condition.parts:
        size = len(nodes_of(part))
        parts.append(_condition(part, outcomes[at : at + size], context, wall_ns))
        at += size
    why = _group(condition, parts) if parts else _why(condition, context, wall_ns)
    return ConditionResult(condition.name, OUTCOMES[outcomes[0]], why, tuple(parts))


def _group(condition: Condition, parts: list[ConditionResult]) -> str:
    held = sum(part.outcome == "true" for part in parts)
    if condition.name == "not":
        return f"{parts[0].condition} is {parts[0].outcome}"
    return f"{held} of {len(parts)} hold"


def _param(context: ActionContext, field: str) -> str:
    params = context.params
    if field not in params:
        return f"there is no parameter {shown(field)}"
    value: Any = params[field]
    if value is None:
        return f"{shown(field)} is no value that conditions accept"
    if isinstance(value, str):
        return f"{shown(field)} is {shown(value)}"
    if isinstance(value, tuple):
        return f"{shown(field)} is a list of {len(value)}"
    return f"{shown(field)} is {value!r:.60}"


def _allowed(given: Any) -> str:
    names = [shown(text) for text in given["texts"]]
    names += [plain_number(number) for number in given["numbers"]]
    names += [str(value).lower() for value in given["bools"]]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _local_time(zone: str, wall_ns: int) -> str:
    starts, offsets = zone_table(zone)
    seconds = wall_ns // 1_000_000_000
    index = max((i for i, start in enumerate(starts[:-1]) if start <= seconds), default=0)
    local = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds + offsets[index])
    return f"{local:%H:%M:%S} {zone}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}"


def _why(condition: Condition, context: ActionContext, wall_ns: int) -> str:
    given: Any = condition.arguments
    match condition.name:
        case "identity_kind":
            return f"the principal is {context.principal_kind}, asked for is {KINDS[given['kind']]}"
        case "identity_role":
            roles = ", ".join(shown(role) for role in context.roles[:10]) or "none"
            return f"roles are {roles}; asked for is {shown(given['text'])}"
        case "identity_id":
            return f"the principal is {shown(context.principal_id)}, asked for is {shown(given['text'])}"
        case "action":
            return f"the action is {shown(context.action_name)}, asked for is {shown(given['pattern'].source)}"
        case "resource":
            return f"{_resource(context)}, asked for is {shown(given['pattern'].source)}"
        case "param_max":
            return f"{_param(context, given['field'])}; at most {plain_number(given['max'])}"
        case "param_min":
            return f"{_param(context, given['field'])}; at least {plain_number(given['min'])}"
        case "param_in" | "param_equals":
            return f"{_param(context, given['field'])}; allowed: {_allowed(given)}"
        case "param_matches":
            return f"{_param(context, given['field'])}; asked for is {shown(given['pattern'].source)}"
        case "rate_limit":
            return f"at most {given['max']} per {span(given['window'])}, this call included"
        case "session_age_max":
            return f"the session may be {span(given['seconds'])} old"
        case "time_window":
            window = f"{_clock(given['start'])}-{_clock(given['end'])}"
            return f"it is {_local_time(given['zone'], wall_ns)}; asked for is {window}"
        case "trust_min":
            return f"trust is {'not known' if context.trust is None else context.trust}; at least {given['trust']}"
        case "taint_present" | "taint_absent":
            taints = context.taints
            known = (
                "taints are not known" if taints is None else f"taints: {', '.join(map(shown, taints[:10])) or 'none'}"
            )
            return f"{known}; asked about {shown(given['text'])}"
        case "geo_country":
            place = context.current_geo
            where = "the place is not known" if place is None else f"the place is in {place.country_code}"
            return f"{where}; allowed: {', '.join(given['texts'][:20])}"
    return condition.name


def _resource(context: ActionContext) -> str:
    if context.resource is None:
        return "there is no resource"
    normal = gate_path(context.resource)
    return "the resource leads out of its root" if normal is None else f"the resource is {shown(normal)}"
