"""Reading a log that somebody else may be writing to."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest._kestcore import canonicalize, parse, sha256, tlog_consistency_path, tlog_find, tlog_leaf, tlog_records
from kest.audit.files import open_file, read_file
from kest.audit.layout import WIDTH, Layout
from kest.audit.note import Checkpoint, NoteKey
from kest.audit.records import MAX_RECORD, Record, large_pointer
from kest.audit.tiles import TileReader
from kest.core.grants import public_key_of
from kest.errors import AuditCorruptError, AuditError, AuditProofError

if TYPE_CHECKING:
    from kest.audit.report import LogReport

__all__ = ["AuditReader", "UnverifiedReader", "log_key"]

MAX_LARGE, MAX_CHECKPOINT = 64 << 20, 1 << 20
TAG = 16
"""Bytes of the index for each record."""


def log_key(key: Any, origin: str | None = None) -> NoteKey:
    """The key of a log: a `NoteKey`, its text form (``name+id+key``), or with ``origin`` a public key as elsewhere."""
    if isinstance(key, NoteKey):
        return key
    if isinstance(key, str) and "+" in key and not key.lstrip().startswith("-"):
        return NoteKey.parse(key)
    if origin is None:
        raise AuditError("a log's key is its verifier key (AuditLog.key.vkey), or a public key together with origin=")
    raw = public_key_of(key).raw
    if raw is None:
        raise AuditError("a log is signed with an Ed25519 key")
    return NoteKey(origin, raw)


class AuditReader:
    """The records of a log up to a checkpoint, and proofs about them. Reads files only; needs no lock.

    What it was opened at stays: records that come later are seen by `refresh`.

    Args:
        path: the log's folder.
        key: the log's; see `log_key`.
        witnesses, quorum: verifier keys of witnesses, and how many of them must have cosigned the checkpoint.

    Raises:
        AuditError: there is no checkpoint (yet).
        AuditProofError: the checkpoint is not signed as it should be.
    """

    def __init__(
        self, path: str | Path, key: Any, *, origin: str | None = None, witnesses: Iterable[Any] = (), quorum: int = 0
    ) -> None:
        self.layout = Layout(path)
        self.key = log_key(key, origin)
        self.witnesses = tuple(log_key(one) for one in witnesses)
        self._quorum = quorum
        self.refresh()

    def refresh(self) -> Checkpoint:
        """Go on to the newest checkpoint, which must extend the one before.

        Raises:
            AuditCorruptError: it does not: the log was rolled back, or shows different things to different people.
        """
        before: Checkpoint | None = getattr(self, "checkpoint", None)
        try:
            data = read_file(self.layout.checkpoint, MAX_CHECKPOINT)
        except FileNotFoundError:
            raise AuditError(
                f"there is no checkpoint in {self.layout.root}: it is no log, or nothing was published yet"
            ) from None
        checkpoint = self._checked(data)
        tiles = TileReader(self.layout, checkpoint.size)
        if before is not None:
            from kest.audit.proof import verify_consistency

            if checkpoint.size < before.size:
                raise AuditCorruptError(f"the log went back from {before.size} to {checkpoint.size} records")
            proof = tiles.proof(tlog_consistency_path(before.size, checkpoint.size)) if before.size else []
            try:
                verify_consistency(before, checkpoint, proof)
            except AuditProofError as error:
                raise AuditCorruptError(
                    f"the log of {checkpoint.size} records is not the one of {before.size} with more: {error}"
                ) from None
        self.checkpoint, self.tiles = checkpoint, tiles
        return checkpoint

    def _checked(self, data: bytes) -> Checkpoint:
        return Checkpoint.verify(data, self.key, self.witnesses, self._quorum)

    @property
    def size(self) -> int:
        """Records that the checkpoint covers."""
        return self.checkpoint.size

    def __len__(self) -> int:
        return self.size

    # --- records ---

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Records from ``start`` up to ``stop``, in order, a bundle at a time in memory. Not verified: see `verify`.

        Raises:
            AuditCorruptError: a bundle is missing or cut off.
        """
        stop = self.size if stop is None else min(stop, self.size)
        for number in range(start // WIDTH, -(-stop // WIDTH)):
            leaves = self._bundle(number)
            first = number * WIDTH
            for index in range(max(start, first), min(stop, first + WIDTH)):
                yield self._record(index, leaves[index - first])

    def record(self, index: int) -> Record:
        """IndexError: the checkpoint covers no such record."""
        if not 0 <= index < self.size:
            raise IndexError(f"the log has {self.size} records, no record {index}")
        return self._record(index, self._bundle(index // WIDTH)[index % WIDTH])

    __getitem__ = record

    def _bundle(self, number: int) -> list[bytes]:
        try:
            leaves = tlog_records(self.tiles.bundle(number))
        except ValueError as error:
            raise AuditCorruptError(f"entry bundle {number}: {error}") from None
        wanted = min(WIDTH, self.size - number * WIDTH)
        if len(leaves) < wanted:
            raise AuditCorruptError(f"entry bundle {number} has {len(leaves)} records where {wanted} are expected")
        return leaves

    def _record(self, index: int, leaf: bytes) -> Record:
        return Record(index, leaf, self.large(leaf) if leaf[:1] == b"{" else leaf)

    def large(self, leaf: bytes) -> bytes:
        """What a leaf of kind ``large`` stands for; the leaf itself if it stands for nothing that is there."""
        try:
            said = parse(leaf)
            body = read_file(self.layout.large(_digest(said["sha256"])), MAX_LARGE)
        except (OSError, ValueError, KeyError, TypeError, AuditError):
            return leaf
        return body if len(body) > MAX_RECORD and sha256(body).hex() == said["sha256"] else leaf

    # --- finding ---

    def find(self, entry: str | bytes) -> list[int]:
        """Where records are.

        Args:
            entry: a record (JWS), a leaf hash (32 bytes), or the id of an entry, for which there are several records.
        """
        if isinstance(entry, str) and entry.count("-") == 4 and len(entry) == 36:
            return [i for i in self._look_up(sha256(entry.encode())[:8], True) if self.record(i).entry_id == entry]
        if isinstance(entry, bytes) and len(entry) == 32:
            leaf = entry
        else:
            body = entry.encode() if isinstance(entry, str) else entry
            if len(body) > MAX_RECORD:
                body = large_pointer(body)[1]
            leaf = tlog_leaf(body)
        found = [i for i in self._look_up(leaf[:8], False) if self.tiles.node(0, i) == leaf]
        return found or self._find_in_tiles(leaf)

    def _look_up(self, half: bytes, by_subject: bool) -> list[int]:
        """Where the index has this half of a tag. It is looked through where it lies: 16 MB for a million records."""
        try:
            with open(open_file(self.layout.index), "rb") as file:
                length = min(os.fstat(file.fileno()).st_size, self.size * TAG)  # of a longer one, nothing else counts
                with mmap.mmap(file.fileno(), length - length % TAG, access=mmap.ACCESS_READ) as index:
                    found = tlog_find(index, half, by_subject)
        except (FileNotFoundError, ValueError, AuditCorruptError):  # there is none, or an empty one
            return []
        return [i for i in found if i < self.size]

    def _find_in_tiles(self, leaf: bytes) -> list[int]:
        """Without the index, which is only a help."""
        for number in range(-(-self.size // WIDTH)):
            hashes = self.tiles.hashes(0, number)
            at = hashes.find(leaf)
            while at >= 0:
                if at % 32 == 0:
                    return [number * WIDTH + at // 32]
                at = hashes.find(leaf, at + 1)
        return []

    def key_events(self, principal: str) -> list[int]:
        """Where the log speaks of a principal's keys."""
        name = sha256(canonicalize(principal)[1:-1])[:8]
        return [
            i
            for i in self._look_up(name, True)
            if (r := self.record(i)).kind == "key" and r.payload.get("principal") == principal
        ]

    # --- proofs ---

    def prove(self, entry: int | str | bytes) -> str:
        """A proof file (c2sp.org/tlog-proof) that a record is in the log, for `verify_proof` anywhere.

        Args:
            entry: its index, the record, its leaf hash, or the id of its entry (of which the entry itself is proved).

        Raises:
            AuditError: it is not in the log, as far as the checkpoint covers it.
        """
        from kest.audit.proof import make_proof

        if isinstance(entry, int):
            index = entry
        else:
            found = self.find(entry)
            if not found:
                raise AuditError(
                    "no such record is in the log, as far as its checkpoint goes; a newer one may cover it"
                )
            index = next((i for i in found if self.record(i).kind in ("entry", "intent")), found[0])
        return make_proof(self, self.record(index))

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """The proof that the tree of ``size`` (all) records extends the one of ``old``."""
        size = self.size if size is None else size
        if not 0 <= old <= size <= self.size:
            raise AuditError(f"no proof from {old} to {size} records in a log of {self.size}")
        return TileReader(self.layout, size).proof(tlog_consistency_path(old, size)) if old else []

    def verify(self, keys: Any = None, **settings: Any) -> LogReport:
        """Verify everything: see `verify_log`."""
        from kest.audit.verify import verify_reader

        return verify_reader(self, keys, **settings)

    def journal_bytes(self) -> int:
        """What is durable and under no checkpoint yet, or was left by a writer that ended; 0 after a proper close."""
        total = 0
        for _, path in self.layout.segments():
            with contextlib.suppress(FileNotFoundError):  # a checkpoint covers it by now
                total += path.lstat().st_size
        return total


class UnverifiedReader(AuditReader):
    """A log as it says that it is, for looking at it without its key. Verifies nothing, not even the checkpoint.

    Args:
        path: the log's folder.

    Raises:
        AuditError: there is no checkpoint (yet).
        AuditProofError: what is there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.layout = Layout(path)
        self.refresh()

    def _checked(self, data: bytes) -> Checkpoint:
        return Checkpoint.unverified(data)

    def verify(self, keys: Any = None, **settings: Any) -> LogReport:
        """Raises:
        AuditError: always; `verify_log` takes the log's key.
        """
        raise AuditError("a log that was opened without its key cannot be verified")


def _digest(text: str) -> str:
    if len(text) != 64 or text.strip("0123456789abcdef"):
        raise AuditError("not a SHA-256")
    return text
