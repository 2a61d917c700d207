"""Telemetry: where spans go, whether the way there is safe, what was lost on it, and the files that they are in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from kest.doctor.environment import is_local
from kest.doctor.files import check_ancestors, check_readers, check_room, check_writers, mode_of
from kest.doctor.findings import Report
from kest.errors import TelemetryError

__all__ = ["check_file", "check_telemetry"]

SECTION = "telemetry"
PLAIN = "spans, which say who did what on whose behalf, cross the network unencrypted"
NEARLY_FULL = 0.8


def check_telemetry(report: Report, known: bool) -> set[Path]:
    """Add the exporters that this process has set up; returns the files among them, resolved.

    ``known``: an application was imported, and what it sets in code counts.
    """
    files: set[Path] = set()
    setup = sys.modules.get("kest.telemetry.setup")  # importing it would import OpenTelemetry's SDK
    state = None if setup is None else setup.current_state()
    _provider(report, state)
    routes = () if state is None else state.routes()
    if state is None or not routes:
        report.fact(SECTION, "exporters", "none" if known else "none here (an application sets them in code)")
        return files
    for route in routes:
        files |= _route(report, route)
    metrics = (
        "to Kest's own MeterProvider" if state.meter_provider is not None else "to the application's, if it has one"
    )
    report.fact(SECTION, "metrics", metrics)
    return files


def _provider(report: Report, state: Any) -> None:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return
    provider: Any = trace.get_tracer_provider()
    own = state is not None and state.own_provider and provider is state.provider
    name = type(provider).__name__
    none = name == "ProxyTracerProvider"
    report.fact(SECTION, "TracerProvider", "none" if none else "Kest's" if own else f"the application's ({name})")
    if state is not None and state.routes() and provider is not state.provider:
        report.find(
            "warning",
            SECTION,
            "the TracerProvider is another than KestTelemetry.setup found: spans do not reach its exporters",
            "set the provider first, then KestTelemetry.setup(...)",
        )
    sampler: Any = getattr(provider, "sampler", None)
    said = str(sampler.get_description()) if hasattr(sampler, "get_description") else ""
    if said:
        report.fact(SECTION, "sampler", said)
    root = said.partition("root:")[2] or said  # what a ParentBased one does with traces that begin here
    if root.startswith(("AlwaysOff", "TraceIdRatio")):
        report.find(
            "note",
            SECTION,
            f"the sampler ({said}) drops spans: what telemetry does not show may have happened all the same",
            "an AuditLog, where nothing may be missing; or the sampler always_on",
        )


def _route(report: Report, route: Any) -> set[Path]:
    counts, capacity = route.pipeline.counts(), route.pipeline.capacity
    said = ", ".join(f"{counts[name]} {name}" for name in ("exported", "failed", "dropped"))
    report.fact(SECTION, route.kind, f"{route.endpoint}; {said}, {counts['queued']} of {capacity} queued")
    subject = f"telemetry to {route.endpoint}"
    if lost := counts["failed"] + counts["dropped"]:
        report.find(
            "warning",
            subject,
            f"{lost} spans were lost ({counts['failed']} by the exporter, {counts['dropped']} for want of room)",
            "see the log (kest.telemetry) for why; OTEL_BSP_MAX_QUEUE_SIZE; an AuditLog loses nothing",
        )
    if counts["queued"] > NEARLY_FULL * capacity:
        report.find(
            "warning",
            subject,
            f"{counts['queued']} spans wait, and there is room for {capacity}: the exporter does not keep up",
            "a faster or nearer collector; OTEL_BSP_MAX_QUEUE_SIZE",
        )
    if route.kind == "console":
        report.find(
            "warning",
            subject,
            "spans go to standard output, where whoever collects it reads who did what on whose behalf",
            'exporter_type="otlp", "file" or "sqlite"',
        )
    elif route.kind == "otlp":
        _otlp(report, subject, route.pipeline.sink.target)
    else:
        path = Path(route.pipeline.sink.path)
        check_file(report, path)
        return {path.resolve()}
    return set()


def _otlp(report: Report, subject: str, target: Any) -> None:
    """An address that was given in code; those of the environment are looked at there."""
    if target.endpoint is None:
        variables = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")
        address = os.environ.get(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        )
        name = next((one for one in variables if os.environ.get(one, "").strip().lower() == "true"), None)
        if name is not None and address and "://" not in address and not is_local(f"//{address}"):
            report.find("warning", name, PLAIN, "unset it, or a collector on this machine")
    elif target.endpoint.startswith("http://") and not is_local(target.endpoint):
        report.find("warning", subject, PLAIN, "an https:// endpoint, or a collector on this machine")


def check_file(report: Report, path: Path) -> None:
    """Add what is known of a file or database of telemetry, without reading its spans."""
    section = subject = f"telemetry file {path}"
    try:
        report.fact(section, "file", f"{mode_of(path)}, {path.stat().st_size} bytes")
    except OSError as error:
        report.find("warning", subject, f"it cannot be looked at: {error.strerror or error}", "see that it is there")
        return
    if path.is_symlink():
        report.find("warning", subject, "it is a symbolic link: nothing is written to one", "name the file itself")
    parts = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]
    there = [part for part in parts if part.exists()]
    check_writers(report, subject, there, "whoever can, can change what it says; only entries in it are signed")
    for part in there:
        check_readers(report, subject, part, "danger", "spans say who did what on whose behalf")
    check_ancestors(report, subject, path)
    check_room(report, section, subject, path, "spans are lost")
    _content(report, section, path)


def _content(report: Report, section: str, path: Path) -> None:
    from kest.telemetry import TelemetryReader

    try:
        with TelemetryReader(path) as reader:
            report.fact(section, "kind", "SQLite database" if reader.is_database else "OTLP JSON lines")
            if not reader.is_database and not _ends_well(path):
                report.find(
                    "note",
                    section,
                    "it ends within a line: a machine stopped while it was written",
                    "nothing: the next span begins a line of its own",
                )
    except TelemetryError as error:
        report.find("danger", section, str(error), "name another file, and find out what happened to this one")


def _ends_well(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            return file.read(1) in (b"", b"\n")
    except OSError:
        return True
