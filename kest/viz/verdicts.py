"""The verdict on each signature of many, where verification proper stops at the first bad one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kest._kestcore import KeyRing, KnownEntries, Passport, b64url_decode
from kest.errors import KestError, VerificationError
from kest.viz.records import Read, SourceRecord, read_record

if TYPE_CHECKING:
    from kest.core.truststore import TrustStore

__all__ = ["Verifier"]

State = tuple[str, str]
VALID: State = ("valid", "")
NO_KEY = "no key is known for the principal"


class Verifier:
    """Judges records with the keys of a trust store."""

    def __init__(self, store: TrustStore) -> None:
        self._store = store
        self._keys: dict[str, list[Any]] = {}
        for grant in store.grants():
            self._keys.setdefault(grant[0], []).append(grant)

    def chain(self, entries: Sequence[str]) -> dict[str, State]:
        """The state of each entry: signature, links, trust and taints. ``entries`` are distinct, parents before children.

        What the C core accepts as a whole is valid. Where it refuses, halves are tried, so that a few bad entries among
        thousands cost little; a bad one is left out, and what descends from it is judged by its signature alone.
        """
        states: dict[str, State] = {}
        ring, leaves = self._ring(entries, states)
        known = KnownEntries(ring, min(1 << 24, max(16384, 2 * len(entries))), 1 << 30)
        waiting = [[jws for jws in entries if jws not in states]]
        good = Passport()
        while waiting:
            batch = waiting.pop()
            if not batch:
                continue
            longer = good.snapshot()
            try:
                for jws in batch:
                    longer.add_signature(jws)
                known.verify(longer)
            except KestError as error:
                if len(batch) > 1:
                    middle = len(batch) // 2
                    waiting += [batch[middle:], batch[:middle]]
                else:
                    reason = error.reason if isinstance(error, VerificationError) else str(error)
                    states[batch[0]] = self._alone(batch[0], reason, batch[0] in leaves)
            else:
                good = longer
                states.update(dict.fromkeys(batch, VALID))
        return states

    def _ring(self, entries: Sequence[str], states: dict[str, State]) -> tuple[KeyRing, set[str]]:
        """The keys that these entries need, those of certificate chains among them; and the entries that have one."""
        ring, leaves = self._store.ring(), set()
        headers: dict[str, str] = {}
        for jws in entries:
            headers.setdefault(jws.partition(".")[0], jws)
        bad: dict[str, str] = {}
        for header, jws in headers.items():
            try:
                ring = self._store.verify(Passport([jws]), _itself)
            except VerificationError as error:
                bad[header] = error.reason
            except KestError as error:
                bad[header] = str(error)
        for jws in entries:
            header = jws.partition(".")[0]
            if header in bad:
                states[jws] = ("invalid", bad[header])
            elif "x5c" in read_record(SourceRecord(jws)).header:
                leaves.add(jws)
        return ring, leaves

    def _alone(self, jws: str, reason: str, certified: bool) -> State:
        """Of an entry that does not verify for ``reason``: is it the signature?"""
        if certified:
            return ("unknown_key" if reason == NO_KEY else "invalid"), reason
        state, why = self.signature(jws, read_record(SourceRecord(jws)))
        return ("signature", reason) if state == "valid" else (state, why)

    def signature(self, jws: str, read: Read) -> State:
        """The state of one signature, whatever it signs."""
        header, payload = read.header, read.payload
        kid = header.get("kid")
        labels = payload.get("labels")
        principal = labels.get("principal") if read.kind == "entry" and isinstance(labels, dict) else None
        if principal is None:
            principal = payload.get("principal")
        if not isinstance(kid, str) or kid != principal:
            return "invalid", "the key's name in the header is not that of the principal"
        grants = self._keys.get(kid, [])
        if not grants:
            reason = NO_KEY
            return "unknown_key", f"{reason}; its certificate chain is not checked here" if "x5c" in header else reason
        try:
            head, body, signature = jws.split(".")
            signed, raw = f"{head}.{body}".encode("ascii"), b64url_decode(signature)
        except (KestError, ValueError) as error:
            return "invalid", str(error)[:300]
        time = payload.get("timestamp_ms")
        when = time if type(time) is int else -1
        for _, key, _, _, start, end in grants:
            if key.alg == header.get("alg") and _fits(key, signed, raw):
                return VALID if start <= when <= end else ("invalid", "the key was not valid at the time in the record")
        return "invalid", "the signature does not match"


def _itself(ring: KeyRing) -> KeyRing:
    return ring


def _fits(key: Any, message: bytes, signature: bytes) -> bool:
    try:
        return bool(key.verify(message, signature))
    except (KestError, ValueError):
        return False
