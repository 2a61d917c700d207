"""Tiles and bundles in a log's folder: written so that a name never stands for half a file, read with nothing believed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kest._kestcore import tlog_fold, tlog_inclusion_path, tlog_root
from kest.audit.files import read_file
from kest.audit.layout import MAX_LEVEL, WIDTH, Layout, width_of
from kest.audit.storage import Storage
from kest.errors import AuditCorruptError

__all__ = ["TileReader", "TileWriter", "first_records", "whole_records"]

HASH = 32
MAX_BUNDLE = WIDTH * (2 + 65535)


class TileWriter:
    """Writes files and then makes their names last: one sync of a folder for all that went into it."""

    def __init__(self, layout: Layout, storage: Storage) -> None:
        self._layout, self._storage = layout, storage
        self._folders: dict[Path, None] = {}
        self._made: set[Path] = set()

    def put(self, path: Path, data: bytes) -> None:
        """Everything is there under its name, though the name may not outlast a power failure before `settle`."""
        self._folder(path.parent)
        self._storage.publish(path, data)
        self._folders[path.parent] = None

    def _folder(self, path: Path) -> None:
        if path in self._made or path == self._layout.root:
            return
        self._folder(path.parent)
        self._storage.make_folder(path)
        self._folders[path.parent] = None
        self._made.add(path)

    def settle(self) -> None:
        """Names last."""
        for folder in list(self._folders):
            self._storage.sync_folder(folder)
            del self._folders[folder]

    def drop_partials(self, full: Path) -> None:
        """Remove the partial forms of a tile that is full now. A remainder does no harm."""
        folder = full.with_name(f"{full.name}.p")
        if folder.is_dir():
            for path in folder.iterdir():
                self._storage.remove(path)
            self._storage.remove_folder(folder)
            self._made.discard(folder)
            self._folders.pop(folder, None)


class TileReader:
    """Reads the tiles of a tree of ``size`` records. What it returns has the right length, and proves nothing else."""

    def __init__(self, layout: Layout, size: int) -> None:
        self._layout = layout
        self.size = size
        self._kept: dict[tuple[int, int], bytes] = {}

    def hashes(self, level: int, index: int) -> bytes:
        """A tile, as wide as it is in this tree.

        Raises:
            AuditCorruptError: it is missing or of another length.
        """
        known = self._kept.get((level, index))
        if known is not None:
            return known
        width = width_of(self.size, level, index)
        data = self._read(level, index, width)
        if len(data) < width * HASH or len(data) > WIDTH * HASH or len(data) % HASH:
            raise AuditCorruptError(
                f"{self._layout.tile(level, index, width)} holds {len(data)} bytes where {width * HASH} are expected"
            )
        if len(self._kept) >= 64:
            self._kept.pop(next(iter(self._kept)))
        self._kept[level, index] = data = data[: width * HASH]
        return data

    def bundle(self, index: int) -> bytes:
        """The records of a bundle, with their lengths; of a full one where the tree needs only a part."""
        return self._read("entries", index, width_of(self.size, 0, index))

    def _read(self, level: int | str, index: int, width: int) -> bytes:
        if width <= 0:
            raise AuditCorruptError(f"a tree of {self.size} records has no tile {index} at level {level}")
        paths = [self._layout.tile(level, index, width)]
        if width < WIDTH:
            paths.append(self._layout.tile(level, index))  # the log has grown, and dropped the partial one
        for path in paths:
            try:
                return read_file(path, MAX_BUNDLE)
            except (FileNotFoundError, NotADirectoryError):
                continue
        raise AuditCorruptError(f"{paths[0]} is missing")

    def node(self, level: int, index: int) -> bytes:
        """The hash of records [index << level, (index + 1) << level)."""
        tile, rest = min(level // 8, MAX_LEVEL), level - 8 * min(level // 8, MAX_LEVEL)
        first = index << rest
        hashes = self.hashes(tile, first // WIDTH)
        at = (first % WIDTH) * HASH
        return tlog_root(hashes[at : at + (HASH << rest)])

    def proof(self, path: Iterable[list[tuple[int, int]]]) -> list[bytes]:
        """The hashes of a proof of which the C core has named the nodes."""
        return [tlog_fold(b"".join(self.node(level, index) for level, index in element)) for element in path]

    def inclusion(self, index: int) -> list[bytes]:
        return self.proof(tlog_inclusion_path(index, self.size))

    def rows(self) -> list[bytes]:
        """The partial tile of each level: all that a tree needs to grow."""
        rows = []
        for level in range(MAX_LEVEL + 1):
            index = self.size >> (8 * (level + 1))
            rows.append(self.hashes(level, index) if width_of(self.size, level, index) else b"")
        return rows


def whole_records(bundle: bytes) -> list[bytes]:
    """The whole records that a bundle begins with, whatever follows."""
    found: list[bytes] = []
    at = 0
    while at + 2 <= len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            break
        found.append(bundle[at + 2 : end])
        at = end
    return found


def first_records(bundle: bytes | bytearray, count: int) -> bytes:
    """The first ``count`` records of a bundle, with their lengths."""
    at = 0
    for _ in range(count):
        if at + 2 > len(bundle):
            raise AuditCorruptError("an entry bundle has fewer records than its tile")
        at += 2 + int.from_bytes(bundle[at : at + 2], "big")
    if at > len(bundle):
        raise AuditCorruptError("an entry bundle is cut off within a record")
    return bytes(bundle[:at])
