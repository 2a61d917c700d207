"""What is refused of OTLP documents and settings, and the parts of the exporters that need no collector."""

from __future__ import annotations

import copy
import http.server
import json
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kest.errors import ConfigurationError, MissingExtraError, TelemetryError
from kest.telemetry import KestTelemetry, TelemetryReader
from kest.telemetry.lineage import contradiction
from kest.telemetry.metric_export import MetricRouter
from kest.telemetry.otlp import GRPC, HTTP, OtlpSink, Target, target_of
from kest.telemetry.pipeline import LostError
from kest.telemetry.records import SpanRecord, otlp_line, record_of, records_of_otlp
from kest.telemetry.sqlite_sink import SqliteSink

SPAN = {
    "traceId": "0" * 31 + "1", "spanId": "0" * 15 + "2", "name": "n", "kind": 1, "startTimeUnixNano": "5",
    "endTimeUnixNano": 6, "status": {"code": 2, "message": "why"}, "attributes": [],
}  # fmt: skip


def document(**changes: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": [{**copy.deepcopy(SPAN), **changes}]}]}]}


def attribute(value: Any) -> dict[str, Any]:
    return document(attributes=[{"key": "a", "value": value}])


def test_a_span_as_otlp_has_it() -> None:
    (span,) = records_of_otlp(document(), "line 1")
    assert (span.kind, span.start_ns, span.end_ns, span.status, span.status_description) == (
        "INTERNAL", 5, 6, "ERROR", "why",
    )  # fmt: skip
    assert (span.service, span.entry_id, span.allowed, span.passport) == ("", "", None, None)
    assert list(records_of_otlp({"resourceMetrics": [1]}, "")) == []
    assert list(records_of_otlp({"resourceSpans": [{"scopeSpans": [{}]}, {}]}, "")) == []


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({}, None),
        ({"boolValue": False}, False),
        ({"intValue": "-7"}, -7),
        ({"doubleValue": 1}, 1.0),
        ({"arrayValue": {}}, []),
        ({"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": 1}]}}, ["x", 1]),
        ({"bytesValue": "AAE="}, "AAE="),
        ({"kvlistValue": {"values": []}}, "{'values': []}"),
    ],
)
def test_attributes_of_every_kind(value: Any, read: Any) -> None:
    (span,) = records_of_otlp(attribute(value), "")
    assert span.attributes == {"a": read}


NESTED: Any = {"stringValue": "x"}
for _ in range(9):
    NESTED = {"arrayValue": {"values": [NESTED]}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (document(name=7), "TypeError"),
        (document(traceId="1" * 31), "ValueError"),
        (document(spanId="g" * 16), "ValueError"),
        (document(startTimeUnixNano=True), "TypeError"),
        (document(startTimeUnixNano=1.5), "TypeError"),
        (document(startTimeUnixNano="1e3"), "ValueError"),
        (document(startTimeUnixNano="9" * 21), "ValueError"),
        (document(endTimeUnixNano=1 << 64), "ValueError"),
        (document(kind=6), "IndexError"),
        (document(status=[]), "AttributeError"),
        (document(attributes=[{"key": "a"}, {"key": "a"}]), "ValueError"),
        (document(attributes=[{"value": {}}]), "KeyError"),
        (attribute({"stringValue": "x", "intValue": 1}), "ValueError"),
        (attribute({"boolValue": 1}), "ValueError"),
        (attribute({"dateValue": "x"}), "ValueError"),
        (attribute(NESTED), "ValueError"),
    ],
)
def test_what_is_no_span(change: dict[str, Any], why: str) -> None:
    with pytest.raises(TelemetryError, match=rf"not a span as OTLP has it \({why}\)"):
        list(records_of_otlp(change, ""))


@pytest.mark.parametrize("other", [[], None, {}, {"spans": []}])
def test_what_is_no_otlp(other: Any) -> None:
    with pytest.raises(TelemetryError, match="not an OTLP JSON object"):
        list(records_of_otlp(other, ""))


