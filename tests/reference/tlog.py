"""Transparency logs as RFC 9162 (section 2.1), c2sp.org/tlog-tiles and c2sp.org/signed-note say: recursive and slow."""

from __future__ import annotations

import base64
import hashlib

__all__ = [
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "merkle_tree_hash",
    "note_key_id",
    "tile_path",
    "tiles",
    "verify_consistency",
    "verify_inclusion",
]


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(n: int) -> int:
    """The largest power of two smaller than n."""
    return 1 << ((n - 1).bit_length() - 1)


def merkle_tree_hash(leaves: list[bytes]) -> bytes:
    """MTH (section 2.1.1), of leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node_hash(merkle_tree_hash(leaves[:k]), merkle_tree_hash(leaves[k:]))


def inclusion_proof(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH (section 2.1.3.1)."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if m < k:
        return [*inclusion_proof(m, leaves[:k]), merkle_tree_hash(leaves[k:])]
    return [*inclusion_proof(m - k, leaves[k:]), merkle_tree_hash(leaves[:k])]


def consistency_proof(m: int, leaves: list[bytes]) -> list[bytes]:
    """PROOF (section 2.1.4.1)."""
    return _subproof(m, leaves, True)


def _subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [merkle_tree_hash(leaves)]
    k = _split(len(leaves))
    if m <= k:
        return [*_subproof(m, leaves[:k], whole), merkle_tree_hash(leaves[k:])]
    return [*_subproof(m - k, leaves[k:], False), merkle_tree_hash(leaves[:k])]


def verify_inclusion(m: int, n: int, leaf: bytes, proof: list[bytes], root: bytes) -> bool:
    """By going down the tree as the proof was made, not by the algorithm of section 2.1.3.2."""
    try:
        return 0 <= m < n and _climb(m, n, leaf, list(proof)) == root
    except ValueError:
        return False


def _climb(m: int, n: int, leaf: bytes, proof: list[bytes]) -> bytes:
    if n == 1:
        if proof:
            raise ValueError
        return leaf
    if not proof:
        raise ValueError
    sibling, k = proof.pop(), _split(n)
    if m < k:
        return node_hash(_climb(m, k, leaf, proof), sibling)
    return node_hash(sibling, _climb(m - k, n - k, leaf, proof))


def verify_consistency(m: int, n: int, old: bytes, proof: list[bytes], new: bytes) -> bool:
    """Works both roots out of the proof, top down."""
    if m > n:
        return False
    if m in (0, n):
        return not proof and old == (new if m == n else hashlib.sha256(b"").digest())
    try:
        return _both(m, n, old, list(proof), True) == (old, new)
    except ValueError:
        return False


def _both(m: int, n: int, old: bytes, proof: list[bytes], whole: bool) -> tuple[bytes, bytes]:
    if m == n:
        if whole:
            if proof:
                raise ValueError
            return old, old
        if len(proof) != 1:
            raise ValueError
        return proof[0], proof[0]
    if not proof:
        raise ValueError
    sibling, k = proof.pop(), _split(n)
    if m <= k:
        left_old, left_new = _both(m, k, old, proof, whole)
        return left_old, node_hash(left_new, sibling)
    right_old, right_new = _both(m - k, n - k, old, proof, False)
    return node_hash(sibling, right_old), node_hash(sibling, right_new)


def tiles(leaves: list[bytes]) -> dict[tuple[int, int], list[bytes]]:
    """Every tile of the tree, full or partial: (level, index) to hashes."""
    found: dict[tuple[int, int], list[bytes]] = {}
    level, row = 0, leaves
    while row:
        for at in range(0, len(row), 256):
            found[level, at // 256] = row[at : at + 256]
        row = [merkle_tree_hash(row[at : at + 256]) for at in range(0, len(row) - 255, 256)]
        level += 1
    return found


def tile_path(level: int | str, index: int, width: int = 256) -> str:
    """``tile/<L>/<N>[.p/<W>]``."""
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{path}" + (f".p/{width}" if width < 256 else "")


def note_key_id(name: str, kind: int, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key).digest()[:4]


def signature_line(name: str, kind: int, key: bytes, signature: bytes) -> str:
    return f"— {name} {base64.b64encode(note_key_id(name, kind, key) + signature).decode()}\n"
