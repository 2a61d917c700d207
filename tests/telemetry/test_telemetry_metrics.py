"""Metrics through OpenTelemetry's API: their names, units and attributes, and that nothing of them is there without it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from kest.core import MockPolicyEngine, PolicyDeniedError, configure, kest_verified, metering
from kest.core.engine.base import DecidingEngine, Decision
from kest.errors import PolicyEngineError
from kest.telemetry import register_queue

pytest.importorskip("opentelemetry.sdk.metrics")

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


class Metered:
    """Kest's instruments on a provider of this test's."""

    def __init__(self) -> None:
        from kest.telemetry.metrics import Instruments

        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.meter = metering._Careful(Instruments(self.provider))

    def metrics(self) -> dict[str, Any]:
        data: Any = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == "kest.core"
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[tuple[Any, ...], Any]:
        """Values (or counts) by the values of the attributes, in the order of their names."""
        metric = self.metrics().get(name)
        found: dict[tuple[Any, ...], Any] = {}
        for point in () if metric is None else metric.data.data_points:
            key = tuple(value for _, value in sorted(point.attributes.items()))
            found[key] = point.value if hasattr(point, "value") else point.count
        return found


@pytest.fixture
def metered(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Metered()
    monkeypatch.setattr(metering, "active", made.meter)
    yield made
    made.provider.shutdown()


def test_decisions_by_result_policy_and_tier(metered: Any, configured: Any) -> None:
    configure(enterprise_policies=["e"])
    f = kest_verified(["p", "q"])(lambda: 1)
    f()
    configured.engine.answer = lambda names, context: "q" not in names
    from kest.core import invalidate_policy_cache

    invalidate_policy_cache()
    with pytest.raises(PolicyDeniedError):
        f()
    assert metered.points("kest.decisions") == {
        ("e", "enterprise", "allowed"): 2, ("p,q", "function", "allowed"): 1, ("p,q", "function", "denied"): 1,
    }  # fmt: skip


def test_a_denying_policy_is_named_only_if_it_was_asked_about(metered: Any, configured: Any) -> None:
    class Names(DecidingEngine):
        def __init__(self, name: str) -> None:
            self.name = name

        def decide(self, entry_id: str, policy_names: Any, context: Any) -> Decision:
            return Decision(False, "no", self.name)

    for name in ("q", "made up"):
        with pytest.raises(PolicyDeniedError):
            kest_verified(["p", "q"], engine=Names(name))(lambda: 1)()
    assert metered.points("kest.decisions") == {("q", "function", "denied"): 1, ("p,q", "function", "denied"): 1}


def test_an_engine_that_fails_is_an_error_and_no_denial(metered: Any, configured: Any) -> None:
    def fails(names: Any, context: Any) -> bool:
        raise PolicyEngineError("down")

    configured.engine.answer = fails
    with pytest.raises(PolicyDeniedError):
        kest_verified("p")(lambda: 1)()
    assert metered.points("kest.decisions") == {("p", "function", "error"): 1}
    assert metered.points("kest.decision.duration") == {("RecordingEngine", "error"): 1}
    assert metered.points("kest.authorization.duration") == {}


def test_cache_hits_and_misses(metered: Any, configured: Any) -> None:
    f = kest_verified("p", source_type="user_input")(lambda: 1)
    from kest.core.context import lineage

    for _ in range(3):
        with lineage():
            f()
    assert metered.points("kest.decision_cache.lookups") == {("hit",): 2, ("miss",): 1}
    assert metered.points("kest.decision.duration") == {("RecordingEngine", "allowed"): 1}
    assert metered.points("kest.authorization.duration") == {(): 3}
    assert metered.points("kest.decision_cache.size") == {(): 1}


def test_durations_are_seconds_with_buckets_for_microseconds(metered: Any, configured: Any) -> None:
    kest_verified("p")(lambda: 1)()
    metrics = metered.metrics()
    for name in ("kest.decision.duration", "kest.authorization.duration"):
        assert metrics[name].unit == "s"
        (point,) = metrics[name].data.data_points
        assert 0 < point.sum < 60
        if "explicit_bucket_boundaries_advisory" in inspect.signature(Meter.create_histogram).parameters:  # since 1.30
            assert point.explicit_bounds[0] == 5e-6
    units = {name: metric.unit for name, metric in metrics.items()}
    assert units["kest.decisions"] == "{decision}"
    assert units["kest.decision_cache.lookups"] == "{lookup}"


def test_queues_are_measured_while_they_are_registered(metered: Any, caplog: Any) -> None:
    def broken() -> int:
        raise OSError("a secret")

    with (
        register_queue("audit", lambda: 3, 10),
        register_queue("audit", lambda: 4, 10),
        register_queue("other", lambda: 1),
        register_queue("broken", broken),
    ):
        for _ in range(2):
            depths = metered.points("kest.queue.depth")
            assert depths["audit",] == 7
            assert depths["other",] == 1
            assert ("broken",) not in depths
        capacities = metered.points("kest.queue.capacity")
        assert capacities["audit",] == 20
        assert ("other",) not in capacities
    assert ("audit",) not in metered.points("kest.queue.depth")
    assert caplog.text.count("the depth of queue broken is unknown") == 1
    assert "secret" not in caplog.text


def test_a_meter_that_raises_costs_no_call(monkeypatch: pytest.MonkeyPatch, configured: Any, caplog: Any) -> None:
    class Raises:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("a secret")

    monkeypatch.setattr(metering, "active", metering._Careful(Raises()))  # type: ignore[arg-type]
    f = kest_verified("p")(lambda: 1)
    assert (f(), f()) == (1, 1)
    assert caplog.text.count("a metric was not recorded") == 1
    assert "secret" not in caplog.text


def test_nothing_is_measured_or_imported_without_a_provider(script: Any) -> None:
    script(
        "f()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "import opentelemetry.metrics\n"
        "invalidate_policy_cache(); f()\n"
        "from kest.core import metering\n"
        "assert metering.active is None and 'kest.telemetry.metrics' not in sys.modules\n"
    )


def test_a_provider_that_comes_later_is_found_with_the_next_question(script: Any) -> None:
    script(
        "f()\n"
        "from opentelemetry import metrics\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "reader = InMemoryMetricReader()\n"
        "metrics.set_meter_provider(MeterProvider([reader]))\n"
        "invalidate_policy_cache(); f()\n"
        "(scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics\n"
        "assert scope.scope.name == 'kest.core' and scope.scope.version == '0.3.0'\n"
        "assert 'kest.decisions' in {metric.name for metric in scope.metrics}\n"
    )


def test_a_console_prints_metrics_if_it_is_asked_to(script: Any) -> None:
    done = script("KestTelemetry.setup('shop', 'console', metrics=True)\nf()\nKestTelemetry.shutdown()\n")
    for name in ("kest.decisions", "kest.telemetry.spans", '"kest.queue.name": "telemetry"', "shop"):
        assert name in done.stdout


def test_an_applications_meter_provider_is_used(script: Any) -> None:
    script(
        "from opentelemetry import metrics\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "reader = InMemoryMetricReader()\n"
        "own = MeterProvider([reader])\n"
        "metrics.set_meter_provider(own)\n"
        "KestTelemetry.setup('shop', 'file', PATH + '/t')\n"
        "f(); KestTelemetry.flush()\n"
        "assert metrics.get_meter_provider() is own\n"
        "scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics\n"
        "points = {metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}\n"
        "exported = {point.attributes['kest.result']: point.value for point in points['kest.telemetry.spans']}\n"
        "assert exported == {'exported': 1, 'failed': 0, 'dropped': 0}, exported\n"
    )


def test_mock_engines_are_named_by_their_class(metered: Any, configured: Any) -> None:
    kest_verified("p", engine=MockPolicyEngine())(lambda: 1)()
    assert metered.points("kest.decision.duration") == {("MockPolicyEngine", "allowed"): 1}
