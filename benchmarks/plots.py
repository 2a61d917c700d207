"""``python -m benchmarks.plots RESULTS.json FOLDER``: one SVG for each subject, drawn from what was measured.

Ratios: what stands beside its raw primitive or the reference stack, with the quartiles as whiskers and the target as a line
across the bar; where a subject has none, its counts. Times and sizes are in RESULTS.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["draw", "main"]

MET, MISSED, PLAIN, MARK = "#2e7d32", "#c62828", "#5c6bc0", "#111111"


def draw(subject: str, rows: list[dict[str, Any]], machine: dict[str, str], path: Path) -> bool:
    """Draw the ratios of a subject, or its counts; False if it has neither."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "kest", "svg.fonttype": "path", "font.size": 9})
    from matplotlib import pyplot

    ratios = any(row["unit"] == "x" for row in rows)
    shown = [row for row in rows if row["unit"] == ("x" if ratios else "")][::-1]
    if not shown:
        return False
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.32 * len(shown)))
    colours = {True: MET, False: MISSED, None: PLAIN}
    for place, row in enumerate(shown):
        value, (low, high) = row["value"], row["quartiles"]
        spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.barh(place, value, color=colours[row["passed"]], height=0.6, xerr=spread, error_kw={"ecolor": "#777777"})
        if row["target"] is not None:
            axes.plot([row["target"]] * 2, [place - 0.4, place + 0.4], color=MARK, linewidth=2)
        axes.annotate(f" {value:.2f}" if ratios else f" {value:.0f}", (max(value, high), place), va="center")
    axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
    axes.set_xlabel(f"{'times' if ratios else 'count'}; the black line is the target, the whiskers are quartiles")
    axes.set_title(f"{subject} ({machine['CPU']}, {machine['Python']}, {machine['date'][:10]})", loc="left", fontsize=9)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return True


def main(arguments: list[str]) -> int:
    source, folder = map(Path, arguments)
    document = json.loads(source.read_text("utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Performance", "",
        "Written by `make bench`. All are ratios to the raw primitive or to the reference stack (rfc8785, cryptography",
        "and plain Python at the same job), measured in one run in alternating order; the table with every number, times and",
        "sizes included, is `benchmarks/RESULTS.md` in the checkout.", "",
    ]  # fmt: skip
    lines += [f"- {name}: {value}" for name, value in document["machine"].items()]
    lines += ["", f"    {document['command']}", ""]
    lines += [f"- {remark}" for remark in document["remarks"]]
    for subject, rows in document["results"].items():
        if draw(subject, rows, document["machine"], folder / f"bench-{subject}.svg"):
            lines += ["", f"## {subject}", "", f"![What was measured of {subject}](pictures/bench-{subject}.svg)"]
    (folder.parent / "performance.md").write_text("\n".join(lines) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
