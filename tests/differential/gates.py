"""Hypothesis strategies for policies that load and contexts that can be asked about, made to meet often."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NS = 1_000_000_000
ZONES = (
    "",
    " UTC",
    " Europe/Berlin",
    " Asia/Kolkata",
    " America/New_York",
    " Australia/Lord_Howe",
    " Africa/Casablanca",
)
ACTIONS = ("", "pay", "pay.refund", "pay.refund.all", "payday", "read")
PATHS = (
    "orders/1", "orders/../secrets/1", "/orders/1", "orders//1", "orders/%2e%2e/secrets/1", "orders\\1", "../x",
    "orders/./1/", "", "orders", "secrets/1", "/..", "orders/%2F1", "a/b/../../orders/2", "%6frders/1", ".", "/", "orders/.1",
)  # fmt: skip
PATH_PATTERNS = ("orders/*", "orders/1", "secrets/*", "/orders/1", "*", "orders", "o*", "/*")
FIELDS = ("amount", "to", "flag", "é")
COUNTRIES = ("DE", "IN", "us")
IPS = ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:DB8:0::1")
PLACES = (
    {"country_code": "DE"},
    {"country_code": "IN", "latitude": 12.9716, "longitude": 77.5946},
    {"country_code": "in", "latitude": 13.0827, "longitude": 80.2707},
    {"country_code": "US", "latitude": 40.7128, "longitude": -74.006},
)

numbers = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([0.5, 2**53, -0.0, 1e300, 5e-324, 10.0]),
    st.floats(allow_nan=False, allow_infinity=False),
)
large = st.sampled_from([2**53 + 1, -(2**53) - 1, 2**63, 10**30, 10**400, -(10**400), 2**53 - 1])
texts = st.sampled_from(["", "a", "ab", "b", "Ä", "pay.x"])
scalars = st.one_of(numbers, large, texts, st.booleans(), st.just(float("inf")), st.none(), st.just({"a": 1}))
values = st.one_of(scalars, st.lists(scalars, max_size=3))
durations = st.sampled_from(["1s", "2", "90s", "1m", "2h", "1d"])
patterns = st.sampled_from(["*", ".*", "pay", "pay.*", "pay*", "read", "", "pay.refund", "pay.refund.*", "a*"])
allowed = st.one_of(st.integers(-3, 12), st.sampled_from([0.5, 2**53]), texts, st.booleans())


@st.composite
def windows(draw: st.DrawFn) -> str:
    start, end = draw(st.lists(st.integers(0, 1439), min_size=2, max_size=2, unique=True))
    zone = draw(st.sampled_from(ZONES))
    return f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}{zone}"


@st.composite
def rate_limits(draw: st.DrawFn) -> dict[str, Any]:
    limit: dict[str, Any] = {"max": draw(st.integers(0, 3)), "window": draw(durations)}
    if draw(st.booleans()):
        limit["count_refused"] = draw(st.booleans())
    return {"rate_limit": limit}


def with_field(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: st.fixed_dictionaries({"field": st.sampled_from(FIELDS), **fields})})


def one(name: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: value})


leaves = st.one_of(
    one("identity_kind", st.sampled_from(["user", "agent"])),
    one("identity_role", st.sampled_from(["admin", "support"])),
    one("identity_id", st.sampled_from(["alice", "bob"])),
    one("action", patterns),
    one("resource", st.sampled_from(PATH_PATTERNS)),
    with_field("param_max", max=numbers),
    with_field("param_min", min=numbers),
    with_field("param_in", values=st.lists(allowed, min_size=1, max_size=4)),
    with_field("param_equals", value=allowed),
    with_field("param_matches", pattern=patterns),
    rate_limits(),
    one("session_age_max", durations),
    one("time_window", windows()),
    one("trust_min", st.integers(0, 100)),
    one("taint_present", st.sampled_from(["t", "u"])),
    one("taint_absent", st.sampled_from(["t", "u"])),
    one("geo_country", st.one_of(st.sampled_from(COUNTRIES), st.lists(st.sampled_from(COUNTRIES), min_size=1))),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        one("any", st.lists(inner, min_size=1, max_size=3)),
        one("all", st.lists(inner, min_size=1, max_size=3)),
        one("not", inner),
    ),
    max_leaves=5,
)


@st.composite
def documents(draw: st.DrawFn, most: int = 6, of: st.SearchStrategy[Any] = conditions) -> list[dict[str, Any]]:
    policies = []
    for number in range(draw(st.integers(0, most))):
        policy: dict[str, Any] = {
            "name": f"p{number}",
            "effect": draw(st.sampled_from(["permit", "permit", "refuse"])),
            "conditions": draw(st.lists(of, max_size=3)),
        }
        if draw(st.booleans()):
            policy["priority"] = draw(st.integers(0, 3))
        policies.append(policy)
    return policies


sometimes = st.booleans()
contexts = st.fixed_dictionaries(
    {
        "principal_id": st.sampled_from(["alice", "bob"]),
        "principal_kind": st.sampled_from(["user", "agent"]),
        "action_name": st.sampled_from(ACTIONS),
    },
    optional={
        "roles": st.lists(st.sampled_from(["admin", "support", "x"]), max_size=2),
        "resource": st.sampled_from(PATHS),
        "params": st.dictionaries(st.sampled_from(FIELDS), values, max_size=3),
        "ip": st.sampled_from(IPS),
        "origin_ip": st.sampled_from(IPS),
        "session_id": st.sampled_from(["s1", "s2"]),
        "current_geo": st.sampled_from(PLACES),
        "origin_geo": st.sampled_from(PLACES),
        "device": st.sampled_from([{"hash": "d1"}, {"hash": "d2", "description": "x"}]),
        "origin_device": st.sampled_from([{"hash": "d1", "description": "y"}, {"hash": "d2"}]),
        "action_count": st.sampled_from([0, 1, 30, 31, 40, 99, 100, 101, 500]),
        "trust": st.integers(0, 100),
        "taints": st.lists(st.sampled_from(["t", "u", "v"]), max_size=2, unique=True),
    },
)
starts = st.one_of(
    st.none(), st.sampled_from([-61, -60, -1, 0, 3600, 10801, 14400, 14401])
)  # seconds before the evaluation
instants = st.one_of(
    st.integers(0, 4_102_444_799 * NS),
    # Around changes of offset: Berlin 2024, Lord Howe 2024, New York 2023, Casablanca 2024.
    st.builds(
        lambda base, shift: base * NS + shift,
        st.sampled_from([1711846800, 1729990800, 1712415600, 1699164000, 1710036000, 1712977200]),
        st.integers(-2 * 3600 * NS, 2 * 3600 * NS),
    ),
)


# --- few policies and one principal, so that limits, sessions and drift are what decides ---

_short = st.sampled_from(["1s", "2s", "1m", "2h"])
_limit = st.fixed_dictionaries(
    {
        "rate_limit": st.fixed_dictionaries(
            {"max": st.integers(0, 3), "window": _short}, optional={"count_refused": st.booleans()}
        )
    }
)
_focused = st.one_of(
    st.builds(lambda limit: ("permit", [limit]), _limit),
    st.builds(lambda limit: ("permit", [limit, {"action": "pay"}]), _limit),
    st.builds(lambda limit, other: ("permit", [limit, other]), _limit, _limit),
    st.builds(lambda limit: ("refuse", [{"not": limit}]), _limit),
    st.builds(lambda limit: ("permit", [{"any": [limit, {"action": "read"}]}]), _limit),
    st.builds(
        lambda limit: ("permit", [{"not": {"all": [limit, {"param_max": {"field": "amount", "max": 2}}]}}]), _limit
    ),
    st.builds(lambda age: ("permit", [{"session_age_max": age}]), st.sampled_from(["1s", "60", "1m", "2h"])),
    st.builds(
        lambda most: ("permit", [{"param_max": {"field": "amount", "max": most}}]), st.sampled_from([3, 2**53, 10.5])
    ),
    st.just(("refuse", [{"param_min": {"field": "amount", "min": 9}}])),
    st.just(("refuse", [{"not": {"param_in": {"field": "to", "values": ["a", 1]}}}])),
    st.just(("permit", [])),
)
focused_documents = st.lists(_focused, min_size=1, max_size=3).map(
    lambda drawn: [{"name": f"p{i}", "effect": e, "conditions": c} for i, (e, c) in enumerate(drawn)]
)
focused_contexts = st.fixed_dictionaries(
    {
        "principal_id": st.just("alice"),
        "principal_kind": st.just("user"),
        "action_name": st.sampled_from(["pay", "pay", "read"]),
    },
    optional={
        "session_id": st.sampled_from(["s1", "s1", "s2"]),
        "params": st.dictionaries(st.sampled_from(["amount", "to"]), values, max_size=2),
        "ip": st.sampled_from(IPS[:3]),
        "origin_ip": st.sampled_from(IPS[:3]),
        "current_geo": st.sampled_from(PLACES),
        "origin_geo": st.sampled_from(PLACES),
        "device": st.sampled_from([{"hash": "d1"}, {"hash": "d1", "description": "x"}, {"hash": "d2"}]),
        "action_count": st.sampled_from([0, 0, 1, 2, 3, 30, 31, 100, 101]),
    },
)
drifting = st.fixed_dictionaries(
    {
        "principal_id": st.just("alice"),
        "principal_kind": st.just("user"),
        "action_name": st.just("pay"),
        "ip": st.sampled_from(["10.0.0.1", "::ffff:10.0.0.1"]),
        "origin_ip": st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        "current_geo": st.sampled_from(PLACES[1:3]),
        "origin_geo": st.sampled_from(PLACES[1:]),
        "action_count": st.sampled_from([30, 31, 180 * 30, 180 * 31, 180 * 101]),
    }
)
