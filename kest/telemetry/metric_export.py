"""Metrics to an OTLP endpoint or the console, through a MeterProvider of ours where the application has none."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

__all__ = ["MetricRouter", "meter_provider"]

Make = Callable[[], Any]


class MetricRouter(MetricExporter):
    """Exports to targets that come and go; a provider's readers cannot. Targets are made in the process that exports."""

    def __init__(self) -> None:
        super().__init__(preferred_temporality=_temporality())
        self._targets: tuple[tuple[str, Make], ...] = ()
        self._made: dict[str, Any] = {}
        _routers.add(self)

    @property
    def used(self) -> bool:
        """Whether there is any target."""
        return bool(self._targets)

    def add(self, name: str, make: Make) -> None:
        """Another target."""
        self._targets = (*(item for item in self._targets if item[0] != name), (name, make))

    def clear(self) -> None:
        """No targets. What they have received is on its way."""
        self._targets = ()
        made, self._made = self._made, {}
        for exporter in made.values():
            exporter.shutdown()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """To each target; a failure of one is not the other's."""
        result = MetricExportResult.SUCCESS
        for name, make in self._targets:
            exporter = self._made.get(name)
            if exporter is None:
                exporter = self._made[name] = make()
            if exporter.export(metrics_data, timeout_millis=timeout_millis) is not MetricExportResult.SUCCESS:
                result = MetricExportResult.FAILURE
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Exporters keep nothing back."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """See `MetricExporter.shutdown`."""
        self.clear()

    def after_fork_in_child(self) -> None:
        """What was made belongs to the parent."""
        self._made = {}


def _temporality() -> dict[type, AggregationTemporality] | None:
    """``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE``, as OTLP exporters read it: ours has none of its own yet."""
    preference = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
    if preference == "delta":
        return dict.fromkeys((Counter, Histogram, ObservableCounter), AggregationTemporality.DELTA)
    if preference == "lowmemory":
        return dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
    return None


def meter_provider(router: MetricRouter, resource: Resource) -> MeterProvider:
    """A provider that exports every ``OTEL_METRIC_EXPORT_INTERVAL`` milliseconds (60,000)."""
    return MeterProvider([PeriodicExportingMetricReader(router)], resource=resource, shutdown_on_exit=False)


_routers: weakref.WeakSet[MetricRouter] = weakref.WeakSet()


def _in_child() -> None:
    for router in list(_routers):
        router.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
