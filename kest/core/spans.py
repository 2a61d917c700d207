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
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        if not _PROVIDER_NAMED:
            return None
        from opentelemetry import trace
    if _without_provider(trace):
        span = trace.get_current_span()
        if span is not trace.INVALID_SPAN:  # somebody else's, who ends it; its trace goes on
            span = trace.NonRecordingSpan(span.get_span_context())
    else:
        # An exception is recorded by finish(), which knows denials from failures.
        span = _tracer(trace).start_span(
            f"kest.verified.{operation}", record_exception=False, set_status_on_exception=False
        )
    return None if span is trace.INVALID_SPAN else CallSpan(trace, span)


_cached: tuple[Any, Any] = None, None


def _without_provider(trace: Any) -> bool:
    """Whether the application has none, so that a span would be no more than its parent. Asked for each call, and
    the API's own way to ask looks into the environment each time: where it keeps the provider is tried first."""
    return not _PROVIDER_NAMED and getattr(trace, "_TRACER_PROVIDER", trace) is None


def _tracer(trace: Any) -> Any:
    """The tracer of the application's provider, which it may set at any time, once."""
    global _cached
    provider = trace.get_tracer_provider()
    known, tracer = _cached
    if known is not provider:
        from kest.core import version

        tracer = provider.get_tracer(SCOPE, version())
        _cached = provider, tracer
    return tracer


class CallSpan:
    """The span of one call, finished once; `kest.core.otel_context` makes it current."""

    __slots__ = ("_trace", "recording", "span", "trace_id")

    def __init__(self, trace: Any, span: Any) -> None:
        self._trace = trace
        self.span = span
        self.recording = bool(span.is_recording())
        context = span.get_span_context()
        self.trace_id: str | None = f"{context.trace_id:032x}" if context.is_valid else None

    def annotate(self, attributes: dict[str, Any]) -> None:
        """Set attributes; None values are left out."""
        if self.recording:
            self.span.set_attributes({key: value for key, value in attributes.items() if value is not None})

    def in_context(self, context: Any) -> Any:
        """An OpenTelemetry context like this one, with this span as the current one."""
        return self._trace.set_span_in_context(self.span, context)

    def finish(self, error: BaseException | None = None) -> None:
        """End the span; an error becomes its status, with the exception's type as the only description."""
        if self.recording and error is not None and not isinstance(error, GeneratorExit):
            status = self._trace.Status(self._trace.StatusCode.ERROR, type(error).__name__)
            self.span.set_status(status)
        self.span.end()