def test_values_come_back_from_their_line(make_span: Callable[..., Any]) -> None:
    span = record_of(make_span(a=[1, 2], b=float("inf"), c=1.5, d="\ud800"), service_name="s")
    assert span.service == "s"
    assert span.attributes == {"a": [1, 2], "b": "inf", "c": 1.5, "d": "?"}
    (again,) = records_of_otlp(json.loads(otlp_line(span)), "line 2")
    assert (again.attributes, again.service, again.where) == (span.attributes, "s", "line 2")


# --- OTLP exporters ---


def test_targets() -> None:
    assert str(target_of(None, "http")) == "otlp (http/protobuf)"
    assert str(Target(GRPC, "https://u:secret@c.example:4317/x")) == "otlp (grpc) at https://c.example:4317/x"
    with pytest.raises(ConfigurationError, match="use OTEL_EXPORTER_OTLP_HEADERS for credentials"):
        target_of("https://u:secret@c.example:4317", "grpc")
    assert target_of("localhost:4317", None).endpoint == "http://localhost:4317"
    assert target_of("c.example:4317", "grpc").endpoint == "https://c.example:4317"
    assert target_of("c.example:4318", "http").endpoint == "http://c.example:4318"
    with pytest.raises(ConfigurationError, match="not 'thrift'"):
        target_of(None, "thrift")


