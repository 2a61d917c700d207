"""A passport as a list of JWS strings in topological order (PRODUCT sections 3 and 4; F-PA-01, F-PA-02)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import b64, trust
from .canonical import canonicalize, strict_parse
from .entry import OVERRIDE_LABEL, ROOT, PrivateKey, build_payload, jws_hash, sign_entry


def payload_of(jws: str) -> dict[str, Any]:
    """The payload of an entry that is known to be well formed."""
    payload: dict[str, Any] = strict_parse(b64.decode(jws.split(".")[1]))
    return payload


class Passport:
    """Entries, and what the next one inherits from them."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self.entries = list(entries)

    def tips(self) -> list[str]:
        """Sorted hashes of the entries that nobody names as a parent."""
        named = {parent for jws in self.entries for parent in payload_of(jws)["parent_ids"]}
        return sorted({jws_hash(jws) for jws in self.entries} - named)

    def chain_tip(self) -> str:
        """The text of ``kest.chain_tip``."""
        return ",".join(self.tips())

    def payloads(self) -> dict[str, dict[str, Any]]:
        return {jws_hash(jws): payload_of(jws) for jws in self.entries}

    def trust_score(self) -> int | None:
        """The weakest tip's score; None for an empty passport, which says nothing."""
        payloads = self.payloads()
        return min((payloads[tip]["trust_score"] for tip in self.tips()), default=None)

    def taints(self) -> list[str]:
        payloads = self.payloads()
        return trust.taints((payloads[tip]["taints"] for tip in self.tips()), (), ())

    def serialize(self) -> str:
        """A JSON array of strings, itself in canonical form."""
        return canonicalize(self.entries).decode("utf-8")

    @classmethod
    def deserialize(cls, text: str | bytes) -> Passport:
        value = strict_parse(text)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError("a passport is a JSON array of strings")
        return cls(value)

    def append(
        self,
        private_key: PrivateKey,
        principal: str,
        *,
        self_score: int = 100,
        parents: Iterable[str] | None = None,
        trust_override: int | None = None,
        added_taints: Iterable[str] = (),
        removed_taints: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> str:
        """Signs the entry that continues from ``parents`` (default: the tips; none of them: a root)."""
        hashes = list(self.tips() if parents is None else parents)
        known = self.payloads()
        scores = [known[h]["trust_score"] for h in hashes]
        score = trust.propagate(scores, self_score) if trust_override is None else trust_override
        text = dict(labels or {})
        if scores and score > min(scores):
            text[OVERRIDE_LABEL] = str(score)
        payload = build_payload(
            principal=principal,
            trust_score=score,
            parent_ids=hashes or [ROOT],
            labels=text,
            added_taints=added_taints,
            removed_taints=removed_taints,
            taints=trust.taints((known[h]["taints"] for h in hashes), added_taints, removed_taints),
            **fields,
        )
        self.entries.append(sign_entry(payload, private_key, principal))
        return self.entries[-1]
