"""The lines of a signed audit chain, and how they are bound to each other.

A line is the canonical JSON (RFC 8785) of ``{"entry": {...}}``, and of ``{"entry": {...}, "seal": {...}}`` where a signature
ends a batch. The hash of an entry is the Merkle leaf of its canonical JSON; the next entry names it. A seal signs the
Merkle root over the entries that it covers, so that one post-quantum signature serves many entries and each can still
be proven alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kest._kestcore import b64url_decode, b64url_encode, canonicalize, parse
from kest.errors import AuditChainError, CanonicalizationError, GateInputError, KestError
from kest.gate.crypto import cbor, cose
from kest.gate.crypto.cose import ED25519, ML_DSA_65, Algorithm, Kind, SigningKeys, VerifyingKeys
from kest.gate.crypto.merkle import leaf_hash, root_of

__all__ = [
    "CHECKPOINT",
    "GENESIS",
    "MAX_BATCH",
    "MAX_LINE",
    "MODES",
    "Line",
    "Mode",
    "Seal",
    "check_seal",
    "entry_body",
    "join_lines",
    "line_bytes",
    "make_seal",
    "read_line",
    "split_lines",
]

SEAL = Kind("kest-audit-seal+cbor", b"kest.gate audit seal v1")
CHECKPOINT = Kind("kest-audit-checkpoint+cbor", b"kest.gate audit checkpoint v1")
GENESIS = "genesis"
MAX_BATCH = 4_096
MAX_LINE = 1 << 20

Mode = Literal["hybrid", "pq"]
MODES: dict[Mode, Algorithm] = {"hybrid": "ml-dsa-65+ed25519", "pq": "ml-dsa-65"}

_MEMBERS = {"index", "previous_hash", "key_id", "mode", "time_ms", "content"}
_SIGNATURES = {ED25519: "ed25519", ML_DSA_65: "ml_dsa_65"}


@dataclass(frozen=True)
class Seal:
    """The signature over a batch. ``first``: index of the first entry that it covers."""

    first: int
    signatures: dict[int, bytes]

    def to_dict(self) -> dict[str, Any]:
        """Its members in a line."""
        texts = {_SIGNATURES[number]: b64url_encode(signature) for number, signature in self.signatures.items()}
        return {"first": self.first, **texts}


@dataclass(frozen=True)
class Line:
    """A line that was read; nothing of it is verified."""

    index: int
    previous_hash: str
    key_id: str
    mode: Mode
    time_ms: int
    content: dict[str, Any]
    leaf: bytes
    seal: Seal | None


def entry_body(index: int, previous_hash: str, key_id: str, mode: Mode, time_ms: int, content: dict[str, Any]) -> bytes:
    """The canonical JSON of an entry.

    Raises:
        GateInputError: its content has no canonical form, or is too large.
    """
    body = {
        "index": index,
        "previous_hash": previous_hash,
        "key_id": key_id,
        "mode": mode,
        "time_ms": time_ms,
        "content": content,
    }
    try:
        data = canonicalize(body)
    except CanonicalizationError as error:
        raise GateInputError(f"an audit entry must be JSON: {error}") from None
    if len(data) > MAX_LINE - 8192:
        raise GateInputError(f"an audit entry of {len(data)} bytes is too large: put a hash of the data into it")
    return data


def line_bytes(body: bytes, seal: Seal | None) -> bytes:
    """A line without its end."""
    return b'{"entry":' + body + (b"" if seal is None else b',"seal":' + canonicalize(seal.to_dict())) + b"}"


def _sealed_payload(first: int, count: int, root: bytes, head: str) -> bytes:
    return cbor.encode({"count": count, "first": first, "head": head, "root": root})


def make_seal(keys: SigningKeys, first: int, leaves: list[bytes]) -> Seal:
    """Sign a batch of entries by their leaf hashes."""
    _, signatures = cose.sign(keys, SEAL, _sealed_payload(first, len(leaves), root_of(leaves), leaves[-1].hex()))
    return Seal(first, signatures)


def check_seal(seal: Seal, leaves: list[bytes], keys: VerifyingKeys, mode: Mode) -> None:
    """Verify a batch.

    Raises:
        CoseError: a signature is wrong.
    """
    protected = cose.protected_header(keys.key_id, MODES[mode], SEAL)
    payload = _sealed_payload(seal.first, len(leaves), root_of(leaves), leaves[-1].hex())
    cose.check(protected, payload, seal.signatures, keys, SEAL)


def split_lines(data: bytes) -> Iterator[bytes]:
    """The lines that are not blank, one by one: chains are large, and no step may hold the interpreter's lock for long."""
    if not isinstance(data, bytes):
        raise TypeError(f"a chain is bytes of JSON lines, not {type(data).__name__}")
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[at:end]
        if line.strip():
            yield line.rstrip(b"\r")
        at = end + 1


