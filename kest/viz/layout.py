"""Where each node stands: layers by longest path, barycentre ordering, and components packed side by side.

The layered drawing of Sugiyama, Tagawa and Toda (1981), as simple as lineage allows: it has no cycles, few crossings
matter, and thousands of nodes must take less than a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HEIGHT", "WIDTH", "Layout", "lay_out"]

WIDTH, HEIGHT = 190, 52
"""Of a node, in the units of the drawing (CSS pixels at a zoom of 1)."""

GAP_X, GAP_Y = 26, 46
SPACE = 60
"""Between components."""
SWEEPS = 4
WIDEST = 40
"""Nodes beside each other; a layer of more goes over several rows."""
ASPECT = 1.6


@dataclass(frozen=True)
class Layout:
    """Positions of the nodes' upper left corners, and the size of the whole."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    width: float
    height: float


@dataclass
class _Block:
    """A connected component that is laid out: its nodes with positions from (0, 0), and its size."""

    nodes: list[int]
    x: list[float]
    y: list[float]
    width: float
    height: float


def lay_out(parents: Sequence[Sequence[int]]) -> Layout:
    """Positions for a graph without cycles, given the parents of each node by index (in any order)."""
    children: list[list[int]] = [[] for _ in parents]
    for child, its in enumerate(parents):
        for parent in its:
            children[parent].append(child)
    layers = _layers(parents, children)
    blocks = [_block(nodes, parents, children, layers) for nodes in _components(parents, children)]
    return _packed(blocks, len(parents))


def _layers(parents: Sequence[Sequence[int]], children: list[list[int]]) -> list[int]:
    """The longest path from a root. What is on a cycle (no record can be) stays where it was reached."""
    layers = [0] * len(parents)
    waiting = [len(its) for its in parents]
    ready = [node for node, count in enumerate(waiting) if not count]
    while ready:
        node = ready.pop()
        for child in children[node]:
            layers[child] = max(layers[child], layers[node] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return layers


def _components(parents: Sequence[Sequence[int]], children: list[list[int]]) -> list[list[int]]:
    seen = [False] * len(parents)
    components = []
    for start in range(len(parents)):
        if seen[start]:
            continue
        seen[start] = True
        members, stack = [], [start]
        while stack:
            node = stack.pop()
            members.append(node)
            for other in (*parents[node], *children[node]):
                if not seen[other]:
                    seen[other] = True
                    stack.append(other)
        components.append(sorted(members))
    return components


def _block(nodes: list[int], parents: Sequence[Sequence[int]], children: list[list[int]], layers: list[int]) -> _Block:
    rows: dict[int, list[int]] = {}
    for node in nodes:
        rows.setdefault(layers[node], []).append(node)
    ordered = [rows[layer] for layer in sorted(rows)]
    _order(ordered, parents, children)
    wrapped = [row[at : at + WIDEST] for row in ordered for at in range(0, len(row), WIDEST)]
    return _folded(wrapped, _columns(wrapped, parents))


def _order(rows: list[list[int]], parents: Sequence[Sequence[int]], children: list[list[int]]) -> None:
    """Sort each row by the mean place of the neighbours, downwards and upwards in turn."""
    place: dict[int, float] = {}
    for row in rows:
        _place(row, place)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            if len(row) < 2:
                continue
            key = {}
            for node in row:
                near = [place[other] for other in (parents if down else children)[node]]
                key[node] = sum(near) / len(near) if near else place[node]
            row.sort(key=key.__getitem__)
            _place(row, place)


def _place(row: list[int], place: dict[int, float]) -> None:
    for index, node in enumerate(row):
        place[node] = (index + 0.5) / len(row)


def _columns(rows: list[list[int]], parents: Sequence[Sequence[int]]) -> dict[int, float]:
    """The horizontal place of each node: under its parents, as far as its neighbours leave room."""
    step = WIDTH + GAP_X
    x: dict[int, float] = {}
    for row in rows:
        wished = []
        for index, node in enumerate(row):
            above = [x[parent] for parent in parents[node] if parent in x]
            wished.append(sum(above) / len(above) if above else index * step)
        taken: list[float] = []
        for wish in wished:
            taken.append(max(wish, taken[-1] + step) if taken else wish)
        # Pushed to the right only, the row would drift: move it back by the mean of what it was pushed.
        drift = sum(t - w for t, w in zip(taken, wished, strict=True)) / len(row)
        for node, at in zip(row, taken, strict=True):
            x[node] = at - drift
    return x


def _folded(rows: list[list[int]], x: dict[int, float]) -> _Block:
    """The rows under each other; many narrow ones go on in a further column, as text does."""
    step = HEIGHT + GAP_Y
    left = min(x.values())
    width = max(x.values()) - left + WIDTH
    columns = max(1, round((len(rows) * step / ((width + SPACE) * ASPECT)) ** 0.5))
    per_column = -(-len(rows) // columns)
    nodes, xs, ys = [], [], []
    for index, row in enumerate(rows):
        column, at = divmod(index, per_column)
        for node in row:
            nodes.append(node)
            xs.append(x[node] - left + column * (width + SPACE))
            ys.append(float(at * step))
    used = -(-len(rows) // per_column)
    return _Block(nodes, xs, ys, used * (width + SPACE) - SPACE, min(len(rows), per_column) * step - GAP_Y)


def _packed(blocks: list[_Block], count: int) -> Layout:
    """Components on shelves, in the order of their first nodes, as wide as makes the whole fit best on a screen."""
    blocks = sorted(blocks, key=lambda one: min(one.nodes))
    area = sum((block.width + SPACE) * (block.height + SPACE) for block in blocks)
    least = max((block.width for block in blocks), default=0.0)
    tried = (_shelves(blocks, max(least, (area * ASPECT * factor) ** 0.5)) for factor in (1, 1.5, 2, 3, 4, 6))
    places, width, height = min(tried, key=lambda one: max(one[1] / ASPECT, one[2]))
    x, y = [0.0] * count, [0.0] * count
    for block, (across, down) in zip(blocks, places, strict=True):
        for node, left, top in zip(block.nodes, block.x, block.y, strict=True):
            x[node], y[node] = round(across + left, 1), round(down + top, 1)
    return Layout(tuple(x), tuple(y), width, height)


def _shelves(blocks: list[_Block], shelf: float) -> tuple[list[tuple[float, float]], float, float]:
    """Where each block goes, and the size of the whole, with shelves of this width."""
    places = []
    across = down = tallest = widest = 0.0
    for block in blocks:
        if across and across + block.width > shelf:
            across, down, tallest = 0.0, down + tallest + SPACE, 0.0
        places.append((across, down))
        across += block.width + SPACE
        widest = max(widest, across - SPACE)
        tallest = max(tallest, block.height)
    return places, widest, down + tallest
