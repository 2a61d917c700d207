"""`KestTelemetry`: send what Kest knows of calls to a console, a collector, a file or a database."""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING, Any

from kest.core import metering
from kest.errors import ConfigurationError, MissingExtraError
from kest.locks import Lock
from kest.telemetry.pipeline import Limits, Pipeline
from kest.telemetry.queues import register_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics import MeterProvider

    from kest.telemetry.metric_export import MetricRouter
    from kest.telemetry.otlp import Target
    from kest.telemetry.processor import Route, Router

__all__ = ["EXPORTER_TYPES", "KestTelemetry", "current_state"]

log = logging.getLogger("kest.telemetry")

EXPORTER_TYPES = ("console", "otlp", "file", "sqlite")
DEFAULT_PATHS = {"file": "kest-telemetry.jsonl", "sqlite": "kest-telemetry.db"}
EXIT_TIMEOUT = 5.0
"""Seconds that the end of a process waits for a writer that is busy."""


class KestTelemetry:
    """Everything here is of the process, as OpenTelemetry's providers are; there are no instances.

    `setup` may be called several times: for another exporter, which is added, or with what it was given before, which
    changes nothing. `shutdown` ends all of it, and `setup` may begin anew. Spans and metrics that cannot be exported never
    fail a call: they are counted (`status`) and logged (logger ``kest.telemetry``).
    """

    @classmethod
    def setup(
        cls,
        service_name: str | None = None,
        exporter_type: str = "console",
        endpoint: str | os.PathLike[str] | None = None,
        *,
        protocol: str | None = None,
        metrics: bool | None = None,
    ) -> None:
        """Export the spans of decorated calls, and metrics where the exporter takes them.

        An application's own TracerProvider is used, not replaced: then spans of scope ``kest.core`` are exported, and the
        application's own go where they went. Without one a provider is set, and ``console`` and ``otlp`` get all spans.

        Args:
            service_name: ``service.name`` of spans and metrics. Default: ``OTEL_SERVICE_NAME``. A name that the
                application's own provider has stays.
            exporter_type: ``console`` (standard output), ``otlp``, ``file`` (JSON lines) or ``sqlite``.
            endpoint: for ``otlp`` an address (default: ``OTEL_EXPORTER_OTLP_ENDPOINT``, or this machine); for ``file`` and
                ``sqlite`` a path (default: ``kest-telemetry.jsonl``, ``kest-telemetry.db``).
            protocol: of ``otlp``: ``grpc`` or ``http/protobuf``. Default: see ``docs/telemetry.md``.
            metrics: export metrics too. Default: for ``otlp`` yes, for ``console`` no. Others cannot. Where the application
                has a MeterProvider, metrics are recorded there, whatever this says.

        Raises:
            ConfigurationError: an argument is wrong, a path cannot be written to, or the application's TracerProvider is of
                a kind that takes no exporters.
            MissingExtraError: OpenTelemetry's SDK or exporters are not installed.
        """
        if service_name is not None and (not isinstance(service_name, str) or not service_name.strip()):
            raise ConfigurationError("service_name is a non-empty str, or None for OTEL_SERVICE_NAME")
        if exporter_type not in EXPORTER_TYPES:
            raise ConfigurationError(
                f"exporter_type is one of {', '.join(EXPORTER_TYPES)}, not {str(exporter_type)[:40]!r}"
            )
        if protocol is not None and exporter_type != "otlp":
            raise ConfigurationError("protocol= is for exporter_type='otlp'")
        if metrics and exporter_type in DEFAULT_PATHS:
            raise ConfigurationError(
                f"metrics do not go to a {exporter_type} exporter: use 'otlp', or a MeterProvider of your own"
            )
        try:
            import opentelemetry.sdk.trace  # noqa: F401
        except ImportError:
            raise MissingExtraError('telemetry needs opentelemetry-sdk: pip install "kest[otlp]"') from None
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            log.warning("telemetry is not set up: OTEL_SDK_DISABLED is true")
            return
        with _lock:
            _state.add(service_name, exporter_type, endpoint, protocol, metrics)

    @classmethod
    def flush(cls, timeout: float = 30.0) -> bool:
        """Export what waits, now; whether nothing is left of it (``timeout`` in seconds, for each exporter)."""
        done = all([route.pipeline.flush(timeout) for route in _state.routes()])
        provider = _state.meter_provider
        if provider is not None:
            done = provider.force_flush(timeout * 1000) and done
        return done

    @classmethod
    def shutdown(cls, timeout: float = 30.0) -> None:
        """Export what waits and end all exporters. Idempotent; happens by itself when the process ends."""
        with _lock:
            _state.end(timeout)

    @classmethod
    def status(cls) -> list[dict[str, Any]]:
        """For each exporter: ``exporter``, ``endpoint``, and how many spans of this process were ``exported``, ``failed``
        (the exporter lost them), ``dropped`` (there was no room) or are ``queued``."""
        return [
            {"exporter": route.kind, "endpoint": route.endpoint, **route.pipeline.counts()} for route in _state.routes()
        ]


