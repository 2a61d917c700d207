"""Hypothesis strategies for passports: chains, DAGs with joins, and what an attacker makes of them.

``passports()`` are valid with the keys they come with; ``suspects()`` are usually not. The forged entry is what later
entries name as their parent, so a verifier that overlooks it finds nothing wrong further on either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from reference import chain, entry, trust, verify

from .actors import ACTORS, ALICE, BOB, STRANGER, Actor
from .forge import FORGERIES, Draft, Forgery
from .values import texts

KeyList = dict[str, list[verify.KeyInfo]]
START_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Suspect:
    entries: list[str]
    keys: KeyList
    chain_tip: str | None = None


taint_names = st.one_of(st.sampled_from(["a", "b", "c", "kest.unverified", "\ue000", "\U0001f600"]), texts.filter(bool))
taint_lists = st.lists(taint_names, max_size=3, unique=True)
operations = st.one_of(st.sampled_from(["op", "module.Class.method"]), texts.filter(bool))
hex_digits = "0123456789abcdef"
hashes = st.text(hex_digits, min_size=64, max_size=64)
entry_ids = st.builds(
    lambda a, b, c, d, e: f"{a}-{b}-7{c}-{d}{e[:3]}-{e[3:]}",
    *(st.text(hex_digits, min_size=n, max_size=n) for n in (8, 4, 3)),
    st.sampled_from("89ab"),
    st.text(hex_digits, min_size=15, max_size=15),
)
deviations = st.fixed_dictionaries({name: texts for name in ("policy", "tier", "reason", "approver")})
policy_contexts = st.fixed_dictionaries(
    {**{tier: st.lists(texts, max_size=2) for tier in entry.TIERS}, "deviations": st.lists(deviations, max_size=2)}
)
label_maps = st.dictionaries(
    st.one_of(st.sampled_from(["trace_id", "kest.identity", "kest.resource_attr", "kest.continues"]), texts).filter(
        lambda name: name not in ("principal", entry.OVERRIDE_LABEL)
    ),
    texts,
    max_size=2,
)
# The free fields of an entry, valid whatever they are. Simple ones are likelier, so that failures stay readable.
entry_fields: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "operation": st.one_of(st.just("op"), operations),
        "entry_id": st.one_of(st.just("0192f0c1-7a3b-7c4d-8e5f-0123456789ab"), entry_ids),
        "timestamp_ms": st.one_of(st.integers(START_MS, START_MS + 1000), st.integers(0, 2**53 - 1)),
        "classification": st.sampled_from(entry.CLASSIFICATIONS),
        "labels": st.one_of(st.just({}), label_maps),
        "policy_context": st.one_of(st.just(entry.empty_policy_context()), policy_contexts),
        "input_hash": st.one_of(st.just(""), hashes),
    }
)


@st.composite
def drafts(draw: st.DrawFn, known: dict[str, dict[str, Any]], shape: str, actors: Sequence[Actor]) -> Draft:
    """An entry that may follow ``known`` (hash → payload)."""
    before = list(known)
    if not before or (shape == "dag" and draw(st.integers(0, 5)) == 0):
        parents: list[str] = []
    elif shape == "chain":
        parents = before[-1:]
    else:
        parents = draw(st.lists(st.sampled_from(before), min_size=1, max_size=3, unique=True))
    actor = draw(st.sampled_from(actors))
    fields = draw(entry_fields)
    added = draw(taint_lists)
    inherited = [known[p]["taints"] for p in parents]
    present = trust.taints(inherited, added, ())
    removed = (
        draw(st.lists(st.sampled_from([*present, "absent"]), max_size=2, unique=True)) if draw(st.booleans()) else []
    )
    scores = [known[p]["trust_score"] for p in parents]
    override = draw(st.one_of(st.none(), st.none(), st.integers(0, 100)))
    score = trust.propagate(scores, draw(st.sampled_from([100, 100, 90, 40, 10, 0]))) if override is None else override
    labels = dict(fields.pop("labels"))
    if override is not None and ((scores and score > min(scores)) or draw(st.booleans())):
        labels[entry.OVERRIDE_LABEL] = str(score)
    payload = entry.build_payload(
        principal=actor.name,
        trust_score=score,
        parent_ids=parents or [entry.ROOT],
        labels=labels,
        added_taints=added,
        removed_taints=removed,
        taints=trust.taints(inherited, added, removed),
        **fields,
    )
    return Draft(actor, entry.header(actor.name, actor.alg), payload, before)


def _remember(draft: Draft) -> dict[str, Any]:
    """What later drafts take over from an entry: what it says, as far as that makes sense."""
    claims = draft.payload if isinstance(draft.payload, dict) else {}
    score, taints = claims.get("trust_score"), claims.get("taints")
    return {
        "trust_score": score if isinstance(score, int) and 0 <= score <= 100 else 100,
        "taints": [t for t in taints if isinstance(t, str)] if isinstance(taints, list) else [],
    }


@st.composite
def passports(
    draw: st.DrawFn,
    max_size: int = 6,
    min_size: int = 0,
    forgeries: Sequence[Forgery] = (),
    actors: Sequence[Actor] = ACTORS,
) -> Suspect:
    """Entries with the keys that verify them; with ``forgeries``, one entry has been tampered with before signing."""
    shape = draw(st.sampled_from(["chain", "dag"]))
    size = draw(st.integers(max(min_size, 1 if forgeries else 0), max_size))
    bad = draw(st.integers(0, size - 1)) if forgeries else None
    entries: list[str] = []
    known: dict[str, dict[str, Any]] = {}
    for at in range(size):
        draft = draw(drafts(known, shape, actors))
        if at == bad:
            draw(st.sampled_from(forgeries))(draw, draft)
        jws = draft.build()
        if entry.jws_hash(jws) in known:
            continue  # the same entry drawn twice
        entries.append(jws)
        known[entry.jws_hash(jws)] = _remember(draft)
    return Suspect(entries, {actor.name: [actor.info()] for actor in ACTORS})


def tip_of(entries: Sequence[str]) -> str:
    return chain.Passport(entries).chain_tip()


@st.composite
def rearranged(draw: st.DrawFn) -> Suspect:
    """Valid entries, but some lost, moved, doubled, or under the wrong tip."""
    suspect = draw(passports(min_size=1))
    entries, tip = list(suspect.entries), tip_of(suspect.entries)
    a, b = (draw(st.integers(0, len(entries) - 1)) for _ in range(2))
    other = draw(passports(min_size=1, max_size=2)).entries
    moves = {
        "nothing": entries,
        "drop": entries[:a] + entries[a + 1 :],
        "cut tail": entries[:a],
        "cut head": entries[a:],
        "double": [*entries[: b + 1], entries[a], *entries[b + 1 :]],
        "move": [*(rest := entries[:a] + entries[a + 1 :])[:b], entries[a], *rest[b:]],
        "reverse": entries[::-1],
        "foreign": [*entries[:a], *(e for e in other if e not in entries), *entries[a:]],
    }
    chosen = moves[draw(st.sampled_from(sorted(moves)))]
    reverse = ",".join(reversed(tip.split(",")))
    tips: list[str | None] = [
        None,
        None,
        tip,
        tip,
        tip,
        "",
        tip.upper(),
        tip + ",",
        tip[:-1],
        "0" * 64,
        tip.split(",")[0],
        reverse,
    ]
    return replace(
        suspect,
        entries=chosen,
        chain_tip=draw(st.sampled_from([*tips, f"{tip},{tip}", f" {tip}", tip.replace(",", ", ")])),
    )


KNOWLEDGE = ("same", "same", "gone", "wrong", "other alg", "capped", "tied", "tied", "timed", "rotated", "both")


@st.composite
def distrusted(draw: st.DrawFn) -> Suspect:
    """Valid entries of few principals before a verifier that knows less, or allows less."""
    suspect = draw(passports(min_size=1, actors=draw(st.sampled_from([[ALICE], [ALICE, BOB], ACTORS]))))
    times = [chain.payload_of(jws)["timestamp_ms"] for jws in suspect.entries]
    keys: KeyList = {}
    for actor in ACTORS:
        kind = draw(st.sampled_from(KNOWLEDGE))
        when = max(0, draw(st.sampled_from(times)) + draw(st.integers(-1, 1)))  # most mistakes are at the edge
        cap = draw(st.integers(0, 100))
        older = Actor(actor.name, actor.alg if actor.alg != "RS256" else "EdDSA", 1)
        infos = {
            "same": [actor.info()],
            "gone": [],
            "wrong": [older.info()],
            "other alg": [Actor(actor.name, "ES256" if actor.alg == "EdDSA" else "EdDSA", 2).info()],
            "capped": [actor.info(max_trust=cap)],
            "tied": [actor.info(may_sanitise=False)],
            "timed": [actor.info(not_before=when)] if draw(st.booleans()) else [actor.info(not_after=when)],
            "rotated": [older.info(not_after=when), actor.info(not_before=when)],
            "both": [older.info(), actor.info()],
        }[kind]
        if infos:
            keys[actor.name] = infos
    return replace(suspect, keys=keys)


def suspects() -> st.SearchStrategy[Suspect]:
    forged = passports(forgeries=FORGERIES)
    tipped = forged.flatmap(lambda s: st.sampled_from([replace(s, chain_tip="0" * 64), s]))
    strangers = passports(forgeries=FORGERIES, actors=(*ACTORS, STRANGER))  # who sign, but nobody knows them
    return st.one_of(forged, forged, forged, tipped, strangers, rearranged(), distrusted(), distrusted())
