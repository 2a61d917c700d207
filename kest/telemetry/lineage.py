"""From spans back to passports: the signed entries in a file or database, in an order in which they can be verified.

A span names its entry (``kest.signature``), and the entry names its parents by their hashes. Entries of other services, which
have no span here, are taken from ``kest.passport`` where a span has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kest._kestcore import b64url_decode, parse, sha256
from kest.errors import KestError
from kest.telemetry.records import SpanRecord

__all__ = ["Flow", "contradiction", "flows", "payload"]


@dataclass(slots=True)
class Flow:
    """Entries that belong together: each one's ancestors, as far as they are known, and descendants.

    Attributes:
        entries: compact JWS, parents before children: what `PassportVerifier.verify` and `Passport` take.
        spans: by index of the entry, the span that it was found in; entries from a ``kest.passport`` have none.
        missing: hashes of parents that are nowhere in the telemetry. With any, the flow cannot be verified as a whole.
    """

    entries: list[str] = field(default_factory=list)
    spans: dict[int, SpanRecord] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def payload(entry: str) -> dict[str, Any] | None:
    """What an entry says, unverified; None if it is none."""
    parts = entry.split(".")
    try:
        found = parse(b64url_decode(parts[1])) if len(parts) == 3 else None
    except KestError:
        return None
    return found if isinstance(found, dict) else None


def _hash(entry: str) -> str:
    return sha256(entry.encode("utf-8", "surrogatepass")).hex()


def _parents(entry: str) -> tuple[str, ...]:
    ids = (payload(entry) or {}).get("parent_ids")
    if not isinstance(ids, list):
        return ()
    return tuple(parent for parent in ids if isinstance(parent, str) and parent != "0")


def flows(spans: Iterable[SpanRecord]) -> list[Flow]:
    """The flows in telemetry, in the order in which they begin there. Holds all entries in memory.

    Nothing is verified. An entry that cannot be read is a flow of its own, for a verifier to refuse.
    """
    graph = _Graph()
    for span in spans:
        graph.add(span)
    graph.complete()
    return list(graph.flows())


class _Graph:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}  # by hash, as written
        self.parents: dict[str, tuple[str, ...]] = {}
        self.spans: dict[str, SpanRecord] = {}
        self.wanted: dict[str, list[str]] = {}  # hash of a child without parents here: texts of passports
        self.passports: dict[str, str] = {}

    def add(self, span: SpanRecord) -> None:
        entry = span.signature
        if not span.is_kest or not entry:
            return
        name = _hash(entry)
        if name not in self.entries:
            self._put(name, entry)
            self.spans[name] = span
            text = span.attributes.get("kest.passport")
            if isinstance(text, str) and any(parent not in self.entries for parent in self.parents[name]):
                self.passports[name] = text

    def _put(self, name: str, entry: str) -> None:
        self.entries[name] = entry
        self.parents[name] = _parents(entry)

    def complete(self) -> None:
        """Take entries that no span has from the passports of those that continue from them."""
        for name, text in self.passports.items():
            if all(parent in self.entries for parent in self.parents[name]):
                continue
            try:
                found = parse(text)
            except KestError:
                continue
            for entry in found if isinstance(found, list) else ():
                if isinstance(entry, str) and (other := _hash(entry)) not in self.entries:
                    self._put(other, entry)
        self.passports.clear()

    def flows(self) -> Iterator[Flow]:
        groups: dict[str, list[str]] = {}
        root = self._components()
        for name in self._ordered():
            groups.setdefault(root[name], []).append(name)
        for names in groups.values():
            flow = Flow([self.entries[name] for name in names])
            flow.spans = {index: self.spans[name] for index, name in enumerate(names) if name in self.spans}
            absent = (parent for name in names for parent in self.parents[name] if parent not in self.entries)
            flow.missing = tuple(dict.fromkeys(absent))
            yield flow

    def _components(self) -> dict[str, str]:
        leader: dict[str, str] = {}

        def find(name: str) -> str:
            while (above := leader.get(name, name)) != name:
                leader[name] = leader.get(above, above)
                name = above
            return name

        for name, parents in self.parents.items():
            for parent in parents:
                if (one := find(name)) != (other := find(parent)):  # a missing parent connects its children, too
                    leader[other] = one
        return {name: find(name) for name in self.entries}

    def _ordered(self) -> Iterator[str]:
        """Parents before children; otherwise as written. Hashes cannot form a circle."""
        done: set[str] = set()
        for first in self.entries:
            stack = [first]
            while stack:
                name = stack[-1]
                if name in done:
                    stack.pop()
                    continue
                ahead = [parent for parent in self.parents[name] if parent in self.entries and parent not in done]
                if ahead:
                    stack.extend(ahead)
                else:
                    done.add(stack.pop())
                    yield name


def contradiction(span: SpanRecord) -> str | None:
    """What a span says otherwise than the entry that it carries: its attributes are not signed. None if it agrees."""
    said = payload(span.signature)
    if said is None:
        return None  # a verifier has more to say about that one
    labels = said.get("labels")
    principal = labels.get("principal") if isinstance(labels, dict) else None
    expected = {
        "kest.chain_tip": _hash(span.signature),
        "kest.entry_id": said.get("entry_id"),
        "kest.operation": said.get("operation"),
        "kest.trust_score": said.get("trust_score"),
        "kest.taints": said.get("taints"),
        "kest.workload_id": principal,
        "kest.allowed": True,
    }
    for name, value in expected.items():
        if name in span.attributes and span.attributes[name] != value:
            return f"the span's {name} is not that of its entry"
    return None