@pytest.mark.parametrize(
    ("endpoint", "signal", "url"),
    [
        ("http://localhost:4318", "traces", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/otel/", "metrics", "http://localhost:4318/otel/v1/metrics"),
        ("http://localhost:4318/v1/traces", "metrics", "http://localhost:4318/v1/metrics"),
        (None, "traces", "http://localhost:4318/v1/traces"),
    ],
)
def test_exporters_over_http(endpoint: str | None, signal: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    exporter = Target(HTTP, endpoint).exporter(signal)
    try:
        assert exporter._endpoint == url
    finally:
        exporter.shutdown()


def test_an_exporter_over_grpc_gets_the_address_as_it_is() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    exporter = Target(GRPC, "http://localhost:1").exporter("traces")
    try:
        assert exporter._endpoint == "localhost:1"
    finally:
        exporter.shutdown()


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_exporters_that_are_not_installed(signal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("trace", "metric"):
        monkeypatch.setitem(sys.modules, f"opentelemetry.exporter.otlp.proto.http.{kind}_exporter", None)
    with pytest.raises(MissingExtraError, match="needs opentelemetry-exporter-otlp"):
        Target(HTTP, None).exporter(signal)


class Collector:
    """Takes OTLP over HTTP, and answers with a status."""

    def __init__(self, status: int) -> None:
        self.paths: list[str] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.mark.parametrize("status", [200, 400])
def test_spans_to_an_endpoint(status: int, make_span: Callable[..., Any]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    collector = Collector(status)
    sink = OtlpSink(target_of(collector.url, "http"))
    try:
        sink.check()
        if status == 200:
            sink.export([make_span()])
            sink.export([make_span()])
        else:
            with pytest.raises(LostError, match="the endpoint took nothing"):
                sink.export([make_span()])
    finally:
        sink.release()
        sink.close()
        sink.close()
        collector.close()
    assert collector.paths == ["/v1/traces"] * (2 if status == 200 else 1)


def test_a_child_makes_an_exporter_of_its_own(make_span: Callable[..., Any]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    collector = Collector(200)
    sink = OtlpSink(target_of(collector.url, "http"))
    try:
        sink.export([make_span()])
        parents = sink._exporter
        sink.forget()
        sink.export([make_span()])
        assert sink._exporter is not parents
        parents.shutdown()
    finally:
        sink.close()
        collector.close()


# --- metrics ---


@pytest.mark.parametrize(("preference", "delta"), [("delta", 3), (" LowMemory ", 2), ("cumulative", 0), ("", 0)])
def test_temporality(preference: str, delta: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.metrics.export import AggregationTemporality

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    preferred = MetricRouter()._preferred_temporality or {}
    assert sum(one is AggregationTemporality.DELTA for one in preferred.values()) == delta


def test_targets_of_metrics_are_each_others_business_only() -> None:
    from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

    said: list[str] = []

    def exporter(name: str, result: Any) -> Any:
        said.append(f"made {name}")
        return SimpleNamespace(
            export=lambda data, timeout_millis: result, shutdown=lambda: said.append(f"shutdown {name}")
        )

    router = MetricRouter()
    assert not router.used
    router.add("bad", lambda: exporter("bad", MetricExportResult.FAILURE))
    router.add("good", lambda: exporter("good", MetricExportResult.SUCCESS))
    data = MetricsData([])
    assert router.export(data) is MetricExportResult.FAILURE
    assert router.export(data) is MetricExportResult.FAILURE
    assert said == ["made bad", "made good"]
    router.after_fork_in_child()  # what the parent made is not shut down
    assert router.export(data) is MetricExportResult.FAILURE
    assert said == ["made bad", "made good"] * 2
    assert router.force_flush()
    router.shutdown()
    assert said[4:] == ["shutdown bad", "shutdown good"]
    assert not router.used
    assert router.export(data) is MetricExportResult.SUCCESS


# --- settings ---


def test_an_address_is_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the endpoint of an otlp exporter is an address"):
        KestTelemetry.setup(exporter_type="otlp", endpoint=tmp_path)  # type: ignore[arg-type,unused-ignore]


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "9999999999"])
def test_limits_are_positive(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", value)
    with pytest.raises(ConfigurationError, match="OTEL_BSP_MAX_QUEUE_SIZE is a positive whole number"):
        KestTelemetry.setup(exporter_type="file", endpoint=tmp_path / "t.jsonl")
    assert not (tmp_path / "t.jsonl").exists()


def test_limits_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from kest.telemetry.setup import _limits

    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", " 10 ")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "250")
    limits = _limits("otlp")
    assert (limits.queue, limits.batch, limits.delay) == (10, 10, 0.25)


# --- SQLite ---


def test_a_database_that_was_deleted_is_made_again(tmp_path: Path, make_span: Callable[..., Any], read: Any) -> None:
    path = tmp_path / "t.db"
    sink = SqliteSink(str(path))
    sink.export([make_span()])
    path.unlink()
    sink.export([make_span("second")])
    sink.close()
    sink.close()
    assert [span.name for span in read(path)] == ["second"]


def test_a_batch_is_all_or_none(tmp_path: Path, make_span: Callable[..., Any], read: Any) -> None:
    from kest.telemetry.pipeline import UnavailableError

    path = tmp_path / "t.db"
    sink = SqliteSink(str(path))
    sink.export([make_span("first")])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("create trigger no before insert on spans when new.name = 'bad' begin select raise(abort, 'no'); end")
    other.close()
    with pytest.raises(UnavailableError, match=r"t\.db: no"):
        sink.export([make_span("good"), make_span("bad")])
    sink.close()
    found = sqlite3.connect(path)
    assert found.execute("select name from spans").fetchall() == [("first",)]
    found.close()


def test_an_error_that_is_ours_is_not_the_disks(
    tmp_path: Path, make_span: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SqliteSink(str(tmp_path / "t.db"))
    monkeypatch.setattr("kest.telemetry.sqlite_sink.row_of", lambda record: (record.name,))
    with pytest.raises(sqlite3.ProgrammingError):
        sink.export([make_span()])
    assert sink._connection is None


# --- reading ---


def test_a_span_without_an_entry_contradicts_nothing() -> None:
    assert contradiction(SpanRecord("n", "0" * 32, "0" * 16)) is None
    assert contradiction(SpanRecord("n", "0" * 32, "0" * 16, attributes={"kest.signature": "a.b.c"})) is None


def test_a_device_that_fails_while_it_is_read() -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("no file that can be opened and not read")
    with pytest.raises(TelemetryError, match="cannot read"), TelemetryReader("/proc/self/mem") as reader:
        list(reader)


def test_spans_that_are_not_sampled_go_nowhere() -> None:
    from kest.telemetry.processor import Router

    taken: list[Any] = []
    router = Router()
    router.routes = (SimpleNamespace(take=taken.append),)  # type: ignore[assignment]
    spans = [SimpleNamespace(context=context) for context in (
        None, SimpleNamespace(trace_flags=SimpleNamespace(sampled=False)),
        SimpleNamespace(trace_flags=SimpleNamespace(sampled=True)),
    )]  # fmt: skip
    for span in spans:
        router.on_end(span)  # type: ignore[arg-type]
    assert taken == spans[2:]
