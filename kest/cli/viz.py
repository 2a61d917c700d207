"""``kest viz`` and ``kest-viz``: a picture of lineage, as Mermaid, SVG, or one HTML page."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kest.cli.logs import key_of
from kest.cli.source import UsageError
from kest.cli.terminal import clean
from kest.cli.verify import add_trust_arguments, trust_store

if TYPE_CHECKING:
    from kest.core.truststore import TrustStore
    from kest.viz import Graph

__all__ = ["main", "register"]

SUFFIXES = {".html": "html", ".htm": "html", ".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".md": "mermaid"}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "viz",
        help="draw lineage: Mermaid, SVG, or one HTML page to search and click",
        description="Draw the lineage in passports, audit logs, telemetry, or files with one record a line, as "
        "Mermaid, SVG, or one HTML page that needs no network.",
        epilog="Exit status: 0 drawn, 2 wrong usage or nothing to draw. What does not verify is drawn, too, and marked.",
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="what to draw; several are drawn together; - is standard input"
    )
    parser.add_argument(
        "-f",
        "--format",
        choices=("html", "svg", "mermaid"),
        help="default: what the ending of --output says (.html, .svg, .mmd, .md), otherwise mermaid",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it; default: standard output")
    parser.add_argument(
        "--open", action="store_true", help="show the picture in the browser (HTML unless --format says else)"
    )
    parser.add_argument("--title", help="a heading; default: the names of the files")
    parser.add_argument(
        "--limit", type=_count, default=20_000, metavar="N", help="draw the newest N records (default: %(default)s)"
    )
    add_trust_arguments(parser)
    parser.add_argument(
        "--log-key",
        metavar="VKEY",
        help="the verifier key of an audit log, or a file that holds it: then it is verified",
    )
    parser.set_defaults(run=_run)


def main() -> int:
    """The command ``kest-viz``, the same as ``kest viz``."""
    from kest.cli.main import main as kest

    return kest(["viz", *sys.argv[1:]])


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= 1_000_000:
        raise argparse.ArgumentTypeError("a number from 1 to 1000000")
    return count


def _run(arguments: argparse.Namespace) -> int:
    from kest.viz import SourceError, graph_of, read

    form = _format(arguments)
    store = _store(arguments)
    try:
        key = None if arguments.log_key is None else key_of(arguments.log_key)
        sources = [read(name, key, store) for name in arguments.files]
        graph = graph_of(sources, store, limit=arguments.limit)
    except SourceError as error:
        raise UsageError(str(error)) from None
    if not graph.nodes:
        raise UsageError("there is nothing to draw: no records were found")
    names = ", ".join("standard input" if name == "-" else Path(name).name for name in arguments.files[:3])
    text = _drawn(graph, form, arguments.title or f"Lineage of {names}")
    _note(graph, form)
    if arguments.output is None and not arguments.open:
        sys.stdout.write(text)
        return 0
    path = _written(text, arguments.output, form)
    if arguments.open:
        _show(path)
    return 0


def _format(arguments: argparse.Namespace) -> str:
    if arguments.format:
        return str(arguments.format)
    if arguments.output is None:
        return "html" if arguments.open else "mermaid"
    suffix = Path(arguments.output).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{clean(arguments.output, 200)} does not say what to draw: end it in .html, .svg or .mmd, or pass --format"
        )
    return SUFFIXES[suffix]


def _store(arguments: argparse.Namespace) -> TrustStore | None:
    store = trust_store(arguments)
    return store if store else None


def _drawn(graph: Graph, form: str, title: str) -> str:
    from kest.viz import to_html, to_mermaid, to_svg

    if form == "html":
        return to_html(graph, title)
    return to_svg(graph, title) if form == "svg" else to_mermaid(graph)


def _note(graph: Graph, form: str) -> None:
    """What the reader of the picture has to know, on standard error."""
    from kest.viz.mermaid import MOST_EDGES

    if graph.left_out:
        print(f"kest: the oldest {graph.left_out} records are left out; --limit draws more", file=sys.stderr)
    if form == "mermaid" and len(graph.edges) > MOST_EDGES:
        print(
            f"kest: {len(graph.edges)} edges; Mermaid draws {MOST_EDGES} unless its maxEdges is raised: -o lineage.html has "
            "no such limit",
            file=sys.stderr,
        )
    if not graph.verified:
        print("kest: not verified, and drawn as such: pass --trust KEYS", file=sys.stderr)


def _written(text: str, output: str | None, form: str) -> Path:
    try:
        if output is None:
            suffix = {"html": ".html", "svg": ".svg", "mermaid": ".mmd"}[form]
            handle, name = tempfile.mkstemp(suffix, "kest-")
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return Path(name)
        path = Path(output)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot write {clean(output or 'the picture', 200)}: {reason}") from None


def _show(path: Path) -> None:
    import webbrowser

    url = path.resolve().as_uri()
    if not webbrowser.open(url):
        print(f"kest: there is no browser here; the picture is {clean(os.fspath(path), 300)}", file=sys.stderr)
