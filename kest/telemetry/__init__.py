"""Telemetry: where the spans and metrics of Kest go, and how to read back what it wrote (``docs/telemetry.md``).

Names are loaded on first use: only `KestTelemetry.setup` needs OpenTelemetry's SDK. Reading needs nothing but Kest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kest.lazy import lazy

if TYPE_CHECKING:
    from kest.telemetry.lineage import Flow, flows
    from kest.telemetry.queues import QueueDepth, register_queue
    from kest.telemetry.reader import Damage, TelemetryReader
    from kest.telemetry.records import SpanRecord
    from kest.telemetry.setup import KestTelemetry

__getattr__, __dir__ = lazy(
    globals(),
    {
        "Damage": ".reader",
        "Flow": ".lineage",
        "KestTelemetry": ".setup",
        "QueueDepth": ".queues",
        "SpanRecord": ".records",
        "TelemetryReader": ".reader",
        "flows": ".lineage",
        "register_queue": ".queues",
    },
)

__all__ = [
    "Damage",
    "Flow",
    "KestTelemetry",
    "QueueDepth",
    "SpanRecord",
    "TelemetryReader",
    "flows",
    "register_queue",
]
