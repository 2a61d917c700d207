"""The models' theorems, on random traces that only ever take steps which the policy texts allow.

Rego and Cedar decide in process. Where the state lives in the lineage (trust, taints), the trace is made of decorated
calls, so what is checked is the policy and the lifecycle that feeds it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import models
from reference.policy_tables import ALLOWED, COMPANIES, policy_input

from kest.core import LocalEd25519Provider, PolicyDeniedError, configure, kest_verified
from kest.core.context import lineage
from kest.core.engine import CedarLocalEngine, PolicyEngine, RegoLocalEngine
from kest.core.policies import NAMES, load

pytest.importorskip("cedarpy")

SETTINGS = settings(
    max_examples=int(os.environ.get("KEST_POLICY_EXAMPLES", "40")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)
STEPS = 30
WHO, WHAT = st.integers(0, 2), st.integers(0, 4)


def steps(*parts: st.SearchStrategy[Any], most: int = STEPS) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    return st.lists(st.tuples(*parts), min_size=1, max_size=most)


@pytest.fixture(params=["rego", "cedar"], scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    texts = {name: load(name, request.param) for name in NAMES}
    with RegoLocalEngine(texts) if request.param == "rego" else CedarLocalEngine(texts) as made:
        assert all(made.evaluate("", [name], ALLOWED[name]) for name in NAMES)  # or every trace would be empty
        yield made


def allows(engine: PolicyEngine, model: str, given: dict[str, Any]) -> bool:
    return engine.evaluate("", [model], given)


# --- Bell and LaPadula ------------------------------------------------------------------------------------------------

LEVEL = st.builds(models.Level, st.integers(0, 3), st.frozensets(st.sampled_from("ab")))


def meet(one: models.Level, other: models.Level) -> models.Level:
    return models.Level(min(one.rank, other.rank), one.categories & other.categories)


@SETTINGS
@given(
    clearances=st.tuples(LEVEL, LEVEL, LEVEL),
    start=st.tuples(LEVEL, LEVEL, LEVEL),
    objects=st.tuples(*[LEVEL] * 5),
    matrix=st.frozensets(st.sampled_from(models.ACCESSES), min_size=2),
    trace=steps(WHO, WHAT, st.sampled_from((*models.ACCESSES, "raise")), LEVEL),
)
def test_bell_lapadula_lets_nothing_flow_down(
    engine: PolicyEngine,
    clearances: tuple[models.Level, ...],
    start: tuple[models.Level, ...],
    objects: tuple[models.Level, ...],
    matrix: frozenset[str],
    trace: list[tuple[int, int, str, models.Level]],
) -> None:
    """Basic security theorem, as flow: what an object or a subject ever holds is dominated by its own level. Objects keep
    their level (tranquillity); subjects remember, and their current level rises now and then and never falls."""
    current = [meet(clearance, level) for clearance, level in zip(clearances, start, strict=True)]
    known: list[set[models.Level]] = [{at} for at in current]
    contents: list[set[models.Level]] = [{at} for at in objects]
    for who, what, access, level in trace:
        if access == "raise":
            joined = models.Level(max(current[who].rank, level.rank), current[who].categories | level.categories)
            current[who] = joined if clearances[who].dominates(joined) else current[who]
            continue
        attributes = {
            "access": access,
            "clearance": models.MILITARY[clearances[who].rank],
            "clearance_categories": sorted(clearances[who].categories),
            "current_level": models.MILITARY[current[who].rank],
            "current_categories": sorted(current[who].categories),
            "classification": models.MILITARY[objects[what].rank],
            "categories": sorted(objects[what].categories),
            "permitted_accesses": sorted(matrix),
        }
        if not allows(engine, "bell_lapadula", policy_input(attributes)):
            continue
        assert access in matrix
        if access in ("read", "write"):
            known[who] |= contents[what]
        if access in ("append", "write"):
            contents[what] |= known[who]
        for at, held in zip((*current, *objects), (*known, *contents), strict=True):
            assert all(at.dominates(origin) for origin in held)


# --- Biba -------------------------------------------------------------------------------------------------------------

INTEGRITY = st.integers(0, 2)


@SETTINGS
@given(
    subjects=st.tuples(*[INTEGRITY] * 3),
    objects=st.tuples(*[INTEGRITY] * 5),
    trace=steps(WHO, WHAT, st.sampled_from(("read", "write", "invoke"))),
)
def test_biba_lets_nothing_flow_up(
    engine: PolicyEngine, subjects: tuple[int, ...], objects: tuple[int, ...], trace: list[tuple[int, int, str]]
) -> None:
    """What an object or a subject ever holds came from at least its own integrity."""
    known, contents = [{at} for at in subjects], [{at} for at in objects]
    for who, what, access in trace:
        target = what % 3 if access == "invoke" else what
        at = subjects[target] if access == "invoke" else objects[what]
        levels = {"subject_integrity": models.INTEGRITY[subjects[who]], "object_integrity": models.INTEGRITY[at]}
        if not allows(engine, "biba", policy_input({"access": access, **levels})):
            continue
        if access == "read":
            known[who] |= contents[what]
        else:
            (known[target] if access == "invoke" else contents[what]).update(known[who])
        for own, held in zip([*subjects, *objects], [*known, *contents], strict=True):
            assert min(held) >= own


ORIGINS = {"system": 100, "verified_rag": 90, "third_party_api": 60, "user_input": 40, "internet": 10, "llm": 0}


def prepare(engine: PolicyEngine) -> None:
    configure(engine=engine, identity=LocalEd25519Provider("spiffe://kest.test/theorem"))


@SETTINGS
@given(trace=steps(INTEGRITY, INTEGRITY, st.sampled_from(sorted(ORIGINS)), most=10))
def test_biba_calls_carry_the_low_water_mark(engine: PolicyEngine, trace: list[tuple[int, int, str]]) -> None:
    """A flow that has been through something untrusted modifies nothing above it, whatever level it claims."""
    prepare(engine)
    trust = worst = 100
    with lineage():
        for subject, target, origin in trace:
            levels = {"subject_integrity": models.INTEGRITY[subject], "object_integrity": models.INTEGRITY[target]}

            @kest_verified("biba", source_type=origin, resource_attr={"access": "write", **levels})
            def write() -> None: ...

            here = trust * ORIGINS[origin] // 100
            permitted = target <= subject and here >= (0, 40, 80)[target]
            try:
                write()
            except PolicyDeniedError:
                assert not permitted
            else:
                assert permitted
                trust, worst = here, min(worst, ORIGINS[origin])
                assert worst >= (0, 40, 80)[target]


# --- Brewer and Nash --------------------------------------------------------------------------------------------------

MARKET = {**COMPANIES, "bank-c": "banks", "oil-y": "oil", "rail": "transport"}


@SETTINGS
@given(trace=steps(WHO, st.sampled_from(sorted(MARKET)), st.booleans(), st.sampled_from(("read", "write"))))
def test_brewer_nash_keeps_the_wall(engine: PolicyEngine, trace: list[tuple[int, str, bool, str]]) -> None:
    """Nobody ever holds two competitors' information; unsanitised information stays in its dataset (1989, T1-T3)."""
    contents: dict[tuple[str, bool], set[str]] = {
        (c, clean): set() if clean else {c} for c in MARKET for clean in (True, False)
    }
    history: list[set[str]] = [set() for _ in range(3)]
    known: list[set[str]] = [set() for _ in range(3)]
    for who, company, sanitized, access in trace:
        attributes = {
            "access": access,
            "dataset": company,
            "conflict_class": MARKET[company],
            "sanitized": sanitized,
            "accessed_datasets": sorted(history[who]),
            "accessed_classes": sorted({MARKET[held] for held in history[who]}),
        }
        first = not history[who] and access == "read"
        if not allows(engine, "brewer_nash", policy_input(attributes)):
            assert not first, "before the first access there is no wall"
            continue
        if not sanitized:
            history[who].add(company)
        if access == "read":
            known[who] |= contents[company, sanitized]
        else:
            contents[company, sanitized] |= known[who]
        classes = [MARKET[held] for held in history[who]]
        assert len(classes) == len(set(classes))
        assert known[who] <= history[who]
        for (owner, clean), held in contents.items():
            assert held <= (set() if clean else {owner})


