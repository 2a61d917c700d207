"""The conditions of policies: each is an entry of a ``CONDITIONS`` table, in the module named after what it asks about.

``values`` checks what is written in a policy, ``model`` says what an entry consists of, ``parse`` gathers them. Which tests
the core knows is in csrc/core/gate_conditions.c. docs/extending.md adds one.
"""

from __future__ import annotations

from kest.gate.conditions.model import Condition, Kind, Node, Pattern
from kest.gate.conditions.parse import CONDITIONS, GROUPS, MAX_NESTING, parse_condition, parse_conditions
from kest.gate.conditions.principal import PRINCIPALS
from kest.gate.conditions.values import integer, items, parse_pattern, table, text

__all__ = [
    "CONDITIONS",
    "GROUPS",
    "MAX_NESTING",
    "PRINCIPALS",
    "Condition",
    "Kind",
    "Node",
    "Pattern",
    "integer",
    "items",
    "parse_condition",
    "parse_conditions",
    "parse_pattern",
    "table",
    "text",
]
