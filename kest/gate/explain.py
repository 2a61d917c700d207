"""Why a context is decided as it is: every policy, every condition, and what it compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kest.gate.compile import nodes_of
from kest.gate.conditions import CONDITIONS, Condition
from kest.gate.words import shown

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
    kind = CONDITIONS.get(condition.name)
    why = _group(condition, parts) if kind is None else kind.why(condition.arguments, context, wall_ns)
    return ConditionResult(condition.name, OUTCOMES[outcomes[0]], why, tuple(parts))


def _group(condition: Condition, parts: list[ConditionResult]) -> str:
    held = sum(part.outcome == "true" for part in parts)
    if condition.name == "not":
        return f"{parts[0].condition} is {parts[0].outcome}"
    return f"{held} of {len(parts)} hold"
