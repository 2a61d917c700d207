"""The OpenTelemetry context around a decorated call's own code: its span is current, and baggage holds the passport.

The baggage is live (`kest.http.live_baggage`): it reads the flow when somebody reads it, so one context serves every call
under it, and nothing is serialised until something is sent. Where the application uses no OpenTelemetry, nothing happens.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kest.core.spans import CallSpan

__all__ = ["OTelContext", "attach_live", "current_context", "detach", "otel_context"]


class _Api:
    """OpenTelemetry's current context through its API, for runtimes that keep it elsewhere than in a `ContextVar`."""

    def __init__(self, api: Any) -> None:
        self.get, self.set, self.reset = api.get_current, api.attach, api.detach


_current: Any = None
_scoped: Any = None


def current_context() -> Any:
    """Where OpenTelemetry keeps its current context: the `ContextVar` itself, which costs a fraction of the API."""
    global _current
    if _current is None:
        from opentelemetry import context

        token: Any = context.attach(context.get_current())
        context.detach(token)
        _current = getattr(token, "var", None) or _Api(context)
    return _current


def _live(context: Any) -> Any:
    """A context like this one whose baggage holds the passport of whoever reads it."""
    global _scoped
    if _scoped is None:
        from kest.http.live_baggage import scoped

        _scoped = scoped
    return _scoped(context)


def attach_live() -> Any:
    """Make baggage live until `detach`: all that a call without a span needs, and the quickest way to it."""
    current = _current or current_context()
    return current.set((_scoped or _live)(current.get()))


def detach(token: Any) -> None:
    """Everything as it was before `attach_live` or `OTelContext.enter`."""
    try:  # noqa: SIM105 - suppress() costs more than all the rest
        _current.reset(token)
    except ValueError:
        pass  # a coroutine that is closed from a context that it never entered: that one stays as it is


class OTelContext:
    """What is current while a call's own code runs; entered for each step of it, and left with everything as it was."""

    __slots__ = ("_entered", "_own", "_span", "_token")

    def __init__(self, span: CallSpan | None) -> None:
        self._span = span if span is not None and span.recording else None
        self._own: Any = None
        self._token: Any = None

    def enter(self) -> None:
        """Before the code runs."""
        current = _current or current_context()
        context = self._own
        if context is None:
            context = current.get()
            if "opentelemetry.baggage" in sys.modules:
                context = _live(context)
            if self._span is not None:
                context = self._span.in_context(context)
        self._entered = context
        self._token = current.set(context)

    def leave(self) -> None:
        """After it ran. What it left current itself is current again in its next step, and nowhere else."""
        token = self._token
        if token is None:
            return
        self._token = None
        now = _current.get()
        if now is not self._entered or self._span is not None:
            self._own = now
        detach(token)


def otel_context(span: CallSpan | None = None) -> OTelContext | None:
    """A context for one call; None where there is nothing to be made current."""
    if "opentelemetry.baggage" in sys.modules or (span is not None and span.recording):
        return OTelContext(span)
    return None
