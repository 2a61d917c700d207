"""The permit under which the code of here and now runs."""

from __future__ import annotations

import contextvars

from kest._kestcore import Verdict
from kest.gate.permit import PermitToken

__all__ = ["current_permit", "enter", "leave"]

verdict_var: contextvars.ContextVar[Verdict | None] = contextvars.ContextVar("kest.gate.verdict", default=None)


def current_permit() -> PermitToken | None:
    """The permit of the guarded function, request or tool call that is running; None outside of one.

    Generators run in their consumer's context, and so under their consumer's permit.
    """
    verdict = verdict_var.get()
    return None if verdict is None else verdict.permit_token


enter = verdict_var.set
"""Run under this verdict's permit from now on; returns what `leave` takes."""


def leave(before: contextvars.Token[Verdict | None]) -> None:
    """Run under what was current before."""
    try:
        verdict_var.reset(before)
    except ValueError:
        return  # a coroutine that somebody else's context closes: that one was never entered
