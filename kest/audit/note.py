"""Signed notes (c2sp.org/signed-note), checkpoints (c2sp.org/tlog-checkpoint), cosignatures (c2sp.org/tlog-cosignature)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kest._kestcore import PublicKey, Signer, sha256
from kest.errors import AuditProofError, ConfigurationError, KeyFormatError

__all__ = ["Checkpoint", "NoteKey", "SignedNote", "checkpoint_of", "note_line", "signer_of"]

ED25519, COSIGNATURE = 1, 4
"""Signature types: of a note's text, and of a checkpoint with the time at which a witness saw it."""

MAX_NOTE, MAX_SIGNATURES = 256 * 1024, 64
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z", re.ASCII)
_NAME = re.compile(r"[^\s+]+\Z")


def _bad(what: str, reason: str = "malformed") -> AuditProofError:
    return AuditProofError(what, reason)


def decode_base64(text: str, length: int | None = None) -> bytes:
    """Standard base64 in its one spelling (RFC 4648, section 4); AuditProofError for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("a signed note holds something that is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise _bad("a signed note holds base64 with stray bits")
    if length is not None and len(data) != length:
        raise _bad(f"a hash of {len(data)} bytes where {length} are expected")
    return data


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def decode_size(text: str) -> int:
    """A number in decimal digits without leading zeros, below 2^62."""
    if not _SIZE.match(text) or (number := int(text)) >= 1 << 62:
        raise _bad("a size or index is not a plain decimal number")
    return number


def checked_name(name: str) -> str:
    """A key name: not empty, no space, no plus."""
    if not _NAME.match(name) or not name.isprintable():
        raise ConfigurationError(f"a key name has no spaces, plus signs or control characters; {name!r} will not do")
    return name


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    return sha256(f"{name}\n".encode() + bytes([kind]) + public_key)[:4]


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key that signs notes under a name.

    Attributes:
        name: as it stands before the signature; a log's is its origin.
        raw: 32 bytes, Ed25519.
        kind: 1 for a log, 4 for a witness's cosignatures.
    """

    name: str
    raw: bytes
    kind: int = ED25519

    def __post_init__(self) -> None:
        checked_name(self.name)
        PublicKey.from_raw(self.raw)

    @classmethod
    def parse(cls, vkey: str) -> NoteKey:
        """From the text form ``name+id+key``.

        Raises:
            KeyFormatError: it is none, or of a kind that is not used here.
        """
        try:
            name, number, encoded = vkey.strip().split("+", 2)
            data = decode_base64(encoded)
            key = cls(name, data[1:], data[0])
            if key.kind not in (ED25519, COSIGNATURE) or bytes.fromhex(number) != key.id or number != number.lower():
                raise ValueError
        except (ValueError, IndexError, ConfigurationError):
            raise KeyFormatError(
                f"{vkey[:80]!r} is not a verifier key: name+hash+base64 (c2sp.org/signed-note), Ed25519"
            ) from None
        return key

    @property
    def id(self) -> bytes:
        """Four bytes that lead to the key, and prove nothing."""
        return key_id(self.name, self.kind, self.raw)

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.id.hex()}+{encode_base64(bytes([self.kind]) + self.raw)}"

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether this key made the signature of a note's text."""
        key = PublicKey.from_raw(self.raw)
        if self.kind == ED25519:
            return key.verify(text.encode(), signature)
        if len(signature) != 72 or (time := int.from_bytes(signature[:8], "big")) >= 1 << 63:
            return False
        return key.verify(cosigned_text(text, time), signature[8:])


