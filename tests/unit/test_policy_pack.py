"""The policy pack: every text decides as the published model does.

Truth tables are generated over whole small domains and decided by regorus, regopy (sampled: it is slow), cedarpy and
the independent statement of the models in ``tests/reference/models.py``. Then the models' theorems are checked on
random histories that only ever take steps which the policy texts allow.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from kest.core.policies import LANGUAGES, NAMES, CedarValidator, Problem, RegoValidator, load
from kest.errors import ConfigurationError

cedarpy = pytest.importorskip("cedarpy")
regorus = pytest.importorskip("lakera_regorus")
regopy = pytest.importorskip("regopy")

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("kest_reference_models", ROOT / "tests" / "reference" / "models.py")
assert _spec is not None
assert _spec.loader is not None
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)

REGOPY_SAMPLE = 60
"""regopy takes a millisecond or two for a decision: this many rows of each table."""

Input = dict[str, Any]
Decide = Callable[[str, Input], bool]


# --- the policy input, and the libraries called directly --------------------------------------------------------------


def policy_input(
    attributes: Any, *, args: Any = None, user: Any = "alice", trust: Any = 100, taints: Any = ()
) -> Input:
    """What the lifecycle hands to an engine, whole."""
    taints = list(taints) if isinstance(taints, tuple | frozenset) else taints
    workload = "spiffe://example.org/payments"
    subject = {
        "workload": workload, "user": user, "agent": None, "task": None, "trust_score": trust, "taints": taints,
    }  # fmt: skip
    return {
        "subject": subject,
        "object": {"id": "document-7", "attributes": attributes},
        "environment": {
            "is_root": False,
            "source_type": "internal",
            "parent_hash": "0" * 64,
            "policy_names": ["policy"],
            "policy_tier": "function",
            "active_deviations": [],
        },
        "identity": workload,
        "principal": workload,
        "trust_score": trust,
        "taints": taints,
        "is_root": False,
        "source_type": "internal",
        "user": user,
        "agent": None,
        "task": None,
        "args": {} if args is None else args,
    }


@cache
def _regorus(model: str, more: str = "") -> Any:
    engine = regorus.Engine()
    engine.add_policy(f"{model}.rego", load(model, "rego"))
    if more:
        engine.add_policy("more.rego", more)
    return engine


def _regorus_value(model: str, rule: str, given: Any, more: str = "") -> Any:
    engine = _regorus(model, more)
    engine.set_input_json(json.dumps(given))
    return engine.eval_query(f"data.kest.policies.{model}.{rule}")["result"][0]["expressions"][0]["value"]


def by_regorus(model: str, given: Input) -> bool:
    return _regorus_value(model, "allow", given) is True


@cache
def _regopy(model: str) -> Any:
    interpreter = regopy.Interpreter()
    interpreter.add_module(model, load(model, "rego"))
    return interpreter


def by_regopy(model: str, given: Input) -> bool:
    interpreter = _regopy(model)
    interpreter.set_input(given)
    return str(interpreter.query(f"data.kest.policies.{model}.allow")) == '{"expressions":[true]}'


@cache
def _cedar(model: str, more: str = "") -> Any:
    return cedarpy.PolicySet.from_str(load(model, "cedar") + more)


def cedar_context(value: Any) -> Any:
    """The policy input as a Cedar record: no null, and a float is a decimal, which no rule of the pack takes."""
    if isinstance(value, dict):
        return {key: cedar_context(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [cedar_context(item) for item in value]
    return {"__extn": {"fn": "decimal", "arg": repr(value)}} if isinstance(value, float) else value


def by_cedar_all(model: str, given: Iterable[Input], *, more: str = "", action: str = "check") -> list[bool]:
    requests = [
        {
            "principal": {"type": "Workload", "id": "spiffe://example.org/payments"},
            "action": {"type": "Action", "id": action},
            "resource": {"type": "Resource", "id": "document-7"},
            "context": cedar_context(one),
        }
        for one in given
    ]
    answers = cedarpy.is_authorized_batch(requests, _cedar(model, more), "[]")
    assert not [answer for answer in answers if answer.allowed and answer.diagnostics.errors]
    return [answer.allowed for answer in answers]


def by_cedar(model: str, given: Input) -> bool:
    return by_cedar_all(model, [given])[0]


# --- truth tables -----------------------------------------------------------------------------------------------------


def product(**domains: Iterable[Any]) -> Iterator[dict[str, Any]]:
    names = list(domains)
    for row in itertools.product(*domains.values()):
        yield dict(zip(names, row, strict=True))


def subsets(*members: str) -> list[list[str]]:
    return [list(chosen) for size in range(len(members) + 1) for chosen in itertools.combinations(members, size)]


def bell_lapadula_rows() -> Iterator[Input]:
    accesses = ("read", "append", "write", "execute")
    for row in product(
        access=accesses,
        clearance=models.MILITARY,
        current_level=models.MILITARY,
        classification=models.MILITARY,
        clearance_categories=subsets("nato"),
        current_categories=subsets("nato"),
        categories=subsets("nato"),
    ):
        yield policy_input({**row, "permitted_accesses": ["read", "append", "write", "execute"]})
    for row in product(
        access=accesses,
        clearance=("secret",),
        current_level=("confidential", "secret"),
        classification=("confidential", "secret"),
        clearance_categories=subsets("nato", "crypto"),
        current_categories=subsets("nato", "crypto"),
        categories=subsets("nato", "crypto"),
        permitted_accesses=(["read", "write", "append", "execute"], ["read"], []),
    ):
        yield policy_input(row)


def biba_rows() -> Iterator[Input]:
    for row in product(
        access=("read", "write", "invoke", "execute"),
        subject_integrity=models.INTEGRITY,
        object_integrity=models.INTEGRITY,
    ):
        for trust in (-1, 0, 39, 40, 79, 80, 100, 101):
            yield policy_input(row, trust=trust)


COMPANIES = {"bank-a": "banks", "bank-b": "banks", "oil-x": "oil"}


def brewer_nash_rows() -> Iterator[Input]:
    for row in product(
        access=("read", "write", "delete"),
        dataset=list(COMPANIES),
        sanitized=(True, False),
        accessed_datasets=subsets(*COMPANIES),
        accessed_classes=subsets("banks", "oil"),
    ):
        yield policy_input({**row, "conflict_class": COMPANIES[row["dataset"]]})


def clark_wilson_rows() -> Iterator[Input]:
    for row in product(
        action=("execute", "certify"),
        items=subsets("ledger", "till"),
        certified_items=subsets("ledger", "till"),
        authorized_users=([], ["alice"]),
        certifiers=([], ["alice"]),
        prior_users=([], ["alice"]),
        items_verified=(True, False),
        accepts_unconstrained=(True, False),
    ):
        for taints in ([], ["user_input"]):
            yield policy_input({"procedure": "post", **row}, taints=taints)
    for row in product(
        action=("execute", "certify", "read"),
        authorized_users=subsets("alice", "bob"),
        certifiers=subsets("alice", "bob"),
        prior_users=subsets("alice", "bob"),
    ):
        for user in ("alice", "bob", "carol", "", None):
            fixed = {"items": ["ledger"], "certified_items": ["ledger"], "items_verified": True}
            yield policy_input({"procedure": "post", **fixed, "accepts_unconstrained": False, **row}, user=user)


def goguen_meseguer_rows() -> Iterator[Input]:
    for row in product(
        domain=("high", "low"),
        observer=("high", "low"),
        may_interfere=subsets("high", "low", "filter"),
    ):
        for taints in subsets("high", "filter", "kest.unverified"):
            yield policy_input(row, taints=taints)


def financial_rows() -> Iterator[Input]:
    within = {"currency": "EUR", "limit": 2**53 - 1, "period_limit": 2**53 - 1, "period_total": 0, "allowed_taints": []}
    amounts = (-1, 0, 1, 100_000, 100_001, 1_000_000, 1_000_001, 10_000_000, 10_000_001, 2**53 - 1, 2**53)
    for row in product(
        amount=amounts,
        approved_by_manager=(None, "alice", "bob"),
        approved_by_director=(None, "alice", "bob", "carol"),
        approved_by_board=(None, "alice", "bob", "carol", "dave"),
        trust=(59, 60, 79, 80),
    ):
        amount, trust = row.pop("amount"), row.pop("trust")
        named = {role: who for role, who in row.items() if who is not None}
        yield policy_input({**within, **named}, args={"amount": amount, "currency": "EUR"}, trust=trust)
    for row in product(
        limit=(0, 5, 6),
        period_limit=(0, 5, 9, 10),
        period_total=(0, 4, 5),
        allowed_taints=([], ["pii"]),
    ):
        for amount, currency, taints, user in itertools.product(
            (4, 5, 6), ("EUR", "USD"), ([], ["pii"], ["pii", "llm"]), ("alice", "", None)
        ):
            args = {"amount": amount, "currency": currency}
            yield policy_input({"currency": "EUR", **row}, args=args, taints=taints, user=user)


def security_rows() -> Iterator[Input]:
    for row in product(
        clearance=models.CIVIL,
        classification=models.CIVIL,
        clearance_compartments=([], ["hr"]),
        compartments=([], ["hr"], ["hr", "legal"]),
        revoked=(False, True),
    ):
        for trust, user in itertools.product((0, 39, 40, 59, 60, 79, 80, 100), ("alice", None)):
            yield policy_input({**row, "allowed_taints": []}, trust=trust, user=user)
    for row in product(clearance=("restricted",), classification=models.CIVIL, allowed_taints=subsets("pii", "llm")):
        rest = {"clearance_compartments": [], "compartments": [], "revoked": False}
        for taints, user in itertools.product(subsets("pii", "llm"), ("alice", "")):
            yield policy_input({**row, **rest}, taints=taints, user=user)


ROWS: dict[str, Callable[[], Iterator[Input]]] = {
    "bell_lapadula": bell_lapadula_rows,
    "biba": biba_rows,
    "brewer_nash": brewer_nash_rows,
    "clark_wilson": clark_wilson_rows,
    "financial": financial_rows,
    "goguen_meseguer": goguen_meseguer_rows,
    "security": security_rows,
}

ALLOWED: dict[str, Input] = {
    "bell_lapadula": policy_input(
        {
            "access": "read",
            "clearance": "secret",
            "clearance_categories": ["nato"],
            "current_level": "secret",
            "current_categories": ["nato"],
            "classification": "confidential",
            "categories": ["nato"],
            "permitted_accesses": ["read"],
        }
    ),
    "biba": policy_input({"access": "write", "subject_integrity": "high", "object_integrity": "medium"}, trust=70),
    "brewer_nash": policy_input(
        {
            "access": "write",
            "dataset": "bank-a",
            "conflict_class": "banks",
            "sanitized": False,
            "accessed_datasets": ["bank-a"],
            "accessed_classes": ["banks"],
        }
    ),
    "clark_wilson": policy_input(
        {
            "action": "execute",
            "procedure": "post",
            "items": ["ledger"],
            "certified_items": ["ledger", "till"],
            "authorized_users": ["alice"],
            "certifiers": ["carol"],
            "prior_users": ["bob"],
            "items_verified": True,
            "accepts_unconstrained": True,
        },
        taints=["user_input"],
    ),
    "financial": policy_input(
        {
            "currency": "EUR",
            "limit": 50_000_000,
            "period_limit": 90_000_000,
            "period_total": 1_000,
            "approved_by_manager": "bob",
            "approved_by_director": "carol",
            "approved_by_board": "dave",
            "allowed_taints": ["pii"],
        },
        args={"amount": 20_000_000, "currency": "EUR"},
        taints=["pii"],
    ),
    "goguen_meseguer": policy_input(
        {"domain": "low", "observer": "high", "may_interfere": ["low", "high"]}, taints=["low"]
    ),
    "security": policy_input(
        {
            "clearance": "restricted",
            "clearance_compartments": ["hr"],
            "classification": "confidential",
            "compartments": ["hr"],
            "revoked": False,
            "allowed_taints": ["pii"],
        },
        taints=["pii"],
    ),
}


@pytest.mark.parametrize("model", NAMES)
def test_truth_table(model: str) -> None:
    rows = list(ROWS[model]())
    expected = [models.allows(model, row) for row in rows]
    assert 0 < sum(expected) < len(rows), "a table must show both answers"
    for row, allowed, cedar in zip(rows, expected, by_cedar_all(model, rows), strict=True):
        assert by_regorus(model, row) is allowed, row
        assert cedar is allowed, row


@pytest.mark.parametrize("model", NAMES)
def test_truth_table_with_regopy(model: str) -> None:
    rows = list(ROWS[model]())
    expected = {allowed: [row for row in rows if models.allows(model, row) is allowed] for allowed in (True, False)}
    draw = random.Random(model)
    for allowed, of_this_answer in expected.items():
        for row in draw.sample(of_this_answer, min(REGOPY_SAMPLE // 2, len(of_this_answer))):
            assert by_regopy(model, row) is allowed, row


@pytest.mark.parametrize("model", NAMES)
def test_a_denial_has_a_reason_and_a_permission_has_none(model: str) -> None:
    rows = list(ROWS[model]())
    for row in random.Random(model).sample(rows, min(400, len(rows))):
        reasons = _regorus_value(model, "reasons", row)
        assert bool(reasons) is not models.allows(model, row)
        assert _regorus_value(model, "deny", row) == reasons
        assert all(isinstance(reason, str) and ": " in reason for reason in reasons)


# --- missing and mistyped ---------------------------------------------------------------------------------------------

WRONG: tuple[Any, ...] = (None, True, False, 0, -1, 1, 1.5, 10**18, "", "x", [], ["x"], {}, {"a": 1}, [["x"]], [1, "x"])


def _places(model: str) -> list[tuple[str, ...]]:
    """Every attribute that the model reads, and everything around it."""
    places = [("object", "attributes", name) for name in ALLOWED[model]["object"]["attributes"]]
    places += [("args", name) for name in ALLOWED[model]["args"]]
    places += [("user",), ("trust_score",), ("taints",), ("object",), ("object", "attributes"), ("args",)]
    return places


def _changed(model: str, place: tuple[str, ...], *value: Any) -> Input:
    """The allowed input with one thing replaced, or removed when no value is given."""
    given = deepcopy(ALLOWED[model])
    at: Any = given
    for step in place[:-1]:
        at = at[step]
    holders = [at] if len(place) > 1 or place[0] in ("object", "args") else [given, given["subject"]]
    for holder in holders:
        if value:
            holder[place[-1]] = value[0]
        else:
            del holder[place[-1]]
    return given


@pytest.mark.parametrize("model", NAMES)
def test_missing_attribute_denies(model: str) -> None:
    unread = {"biba": {"user", "taints", "args"}, "bell_lapadula": {"user", "trust_score", "taints", "args"}}
    unread["brewer_nash"] = unread["bell_lapadula"]
    unread["clark_wilson"] = {"trust_score", "args"}
    unread["goguen_meseguer"] = {"user", "trust_score", "args"}
    unread["security"] = {"args"}
    for place in _places(model):
        given = _changed(model, place)
        expected = place[0] in unread.get(model, set())
        answers = [decide(model, given) for decide in (models.allows, by_regorus, by_regopy, by_cedar)]
        assert answers == [expected] * 4, place


@pytest.mark.parametrize("model", NAMES)
def test_mistyped_attribute_denies(model: str) -> None:
    assert [decide(model, ALLOWED[model]) for decide in (models.allows, by_regorus, by_regopy, by_cedar)] == [True] * 4
    draw = random.Random(model)
    for place, value in itertools.product(_places(model), WRONG):
        given = _changed(model, place, value)
        allowed = models.allows(model, given)
        assert by_regorus(model, given) is allowed, (place, value)
        if draw.random() < 0.2:
            assert by_regopy(model, given) is allowed, (place, value)
        if value not in ([["x"]], [1, "x"]):
            # Cedar does not look at the types of a set's members; it compares them, and a wrong one equals nothing.
            assert by_cedar(model, given) is allowed, (place, value)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("given", [{}, {"object": {}}, {"object": {"attributes": {}}}, {"args": {}}])
def test_empty_input_denies(model: str, given: Input) -> None:
    assert not any(decide(model, given) for decide in (models.allows, by_regorus, by_regopy, by_cedar))


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("given", [None, [], "x", 1, {"object": None}, {"object": [1]}, {"object": {"attributes": 3}}])
def test_input_of_another_shape_denies(model: str, given: Any) -> None:
    assert _regorus_value(model, "allow", given) is False


# --- a deny denies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NAMES)
def test_an_added_deny_rule_denies(model: str) -> None:
    more = f'package kest.policies.{model}\nimport rego.v1\ndeny contains "site: closed" if input.user == "alice"\n'
    given = ALLOWED[model]
    assert _regorus_value(model, "allow", given) is True
    assert _regorus_value(model, "allow", given, more) is False
    assert _regorus_value(model, "reasons", given, more) == {"site: closed"}
    assert by_cedar_all(model, [given]) == [True]
    assert by_cedar_all(model, [given], more='forbid(principal, action, resource) when {context.user == "alice"};') == [
        False
    ]


@pytest.mark.parametrize("model", NAMES)
def test_forbid_holds_beside_a_broad_permit(model: str) -> None:
    rows = list(ROWS[model]())
    rows = random.Random(model).sample(rows, min(500, len(rows)))
    broad = by_cedar_all(model, rows, more="permit(principal, action, resource);")
    assert broad == [models.allows(model, row) for row in rows]


@pytest.mark.parametrize("model", NAMES)
def test_cedar_is_action_agnostic_and_named(model: str) -> None:
    for action in ("blp", "kest/blp", "anything at all"):
        assert by_cedar_all(model, [ALLOWED[model]], action=action) == [True]
    denied = next(row for row in ROWS[model]() if not models.allows(model, row))
    answer = cedarpy.is_authorized(
        {"principal": 'W::"w"', "action": 'Action::"a"', "resource": 'R::"r"', "context": cedar_context(denied)},
        _cedar(model),
        "[]",
    )
    named = answer.diagnostics.id_annotations_by_reason.values()
    assert named
    assert all(name.startswith(f"{model}/") for name in named)
    assert answer.diagnostics.errors == []


@pytest.mark.parametrize("model", NAMES)
def test_cedar_stays_in_the_2x_subset(model: str) -> None:
    text = "\n".join(line.split("//")[0] for line in load(model, "cedar").splitlines())
    words = text.replace("(", " ").replace(".", " . ").split()
    assert not {"is", "isEmpty", "hasTag", "getTag", "datetime", "duration", "decimal"} & set(words)
    for before, after in itertools.pairwise(words):
        if before == "has":  # `has a.b` is Cedar 4
            position = text.index(f"has {after}") + len(f"has {after}")
            assert text[position] != "."


@pytest.mark.parametrize("model", NAMES)
def test_rego_negates_no_call(model: str) -> None:
    """OPA takes `not f(missing)` for undefined where regorus and regopy say true: a deny rule would not fire."""
    assert not re.search(r"\bnot\s+[a-z_]+\(", load(model, "rego"))


# --- theorems ---------------------------------------------------------------------------------------------------------

DECIDERS = pytest.mark.parametrize("decide", [by_regorus, by_cedar], ids=["rego", "cedar"])
TRACES, STEPS = 25, 40


def _dominates(one: tuple[int, frozenset[str]], other: tuple[int, frozenset[str]]) -> bool:
    return one[0] >= other[0] and one[1] >= other[1]


@DECIDERS
def test_bell_lapadula_lets_nothing_flow_down(decide: Decide) -> None:
    """Basic security theorem, as flow: what an object or a subject ever holds is dominated by its own level.

    Subjects remember: their current level rises now and then, and never falls."""
    draw = random.Random(1973)
    moved = 0

    def level(below: tuple[int, frozenset[str]] = (3, frozenset("ab"))) -> tuple[int, frozenset[str]]:
        return draw.randint(0, below[0]), frozenset(c for c in below[1] if draw.random() < 0.5)

    for _ in range(TRACES):
        clearances = [level() for _ in range(3)]
        current = [level(clearance) for clearance in clearances]
        objects = [level() for _ in range(5)]
        known: list[set[Any]] = [{at} for at in current]
        contents: list[set[Any]] = [{at} for at in objects]
        for _ in range(STEPS):
            who, what = draw.randrange(3), draw.randrange(5)
            access = draw.choice(models.ACCESSES)
            given = policy_input(
                {
                    "access": access,
                    "clearance": models.MILITARY[clearances[who][0]],
                    "clearance_categories": sorted(clearances[who][1]),
                    "current_level": models.MILITARY[current[who][0]],
                    "current_categories": sorted(current[who][1]),
                    "classification": models.MILITARY[objects[what][0]],
                    "categories": sorted(objects[what][1]),
                    "permitted_accesses": list(models.ACCESSES),
                }
            )
            if decide("bell_lapadula", given):
                moved += access != "execute"
                if access in ("read", "write"):
                    known[who] |= contents[what]
                if access in ("append", "write"):
                    contents[what] |= known[who]
            elif draw.random() < 0.2:
                joined = (max(current[who][0], draw.randint(0, 3)), current[who][1] | level()[1])
                if _dominates(clearances[who], joined):
                    current[who] = joined
            for at, held in zip(objects, contents, strict=True):
                assert all(_dominates(at, origin) for origin in held)
            for at, held in zip(clearances, known, strict=True):
                assert all(_dominates(at, origin) for origin in held)
    assert moved > TRACES


@DECIDERS
def test_biba_lets_nothing_flow_up(decide: Decide) -> None:
    """What an object or a subject ever holds came from at least its own integrity; trust is the low-water mark."""
    draw = random.Random(1977)
    moved = 0
    for _ in range(TRACES):
        subjects = [draw.randrange(3) for _ in range(3)]
        objects = [draw.randrange(3) for _ in range(5)]
        known, contents = [{at} for at in subjects], [{at} for at in objects]
        trust = [100] * 3
        for _ in range(STEPS):
            who, what = draw.randrange(3), draw.randrange(5)
            access = draw.choice(("read", "write", "invoke"))
            target = draw.randrange(3) if access == "invoke" else what
            at = subjects[target] if access == "invoke" else objects[what]
            trust[who] = trust[who] * draw.choice((100, 100, 100, 90, 60)) // 100
            given = policy_input(
                {
                    "access": access,
                    "subject_integrity": models.INTEGRITY[subjects[who]],
                    "object_integrity": models.INTEGRITY[at],
                },
                trust=trust[who],
            )
            if decide("biba", given):
                moved += 1
                if access == "read":
                    known[who] |= contents[what]
                else:
                    assert trust[who] >= (0, 40, 80)[at]
                    (known[target] if access == "invoke" else contents[what]).update(known[who])
            for own, held in zip([*subjects, *objects], [*known, *contents], strict=True):
                assert min(held) >= own
    assert moved > TRACES


@DECIDERS
def test_brewer_nash_keeps_the_wall(decide: Decide) -> None:
    """Nobody ever holds two competitors' information; unsanitised information stays in its dataset (1989, T1-T3)."""
    draw = random.Random(1989)
    companies = {**COMPANIES, "bank-c": "banks", "oil-y": "oil", "rail": "transport"}
    writes = 0
    for _ in range(TRACES):
        objects = [(company, sanitized) for company in companies for sanitized in (False, True)]
        contents: list[set[str]] = [set() if sanitized else {company} for company, sanitized in objects]
        history: list[set[str]] = [set() for _ in range(3)]
        known: list[set[str]] = [set() for _ in range(3)]
        for _ in range(STEPS):
            who, what = draw.randrange(3), draw.randrange(len(objects))
            company, sanitized = objects[what]
            access = draw.choice(("read", "write"))
            given = policy_input(
                {
                    "access": access,
                    "dataset": company,
                    "conflict_class": companies[company],
                    "sanitized": sanitized,
                    "accessed_datasets": sorted(history[who]),
                    "accessed_classes": sorted({companies[held] for held in history[who]}),
                }
            )
            if not decide("brewer_nash", given):
                continue
            if not sanitized:
                history[who].add(company)
            if access == "read":
                known[who] |= contents[what]
            else:
                writes += 1
                contents[what] |= known[who]
            classes = [companies[held] for held in history[who]]
            assert len(classes) == len(set(classes))
            assert known[who] <= history[who]
            for (owner, clean), held in zip(objects, contents, strict=True):
                assert held <= (set() if clean else {owner})
    assert writes > TRACES


