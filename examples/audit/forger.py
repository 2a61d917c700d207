"""Somebody who can write every file of a log, and has no key of its own: records in, and tiles that fit them out.

Written after c2sp.org/tlog-tiles and RFC 9162 (section 2.1.1), with nothing of Kest's, so that what it makes is consistent
in itself: only the signature on the checkpoint is beyond it.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path
from typing import Any

from kest.audit.note import note_line, signer_of

__all__ = ["rewrite", "root_of", "sign"]

WIDTH = 256


def root_of(hashes: list[bytes]) -> bytes:
    """The tree hash over leaf hashes, of which there is at least one."""
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1  # the largest power of two below their number
    return hashlib.sha256(b"\x01" + root_of(hashes[:half]) + root_of(hashes[half:])).digest()


def leaf_hashes(leaves: list[bytes]) -> list[bytes]:
    """RFC 9162: a leaf is hashed behind a zero."""
    return [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]


def rewrite(log: Path, leaves: list[bytes], size: int) -> bytes:
    """Make these the records of a log, in bundles and tiles; the root. The checkpoint stays as it is.

    Files get the names that they have in a tree of ``size``: the one that the checkpoint speaks of.
    """
    shutil.rmtree(log / "tile")
    for first in range(0, len(leaves), WIDTH):
        bundle = b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves[first : first + WIDTH])
        _put(log, "entries", first // WIDTH, min(WIDTH, size - first), bundle)
    hashes, level = leaf_hashes(leaves), 0
    root = root_of(hashes)
    while hashes:
        for first in range(0, len(hashes), WIDTH):
            _put(log, level, first // WIDTH, min(WIDTH, size - first), b"".join(hashes[first : first + WIDTH]))
        full, size = len(hashes) // WIDTH, size // WIDTH
        hashes, level = [root_of(hashes[i * WIDTH : (i + 1) * WIDTH]) for i in range(full)], level + 1
    (log / "index").unlink(missing_ok=True)  # a help in finding, which readers do without
    return root


def _put(log: Path, level: int | str, index: int, width: int, data: bytes) -> None:
    if index > 999:
        raise ValueError("a log of more than 255,999 records")
    name = f"{index:03d}" if width == WIDTH else f"{index:03d}.p/{width}"
    path = log / "tile" / str(level) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def sign(log: Path, origin: str, size: int, root: bytes, identity: Any) -> None:
    """A checkpoint under the log's name, by a key that is not the log's (c2sp.org/tlog-checkpoint)."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    (log / "checkpoint").write_text(f"{text}\n{note_line(origin, signer_of(identity), text)}", encoding="utf-8")
