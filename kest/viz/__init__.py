"""Pictures of lineage: Mermaid, SVG, and one HTML page that needs nothing else. See ``docs/viz.md``.

``graph = graph_of(read(path), store)``, then `to_mermaid`, `to_svg` or `to_html`.
"""

from __future__ import annotations

from kest.viz.mermaid import to_mermaid
from kest.viz.model import Denial, Graph, Node, Outcome, Verdict, graph_of
from kest.viz.page import to_html
from kest.viz.records import Source, SourceRecord
from kest.viz.sources import LOADERS, Loader, SourceError, read
from kest.viz.svg import to_svg

__all__ = [
    "LOADERS",
    "Denial",
    "Graph",
    "Loader",
    "Node",
    "Outcome",
    "Source",
    "SourceError",
    "SourceRecord",
    "Verdict",
    "graph_of",
    "read",
    "to_html",
    "to_mermaid",
    "to_svg",
]
