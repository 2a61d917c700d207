"""What a policy itself says about a denial, made fit for an error message and a log line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["REASON_RULES", "stated_reasons"]

REASON_RULES = ("reasons", "reason", "deny")
"""The rules beside the one that decides in which a Rego policy may say why it denies, in the order of preference."""

MAX_REASONS = 8
MAX_CHARACTERS = 200
"""Of each reason; what is longer is cut."""


def stated_reasons(value: Any) -> str:
    """The texts of ``value``, joined by '; ', or '' if there are none.

    Args:
        value: a string, or a set or list of strings or of objects with a string member ``msg``; anything else is no
            reason.
    """
    if isinstance(value, Mapping) and value and all(item is True for item in value.values()):
        value = list(value)  # a set, as rego-cpp writes it
    elif isinstance(value, (str, Mapping)):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return ""
    texts: list[str] = []
    for item in value:
        text = item.get("msg") if isinstance(item, Mapping) else item
        if isinstance(text, str) and (text := _one_line(text)):
            texts.append(text)
    shown = texts[:MAX_REASONS]
    if len(texts) > len(shown):
        shown.append(f"and {len(texts) - len(shown)} more")
    return "; ".join(shown)


def _one_line(text: str) -> str:
    """``text`` without line breaks and control characters, which could forge lines of a log."""
    cut = text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())
