"""SecureChannel: signed and sealed messages between two key pairs."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from kest._kestcore import sha256
from kest.errors import ChannelError, GateInputError, ReplayStoreError, SigningError
from kest.gate.crypto import clock, cose
from kest.gate.crypto.bundles import PublicKeyBundle
from kest.gate.crypto.channel_format import (
    DATA,
    HEADER,
    OPENING,
    SIGNED,
    Header,
    Secret,
    open_message,
    seal_message,
    start,
)
from kest.gate.crypto.cose import HYBRID, CoseError
from kest.gate.crypto.keys import KeyPair
from kest.gate.crypto.replay_store import FileReplayStore, InMemoryReplayStore, ReplayStore, replay_key

if TYPE_CHECKING:
    from kest.gate.crypto.channel_session import ChannelSession

__all__ = ["ReceivedMessage", "SecureChannel"]

MAX_AGE = 300.0
SKEW_MS = 5_000
MAX_TEXT = 1_024


class _ProcessMemory:
    """What was received in this process, for channels without a store of their own; and since when that is known."""

    def __init__(self) -> None:
        self.store = InMemoryReplayStore()
        self.since_ms = int(clock.now() * 1000)


_memory = _ProcessMemory()


@final
@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message that was verified.

    Attributes:
        data: what was sent.
        context_id, correlation_id: as the sender gave them.
        sender: key id; empty for unsigned data, whose sender nothing proves.
        sequence: counts a channel object's messages from 0.
        sent_at: Unix seconds by the sender's clock.
    """

    data: bytes
    context_id: str
    correlation_id: str
    sender: str
    sequence: int
    sent_at: float


