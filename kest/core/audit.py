"""Signed records of what came of a call: denials, and the outcome of calls that ran.

An entry says what was decided before a call; these records say how it ended. They are JWS like entries, with another
``typ``, and live in the audit log, not in the passport.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kest._kestcore import canonicalize, hash_value
from kest.core.hashing import encode

if TYPE_CHECKING:
    from kest.core.lifecycle import Call

__all__ = ["DENIAL_TYP", "OUTCOME_TYP", "AuditSink", "Settling", "denial_payload", "outcome_payload", "output_hash"]

OUTCOME_TYP = "kest-outcome+jws"
DENIAL_TYP = "kest-denial+jws"


@runtime_checkable
class Settling(Protocol):
    """A record that a sink has taken, and for which the call is to wait before it goes on: see ``AuditSink.record``."""

    def wait(self) -> Any:
        """Block until it is written, or raise."""
        ...

    async def wait_async(self) -> Any:
        """The same on an event loop."""
        ...

    def withdraw(self) -> bool:
        """Forget it; False if it is written already, or about to be."""
        ...


@runtime_checkable
class AuditSink(Protocol):
    """Receives every signed entry, denial and outcome, in order per flow.

    A sink may also have ``record_unsigned(kind, signer, typ, payload)``, which signs by itself (``signer.sign_jws(payload,
    typ)``), not on the caller's path. Then denials and outcomes of identities whose key is in this process go there.
    """

    def record(self, kind: str, jws: str) -> Settling | None:
        """Take over a record: ``kind`` is ``"entry"``, ``"denial"`` or ``"outcome"``.

        Called on the caller's path, on event loops too: queue it. Return None, or what the call is to wait for because the
        queue is full. An exception fails the call (before it runs, for entries and denials).
        """
        ...


def output_hash(value: object) -> tuple[str, bool]:
    """(SHA-256 of the canonical result, whether parts of it are opaque)."""
    return hash_value(value, encode)


@functools.lru_cache(maxsize=4096)
def _json(text: str) -> str:
    """Names that come again and again, as JSON."""
    return canonicalize(text).decode()


def outcome_payload(call: Call, entry_hash: str, result: str, output: str, error: BaseException | None) -> bytes:
    """What came of a call. ``result`` is returned, raised, timed_out, cancelled, closed, or not_run.

    Written out, in canonical order: every audited call pays for this. Only names of the application's need escaping.
    """
    said = "null" if error is None else _json(f"{type(error).__module__}.{type(error).__qualname__}")
    duration = max(0, (time.monotonic_ns() - call.started_ns) // 1000)
    return (
        f'{{"duration_us":{duration},"entry_hash":"{entry_hash}","entry_id":"{call.entry_id}","error":{said},'
        f'"operation":{_json(call.plan.operation)},"output_hash":"{output}","principal":{_json(call.principal)},'
        f'"record":"outcome","result":"{result}","schema_version":"0.3.0","timestamp_ms":{time.time_ns() // 1_000_000}}}'
    ).encode()


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
