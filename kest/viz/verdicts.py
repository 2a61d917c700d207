"""The verdict on each signature of many, where verification proper stops at the first bad one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kest._kestcore import KeyRing, Passport, b64url_decode, sha256, verify_passport
from kest.errors import KestError, VerificationError
from kest.viz.records import Read

if TYPE_CHECKING:
    from kest.core.truststore import TrustStore

__all__ = ["Verifier"]

State = tuple[str, str]
VALID: State = ("valid", "")
PARENT_MISSING = "what it continues from is not here"
MOST_TRIES = 300
"""Verifications of a part of a file, to find what is wrong in it."""

_Links = dict[str, list[str | None]]

NO_KEY = "no key is known for the principal"


class Verifier:
    """Judges records with the keys of a trust store."""

    def __init__(self, store: TrustStore) -> None:
        self._store = store
        self._keys: dict[str, list[Any]] = {}
        for grant in store.grants():
            self._keys.setdefault(grant[0], []).append(grant)

    def chain(self, entries: Mapping[str, Read]) -> dict[str, State]:
        """The state of each entry (text: as it was read): signature, links, trust and taints.

        What the C core accepts as a whole is valid. Otherwise each connected part is looked at by itself, so that a few bad
        entries among thousands cost little.
        """
        links = _links(entries)
        ordered = _ordered(links)
        ring, states = self._ring(ordered)
        if not states and not any(None in parents for parents in links.values()) and _verifies(ordered, ring) is None:
            return dict.fromkeys(ordered, VALID)
        budget = MOST_TRIES
        for part in _parts(ordered, links):
            budget = self._part(part, links, entries, ring, states, budget)
        return states

    def _ring(self, entries: Sequence[str]) -> tuple[KeyRing, dict[str, State]]:
        """The keys that these entries need, those of certificate chains among them; and those whose chain proves nothing."""
        ring = self._store.ring()
        firsts: dict[str, str] = {}
        for jws in entries:
            firsts.setdefault(jws.partition(".")[0], jws)
        bad: dict[str, str] = {}
        for header, jws in firsts.items():
            try:
                ring = self._store.verify(Passport([jws]), _itself)
            except KestError as error:
                bad[header] = _reason(error)
        headers = ((jws, jws.partition(".")[0]) for jws in entries)
        return ring, {jws: ("invalid", bad[header]) for jws, header in headers if header in bad}

    def _part(
        self,
        part: Sequence[str],
        links: _Links,
        entries: Mapping[str, Read],
        ring: KeyRing,
        states: dict[str, State],
        budget: int,
    ) -> int:
        """Judge one connected part, parents first; returns what is left of the tries."""
        if not any(jws in states or None in links[jws] for jws in part) and _verifies(part, ring) is None:
            states.update(dict.fromkeys(part, VALID))
            return budget
        hopeful = []
        for jws in part:
            if jws in states:
                continue
            # What does not verify, and all that descends from it, is judged by its own signature.
            above = links[jws]
            if None in above or any(parent in states for parent in above):
                reason = PARENT_MISSING if None in above else "what it continues from does not verify"
                states[jws] = self._alone(jws, entries[jws], reason)
            elif (alone := self._alone(jws, entries[jws], ""))[0] in ("invalid", "unknown_key"):
                states[jws] = alone
            else:
                hopeful.append(jws)
        return self._search(hopeful, links, entries, ring, states, budget)

    def _search(
        self,
        hopeful: list[str],
        links: _Links,
        entries: Mapping[str, Read],
        ring: KeyRing,
        states: dict[str, State],
        budget: int,
    ) -> int:
        """Find those whose signature is right and something else is not."""
        left: list[str]
        before = 0  # so many are in front of the first that was found to be bad
        while hopeful:
            if not budget:
                if _verifies(hopeful[:before], ring) is None:
                    states.update(dict.fromkeys(hopeful[:before], VALID))
                    hopeful = hopeful[before:]
                states.update(dict.fromkeys(hopeful, ("signature", "not looked at further: too much is wrong here")))
                return 0
            budget -= 1
            error = _verifies(hopeful, ring)
            if error is None:
                states.update(dict.fromkeys(hopeful, VALID))
                break
            at = error.index if isinstance(error, VerificationError) and error.index is not None else 0
            states[hopeful[at]] = ("invalid", _reason(error))
            before, left = at, []
            for jws in hopeful:
                if jws in states:
                    continue
                if any(states.get(str(parent), VALID) != VALID for parent in links[jws]):
                    states[jws] = self._alone(jws, entries[jws], "what it continues from does not verify")
                else:
                    left.append(jws)
            hopeful = left
        return budget

    def _alone(self, jws: str, read: Read, reason: str) -> State:
        """By its own signature only; ``reason``: why it is not verified with what it continues from."""
        if "x5c" in read.header and read.header.get("kid") not in self._keys:
            return "signature", reason  # its chain was checked, its signature will be with its parents
        state, why = self.signature(jws, read)
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


def _reason(error: KestError) -> str:
    return error.reason if isinstance(error, VerificationError) else str(error)


def _verifies(entries: Sequence[str], ring: KeyRing) -> KestError | None:
    try:
        verify_passport(Passport(entries), ring)
    except KestError as error:
        return error
    return None


def _links(entries: Mapping[str, Read]) -> _Links:
    """The parents of each entry, by their texts; None for one that is not there."""
    by_hash = {sha256(jws.encode("utf-8", "surrogatepass")).hex(): jws for jws in entries}
    links: _Links = {}
    for jws, read in entries.items():
        named = [parent for parent in read.payload.get("parent_ids", ()) if parent != "0"]
        links[jws] = [by_hash.get(parent) for parent in named]
    return links


def _ordered(links: _Links) -> list[str]:
    """Parents before children; otherwise in the order in which they were found."""
    done: dict[str, None] = {}
    for start in links:
        stack = [(start, iter(links[start]))]
        while stack:
            jws, parents = stack[-1]
            parent = next((one for one in parents if one is not None and one not in done), None)
            if jws in done or parent is None:
                done.setdefault(jws)
                stack.pop()
            else:
                stack.append((parent, iter(links[parent])))
    return list(done)


def _parts(ordered: Sequence[str], links: _Links) -> list[list[str]]:
    """The connected parts, each in this order."""
    leader = {jws: jws for jws in ordered}

    def find(jws: str) -> str:
        while leader[jws] != jws:
            leader[jws] = leader[leader[jws]]
            jws = leader[jws]
        return jws

    for jws in ordered:
        for parent in links[jws]:
            if parent is not None:
                leader[find(jws)] = find(parent)
    parts: dict[str, list[str]] = {}
    for jws in ordered:
        parts.setdefault(find(jws), []).append(jws)
    return list(parts.values())


def _itself(ring: KeyRing) -> KeyRing:
    return ring


def _fits(key: Any, message: bytes, signature: bytes) -> bool:
    try:
        return bool(key.verify(message, signature))
    except (KestError, ValueError):
        return False
