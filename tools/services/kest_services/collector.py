"""The OpenTelemetry Collector: takes OTLP over gRPC and HTTP, and writes it to a file as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kest_services import components
from kest_services.processes import Processes
from kest_services.service import Service, http

__all__ = ["Collector"]


class Collector(Service):
    """The collector of tools/services/collector."""

    name = "collector"
    ports = 2

    def __init__(self, processes: Processes, folder: Path) -> None:
        super().__init__(processes, folder)
        self._binary = components.folder("collector") / "collector"
        self.file = folder / "received.jsonl"
        """What it received: one ``resourceSpans`` (``resourceLogs``, ``resourceMetrics``) object a line."""

    @property
    def grpc_url(self) -> str:
        """For OTLP over gRPC."""
        return f"http://127.0.0.1:{self.port_numbers[0]}"

    @property
    def http_url(self) -> str:
        """For OTLP over HTTP, without the ``/v1/traces``."""
        return f"http://127.0.0.1:{self.port_numbers[1]}"

    def command(self) -> Sequence[str]:
        grpc, web = (f"127.0.0.1:{port}" for port in self.port_numbers)
        pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": web}}}},
            "exporters": {"file": {"path": str(self.file), "append": True, "flush_interval": "50ms"}},
            "service": {
                "pipelines": {kind: pipeline for kind in ("traces", "logs", "metrics")},
                # Its own metrics would be served on a fixed port.
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
            },
        }
        path = self.folder / "config.json"  # JSON is YAML
        path.write_text(json.dumps(config), "utf-8")
        return [str(self._binary), f"--config=file:{path}"]

    def ready(self) -> bool:
        return http("POST", f"{self.http_url}/v1/traces", {"resourceSpans": []})[0] == 200

    def received(self) -> list[dict[str, Any]]:
        """What has reached the file so far."""
        if not self.file.exists():
            return []
        whole, _, _ = self.file.read_text("utf-8").rpartition("\n")  # it may be in the middle of a line
        return [json.loads(line) for line in whole.splitlines()]

    def spans(self) -> list[dict[str, Any]]:
        """The spans of all that `received` returns."""
        return [
            span
            for item in self.received()
            for resource in item.get("resourceSpans", ())
            for scope in resource.get("scopeSpans", ())
            for span in scope.get("spans", ())
        ]
