"""Checks of policy texts before they are deployed: what is wrong, with line and column.

Both validators run the parser of an engine that Kest evaluates with, so that a text without problems here loads there.
"""

from __future__ import annotations

from kest.core.policies.cedar_validator import CedarValidator
from kest.core.policies.problem import Problem
from kest.core.policies.rego_validator import RegoValidator

__all__ = ["CedarValidator", "Problem", "RegoValidator"]
