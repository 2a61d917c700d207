"""What a validator reports: a place in a text and what is wrong there."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from kest.errors import ConfigurationError

__all__ = ["Problem", "located", "optional", "refuse", "too_deep"]


class Problem(NamedTuple):
    """One thing that is wrong with a policy text; line and column count from 1, columns in characters."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


def located(text: str, offset: int, message: str) -> Problem:
    """The problem at ``offset``, in characters from the start of ``text``."""
    offset = max(0, min(offset, len(text)))
    return Problem(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset), message)


def too_deep(code: str, limit: int) -> int | None:
    """Where brackets nest deeper than ``limit`` in ``code`` (comments and strings blanked out), or None."""
    depth = 0
    for offset, character in enumerate(code):
        if character in "([{":
            depth += 1
            if depth > limit:
                return offset
        elif character in ")]}":
            depth -= 1
    return None


def optional(module: str) -> Any:
    """The module of an extra, or None. The bindings ship no types."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def refuse(language: str, problems: list[Problem]) -> None:
    """Raise ConfigurationError with every problem, if there is one."""
    if problems:
        listed = "; ".join(str(problem) for problem in problems)
        raise ConfigurationError(f"the {language} policy does not load (line:column): {listed}")
