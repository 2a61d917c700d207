"""What is configured, what was detected, what would be unsafe in production; and what an attacker would get through.

See ``docs/doctor.md``. `examine` reads and connects to nothing; `attack` sends requests to an application that is yours.
"""

from __future__ import annotations

from kest.doctor.attack import Attack, Result, attack
from kest.doctor.examine import examine
from kest.doctor.findings import Fact, Finding, Report
from kest.doctor.target import TargetError

__all__ = ["Attack", "Fact", "Finding", "Report", "Result", "TargetError", "attack", "examine"]
