"""What a policy engine is given for one call (PRODUCT.md, section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kest.core.claims import scopes_of

if TYPE_CHECKING:
    from kest.core.lifecycle import Call
    from kest.core.tiers import Tier

__all__ = ["policy_input"]


def policy_input(
    call: Call, tier: Tier, mapped: dict[str, Any], resource_id: str | None, attributes: Any
) -> dict[str, Any]:
    """The user is the real one; the token itself is not in it."""
    caller, plan, passport = call.caller, call.plan, call.passport
    taints, is_root = list(call.taints), call.is_root()
    claims = {} if caller.claims is None else caller.claims.for_policy()
    return {
        "subject": {
            "workload": call.principal,
            "user": caller.user,
            "agent": caller.agent,
            "task": caller.task,
            "actors": list(caller.actors),
            "scopes": scopes_of(claims),
            "claims": claims,
            "trust_score": call.trust,
            "taints": taints,
        },
        "object": {
            "id": resource_id if resource_id is not None else plan.operation,
            "attributes": attributes or {},
        },
        "environment": {
            "is_root": is_root,
            "source_type": plan.source_type,
            "parent_hash": passport.continues or passport.chain_tip or "0",
            "parent_principals": list(call.parents),
            "policy_names": list(tier.policies),
            "policy_tier": tier.name,
            "active_deviations": list(tier.deviations),
        },
        "identity": call.principal,
        "principal": call.principal,
        "trust_score": call.trust,
        "taints": taints,
        "is_root": is_root,
        "source_type": plan.source_type,
        "user": caller.user,
        "agent": caller.agent,
        "task": caller.task,
        "operation": plan.operation,
        "args": mapped,
    }
