"""The life of keys: who had which key from which record on, and what that means for a signature.

Keys that a verifier was given are believed from the beginning. Others, and the end of any, come from events in the log itself
(kind ``key``), which count when the log's own key signed them or a key of the same principal that was in force. What came
first is decided by the order of the records, which nobody can change afterwards, not by the times in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from kest._kestcore import PublicKey, RecordKeys, b64url_encode, canonicalize, sha256
from kest.audit.chains import Chains
from kest.audit.note import NoteKey
from kest.audit.records import Record
from kest.core.grants import Grant, public_key_of
from kest.core.truststore import TrustStore
from kest.errors import AuditError, KestError

__all__ = ["KeyBook", "KeyLife", "Verdict", "key_event", "thumbprint"]

NEVER = 1 << 62

ADDED, ROTATED, REVOKED, EXPIRED = "added", "rotated", "revoked", "expired"
EVENTS = (ADDED, ROTATED, REVOKED, EXPIRED)


class Verdict(str, Enum):
    """What a verifier makes of one signature."""

    VALID = "valid"
    SINCE_ROTATED = "valid, key since rotated"
    SINCE_EXPIRED = "valid, key since expired"
    SINCE_REVOKED = "valid, key since revoked"
    AFTER_ROTATION = "signed after the key was rotated"
    AFTER_EXPIRY = "signed after the key expired"
    AFTER_REVOCATION = "signed after the key was revoked"
    BEFORE_KEY = "signed before the key was valid"
    BAD_CHAIN = "the certificate chain proves nothing"
    UNKNOWN_KEY = "unknown key"
    BAD_SIGNATURE = "the signature does not match"
    UNREADABLE = "unreadable"
    MISSING = "kept beside the log, and missing there"

    @property
    def good(self) -> bool:
        """Whether the signature says what it seems to say."""
        return self.value.startswith("valid")


def thumbprint(key: Any) -> str:
    """A key's name that depends on nothing else (RFC 7638): base64url of SHA-256 of its canonical JWK."""
    return b64url_encode(sha256(canonicalize(public_key_of(key).public_jwk())))


def key_event(
    event: str, principal: str, key: Any, *, replaces: Any = None, not_after: int | None = None, reason: str = ""
) -> dict[str, Any]:
    """The members of a key event, for ``AuditLog.record_event("key", ...)``.

    Args:
        event: ``"added"``, ``"rotated"`` (``key`` follows on ``replaces``), ``"revoked"`` or ``"expired"``.
        principal: whose key.
        key: a provider, 32 raw bytes, a JWK or PEM.
        replaces: the key that is rotated away, likewise.
        not_after: with a new key, Unix milliseconds after which records by it do not count.
        reason: in words.
    """
    if event not in EVENTS:
        raise AuditError(f"a key is {', '.join(EVENTS)}; not {event!r}")
    if (event == ROTATED) != (replaces is not None):
        raise AuditError("a rotation, and nothing else, says which key it replaces")
    members: dict[str, Any] = {"event": event, "principal": principal, "reason": reason}
    public = public_key_of(key)
    members["key"], members["thumbprint"] = public.public_jwk(), thumbprint(public)
    if replaces is not None:
        members["replaces"] = thumbprint(replaces)
    if not_after is not None:
        members["not_after"] = not_after
    return members


@dataclass(slots=True)
class KeyLife:
    """One key of one principal, from which record to which. -1: since before the log began; `NEVER`: not yet.

    ``windows`` are the times (Unix milliseconds, inclusive) for which it was given, or for which certificates vouch for it;
    none: any. ``used`` counts the records that it signed well before any of that, ``misused`` those after.
    """

    principal: str
    key: PublicKey
    thumbprint: str
    added: int = -1
    rotated: int = NEVER
    rotated_ms: int = NEVER
    revoked: int = NEVER
    expired: int = NEVER
    not_after: int = NEVER
    windows: tuple[tuple[int, int], ...] = ()
    used: int = 0
    misused: int = 0

    def verdict(self, index: int, timestamp_ms: int) -> Verdict:
        """Of a signature by this key over record ``index``, as far as is known now."""
        if index > self.revoked:
            return Verdict.AFTER_REVOCATION
        if index > self.expired or timestamp_ms > self.not_after:
            return Verdict.AFTER_EXPIRY
        if self.windows and not any(start <= timestamp_ms <= end for start, end in self.windows):
            early = timestamp_ms < min(start for start, _ in self.windows)
            return Verdict.BEFORE_KEY if early else Verdict.AFTER_EXPIRY
        if index > self.rotated and timestamp_ms > self.rotated_ms:  # what was under way then came a little later
            return Verdict.AFTER_ROTATION
        return self.since

    @property
    def since(self) -> Verdict:
        """Of what it signed in its time."""
        if self.revoked < NEVER:
            return Verdict.SINCE_REVOKED
        if self.expired < NEVER:
            return Verdict.SINCE_EXPIRED
        return Verdict.SINCE_ROTATED if self.rotated < NEVER else Verdict.VALID


