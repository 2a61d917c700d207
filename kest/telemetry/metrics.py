"""The instruments of Kest, on OpenTelemetry's metrics API (names and units: ``docs/telemetry.md``).

No attribute has more values than the application has policies and engines: no user, entry or reason becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kest.core.decisions import decisions
from kest.telemetry import queues

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

    from kest.core.engine.base import Decision
    from kest.core.tiers import Tier

__all__ = ["Instruments", "add_spans_source"]

DURATIONS = (
    5e-6,
    1e-5,
    2.5e-5,
    5e-5,
    1e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    1e-2,
    2.5e-2,
    5e-2,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
"""Bucket boundaries in seconds: OpenTelemetry's own begin at 5 ms, where most calls of Kest are long over."""

ALLOWED, DENIED, ERROR = "allowed", "denied", "error"

SpanCounts = Callable[[], Iterable[tuple[int, dict[str, str]]]]
_sources: list[SpanCounts] = []


def add_spans_source(source: SpanCounts) -> None:
    """Who knows how many spans were exported, and how many were not: (count, attributes) each."""
    _sources.append(source)


class Instruments:
    """A `kest.core.metering.Meter` that records into the application's MeterProvider."""

    def __init__(self, provider: MeterProvider) -> None:
        from kest.core import version

        meter = provider.get_meter("kest.core", version())
        self._decisions = meter.create_counter(
            "kest.decisions", "{decision}", "Decisions about calls, by result and policy; one for each tier of policies"
        )
        self._lookups = meter.create_counter(
            "kest.decision_cache.lookups", "{lookup}", "Questions to the decision cache: hit, or miss"
        )
        self._engine = _histogram(
            meter, "kest.decision.duration", "How long a policy engine took to decide about a tier"
        )
        self._authorisation = _histogram(
            meter, "kest.authorization.duration", "From the start of a call until it was decided and signed"
        )
        meter.create_observable_gauge(
            "kest.decision_cache.size", [_cache_size], "{decision}", "Decisions that are remembered"
        )
        meter.create_observable_gauge("kest.queue.depth", [_depth], "{record}", "Records that wait in a queue of Kest")
        meter.create_observable_gauge("kest.queue.capacity", [_capacity], "{record}", "At most how many can wait there")
        meter.create_observable_counter(
            "kest.telemetry.spans", [_spans], "{span}", "Spans given to Kest's exporters: exported, failed or dropped"
        )
        self._known: dict[tuple[str, ...], dict[str, str]] = {}

    def remembered(self, tier: Tier, decision: Decision) -> None:
        """See `kest.core.metering.Meter`."""
        self._lookups.add(1, _HIT)
        self._decisions.add(1, self._attributes(tier, _result(decision), decision.policy))

    def decided(self, tier: Tier, decision: Decision, engine: str, seconds: float) -> None:
        """See `kest.core.metering.Meter`."""
        if decisions.ttl > 0:
            self._lookups.add(1, _MISS)
        result = _result(decision)
        self._decisions.add(1, self._attributes(tier, result, decision.policy))
        self._engine.record(seconds, {"kest.engine": engine, "kest.result": result})

    def failed(self, tier: Tier, engine: str, seconds: float) -> None:
        """See `kest.core.metering.Meter`."""
        if decisions.ttl > 0:
            self._lookups.add(1, _MISS)
        self._decisions.add(1, self._attributes(tier, ERROR, None))
        self._engine.record(seconds, {"kest.engine": engine, "kest.result": ERROR})

    def authorised(self, seconds: float) -> None:
        """See `kest.core.metering.Meter`."""
        self._authorisation.record(seconds)

    def _attributes(self, tier: Tier, result: str, policy: str | None) -> dict[str, str]:
        # What an engine names is taken only if it is one of the policies that it was asked about: it could name anything.
        named = policy if result == DENIED and policy in tier.policies else ""
        key = (tier.name, result, named or "", *tier.policies)
        found = self._known.get(key)
        if found is None:
            found = {
                "kest.result": result,
                "kest.policy": named or ",".join(tier.policies),
                "kest.policy.tier": tier.name,
            }
            if len(self._known) < 4096:
                self._known[key] = found
        return found


_HIT, _MISS = {"kest.cache.result": "hit"}, {"kest.cache.result": "miss"}


def _result(decision: Decision) -> str:
    return ALLOWED if decision.allowed is True else DENIED


def _histogram(meter: Any, name: str, description: str) -> Any:
    try:
        return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=DURATIONS)
    except TypeError:  # an API or a provider from before the advice could be given
        return meter.create_histogram(name, "s", description)


def _observation(value: int, attributes: dict[str, str] | None = None) -> Observation:
    from opentelemetry.metrics import Observation

    return Observation(value, attributes)


def _cache_size(_: CallbackOptions) -> Iterable[Observation]:
    return [_observation(len(decisions))]


def _depth(_: CallbackOptions) -> Iterable[Observation]:
    return [_observation(depth, {"kest.queue.name": name}) for name, depth, _ in queues.depths()]


def _capacity(_: CallbackOptions) -> Iterable[Observation]:
    return [
        _observation(capacity, {"kest.queue.name": name})
        for name, _, capacity in queues.depths()
        if capacity is not None
    ]


def _spans(_: CallbackOptions) -> Iterable[Observation]:
    return [_observation(count, attributes) for source in _sources for count, attributes in source()]
