"""The lineage graph that is drawn: nodes with their verdicts, outcomes and denials, and the edges between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kest.viz.records import Read, Source, SourceRecord, read_record
from kest.viz.verdicts import Verifier

if TYPE_CHECKING:
    from kest.core.truststore import TrustStore

__all__ = ["Denial", "Graph", "Node", "Outcome", "Verdict", "graph_of"]

MAX_NODES = 20_000


@dataclass(frozen=True)
class Verdict:
    """What is known of a signature.

    ``state`` is one of: ``valid`` (signature, links, trust and taints), ``signature`` (right by itself, but what it
    continues from is missing or does not verify), ``invalid``, ``unknown_key``, ``unsigned`` (only a decoded form is
    there), ``unchecked`` (no keys were given).
    """

    state: str = "unchecked"
    reason: str = "no keys were given to verify it with"


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    ``state`` is returned, raised, timed_out, cancelled, closed or not_run; ``missing`` where a source that keeps outcomes has
    none (a crash, or the call still runs); ``unknown`` where outcomes are not kept.
    """

    state: str = "unknown"
    error: str = ""
    duration_us: int | None = None
    output_hash: str = ""
    verdict: Verdict = field(default_factory=Verdict)


@dataclass(frozen=True)
class Denial:
    """Why policy did not allow a call."""

    policy: str
    tier: str
    reason: str


@dataclass(frozen=True)
class Node:
    """An entry, a denial, a parent that is not there, or a record that cannot be read.

    Attributes:
        kind: ``entry``, ``denial``, ``absent`` or ``broken``.
        hash: SHA-256 (hex) of the JWS, by which children name it; "" for a record without one.
        header, payload: decoded, as found.
        parents: indices into `Graph.nodes`.
        copies: how often the same record was found.
        why: what is wrong with a broken one.
    """

    kind: str
    hash: str
    header: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[int, ...] = ()
    verdict: Verdict = field(default_factory=Verdict)
    outcome: Outcome = field(default_factory=Outcome)
    denial: Denial | None = None
    copies: int = 1
    why: str = ""
    origin: str = ""

    @property
    def operation(self) -> str:
        """What was called."""
        value = self.payload.get("operation")
        return value if isinstance(value, str) else "?"

    @property
    def trust(self) -> int | None:
        """0 to 100, or None if the entry says nothing of the kind."""
        value = self.payload.get("trust_score")
        return value if type(value) is int and 0 <= value <= 100 else None

    @property
    def taints(self) -> tuple[str, ...]:
        """What clings to it."""
        return tuple(self.payload.get("taints") or ())

    @property
    def principal(self) -> str:
        """Who signed, as it says."""
        labels = self.payload.get("labels")
        value = labels.get("principal") if isinstance(labels, dict) else None
        value = value if isinstance(value, str) else self.payload.get("principal")
        return value if isinstance(value, str) else str(self.header.get("kid", ""))

    @property
    def stands_for(self) -> bool:
        """Whether it is a log's word for an entry, which is not there itself."""
        return self.kind == "entry" and self.payload.get("record") == "intent"

    @property
    def withheld(self) -> int:
        """How many fields are not there, only commitments to them."""
        labels = self.payload.get("labels")
        places = [labels.get("_sd") if isinstance(labels, dict) else None]
        if self.kind == "denial":
            places.append(self.payload.get("_sd"))
        return sum(len(found) for found in places if isinstance(found, list))

    @property
    def timestamp_ms(self) -> int:
        """When, as it says; Unix milliseconds."""
        value = self.payload.get("timestamp_ms")
        return value if type(value) is int else 0


@dataclass(frozen=True)
class Graph:
    """What is drawn. Parents stand before their children, except absent ones, which stand last.

    Attributes:
        nodes: in the order in which they were found.
        left_out: how many records beyond the limit are not drawn.
        verified: whether keys were given.
    """

    nodes: tuple[Node, ...]
    left_out: int = 0
    verified: bool = False

    @property
    def edges(self) -> list[tuple[int, int]]:
        """(parent, child), by index."""
        return [(parent, child) for child, node in enumerate(self.nodes) for parent in node.parents]

    def count(self, what: str) -> int:
        """How many nodes are in one of these conditions: a kind, a verdict's state, an outcome's state, or ``tainted``."""
        return sum(
            what in (node.kind, node.verdict.state, node.outcome.state) or (what == "tainted" and bool(node.taints))
            for node in self.nodes
        )


@dataclass
class _Found:
    """A record with its own hash, and the name by which children know it."""

    record: SourceRecord
    read: Read
    hash: str
    name: str
    copies: int = 1


_Outcomes = dict[str, dict[str, tuple[SourceRecord, Read]]]
"""By the hash of the entry, and then of the record."""