@dataclass
class KeyBook:
    """All keys that count while a log is read, in its order."""

    log_key: NoteKey
    lives: list[KeyLife] = field(default_factory=list)
    named: list[KeyLife] = field(default_factory=list)
    """Of `lives`, those that are known without a certificate: facts name keys by their place here."""
    chains: Chains | None = None
    _ends: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """Revocation and expiry of keys that nobody had shown until then, by principal and thumbprint."""
    _keys: RecordKeys | None = None

    @classmethod
    def of(cls, log_key: NoteKey, keys: Any = None) -> KeyBook:
        """From what a verifier has: a `TrustStore`, or a mapping of principals to one key or a list of them.

        Where the store has authorities, certificate chains in the records' headers make keys known, too.
        """
        book = cls(log_key)
        book._add(log_key.name, PublicKey.from_raw(log_key.raw))
        for principal, key, start, until in _pairs(keys):
            life = book._add(principal, public_key_of(key))
            life.not_after = until
            if start > 0:
                life.windows = ((start, until),)
        if isinstance(keys, TrustStore) and keys.has_authorities:
            book.chains = Chains(keys, book._certified)
        return book

    def _add(self, principal: str, key: PublicKey, *, certified: bool = False) -> KeyLife:
        name = thumbprint(key)
        life = KeyLife(principal, key, name)
        life.revoked, life.expired = self._ends.get((principal, name), (NEVER, NEVER))
        self.lives.append(life)
        if not certified:
            self.named.append(life)
            self._keys = None
        return life

    def _certified(self, grant: Grant) -> KeyLife:
        """The life of a key that a certificate vouches for: one, however often the certificate was renewed."""
        principal, key, _, _, start, end = grant
        name = thumbprint(key)
        known = next((life for life in self.lives if life.principal == principal and life.thumbprint == name), None)
        life = known or self._add(principal, key, certified=True)
        if known is None or known.windows:
            life.windows = tuple(dict.fromkeys((*life.windows, (start, end))))
        return life

    def record_keys(self) -> RecordKeys:
        """As the C core takes them."""
        if self._keys is None:
            self._keys = RecordKeys([(life.principal, life.key) for life in self.named])
        return self._keys

    def apply(self, record: Record, signed_by: KeyLife) -> str | None:
        """Take note of a key event; why it does not count, or None."""
        payload = record.payload
        principal, event, name = payload.get("principal"), payload.get("event"), payload.get("thumbprint")
        administrator = signed_by.principal == self.log_key.name and signed_by.key.raw == self.log_key.raw
        if not administrator and signed_by.principal != principal:
            return f"{signed_by.principal} cannot speak for the keys of {principal}"
        if not isinstance(principal, str) or event not in EVENTS or not isinstance(name, str):
            return "a key event that says nothing"
        mine = {life.thumbprint: life for life in self.lives if life.principal == principal}
        if event in (ADDED, ROTATED):
            return self._begin(record, payload, mine)
        life = mine.get(name)
        if life is None:
            # Should it turn up later, with a certificate or by an event, it has ended all the same.
            revoked, expired = self._ends.get((principal, name), (NEVER, NEVER))
            ends = (min(revoked, record.index), expired) if event == REVOKED else (revoked, min(expired, record.index))
            self._ends[principal, name] = ends
            return None if self.chains is not None else f"{principal} has no key {name}"
        if event == REVOKED:
            life.revoked = min(life.revoked, record.index)
        else:
            life.expired = min(life.expired, record.index)
        return None

    def _begin(self, record: Record, payload: dict[str, Any], mine: dict[str, KeyLife]) -> str | None:
        try:
            jwk = payload.get("key")
            key = public_key_of(jwk if isinstance(jwk, dict) else {})
            if thumbprint(key) != payload["thumbprint"]:
                return "the thumbprint is not that of the key"
        except KestError as error:
            return f"no key: {error}"
        if payload["event"] == ROTATED:
            before = mine.get(str(payload.get("replaces")))
            if before is None:
                return f"{payload['principal']} has no key {payload.get('replaces')} that could be replaced"
            if record.index < before.rotated:
                before.rotated, before.rotated_ms = record.index, record.timestamp_ms
        life = mine.get(payload["thumbprint"])
        if life is None:
            life = self._add(payload["principal"], key)
            life.added = record.index
        until = payload.get("not_after")
        if type(until) is int:
            life.not_after = min(life.not_after, until)
        return None


def _pairs(keys: Any) -> Iterable[tuple[str, Any, int, int]]:
    if keys is None:
        return
    if isinstance(keys, TrustStore):
        for grant in keys.grants():
            yield grant[0], grant[1], grant[4], min(grant[5], NEVER)
        return
    for principal, key in keys.items():
        for one in key if isinstance(key, (list, tuple)) else (key,):
            yield principal, one, 0, NEVER
