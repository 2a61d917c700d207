"""An engine with one fixed answer, for tests and first steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kest.core.engine.base import ALLOWED, DecidingEngine, Decision, refuse_names

__all__ = ["MockPolicyEngine"]

_DENIED = Decision(False, "MockPolicyEngine(allow=False)")


class MockPolicyEngine(DecidingEngine):
    """Answers ``allow`` to everything; ``engine.allow = False`` changes its mind. It keeps no record of what it was
    asked.

    Args:
        allow: the answer; a bool and nothing else (``"false"`` must not allow).
    """

    in_process = True

    def __init__(self, allow: bool = True) -> None:
        self.allow = allow

    @property
    def allow(self) -> bool:
        """The answer to every question."""
        return self._answer.allowed

    @allow.setter
    def allow(self, value: bool) -> None:
        if value is not True and value is not False:
            raise TypeError(f"allow must be True or False, not {type(value).__name__}")
        self._answer = ALLOWED if value else _DENIED

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Return the fixed answer, or a denial when no policy is named."""
        if not policy_names or isinstance(policy_names, str):
            return refuse_names(policy_names) or _DENIED
        return self._answer

    def __repr__(self) -> str:
        return f"MockPolicyEngine(allow={self.allow})"
