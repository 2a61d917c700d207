"""The gate: an embedded engine that permits, refuses or invalidates one action at a time.

Policies, session state, drift and invariants are evaluated in C; what no policy permits is refused.
"""

from __future__ import annotations

from kest._kestcore import ActionContext, InMemoryRateLimitStore, InMemorySessionStore, Verdict, gate_register
from kest.errors import GateError, GateInputError, GatePolicyError, GateStoreError, Invalidated, Refused
from kest.gate.context import DeviceFingerprint, GeoLocation, context_from_record, context_to_record
from kest.gate.explain import Explanation
from kest.gate.gate import Gate, PermitSigner
from kest.gate.guarded import guarded, guarded_tool
from kest.gate.invalidation import (
    InMemoryInvalidationBroadcaster,
    InvalidationBroadcaster,
    InvalidationListenerHandle,
    InvalidationScope,
    InvalidationTarget,
    spawn_invalidation_listener,
)
from kest.gate.invariants import Invariant
from kest.gate.permit import PermitToken
from kest.gate.policies import Policies, Policy
from kest.gate.reasons import reason as _reason
from kest.gate.redis_broadcaster import RedisInvalidationBroadcaster
from kest.gate.redis_rates import RedisRateLimitStore
from kest.gate.redis_sessions import RedisSessionStore
from kest.gate.stores import LimitKey, RateLimitStore, SessionState, SessionStore
from kest.gate.subscription import InvalidationSubscription

__all__ = [
    "ActionContext",
    "DeviceFingerprint",
    "Explanation",
    "Gate",
    "GateError",
    "GateInputError",
    "GatePolicyError",
    "GateStoreError",
    "GeoLocation",
    "InMemoryInvalidationBroadcaster",
    "InMemoryRateLimitStore",
    "InMemorySessionStore",
    "Invalidated",
    "InvalidationBroadcaster",
    "InvalidationListenerHandle",
    "InvalidationScope",
    "InvalidationSubscription",
    "InvalidationTarget",
    "Invariant",
    "LimitKey",
    "PermitSigner",
    "PermitToken",
    "Policies",
    "Policy",
    "RateLimitStore",
    "RedisInvalidationBroadcaster",
    "RedisRateLimitStore",
    "RedisSessionStore",
    "Refused",
    "SessionState",
    "SessionStore",
    "Verdict",
    "context_from_record",
    "context_to_record",
    "guarded",
    "guarded_tool",
    "spawn_invalidation_listener",
]

gate_register(GeoLocation, DeviceFingerprint, PermitToken, _reason)
