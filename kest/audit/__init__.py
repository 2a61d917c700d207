"""An append-only log of what was decided and done, for strangers to verify. See ``docs/audit.md``.

`AuditLog` is written by one process; `AuditReader`, `verify_log` and `verify_proof` need nothing but files and keys, and
`kest.audit.witness` is a second process that remembers what a log has shown.
"""

from __future__ import annotations

from kest.audit.keys import KeyLife, Verdict, key_event, thumbprint
from kest.audit.log import AuditLog
from kest.audit.note import Checkpoint, NoteKey
from kest.audit.pending import Pending
from kest.audit.proof import VerifiedProof, verify_consistency, verify_proof
from kest.audit.reader import AuditReader
from kest.audit.records import Record
from kest.audit.redaction import Redaction
from kest.audit.report import LogReport, MissingOutcome, Problem
from kest.audit.verify import verify_log

__all__ = [
    "AuditLog",
    "AuditReader",
    "Checkpoint",
    "KeyLife",
    "LogReport",
    "MissingOutcome",
    "NoteKey",
    "Pending",
    "Problem",
    "Record",
    "Redaction",
    "Verdict",
    "VerifiedProof",
    "key_event",
    "thumbprint",
    "verify_consistency",
    "verify_log",
    "verify_proof",
]
