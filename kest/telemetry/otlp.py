"""OTLP exporters of OpenTelemetry, over gRPC or HTTP, for spans and metrics.

They are made when something is exported, in the process that exports it: a gRPC channel from before a fork does not work
after it, and a server that forks its workers usually configures telemetry before.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from kest.errors import ConfigurationError, MissingExtraError
from kest.telemetry.pipeline import LostError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["GRPC", "HTTP", "OtlpSink", "Target", "target_of"]

GRPC, HTTP = "grpc", "http/protobuf"
_PROTO = "opentelemetry.exporter.otlp.proto."
_EXPORTERS = {
    (GRPC, "traces"): (_PROTO + "grpc.trace_exporter", "OTLPSpanExporter"),
    (GRPC, "metrics"): (_PROTO + "grpc.metric_exporter", "OTLPMetricExporter"),
    (HTTP, "traces"): (_PROTO + "http.trace_exporter", "OTLPSpanExporter"),
    (HTTP, "metrics"): (_PROTO + "http.metric_exporter", "OTLPMetricExporter"),
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Target:
    """Where OTLP goes. ``endpoint`` None: where the ``OTEL_EXPORTER_OTLP_*`` variables say, or to this machine."""

    def __init__(self, protocol: str, endpoint: str | None) -> None:
        self.protocol = protocol
        self.endpoint = endpoint

    def __str__(self) -> str:
        """For messages: without what an address could hold of secrets."""
        if self.endpoint is None:
            return f"otlp ({self.protocol})"
        parts = urlsplit(self.endpoint)
        return f"otlp ({self.protocol}) at {parts.scheme or 'grpc'}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def exporter(self, signal: str) -> Any:
        """A new exporter of OpenTelemetry's for ``traces`` or ``metrics``.

        Raises:
            MissingExtraError: it is not installed.
        """
        made = self.exporter_class(signal)
        if self.endpoint is None:
            return made()
        return made(endpoint=self.endpoint if self.protocol == GRPC else _signal_url(self.endpoint, signal))

    def exporter_class(self, signal: str) -> Any:
        """Its class; imports it."""
        module, name = _EXPORTERS[self.protocol, signal]
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise MissingExtraError(
                "telemetry to an OTLP endpoint needs opentelemetry-exporter-otlp: "
                f'pip install "kest[otlp]" (no module {error.name})'
            ) from None


def _signal_url(endpoint: str, signal: str) -> str:
    """As the specification has it: the path of a signal comes after the path of the endpoint, unless it is one already."""
    parts = urlsplit(endpoint)
    base = parts.path.rstrip("/")
    for known in ("/v1/traces", "/v1/metrics"):
        base = base.removesuffix(known)
    return urlunsplit(parts._replace(path=f"{base}/v1/{signal}"))


def target_of(endpoint: str | None, protocol: str | None) -> Target:
    """From what `setup` was given and the environment says.

    The protocol is, in this order: ``protocol``; ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`` or ``OTEL_EXPORTER_OTLP_PROTOCOL``;
    HTTP for port 4318 or an address with a path; gRPC.

    Raises:
        ConfigurationError: an address or a protocol that OTLP does not have.
    """
    address = (
        endpoint
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    )
    parts = _parsed(address) if address else None
    named = (
        protocol
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    )
    if named is None:
        named = HTTP if parts is not None and (parts.port == 4318 or parts.path.strip("/")) else GRPC
    named = {"http": HTTP, "grpc": GRPC}.get(named.strip().lower(), named.strip().lower())
    if named not in (GRPC, HTTP):
        raise ConfigurationError(f"OTLP is spoken over {GRPC!r} or {HTTP!r}, not {named[:40]!r}")
    if endpoint is None or parts is None:
        return Target(named, None)
    if parts.scheme == "":
        # Without a scheme gRPC exporters expect TLS; nobody has it on the loopback interface.
        plain = named == HTTP or parts.hostname in _LOOPBACK
        endpoint = f"{'http' if plain else 'https'}://{endpoint}"
    return Target(named, endpoint)


def _parsed(address: str) -> Any:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port  # checks it
    except ValueError:
        parts, port = None, None
    if parts is None or not parts.hostname or parts.scheme not in ("", "http", "https") or port == 0:
        raise ConfigurationError(
            "an OTLP endpoint is an address such as http://collector:4317 (gRPC) or https://collector:4318 (HTTP); "
            f"this one is of another form (scheme {parts.scheme[:20] if parts is not None else 'unknown'!r})"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            "an OTLP endpoint with a user or password in it ends up in logs: use OTEL_EXPORTER_OTLP_HEADERS for credentials"
        )
    return parts


class OtlpSink:
    """Spans to an OTLP endpoint, by OpenTelemetry's exporter: it compresses, authenticates, retries and times out."""

    local = False

    def __init__(self, target: Target) -> None:
        self.target = target
        self._exporter: Any = None

    def check(self) -> None:
        """See that its library is there. Whether anybody listens shows when spans are exported."""
        self.target.exporter_class("traces")

    def export(self, spans: Sequence[ReadableSpan]) -> None:
        """Send them. What the exporter has given up is lost."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        if self._exporter is None:
            self._exporter = self.target.exporter("traces")
        if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise LostError("the endpoint took nothing; OpenTelemetry's exporter has logged why")

    def release(self) -> None:
        """See `Sink.release`. Other processes cannot harm a connection that they do not use."""

    def forget(self) -> None:
        """See `Sink.forget`."""
        self._exporter = None

    def close(self) -> None:
        """See `Sink.close`."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.shutdown()
