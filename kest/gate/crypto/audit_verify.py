"""Verification of a signed audit chain. It needs the lines and public keys, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kest.errors import AuditChainError, PermitError
from kest.gate.crypto import cbor, cose
from kest.gate.crypto.audit_format import CHECKPOINT, GENESIS, MODES, Line, Mode, check_seal, read_line, split_lines
from kest.gate.crypto.bundles import PublicKeyBundle
from kest.gate.crypto.cose import CoseError, VerifyingKeys

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
    data: bytes,
    bundle: PublicKeyBundle,
    hybrid: bool | None = None,
    checkpoint: bytes | None = None,
    *,
    start: int = 0,
    before: str = GENESIS,
) -> tuple[int, str]:
    """Verify a chain from its beginning, or from after a known entry.

    Returns:
        How many entries there are, and the hash of the last one.

    Raises:
        AuditChainError: naming the first entry that is wrong, and what happened to it.
    """
    mode = expected_mode(hybrid)
    mark = None if checkpoint is None else read_checkpoint(checkpoint, bundle, mode)
    lines = [read_line(line, number) for number, line in enumerate(split_lines(data))]
    _check_modes(lines, mode)
    _check_links(lines, bundle.id, start, before)
    _check_seals(lines, bundle.verifying_keys(), mode)
    head = lines[-1].leaf.hex() if lines else before
    if mark is not None:
        _check_mark(lines, start, before, mark)
    return len(lines), head


def verify_segments(
    segments: Iterable[bytes], bundle: PublicKeyBundle, hybrid: bool | None, checkpoint: bytes | None
) -> int:
    """Verify a chain that was cut into pieces, in their order from index 0; returns the number of entries."""
    pieces = [split_lines(segment) for segment in segments]
    at = 0
    for number, piece in enumerate(pieces):
        if not piece:
            continue
        first = read_line(piece[0], at).index
        if first != at:
            raise _fail(
                f"segment boundary mismatch: segment {number}: expected next index {at}, segment starts at {first}",
                None,
                "deleted",
            )
        at += len(piece)
    return verify_lines(b"\n".join(line for piece in pieces for line in piece), bundle, hybrid, checkpoint)[0]


def _check_modes(lines: Sequence[Line], mode: Mode) -> None:
    found = {line.mode for line in lines}
    if len(found) > 1:
        index = next(i for i, line in enumerate(lines) if line.mode != lines[0].mode)
        raise _fail("chain mode inconsistent: hybrid and pq entries in one chain (possible splice)", index, "spliced")
    if found and found != {mode}:
        expected, actual = ("true", "PQ-only") if mode == "hybrid" else ("false", "hybrid")
        raise AuditChainError(
            f"{PREFIX}: audit chain mode mismatch: caller expected hybrid={expected} but chain is {actual}",
            kind="downgraded",
        )


def _check_links(lines: Sequence[Line], key_id: str, start: int, before: str) -> None:
    if (
        lines
        and lines[0].index != start
        and start == 0
        and all(line.index == lines[0].index + i for i, line in enumerate(lines))
    ):
        raise _fail(
            f"full-chain verification expects the chain to start at index 0, got {lines[0].index}: deleted, or a segment",
            0,
            "deleted",
        )
    for number, line in enumerate(lines):
        index = start + number
        if line.index != index:
            raise _fail(*_misplaced(lines, number, index))
        if line.previous_hash != before:
            raise _fail(
                "hash chain broken: the entry before was altered, or this one comes from another chain (splice)",
                index,
                "spliced",
            )
        if line.key_id != key_id:
            raise _fail(f"signed by key {line.key_id[:300]!r}, not by {key_id!r}", index, "spliced")
        before = line.leaf.hex()


def _misplaced(lines: Sequence[Line], number: int, index: int) -> tuple[str, int, str]:
    """What happened where another index stands than should."""
    found = lines[number].index
    said = f"expected index {index}, got {found}"
    if found < index and any(line.leaf == lines[number].leaf for line in lines[:number]):
        return f"{said}: this entry stands here a second time (duplicated)", index, "duplicated"
    if any(line.index == index for line in lines[number + 1 :]):
        return f"{said}: entries are reordered", index, "reordered"
    return f"{said}: an entry was deleted", index, "deleted"


def _check_seals(lines: Sequence[Line], keys: VerifyingKeys, mode: Mode) -> None:
    open_from = 0
    for number, line in enumerate(lines):
        if line.seal is None:
            continue
        first = lines[open_from].index
        if line.seal.first != first:
            reason = f"its seal covers entries from {line.seal.first}, and those from {first} are unsealed"
            raise _fail(f"signature verification failed: {reason}", line.index, "altered")
        try:
            check_seal(line.seal, [one.leaf for one in lines[open_from : number + 1]], keys, mode)
        except CoseError as error:
            which = f" (in the batch from entry {first})" if first != line.index else ""
            raise _fail(f"{error}{which}", line.index, "altered") from None
        open_from = number + 1
    if open_from < len(lines):
        raise _fail(
            "no signature covers it: the chain is truncated within a batch", lines[open_from].index, "truncated"
        )


def _check_mark(lines: Sequence[Line], start: int, before: str, mark: Checkpoint) -> None:
    end = start + len(lines)
    if end < mark.length:
        raise _fail(f"truncated: the checkpoint says {mark.length} entries, there are {end}", None, "truncated")
    at = mark.length - start
    if at < 0:
        return
    found = before if at == 0 else lines[at - 1].leaf.hex()
    if found != mark.head_hash:
        raise _fail("the chain contradicts its checkpoint: it was rewritten", mark.length - 1, "rewritten")
