"""Every error that Kest raises, in one tree.

A message names what was wrong and what to do about it; it never contains key material or bearer tokens.
"""

from __future__ import annotations

__all__ = [
    "AuditChainError",
    "AuditCorruptError",
    "AuditError",
    "AuditLockedError",
    "AuditProofError",
    "AuditUnavailableError",
    "BaggageError",
    "CanonicalizationError",
    "ChannelError",
    "ClaimCheckError",
    "ConfigurationError",
    "DirectoryError",
    "GateError",
    "GateInputError",
    "GatePolicyError",
    "GateRequestError",
    "GateStoreError",
    "IdentityError",
    "Invalidated",
    "JSONSyntaxError",
    "KestError",
    "KeyFileError",
    "KeyFormatError",
    "MissingExtraError",
    "PassportError",
    "PassportTooLargeError",
    "PermitError",
    "PolicyDeniedError",
    "PolicyEngineError",
    "Refused",
    "RejectedLineageError",
    "ReplayStoreError",
    "ResolverError",
    "SigningError",
    "TelemetryError",
    "TokenError",
    "TrustEvaluationError",
    "VerificationError",
]


class KestError(Exception):
    """Base of everything that Kest raises on purpose."""


class ConfigurationError(KestError):
    """Kest is not configured, or configured in a way that cannot work."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional library is needed and absent; the message says which extra installs it."""


class PolicyDeniedError(KestError, PermissionError):
    """Policy did not allow the call: the function body was not run.

    Attributes:
        policy: the policy that denied (comma-joined when the engine could not say which of several).
        reason: why, in words.
        tier: ``enterprise``, ``platform``, ``app`` or ``function``.
        entry_id: the UUIDv7 that the call would have had as an entry.
        operation: the operation that was denied.
        code: the kind of denial where the engine tells kinds apart (a gate's ``INVARIANT_VIOLATION``); "" otherwise.
    """

    def __init__(
        self,
        policy: str,
        reason: str = "denied",
        *,
        tier: str = "function",
        entry_id: str = "",
        operation: str = "",
        code: str = "",
    ) -> None:
        super().__init__(f"policy {policy!r} ({tier}) denied operation {operation!r}: {reason}")
        self.policy = policy
        self.reason = reason
        self.tier = tier
        self.entry_id = entry_id
        self.operation = operation
        self.code = code


class PolicyEngineError(KestError):
    """A policy engine failed to decide (unreachable, timed out, answered nonsense). Counts as a denial."""


class IdentityError(KestError):
    """An identity provider failed, or what it returned is not a valid signature over what it was given."""


class ResolverError(KestError):
    """A user, agent, task or resource resolver raised, or returned something that is not usable."""


class TrustEvaluationError(KestError):
    """A custom trust evaluator raised, or did not answer with an int from 0 to 100."""


class TokenError(KestError):
    """A bearer token is missing, malformed, expired or not from whom it should be. Never quotes the token."""


class CanonicalizationError(KestError, ValueError):
    """A value has no RFC 8785 canonical form; ``path`` says where (JSONPath-like, ``$`` is the whole value)."""

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class JSONSyntaxError(KestError, ValueError):
    """Text is not JSON as Kest accepts it (RFC 8259, no duplicate keys, bounded depth); ``position`` is a byte offset."""

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


class KeyFormatError(KestError, ValueError):
    """A key is malformed, too short, or of a kind that Kest does not use."""


class PassportError(KestError, ValueError):
    """A passport could not be built, read or written."""