# --- Clark and Wilson -------------------------------------------------------------------------------------------------

USERS, ITEMS, PROCEDURES = ("alice", "bob", "carol", "dave"), ("ledger", "till", "stock"), ("order", "receive", "pay")
SOME_USERS = st.frozensets(st.sampled_from(USERS), min_size=1, max_size=3)
RELATIONS = st.fixed_dictionaries(dict.fromkeys(PROCEDURES, SOME_USERS))


@SETTINGS
@given(
    certified=st.fixed_dictionaries(dict.fromkeys(PROCEDURES, st.frozensets(st.sampled_from(ITEMS), min_size=1))),
    executors=RELATIONS,
    certifiers=RELATIONS,
    trace=steps(
        st.sampled_from(USERS),
        st.sampled_from(PROCEDURES),
        st.frozensets(st.sampled_from(ITEMS), min_size=1, max_size=2),
        st.sampled_from(("execute", "execute", "certify", "commit")),
        st.booleans(),
    ),
)
def test_clark_wilson_separates_duties(
    engine: PolicyEngine,
    certified: dict[str, frozenset[str]],
    executors: dict[str, frozenset[str]],
    certifiers: dict[str, frozenset[str]],
    trace: list[tuple[str, str, frozenset[str], str, bool]],
) -> None:
    """No user both certifies and runs a procedure, none performs two steps of one transaction, and items change only
    through procedures certified for them, from a verified state."""
    ran: dict[str, set[str]] = {tp: set() for tp in PROCEDURES}
    signed: dict[str, set[str]] = {tp: set() for tp in PROCEDURES}
    doers: list[str] = []
    for user, tp, touched, action, verified in trace:
        if action == "commit":
            doers = []
            continue
        attributes = {
            "action": action,
            "procedure": tp,
            "items": sorted(touched),
            "certified_items": sorted(certified[tp]),
            "authorized_users": sorted(executors[tp]),
            "certifiers": sorted(certifiers[tp]),
            "prior_users": sorted(set(doers)),
            "items_verified": verified,
            "accepts_unconstrained": False,
        }
        if not allows(engine, "clark_wilson", policy_input(attributes, user=user)):
            continue
        if action == "certify":
            signed[tp].add(user)
        else:
            assert verified
            assert touched <= certified[tp]
            assert user in executors[tp]
            ran[tp].add(user)
            doers.append(user)
        assert len(doers) == len(set(doers))
        assert all(not ran[name] & signed[name] for name in PROCEDURES)


