"""The one writer of a log: groups of records into the journal, then into tiles under a signed checkpoint.

No threads here and no queue: `commit` makes records durable, `publish` makes them provable. Both can be called again after an
OSError; nothing that was acknowledged is lost by it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kest._kestcore import LogTree, Signer, sha256, tlog_frame, tlog_leaves
from kest.audit.files import read_file
from kest.audit.journal import FRAME_HEAD, START, Journal, TornTail, recover
from kest.audit.layout import WIDTH, Layout
from kest.audit.note import Checkpoint, NoteKey, checkpoint_text, note_line
from kest.audit.storage import Storage
from kest.audit.tiles import TileReader, TileWriter, first_records
from kest.errors import AuditCorruptError, AuditProofError

__all__ = ["Item", "LogWriter", "Recovery"]

log = logging.getLogger("kest.audit")

Item = str | tuple[Signer, str, bytes]
"""A record, or who is to sign it, its ``typ`` and its payload."""

TAG, MAX_CHECKPOINT = 16, 1 << 20


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a log found.

    Attributes:
        size: records that were there.
        published: of them, those that a checkpoint covered.
        torn: ends of journal segments that are no whole frames: writes that did not come to their end.
    """

    size: int
    published: int
    torn: tuple[TornTail, ...]

    @property
    def clean(self) -> bool:
        """The writer before closed the log."""
        return self.size == self.published and not self.torn


