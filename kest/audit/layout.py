"""Where things are in a log's folder: c2sp.org/tlog-tiles for what others read, and Kest's own beside it.

::

    checkpoint                 signed note: origin, size, root
    tile/<L>/<N>[.p/<W>]       hashes
    tile/entries/<N>[.p/<W>]   records
    journal/<number>           records that are durable but not in tiles yet
    large/<hash>               records of more than 65,535 bytes
    index                      16 bytes a record, for finding them; can be made again from the rest
    lock                       held by the writer
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["WIDTH", "Layout", "tile_name", "width_of"]

WIDTH = 256
"""Hashes in a full tile, records in a full bundle."""

MAX_LEVEL = 7


def tile_name(level: int | str, index: int, width: int = WIDTH) -> str:
    """The path of a tile (``level`` 0, 1, ...) or of a bundle (``level`` "entries")."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    suffix = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{suffix}"


def width_of(size: int, level: int, index: int) -> int:
    """How many hashes the tile has in a tree of ``size``: 256, fewer for the last one, 0 for none."""
    return max(0, min(WIDTH, (size >> (8 * level)) - index * WIDTH))


class Layout:
    """The paths of one log."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.checkpoint = self.root / "checkpoint"
        self.journal = self.root / "journal"
        self.large_folder = self.root / "large"
        self.index = self.root / "index"
        self.lock = self.root / "lock"

    def tile(self, level: int | str, index: int, width: int = WIDTH) -> Path:
        return self.root / tile_name(level, index, width)

    def large(self, digest: str) -> Path:
        """``digest``: SHA-256 of the record, in hexadecimal digits."""
        return self.large_folder / digest

    def segment(self, number: int) -> Path:
        return self.journal / f"{number:012d}"

    def segments(self) -> list[tuple[int, Path]]:
        """Segments of the journal by number, ascending."""
        if not self.journal.is_dir():
            return []
        names = (path for path in self.journal.iterdir() if path.name.isascii() and path.name.isdigit())
        return sorted((int(path.name), path) for path in names)
