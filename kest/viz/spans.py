"""Telemetry as a source of a picture: the signed entries that spans carry, and the calls that were denied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kest.viz.records import Source, SourceRecord

__all__ = ["is_spans", "telemetry_source"]


def is_spans(path: Path, head: bytes) -> bool:
    """Whether a path is OTLP JSON lines or a database of telemetry."""
    from kest.telemetry.reader import is_telemetry

    return not path.is_dir() and is_telemetry(head)


def telemetry_source(path: Path) -> Source:
    """The entries in a file or database, and denials, which stand there unsigned. Outcomes are not kept in telemetry.

    Raises:
        TelemetryError: it cannot be read.
    """
    return Source(list(_records(path)), outcomes=False)


def _records(path: Path) -> Iterator[SourceRecord]:
    """Entries, parents before children; then what was denied, and what is damaged."""
    from kest.telemetry import TelemetryReader, flows

    with TelemetryReader(path) as reader:
        spans = [span for span in reader if span.is_kest]
        damaged = list(reader.damaged)
    for flow in flows(spans):
        for index, entry in enumerate(flow.entries):
            span = flow.spans.get(index)
            yield SourceRecord(entry, origin="a kest.passport" if span is None else span.where)
    for span in spans:
        if span.allowed is False and not span.signature:
            yield SourceRecord(payload=_denial(span.attributes, span.start_ns, span.operation), origin=span.where)
    for damage in damaged:
        yield SourceRecord(origin=damage.where, broken=damage.reason)


def _denial(attributes: dict[str, Any], start_ns: int, operation: str) -> dict[str, Any]:
    """As a denial in an audit log reads, as far as a span says it."""

    def said(name: str, kind: type) -> Any:
        value = attributes.get(name)
        return value if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else kind()

    denial: dict[str, Any] = {
        "record": "denial",
        "operation": operation,
        "entry_id": said("kest.entry_id", str),
        "parent_ids": (said("kest.parent_hash", str) or "0").split(","),
        "principal": said("kest.workload_id", str),
        "policy": ", ".join(one for one in said("kest.policy_ids", list) if isinstance(one, str)),
        "tier": "",
        "reason": "spans do not say why; these policies were asked",
        "taints": [taint for taint in said("kest.taints", list) if isinstance(taint, str)],
        "timestamp_ms": start_ns // 1_000_000,
    }
    if "kest.trust_score" in attributes:
        denial["trust_score"] = attributes["kest.trust_score"]
    return denial
