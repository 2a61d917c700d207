"""What the three forms of a picture have in common: colours by trust, short texts, and marks."""

from __future__ import annotations

from typing import NamedTuple

from kest.visible import visible
from kest.viz.model import Node

__all__ = ["COLOURS", "clipped", "colour_of", "label_of", "marks_of", "told"]


class Colours(NamedTuple):
    """Fill, border and text of a node."""

    fill: str
    line: str
    text: str


COLOURS = {
    "high": Colours("#dcf2e3", "#1f7a43", "#0d3b20"),
    "middle": Colours("#fdf0cd", "#96690a", "#4a3403"),
    "low": Colours("#fbdcd6", "#b3341f", "#571308"),
    "absent": Colours("#f1f2f4", "#8a919c", "#3d434c"),
}
"""Trust from 80, from 40, below; and nodes of which nothing is known. The texts have a contrast of 7:1 and more."""

MAX_LOOK = 400  # characters of a text that are looked at, where only a line of it is shown


def colour_of(node: Node) -> str:
    """The name of its colours: by trust, if it may be believed. What was denied, is broken or not valid is always low."""
    if node.kind == "absent":
        return "absent"
    if node.kind != "entry" or node.verdict.state == "invalid":
        return "low"
    if node.verdict.state in ("unknown_key", "unsigned"):
        return "absent"  # a trust that nobody vouches for is none, high or low
    trust = node.trust
    if trust is None:
        return "absent"
    return "high" if trust >= 80 else "middle" if trust >= 40 else "low"


def clipped(text: str, limit: int) -> str:
    """The first characters of ``text``, harmless, with … where something is missing."""
    shown = visible(text[:MAX_LOOK])
    return shown if len(shown) <= limit and len(text) <= MAX_LOOK else shown[: limit - 1] + "…"


def told(text: str, limit: int) -> str:
    """`clipped`, and how long it is where something is missing."""
    shown = clipped(text, limit)
    return shown if not shown.endswith("…") or text.endswith("…") else f"{shown} ({len(text):,} characters)"


def label_of(node: Node, limit: int = 26) -> str:
    """The name on a node."""
    if node.kind == "absent":
        return "not in this file"
    if node.kind == "broken":
        return "unreadable record"
    return clipped(node.operation, limit)


def marks_of(node: Node) -> list[str]:
    """What must not be overlooked, in words, the most important first."""
    marks = []
    if node.kind == "broken":
        marks.append("unreadable")
    elif node.verdict.state == "invalid":
        marks.append("not valid")
    elif node.verdict.state == "unknown_key":
        marks.append("unknown key")
    elif node.verdict.state == "signature":
        marks.append("chain not verified")
    elif node.verdict.state == "unsigned":
        marks.append("unsigned")
    if node.kind == "denial":
        marks.append("denied")
    if node.outcome.state == "missing":
        marks.append("no outcome")
    elif node.outcome.state not in ("unknown", "returned"):
        marks.append(clipped(node.outcome.state.replace("_", " "), 20))
    if node.outcome.state not in ("unknown", "missing") and node.outcome.verdict.state in ("invalid", "unknown_key"):
        marks.append("outcome not verified")
    if node.copies > 1:
        marks.append(f"{node.copies} copies")
    if node.taints:
        marks.append(f"{len(node.taints)} taint{'s' if len(node.taints) > 1 else ''}")
    return marks
