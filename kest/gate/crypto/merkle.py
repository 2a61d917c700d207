"""Merkle trees as Certificate Transparency makes them (RFC 9162, section 2.1), over a few hundred leaves."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

__all__ = ["MAX_LEAVES", "leaf_hash", "node_hash", "path_length", "paths_of", "root_from_path", "root_of"]

MAX_LEAVES = 1 << 16


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """From the leaves' hashes up to the root; a node without a sibling moves up as it is."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        levels.append(above + below[len(above) * 2 :])
    return levels


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; at least one."""
    return _levels(leaves)[-1][0]


def paths_of(leaves: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """The root, and each leaf's inclusion path (RFC 9162, section 2.1.3.1), from the bottom."""
    levels = _levels(leaves)
    paths = []
    for index in range(len(leaves)):
        path, at = [], index
        for level in levels[:-1]:
            sibling = at ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            at >>= 1
        paths.append(path)
    return levels[-1][0], paths


def path_length(index: int, size: int) -> int:
    """How many hashes the path of a leaf has."""
    length, last = 0, size - 1
    while last:
        length += index % 2 == 1 or index < last
        index, last = index >> 1, last >> 1
    return length


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a path leads to (RFC 9162, section 2.1.3.2); None when it is of the wrong length."""
    if not 0 <= index < size or len(path) != path_length(index, size):
        return None
    found, last, rest = leaf, size - 1, iter(path)
    while last:
        if index % 2 == 1:
            found = node_hash(next(rest), found)
        elif index < last:
            found = node_hash(found, next(rest))
        index, last = index >> 1, last >> 1
    return found
