"""Sealed messages: what is on the wire, and the keys they are sealed with.

A message is deterministic CBOR: ``["KSC1", kind, recipient, kem_ciphertext, ephemeral_key, sealed]``. The sealed part is
``[signed header or header, data]`` under XChaCha20-Poly1305. Its key and nonce come from HKDF-SHA-256 over the
ML-KEM-768 and the X25519 secret, with everything before the sealed part, both parties' ids and the recipient's public
keys as context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kest._kestcore import aead_open, aead_seal, sha256
from kest.errors import ChannelError
from kest.gate.crypto import cbor, pq
from kest.gate.crypto.bundles import PublicKeyBundle
from kest.gate.crypto.cose import Kind
from kest.gate.crypto.keys import KeyPair

__all__ = ["DATA", "HEADER", "OPENING", "SIGNED", "Header", "Sealed", "Secret", "open_message", "seal_message", "start"]

MAGIC = "KSC1"
DATA, SIGNED, OPENING = 0, 1, 2
HEADER = Kind("kest-channel+cbor", b"kest.gate secure channel v1")
_LABEL = b"kest.gate channel v1"
MAX_MESSAGE = 1 << 30


@dataclass(frozen=True)
class Header:
    """What is authenticated about a message beside its data."""

    sender: str
    recipient: str
    context: str
    correlation: str
    stream: bytes
    sequence: int
    time_ms: int
    digest: bytes
    binding: bytes

    def encode(self) -> bytes:
        """Its bytes: what is signed."""
        return cbor.encode(
            {
                "bnd": self.binding, "cor": self.correlation, "ctx": self.context, "dig": self.digest, "rcp": self.recipient,
                "seq": self.sequence, "snd": self.sender, "str": self.stream, "tms": self.time_ms,
            }
        )  # fmt: skip

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header of these bytes.

        Raises:
            ChannelError: they are none.
        """
        kinds = {
            "bnd": bytes, "cor": str, "ctx": str, "dig": bytes, "rcp": str, "seq": int, "snd": str, "str": bytes, "tms": int,
        }  # fmt: skip
        try:
            members = cbor.decode(data)
        except cbor.CBORError as error:
            raise ChannelError(f"sealed payload parse failed: header: {error}") from None
        if type(members) is not dict or set(members) != set(kinds):
            raise ChannelError("sealed payload parse failed: header: a member is missing or unknown")
        if any(type(members[name]) is not kind for name, kind in kinds.items()) or len(members["str"]) != 16:
            raise ChannelError("sealed payload parse failed: header: a member is of the wrong type")
        m: Any = members
        return cls(m["snd"], m["rcp"], m["ctx"], m["cor"], m["str"], m["seq"], m["tms"], m["dig"], m["bnd"])


@dataclass(frozen=True, repr=False)
class Secret:
    """The shared secret of one encapsulation, and what it is bound to."""

    shared: bytes
    transcript: bytes

    def derive(self, purpose: bytes, length: int) -> bytes:
        """Bytes for one purpose."""
        return pq.hkdf(self.shared, self.transcript, _LABEL + b" " + purpose, length)

    @property
    def binding(self) -> bytes:
        """What a signed header names, so that it cannot be moved into another envelope."""
        return self.transcript


@dataclass(frozen=True, repr=False)
class Sealed:
    """A message before or after its sealed part."""

    secret: Secret
    ahead: bytes


def _transcript(ahead: bytes, sender: str, recipient: PublicKeyBundle) -> bytes:
    parts = (
        _LABEL,
        ahead,
        sender.encode(),
        recipient.id.encode(),
        recipient.ml_kem_encapsulation_key,
        recipient.x25519_public_key,
    )
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts))


def _ahead(kind: int, recipient: str, ciphertext: bytes, ephemeral: bytes) -> bytes:
    return b"\x86" + b"".join(map(cbor.encode, (MAGIC, kind, recipient, ciphertext, ephemeral)))


def start(kind: int, sender: str, recipient: PublicKeyBundle) -> Sealed:
    """A new message for a recipient: one encapsulation, one ephemeral X25519 key."""
    secret, ciphertext = pq.encapsulate(recipient.ml_kem_encapsulation_key)
    ephemeral = pq.x25519()
    try:
        shared = secret + ephemeral.exchange(pq.x25519_public(recipient.x25519_public_key))
    except ValueError:
        raise ChannelError("the recipient's X25519 key is not one that can be used") from None
    ahead = _ahead(kind, recipient.id, ciphertext, ephemeral.public_key().public_bytes_raw())
    return Sealed(Secret(shared, _transcript(ahead, sender, recipient)), ahead)


def seal_message(message: Sealed, header: bytes, data: bytes) -> bytes:
    """The whole message."""
    key = message.secret.derive(b"message", 56)
    plain = b"\x82" + cbor.head(0x40, len(header)) + header + cbor.head(0x40, len(data)) + data
    sealed = aead_seal(key[:32], key[32:], plain, message.ahead)
    return message.ahead + cbor.head(0x40, len(sealed)) + sealed


def open_message(data: bytes, kind: int, sender: str, keypair: KeyPair) -> tuple[Secret, bytes, bytes]:
    """The secret, the header (signed or not) and the data of a message of this kind for this key pair.

    Raises:
        ChannelError: it is none.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"a sealed message is bytes, not {type(data).__name__}")
    try:
        parts = cbor.decode(data)
    except cbor.CBORError as error:
        raise ChannelError(f"sealed payload parse failed: {error}") from None
    if (
        type(parts) is not list
        or len(parts) != 6
        or [type(part) for part in parts] != [str, int, str, bytes, bytes, bytes]
    ):
        raise ChannelError("sealed payload parse failed: not a sealed message")
    magic, found, recipient, ciphertext, ephemeral, sealed = parts
    if magic != MAGIC or found not in (DATA, SIGNED, OPENING):
        raise ChannelError("sealed payload parse failed: not a sealed message of this version")
    if recipient != keypair.id:
        raise ChannelError(f"recipient key id mismatch: sealed for {recipient[:300]!r}, this is {keypair.id!r}")
    if found != kind:
        raise ChannelError(f"sealed payload is {_NAMES[found]}, expected {_NAMES[kind]}")
    if len(ciphertext) != pq.ML_KEM_CT_LEN or len(ephemeral) != 32:
        raise ChannelError("sealed payload parse failed: a key is of the wrong length")
    try:
        shared = keypair.decapsulate(ciphertext, ephemeral)
    except ValueError:
        raise ChannelError("decryption failed: the ephemeral key is not one that can be used") from None
    ahead = _ahead(found, recipient, ciphertext, ephemeral)
    secret = Secret(shared, _transcript(ahead, sender, keypair.public_keys()))
    key = secret.derive(b"message", 56)
    plain = aead_open(key[:32], key[32:], sealed, ahead)
    if plain is None:
        raise ChannelError("decryption failed: altered, or not from this sender to this recipient")
    return secret, *_inner(plain)


def _inner(plain: bytes) -> tuple[bytes, bytes]:
    try:
        parts = cbor.decode(plain)
    except cbor.CBORError as error:
        raise ChannelError(f"sealed payload parse failed: {error}") from None
    if type(parts) is not list or [type(part) for part in parts] != [bytes, bytes]:
        raise ChannelError("sealed payload parse failed: its content is malformed")
    header, content = parts
    return header, content


_NAMES = {DATA: "unsigned data", SIGNED: "a signed message", OPENING: "the opening of a session"}