class _State:
    """What `KestTelemetry` has set up in this process."""

    def __init__(self) -> None:
        self.router: Router | None = None
        self.provider: Any = None  # that the router is registered with
        self.own_provider = False
        self.meter_provider: MeterProvider | None = None  # ours
        self.metric_router: MetricRouter | None = None

    def routes(self) -> tuple[Route, ...]:
        return () if self.router is None else self.router.routes

    def add(
        self,
        service_name: str | None,
        kind: str,
        endpoint: str | os.PathLike[str] | None,
        protocol: str | None,
        metrics: bool | None,
    ) -> None:
        from kest.telemetry.processor import Route

        sink, name, target = _sink(kind, endpoint, protocol)
        if any((route.kind, route.endpoint) == (kind, name) for route in self.routes()):
            return
        limits = _limits(kind)
        sink.check()
        wants_metrics = kind == "otlp" if metrics is None else metrics
        if wants_metrics and target is not None:
            target.exporter_class("metrics")
        router = self._router(service_name)  # nothing was changed until here, and nothing fails after it
        if wants_metrics:
            self._add_metrics(service_name, name, target)
        pipeline = Pipeline(sink, name, limits)
        every_scope = self.own_provider and kind not in DEFAULT_PATHS  # those have columns and readers for Kest's alone
        route = Route(kind, name, pipeline, service_name, every_scope, self.own_provider)
        router.routes = (*router.routes, route)
        metering.find()

    def _router(self, service_name: str | None) -> Router:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        from kest.telemetry.processor import Router

        current = trace.get_tracer_provider()
        if self.router is not None and current is self.provider:
            return self.router
        own = type(current) is trace.ProxyTracerProvider
        provider: Any = current
        if own:
            provider = TracerProvider(resource=_resource(service_name), shutdown_on_exit=False)
        if not callable(getattr(provider, "add_span_processor", None)):
            raise ConfigurationError(
                f"the application's TracerProvider ({type(provider).__name__}) takes no exporters: export its spans as it "
                "does, or set up one of opentelemetry-sdk"
            )
        router = Router()
        provider.add_span_processor(router)
        if own:
            trace.set_tracer_provider(provider)
            if trace.get_tracer_provider() is not provider:  # somebody was quicker: theirs it is
                return self._router(service_name)
        if self.router is None:
            from kest.telemetry.metrics import add_spans_source

            atexit.register(_at_exit)
            add_spans_source(_span_counts)
            register_queue("telemetry", _queued)
        self.router, self.provider, self.own_provider = router, provider, own
        return router

    def _add_metrics(self, service_name: str | None, name: str, target: Target | None) -> None:
        from opentelemetry import metrics

        from kest.telemetry.metric_export import MetricRouter, meter_provider

        if self.metric_router is None:
            if type(metrics.get_meter_provider()).__name__ != "_ProxyMeterProvider":
                log.info("metrics of Kest go to the application's own MeterProvider")
                return
            router = MetricRouter()
            provider = meter_provider(router, _resource(service_name))
            metrics.set_meter_provider(provider)
            if metrics.get_meter_provider() is not provider:
                provider.shutdown()
                return
            self.meter_provider, self.metric_router = provider, router
        if target is None:
            from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

            self.metric_router.add(name, ConsoleMetricExporter)
        else:
            self.metric_router.add(name, lambda: target.exporter("metrics"))

    def end(self, timeout: float, at_exit: bool = False) -> None:
        for route in self.routes():
            route.pipeline.flush(timeout)
        if self.metric_router is not None and self.meter_provider is not None and self.metric_router.used:
            if at_exit:  # in a thread of the provider's, for as long as it may take
                self.meter_provider.shutdown(timeout * 1000)
            else:
                self.meter_provider.force_flush(timeout * 1000)  # while the counts of spans are still there
                self.metric_router.clear()
        if self.router is not None:
            routes, self.router.routes = self.router.routes, ()
            for route in routes:
                route.pipeline.close(timeout)


def _sink(kind: str, endpoint: str | os.PathLike[str] | None, protocol: str | None) -> tuple[Any, str, Target | None]:
    """The sink, its name (for `status`, and to know it again), and the target of OTLP."""
    if kind in DEFAULT_PATHS:
        path = os.fsdecode(DEFAULT_PATHS[kind] if endpoint is None else endpoint)
        if not path or "\0" in path:
            raise ConfigurationError(f"the endpoint of a {kind} exporter is the path of a file")
        if kind == "file":
            from kest.telemetry.file_sink import FileSink

            sink: Any = FileSink(path)
        else:
            from kest.telemetry.sqlite_sink import SqliteSink

            sink = SqliteSink(path)
        return sink, sink.path, None
    if kind == "console":
        from kest.telemetry.console import ConsoleSink

        if endpoint is not None:
            raise ConfigurationError("a console exporter has no endpoint")
        return ConsoleSink(), "standard output", None
    if endpoint is not None and not isinstance(endpoint, str):
        raise ConfigurationError("the endpoint of an otlp exporter is an address (str)")
    from kest.telemetry.otlp import OtlpSink, target_of

    target = target_of(endpoint, protocol)
    return OtlpSink(target), str(target), target


def _resource(service_name: str | None) -> Any:
    from opentelemetry.sdk.resources import Resource

    return Resource.create({} if service_name is None else {"service.name": service_name})


def _limits(kind: str) -> Limits:
    """``OTEL_BSP_*``, as OpenTelemetry's own processor understands them; files and databases are written each second."""
    if kind == "console":
        return Limits(delay=0)
    queue = _positive("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
    batch = min(queue, _positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
    return Limits(queue, batch, _positive("OTEL_BSP_SCHEDULE_DELAY", 5000 if kind == "otlp" else 1000) / 1000)


def _positive(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise ConfigurationError(f"{variable} is a positive whole number, not {text[:40]!r}")
    return int(text)


def _span_counts() -> Iterator[tuple[int, dict[str, str]]]:
    for route in _state.routes():
        counts = route.pipeline.counts()
        for result in ("exported", "failed", "dropped"):
            yield counts[result], {"kest.exporter": route.kind, "kest.result": result}


def _queued() -> int:
    return sum(len(route.pipeline) for route in _state.routes())


def _at_exit() -> None:
    _state.end(EXIT_TIMEOUT, at_exit=True)


_lock = Lock()
_state = _State()


def current_state() -> _State:
    """For `kest doctor`."""
    return _state
