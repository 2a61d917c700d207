"""Policy engines. Importing this package loads none of them: each arrives with its first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_WHERE = {
    "AVPPolicyEngine": "kest.core.engine.avp",
    "CedarLocalEngine": "kest.core.engine.cedar_local",
    "CedarPolicyEngine": "kest.core.engine.cedar_agent",
    "Decision": "kest.core.engine.base",
    "MockPolicyEngine": "kest.core.engine.mock",
    "OPAPolicyEngine": "kest.core.engine.opa",
    "PolicyDeniedError": "kest.errors",
    "PolicyEngine": "kest.core.engine.base",
    "PolicyEngineError": "kest.errors",
    "RegoLocalEngine": "kest.core.engine.rego_local",
    "decide": "kest.core.engine.base",
    "decide_async": "kest.core.engine.base",
}


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
