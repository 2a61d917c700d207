"""One HTML page that holds everything it shows and needs neither a server nor a network.

Nothing that an entry says can become markup or code: the data is JSON with every ``<`` escaped, in a script element of a
type that no browser runs, the page sets text only, and its Content-Security-Policy permits exactly its own script and style.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from kest.viz.layout import HEIGHT, WIDTH, lay_out
from kest.viz.model import Graph, Node
from kest.viz.style import clipped, colour_of, label_of, marks_of, told

__all__ = ["to_html"]

MAX_TEXT = 2000
"""Characters of one string that the page holds; a record may have megabytes."""
MAX_MEMBERS = 200
MAX_DEPTH = 12
MAX_DETAIL = 20_000
"""Characters of the decoded form of one record."""


def to_html(graph: Graph, title: str = "Lineage") -> str:
    """The graph as an HTML document, for a ``file:`` URL or any server."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(clipped(title, 200)),
        "style": style,
        "script": script,
        "data": _json(_document(graph, title)),
    }
    # In one pass: what is put in is never looked at again.
    return re.sub("@@([a-z]+)@@", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files("kest.viz") / "assets" / name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """ASCII, and without any character that could end the element or open a comment (HTML, section 4.12.1.3)."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _document(graph: Graph, title: str) -> dict[str, Any]:
    layout = lay_out([node.parents for node in graph.nodes])
    return {
        "title": clipped(title, 200),
        "box": [WIDTH, HEIGHT],
        "size": [layout.width, layout.height],
        "leftOut": graph.left_out,
        "verified": graph.verified,
        "nodes": [_node(node, layout.x[index], layout.y[index], index + 1) for index, node in enumerate(graph.nodes)],
    }


def _node(node: Node, x: float, y: float, number: int) -> dict[str, Any]:
    said: dict[str, Any] = {
        "n": number,
        "x": x,
        "y": y,
        "kind": node.kind,
        "colour": colour_of(node),
        "label": label_of(node),
        "marks": marks_of(node),
        "parents": list(node.parents),
        "verdict": [node.verdict.state, clipped(node.verdict.reason, 300)],
        "hash": told(node.hash, 100),  # of a parent that is not there, whatever its child says
    }
    if node.trust is not None:
        said["trust"] = node.trust
    if node.kind in ("entry", "denial"):
        said["operation"] = told(node.operation, 300)
        said["principal"] = told(node.principal, 300)
        said["time"] = node.timestamp_ms
        said["taints"] = [told(taint, 100) for taint in node.taints[:MAX_MEMBERS]]
        said["outcome"] = _outcome(node)
        if node.withheld:
            said["withheld"] = node.withheld
        if node.stands_for:
            said["by"] = told(str(node.header.get("kid", "")), 300)
    if node.denial is not None:
        said["denial"] = [told(text, 300) for text in (node.denial.policy, node.denial.tier, node.denial.reason)]
    if node.why:
        said["why"] = told(node.why, 300)
    if node.origin:
        said["origin"] = clipped(node.origin, 100)
    if node.payload or node.header:
        said["decoded"] = _decoded(node)
    return said


def _outcome(node: Node) -> dict[str, Any]:
    outcome = node.outcome
    said: dict[str, Any] = {"state": clipped(outcome.state, 30)}
    if outcome.state not in ("unknown", "missing"):
        said["verdict"] = [outcome.verdict.state, clipped(outcome.verdict.reason, 300)]
        said |= {
            "error": told(outcome.error, 200),
            "us": outcome.duration_us,
            "output": clipped(outcome.output_hash, 80),
        }
    return said


def _decoded(node: Node) -> str:
    """Header and payload as indented JSON, cut where it is beyond reading."""
    shown = {"header": _short(node.header, 0), "payload": _short(node.payload, 0)}
    text = json.dumps(shown, indent=2, ensure_ascii=False)
    if len(text) <= MAX_DETAIL:
        return text
    return f"{text[:MAX_DETAIL]}\n… {len(text) - MAX_DETAIL:,} further characters are not in this page"


def _short(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}… ({len(value):,} characters)"
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        kept: dict[str, Any] = {
            clipped(str(name), 200): _short(one, depth + 1) for name, one in list(value.items())[:MAX_MEMBERS]
        }
        if len(value) > MAX_MEMBERS:
            kept["…"] = f"{len(value) - MAX_MEMBERS:,} further members"
        return kept
    items = [_short(one, depth + 1) for one in value[:MAX_MEMBERS]]
    return [*items, f"… {len(value) - MAX_MEMBERS:,} further"] if len(value) > MAX_MEMBERS else items