@DECIDERS
def test_clark_wilson_separates_duties(decide: Decide) -> None:
    """No user both certifies and runs a procedure, no user performs two steps of one transaction, and items change only
    through procedures certified for them."""
    draw = random.Random(1987)
    users, items = ("alice", "bob", "carol", "dave"), ("ledger", "till", "stock")
    performed = 0
    for _ in range(TRACES):
        certified = {tp: set(draw.sample(items, 2)) for tp in ("order", "receive", "pay")}
        executors = {tp: set(draw.sample(users, 3)) for tp in certified}
        certifiers = {tp: set(draw.sample(users, 2)) for tp in certified}
        ran, signed = {tp: set() for tp in certified}, {tp: set() for tp in certified}  # type: ignore[var-annotated]
        steps: list[tuple[str, str]] = []
        for _ in range(STEPS):
            user, tp, touched = (
                draw.choice(users),
                draw.choice(list(certified)),
                set(draw.sample(items, draw.randint(1, 2))),
            )
            action, verified = draw.choice(("execute", "execute", "certify")), draw.random() < 0.8
            given = policy_input(
                {
                    "action": action,
                    "procedure": tp,
                    "items": sorted(touched),
                    "certified_items": sorted(certified[tp]),
                    "authorized_users": sorted(executors[tp]),
                    "certifiers": sorted(certifiers[tp]),
                    "prior_users": sorted({who for _, who in steps}),
                    "items_verified": verified,
                    "accepts_unconstrained": False,
                },
                user=user,
            )
            if decide("clark_wilson", given):
                if action == "certify":
                    signed[tp].add(user)
                else:
                    assert verified
                    assert touched <= certified[tp]
                    ran[tp].add(user)
                    steps.append((tp, user))
                    performed += 1
            if draw.random() < 0.1:
                steps = []  # the next transaction
            doers = [who for _, who in steps]
            assert len(doers) == len(set(doers))
            assert all(not ran[name] & signed[name] for name in certified)
    assert performed > TRACES


