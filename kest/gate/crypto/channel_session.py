"""A session of a secure channel: one key exchange, then a ratchet (libsodium's secretstream) in each direction.

A frame is ``KSS1``, a byte for the direction, in the first frame of the accepting end its stream header of 24 bytes, and the
sealed message. What is authenticated with each message: the session, the direction and its number.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, final

from kest._kestcore import SecretStream, sha256
from kest.errors import ChannelError
from kest.locks import Lock

if TYPE_CHECKING:
    from kest.gate.crypto.channel import SecureChannel
    from kest.gate.crypto.channel_format import Secret

__all__ = ["ChannelSession", "accept", "begin"]

MAGIC = b"KSS1"
FROM_OPENER, FROM_ACCEPTER = b"\x00", b"\x01"
HEADER_LEN = 24


def _directions(secret: Secret) -> tuple[bytes, bytes, bytes]:
    """Session id, and a key for each direction."""
    keys = secret.derive(b"session", 64)
    return sha256(b"kest.gate session id v1" + secret.transcript), keys[:32], keys[32:]


def begin(channel: SecureChannel, context_id: str, correlation_id: str) -> ChannelSession:
    """See `SecureChannel.session`."""
    secret, opening = channel._open_session(context_id, correlation_id, b"")
    name, out, into = _directions(secret)
    return ChannelSession(channel, name, SecretStream(out), None, into, opening, FROM_OPENER)


def accept(channel: SecureChannel, opening: bytes, context_id: str) -> ChannelSession:
    """See `SecureChannel.accept`."""
    secret, message = channel._accept_session(opening, context_id)
    if message.data:
        raise ChannelError("sealed payload parse failed: the opening of a session carries no data")
    name, into, out = _directions(secret)
    return ChannelSession(channel, name, SecretStream(out), None, into, b"", FROM_ACCEPTER)


@final
class ChannelSession:
    """One end of a session. Thread-safe.

    Frames must arrive whole, once and in order (TCP, WebSocket, a queue): only the next one is accepted, so that loss,
    replay, reordering and a missing end all show.

    Attributes:
        opening: what the other end needs first; empty at the accepting end.
    """

    def __init__(
        self, channel: SecureChannel, name: bytes, out: SecretStream, into: SecretStream | None, key: bytes, opening: bytes,
        direction: bytes,
    ) -> None:  # fmt: skip
        self._channel, self._name, self.opening = channel, name, opening
        self._out, self._into, self._key = out, into, key
        self._direction = direction
        self._sent = self._received = 0
        self._closed = self._ended = False
        self._owner = os.getpid()
        self._sending, self._receiving = Lock(), Lock()

    @property
    def is_finished(self) -> bool:
        """Whether the other end said that nothing more comes. A session that just stops was cut off."""
        return self._ended

    def send(self, data: bytes, *, last: bool = False) -> bytes:
        """The next frame. ``last``: nothing comes after it.

        Raises:
            ChannelError: the last frame was sent already.
            SigningError: a key has expired.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"data is bytes, not {type(data).__name__}")
        self._check_owner()
        self._channel._check_keys()
        with self._sending:
            if self._closed:
                raise ChannelError("the session was closed: nothing can be sent after its last frame")
            head = MAGIC + self._direction + (self._out.header if self._sent == 0 else b"")
            sealed = self._out.push(data, self._bound(self._direction, self._sent), last)
            self._sent += 1
            self._closed = last
            return head + sealed

    def close(self) -> bytes:
        """The last frame, without data."""
        return self.send(b"", last=True)

    def receive(self, frame: bytes) -> bytes:
        """The data of the next frame.

        Raises:
            ChannelError: it is not the next frame of the other end.
        """
        if not isinstance(frame, bytes):
            raise TypeError(f"a frame is bytes, not {type(frame).__name__}")
        self._check_owner()
        other = FROM_ACCEPTER if self._direction == FROM_OPENER else FROM_OPENER
        with self._receiving:
            if self._ended:
                raise ChannelError("the session has ended: its last frame was received")
            if frame[:5] != MAGIC + other:
                raise ChannelError("not a frame of this session's other end")
            stream, at = self._into, 5
            if stream is None:
                at += HEADER_LEN
                if len(frame) < at:
                    raise ChannelError("decryption failed: cut short")
                stream = SecretStream(self._key, frame[5:at])
            opened = stream.pull(frame[at:], self._bound(other, self._received))
            if opened is None:
                raise ChannelError(
                    f"decryption failed: not frame {self._received} of this session: altered, lost, out of order, or a replay"
                )
            self._into, self._key = stream, b""
            self._received += 1
            data, self._ended = opened
            return data

    def _check_owner(self) -> None:
        """In the child of a fork the ratchet would go on with the keys that the parent goes on with."""
        if self._owner != os.getpid():
            raise ChannelError("this session belongs to the process that forked: open one in this process")

    def _bound(self, direction: bytes, number: int) -> bytes:
        return self._name + direction + number.to_bytes(8, "big")

    def __repr__(self) -> str:
        return f"ChannelSession(sent={self._sent}, received={self._received}, finished={str(self._ended).lower()})"

    def __reduce__(self) -> Any:
        raise TypeError("a session is neither pickled nor copied")
