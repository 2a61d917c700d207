"""Execution lineage: decide, sign, run, prove. Everything public is importable from here.

Names are loaded on first use, so that importing this package stays cheap and optional libraries stay optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kest import _kestcore
from kest.lazy import lazy

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

__getattr__, __dir__ = lazy(
    globals(),
    {
        "AuditSink": ".audit",
        "BaggageManager": ".baggage",
        "CacheProvider": ".cache",
        "SimpleCache": ".cache",
        "configure": ".config",
        "get_active_cache": ".config",
        "get_active_engine": ".config",
        "get_active_identity": ".config",
        "get_active_trust_store": ".config",
        "invalidate_policy_cache": ".decisions",
        "kest_verified": ".decorator",
        "AVPPolicyEngine": ".engine",
        "CedarLocalEngine": ".engine",
        "CedarPolicyEngine": ".engine",
        "Decision": ".engine",
        "MockPolicyEngine": ".engine",
        "OPAPolicyEngine": ".engine",
        "PolicyEngine": ".engine",
        "RegoLocalEngine": ".engine",
        "AWSWorkloadIdentity": ".identity",
        "BedrockAgentIdentity": ".identity",
        "IdentityProvider": ".identity",
        "LocalEd25519Provider": ".identity",
        "MockIdentityProvider": ".identity",
        "OIDCIdentity": ".identity",
        "SPIREProvider": ".identity",
        "StaticIdentity": ".identity",
        "get_default_identity": ".identity",
        "RedisCache": ".redis_cache",
        "KestHttpxInterceptor": "kest.http",
        "KestIdentityMiddleware": "kest.http",
        "KestMiddleware": "kest.http",
        "KestTelemetry": "kest.telemetry",
        "KestEntry": ".passport",
        "Passport": ".passport",
        "PassportVerifier": ".passport",
        "VerifiedPassport": ".passport",
        "sign_entry": ".passport",
        "PolicyDeviation": ".tiers",
        "ORIGIN_TRUST_MAP": ".trust",
        "DefaultTrustEvaluator": ".trust",
        "TrustEvaluator": ".trust",
        "register_origin_trust": ".trust",
        "TrustStore": ".truststore",
        "KestError": "kest.errors",
        "PolicyDeniedError": "kest.errors",
        "VerificationError": "kest.errors",
    },
)

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
