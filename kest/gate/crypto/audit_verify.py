"""Verification of a signed audit chain. It needs the lines and public keys, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kest.errors import AuditChainError, PermitError
from kest.gate.crypto import cbor, cose
from kest.gate.crypto.audit_format import (
    CHECKPOINT,
    GENESIS,
    MODES,
    Line,
    Mode,
    Seal,
    check_seal,
    read_line,
    split_lines,
)
from kest.gate.crypto.bundles import PublicKeyBundle
from kest.gate.crypto.cose import CoseError

__all__ = ["Checkpoint", "read_checkpoint", "verify_lines", "verify_segments"]

PREFIX = "audit chain verification failed"


@dataclass(frozen=True)
class Checkpoint:
    """What the owner of a chain once signed: that it had so many entries, of which this was the last one's hash."""

    length: int
    head_hash: str
    time_ms: int


def _fail(reason: str, index: int | None, kind: str) -> AuditChainError:
    where = "" if index is None else f"entry {index}: "
    return AuditChainError(f"{PREFIX}: {where}{reason}", index=index, kind=kind)


def expected_mode(hybrid: bool | None) -> Mode:
    """The mode that a verifier demands. Without a word it is hybrid: a chain never says how little will do."""
    return "hybrid" if hybrid is None or hybrid else "pq"


def read_checkpoint(data: bytes, bundle: PublicKeyBundle, mode: Mode) -> Checkpoint:
    """A checkpoint, verified.

    Raises:
        AuditChainError: it is none, or not of this key and mode.
    """
    keys = bundle.verifying_keys()
    try:
        parsed = cose.parse(data, CHECKPOINT)
        if parsed.algorithm != MODES[mode]:
            raise CoseError(f"mode mismatch: the checkpoint is signed with {parsed.algorithm!r}")
        if parsed.key_id != keys.key_id or parsed.header:
            raise CoseError(f"signed by key {parsed.key_id!r}, not by {keys.key_id!r}")
        cose.check(parsed.protected, parsed.payload, parsed.signatures, keys, CHECKPOINT)
        members = cbor.decode(parsed.payload)
        if type(members) is not dict or set(members) != {"head", "length", "time_ms"}:
            raise CoseError("not a checkpoint")
        head, length, time_ms = members["head"], members["length"], members["time_ms"]
        if type(head) is not str or type(length) is not int or type(time_ms) is not int or length < 0:
            raise CoseError("not a checkpoint")
    except (CoseError, cbor.CBORError, PermitError) as error:
        raise _fail(f"checkpoint: {error}", None, "malformed") from None
    return Checkpoint(length, head, time_ms)


def verify_lines(
    lines: Iterable[bytes],
    bundle: PublicKeyBundle,
    hybrid: bool | None = None,
    checkpoint: bytes | None = None,
) -> tuple[int, str]:
    """Verify the lines of a chain (`split_lines`), one after the other: memory does not grow with the chain.

    Returns:
        How many entries there are, and the hash of the last one.

    Raises:
        AuditChainError: naming the first entry that is wrong, and what happened to it.
    """
    mode = expected_mode(hybrid)
    mark = None if checkpoint is None else read_checkpoint(checkpoint, bundle, mode)
    walk = _Walk(bundle, mode, mark)
    source = iter(lines)
    for line in source:
        walk.step(read_line(line, walk.count), source)
    walk.finish()
    return walk.count, walk.before


def verify_segments(
    segments: Iterable[bytes], bundle: PublicKeyBundle, hybrid: bool | None, checkpoint: bytes | None
) -> int:
    """Verify a chain that was cut into pieces, in their order from index 0; returns the number of entries."""

    def joined() -> Iterator[bytes]:
        at = 0
        for number, segment in enumerate(segments):
            start = at
            for line in split_lines(segment):
                if at == start and (first := read_line(line, at).index) != at:
                    expected = f"expected next index {at}, segment starts at {first}"
                    raise _fail(f"segment boundary mismatch: segment {number}: {expected}", None, "deleted")
                at += 1
                yield line

    return verify_lines(joined(), bundle, hybrid, checkpoint)[0]