class LogWriter:
    """Owns the folder while it exists. Not thread-safe.

    Raises:
        AuditLockedError: somebody else writes to it.
        AuditCorruptError: what is there is not the log that was written.
    """

    def __init__(self, path: str | Path, origin: str, signer: Signer, storage: Storage | None = None) -> None:
        self.layout = layout = Layout(path)
        self._storage = storage or Storage()
        self._signer = signer
        self.key = NoteKey(origin, signer.public_key)
        layout.root.parent.mkdir(parents=True, exist_ok=True)
        for folder in (layout.root, layout.journal):
            self._storage.make_folder(folder)
            self._storage.sync_folder(folder.parent)  # also if it was there: whoever made it may not have come this far
        self._lock: int | None = self._storage.lock(layout.lock)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        layout = self.layout
        self._clean_up()
        self._tiles = TileWriter(layout, self._storage)
        self.checkpoint = published = self._read_checkpoint()
        reader = TileReader(layout, published.size)
        try:
            self._tree = LogTree(published.size, reader.rows())
        except ValueError as error:
            raise AuditCorruptError(f"the tiles of {layout.root} do not fit its checkpoint: {error}") from error
        if self._tree.root() != published.root:
            raise AuditCorruptError(
                f"the tiles of {layout.root} have another root than its checkpoint of {published.size} records: restore the "
                "folder from a copy, and compare it with what witnesses have seen"
            )
        partial = published.size % WIDTH
        self._bundle = bytearray(reader.bundle(published.size // WIDTH)) if partial else bytearray()
        if partial:
            self._bundle = bytearray(first_records(self._bundle, partial))
        self._full: list[tuple[int | str, int, bytes]] = []  # complete, not on the disk yet
        self._done: list[Path] = []  # written since the last checkpoint
        self._tags = bytearray()  # of records after those in the index
        self._indexed = self._index_size(published.size)
        journal = recover(layout, published.size)
        self._next, self._before = published.size, START
        for first, count, body in journal.frames:
            hashes, tags, cuts = tlog_leaves(body, first)
            if len(hashes) != 32 * count:
                raise AuditCorruptError(f"a journal frame says it has {count} records, and has {len(hashes) // 32}")
            self._integrate(body, 0, hashes, tags, cuts)
        self._before = journal.digest
        self._journal = Journal(layout, self._storage, journal.number)
        self.recovery = Recovery(self._next, published.size, journal.torn)
        for torn in journal.torn:
            log.warning(
                "%s: a write did not come to its end: %d bytes of journal segment %s from byte %d on are no record (%s); "
                "nothing in them was acknowledged",
                layout.root, torn.size, torn.segment, torn.offset, torn.reason,
            )  # fmt: skip

    def _read_checkpoint(self) -> Checkpoint:
        try:
            data = read_file(self.layout.checkpoint, MAX_CHECKPOINT)
        except FileNotFoundError:
            return Checkpoint(self.key.name, 0, sha256(b""), "")
        try:
            return Checkpoint.verify(data, self.key)
        except AuditProofError as error:
            raise AuditCorruptError(
                f"the checkpoint of {self.layout.root} is not one of {self.key.vkey}: {error}. A log keeps its origin and "
                "its key for life"
            ) from error

    def _clean_up(self) -> None:
        """Files that a crash left half written, under names that nobody reads."""
        for folder, _, names in os.walk(self.layout.root):
            for name in names:
                if name.startswith(".") and name.endswith(".tmp"):
                    self._storage.remove(Path(folder, name))

    # --- durable ---

    @property
    def size(self) -> int:
        """Records that are durable."""
        return self._next

    @property
    def unpublished(self) -> int:
        """Durable records that no checkpoint covers."""
        return self._next - self.checkpoint.size

    @property
    def held(self) -> int:
        """Bytes of complete tiles that wait for `publish`."""
        return sum(len(data) for _, _, data in self._full)

    def commit(self, items: Sequence[Item], threads: int = 1) -> int:
        """Make records durable, all or none; the index of the first.

        Raises:
            OSError: none of them is acknowledged. Give them again, or others.
            ValueError: a record is too long.
        """
        first = self._next
        frame, hashes, tags, cuts = tlog_frame(items, first, self._before, threads)
        self._journal.append(frame, first, self._before)
        self._before = frame[FRAME_HEAD - 32 : FRAME_HEAD]
        self._integrate(frame, FRAME_HEAD, hashes, tags, cuts)
        return first

    def put_large(self, digest: str, data: bytes) -> None:
        """Keep a record that is too long for a bundle, under its hash."""
        path = self.layout.large(digest)
        if not path.exists():
            self._tiles.put(path, data)
        self._tiles.settle()

    def _integrate(self, data: bytes, at: int, hashes: bytes, tags: bytes, cuts: list[int]) -> None:
        """Into the tree and the bundle that is being filled; ``cuts`` are where in ``data`` bundles begin."""
        for level, index, tile in self._tree.append(hashes):
            self._full.append((level, index, tile))
        number = self._next // WIDTH
        for cut in cuts:
            self._bundle += data[at:cut]
            if self._bundle:
                self._full.append(("entries", number, bytes(self._bundle)))
                number += 1
            self._bundle.clear()
            at = cut
        self._bundle += data[at:]
        self._next += len(hashes) // 32
        if self._next % WIDTH == 0 and self._bundle:
            self._full.append(("entries", self._next // WIDTH - 1, bytes(self._bundle)))
            self._bundle.clear()
        self._tags += tags

    # --- provable ---

    def store(self) -> None:
        """Write the tiles and bundles that are complete. They count when a checkpoint covers them."""
        while self._full:
            level, index, data = self._full[0]
            self._tiles.put(self.layout.tile(level, index), data)
            self._done.append(self.layout.tile(level, index))
            del self._full[0]

    def publish(self) -> Checkpoint:
        """Bring everything that is durable under a signed checkpoint, which is on the disk when this returns."""
        size = self._next
        if size == self.checkpoint.size and self.checkpoint.note:
            return self.checkpoint
        self.store()
        for level, index, hashes in self._tree.partials():
            self._tiles.put(self.layout.tile(level, index, len(hashes) // 32), hashes)
        if size % WIDTH:
            self._tiles.put(self.layout.tile("entries", size // WIDTH, size % WIDTH), bytes(self._bundle))
        self._write_index()
        self._tiles.settle()
        text = checkpoint_text(self.key.name, size, self._tree.root())
        self._put_checkpoint(text + "\n" + note_line(self.key.name, self._signer, text))
        self._journal.retire()
        for path in self._done:
            self._tiles.drop_partials(path)
        self._done.clear()
        return self.checkpoint

    def _put_checkpoint(self, note: str) -> None:
        self._storage.publish(self.layout.checkpoint, note.encode())
        self._storage.sync_folder(self.layout.root)
        self.checkpoint = Checkpoint.verify(note, self.key)

    def add_cosignatures(self, checkpoint: Checkpoint, lines: str) -> bool:
        """Append signature lines of witnesses to the checkpoint; False if there is a newer one by now."""
        if checkpoint.text != self.checkpoint.text:
            return False
        known = set(self.checkpoint.note.splitlines())
        fresh = [line for line in lines.splitlines(keepends=True) if line.rstrip("\n") not in known]
        if fresh:
            self._put_checkpoint(self.checkpoint.note + "".join(fresh))
        return True

    # --- the index: a help in finding, made again if need be ---

    def _index_size(self, size: int) -> int:
        """How many records of those that are published the index has, now that it has been looked after."""
        try:
            there = self.layout.index.stat().st_size
        except FileNotFoundError:
            there = 0
        indexed = min(there // TAG, size)
        reader = TileReader(self.layout, size)
        for number in range(indexed // WIDTH, -(-size // WIDTH)):  # lost, or cut off by a crash
            bundle = reader.bundle(number)
            count = min(WIDTH, size - number * WIDTH)
            tags = tlog_leaves(first_records(bundle, count), number * WIDTH)[1]
            self._tags += tags[max(0, indexed - number * WIDTH) * TAG :]
        return indexed

    def _write_index(self) -> None:
        fd = self._storage.open_at(self.layout.index, self._indexed * TAG)
        try:
            self._storage.write(fd, bytes(self._tags))
            self._storage.sync(fd)
        finally:
            self._storage.close(fd)
        self._indexed += len(self._tags) // TAG
        self._tags.clear()

    # --- the end ---

    def close(self) -> None:
        """Let go of the folder. What is durable stays so; publish first to have it in tiles."""
        if (journal := getattr(self, "_journal", None)) is not None:
            journal.abandon()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def forget(self) -> None:
        """In the child of a fork: drop descriptors without a word to the files, which are the parent's."""
        self.close()
