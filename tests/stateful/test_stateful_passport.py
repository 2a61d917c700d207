"""Passports grown, joined, sent and tampered with in any order, beside lists of entries that the specification reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from differential.actors import ALICE, BOB, STRANGER, Actor, encoded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import histories
from reference import chain, entry, trust, verify

from kest._kestcore import KnownEntries, Signer, pack_dense, pack_z, stamp, unpack_z, uuid7
from kest.core import (
    BaggageManager,
    KestEntry,
    LocalEd25519Provider,
    Passport,
    PassportVerifier,
    SimpleCache,
    TrustStore,
    VerificationError,
    sign_entry,
)
from kest.errors import KestError

WEAK = Actor("spiffe://kest.internal/weak", "EdDSA")
"""Its roots may claim 50, and nothing it says undoes what others said."""
SIGNERS = (ALICE, BOB, WEAK)
KEYS = {
    ALICE.name: ALICE.info(),
    BOB.name: BOB.info(),
    WEAK.name: WEAK.info(max_trust=50, may_sanitise=False),
}
CAPS = 1 << 20, 2000
MOST_ENTRIES, MOST_FLOWS = 24, 8

taint_lists = st.lists(st.sampled_from(["a", "b", "c", "\ue000", "\U0001f600"]), max_size=2, unique=True)
scores = st.sampled_from([100, 100, 90, 51, 50, 10, 0])
overrides = st.sampled_from([None, None, None, 100, 50, 0])
signers = st.sampled_from([ALICE, ALICE, BOB, WEAK])
places = st.integers(0, 10_000)


@dataclass
class Flow:
    """A passport and what it should be: the entries, and what an edge said about whatever comes next."""

    passport: Passport
    entries: list[str]
    ceiling: int = 100
    carried: frozenset[str] = frozenset()
    frozen: bool = True  # nobody can add to it by hand

    @property
    def model(self) -> chain.Passport:
        return chain.Passport(self.entries)


def trust_store() -> TrustStore:
    store = TrustStore({})
    for name, info in KEYS.items():
        store.add(name, encoded(info.public_key), max_trust=info.max_trust, may_sanitise=info.may_sanitise)
    return store


STORE = trust_store()

Verdict = verify.Facts | int | None


def expected(entries: Sequence[str], tip: str | None = None) -> Verdict:
    """What a verifier says; the place of the first bad entry when it refuses."""
    try:
        return verify.verify(entries, KEYS, tip)
    except verify.BadEntry as bad:
        return bad.index


def judged(passport: Any, tip: str | None = None) -> Verdict:
    try:
        v = PassportVerifier.verify(passport, STORE, chain_tip=tip)
    except VerificationError as error:
        return error.index if error.reason else -1
    score = v.trust_score if v.tips else None
    return verify.Facts(trust=score, taints=list(v.taints), tips=list(v.tips), principals=sorted(v.principals))


def by_hand(entries: Sequence[str]) -> Passport:
    passport = Passport()
    for jws in entries:
        passport.add_signature(jws)
    return passport


ROUTES: dict[str, Callable[[list[str]], Any]] = {
    "list": lambda entries: entries,
    "passport": Passport,
    "by hand": by_hand,
    "text": lambda entries: json.dumps(entries),
    "inline": lambda entries: BaggageManager.unpack({"kest.passport": json.dumps(entries, separators=(",", ":"))}),
    "compressed": lambda entries: unpack_z(pack_z(Passport(entries)), *CAPS),
}
FORMS: dict[str, tuple[str, Callable[[Passport], str | None]]] = {
    "inline": ("kest.passport", lambda passport: passport.serialize()),
    "compressed": ("kest.passport_z", pack_z),
    "dense": ("kest.passport_d", pack_dense),
}


class Passports(RuleBasedStateMachine):
    """Each rule makes flows of flows; whatever there is must be what its list of entries says, to the last byte."""

    @initialize(capacity=st.sampled_from([2, 8, 64]))
    def begin(self, capacity: int) -> None:
        self.flows: list[Flow] = []
        self.capacity = capacity
        self.known = KnownEntries(STORE.ring(), capacity)
        self.cache = SimpleCache()

    def pick(self, at: int) -> Flow:
        return self.flows[at % len(self.flows)]

    def keep(self, flow: Flow) -> None:
        self.check(flow)
        self.flows.append(flow)
        del self.flows[:-MOST_FLOWS]

    def check(self, flow: Flow) -> None:
        passport, model = flow.passport, flow.model
        if passport.entries != flow.entries:  # what has several tips is put in an order of its own
            assert sorted(passport.entries) == sorted(flow.entries)
            flow.entries = passport.entries
        tips, known = model.tips(), model.payloads()
        assert len(passport) == len(flow.entries)
        assert list(passport.tips) == tips
        assert passport.chain_tip == model.chain_tip()
        assert passport.trust_score == min([flow.ceiling, *(known[tip]["trust_score"] for tip in tips)])
        assert list(passport.taints) == trust.taints([flow.carried, *(known[tip]["taints"] for tip in tips)], (), ())
        assert passport.decode() == [chain.payload_of(jws) for jws in flow.entries]
        assert passport.serialize() == chain.Passport(flow.entries).serialize()
        verdict = expected(flow.entries)
        if isinstance(verdict, verify.Facts):
            weakest = flow.ceiling if verdict.trust is None else min(flow.ceiling, verdict.trust)
            verdict = replace(verdict, trust=weakest, taints=trust.taints([flow.carried, verdict.taints], (), ()))
        assert judged(passport, passport.chain_tip) == verdict

    # --- growing ---

    @rule(signer=signers, score=scores, added=taint_lists)
    def start(self, signer: Actor, score: int, added: list[str]) -> None:
        model = chain.Passport()
        jws = model.append(signer.private, signer.name, self_score=score, added_taints=added, **self.fields())
        self.keep(Flow(Passport([jws]), [jws], frozen=False))

    def fields(self) -> dict[str, Any]:
        entry_id, timestamp_ms = stamp()
        return {"operation": "op", "entry_id": entry_id, "timestamp_ms": timestamp_ms}

    def grows(self) -> bool:
        return any(len(flow.entries) < MOST_ENTRIES for flow in self.flows)

    def pick_short(self, at: int) -> Flow:
        short = [flow for flow in self.flows if len(flow.entries) < MOST_ENTRIES]
        return short[at % len(short)]

    @precondition(grows)
    @rule(at=places, signer=signers, score=scores, override=overrides, added=taint_lists, removed=taint_lists)
    def seal(
        self, at: int, signer: Actor, score: int, override: int | None, added: list[str], removed: list[str]
    ) -> None:
        """As a decorated call does it: the passport that it continues from stays what it was."""
        flow = self.pick_short(at)
        given = flow.passport.trust_score * score // 100 if override is None else override
        if not flow.entries:
            given = min(given, flow.passport.trust_score)
        e = self.fields()
        after = flow.passport.seal(
            Signer(signer.name, signer.seed), "op", "system", given, False, {"l": "v"}, sorted(added), sorted(removed),
            entry.canonicalize(entry.empty_policy_context()), "", e["entry_id"], e["timestamp_ms"],
        )  # fmt: skip
        model = flow.model
        jws = model.append(
            signer.private, signer.name, trust_override=given, labels={"l": "v"},
            added_taints={*added, *flow.carried}, removed_taints=removed, **e,
        )  # fmt: skip
        assert after.tip_entry == jws, "the core writes what the specification writes"
        self.check(flow)
        self.keep(Flow(after, model.entries))

    @precondition(grows)
    @rule(at=places, signer=signers, score=scores, added=taint_lists)
    def adopt(self, at: int, signer: Actor, score: int, added: list[str]) -> None:
        """An entry that was signed elsewhere."""
        flow = self.pick_short(at)
        model = flow.model
        jws = model.append(signer.private, signer.name, self_score=score, added_taints=added, **self.fields())
        self.keep(Flow(flow.passport.adopt(jws), model.entries))
        self.check(flow)

    @precondition(grows)
    @rule(at=places, signer=signers, among=st.sets(st.integers(0, 40), max_size=3), score=scores, inside=st.booleans())
    def sign(self, at: int, signer: Actor, among: set[int], score: int, inside: bool) -> None:
        """By hand, continuing from anywhere: a branch, a join, or another root within one passport."""
        flow = self.pick_short(at)
        payloads = flow.model.payloads()
        names = list(payloads)
        parents = sorted({names[i % len(names)] for i in among})
        scored = trust.propagate([payloads[parent]["trust_score"] for parent in parents], score)
        made = KestEntry(
            "by.hand", trust_score=scored, parent_ids=parents or ("0",),
            taints=trust.taints([payloads[parent]["taints"] for parent in parents], (), ()),
        )  # fmt: skip
        jws = sign_entry(made, LocalEd25519Provider(signer.name, seed=signer.seed))
        if inside and not flow.frozen:
            flow.passport.add_signature(jws)
            flow.entries = [*flow.entries, jws]
            self.check(flow)
        else:
            self.keep(Flow(Passport([*flow.entries, jws]), [*flow.entries, jws], frozen=False))

    @precondition(lambda self: self.flows)
    @rule(which=st.lists(places, min_size=1, max_size=3))
    def join(self, which: list[int]) -> None:
        flows = [self.pick(at) for at in which]
        entries = list(dict.fromkeys(jws for flow in flows for jws in flow.entries))
        if len(entries) > 2 * MOST_ENTRIES:
            return
        merged = Passport.merge(*(flow.passport for flow in flows))
        ceiling, carried = min(flow.ceiling for flow in flows), frozenset().union(*(flow.carried for flow in flows))
        self.keep(Flow(merged, entries, ceiling, carried))

    @precondition(lambda self: self.flows)
    @rule(at=places, ceiling=st.sampled_from([100, 60, 10]), taints=taint_lists)
    def restrict(self, at: int, ceiling: int, taints: list[str]) -> None:
        """What an edge does with lineage that it could not verify."""
        flow = self.pick(at)
        limited = flow.passport.restrict(ceiling, sorted(taints))
        self.keep(Flow(limited, flow.entries, min(ceiling, flow.ceiling), flow.carried | set(taints)))
        self.check(flow)

    @precondition(lambda self: self.flows)
    @rule(at=places)
    def snapshot(self, at: int) -> None:
        flow = self.pick(at)
        self.keep(Flow(flow.passport.snapshot(), flow.entries, flow.ceiling, flow.carried))

    # --- travelling ---

    @precondition(lambda self: self.flows)
    @rule(at=places, form=st.sampled_from(sorted(FORMS)), known=st.booleans(), verified=st.booleans())
    def travel(self, at: int, form: str, known: bool, verified: bool) -> None:
        """In each form, read as it stands or by somebody who has seen some of it; trust at the edge stays behind."""
        flow = self.pick(at)
        key, write = FORMS[form]
        value = write(flow.passport)
        assert value is not None
        members = {key: value, "kest.chain_tip": flow.passport.chain_tip}
        arrived = BaggageManager.unpack(members, known=self.known if known else None)
        assert arrived.entries == flow.entries
        if verified:
            self.recognise(arrived, flow.entries)
        self.keep(Flow(arrived, flow.entries, frozen=False))

    @precondition(lambda self: self.flows)
    @rule(at=places, limit=st.sampled_from([300, 700, 1500, 4096, 1 << 20]), dense=st.booleans())
    def send(self, at: int, limit: int, dense: bool) -> None:
        """In whichever form fits, which is a claim check if none does."""
        flow = self.pick(at)
        members = BaggageManager.pack(flow.passport, self.cache, limit=limit, dense=dense)
        assert set(members) - {"kest.claim_check"} <= {"kest.chain_tip", *(key for key, _ in FORMS.values())}
        arrived = BaggageManager.unpack(members, self.cache)
        assert arrived.entries == flow.entries
        self.keep(Flow(arrived, flow.entries, frozen=False))

    def recognise(self, passport: Passport, entries: Sequence[str]) -> None:
        """Whoever verifies only what is new comes to the same end as one who verifies it all."""
        verdict, index = expected(entries), None
        try:
            self.known.verify(passport)
        except VerificationError as error:
            index = error.index
        if isinstance(verdict, verify.Facts):
            assert index is None
            assert self.known.missing(passport) == 0
        else:
            assert index == verdict

    @precondition(lambda self: self.flows)
    @rule(at=places)
    def verify_what_is_new(self, at: int) -> None:
        flow = self.pick(at)
        self.recognise(flow.passport, flow.entries)

    # --- tampering ---

    @precondition(lambda self: self.flows)
    @rule(
        at=places, other=places, where=places, to=places, route=st.sampled_from(sorted(ROUTES)),
        how=st.sampled_from(["drop", "cut", "swap", "double", "insert", "replace", "signature", "stranger", "payload"]),
    )  # fmt: skip
    def tamper(self, at: int, other: int, where: int, to: int, route: str, how: str) -> None:
        """Judged as the specification judges it, whichever way it comes, and however much of it is known already."""
        flow, foreign = self.pick(at), self.pick(other)
        entries = changed(list(flow.entries), foreign.entries, where, to, how)
        if not entries:
            return
        tip = flow.passport.chain_tip
        assert judged(entries) == expected(entries)
        try:
            arrived = ROUTES[route](entries)
        except KestError:
            assert not isinstance(expected(entries), verify.Facts), "what verifies can also be read"
            return
        assert judged(arrived) == expected(entries)
        assert judged(arrived, tip) == expected(entries, tip)
        if isinstance(arrived, Passport):
            self.recognise(arrived, entries)
            assert judged(arrived) == expected(entries)

    @precondition(lambda self: self.flows)
    @rule(
        at=places, form=st.sampled_from(sorted(FORMS)), where=places, gone=st.integers(0, 40),
        new=st.sampled_from(["", "A", "_", "!", "AAAA", '"']), known=st.booleans(),
    )  # fmt: skip
    def damage(self, at: int, form: str, where: int, gone: int, new: str, known: bool) -> None:
        """A few characters of what is sent, lost or changed. If it can be read at all, it is judged by what it says."""
        flow = self.pick(at)
        key, write = FORMS[form]
        value = write(flow.passport)
        assert value is not None
        where %= len(value)
        damaged = value[:where] + new + value[where + gone :]
        try:
            arrived = BaggageManager.unpack({key: damaged}, known=self.known if known else None)
        except KestError:
            assert damaged != value
            return
        assert judged(arrived) == expected(arrived.entries)
        self.recognise(arrived, arrived.entries)
        if damaged == value:
            assert arrived.entries == flow.entries

    @invariant()
    def bounded(self) -> None:
        assert len(self.known) <= self.capacity

    def teardown(self) -> None:
        for flow in getattr(self, "flows", []):
            self.check(flow)


def changed(entries: list[str], foreign: list[str], where: int, to: int, how: str) -> list[str]:
    where, to = where % len(entries), to % len(entries)
    if how == "drop":
        del entries[where]
    elif how == "cut":
        del entries[where:]
    elif how == "swap":
        entries[where], entries[to] = entries[to], entries[where]
    elif how == "double":
        entries.insert(to, entries[where])
    elif how == "insert":
        entries.insert(where, foreign[to % len(foreign)])
    elif how == "replace":
        entries[where] = foreign[to % len(foreign)]
    elif how == "signature":
        signed, _, signature = entries[where].rpartition(".")
        entries[where] = (
            f"{signed}.{signature[: to % 80]}{'B' if signature[to % 80] == 'A' else 'A'}{signature[to % 80 + 1 :]}"
        )
    else:
        payload = chain.payload_of(entries[where])
        payload["entry_id"] = uuid7()
        if how == "payload":
            payload["trust_score"] = (payload["trust_score"] + 1 + to) % 101
        else:
            payload["labels"] = {**payload["labels"], "principal": STRANGER.name}
        actor = STRANGER if how == "stranger" else ALICE
        entries[where] = entry.sign_entry(payload, actor.private, payload["labels"]["principal"])
    return entries


Passports.TestCase.settings = histories(60, 25)
TestPassports = Passports.TestCase
