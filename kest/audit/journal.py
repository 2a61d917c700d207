"""The journal: where records become durable, a group at a time, before they are in tiles.

A segment is a file that is only appended to: a head (``KJS1``, index of its first record, digest of the frame before it,
SHA-256 of these), then frames (`csrc/core/tlog_journal.h`). After a failed write or sync nobody knows what the file
holds, so nothing is appended to it any more: the next segment begins with the first record that was not acknowledged, and
whatever the one before says from there on does not count. A segment is removed when a checkpoint covers it.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kest._kestcore import sha256, tlog_frames
from kest.audit.files import open_file, read_file
from kest.audit.layout import Layout
from kest.audit.storage import Storage
from kest.errors import AuditCorruptError

__all__ = ["FRAME_HEAD", "Journal", "Recovered", "TornTail", "recover"]

_HEAD = struct.Struct(">4sQ32s32s")
_MAGIC, _FRAME_MAGIC = b"KJS1", b"KJF1"
FRAME_HEAD = 84
"""Bytes before the body of a frame; its own digest is the last 32 of them."""

START = bytes(32)
"""Stands for the digest of the frame before the first."""


@dataclass(frozen=True, slots=True)
class TornTail:
    """The end of a segment that is no whole frame: a write that did not come to its end.

    Nothing in it was ever acknowledged, for that needs the whole frame to be on the disk.

    Attributes:
        segment: the file's name.
        offset, size: where it begins, and how many bytes there are.
        reason: what is wrong with it.
        sha256: of these bytes, for comparing with a copy; the file goes when its records are in tiles.
    """

    segment: str
    offset: int
    size: int
    reason: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the journal holds.

    Attributes:
        frames: (index of the first record, count, body) of each frame, in order and without gaps.
        next: index of the record that comes after them.
        digest: of the last frame.
        torn: ends of segments that are no frames.
        number: of the last segment, 0 for none.
    """

    frames: tuple[tuple[int, int, bytes], ...]
    next: int
    digest: bytes
    torn: tuple[TornTail, ...]
    number: int


class Journal:
    """Appends frames. After an OSError the same frame can be given again: it goes into a new segment."""

    def __init__(self, layout: Layout, storage: Storage, number: int) -> None:
        self._layout, self._storage = layout, storage
        self._number = number
        self._fd: int | None = None

    def append(self, frame: bytes, first: int, before: bytes) -> None:
        """The frame is on the disk when this returns."""
        fd = self._fd
        try:
            if fd is None:
                fd = self._begin(first, before)
            self._storage.write(fd, frame)
            self._storage.sync(fd)
        except BaseException:
            self.abandon()
            raise

    def _begin(self, first: int, before: bytes) -> int:
        self._number += 1
        self._fd = fd = self._storage.create(self._layout.segment(self._number))
        head = _HEAD.pack(_MAGIC, first, before, bytes(32))[:-32]
        self._storage.write(fd, head + sha256(head))
        self._storage.sync(fd)
        self._storage.sync_folder(self._layout.journal)
        return fd

    def abandon(self) -> None:
        """Append nothing more to the segment."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):  # the sync reported it, or the segment does not count
                self._storage.close(fd)

    def retire(self) -> None:
        """Remove all segments: a checkpoint that is on the disk covers what they hold."""
        self.abandon()
        for _, path in self._layout.segments():
            self._storage.remove(path)


def recover(layout: Layout, size: int) -> Recovered:
    """Read the journal of a log whose checkpoint covers ``size`` records.

    Raises:
        AuditCorruptError: records that were acknowledged are missing or changed.
    """
    segments = layout.segments()
    found: list[tuple[int, int, bytes]] = []
    torn: list[TornTail] = []
    heads = [_head(path) for _, path in segments]
    reach, last = size, None  # all records before `reach` are there; end and digest of the frame before
    there: set[bytes] = set()  # the digests of all frames that end there: the last with records, and empty ones
    for at, (_, path) in enumerate(segments):
        if (head := heads[at]) is None:
            data = read_file(path)
            if _FRAME_MAGIC in data:
                raise AuditCorruptError(f"the head of journal segment {path} has changed, and records stand behind it")
            torn.append(_torn(path, 0, data, "cut off within its head"))
            continue
        first, before = head
        if first > reach:
            raise AuditCorruptError(
                f"records {reach} to {first - 1} are neither in tiles nor in the journal, but {path.name} goes on from there"
            )
        if last is not None and last[0] == first and before not in there:
            raise AuditCorruptError(f"journal segment {path} does not continue what stands before it")
        limit = min((other[0] for other in heads[at + 1 :] if other is not None), default=None)
        for start, count, body, digest in _frames(path, first, before, limit, size, torn):
            there = {digest} if count else there | {digest}
            last = start + count, digest
            reach = max(reach, last[0])
            if last[0] > size:
                if start < size:
                    raise AuditCorruptError(f"the checkpoint of {size} records ends within a frame of {path}")
                found.append((start, count, body))
    digest = last[1] if last is not None and last[0] == reach else START
    return Recovered(tuple(found), reach, digest, tuple(torn), segments[-1][0] if segments else 0)


def _head(path: Path) -> tuple[int, bytes] | None:
    with open(open_file(path), "rb") as file:
        data = file.read(_HEAD.size)
    if len(data) < _HEAD.size:
        return None
    magic, first, before, check = _HEAD.unpack(data)
    if magic != _MAGIC or sha256(data[:-32]) != check:
        return None
    return first, before


def _frames(
    path: Path, first: int, before: bytes, limit: int | None, size: int, torn: list[TornTail]
) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Frames below ``limit``, checked to follow one another."""
    data = memoryview(read_file(path))[_HEAD.size :]
    frames, end, problem = tlog_frames(data)
    for start, count, offset, length, said, digest in frames:
        if limit is not None and start + bool(count) > limit:
            return  # a later segment begins here: this was never acknowledged. Of an empty frame nobody knows, nor need know
        if start != first or said != before:
            raise AuditCorruptError(f"journal segment {path}: a frame with record {start} stands where {first} belongs")
        yield start, count, bytes(data[offset : offset + length]), digest
        first, before = start + count, digest
    if problem is not None:
        if limit is not None and first < limit and limit > size:
            raise AuditCorruptError(
                f"journal segment {path} is damaged at record {first}, which was acknowledged: {problem}"
            )
        rest = bytes(data[end:])
        if (later := _frame_after(rest)) is not None:
            raise AuditCorruptError(
                f"journal segment {path} is damaged at record {first} ({problem}), but a whole frame follows {later} bytes "
                "later: this is no torn tail"
            )
        torn.append(_torn(path, _HEAD.size + end, rest, problem))


def _frame_after(rest: bytes) -> int | None:
    """Where a whole frame stands in what is no frame itself."""
    at = rest.find(_FRAME_MAGIC, 1)
    while at >= 0:
        if tlog_frames(memoryview(rest)[at:])[0]:
            return at
        at = rest.find(_FRAME_MAGIC, at + 1)
    return None


def _torn(path: Path, offset: int, data: bytes, reason: str) -> TornTail:
    return TornTail(path.name, offset, len(data), reason, sha256(data).hex())
