"""`kest doctor` without an attack: what is configured and what follows from it. Nothing is connected, nothing is changed."""

from __future__ import annotations

from typing import Any

from kest.doctor.checks import check_settings
from kest.doctor.detect import detect
from kest.doctor.environment import check_environment
from kest.doctor.findings import Report

__all__ = ["examine"]


def examine(app: Any = None) -> Report:
    """The report on this process.

    Args:
        app: the application whose hooks are looked at. Without one, what applications set in code is not known, and not
            complained of.
    """
    report = Report()
    detect(report)
    check_environment(report)
    check_settings(report, app)
    return report