class VerificationError(PassportError):
    """A passport does not verify. ``index`` is the first bad entry (None: the passport as a whole)."""

    def __init__(self, message: str, *, index: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.index = index
        self.reason = reason or message


class RejectedLineageError(VerificationError):
    """Lineage came that nothing here can verify, and the configuration says to refuse such requests."""


class PassportTooLargeError(PassportError):
    """No permitted transport form of the passport fits, and there is no cache for a claim check."""


class BaggageError(PassportError):
    """Incoming Kest baggage is undecodable, truncated, oversized or contradicts itself."""


class ClaimCheckError(BaggageError):
    """A claim check names a record that is missing, expired or does not belong to its passport."""


class TelemetryError(KestError, ValueError):
    """A file or database of telemetry cannot be read, or is damaged."""


class GateError(KestError):
    """Base of what `kest.gate` raises."""


class GateInputError(GateError, ValueError):
    """A gate was asked about something that cannot be: an address that is none, NaN, an unknown kind of principal."""


class GateRequestError(GateInputError):
    """A request is not one that a gate can be asked about: its body is no strict JSON, or too large, or says two things.

    ``status`` is the HTTP status that says so: 400 or 413.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class GatePolicyError(GateError, ValueError):
    """Policies are not what a gate can enforce; ``path`` says where (``policies[2].conditions[0].param_max.max``)."""

    def __init__(self, message: str, path: str = "", *, whole: bool = False) -> None:
        super().__init__(f"{path}: {message}" if path and not whole else message)
        self.path = path


class GateStoreError(GateError):
    """A store or broadcaster that gates share did not do what was asked, or not in time. Gates refuse the action."""


class Refused(GateError):
    """A gate refused an action, which was not run.

    Attributes:
        reason: why, in words.
        evaluator: which one objected: ``gate``, ``policy``, ``drift`` or ``invariants``.
        code: ``NO_POLICY_MATCH``, ``POLICY_DENIED``, ``RATE_LIMIT_EXCEEDED``, ``INVARIANT_VIOLATION``, ...
        retry_after: for RATE_LIMIT_EXCEEDED, the seconds after which trying again makes sense; otherwise None.
    """

    def __init__(
        self,
        reason: str,
        evaluator: str = "gate",
        code: str = "POLICY_DENIED",
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"[{code}] {evaluator}: {reason}")
        self.retry_after = retry_after
        self.reason = reason
        self.evaluator = evaluator
        self.code = code


class Invalidated(GateError):
    """A gate ended the session: end it in the application too, and have its principal authenticate again."""

    def __init__(self, reason: str, evaluator: str = "drift") -> None:
        super().__init__(f"session invalidated by {evaluator}: {reason}")
        self.reason = reason
        self.evaluator = evaluator


class SigningError(GateError, RuntimeError):
    """A gate's key cannot sign: it has expired, its secret half is not here, or what is to be signed cannot be."""


class PermitError(GateError, ValueError):
    """A permit is not to be honoured: forged, altered, expired, used before, or for something else."""


class ReplayStoreError(GateError, RuntimeError):
    """A replay store cannot say whether something was used before, so that it counts as used."""


class KeyFileError(GateError, ValueError):
    """A key file is unreadable, damaged, open to others, or its passphrase is wrong (which of the last two nobody
    can tell).
    """


class DirectoryError(GateError, ValueError):
    """A key directory is missing, malformed, not signed by its root, older than one seen before, or has no such key."""


class AuditChainError(GateError, ValueError):
    """A signed audit chain does not verify.

    Attributes:
        index: the first entry (zero-based) that is wrong, or None where that is the chain as a whole.
        kind: ``altered``, ``deleted``, ``duplicated``, ``reordered``, ``spliced``, ``truncated``, ``downgraded``,
            ``malformed`` or ``rewritten`` (it contradicts a checkpoint).
    """

    def __init__(self, message: str, *, index: int | None = None, kind: str = "malformed") -> None:
        super().__init__(message)
        self.index = index
        self.kind = kind


class ChannelError(GateError, ValueError):
    """A sealed message is not for this recipient, not from this sender, altered, replayed, or of another context."""


class AuditError(KestError):
    """Base of what `kest.audit` raises."""


class AuditLockedError(AuditError):
    """Another process (or another object in this one) writes to the log: a log has one writer."""


class AuditUnavailableError(AuditError):
    """The log cannot take records now: its disk is full or fails, it is closed, or its process forked."""


class AuditCorruptError(AuditError):
    """What is on the disk is not the log that was written: something is missing, changed or does not fit together."""


class AuditProofError(AuditError, ValueError):
    """A proof, checkpoint or signed note is malformed or proves nothing; ``reason`` is a short phrase for programs."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message
