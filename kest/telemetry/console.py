"""Spans on standard output, because the application asked for it. Nothing else of Kest prints there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["ConsoleSink"]


class ConsoleSink:
    """OpenTelemetry's console exporter, on whatever standard output is at the time."""

    local = True

    def check(self) -> None:
        """Always there."""

    def export(self, spans: Sequence[ReadableSpan]) -> None:
        """Print them as JSON."""
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        if sys.stdout is not None:
            ConsoleSpanExporter(out=sys.stdout).export(spans)

    def release(self) -> None:
        """See `Sink.release`."""

    def forget(self) -> None:
        """See `Sink.forget`."""

    def close(self) -> None:
        """See `Sink.close`."""
