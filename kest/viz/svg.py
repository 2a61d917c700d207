"""A picture without scripts, for documents and image viewers."""

from __future__ import annotations

import unicodedata

from kest.viz.layout import HEIGHT, WIDTH, lay_out
from kest.viz.model import Graph, Node
from kest.viz.style import COLOURS, clipped, colour_of, label_of, marks_of, told

__all__ = ["to_svg"]

MARGIN = 20


def to_svg(graph: Graph, title: str = "Lineage") -> str:
    """The graph as an SVG document (SVG 1.1) that loads nothing and runs nothing."""
    layout = lay_out([node.parents for node in graph.nodes])
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-MARGIN} {-MARGIN} {width:.0f} {height:.0f}" font-family="system-ui, sans-serif" role="img">',
        f"<title>{_text(clipped(title, 200))}</title>",
        f'<rect x="{-MARGIN}" y="{-MARGIN}" width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        '<g fill="none" stroke="#8a919c" stroke-width="1.5">',
    ]
    for parent, child in graph.edges:
        x1, y1 = layout.x[parent] + WIDTH / 2, layout.y[parent] + HEIGHT
        x2, y2 = layout.x[child] + WIDTH / 2, layout.y[child]
        bend = max(24.0, abs(y2 - y1) / 2)
        dash = ' stroke-dasharray="5 4"' if graph.nodes[child].kind == "denial" else ""
        out.append(f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"{dash}/>')
    out.append("</g>")
    for index, node in enumerate(graph.nodes):
        out += _box(node, layout.x[index], layout.y[index])
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _box(node: Node, x: float, y: float) -> list[str]:
    colours = COLOURS[colour_of(node)]
    marks = marks_of(node)
    dash = ' stroke-dasharray="5 4"' if node.kind in ("denial", "absent") else ""
    heavy = 3 if node.kind == "denial" or node.verdict.state == "invalid" or node.outcome.state == "missing" else 1.5
    trust = "" if node.trust is None else f"trust {node.trust}"
    second = clipped(" · ".join(part for part in (trust, *marks) if part), 32)
    name = told(node.operation, 200) if node.kind in ("entry", "denial") else label_of(node, 200)
    whole = [name, told(node.principal, 200), trust, *marks]
    if node.taints:
        whole.append(clipped(", ".join(node.taints[:20]), 300))
    tip = _text("\n".join(part for part in whole if part))
    return [
        f'<g transform="translate({x:g} {y:g})"><title>{tip}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{colours.fill}" stroke="{colours.line}" '
        f'stroke-width="{heavy}"{dash}/>'
        f'<text x="12" y="22" font-size="13" font-weight="600" fill="{colours.text}"{_fit(label_of(node), 20)}>'
        f"{_text(label_of(node))}</text>"
        f'<text x="12" y="40" font-size="11" fill="{colours.text}"{_fit(second, 26)}>{_text(second)}</text></g>'
    ]


def _fit(text: str, columns: int) -> str:
    """Squeezes what is surely wider than so many columns into the width of a node: who draws it may have any font."""
    taken = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
    return f' textLength="{WIDTH - 24}" lengthAdjust="spacingAndGlyphs"' if taken > columns else ""


def _text(text: str) -> str:
    """As character data. What XML cannot contain was made visible before."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
