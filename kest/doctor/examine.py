"""`kest doctor` without an attack: what is configured and what follows from it. Nothing is connected, nothing is changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest.doctor.checks import check_settings
from kest.doctor.detect import detect
from kest.doctor.environment import check_environment
from kest.doctor.findings import Report

if TYPE_CHECKING:
    from kest.audit import NoteKey

__all__ = ["examine"]


def examine(
    app: Any = None, *, logs: Sequence[Path] = (), log_key: NoteKey | None = None, telemetry: Sequence[Path] = ()
) -> Report:
    """The report on this process, and on files that are named. Logs that it has open are looked at, too.

    Args:
        app: the application whose hooks are looked at. Without one, what applications set in code is not known, and not
            complained of.
        logs: folders of audit logs.
        log_key: the key of those; None: their checkpoints are not verified.
        telemetry: files and databases of telemetry.
    """
    report = Report()
    detect(report)
    check_environment(report)
    check_settings(report, app)
    _audit(report, logs, log_key)
    _telemetry(report, telemetry, app is not None)
    return report


def _audit(report: Report, logs: Sequence[Path], log_key: NoteKey | None) -> None:
    module = sys.modules.get("kest.audit.log")  # a process that never imported it has no log open
    in_use = [] if module is None else module.open_logs()
    if not in_use and not logs:
        return
    from kest.doctor.audit import check_log, check_open_log

    seen = set()
    for sink in sorted(in_use, key=lambda one: str(one.path)):
        check_open_log(report, sink)
        seen.add(sink.path.resolve())
    for path in logs:
        if path.resolve() not in seen:
            seen.add(path.resolve())
            check_log(report, path, log_key)


def _telemetry(report: Report, files: Sequence[Path], known: bool) -> None:
    from kest.doctor.telemetry import check_file, check_telemetry

    seen = check_telemetry(report, known)
    for path in files:
        if path.resolve() not in seen:
            seen.add(path.resolve())
            check_file(report, path)
