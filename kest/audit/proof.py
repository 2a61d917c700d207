"""Proofs that travel alone (c2sp.org/tlog-proof): a record, why it is in the log, and what the log says of its key.

``extra`` is base64 of canonical JSON: ``record``, the leaf; ``large``, what it stands for if it stands for something;
``events``, the key events of its signer, each with a proof of its own under the same checkpoint. None is
believed unproved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kest._kestcore import canonicalize, parse, sha256, tlog_leaf, tlog_verify_consistency, tlog_verify_inclusion
from kest.audit.facts import judge
from kest.audit.keys import KeyBook, Verdict
from kest.audit.note import Checkpoint, NoteKey, decode_base64, decode_size, encode_base64
from kest.audit.records import Record
from kest.errors import AuditProofError, JSONSyntaxError, KestError

if TYPE_CHECKING:
    from kest.audit.reader import AuditReader

__all__ = ["Proof", "VerifiedProof", "make_proof", "verify_consistency", "verify_proof"]

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF, MAX_HASHES, MAX_EVENTS = 128 << 20, 64, 1000


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof file taken apart; nothing in it is verified."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    @classmethod
    def parse(cls, text: str | bytes) -> Proof:
        """Raises:
        AuditProofError: it is no proof file.
        """
        if len(text) > MAX_PROOF:
            raise AuditProofError("a proof file of more than 128 MiB", "malformed")
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeDecodeError:
                raise AuditProofError("a proof file is UTF-8, this is not", "malformed") from None
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not blank or lines[0] != HEADER:
            raise AuditProofError(f"not a proof file: its first line is not {HEADER}", "malformed")
        del lines[0]
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0)[6:])
        if not lines or not lines[0].startswith("index "):
            raise AuditProofError("not a proof file: there is no index", "malformed")
        index = decode_size(lines.pop(0)[6:])
        if len(lines) > MAX_HASHES:
            raise AuditProofError("a proof of more hashes than any tree is deep", "malformed")
        return cls(index, tuple(decode_base64(line, 32) for line in lines), checkpoint, extra)

    def __str__(self) -> str:
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_base64(one) for one in self.hashes]
        return "\n".join(lines) + "\n\n" + self.checkpoint

    def includes(self, leaf: bytes, checkpoint: Checkpoint) -> bool:
        """Whether it leads from the leaf's hash to the root."""
        return tlog_verify_inclusion(self.index, checkpoint.size, leaf, b"".join(self.hashes), checkpoint.root)


@dataclass(frozen=True, slots=True)
class VerifiedProof:
    """What a proof has proved: that the record is in the log, and what its signature is worth.

    Attributes:
        record: what was proved.
        checkpoint: under which, with the witnesses that cosigned it.
        verdict: of the record's signature, as far as the key events in the proof say.
    """

    record: Record
    checkpoint: Checkpoint
    verdict: Verdict


def make_proof(reader: AuditReader, record: Record) -> str:
    """The proof file of a record that the reader's checkpoint covers."""
    extra: dict[str, Any] = {"record": encode_base64(record.leaf)}
    if record.body is not record.leaf and record.body != record.leaf:
        extra["large"] = encode_base64(record.body)
    events = [
        {
            "index": index,
            "proof": [encode_base64(one) for one in reader.tiles.inclusion(index)],
            "record": encode_base64(reader.record(index).leaf),
        }
        for index in reader.key_events(record.signer if record.readable else "")
    ]
    if events:
        extra["events"] = events
    hashes = tuple(reader.tiles.inclusion(record.index))
    return str(Proof(record.index, hashes, reader.checkpoint.note, canonicalize(extra)))