class _Walk:
    """Where a verification has got to."""

    def __init__(self, bundle: PublicKeyBundle, mode: Mode, mark: Checkpoint | None) -> None:
        self._keys, self._key_id, self._mark = bundle.verifying_keys(), bundle.id, mark
        self._mode: Mode = mode
        self.count, self.before = 0, GENESIS
        self._seen = bytearray()  # every leaf, so that a second one is recognised
        self._open: list[bytes] = []  # leaves that no signature covers yet

    def step(self, line: Line, rest: Iterator[bytes]) -> None:
        """Check the next line. ``rest``: what follows, which says what happened when this one is wrong."""
        if line.mode != self._mode:
            raise self._wrong_mode(line, rest)
        index = self.count
        if line.index != index:
            raise self._misplaced(line, rest)
        if line.previous_hash != self.before:
            reason = "hash chain broken: the entry before was altered, or this one comes from another chain (splice)"
            raise _fail(reason, index, "spliced")
        if line.key_id != self._key_id:
            raise _fail(f"signed by key {line.key_id[:300]!r}, not by {self._key_id!r}", index, "spliced")
        self._check_mark(index)
        self.count, self.before = index + 1, line.leaf.hex()
        self._seen += line.leaf
        self._open.append(line.leaf)
        if line.seal is not None:
            self._check_seal(line, line.seal)

    def _check_seal(self, line: Line, seal: Seal) -> None:
        first = self.count - len(self._open)
        if seal.first != first:
            reason = f"its seal covers entries from {seal.first}, and those from {first} are unsealed"
            raise _fail(f"signature verification failed: {reason}", line.index, "altered")
        try:
            check_seal(seal, self._open, self._keys, self._mode)
        except CoseError as error:
            which = f" (in the batch from entry {first})" if first != line.index else ""
            raise _fail(f"{error}{which}", line.index, "altered") from None
        self._open = []

    def finish(self) -> None:
        """Check what only the end can tell."""
        if self._open:
            first = self.count - len(self._open)
            raise _fail("no signature covers it: the chain is truncated within a batch", first, "truncated")
        if self._mark is not None and self.count < self._mark.length:
            said = f"truncated: the checkpoint says {self._mark.length} entries, there are {self.count}"
            raise _fail(said, None, "truncated")
        self._check_mark(self.count)

    def _check_mark(self, length: int) -> None:
        if self._mark is not None and length == self._mark.length and self.before != self._mark.head_hash:
            raise _fail("the chain contradicts its checkpoint: it was rewritten", max(0, length - 1), "rewritten")

    # --- what happened ---

    def _wrong_mode(self, line: Line, rest: Iterator[bytes]) -> AuditChainError:
        if self.count or any(other.mode != line.mode for other in _readable(rest)):
            reason = "chain mode inconsistent: hybrid and pq entries in one chain (possible splice)"
            return _fail(reason, self.count, "spliced")
        expected, actual = ("true", "PQ-only") if self._mode == "hybrid" else ("false", "hybrid")
        reason = f"audit chain mode mismatch: caller expected hybrid={expected} but chain is {actual}"
        return AuditChainError(f"{PREFIX}: {reason}", kind="downgraded")

    def _misplaced(self, line: Line, rest: Iterator[bytes]) -> AuditChainError:
        index, found = self.count, line.index
        said = f"expected index {index}, got {found}"
        if found < index and self._seen[32 * found : 32 * found + 32] == line.leaf:
            return _fail(f"{said}: this entry stands here a second time (duplicated)", index, "duplicated")
        after = [other.index for other in _readable(rest)]
        if index in after:
            return _fail(f"{said}: entries are reordered", index, "reordered")
        if index == 0 and after == list(range(found + 1, found + 1 + len(after))):
            said = f"full-chain verification expects the chain to start at index 0, got {found}"
            return _fail(f"{said}: deleted, or a segment", 0, "deleted")
        return _fail(f"{said}: an entry was deleted", index, "deleted")


def _readable(lines: Iterator[bytes]) -> Iterator[Line]:
    """Those of the lines that can be read."""
    for line in lines:
        try:
            yield read_line(line, 0)
        except AuditChainError:
            continue
