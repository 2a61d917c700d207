"""A Mermaid flowchart, for Markdown that renders it."""

from __future__ import annotations

from kest.viz.model import Graph, Node
from kest.viz.style import COLOURS, clipped, colour_of, label_of, marks_of

__all__ = ["MOST_EDGES", "to_mermaid"]

MOST_EDGES = 500
"""What Mermaid draws unless its ``maxEdges`` is raised."""

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ._-/:,+…")


def to_mermaid(graph: Graph) -> str:
    """The graph as the text of a Mermaid flowchart. Nothing in an entry can end a label or begin a statement."""
    lines = ["flowchart TD"]
    for index, node in enumerate(graph.nodes):
        shape = ("{{", "}}") if node.kind == "denial" else ("([", "])") if node.kind == "absent" else ("[", "]")
        lines.append(f'    n{index}{shape[0]}"{_label(node)}"{shape[1]}:::{colour_of(node)}')
    for parent, child in graph.edges:
        arrow = "-.->" if graph.nodes[child].kind == "denial" or graph.nodes[parent].kind == "absent" else "-->"
        lines.append(f"    n{parent} {arrow} n{child}")
    for name, colours in COLOURS.items():
        lines.append(f"    classDef {name} fill:{colours.fill},stroke:{colours.line},color:{colours.text}")
    return "\n".join(lines) + "\n"


def _label(node: Node) -> str:
    rows = [label_of(node, 40)]
    if node.trust is not None:
        rows.append(f"trust {node.trust}")
    if node.taints:
        rows.append(clipped("taints: " + ", ".join(node.taints[:8]), 60))
    rows += [mark for mark in marks_of(node) if "taint" not in mark]
    return "<br/>".join(_quoted(row) for row in rows)


def _quoted(text: str) -> str:
    """Mermaid's own character references, ``#38;``, for whatever could mean something to it, to Markdown or to HTML."""
    return "".join(
        char if char in _PLAIN or (not char.isascii() and char.isalpha()) else f"#{ord(char)};" for char in text
    )
