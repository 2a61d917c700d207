"""Where the lifecycle finds the meter, if the application uses OpenTelemetry's metrics at all.

`active` is looked at for each call and is None until somebody has a MeterProvider: that one look is all that metrics cost
without one. Providers come at any time; one is looked for when a policy engine is asked, so at most one lifetime of a
cached decision after it came.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from kest.locks import Lock

if TYPE_CHECKING:
    from kest.core.engine.base import Decision
    from kest.core.tiers import Tier

__all__ = ["Asking", "Meter", "active", "ask", "find"]

log = logging.getLogger("kest.telemetry")


class Meter(Protocol):
    """What the lifecycle tells a meter. Nothing that a meter raises reaches a call."""

    def remembered(self, tier: Tier, decision: Decision) -> None:
        """A tier was decided from the cache."""

    def decided(self, tier: Tier, decision: Decision, engine: str, seconds: float) -> None:
        """An engine decided about a tier."""

    def failed(self, tier: Tier, engine: str, seconds: float) -> None:
        """An engine could not decide about a tier."""

    def authorised(self, seconds: float) -> None:
        """A call was decided and signed, and runs now."""


class _Careful:
    """A meter whose failures are logged, once each kind, and never raised."""

    __slots__ = ("_meter", "_said")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._said: set[str] = set()

    def _tell(self, what: str, *facts: Any) -> None:
        try:
            getattr(self._meter, what)(*facts)
        except Exception as error:
            kind = type(error).__name__
            if kind not in self._said:
                self._said.add(kind)
                log.warning("a metric was not recorded: the meter provider raised %s", kind)

    def remembered(self, tier: Tier, decision: Decision) -> None:
        self._tell("remembered", tier, decision)

    def decided(self, tier: Tier, decision: Decision, engine: str, seconds: float) -> None:
        self._tell("decided", tier, decision, engine, seconds)

    def failed(self, tier: Tier, engine: str, seconds: float) -> None:
        self._tell("failed", tier, engine, seconds)

    def authorised(self, seconds: float) -> None:
        self._tell("authorised", seconds)


active: Meter | None = None

_refused: Any = None
_lock = Lock()
_PROVIDER_NAMED = bool(os.environ.get("OTEL_PYTHON_METER_PROVIDER"))  # the API loads that one by itself


def find() -> Meter | None:
    """The meter, if there is a MeterProvider by now."""
    if active is not None:
        return active
    metrics: Any = sys.modules.get("opentelemetry.metrics")
    if metrics is None:
        if not _PROVIDER_NAMED:
            return None
        from opentelemetry import metrics
    elif not _PROVIDER_NAMED and getattr(metrics._internal, "_METER_PROVIDER", metrics) is None:
        return None  # the API's own way to ask looks into the environment each time
    return _start(metrics)


def _start(metrics: Any) -> Meter | None:
    global active, _refused
    with _lock:
        if active is None:
            provider = metrics.get_meter_provider()
            if type(provider).__name__ in ("_ProxyMeterProvider", "NoOpMeterProvider"):
                return None
            from kest.telemetry.metrics import Instruments

            try:
                active = _Careful(Instruments(provider))
            except Exception as error:
                if _refused is not provider:  # asked again for each question to an engine
                    _refused = provider
                    log.warning("no metrics: the meter provider raised %s", type(error).__name__)
                return None
        return active


class Asking:
    """One question to an engine, from now on."""

    __slots__ = ("_engine", "_meter", "_start")

    def __init__(self, meter: Meter, engine: object) -> None:
        self._meter = meter
        self._engine = type(engine).__name__
        self._start = time.monotonic_ns()

    def _seconds(self) -> float:
        return (time.monotonic_ns() - self._start) / 1e9

    def decided(self, tier: Tier, decision: Decision) -> None:
        """It answered."""
        self._meter.decided(tier, decision, self._engine, self._seconds())

    def failed(self, tier: Tier) -> None:
        """It did not."""
        self._meter.failed(tier, self._engine, self._seconds())


def ask(engine: object) -> Asking | None:
    """Before an engine is asked; None when nobody measures."""
    meter = active or find()
    return None if meter is None else Asking(meter, engine)