def verify_proof(
    proof: str | bytes,
    key: Any,
    keys: Any = None,
    *,
    record: str | bytes | None = None,
    origin: str | None = None,
    witnesses: Iterable[Any] = (),
    quorum: int = 0,
) -> VerifiedProof:
    """Verify a proof file, with nothing but keys.

    Args:
        proof: the file's content.
        key: the log's, see `log_key`.
        keys: of the record's signer: a `TrustStore`, or a mapping of principals to keys.
        record: the record that it should be about; by default the one that comes with it.
        witnesses, quorum: whose cosignatures count, and how many there must be.

    Raises:
        AuditProofError: it proves nothing: malformed, not of this log, not signed as it should be, of another record, or
            the hashes do not lead to the root (``reason`` ``"inclusion"``). A record that is in the log although its
            signature is worth nothing is no error: see ``verdict``.
    """
    from kest.audit.reader import log_key

    parsed = Proof.parse(proof)
    log = log_key(key, origin)
    checkpoint = Checkpoint.verify(parsed.checkpoint, log, [log_key(one) for one in witnesses], quorum)
    extra = _extra(parsed)
    wanted = None if record is None else record.encode() if isinstance(record, str) else bytes(record)
    leaf, body = _leaf(extra, wanted)
    if not parsed.includes(tlog_leaf(leaf), checkpoint):
        raise AuditProofError(
            f"the proof does not lead from record {parsed.index} to the root that was signed", "inclusion"
        )
    proved = Record(parsed.index, leaf, body)
    return VerifiedProof(proved, checkpoint, _verdict(proved, checkpoint, log, keys, extra))


def verify_consistency(old: Checkpoint, new: Checkpoint, proof: Iterable[bytes]) -> None:
    """Raise AuditProofError (``reason`` ``"consistency"``) unless ``new`` is ``old`` with records added at its end."""
    hashes = b"".join(proof)
    if old.origin != new.origin:
        raise AuditProofError("the checkpoints are of two logs", "origin")
    if not tlog_verify_consistency(old.size, new.size, old.root, hashes, new.root):
        raise AuditProofError(
            f"the log of {new.size} records does not extend the one of {old.size}: one of them is a lie", "consistency"
        )


def _extra(proof: Proof) -> dict[str, Any]:
    if proof.extra is None:
        return {}
    try:
        extra = parse(proof.extra)
    except (JSONSyntaxError, ValueError):
        extra = None
    if not isinstance(extra, dict):
        raise AuditProofError("the extra data of the proof is not Kest's", "malformed")
    return extra


def _field(members: dict[str, Any], name: str) -> bytes | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise AuditProofError("the extra data of the proof is not Kest's", "malformed")
    return decode_base64(value)


def _leaf(extra: dict[str, Any], wanted: bytes | None) -> tuple[bytes, bytes]:
    leaf, large = _field(extra, "record"), _field(extra, "large")
    if leaf is None:
        if wanted is None:
            raise AuditProofError("the proof comes without its record: pass record=", "record")
        leaf = wanted
    body = leaf
    if large is not None:
        try:
            said = parse(leaf)
            fits = isinstance(said, dict) and said.get("sha256") == sha256(large).hex() and said.get("kest") == "large"
        except (KestError, ValueError):
            fits = False
        if not fits:
            raise AuditProofError("the record is not the one that the log names by its hash", "record")
        body = large
    if wanted is not None and wanted not in (leaf, body):
        raise AuditProofError("the proof is of another record", "record")
    return leaf, body


def _verdict(record: Record, checkpoint: Checkpoint, log: NoteKey, keys: Any, extra: dict[str, Any]) -> Verdict:
    book = KeyBook.of(log, keys)
    events = extra.get("events", [])
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise AuditProofError("the extra data of the proof is not Kest's", "malformed")
    before = -1
    for event in events:
        one = _event(event, checkpoint)
        if one.index <= before:
            raise AuditProofError("the key events of the proof are not in order", "malformed")
        before = one.index
        verdict, life = judge(one, book)
        if life is not None and verdict.good and one.kind == "key":
            book.apply(one, life)
    return judge(record, book)[0]


def _event(event: Any, checkpoint: Checkpoint) -> Record:
    try:
        leaf, index = decode_base64(event["record"]), event["index"]
        hashes = b"".join(decode_base64(one, 32) for one in event["proof"])
        if type(index) is not int or not 0 <= index < checkpoint.size or len(hashes) > 32 * MAX_HASHES:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise AuditProofError("a key event of the proof is malformed", "malformed") from None
    if not tlog_verify_inclusion(index, checkpoint.size, tlog_leaf(leaf), hashes, checkpoint.root):
        raise AuditProofError(f"the key event {index} of the proof is not in the log", "inclusion")
    return Record(index, leaf, leaf)