@DECIDERS
def test_goguen_meseguer_is_noninterfering(decide: Decide) -> None:
    """For a transitive relation, purging what may not interfere with an observer changes nothing it sees (1982)."""
    draw = random.Random(1982)
    domains = ("a", "b", "c", "d")
    ran = 0

    def run(commands: list[tuple[str, str, int]], relation: set[tuple[str, str]]) -> dict[str, int]:
        nonlocal ran
        state = dict.fromkeys(domains, 0)
        influenced: dict[str, set[str]] = {domain: {domain} for domain in domains}
        for actor, observer, value in commands:
            row = [domain for domain in domains if (domain, observer) in relation]
            attributes = {"domain": actor, "observer": observer, "may_interfere": row}
            if decide("goguen_meseguer", policy_input(attributes, taints=sorted(influenced[actor]))):
                ran += 1
                state[observer] = hash((state[observer], state[actor], value))
                influenced[observer] |= influenced[actor]
        return state

    for _ in range(TRACES):
        relation = {(one, one) for one in domains} | {
            (one, other) for one in domains for other in domains if draw.random() < 0.25
        }
        for middle, one, other in itertools.product(domains, repeat=3):  # transitive closure (Warshall)
            if (one, middle) in relation and (middle, other) in relation:
                relation.add((one, other))
        commands = [(draw.choice(domains), draw.choice(domains), draw.randrange(9)) for _ in range(STEPS // 2)]
        whole = run(commands, relation)
        for observer in domains:
            purged = [command for command in commands if (command[0], observer) in relation]
            assert run(purged, relation)[observer] == whole[observer]
    assert ran > TRACES


def test_goguen_meseguer_stops_a_flow_through_a_third_domain() -> None:
    """With an intransitive relation (high to filter, filter to low) the lineage still names high."""
    direct = policy_input(
        {"domain": "filter", "observer": "low", "may_interfere": ["low", "filter"]}, taints=["filter"]
    )
    through = deepcopy(direct)
    through["taints"] = through["subject"]["taints"] = ["filter", "high"]
    for decide in (by_regorus, by_regopy, by_cedar, models.allows):
        assert decide("goguen_meseguer", direct)
        assert not decide("goguen_meseguer", through)


@DECIDERS
def test_financial_limits_and_tiers_hold_over_a_period(decide: Decide) -> None:
    draw = random.Random(100_000)
    people = ("alice", "bob", "carol", "dave")
    paid = 0
    for _ in range(TRACES):
        limit, period, total = draw.choice((10**6, 2 * 10**7)), 5 * 10**7, 0
        for _ in range(STEPS):
            amount = int(10 ** draw.uniform(0, 7.5))
            roles = ("approved_by_manager", "approved_by_director", "approved_by_board")
            approvals = {role: draw.choice(people) for role in roles if draw.random() < 0.8}
            user, trust = draw.choice(people), draw.choice((50, 60, 80, 100))
            given = policy_input(
                {
                    "currency": "EUR",
                    "limit": limit,
                    "period_limit": period,
                    "period_total": total,
                    "allowed_taints": [],
                    **approvals,
                },
                args={"amount": amount, "currency": "EUR"},
                user=user,
                trust=trust,
            )
            if not decide("financial", given):
                continue
            paid += 1
            total += amount
            tier = sum(amount > above for above in (100_000, 1_000_000, 10_000_000))
            assert amount <= limit
            assert total <= period
            assert trust >= (80 if tier else 60)
            needed = [approvals[role] for role in roles[:tier]]
            assert len({user, *needed}) == tier + 1
    assert paid > TRACES


@DECIDERS
def test_security_is_monotone(decide: Decide) -> None:
    """More clearance, compartments or trust never turns a permission into a denial; more classification never the
    reverse."""
    draw = random.Random(1976)
    rows = [row for row in security_rows() if decide("security", row)]
    for row in draw.sample(rows, 150):
        better = deepcopy(row)
        attributes = better["object"]["attributes"]
        attributes["clearance"] = draw.choice(models.CIVIL[models.CIVIL.index(attributes["clearance"]) :])
        attributes["classification"] = draw.choice(models.CIVIL[: models.CIVIL.index(attributes["classification"]) + 1])
        attributes["clearance_compartments"] = [*attributes["clearance_compartments"], "more"]
        attributes["compartments"] = attributes["compartments"][:1]
        better["trust_score"] = better["subject"]["trust_score"] = draw.randint(row["trust_score"], 100)
        assert decide("security", better)


# --- loading ----------------------------------------------------------------------------------------------------------


def test_pack_is_complete_and_loads_by_name() -> None:
    shipped = {
        entry.name for entry in files("kest.core.policies").iterdir() if entry.name.endswith((".rego", ".cedar"))
    }
    assert shipped == {f"{name}.{language}" for name in NAMES for language in LANGUAGES}
    for name in NAMES:
        text = files("kest.core.policies").joinpath(f"{name}.rego").read_text(encoding="utf-8")
        assert load(name) == load(name, "rego") == text
        assert f"package kest.policies.{name}\n" in text
        assert "default allow := false" in text
        assert (ROOT / "docs" / "policies" / f"{name}.md").is_file()


def test_load_refuses_what_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="bell_lapadula, biba"):
        load("../errors")
    with pytest.raises(ConfigurationError, match="rego, cedar"):
        load("biba", "sentinel")  # type: ignore[arg-type]


def test_reading_a_policy_imports_no_engine() -> None:
    code = (
        "import sys; from kest.core.policies import load; load('biba'); "
        "assert not {'cedarpy', 'regopy', 'lakera_regorus', 'kest.core.policies.validators'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_pack_through_the_engines() -> None:
    try:
        from kest.core.engine import CedarLocalEngine, RegoLocalEngine
    except ImportError:
        pytest.skip("kest.core.engine has no RegoLocalEngine or CedarLocalEngine")
    for model in NAMES:
        name = f"kest/{model}"
        local = [
            RegoLocalEngine(policies={name: load(model, "rego")}),
            CedarLocalEngine(policies={name: load(model, "cedar")}),
        ]
        rows = list(ROWS[model]())
        rows = [ALLOWED[model], *random.Random(model).sample(rows, 40)]
        rows += [_changed(model, place, value) for place, value in itertools.product(_places(model), ("x", 1.5, None))]
        for engine in local:
            for row in rows:
                if row["object"] in ("x", 1.5, None) or row["args"] in ("x", 1.5, None):
                    continue  # the lifecycle never builds those
                answer = engine.evaluate("0198a000-0000-7000-8000-000000000000", [name], row)
                assert answer is models.allows(model, row), (type(engine).__name__, row)


# --- validators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NAMES)
def test_validators_accept_the_pack(model: str) -> None:
    for validator in (RegoValidator(), RegoValidator("regorus"), RegoValidator("regopy")):
        assert validator.validate(load(model, "rego")) == []
        validator.check(load(model, "rego"))
    assert CedarValidator().validate(load(model, "cedar")) == []
    CedarValidator().check(load(model, "cedar"))


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "package"),
        ("# package x\nallow := true\n", 2, 1, "package"),
        ("package x\nimport rego.v1\n\nallow if {\n\tinput.a ==\n}\n", 6, 1, "expression"),
        ("package x\nimport rego.v1\nallow { true }\n", 3, 7, "if"),
        ("package x\nimport rego.v1\nallow if { y }\n", 3, 12, "unsafe"),
        ("package x\nimport rego.v1\nallow if { nosuch(3) }\n", 3, 18, "nosuch"),
        ("package x\nimport rego.v1\nallow if allow\n", 3, 1, "recursion"),
        ("package x\nimport rego.v1\nallow if { \"éé\" == }\n", 3, 20, "expression"),
        ("package x\n\nallow if { \"ü\" == }\n", 3, 19, "expression"),
    ],
)  # fmt: skip
def test_rego_problems_are_located(text: str, line: int, column: int, message: str) -> None:
    (problem,) = RegoValidator("regorus").validate(text)
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    with pytest.raises(ConfigurationError, match=rf"{line}:{column}: "):
        RegoValidator().check(text)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("package x\nallow if {\n  input.é ==\n}\n", 3),
        ("package x\nallow if input.a\nallow if input[\n", 3),
        ("hello", 1),
    ],
)
def test_regopy_problems_are_located(text: str, first: int, capfd: pytest.CaptureFixture[str]) -> None:
    problems = RegoValidator("regopy").validate(text)
    assert problems
    assert problems[0].line == first
    assert problems[0].message
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "text",
    [
        "package x\nallow if { input.a }\n",
        "package x\n\nallow if { input.a }\nrank := {\"a\": 1}\n",
        "package x\nimport future.keywords\nallow if { input.a }\n",
        "package x\nallow { input.a }\n",
        "package x\ndeny contains \"no\" if not input.a\n",
        "# if\npackage x\nallow { input.a == \"if\" }\n",
    ],
)  # fmt: skip
def test_rego_v0_and_v1_are_accepted(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    for backend in ("regorus", "regopy"):
        assert RegoValidator(backend).validate(text) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(1, 1)]),
        ("// nothing\n", [(1, 1)]),
        ("permit(principal, action, resource)\nwhen { context.x = };", [(2, 20)]),
        ("permit(principal, action, resource)", [(1, 36)]),
        ("permit(principal, action, resourc);", [(1, 27)]),
        ("permit(principal, action, resource)\n\npermit(principal, action, resource);", [(3, 7)]),
        ("permit(principal, action, resource);\n// é\nforbid(principal,\n action, resource) when { foo(3) };",
         [(4, 27)]),
        ("permit(é, action, resource);\npermit(principal, action, resource);\npermit(, action, resource);",
         [(1, 8), (3, 8)]),
        ('permit(principal, action, resource) when { "a;b" == "é" + };', [(1, 59)]),
    ],
)  # fmt: skip
def test_cedar_problems_are_located(text: str, expected: list[tuple[int, int]]) -> None:
    problems = CedarValidator().validate(text)
    assert [(problem.line, problem.column) for problem in problems] == expected
    assert all(problem.message for problem in problems)
    with pytest.raises(ConfigurationError, match=f"{expected[0][0]}:{expected[0][1]}: "):
        CedarValidator().check(text)


def test_cedar_schema_problems() -> None:
    schema = 'entity W, R; action "a" appliesTo {principal: [W], resource: [R], context: {level: Long}};'
    text = (
        'permit(principal, action, resource);\n\n  permit(principal, action, resource) when { context.level == "x" };'
    )
    assert CedarValidator().validate(text) == []
    (problem,) = CedarValidator(schema).validate(text)
    assert (problem.line, problem.column) == (3, 46)
    assert str(Problem(3, 3, "wrong")) == "3:3: wrong"
    with pytest.raises(ConfigurationError, match="schema"):
        CedarValidator("entity ;;").validate(text)


def test_validator_refuses_an_unknown_backend() -> None:
    with pytest.raises(ConfigurationError, match="regorus"):
        RegoValidator("opa")
