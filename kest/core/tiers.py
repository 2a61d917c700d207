"""Policy tiers and the deviations from them.

Order: enterprise, platform, app, function. The first three come from configuration; a deviation takes exactly one policy
out of one of them for one operation, and says so in every entry that it touches. Function policies only add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kest._kestcore import canonicalize
from kest.errors import ConfigurationError

__all__ = ["CONFIGURED_TIERS", "PolicyDeviation", "Tier", "TierPlan", "plan_tiers", "policy_names"]

CONFIGURED_TIERS = ("enterprise", "platform", "app")


@dataclass(frozen=True, slots=True)
class PolicyDeviation:
    """An approved exemption: ``policy`` of ``tier`` is not asked for the operation ``scope``.

    Declared in configuration by an operator, recorded in the entries where it applied, with the reason and who approved.
    """

    policy: str
    tier: str
    scope: str
    reason: str
    approver: str

    def __post_init__(self) -> None:
        for name in ("policy", "tier", "scope", "reason", "approver"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"a deviation needs a non-empty str {name!r}")
        if self.tier not in CONFIGURED_TIERS:
            raise ConfigurationError(
                f"a deviation's tier is one of {', '.join(CONFIGURED_TIERS)}, not {self.tier!r}: "
                "policies that a function names itself cannot be deviated from"
            )

    @classmethod
    def of(cls, value: PolicyDeviation | Mapping[str, Any]) -> PolicyDeviation:
        """From a mapping with the members policy, tier, scope (or operation), reason, approver."""
        if isinstance(value, PolicyDeviation):
            return value
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"a deviation is a PolicyDeviation or a mapping, not {type(value).__name__}")
        members = dict(value)
        if "operation" in members and "scope" not in members:
            members["scope"] = members.pop("operation")
        expected = {"policy", "tier", "scope", "reason", "approver"}
        if set(members) != expected:
            wrong = ", ".join(sorted(map(str, set(members) ^ expected)))
            raise ConfigurationError(
                f"a deviation has exactly policy, tier, scope, reason and approver; check: {wrong}"
            )
        return cls(**members)

    def record(self) -> dict[str, str]:
        """As it stands in an entry's policy_context."""
        return {"policy": self.policy, "tier": self.tier, "reason": self.reason, "approver": self.approver}


@dataclass(frozen=True, slots=True)
class Tier:
    """One question to the engine: these policies, all of which must allow."""

    name: str
    policies: tuple[str, ...]
    deviations: tuple[str, ...]  # policies of this tier that are not asked


@dataclass(frozen=True, slots=True)
class TierPlan:
    """What one operation is asked about, and how its entries record it."""

    tiers: tuple[Tier, ...]
    policy_context: bytes  # canonical JSON
    policy_ids: tuple[str, ...]  # everything evaluated, in order


def policy_names(value: str | Iterable[str], what: str) -> tuple[str, ...]:
    """One or several policy names as a tuple without repetitions; TypeError or ValueError naming ``what``."""
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be policy names (str), not {type(name).__name__}")
        if not name.strip():
            raise ValueError(f"{what} holds an empty policy name")
    return tuple(dict.fromkeys(names))


def plan_tiers(
    operation: str,
    configured: Mapping[str, Sequence[str]],
    function_policies: Sequence[str],
    deviations: Iterable[PolicyDeviation],
) -> TierPlan:
    """The questions for ``operation``: the configured tiers less what it may deviate from, then its own policies."""
    here = [d for d in deviations if d.scope == operation]
    tiers: list[Tier] = []
    applied: list[PolicyDeviation] = []
    for name in CONFIGURED_TIERS:
        policies = configured[name]
        skipped = [d for d in here if d.tier == name and d.policy in policies]
        applied += skipped
        skip = {d.policy for d in skipped}
        tiers.append(Tier(name, tuple(p for p in policies if p not in skip), tuple(d.policy for d in skipped)))
    tiers.append(Tier("function", tuple(function_policies), ()))
    context: dict[str, Any] = {f"{tier.name}_policies": tier.policies for tier in tiers}
    context["deviations"] = [d.record() for d in applied]
    return TierPlan(
        tiers=tuple(tier for tier in tiers if tier.policies),
        policy_context=canonicalize(context),
        policy_ids=tuple(p for tier in tiers for p in tier.policies),
    )