def graph_of(sources: Source | Iterable[Source], store: TrustStore | None = None, *, limit: int = MAX_NODES) -> Graph:
    """The graph of what these sources hold.

    Args:
        sources: one or several; the same record in two of them is one node.
        store: keys to verify with; None: nothing is verified.
        limit: nodes at most; the newest are kept.
    """
    found: dict[str, _Found] = {}
    outcomes: _Outcomes = {}
    kept = False
    for source in [sources] if isinstance(sources, Source) else sources:
        any_outcome = False
        for record in source.records:
            read = read_record(record)
            if read.kind == "outcome":
                any_outcome = True
                outcomes.setdefault(read.payload["entry_hash"], {})[record.jws] = record, read
            elif read.kind != "other":
                _collect(found, record, read)
        kept |= any_outcome if source.outcomes is None else source.outcomes
    every = list(found.values())
    verifier = None if store is None else Verifier(store)
    # Everything is verified, whatever of it is drawn: a parent that is left out is not a parent that is missing.
    nodes = [_node(one, verdict) for one, verdict in zip(every, _verdicts(every, verifier), strict=True)]
    left_out = max(0, len(nodes) - limit)
    shown = [_with_outcome(node, outcomes.get(node.hash, {}), kept, verifier) for node in nodes[left_out:]]
    return Graph(tuple(_linked(shown, limit)), left_out, store is not None)


def _collect(found: dict[str, _Found], record: SourceRecord, read: Read) -> None:
    from kest._kestcore import sha256

    hash_ = sha256(record.jws.encode("utf-8", "surrogatepass")).hex() if record.jws else ""
    key = hash_ or f"#{len(found)}"
    if key in found:
        found[key].copies += 1
        return
    # An entry with commitments in place of personal fields says which entry it stands for: children name that one.
    stands_for = read.payload.get("entry_hash") if read.payload.get("record") == "intent" else None
    found[key] = _Found(record, read, hash_, stands_for if isinstance(stands_for, str) else hash_)


def _verdicts(found: list[_Found], verifier: Verifier | None) -> list[Verdict]:
    entries = [one for one in found if one.read.kind == "entry" and "record" not in one.read.payload and one.record.jws]
    chained = {} if verifier is None else verifier.chain({one.record.jws: one.read for one in entries})
    out = []
    for one in found:
        if one.record.verdict is not None:
            out.append(Verdict(*one.record.verdict))
        elif one.read.kind == "broken":
            out.append(Verdict("invalid", one.read.why))
        elif not one.record.jws:
            out.append(Verdict("unsigned", "only the decoded form is here, without its signature"))
        elif verifier is None:
            out.append(Verdict())
        elif (verdict := chained.get(one.record.jws)) is not None:
            out.append(Verdict(*verdict))
        else:
            out.append(Verdict(*verifier.signature(one.record.jws, one.read)))
    return out


def _node(one: _Found, verdict: Verdict) -> Node:
    payload = one.read.payload
    denial = None
    if one.read.kind == "denial":
        denial = Denial(*(str(payload.get(name, "")) for name in ("policy", "tier", "reason")))
    return Node(
        one.read.kind,
        one.name,
        one.read.header,
        payload,
        verdict=verdict,
        denial=denial,
        copies=one.copies,
        why=one.read.why,
        origin=one.record.origin,
    )


def _with_outcome(
    node: Node, found: Mapping[str, tuple[SourceRecord, Read]], kept: bool, verifier: Verifier | None
) -> Node:
    if node.kind != "entry":
        return node
    if not found:
        return replace(node, outcome=Outcome("missing")) if kept else node
    outcomes = [_outcome(node, record, read, verifier) for record, read in found.values()]
    # Anybody can write one for an entry of somebody else: one that verifies counts before others.
    return replace(node, outcome=next((one for one in outcomes if one.verdict.state == "valid"), outcomes[0]))


def _outcome(node: Node, record: SourceRecord, read: Read, verifier: Verifier | None) -> Outcome:
    said = read.payload
    verdict = record.verdict
    if verdict is None and record.jws and verifier is not None:
        verdict = verifier.signature(record.jws, read)
        if verdict[0] == "valid" and said.get("principal") != node.principal:
            verdict = ("invalid", "it is signed by another than its call")
    duration = said.get("duration_us")
    return Outcome(
        str(said.get("result", "unknown")),
        str(said.get("error") or ""),
        duration if type(duration) is int else None,
        str(said.get("output_hash", "")),
        Verdict() if verdict is None else Verdict(*verdict),
    )


def _linked(nodes: list[Node], most: int) -> list[Node]:
    """With the indices of their parents, and a node for each parent that is not there, up to so many."""
    places: dict[str, int] = {}
    for index, node in enumerate(nodes):
        # What only says that it stands for an entry gives way to the entry.
        if node.hash and node.kind != "denial" and ("record" not in node.payload or node.hash not in places):
            places[node.hash] = index
    absent: dict[str, int] = {}
    linked = []
    for index, node in enumerate(nodes):
        parents = []
        for hash_ in _parent_hashes(node):
            place = places.get(hash_)
            if place is None or place == index:
                if len(absent) >= most and hash_ not in absent:
                    continue
                place = absent.setdefault(hash_, len(nodes) + len(absent))
            parents.append(place)
        linked.append(replace(node, parents=tuple(dict.fromkeys(parents))))
    missing = Verdict("unchecked", "it is not in what was read")
    return linked + [Node("absent", hash_, verdict=missing) for hash_ in absent]


def _parent_hashes(node: Node) -> list[str]:
    """What it continues from: its parents, or for a root that continues a flow, the tips named in its labels."""
    if node.kind not in ("entry", "denial"):
        return []
    hashes = [hash_ for hash_ in node.payload.get("parent_ids", ()) if hash_ != "0"]
    labels = node.payload.get("labels")
    continues = labels.get("kest.continues") if isinstance(labels, dict) else None
    if not hashes and isinstance(continues, str):
        hashes = [hash_ for hash_ in continues.split(",") if hash_]
    return hashes
