"""The models of the policy pack as plain statements about sets and orders: a slow, independent specification.

Each function takes the policy input (PRODUCT terms: ``object.attributes``, ``subject``, ``args``, ``trust_score``,
``taints``) and says whether the model allows the call. It shares nothing with the Rego and Cedar texts: attributes are
first read into typed values, then the published rule is stated on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

EXACT = 2**53 - 1


class Malformed(Exception):
    """An attribute is missing or of the wrong type: every model denies."""


class Reader:
    """Typed access to one JSON object; anything unexpected is :class:`Malformed`."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise Malformed(value)
        self._value = value

    def _get(self, key: str) -> Any:
        if key not in self._value:
            raise Malformed(key)
        return self._value[key]

    def record(self, key: str) -> Reader:
        return Reader(self._get(key))

    def one_of(self, key: str, order: tuple[str, ...]) -> int:
        value = self._get(key)
        if not isinstance(value, str) or value not in order:
            raise Malformed(key)
        return order.index(value)

    def name(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise Malformed(key)
        return value

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            raise Malformed(key)
        return value

    def whole(self, key: str, most: int = EXACT) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise Malformed(key)
        return value

    def names(self, key: str) -> frozenset[str]:
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Malformed(key)
        return frozenset(value)


class Level(NamedTuple):
    """A point of the Bell-LaPadula lattice: a rank in a total order and a set of categories."""

    rank: int
    categories: frozenset[str]

    def dominates(self, other: Level) -> bool:
        return self.rank >= other.rank and self.categories >= other.categories


MILITARY = ("unclassified", "confidential", "secret", "top_secret")
INTEGRITY = ("low", "medium", "high")
CIVIL = ("public", "internal", "confidential", "restricted")
READ, APPEND, WRITE, EXECUTE = range(4)
ACCESSES = ("read", "append", "write", "execute")


def bell_lapadula(policy_input: Any) -> bool:
    """Bell and LaPadula 1973/1976: ss-property, *-property (current level), ds-property."""
    a = Reader(policy_input).record("object").record("attributes")
    access = a.one_of("access", ACCESSES)
    maximum = Level(a.one_of("clearance", MILITARY), a.names("clearance_categories"))
    current = Level(a.one_of("current_level", MILITARY), a.names("current_categories"))
    target = Level(a.one_of("classification", MILITARY), a.names("categories"))
    matrix = a.names("permitted_accesses")
    simple_security = access not in (READ, WRITE) or maximum.dominates(target)
    star = {
        READ: current.dominates(target),
        APPEND: target.dominates(current),
        WRITE: current == target,
        EXECUTE: True,
    }[access]
    return maximum.dominates(current) and simple_security and star and ACCESSES[access] in matrix


def biba(policy_input: Any) -> bool:
    """Biba 1977, strict integrity; modification also needs the lineage's trust (medium 40, high 80)."""
    whole = Reader(policy_input)
    a = whole.record("object").record("attributes")
    access = a.one_of("access", ("read", "write", "invoke"))
    subject = a.one_of("subject_integrity", INTEGRITY)
    target = a.one_of("object_integrity", INTEGRITY)
    trust = whole.whole("trust_score", 100)
    if access == 0:
        return target >= subject
    carried = 2 if trust >= 80 else 1 if trust >= 40 else 0
    return min(subject, carried) >= target


def brewer_nash(policy_input: Any) -> bool:
    """Brewer and Nash 1989: simple security and *-property over the history of unsanitised accesses."""
    a = Reader(policy_input).record("object").record("attributes")
    writing = a.one_of("access", ("read", "write")) == 1
    dataset, conflict_class, sanitized = a.name("dataset"), a.name("conflict_class"), a.flag("sanitized")
    datasets, classes = a.names("accessed_datasets"), a.names("accessed_classes")
    if dataset in datasets and conflict_class not in classes:
        return False
    simple = sanitized or dataset in datasets or conflict_class not in classes
    target = None if sanitized else dataset
    return simple and (not writing or all(held == target for held in datasets))


def clark_wilson(policy_input: Any) -> bool:
    """Clark and Wilson 1987: certified triples (E1, E2), authentication (E3), separation of duty (E4, C3), C1, C5."""
    whole = Reader(policy_input)
    a = whole.record("object").record("attributes")
    user = whole.record("subject").name("user")
    executing = a.one_of("action", ("certify", "execute")) == 1
    a.name("procedure")
    items, certified = a.names("items"), a.names("certified_items")
    executors, certifiers, earlier = a.names("authorized_users"), a.names("certifiers"), a.names("prior_users")
    verified, accepts = a.flag("items_verified"), a.flag("accepts_unconstrained")
    taints = whole.names("taints")
    if not items:
        return False
    if not executing:
        return user in certifiers - executors
    return verified and (accepts or not taints) and items <= certified and user in executors - certifiers - earlier


def goguen_meseguer(policy_input: Any) -> bool:
    """Goguen and Meseguer 1982: every domain behind this call may interfere with the observer."""
    whole = Reader(policy_input)
    a = whole.record("object").record("attributes")
    domain, observer, row = a.name("domain"), a.name("observer"), a.names("may_interfere")
    return {domain, observer} | whole.names("taints") <= row


def financial(policy_input: Any) -> bool:
    """Limits, three approval tiers with distinct approvers, trust 60 (80 with approval), no unexpected taint."""
    whole = Reader(policy_input)
    a, args = whole.record("object").record("attributes"), whole.record("args")
    user = whole.record("subject").name("user")
    amount = args.whole("amount")
    limit, period, spent = a.whole("limit"), a.whole("period_limit"), a.whole("period_total")
    same_currency = args.name("currency") == a.name("currency")
    trust = whole.whole("trust_score", 100)
    clean = whole.names("taints") <= a.names("allowed_taints")
    tiers = ((100_000, "approved_by_manager"), (1_000_000, "approved_by_director"), (10_000_000, "approved_by_board"))
    involved = [user] + [a.name(role) for above, role in tiers if amount > above]
    return (
        0 < amount <= limit
        and spent + amount <= period
        and same_currency
        and len(set(involved)) == len(involved)
        and trust >= (60 if len(involved) == 1 else 80)
        and clean
    )


def security(policy_input: Any) -> bool:
    """Clearance at least the classification, need to know, trust for the level, somebody accountable, not revoked."""
    whole = Reader(policy_input)
    a = whole.record("object").record("attributes")
    cleared = Level(a.one_of("clearance", CIVIL), a.names("clearance_compartments"))
    target = Level(a.one_of("classification", CIVIL), a.names("compartments"))
    revoked = a.flag("revoked")
    clean = whole.names("taints") <= a.names("allowed_taints")
    trust = whole.whole("trust_score", 100)
    if target.rank >= 2:
        whole.record("subject").name("user")
    return cleared.dominates(target) and not revoked and clean and trust >= (0, 40, 60, 80)[target.rank]


MODELS: dict[str, Callable[[Any], bool]] = {
    "bell_lapadula": bell_lapadula,
    "biba": biba,
    "brewer_nash": brewer_nash,
    "clark_wilson": clark_wilson,
    "financial": financial,
    "goguen_meseguer": goguen_meseguer,
    "security": security,
}


def allows(model: str, policy_input: Any) -> bool:
    """Whether the model allows the call; malformed input is denied."""
    try:
        return MODELS[model](policy_input)
    except Malformed:
        return False
