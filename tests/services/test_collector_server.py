"""The OpenTelemetry Collector: what it receives over OTLP is in its file, before and after a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
from kest_services.collector import Collector
from kest_services.processes import Processes
from kest_services.service import wait_until


def span(name: str, trace_id: str) -> dict[str, object]:
    """An OTLP/HTTP request with one span."""
    times = {"startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000"}
    one = {"traceId": trace_id, "spanId": "0123456789abcdef", "name": name, "kind": 1, **times}
    return {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "kest.core"}, "spans": [one]}]}]}


def test_spans_reach_the_file(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> None:
    built("collector")
    with Collector(processes, tmp_path / "collector") as collector:
        address = f"{collector.http_url}/v1/traces"
        assert httpx.post(address, json=span("first", "0" * 31 + "1")).status_code == 200
        wait_until(lambda: len(collector.spans()) == 1, 10)
        collector.restart()
        assert httpx.post(address, json=span("second", "0" * 31 + "2")).status_code == 200
        wait_until(lambda: len(collector.spans()) == 2, 10)
        assert [(item["name"], item["traceId"][-1]) for item in collector.spans()] == [("first", "1"), ("second", "2")]
        assert httpx.post(address, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
