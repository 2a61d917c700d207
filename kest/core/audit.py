"""Signed records of what came of a call: denials, and the outcome of calls that ran.

An entry says what was decided before a call; these records say how it ended. They are JWS like entries, with another
``typ``, and live in the audit log, not in the passport.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kest._kestcore import canonicalize, hash_value, sha256
from kest.core.hashing import encode

if TYPE_CHECKING:
    from kest.core.lifecycle import Call

__all__ = ["DENIAL_TYP", "OUTCOME_TYP", "AuditSink", "denial_payload", "outcome_payload", "output_hash"]

OUTCOME_TYP = "kest-outcome+jws"
DENIAL_TYP = "kest-denial+jws"


@runtime_checkable
class AuditSink(Protocol):
    """Receives every signed entry, denial and outcome, in order per flow."""

    def record(self, kind: str, jws: str) -> None:
        """Take over a record: ``kind`` is ``"entry"``, ``"denial"`` or ``"outcome"``.

        Called on the caller's path, on event loops too: queue it, and block only when the queue is full. An exception
        fails the call (before it runs, for entries and denials).
        """
        ...


def output_hash(value: object) -> tuple[str, bool]:
    """(SHA-256 of the canonical result, whether parts of it are opaque)."""
    return hash_value(value, encode)


def outcome_payload(call: Call, entry: str, result: str, output: str, error: BaseException | None) -> bytes:
    """What came of a call. ``result`` is returned, raised, cancelled or closed."""
    return canonicalize(
        {
            "duration_us": max(0, (time.monotonic_ns() - call.started_ns) // 1000),
            "entry_hash": sha256(entry.encode()).hex(),
            "entry_id": call.entry_id,
            "error": None if error is None else f"{type(error).__module__}.{type(error).__qualname__}",
            "operation": call.plan.operation,
            "output_hash": output,
            "principal": call.principal,
            "record": "outcome",
            "result": result,
            "schema_version": "0.3.0",
            "timestamp_ms": time.time_ns() // 1_000_000,
        }
    )


def denial_payload(call: Call, policy: str, tier: str, reason: str) -> bytes:
    """A call that policy did not allow, with everything that policy knew of it."""
    record: dict[str, Any] = {
        "entry_id": call.entry_id,
        "input_hash": call.input_hash,
        "labels": call.labels,
        "operation": call.plan.operation,
        "parent_ids": list(call.passport.tips) or ["0"],
        "policy": policy,
        "principal": call.principal,
        "reason": reason,
        "record": "denial",
        "decided_by": call.decided_by,
        "schema_version": "0.3.0",
        "taints": list(call.taints),
        "tier": tier,
        "timestamp_ms": call.timestamp_ms,
        "trust_score": call.trust,
    }
    return canonicalize(record)