@SETTINGS
@given(trace=steps(st.booleans(), st.booleans(), most=8))
def test_clark_wilson_calls_take_unconstrained_data_only_where_certified(
    engine: PolicyEngine, trace: list[tuple[bool, bool]]
) -> None:
    """C5 over decorated calls: tainted input reaches items only through a procedure certified to transform it."""
    prepare(engine)
    attributes = ALLOWED["clark_wilson"]["object"]["attributes"]
    tainted = False
    with lineage():
        for raw, transforms in trace:

            @kest_verified(
                "clark_wilson",
                user="alice",
                resource_attr={**attributes, "accepts_unconstrained": transforms},
                removed_taints=["raw"] if transforms else [],
            )
            def post() -> None: ...

            @kest_verified(
                "clark_wilson",
                user="alice",
                resource_attr={**attributes, "accepts_unconstrained": True},
                added_taints=["raw"],
            )
            def receive() -> None: ...

            if raw:
                receive()
                tainted = True
            try:
                post()
            except PolicyDeniedError:
                assert tainted
                assert not transforms
            else:
                assert transforms or not tainted
                tainted = False


# --- Goguen and Meseguer ----------------------------------------------------------------------------------------------

DOMAINS = ("a", "b", "c", "d")
PAIRS = st.sampled_from(list(itertools.permutations(DOMAINS, 2)))
COMMAND = (st.sampled_from(DOMAINS), st.sampled_from(DOMAINS), st.integers(0, 8))


