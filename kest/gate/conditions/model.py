"""What a condition is: for the parser, for the core that evaluates it, and for whoever asks why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kest._kestcore import ActionContext

__all__ = ["Condition", "Kind", "Node", "Pattern"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a text is matched: ``exact``, ``prefix`` (text and any ending), ``beyond`` (text and at least one character
    more), ``all``."""

    mode: str
    text: str

    @property
    def source(self) -> str:
        """The pattern as it is written in a policy."""
        return {"exact": self.text, "all": "*"}.get(self.mode, self.text + "*")


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition. ``arguments`` hold durations in seconds, times in seconds of the day, numbers as float."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Condition, ...] = ()

    @property
    def has_limit(self) -> bool:
        """Whether a rate limit is among it."""
        return self.name == "rate_limit" or any(part.has_limit for part in self.parts)


class Node(NamedTuple):
    """What the core compares (csrc/core/gate_set.h, kest_gate_node); which members count depends on the kind's ``op``."""

    mode: int = 0
    ref: int = 0
    text: str = ""
    field: str = ""
    number: float = 0.0
    integer: int = 0
    until: int = 0
    texts: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    zone: str | None = None  # a time zone, whose number becomes `ref`


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of condition.

    Args:
        op: the test of the core that evaluates it, one of `kest.gate.compile.OPS`.
        parse: checks the value in a policy, given its path for messages, and returns the condition's arguments. Raises
            GatePolicyError.
        node: what the core is given of the arguments.
        why: what was compared with what, in words: from the arguments, the context and Unix time in nanoseconds.
    """

    op: str
    parse: Callable[[object, str], dict[str, Any]]
    node: Callable[[Mapping[str, Any]], Node]
    why: Callable[[Mapping[str, Any], ActionContext, int], str]
