"""Spans and metrics of decorated calls, sent over OTLP to a real collector and read back from the file that it writes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kest_services.collector import Collector
from kest_services.processes import Processes
from kest_services.service import wait_until

from kest.cli.main import main
from kest.core import LocalEd25519Provider, PassportVerifier
from kest.telemetry import TelemetryReader, flows

PROTOCOLS = ("grpc", "http")
PRINCIPAL = "spiffe://kest.test/unit"
CALLS = (
    "import os, sys\n"
    "from kest.core import *\n"
    f"configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider({PRINCIPAL!r}, seed=bytes(32)))\n"
    "f = kest_verified('p', operation_name='op', added_taints=['a', 'b'])(lambda: 1)\n"
)


@pytest.fixture
def collector(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    built("collector")
    with Collector(processes, tmp_path / "collector") as started:
        yield started


def address(collector: Collector, protocol: str) -> str:
    return collector.grpc_url if protocol == "grpc" else collector.http_url


def metrics(collector: Collector) -> dict[str, Any]:
    """What the collector received last of each metric of Kest's, by name."""
    return {
        metric["name"]: metric
        for item in collector.received()
        for resource in item.get("resourceMetrics", ())
        for scope in resource["scopeMetrics"]
        if scope["scope"]["name"] == "kest.core"
        for metric in scope["metrics"]
    }


def attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in of.get("attributes", ())}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_and_metrics_are_read_back(protocol: str, collector: Collector, run_python: Any) -> None:
    run_python(
        CALLS + f"KestTelemetry.setup('shop', 'otlp', {address(collector, protocol)!r}, protocol={protocol!r})\n"
        "for _ in range(20): f()\n"
        "try: kest_verified('q', operation_name='no', engine=MockPolicyEngine(allow=False))(f)()\n"
        "except PolicyDeniedError: pass\n"
    )
    wait_until(lambda: len(collector.spans()) == 21 and "kest.telemetry.spans" in metrics(collector), 30)
    with TelemetryReader(collector.file) as reader:
        spans = [span for span in reader if span.is_kest]
        assert reader.damaged == []
    assert {span.service for span in spans} == {"shop"}
    assert [span.status for span in spans] == ["UNSET"] * 20 + ["ERROR"]
    assert spans[0].attributes["kest.taints"] == ["a", "b"]
    assert spans[0].attributes["kest.trust_score"] == 100
    assert [span.allowed for span in spans] == [True] * 20 + [False]
    (flow,) = flows(spans)
    identity = LocalEd25519Provider(PRINCIPAL, seed=bytes(32))
    assert len(PassportVerifier.verify(flow.entries, {PRINCIPAL: identity})) == 20

    found = metrics(collector)
    decisions = found["kest.decisions"]
    assert decisions["unit"] == "{decision}"
    counts = {(p["kest.policy"], p["kest.result"]): 0 for p in map(attributes, decisions["sum"]["dataPoints"])}
    for point in decisions["sum"]["dataPoints"]:
        counts[attributes(point)["kest.policy"], attributes(point)["kest.result"]] += int(point["asInt"])
    assert counts == {("p", "allowed"): 20, ("q", "denied"): 1}
    lookups = {
        attributes(p)["kest.cache.result"]: int(p["asInt"])
        for p in found["kest.decision_cache.lookups"]["sum"]["dataPoints"]
    }
    assert sum(lookups.values()) == 21
    assert lookups["hit"] > 0
    assert found["kest.authorization.duration"]["unit"] == "s"
    (duration,) = found["kest.authorization.duration"]["histogram"]["dataPoints"]
    assert int(duration["count"]) == 20
    (depth,) = found["kest.queue.depth"]["gauge"]["dataPoints"]
    assert attributes(depth) == {"kest.queue.name": "telemetry"}


def test_the_environment_says_where_it_goes(collector: Collector, run_python: Any) -> None:
    run_python(
        CALLS + "KestTelemetry.setup(exporter_type='otlp', metrics=False)\nf()\n",
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.http_url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
             "OTEL_SERVICE_NAME": "env-shop"},
    )  # fmt: skip
    wait_until(lambda: len(collector.spans()) == 1, 30)
    with TelemetryReader(collector.file) as reader:
        assert [span.service for span in reader] == ["env-shop"]
    assert metrics(collector) == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_workers_that_were_forked_after_setup_export(protocol: str, collector: Collector, run_python: Any) -> None:
    run_python(
        CALLS + f"KestTelemetry.setup('shop', 'otlp', {address(collector, protocol)!r}, protocol={protocol!r})\n"
        "workers = []\n"
        "for number in range(3):\n"
        "    if (pid := os.fork()) == 0:\n"
        "        for _ in range(10): f()\n"
        "        sys.exit(0)\n"
        "    workers.append(pid)\n"
        "for pid in workers: assert os.waitpid(pid, 0)[1] == 0\n"
        "f()\n"
    )
    wait_until(lambda: len(collector.spans()) == 31, 30)
    assert len({span["spanId"] for span in collector.spans()}) == 31


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_application_span_goes_along_and_its_trace_is_one(
    protocol: str, collector: Collector, run_python: Any
) -> None:
    run_python(
        CALLS + f"KestTelemetry.setup('shop', 'otlp', {address(collector, protocol)!r}, protocol={protocol!r})\n"
        "from opentelemetry import trace\n"
        "with trace.get_tracer('app').start_as_current_span('request'): f()\n"
    )
    wait_until(lambda: len(collector.spans()) == 2, 30)
    inner, outer = collector.spans()
    assert (inner["name"], outer["name"]) == ("kest.verified.op", "request")
    assert inner["traceId"] == outer["traceId"]
    assert inner["parentSpanId"] == outer["spanId"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_a_collector_calls_go_on_and_losses_are_said(protocol: str, run_python: Any) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with socket.socket() as free:  # bound and not listening: nobody else gets the port
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        done = run_python(
            CALLS
            + f"KestTelemetry.setup('shop', 'otlp', 'http://127.0.0.1:{port}', protocol={protocol!r}, metrics=False)\n"
            "for _ in range(5): assert f() == 1\n"
            "KestTelemetry.shutdown(2)\n"  # older exporters try for a minute, whatever they are told
            "assert f() == 1\n",
            env={"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_METRIC_EXPORT_INTERVAL": "3600000"},
        )
    assert "Lost so far: 5 spans" in done.stderr or "ended with 5 spans lost" in done.stderr


def test_what_a_collector_wrote_can_be_verified(
    collector: Collector, run_python: Any, tmp_path: Path, capsys: Any
) -> None:
    run_python(
        CALLS
        + f"KestTelemetry.setup('shop', 'otlp', {collector.http_url!r}, protocol='http')\nfor _ in range(9): f()\n"
    )
    wait_until(lambda: len(collector.spans()) == 9, 30)
    identity = LocalEd25519Provider(PRINCIPAL, seed=bytes(32))
    (tmp_path / "k").write_text(json.dumps({**identity.public_jwk(), "kid": PRINCIPAL}))
    assert main(["verify", str(collector.file), "--trust", str(tmp_path / "k"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 9
