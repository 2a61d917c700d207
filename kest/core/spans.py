"""One OpenTelemetry span per decorated call, if the application uses OpenTelemetry at all.

Nothing is imported for an application that does not: no provider can be set and no parent span can exist before somebody
imports ``opentelemetry.trace``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["CallSpan", "start_span"]

SCOPE = "kest.core"

_PROVIDER_NAMED = bool(os.environ.get("OTEL_PYTHON_TRACER_PROVIDER"))  # the API loads that one by itself
MAX_PASSPORT_ATTRIBUTE = 8192
"""Longest passport, in characters, that becomes a span attribute; longer ones are left out (kest.chain_tip names them)."""


def start_span(operation: str) -> CallSpan | None:
    """A started span, or None where OpenTelemetry is not in use."""
    if "opentelemetry.trace" not in sys.modules and not _PROVIDER_NAMED:
        return None
    from opentelemetry import trace

    from kest.core import version

    tracer = trace.get_tracer(SCOPE, version())
    # An exception is recorded by finish(), which knows denials from failures.
    return CallSpan(
        trace, tracer.start_span(f"kest.verified.{operation}", record_exception=False, set_status_on_exception=False)
    )


class CallSpan:
    """The span of one call. Entered around each step of the function's own code, finished once."""

    __slots__ = ("_context", "_token", "_trace", "recording", "span", "trace_id")

    def __init__(self, trace: Any, span: Any) -> None:
        self._trace = trace
        self.span = span
        self._token: Any = None
        self._context: Any = None
        self.recording = bool(span.is_recording())
        context = span.get_span_context()
        self.trace_id: str | None = f"{context.trace_id:032x}" if context.is_valid else None

    def annotate(self, attributes: dict[str, Any]) -> None:
        """Set attributes; None values are left out."""
        if self.recording:
            self.span.set_attributes({key: value for key, value in attributes.items() if value is not None})

    def enter(self) -> None:
        """Make this the current span, for the code that runs now."""
        if self.recording:
            from opentelemetry import context

            if self._context is None:
                self._context = self._trace.set_span_in_context(self.span)
            self._token = context.attach(self._context)

    def leave(self) -> None:
        """Undo `enter`, in the same step."""
        if self._token is not None:
            from opentelemetry import context

            # Closed from a context that never entered: there is nothing of ours to undo there.
            if self._trace.get_current_span() is self.span:
                context.detach(self._token)
            self._token = None

    def finish(self, error: BaseException | None = None) -> None:
        """End the span; an error becomes its status, with the exception's type as the only description."""
        if self.recording and error is not None and not isinstance(error, GeneratorExit):
            status = self._trace.Status(self._trace.StatusCode.ERROR, type(error).__name__)
            self.span.set_status(status)
        self.span.end()
