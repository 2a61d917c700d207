"""Layout, Mermaid, SVG and HTML: right, and with nothing in them that an entry could make happen."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import time
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import pytest

from kest.viz import Source, SourceRecord, graph_of, to_html, to_mermaid, to_svg
from kest.viz.layout import HEIGHT, WIDTH, lay_out

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    '"]; click n0 "javascript:alert(1)"',
    "\x1b[2J\x1b[31mred",
    "\u202egnp.exe",
    "a\u0000b",
    "]]>",
    "@@script@@",
    "\u2028x",
    "&lt;b&gt;",
    "end\nflowchart TD",
    "\ud800",
    "z" + "\u0301" * 50,
    "`+alert(1)+`",
    "%%{init: {}}%%",
]


def decoded(*operations: str, **changes: Any) -> Any:
    return graph_of(
        Source([SourceRecord(payload={"operation": one, "parent_ids": ["0"], **changes}) for one in operations])
    )


def data_of(page: str) -> Any:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


# --- layout ---


def overlaps(layout: Any) -> int:
    grid: dict[tuple[int, int], list[int]] = {}
    bad = 0
    for index, (x, y) in enumerate(zip(layout.x, layout.y, strict=True)):
        cell = int(x // WIDTH), int(y // HEIGHT)
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                for other in grid.get((cell[0] + dx, cell[1] + dy), ()):
                    bad += abs(layout.x[other] - x) < WIDTH and abs(layout.y[other] - y) < HEIGHT
        grid.setdefault(cell, []).append(index)
    return bad


SHAPES: dict[str, list[list[int]]] = {
    "nothing": [],
    "one": [[]],
    "chain of 5,000": [[], *[[i] for i in range(4999)]],
    "5,000 tips": [[], *[[0] for _ in range(4999)]],
    "5,000 roots": [[] for _ in range(5000)],
    "5,000 parents": [[] for _ in range(4999)] + [list(range(4999))],
    "diamonds": [[], *[[i, max(0, i - 1)] for i in range(3000)]],
    "parents last": [[1], [2], []],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_nodes_stand_apart_and_below_their_parents(shape: str) -> None:
    parents = SHAPES[shape]
    started = time.monotonic()
    layout = lay_out(parents)
    assert time.monotonic() - started < 20
    assert overlaps(layout) == 0
    assert all(0 <= x <= layout.width - WIDTH + 0.1 for x in layout.x)
    assert all(0 <= y <= layout.height - HEIGHT + 0.1 for y in layout.y)


def test_random_graphs_stand_apart() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        parents = [
            sorted({rng.randrange(i) for _ in range(rng.choice([0, 1, 1, 2, 3]))}) if i else [] for i in range(300)
        ]
        assert overlaps(lay_out(parents)) == 0


def test_a_short_graph_reads_from_top_to_bottom() -> None:
    layout = lay_out([[], [0], [0], [1, 2]])
    assert layout.y[0] < layout.y[1] == layout.y[2] < layout.y[3]
    assert layout.x[1] < layout.x[0] < layout.x[2]
    assert layout.x[0] == layout.x[3]


def test_many_flows_fill_a_screen_rather_than_a_line() -> None:
    layout = lay_out([[] if i % 5 == 0 else [i - 1] for i in range(5000)])
    assert 0.3 < layout.width / layout.height < 5


# --- text of others ---


@pytest.mark.parametrize("text", HOSTILE)
def test_svg_is_xml_without_anything_active(text: str) -> None:
    root = ET.fromstring(to_svg(decoded(text, "plain", taints=[text]), title=text))
    names = {element.tag.partition("}")[2] for element in root.iter()}
    assert names <= {"svg", "title", "rect", "g", "path", "text"}
    assert not [a for element in root.iter() for a in element.attrib if a.startswith("on") or "href" in a]


@pytest.mark.parametrize("text", HOSTILE)
def test_mermaid_labels_hold_what_they_are_given(text: str) -> None:
    lines = to_mermaid(decoded(text, taints=[text])).splitlines()
    assert lines[0] == "flowchart TD"
    assert re.fullmatch(
        r' {4}n0\["[^"\[\]{}()<>`%\\;&]*(?:(?:<br/>|#\d+;)[^"\[\]{}()<>`%\\;&]*)*"\]:::absent', lines[1]
    ), lines[1]
    assert all(line.startswith("    classDef ") for line in lines[2:])


@pytest.mark.parametrize("text", HOSTILE)
def test_html_holds_data_as_data(text: str) -> None:
    page = to_html(decoded(text, "plain", taints=[text], labels={text: text, "principal": text}), title=text)
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<!--" not in page
    body = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    assert body is not None
    assert not re.search(r"[<>&\u2028\x00-\x1f\x7f-\uffff]", body[1])
    shown = data_of(page)["nodes"][0]
    assert not re.search(
        "[\x00-\x1f\u202e\u2028\ud800]", shown["label"] + shown["principal"] + "".join(shown["taints"])
    )
    page.encode("utf-8")


def test_the_policy_permits_exactly_this_script_and_style() -> None:
    page = to_html(decoded("x"))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    for name in ("script", "style"):
        text = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"https?://", page.replace("spiffe://", ""))
    assert "innerHTML" not in page


def test_megabytes_are_cut() -> None:
    huge = "\u00e9" * 10_000_000
    graph = decoded(
        huge,
        labels={"principal": huge, "x": huge},
        taints=[huge],
        metadata=[[huge] * 3] * 1000,
        environment={str(i): huge for i in range(500)},
    )
    started = time.monotonic()
    page, picture, text = to_html(graph), to_svg(graph), to_mermaid(graph)
    assert time.monotonic() - started < 10
    assert len(page) < 400_000
    assert len(picture) < 10_000
    assert len(text) < 10_000
    assert "further characters" in data_of(page)["nodes"][0]["decoded"]


def test_deep_and_odd_values_are_shown() -> None:
    deep: Any = "bottom"
    for _ in range(60):
        deep = [deep]
    page = to_html(decoded("x", environment=deep, timestamp_ms=2**63, trust_score=1000, taints=["a"] * 1000))
    node = data_of(page)["nodes"][0]
    assert node["time"] == 2**63
    assert "trust" not in node
    assert len(node["taints"]) == 200


# --- what must be seen ---


def test_marks(records: SimpleNamespace, graph: Any) -> None:
    one, two = records.entry("one"), records.entry("two", trust_score=10, taints=["pii"], added_taints=["pii"])
    made = graph(one, two, records.outcome(one), records.denial("blocked", one), two, one[:-4] + "AAAA")
    marks = {node["label"] + str(index): node["marks"] for index, node in enumerate(data_of(to_html(made))["nodes"])}
    assert marks == {
        "one0": [],
        "two1": ["no outcome", "2 copies", "1 taint"],
        "blocked2": ["denied"],
        "one3": ["not valid", "no outcome"],
    }
    text = to_mermaid(made)
    assert 'n1["two<br/>trust 10<br/>taints: pii<br/>no outcome<br/>2 copies"]:::low' in text
    assert 'n2{{"blocked<br/>trust 10<br/>denied"}}:::low' in text
    assert "n0 -.-> n2" in text
    assert "denied" in to_svg(made)


def test_5000_entries_take_seconds(records: SimpleNamespace, graph: Any) -> None:
    entries: list[str] = []
    for i in range(5000):
        entries.append(records.entry(f"call {i}", *([entries[-1]] if i % 25 else [])))
    entries[2500] = entries[2500][:-4] + "AAAA"
    started = time.monotonic()
    made = graph(*entries)
    page = to_html(made)
    assert time.monotonic() - started < 60
    assert made.count("invalid") == 1
    assert made.count("valid") == 4975
    assert len(data_of(page)["nodes"]) == 5001  # and the entry that was, before its signature was changed
