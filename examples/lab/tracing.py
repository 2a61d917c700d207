"""OpenTelemetry in a service: spans go to a collector, and a trace goes on in the service that is called.

Kest makes one span for each decorated call. That is all it needs: a tracer provider, set by the application.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["Continued", "continue_there", "exported"]

# Trace context and nothing else: Kest's transport decides who gets baggage, a propagator would give it to everybody.
_trace_context = TraceContextTextMapPropagator()


@contextmanager
def exported(name: str) -> Iterator[None]:
    """Send spans as ``name`` to OTEL_EXPORTER_OTLP_ENDPOINT; the last ones before this ends."""
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


async def continue_there(request: httpx.Request) -> None:
    """A hook of httpx: name the current span in the request."""
    _trace_context.inject(request.headers)


class Continued:
    """An ASGI middleware: spans of a request belong to the trace that it names, unless the framework sees to that."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if trace.get_current_span().get_span_context().is_valid:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        token = context.attach(_trace_context.extract(headers))
        try:
            await self._app(scope, receive, send)
        finally:
            context.detach(token)
