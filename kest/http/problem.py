"""Errors as problem documents (RFC 9457): ``application/problem+json`` with a status, a title and the reason."""

from __future__ import annotations

import json
from typing import Any

from kest import errors
from kest.errors import KestError, RejectedLineageError, TokenError

__all__ = [
    "CONTENT_TYPE",
    "RejectedLineageError",
    "TokenError",
    "problem_body",
    "problem_document",
    "problem_headers",
    "status_of",
]

CONTENT_TYPE = "application/problem+json"


# The first class that fits decides; subclasses stand before their bases.
_STATUS: tuple[tuple[type[BaseException], int, str], ...] = (
    (TokenError, 401, "Bearer token refused"),
    (errors.PolicyDeniedError, 403, "Denied by policy"),
    (errors.VerificationError, 403, "Lineage does not verify"),
    (errors.ClaimCheckError, 424, "Claim check cannot be redeemed"),
    (errors.BaggageError, 400, "Lineage cannot be read"),
    (errors.PassportTooLargeError, 500, "Passport too large to send"),
    (errors.Invalidated, 401, "Session is over"),
    (errors.Refused, 403, "Refused by the gate"),
    (errors.GateRequestError, 400, "Request cannot be decided"),
    (errors.PolicyEngineError, 503, "Policy engine unavailable"),
    (errors.IdentityError, 503, "Identity unavailable"),
    (KestError, 500, "Kest error"),
)


_REFUSED = {"RATE_LIMIT_EXCEEDED": 429, "SESSION_INVALID": 401}


def status_of(error: BaseException) -> int:
    """The HTTP status of an error: 4xx for what the client sent or may not do, 5xx for what failed here."""
    if isinstance(error, errors.Refused):
        # A store that failed refuses like policy does, but neither other rights nor another login would help.
        return 503 if error.reason.endswith(" unavailable") else _REFUSED.get(error.code, 403)
    return error.status if isinstance(error, errors.GateRequestError) else _row(error)[1]


def _row(error: BaseException) -> tuple[type[BaseException], int, str]:
    return next((row for row in _STATUS if isinstance(error, row[0])), (BaseException, 500, "Internal error"))


def problem_document(error: BaseException, status: int | None = None) -> dict[str, Any]:
    """The members of RFC 9457, section 3.1, and what the error knows besides.

    A 5xx says nothing of its cause: that belongs in the log.
    """
    kind, _, title = _row(error)
    code = status_of(error) if status is None else status
    document: dict[str, Any] = {
        "type": f"urn:kest:problem:{kind.__name__.removesuffix('Error').lower()}",
        "title": title,
        "status": code,
    }
    if code < 500:
        document["detail"] = str(error)
    if isinstance(error, errors.PolicyDeniedError):
        document.update(policy=error.policy, tier=error.tier, operation=error.operation, entry_id=error.entry_id)
    elif isinstance(error, errors.VerificationError):
        document.update(reason=error.reason, index=error.index)
    elif isinstance(error, errors.Refused):
        document.update(code=error.code, evaluator=error.evaluator, reason=error.reason)
    elif isinstance(error, errors.Invalidated):
        document.update(code="SESSION_INVALID", evaluator=error.evaluator, reason=error.reason)
    return document


def problem_body(error: BaseException, status: int | None = None) -> bytes:
    """The document as JSON."""
    return json.dumps(problem_document(error, status), ensure_ascii=False).encode("utf-8", "backslashreplace")


def problem_headers(error: BaseException) -> list[tuple[str, str]]:
    """The header fields that its status calls for: Retry-After of 429, WWW-Authenticate of 401 (RFC 9110, section 11.6.1)."""
    if isinstance(error, errors.Refused) and error.retry_after is not None:
        return [("Retry-After", str(error.retry_after))]
    if isinstance(error, (errors.Refused, errors.Invalidated)) and status_of(error) == 401:
        return [("WWW-Authenticate", 'Bearer error="invalid_token", error_description="the session is over"')]
    return []
