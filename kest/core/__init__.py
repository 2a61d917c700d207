"""Execution lineage: decide, sign, run, prove. Everything public is importable from here.

Names are loaded on first use, so that importing this package stays cheap and optional libraries stay optional.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kest import _kestcore

if TYPE_CHECKING:
    from kest.core.audit import AuditSink
    from kest.core.baggage import BaggageManager
    from kest.core.cache import CacheProvider, SimpleCache
    from kest.core.config import (
        configure,
        get_active_cache,
        get_active_engine,
        get_active_identity,
        get_active_trust_store,
    )
    from kest.core.decisions import invalidate_policy_cache
    from kest.core.decorator import kest_verified
    from kest.core.engine import (
        AVPPolicyEngine,
        CedarLocalEngine,
        CedarPolicyEngine,
        Decision,
        MockPolicyEngine,
        OPAPolicyEngine,
        PolicyEngine,
        RegoLocalEngine,
    )
    from kest.core.identity import (
        AWSWorkloadIdentity,
        BedrockAgentIdentity,
        IdentityProvider,
        LocalEd25519Provider,
        MockIdentityProvider,
        OIDCIdentity,
        SPIREProvider,
        StaticIdentity,
        get_default_identity,
    )
    from kest.core.passport import KestEntry, Passport, PassportVerifier, VerifiedPassport, sign_entry
    from kest.core.redis_cache import RedisCache
    from kest.core.tiers import PolicyDeviation
    from kest.core.trust import (
        ORIGIN_TRUST_MAP,
        DefaultTrustEvaluator,
        TrustEvaluator,
        register_origin_trust,
    )
    from kest.core.truststore import TrustStore
    from kest.errors import KestError, PolicyDeniedError, VerificationError
    from kest.http import KestHttpxInterceptor, KestIdentityMiddleware, KestMiddleware
    from kest.telemetry import KestTelemetry

_HOME = {
    "AuditSink": "kest.core.audit",
    "BaggageManager": "kest.core.baggage",
    "CacheProvider": "kest.core.cache",
    "SimpleCache": "kest.core.cache",
    "configure": "kest.core.config",
    "get_active_cache": "kest.core.config",
    "get_active_engine": "kest.core.config",
    "get_active_identity": "kest.core.config",
    "get_active_trust_store": "kest.core.config",
    "invalidate_policy_cache": "kest.core.decisions",
    "kest_verified": "kest.core.decorator",
    "AVPPolicyEngine": "kest.core.engine",
    "CedarLocalEngine": "kest.core.engine",
    "CedarPolicyEngine": "kest.core.engine",
    "Decision": "kest.core.engine",
    "MockPolicyEngine": "kest.core.engine",
    "OPAPolicyEngine": "kest.core.engine",
    "PolicyEngine": "kest.core.engine",
    "RegoLocalEngine": "kest.core.engine",
    "AWSWorkloadIdentity": "kest.core.identity",
    "BedrockAgentIdentity": "kest.core.identity",
    "IdentityProvider": "kest.core.identity",
    "LocalEd25519Provider": "kest.core.identity",
    "MockIdentityProvider": "kest.core.identity",
    "OIDCIdentity": "kest.core.identity",
    "SPIREProvider": "kest.core.identity",
    "StaticIdentity": "kest.core.identity",
    "get_default_identity": "kest.core.identity",
    "RedisCache": "kest.core.redis_cache",
    "KestHttpxInterceptor": "kest.http",
    "KestIdentityMiddleware": "kest.http",
    "KestMiddleware": "kest.http",
    "KestTelemetry": "kest.telemetry",
    "KestEntry": "kest.core.passport",
    "Passport": "kest.core.passport",
    "PassportVerifier": "kest.core.passport",
    "VerifiedPassport": "kest.core.passport",
    "sign_entry": "kest.core.passport",
    "PolicyDeviation": "kest.core.tiers",
    "ORIGIN_TRUST_MAP": "kest.core.trust",
    "DefaultTrustEvaluator": "kest.core.trust",
    "TrustEvaluator": "kest.core.trust",
    "register_origin_trust": "kest.core.trust",
    "TrustStore": "kest.core.truststore",
    "KestError": "kest.errors",
    "PolicyDeniedError": "kest.errors",
    "VerificationError": "kest.errors",
}

__all__ = [
    "ORIGIN_TRUST_MAP",
    "AVPPolicyEngine",
    "AWSWorkloadIdentity",
    "AuditSink",
    "BaggageManager",
    "BedrockAgentIdentity",
    "CacheProvider",
    "CedarLocalEngine",
    "CedarPolicyEngine",
    "Decision",
    "DefaultTrustEvaluator",
    "IdentityProvider",
    "KestEntry",
    "KestError",
    "KestHttpxInterceptor",
    "KestIdentityMiddleware",
    "KestMiddleware",
    "KestTelemetry",
    "LocalEd25519Provider",
    "MockIdentityProvider",
    "MockPolicyEngine",
    "OIDCIdentity",
    "OPAPolicyEngine",
    "Passport",
    "PassportVerifier",
    "PolicyDeniedError",
    "PolicyDeviation",
    "PolicyEngine",
    "RedisCache",
    "RegoLocalEngine",
    "SPIREProvider",
    "SimpleCache",
    "StaticIdentity",
    "TrustEvaluator",
    "TrustStore",
    "VerificationError",
    "VerifiedPassport",
    "configure",
    "get_active_cache",
    "get_active_engine",
    "get_active_identity",
    "get_active_trust_store",
    "get_default_identity",
    "invalidate_policy_cache",
    "kest_verified",
    "register_origin_trust",
    "sign_entry",
    "version",
]


def version() -> str:
    """The version of Kest, which is also that of the entry schema it writes."""
    return _kestcore.__version__


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
