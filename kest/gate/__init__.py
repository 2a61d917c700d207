"""The gate: an embedded engine that permits, refuses or invalidates one action at a time.

Policies, session state, drift and invariants are evaluated in C; what no policy permits is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kest._kestcore import ActionContext, InMemoryRateLimitStore, InMemorySessionStore, Verdict, gate_register
from kest.errors import (
    AuditChainError,
    ChannelError,
    DirectoryError,
    GateError,
    GateInputError,
    GatePolicyError,
    GateStoreError,
    Invalidated,
    KeyFileError,
    PermitError,
    Refused,
    ReplayStoreError,
    SigningError,
)
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
from kest.gate.redis_replay import RedisReplayStore
from kest.gate.redis_sessions import RedisSessionStore
from kest.gate.stores import LimitKey, RateLimitStore, SessionState, SessionStore
from kest.gate.subscription import InvalidationSubscription
from kest.lazy import lazy

if TYPE_CHECKING:
    from kest.gate.crypto.audit_chain import SignedAuditChain
    from kest.gate.crypto.audit_entry import AuditEntry
    from kest.gate.crypto.audit_managed import ManagedAuditChain
    from kest.gate.crypto.batch import PermitBatch
    from kest.gate.crypto.bundles import PublicKeyBundle
    from kest.gate.crypto.channel import ReceivedMessage, SecureChannel
    from kest.gate.crypto.channel_session import ChannelSession
    from kest.gate.crypto.claims import PermitClaims
    from kest.gate.crypto.directory import PublicKeyDirectory
    from kest.gate.crypto.directory_source import DirectorySource
    from kest.gate.crypto.keys import KeyPair
    from kest.gate.crypto.permits import envelope_bytes, envelope_text
    from kest.gate.crypto.replay_store import FileReplayStore, InMemoryReplayStore, ReplayStore
    from kest.gate.crypto.signer import PqTokenSigner
    from kest.gate.crypto.verifier import DirectoryTokenVerifier

__all__ = [
    "ActionContext",
    "AuditChainError",
    "AuditEntry",
    "ChannelError",
    "ChannelSession",
    "DeviceFingerprint",
    "DirectoryError",
    "DirectorySource",
    "DirectoryTokenVerifier",
    "Explanation",
    "FileReplayStore",
    "Gate",
    "GateError",
    "GateInputError",
    "GatePolicyError",
    "GateStoreError",
    "GeoLocation",
    "InMemoryInvalidationBroadcaster",
    "InMemoryRateLimitStore",
    "InMemoryReplayStore",
    "InMemorySessionStore",
    "Invalidated",
    "InvalidationBroadcaster",
    "InvalidationListenerHandle",
    "InvalidationScope",
    "InvalidationSubscription",
    "InvalidationTarget",
    "Invariant",
    "KeyFileError",
    "KeyPair",
    "LimitKey",
    "ManagedAuditChain",
    "PermitBatch",
    "PermitClaims",
    "PermitError",
    "PermitSigner",
    "PermitToken",
    "Policies",
    "Policy",
    "PqTokenSigner",
    "PublicKeyBundle",
    "PublicKeyDirectory",
    "RateLimitStore",
    "ReceivedMessage",
    "RedisInvalidationBroadcaster",
    "RedisRateLimitStore",
    "RedisReplayStore",
    "RedisSessionStore",
    "Refused",
    "ReplayStore",
    "ReplayStoreError",
    "SecureChannel",
    "SessionState",
    "SessionStore",
    "SignedAuditChain",
    "SigningError",
    "Verdict",
    "context_from_record",
    "context_to_record",
    "envelope_bytes",
    "envelope_text",
    "guarded",
    "guarded_tool",
    "spawn_invalidation_listener",
]

# What is signed, sealed and kept secret loads when it is first used.
__getattr__, __dir__ = lazy(
    globals(),
    {
        "AuditEntry": ".crypto.audit_entry",
        "ChannelSession": ".crypto.channel_session",
        "DirectorySource": ".crypto.directory_source",
        "DirectoryTokenVerifier": ".crypto.verifier",
        "FileReplayStore": ".crypto.replay_store",
        "InMemoryReplayStore": ".crypto.replay_store",
        "KeyPair": ".crypto.keys",
        "ManagedAuditChain": ".crypto.audit_managed",
        "PermitBatch": ".crypto.batch",
        "PermitClaims": ".crypto.claims",
        "PqTokenSigner": ".crypto.signer",
        "PublicKeyBundle": ".crypto.bundles",
        "PublicKeyDirectory": ".crypto.directory",
        "ReceivedMessage": ".crypto.channel",
        "ReplayStore": ".crypto.replay_store",
        "SecureChannel": ".crypto.channel",
        "SignedAuditChain": ".crypto.audit_chain",
        "envelope_bytes": ".crypto.permits",
        "envelope_text": ".crypto.permits",
    },
)

gate_register(GeoLocation, DeviceFingerprint, PermitToken, _reason)