def cosigned_text(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def signer_of(identity: Any) -> Signer:
    """The key of an identity that signs in this process.

    Raises:
        ConfigurationError: it does not, or not with Ed25519.
    """
    signer = identity if type(identity) is Signer else getattr(identity, "signer", None)
    if type(signer) is not Signer:
        raise ConfigurationError(
            f"a log is signed with an Ed25519 key in this process (StaticIdentity, LocalEd25519Provider); "
            f"{type(identity).__name__} has none"
        )
    return signer


def note_line(name: str, signer: Signer, text: str, *, time: int | None = None) -> str:
    """A signature line; with ``time`` (seconds since 1970) that of a witness."""
    if time is None:
        kind, signature = ED25519, signer.sign(text.encode())
    else:
        kind, signature = COSIGNATURE, time.to_bytes(8, "big") + signer.sign(cosigned_text(text, time))
    return f"— {name} {encode_base64(key_id(name, kind, signer.public_key) + signature)}\n"


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A note taken apart; nothing in it is verified yet."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]
    """Name, key id, signature."""

    @classmethod
    def parse(cls, data: str | bytes) -> SignedNote:
        """Raises:
        AuditProofError: it is no signed note.
        """
        if len(data) > MAX_NOTE:
            raise _bad(f"a signed note of more than {MAX_NOTE} bytes")
        if isinstance(data, bytes):
            try:
                data = data.decode()
            except UnicodeDecodeError:
                raise _bad("a signed note is UTF-8, this is not") from None
        if any(ch < " " and ch != "\n" for ch in data):
            raise _bad("a signed note holds control characters")
        at = data.rfind("\n\n")
        if at < 0 or not data.endswith("\n"):
            raise _bad("not a signed note: there are no signature lines after an empty one")
        lines = data[at + 2 : -1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise _bad(f"a signed note with more than {MAX_SIGNATURES} signatures")
        return cls(data[: at + 1], tuple(_signature(line) for line in lines))

    def verified_by(self, keys: Iterable[NoteKey]) -> list[tuple[NoteKey, int | None]]:
        """Which of these keys signed it, each with the time that a witness gives.

        Raises:
            AuditProofError: a signature under one of these names and ids is wrong: the note is not what was signed.
        """
        known = {(key.name, key.id): key for key in keys}
        found: dict[NoteKey, int | None] = {}
        for name, number, signature in self.signatures:
            key = known.get((name, number))
            if key is None or key in found:
                continue
            if not key.verify(self.text, signature):
                raise AuditProofError(f"the signature of {name} does not match the note", "signature")
            found[key] = int.from_bytes(signature[:8], "big") if key.kind == COSIGNATURE else None
        return list(found.items())


def _signature(line: str) -> tuple[str, bytes, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _NAME.match(parts[1]):
        raise _bad("not a signature line: an em dash, a name and base64 are expected")
    data = decode_base64(parts[2])
    if len(data) < 5:
        raise _bad("a signature is shorter than its key's id")
    return parts[1], data[:4], data[4:]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log that somebody has signed.

    Attributes:
        origin: which log.
        size: how many records.
        root: the tree hash over them (RFC 9162, section 2.1.1), 32 bytes.
        note: the signed note as it was read.
        witnesses: who cosigned it, with the time in seconds since 1970, of those whose keys were given.
    """

    origin: str
    size: int
    root: bytes
    note: str
    witnesses: tuple[tuple[str, int], ...] = ()

    @property
    def text(self) -> str:
        """What is signed."""
        return self.note[: self.note.rfind("\n\n") + 1]

    @classmethod
    def unverified(cls, data: str | bytes) -> Checkpoint:
        """Read a checkpoint whoever signed it: what it says of itself.

        Raises:
            AuditProofError: it is none.
        """
        note = SignedNote.parse(data)
        return cls(*checkpoint_of(note.text), data if isinstance(data, str) else data.decode())

    @classmethod
    def verify(cls, data: str | bytes, key: NoteKey, witnesses: Iterable[NoteKey] = (), quorum: int = 0) -> Checkpoint:
        """Read a checkpoint and check who signed it.

        Args:
            data: the signed note.
            key: the log's; its name is the origin that is expected.
            witnesses: keys of witnesses that are believed.
            quorum: how many of them must have cosigned.

        Raises:
            AuditProofError: malformed, of another log, or not signed as it should be (``reason`` ``"origin"``,
                ``"signature"``, ``"quorum"`` or ``"malformed"``).
        """
        note = SignedNote.parse(data)
        origin, size, root = checkpoint_of(note.text)
        if origin != key.name:
            raise AuditProofError(f"a checkpoint of {origin!r}, not of {key.name!r}", "origin")
        signed = dict(note.verified_by([key, *witnesses]))
        if key not in signed:
            raise AuditProofError(f"the checkpoint is not signed by {key.name}", "signature")
        seen = tuple((one.name, time) for one, time in signed.items() if time is not None)
        if len({name for name, _ in seen}) < quorum:
            raise AuditProofError(f"{len(seen)} of the {quorum} witnesses that are wanted have cosigned", "quorum")
        return cls(origin, size, root, data if isinstance(data, str) else data.decode(), seen)


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    return f"{origin}\n{size}\n{encode_base64(root)}\n"


def checkpoint_of(text: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a note's text. Extension lines may follow; they say nothing to us."""
    lines = text.split("\n")
    if len(lines) < 4 or not all(lines[:-1]):
        raise _bad("not a checkpoint: origin, size and root, each on a line, are expected")
    return lines[0], decode_size(lines[1]), decode_base64(lines[2], 32)
