"""Policy engines. Importing this package loads none of them: each arrives with its first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kest.lazy import lazy

if TYPE_CHECKING:
    from kest.core.engine.avp import AVPPolicyEngine
    from kest.core.engine.base import Decision, PolicyEngine, decide, decide_async
    from kest.core.engine.cedar_agent import CedarPolicyEngine
    from kest.core.engine.cedar_local import CedarLocalEngine
    from kest.core.engine.mock import MockPolicyEngine
    from kest.core.engine.opa import OPAPolicyEngine
    from kest.core.engine.rego_local import RegoLocalEngine
    from kest.errors import PolicyDeniedError, PolicyEngineError

__all__ = [
    "AVPPolicyEngine",
    "CedarLocalEngine",
    "CedarPolicyEngine",
    "Decision",
    "MockPolicyEngine",
    "OPAPolicyEngine",
    "PolicyDeniedError",
    "PolicyEngine",
    "PolicyEngineError",
    "RegoLocalEngine",
    "decide",
    "decide_async",
]

__getattr__, __dir__ = lazy(
    globals(),
    {
        "AVPPolicyEngine": ".avp",
        "CedarLocalEngine": ".cedar_local",
        "CedarPolicyEngine": ".cedar_agent",
        "Decision": ".base",
        "MockPolicyEngine": ".mock",
        "OPAPolicyEngine": ".opa",
        "PolicyDeniedError": "kest.errors",
        "PolicyEngine": ".base",
        "PolicyEngineError": "kest.errors",
        "RegoLocalEngine": ".rego_local",
        "decide": ".base",
        "decide_async": ".base",
    },
)