def transitive(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    relation = {(one, one) for one in DOMAINS} | pairs
    for middle, one, other in itertools.product(DOMAINS, repeat=3):  # Warshall
        if (one, middle) in relation and (middle, other) in relation:
            relation.add((one, other))
    return relation


def row_of(observer: str, relation: set[tuple[str, str]]) -> list[str]:
    return [domain for domain in DOMAINS if (domain, observer) in relation]


@SETTINGS
@given(pairs=st.sets(PAIRS, max_size=4), commands=steps(*COMMAND, most=20))
def test_goguen_meseguer_is_noninterfering(
    engine: PolicyEngine, pairs: set[tuple[str, str]], commands: list[tuple[str, str, int]]
) -> None:
    """For a transitive relation, purging what may not interfere with an observer changes nothing it sees (1982)."""
    relation = transitive(pairs)

    def run(some: list[tuple[str, str, int]]) -> dict[str, int]:
        state = dict.fromkeys(DOMAINS, 0)
        influenced: dict[str, set[str]] = {domain: {domain} for domain in DOMAINS}
        for actor, observer, value in some:
            attributes = {"domain": actor, "observer": observer, "may_interfere": row_of(observer, relation)}
            if allows(engine, "goguen_meseguer", policy_input(attributes, taints=sorted(influenced[actor]))):
                state[observer] = hash((state[observer], state[actor], value))
                influenced[observer] |= influenced[actor]
        return state

    whole = run(commands)
    for observer in DOMAINS:
        assert run([command for command in commands if (command[0], observer) in relation])[observer] == whole[observer]


@SETTINGS
@given(pairs=st.sets(PAIRS, max_size=6), commands=steps(*COMMAND, most=12))
def test_goguen_meseguer_calls_are_seen_only_by_whom_all_behind_them_may_reach(
    engine: PolicyEngine, pairs: set[tuple[str, str]], commands: list[tuple[str, str, int]]
) -> None:
    """Over decorated calls, for any relation: influence through intermediaries is in the taints and is refused."""
    prepare(engine)
    relation = {(one, one) for one in DOMAINS} | pairs
    behind: set[str] = set()
    with lineage():
        for actor, observer, _ in commands:
            attributes = {"domain": actor, "observer": observer, "may_interfere": row_of(observer, relation)}

            @kest_verified("goguen_meseguer", resource_attr=attributes, added_taints=[actor])
            def command() -> None: ...

            permitted = all((domain, observer) in relation for domain in {actor, *behind})
            try:
                command()
            except PolicyDeniedError:
                assert not permitted
            else:
                assert permitted
                behind.add(actor)


def test_goguen_meseguer_stops_a_flow_through_a_third_domain(engine: PolicyEngine) -> None:
    """With an intransitive relation (high to filter, filter to low) the lineage still names high."""
    direct = policy_input(
        {"domain": "filter", "observer": "low", "may_interfere": ["low", "filter"]}, taints=["filter"]
    )
    through = deepcopy(direct)
    through["taints"] = through["subject"]["taints"] = ["filter", "high"]
    assert allows(engine, "goguen_meseguer", direct)
    assert not allows(engine, "goguen_meseguer", through)


# --- financial and security -------------------------------------------------------------------------------------------

ROLES = ("approved_by_manager", "approved_by_director", "approved_by_board")
AMOUNT = st.one_of(st.integers(1, 30_000_000), st.sampled_from((100_000, 100_001, 1_000_000, 1_000_001, 10_000_001)))


@SETTINGS
@given(
    limit=st.sampled_from((10**6, 2 * 10**7)),
    trace=steps(
        AMOUNT,
        st.fixed_dictionaries({}, optional=dict.fromkeys(ROLES, st.sampled_from(USERS))),
        st.sampled_from(USERS),
        st.sampled_from((59, 60, 79, 80, 100)),
    ),
)
def test_financial_limits_and_tiers_hold_over_a_period(
    engine: PolicyEngine, limit: int, trace: list[tuple[int, dict[str, str], str, int]]
) -> None:
    period, total = 5 * 10**7, 0
    for amount, approvals, user, trust in trace:
        attributes = {"currency": "EUR", "limit": limit, "period_limit": period, "period_total": total}
        given = policy_input(
            {**attributes, "allowed_taints": [], **approvals},
            args={"amount": amount, "currency": "EUR"},
            user=user,
            trust=trust,
        )
        if not allows(engine, "financial", given):
            continue
        total += amount
        tier = sum(amount > above for above in (100_000, 1_000_000, 10_000_000))
        assert amount <= limit
        assert total <= period
        assert trust >= (80 if tier else 60)
        assert len({user, *(approvals[role] for role in ROLES[:tier])}) == tier + 1


CIVIL, SCORE = st.integers(0, 3), st.integers(0, 100)
COMPARTMENTS = st.frozensets(st.sampled_from(("hr", "legal")))


@SETTINGS
@given(
    CIVIL,
    CIVIL,
    COMPARTMENTS,
    COMPARTMENTS,
    st.integers(0, 100),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 100),
)
def test_security_is_monotone(
    engine: PolicyEngine,
    clearance: int,
    classification: int,
    cleared: frozenset[str],
    needed: frozenset[str],
    trust: int,
    more: int,
    less: int,
    rise: int,
) -> None:
    """More clearance, compartments or trust never turns a permission into a denial, nor does less classification."""

    def asked(clearance: int, classification: int, cleared: frozenset[str], trust: int) -> bool:
        attributes = {
            "clearance": models.CIVIL[clearance],
            "clearance_compartments": sorted(cleared),
            "classification": models.CIVIL[classification],
            "compartments": sorted(needed),
            "revoked": False,
            "allowed_taints": [],
        }
        return allows(engine, "security", policy_input(attributes, trust=trust))

    if asked(clearance, classification, cleared, trust):
        assert clearance >= classification
        assert needed <= cleared
        better = min(clearance + more, 3), max(classification - less, 0), cleared | {"more"}, min(trust + rise, 100)
        assert asked(*better)