def join_lines(lines: Iterable[bytes]) -> bytes:
    """The lines with their ends, put together step by step."""
    out = io.BytesIO()
    for line in lines:
        out.write(line)
        out.write(b"\n")
    return out.getvalue()


def read_line(line: bytes, number: int) -> Line:
    """Read a line strictly: canonical, nothing missing, nothing unknown.

    Args:
        line: without its end.
        number: zero-based, for the message.

    Raises:
        AuditChainError: it is none.
    """
    try:
        if len(line) > MAX_LINE:
            raise ValueError("longer than a line can be")
        whole = parse(line)
        if not isinstance(whole, dict) or not {"entry"} <= set(whole) <= {"entry", "seal"}:
            raise ValueError("neither an entry nor an entry with a seal")
        if canonicalize(whole) != line:
            raise ValueError("not canonical JSON")
        entry = whole["entry"]
        if not isinstance(entry, dict) or set(entry) != _MEMBERS:
            raise ValueError("a member is missing or unknown")
        _check_members(entry)
        leaf = leaf_hash(canonicalize(entry))
        return Line(leaf=leaf, seal=_read_seal(whole["seal"], entry) if "seal" in whole else None, **entry)
    except (KestError, ValueError) as error:
        if isinstance(error, AuditChainError):
            raise
        reason = f"audit chain parse failed: parse failed at entry {number}: {error}"
        raise AuditChainError(f"audit chain verification failed: {reason}", index=number) from None


def _check_members(entry: dict[str, Any]) -> None:
    index, before, time_ms = entry["index"], entry["previous_hash"], entry["time_ms"]
    if type(index) is not int or index < 0 or type(time_ms) is not int:
        raise ValueError("index or time_ms is no int")
    if type(before) is not str or (before != GENESIS and len(before) != 64):
        raise ValueError("previous_hash is no hash")
    if type(entry["content"]) is not dict or type(entry["key_id"]) is not str or type(entry["mode"]) is not str:
        raise ValueError("a member is of the wrong type")
    if entry["mode"] not in MODES:
        raise ValueError("mode is neither hybrid nor pq")


def _read_seal(seal: Any, entry: dict[str, Any]) -> Seal:
    numbers = cose.ALGORITHMS[MODES[entry["mode"]]]
    if not isinstance(seal, dict):
        raise ValueError("the seal is no object")
    names = {"first", *(_SIGNATURES[number] for number in numbers)}
    if set(seal) != names:
        missing = sorted(names - set(seal))
        if missing and set(seal) < names:
            which = f"entry {entry['index']}: downgraded: a {entry['mode']} seal without {missing[0]}"
            raise AuditChainError(f"audit chain verification failed: {which}", index=entry["index"], kind="downgraded")
        raise ValueError("a member of the seal is unknown")
    first = seal["first"]
    if type(first) is not int or not 0 <= first <= entry["index"] or entry["index"] - first >= MAX_BATCH:
        raise ValueError("the seal covers what it cannot")
    texts = {number: seal[_SIGNATURES[number]] for number in numbers}
    if any(type(text) is not str for text in texts.values()):
        raise ValueError("a signature is no text")
    return Seal(first, {number: b64url_decode(text) for number, text in texts.items()})
