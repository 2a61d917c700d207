"""Policy inputs over whole small domains, for each model of the policy pack, and inputs with one thing wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

from . import models

EXACT = models.EXACT

Input = dict[str, Any]


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
    level = {"clearance": "secret", "current_level": "secret", "classification": "secret"}
    categories: dict[str, list[str]] = {"clearance_categories": [], "current_categories": [], "categories": []}
    yield policy_input({"access": "delete", "permitted_accesses": ["delete"], **level, **categories})
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


WRONG: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    99.5,
    101,
    2**53,
    10**18,
    "",
    "x",
    [],
    ["x"],
    {},
    {"a": 1},
    [["x"]],
    [1, "x"],
)


def places(model: str) -> list[tuple[str, ...]]:
    """Every attribute that the model reads, and everything around it."""
    places = [("object", "attributes", name) for name in ALLOWED[model]["object"]["attributes"]]
    places += [("args", name) for name in ALLOWED[model]["args"]]
    places += [("user",), ("trust_score",), ("taints",), ("object",), ("object", "attributes"), ("args",)]
    return places


def changed(model: str, place: tuple[str, ...], *value: Any, base: Input | None = None) -> Input:
    """The allowed input with one thing replaced, or removed when no value is given."""
    given = deepcopy(ALLOWED[model] if base is None else base)
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


def mixed_list(value: Any) -> bool:
    """Whether a list in it holds more than strings. Cedar compares a set's members but does not look at their types: a
    wrong one equals nothing."""
    if isinstance(value, list) and not all(isinstance(member, str) for member in value):
        return True
    return isinstance(value, dict) and any(map(mixed_list, value.values()))


UNREAD: dict[str, set[str]] = {
    "bell_lapadula": {"user", "trust_score", "taints", "args"},
    "biba": {"user", "taints", "args"},
    "brewer_nash": {"user", "trust_score", "taints", "args"},
    "clark_wilson": {"trust_score", "args"},
    "financial": set(),
    "goguen_meseguer": {"user", "trust_score", "args"},
    "security": {"args"},
}
"""What around the attributes a model does not read."""


def _but(model: str, **attributes: Any) -> Input:
    given = deepcopy(ALLOWED[model])
    given["object"]["attributes"].update(attributes)
    return given


BASES: dict[str, list[Input]] = {
    "bell_lapadula": [
        _but("bell_lapadula", access="execute"),
        _but("bell_lapadula", access="append", categories=["nato", "x"], classification="secret"),
    ],
    "biba": [_but("biba", access="read", object_integrity="high")],
    "brewer_nash": [
        _but("brewer_nash", access="read", accessed_datasets=[], accessed_classes=[]),
        _but("brewer_nash", access="read", sanitized=True, accessed_datasets=[]),
        _but("brewer_nash", sanitized=True, accessed_datasets=[]),
    ],
    "clark_wilson": [
        _but("clark_wilson", authorized_users=["alice", ""]),
        _but("clark_wilson", action="certify", certifiers=["alice"], authorized_users=["bob"]),
    ],
    "financial": [{**deepcopy(ALLOWED["financial"]), "args": {"amount": 1, "currency": "EUR"}}],
    "goguen_meseguer": [_but("goguen_meseguer", may_interfere=["low", "high", "", "x"])],
    "security": [_but("security", classification="public", compartments=[])],
}
"""More allowed inputs, in which the attributes that decide elsewhere do not: only their form can be wrong."""


_LARGE: dict[str, Any] = {"limit": EXACT, "period_limit": EXACT, "period_total": 0}
EDGES: dict[str, list[Input]] = {
    "bell_lapadula": [_but("bell_lapadula", access="delete", permitted_accesses=["delete"])],
    "financial": [
        _but("financial", approved_by_board="bob"),
        _but("financial", approved_by_board="carol"),
        {**_but("financial", **_LARGE), "args": {"amount": EXACT, "currency": "EUR"}},
    ],
}
"""Rows on the edge of one rule and within all others."""


def malformed_rows(model: str) -> Iterator[Input]:
    """Allowed inputs with each thing that a model may read missing, or of another type or value."""
    yield from EDGES.get(model, [])
    for base in (ALLOWED[model], *BASES[model]):
        for place in places(model):
            yield changed(model, place, base=base)
            right: Any = base
            for step in place:
                right = right[step]
            others: list[Any] = []
            if isinstance(right, list):
                others = [[*right, 1], {str(index): member for index, member in enumerate(right)}]
            for value in (*WRONG, *others):
                yield changed(model, place, value, base=base)
