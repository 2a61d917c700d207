"""Telemetry: where the spans and metrics of Kest go, and how to read back what it wrote (``docs/telemetry.md``).

Names are loaded on first use: only `KestTelemetry.setup` needs OpenTelemetry's SDK. Reading needs nothing but Kest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kest.telemetry.lineage import Flow, flows
    from kest.telemetry.queues import QueueDepth, register_queue
    from kest.telemetry.reader import Damage, TelemetryReader
    from kest.telemetry.records import SpanRecord
    from kest.telemetry.setup import KestTelemetry

_HOME = {
    "Damage": "kest.telemetry.reader",
    "Flow": "kest.telemetry.lineage",
    "KestTelemetry": "kest.telemetry.setup",
    "QueueDepth": "kest.telemetry.queues",
    "SpanRecord": "kest.telemetry.records",
    "TelemetryReader": "kest.telemetry.reader",
    "flows": "kest.telemetry.lineage",
    "register_queue": "kest.telemetry.queues",
}

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


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
