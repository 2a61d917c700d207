"""Errors as problem documents (RFC 9457): ``application/problem+json`` with a status, a title and the reason."""

from __future__ import annotations

import json
from typing import Any

from kest import errors
from kest.errors import KestError, RejectedLineageError, TokenError

__all__ = ["CONTENT_TYPE", "RejectedLineageError", "TokenError", "problem_body", "problem_document", "status_of"]

CONTENT_TYPE = "application/problem+json"


# The first class that fits decides; subclasses stand before their bases.
_STATUS: tuple[tuple[type[BaseException], int, str], ...] = (
    (TokenError, 401, "Bearer token refused"),
    (errors.PolicyDeniedError, 403, "Denied by policy"),
    (errors.VerificationError, 403, "Lineage does not verify"),
    (errors.ClaimCheckError, 424, "Claim check cannot be redeemed"),
    (errors.BaggageError, 400, "Lineage cannot be read"),
    (errors.PassportTooLargeError, 500, "Passport too large to send"),
    (errors.PolicyEngineError, 503, "Policy engine unavailable"),
    (errors.IdentityError, 503, "Identity unavailable"),
    (KestError, 500, "Kest error"),
)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error: 4xx for what the client sent or may not do, 5xx for what failed here."""
    return _row(error)[1]


def _row(error: BaseException) -> tuple[type[BaseException], int, str]:
    return next((row for row in _STATUS if isinstance(error, row[0])), (BaseException, 500, "Internal error"))


def problem_document(error: BaseException, status: int | None = None) -> dict[str, Any]:
    """The members of RFC 9457, section 3.1, and what the error knows besides.

    A 5xx says nothing of its cause: that belongs in the log.
    """
    kind, code, title = _row(error)
    code = code if status is None else status
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
    return document


def problem_body(error: BaseException, status: int | None = None) -> bytes:
    """The document as JSON."""
    return json.dumps(problem_document(error, status), ensure_ascii=False).encode("utf-8", "backslashreplace")
