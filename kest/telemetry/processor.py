"""What is registered with a TracerProvider: once for each, and for as long as it lives.

OpenTelemetry cannot take a processor out again, so this one stays, and where spans go changes behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from kest.telemetry.records import SCOPE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

    from kest.telemetry.pipeline import Pipeline

__all__ = ["Route", "Router"]

UNKNOWN = "unknown_service"
"""How ``service.name`` begins where the application has none: OpenTelemetry's own default."""


@dataclass(frozen=True, slots=True)
class Route:
    """One exporter: which spans go there, and the service that they are said to be of."""

    kind: str
    endpoint: str
    pipeline: Pipeline
    service_name: str | None
    every_scope: bool
    rename: bool
    """Whether ``service_name`` replaces a name that the application gave to its own provider: never, unless it is ours."""

    def take(self, span: ReadableSpan) -> None:
        """Give a finished span to the exporter, if it is one for it."""
        if not self.every_scope:
            scope = span.instrumentation_scope
            if scope is None or scope.name != SCOPE:
                return
        name = self.service_name
        if name is not None:
            known = str(span.resource.attributes.get("service.name") or UNKNOWN)
            if known != name and (self.rename or known.startswith(UNKNOWN)):
                span = _of_service(span, name)
        self.pipeline.add(span)


class Router(SpanProcessor):
    """Gives finished spans to all routes."""

    def __init__(self) -> None:
        self.routes: tuple[Route, ...] = ()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """A sampled span has ended."""
        routes = self.routes
        if not routes:
            return
        context: Any = span.context
        if context is None or not context.trace_flags.sampled:
            return
        for route in routes:
            route.take(span)

    def shutdown(self) -> None:
        """The provider is shut down, by whoever owns it: no more spans will come."""
        self.force_flush()

    def force_flush(self, timeout_millis: int | None = 30000) -> bool:
        """Write what waits; whether nothing is left of it."""
        timeout = 30.0 if timeout_millis is None else timeout_millis / 1000
        return all([route.pipeline.flush(timeout) for route in self.routes])


def _of_service(span: ReadableSpan, name: str) -> ReadableSpan:
    from opentelemetry.sdk.resources import Resource

    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource.merge(Resource({"service.name": name})),
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