@final
class SecureChannel:
    """One end of a channel. Messages are sealed for the other end (ML-KEM-768 and X25519 together) and signed (Ed25519 and
    ML-DSA-65 together); sender, recipient, context, correlation id, sequence and time are authenticated. Thread-safe.

    Args:
        local_keypair: this end.
        remote_bundle: the other end.
        replay_store: where received messages are remembered: a `ReplayStore`, or the path of a file that survives restarts.
            Without one the memory of this process serves, and messages from before it began are refused, because they may
            have been received by an earlier process.
        max_age: seconds after which a message is refused, so that the memory of a store is bounded.
    """

    def __init__(
        self,
        local_keypair: KeyPair,
        remote_bundle: PublicKeyBundle,
        *,
        replay_store: ReplayStore | str | Path | None = None,
        max_age: float = MAX_AGE,
    ) -> None:
        if not isinstance(local_keypair, KeyPair):
            raise TypeError(f"local_keypair is a KeyPair, not {type(local_keypair).__name__}")
        if not isinstance(remote_bundle, PublicKeyBundle):
            raise TypeError(f"remote_bundle is a PublicKeyBundle, not {type(remote_bundle).__name__}")
        if not 0 < max_age <= 30 * 86_400:
            raise GateInputError("max_age is positive and at most 30 days, in seconds")
        self._local, self._remote, self._max_age_ms = local_keypair, remote_bundle, int(max_age * 1000)
        store: Any = FileReplayStore(replay_store) if isinstance(replay_store, (str, Path)) else replay_store
        if store is not None and not callable(getattr(store, "first_use", None)):
            raise GateInputError("replay_store is a path or has a method first_use(key, expires_at)")
        self._store: ReplayStore = _memory.store if store is None else store
        self._since_ms = _memory.since_ms if store is None else None
        self._sender = (os.getpid(), os.urandom(16), itertools.count())
        self._check_keys()

    @property
    def local_key_id(self) -> str:
        """Id of this end."""
        return self._local.id

    @property
    def remote_key_id(self) -> str:
        """Id of the other end."""
        return self._remote.id

    # --- sending ---

    def send_signed(self, data: bytes, context_id: str, correlation_id: str = "") -> bytes:
        """Sign and seal.

        Args:
            data: up to 1 GiB; the message is about 5 kB longer.
            context_id: what the message is for; the receiver must expect the same.
            correlation_id: for the application, authenticated.

        Raises:
            SigningError: a key has expired.
        """
        return self._send(SIGNED, data, context_id, correlation_id)[1]

    def send_data(self, data: bytes) -> bytes:
        """Seal without a signature, for callers who sign what they send: the receiver learns nothing about who sent it."""
        return self._send(DATA, data, "", "")[1]

    def _send(self, kind: int, data: bytes, context: str, correlation: str) -> tuple[Secret, bytes]:
        self._check_keys()
        content = _content(data)
        stream, number = self._next()
        sealed = start(kind, self._local.id, self._remote)
        header = Header(
            self._local.id, self._remote.id, _text(context, "context_id"), _text(correlation, "correlation_id"), stream,
            number, int(clock.now() * 1000), sha256(content), sealed.secret.binding,
        ).encode()  # fmt: skip
        if kind != DATA:
            protected, signatures = cose.sign(self._local.signing_keys(HYBRID), HEADER, header)
            header = cose.build(protected, header, signatures)
        return sealed.secret, seal_message(sealed, header, content)

    def _next(self) -> tuple[bytes, int]:
        """A message's number. The child of a fork counts for itself: its messages would look like replays otherwise."""
        if self._sender[0] != os.getpid():
            self._sender = (os.getpid(), os.urandom(16), itertools.count())
        return self._sender[1], next(self._sender[2])

    # --- receiving ---

    def receive_signed(self, sealed: bytes, expected_context_id: str) -> bytes:
        """The data of a message; see `receive`."""
        return self.receive(sealed, expected_context_id).data

    def receive(self, sealed: bytes, expected_context_id: str) -> ReceivedMessage:
        """Open and verify a message, once.

        Raises:
            ChannelError: (a ValueError) it is not for this end, not from the other, altered, too old, of another
                context, or was received before. Only a message that passes everything else is remembered.
        """
        _text(expected_context_id, "expected_context_id")
        return self._receive(SIGNED, sealed, expected_context_id)[1]

    def receive_data(self, sealed: bytes) -> bytes:
        """The data of an unsigned message, once. Signed ones are refused: they have a context that must be expected."""
        return self._receive(DATA, sealed, "")[1].data

    def _receive(self, kind: int, sealed: bytes, context: str) -> tuple[Secret, ReceivedMessage]:
        try:
            self._check_keys()
        except SigningError as error:
            raise ChannelError(f"receive failed: {error}") from None
        secret, encoded, data = open_message(sealed, kind, self._remote.id, self._local)
        header = Header.decode(encoded if kind == DATA else self._verified(encoded))
        if header.binding != secret.binding:
            raise ChannelError("signature verification failed: the header belongs to another envelope")
        if header.sender != self._remote.id or header.recipient != self._local.id:
            raise ChannelError("signature verification failed: the header names other parties")
        if header.digest != sha256(data):
            raise ChannelError("signature verification failed: the header belongs to other data")
        if header.context != context:
            raise ChannelError(
                f"context mismatch: signed payload context is {header.context[:200]!r}, expected {context[:200]!r}"
            )
        self._check_fresh(header)
        sender = "" if kind == DATA else header.sender
        message = ReceivedMessage(data, context, header.correlation, sender, header.sequence, header.time_ms / 1000)
        return secret, message

    def _verified(self, envelope: bytes) -> bytes:
        try:
            parsed = cose.parse(envelope, HEADER)
            if parsed.algorithm != HYBRID or parsed.key_id != self._remote.id or parsed.header:
                raise CoseError("signature verification failed: not a hybrid signature of the other end")
            cose.check(parsed.protected, parsed.payload, parsed.signatures, self._remote.verifying_keys(), HEADER)
        except CoseError as error:
            raise ChannelError(str(error)) from None
        return parsed.payload

    def _check_fresh(self, header: Header) -> None:
        now_ms = int(clock.now() * 1000)
        if header.time_ms > now_ms + SKEW_MS:
            raise ChannelError("the message comes from the future: check the clocks")
        if header.time_ms < now_ms - self._max_age_ms:
            raise ChannelError(f"the message expired: it is older than {self._max_age_ms / 1000:.0f} s")
        if self._since_ms is not None and header.time_ms < self._since_ms:
            raise ChannelError(
                "possible replay: the message is older than this process's memory of messages: give the channel a "
                "replay_store"
            )
        key = replay_key("channel", header.sender, header.recipient, header.stream, str(header.sequence))
        try:
            first = self._store.first_use(key, (header.time_ms + self._max_age_ms + SKEW_MS) / 1000)
        except ReplayStoreError as error:
            raise ChannelError(f"replay cannot be ruled out: {error}") from error
        if first is not True:
            raise ChannelError(f"replay detected: nonce {header.stream.hex()}/{header.sequence} already seen")

    # --- sessions ---

    def session(self, context_id: str, correlation_id: str = "") -> ChannelSession:
        """Begin a session of many messages: send its ``opening`` first, which the other end hands to `accept`.

        One encapsulation and one signature serve for all; each message then costs 22 bytes and a few microseconds, and its
        key is replaced once it is read: who takes over a process cannot read what went before. Whoever recorded the opening
        and later steals the accepting end's key pair can, so replace key pairs in good time (`KeyPair.generate_with_expiry`).
        """
        from kest.gate.crypto.channel_session import begin

        return begin(self, context_id, correlation_id)

    def accept(self, opening: bytes, expected_context_id: str) -> ChannelSession:
        """The other end of a session.

        Raises:
            ChannelError: see `receive`.
        """
        from kest.gate.crypto.channel_session import accept

        return accept(self, opening, expected_context_id)

    def _open_session(self, context: str, correlation: str, data: bytes) -> tuple[Secret, bytes]:
        return self._send(OPENING, data, context, correlation)

    def _accept_session(self, opening: bytes, context: str) -> tuple[Secret, ReceivedMessage]:
        _text(context, "expected_context_id")
        return self._receive(OPENING, opening, context)

    def _check_keys(self) -> None:
        """Raise SigningError when either end's key has expired."""
        self._local.check_usable()
        if self._remote.is_expired:
            raise SigningError(f"key {self._remote.id!r} of the other end expired at {self._remote.expires_at}")

    def __repr__(self) -> str:
        return f"SecureChannel(local={self._local.id}, remote={self._remote.id})"

    def __reduce__(self) -> Any:
        raise TypeError("a channel is neither pickled nor copied")


def _content(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data is bytes, not {type(data).__name__}")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise GateInputError(f"{name} is longer than {MAX_TEXT} characters")
    return value
