"""Invalidations as text: compact JWS (RFC 7515) under HMAC-SHA-256 or Ed25519, or unsigned where nobody gave a key.

A message names its channel, its publisher and its number there, so that what is missing can be told. Which algorithm is
right follows from the keys that the reader has, never from the message.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kest._kestcore import PublicKey, Signer, b64url_decode, b64url_encode, canonicalize, parse
from kest.errors import GateInputError, KestError
from kest.gate.invalidation import InvalidationScope, checked_scope

__all__ = ["MAX_MESSAGE", "ForgedMessageError", "Message", "Sealer"]

log = logging.getLogger("kest.gate")

TYP = "kest-invalidation+jws"
MAX_MESSAGE = 32_768
MIN_KEY = 16
MEMBERS = {"channel", "evaluator", "id", "kind", "number", "publisher", "reason", "time_ms"}

_warned = False


class ForgedMessageError(KestError):
    """A message that is not what somebody with a key wrote for this channel."""


class Message(NamedTuple):
    """A message that was believed: what is over, and the number of the message among those of its publisher."""

    scope: InvalidationScope
    publisher: str
    number: int


class Sealer:
    """Writes the messages of one publisher, and reads those of all.

    Args:
        channel: its name; a message for another one is refused.
        key: secret of at least 16 bytes that everybody on the channel has, or several: the first signs, all are believed.
        signer: an identity with an Ed25519 key of this process (`LocalEd25519Provider`, `StaticIdentity`).
        trusted: principals and their public keys, as a `TrustStore` takes them; the signer's own is believed anyway.
    """

    def __init__(
        self,
        channel: str,
        key: bytes | Sequence[bytes] | None,
        signer: Any,
        trusted: Mapping[str, Any] | None,
    ) -> None:
        if key is not None and (signer is not None or trusted is not None):
            raise GateInputError("give a shared key, or a signer and trusted public keys, not both")
        self._channel = channel
        self._secrets = _secrets(key)
        self._signer = _signer(signer)
        self._keys = _keys(trusted, self._signer)
        self.signed = bool(self._secrets or self._keys)
        self._pid, self._publisher, self._number = 0, "", 0

    def warn_if_unsigned(self) -> None:
        """Say once that anybody who reaches Redis can invalidate. It is no more than that: messages only refuse."""
        global _warned
        if not self.signed and not _warned:
            _warned = True
            log.warning(
                "invalidations on %r are not signed: whoever can write to this Redis can end sessions (though allow "
                "nothing). Pass key=, or signer= and trusted=, to RedisInvalidationBroadcaster",
                self._channel,
            )

    def seal(self, scope: InvalidationScope) -> str:
        """The message for it, with the next number. Under the broadcaster's lock."""
        if self._pid != os.getpid():  # the child of a fork is another publisher
            self._pid, self._publisher, self._number = os.getpid(), secrets.token_hex(16), 0
        self._number += 1
        payload = canonicalize(
            {
                "channel": self._channel, "evaluator": scope.evaluator, "id": scope.target_id, "kind": scope.target_kind,
                "number": self._number, "publisher": self._publisher, "reason": scope.reason,
                "time_ms": time.time_ns() // 1_000_000,
            }
        )  # fmt: skip
        if self._signer is not None:
            return self._signer.sign_jws(payload, TYP)
        if self._keys:
            raise GateInputError("this broadcaster has public keys to verify with and none to sign with: pass signer=")
        text = f"{_header('HS256' if self._secrets else 'none')}.{b64url_encode(payload)}"
        return f"{text}.{b64url_encode(_mac(self._secrets[0], text)) if self._secrets else ''}"

    def is_own(self, message: Message) -> bool:
        """Whether this process wrote it."""
        return message.publisher == self._publisher and self._pid == os.getpid()

    def open(self, text: str) -> Message:
        """What a message says.

        Raises:
            ForgedMessageError: it is signed by nobody who is believed, for another channel, or no message at all.
        """
        try:
            return self._read(text)
        except (KestError, ValueError, TypeError) as error:
            raise ForgedMessageError(f"not a message of this channel ({type(error).__name__})") from None

    def _read(self, text: str) -> Message:
        if len(text) > MAX_MESSAGE:
            raise ValueError("too long")
        signed, _, signature = text.rpartition(".")
        header, _, body = signed.partition(".")
        self._verify(header, signed, signature)
        raw = b64url_decode(body)
        payload: Any = parse(raw)
        if set(payload) != MEMBERS or canonicalize(payload) != raw or payload["channel"] != self._channel:
            raise ValueError("another kind of message")
        publisher, number = payload["publisher"], payload["number"]
        if not isinstance(publisher, str) or type(number) is not int or number < 1:
            raise ValueError("another kind of message")
        scope = checked_scope(payload["kind"], payload["id"], payload["reason"], payload["evaluator"])
        return Message(scope, publisher, number)

    def _verify(self, header: str, signed: str, signature: str) -> None:
        """Which headers are possible follows from the keys; the one that there is must be one of them, to the byte."""
        if self._secrets:
            given = b64url_decode(signature)
            # All keys are tried, so that how long it takes tells nothing.
            good = [hmac.compare_digest(_mac(secret, signed), given) for secret in self._secrets]
            if header != _header("HS256") or not any(good):
                raise ValueError("signature")
        elif self._keys:
            kid = parse(b64url_decode(header))["kid"]
            keys = self._keys.get(kid, ()) if header == _header("EdDSA", kid) else ()
            if not any(key.verify(signed.encode(), b64url_decode(signature)) for key in keys):
                raise ValueError("signature")
        # Without keys nobody can be told from anybody: signed messages count as well, for what they say.


