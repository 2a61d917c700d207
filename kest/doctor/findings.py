"""The parts of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["SEVERITIES", "Fact", "Finding", "Report"]

SEVERITIES = ("danger", "warning", "note")
"""Unsafe in production; probably not what is wanted there; worth knowing."""


class Fact(NamedTuple):
    """Something that is so: a name and what was found. Never a secret."""

    name: str
    value: str


class Finding(NamedTuple):
    """Something that should perhaps be otherwise: how bad, about what, why, and what to do."""

    severity: str
    subject: str
    reason: str
    fix: str


@dataclass
class Report:
    """Facts in sections, and findings."""

    sections: dict[str, list[Fact]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def fact(self, section: str, name: str, value: object) -> None:
        """Add a fact."""
        self.sections.setdefault(section, []).append(Fact(name, str(value)))

    def find(self, severity: str, subject: str, reason: str, fix: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(severity, subject, reason, fix))

    def worst(self) -> str | None:
        """The worst severity, or None."""
        return next((one for one in SEVERITIES if any(finding.severity == one for finding in self.findings)), None)

    def sorted(self) -> list[Finding]:
        """The worst first."""
        return sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "facts": {name: [fact._asdict() for fact in facts] for name, facts in self.sections.items()},
            "findings": [finding._asdict() for finding in self.sorted()],
        }
