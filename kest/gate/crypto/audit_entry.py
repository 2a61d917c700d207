"""AuditEntry: one decision, as it is written down."""

from __future__ import annotations

from typing import Any, Literal, final

from kest._kestcore import uuid7
from kest.errors import GateInputError
from kest.gate.permit import uuid_text

__all__ = ["AuditEntry"]

_VERDICTS = ("permit", "refuse", "invalidate")
MAX_TEXT = 65_536


@final
class AuditEntry:
    """What was asked, and what was decided. Immutable.

    Args:
        principal_id, action_name: who, and what.
        verdict: ``permit``, ``refuse`` or ``invalidate``.
        verdict_detail: the token, or the reason.
        resource, decided_by, ip: where they are known.
        evaluation_id, session_id: UUIDs; an evaluation id is made when there is none.
        context: anything else of the decision that is JSON: parameters, roles, policy digest.
    """

    __slots__ = ("_content",)

    _content: dict[str, Any]

    def __init__(
        self,
        principal_id: str,
        action_name: str,
        verdict: Literal["permit", "refuse", "invalidate"],
        verdict_detail: str,
        resource: str | None = None,
        decided_by: str | None = None,
        ip: str | None = None,
        evaluation_id: str | None = None,
        session_id: str | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        if verdict not in _VERDICTS:
            raise GateInputError(f"a verdict is permit, refuse or invalidate, not {str(verdict)[:100]!r}")
        content: dict[str, Any] = {
            "id": uuid7(),
            "principal_id": _text(principal_id, "principal_id"),
            "action_name": _text(action_name, "action_name"),
            "verdict": verdict,
            "verdict_detail": _text(verdict_detail, "verdict_detail"),
            "evaluation_id": uuid7() if evaluation_id is None else uuid_text(evaluation_id, "evaluation_id"),
        }
        for name, value in (("resource", resource), ("decided_by", decided_by), ("ip", ip)):
            if value is not None:
                content[name] = _text(value, name)
        if session_id is not None:
            content["session_id"] = uuid_text(session_id, "session_id")
        if context is not None:
            if not isinstance(context, dict):
                raise TypeError(f"context is a dict, not {type(context).__name__}")
            content["context"] = context
        object.__setattr__(self, "_content", content)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an AuditEntry is immutable: {name!r} cannot be set")

    @property
    def id(self) -> str:
        """Id of the entry (UUIDv7)."""
        return str(self._content["id"])

    @property
    def principal_id(self) -> str:
        """Who asked."""
        return str(self._content["principal_id"])

    @property
    def action_name(self) -> str:
        """What for."""
        return str(self._content["action_name"])

    @property
    def verdict(self) -> str:
        """``permit``, ``refuse`` or ``invalidate``."""
        return str(self._content["verdict"])

    def to_dict(self) -> dict[str, Any]:
        """What is signed: the members that are known."""
        return dict(self._content)

    def __repr__(self) -> str:
        return f"AuditEntry(principal={self.principal_id}, action={self.action_name}, verdict={self.verdict})"


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise GateInputError(f"{name} is longer than {MAX_TEXT} characters")
    return value