def _header(alg: str, kid: str | None = None) -> str:
    members = {"alg": alg, "typ": TYP} if kid is None else {"alg": alg, "kid": kid, "typ": TYP}
    return b64url_encode(canonicalize(members))


def _mac(secret: bytes, text: str) -> bytes:
    return hmac.digest(secret, text.encode(), hashlib.sha256)


def _secrets(key: bytes | Sequence[bytes] | None) -> tuple[bytes, ...]:
    keys: Iterable[Any] = () if key is None else (key,) if isinstance(key, (bytes, bytearray)) else key
    found = []
    for one in keys:
        if not isinstance(one, (bytes, bytearray)):
            raise TypeError(f"key is bytes, or several of them, not {type(one).__name__}")
        if len(one) < MIN_KEY:
            raise GateInputError(f"a key of {len(one)} bytes can be guessed: {MIN_KEY} at least, random ones")
        found.append(bytes(one))
    if key is not None and not found:
        raise GateInputError("key is empty: leave it out, or give one")
    return tuple(found)


def _signer(identity: Any) -> Signer | None:
    signer = identity if identity is None or isinstance(identity, Signer) else getattr(identity, "signer", None)
    if identity is not None and not isinstance(signer, Signer):
        raise GateInputError(
            f"signer is an identity whose Ed25519 key is in this process, which {type(identity).__name__} is not"
        )
    return signer


def _keys(trusted: Mapping[str, Any] | None, signer: Signer | None) -> dict[str, tuple[PublicKey, ...]]:
    from kest.core.grants import public_key_of

    keys: dict[str, tuple[PublicKey, ...]] = {}
    for principal, given in (trusted or {}).items():
        several = given if isinstance(given, (list, tuple)) else (given,)
        keys[principal] = tuple(public_key_of(one) for one in several)
        if any(key.alg != "EdDSA" for key in keys[principal]):
            raise GateInputError(f"the key of {principal!r:.200} is none for Ed25519, with which messages are signed")
    if trusted is not None and not keys:
        raise GateInputError("trusted is empty: leave it out, or name who is believed")
    if signer is not None:
        own = PublicKey.from_raw(signer.public_key)
        keys[signer.principal] = (*keys.get(signer.principal, ()), own)
    return keys
