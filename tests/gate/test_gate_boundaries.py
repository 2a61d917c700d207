"""Each condition exactly at its bound, and one step to either side; each way that what is unknown can combine.

A rule that is wrong by one, or an `and` for an `or`, changes one of these answers (see docs/testing.md, mutants).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from kest.gate import DeviceFingerprint, Gate, GeoLocation

Make = Callable[..., Any]
T0 = 1_700_000_000
DAY = 86_400
SECOND = 1_000_000_000


@pytest.fixture
def holds(context: Make) -> Callable[..., str]:
    """What a condition is of a context: "true", "false" or "unknown"."""

    def ask(condition: dict[str, Any], clock: int | None = None, **given: Any) -> str:
        def permits(*policies: tuple[str, list[dict[str, Any]]]) -> bool:
            named = [{"name": f"p{i}", "effect": effect, "conditions": c} for i, (effect, c) in enumerate(policies)]
            gate = Gate.from_dict({"policies": named}, enable_drift=False)
            if clock is not None:
                gate._core.set_clock(clock, max(clock, 0))
            return gate.evaluate(context(**given)).is_permit  # type: ignore[no-any-return]

        permitted = permits(("permit", [condition]))
        refusal_fires = not permits(("refuse", [condition]), ("permit", []))
        negated = permits(("permit", [{"not": condition}]))
        answers = {(True, True, False): "true", (False, False, True): "false", (False, True, False): "unknown"}
        return answers[permitted, refusal_fires, negated]

    return ask


@pytest.mark.parametrize("bound", [0.0, 10.0, -3.5, 1e300])
def test_numbers_at_the_bound(bound: float, holds: Make) -> None:
    below, above = math.nextafter(bound, -math.inf), math.nextafter(bound, math.inf)
    most, least = {"param_max": {"field": "n", "max": bound}}, {"param_min": {"field": "n", "min": bound}}
    assert [holds(most, params={"n": n}) for n in (below, bound, above)] == ["true", "true", "false"]
    assert [holds(least, params={"n": n}) for n in (below, bound, above)] == ["false", "true", "true"]
    for condition in (most, least):
        assert (
            holds(condition) == holds(condition, params={"n": "1"}) == holds(condition, params={"n": None}) == "unknown"
        )


def test_integers_between_two_floats_at_the_bound(holds: Make) -> None:
    exact = 2**53
    least = {"param_min": {"field": "n", "min": exact + 2}}
    assert [holds(least, params={"n": exact + more}) for more in (1, 2, 3)] == ["false", "true", "true"]
    listed = {"param_in": {"field": "n", "values": [exact, exact + 2]}}
    assert [holds(listed, params={"n": exact + more}) for more in range(4)] == ["true", "false", "true", "false"]


@pytest.mark.parametrize("size", range(1, 8))
def test_every_listed_number_and_none_between(size: int, holds: Make) -> None:
    condition = {"param_in": {"field": "n", "values": [10 * i for i in range(1, size + 1)]}}
    answers = [holds(condition, params={"n": n}) for n in range(5, 10 * size + 11, 5)]
    assert answers == ["false", "true"] * size + ["false"] * (len(answers) - 2 * size)


def test_a_list_ends_where_it_ends(permitting: Make, context: Make) -> None:
    """What follows in the compiled set are the next condition's values."""
    for values in itertools.permutations(([1], [2, 3], [4])):
        both = permitting(*({"param_in": {"field": "n", "values": some}} for some in values[:2]))
        one = permitting({"any": [{"param_in": {"field": "n", "values": some}} for some in values[:2]]})
        for n in range(6):
            assert both.evaluate(context(params={"n": n})).is_refuse
            assert one.evaluate(context(params={"n": n})).is_permit is any(n in some for some in values[:2])


def test_texts_and_truths_that_are_listed(holds: Make) -> None:
    texts = {"param_in": {"field": "v", "values": ["a", "b", "c"]}}
    assert [holds(texts, params={"v": v}) for v in ("", "a", "aa", "b", "c", "d")] == [
        "false", "true", "false", "true", "true", "false",
    ]  # fmt: skip
    for listed in ([True], [False], [True, False]):
        condition = {"param_in": {"field": "v", "values": listed}}
        assert [holds(condition, params={"v": v}) for v in (True, False)] == [
            "true" if v in listed else "false" for v in (True, False)
        ]
        assert holds(condition, params={"v": 1}) == holds(condition, params={"v": "True"}) == "unknown"
    assert holds(texts, params={"v": True}) == holds(texts, params={"v": 1}) == "unknown"


def test_lists_are_true_or_false_as_a_whole(holds: Make) -> None:
    condition = {"param_in": {"field": "v", "values": [1, 2]}}
    for items in itertools.product((1, 2, 3, 4, "x"), repeat=3):
        each = {"true" if item in (1, 2) else "unknown" if item == "x" else "false" for item in items}
        assert holds(condition, params={"v": list(items)}) == (each.pop() if len(each) == 1 else "unknown"), items
    assert holds(condition, params={"v": []}) == "unknown"
    assert holds(condition, params={"v": [1]}) == "true"


TRUE = {"identity_kind": "user"}
FALSE = {"identity_kind": "agent"}
UNKNOWN = {"trust_min": 1}
KINDS = {"true": TRUE, "false": FALSE, "unknown": UNKNOWN}


@pytest.mark.parametrize("parts", [parts for n in (1, 2, 3) for parts in itertools.product(KINDS, repeat=n)])
def test_all_any_and_not_over_what_is_unknown(parts: tuple[str, ...], holds: Make) -> None:
    inside = [KINDS[part] for part in parts]
    every = "false" if "false" in parts else "unknown" if "unknown" in parts else "true"
    one = "true" if "true" in parts else "unknown" if "unknown" in parts else "false"
    swap = {"true": "false", "false": "true", "unknown": "unknown"}
    assert holds({"all": inside}) == every
    assert holds({"any": inside}) == one
    assert holds({"not": {"all": inside}}) == swap[every]
    assert holds({"not": {"any": inside}}) == swap[one]
    # What stands behind a group is not taken for a part of it.
    assert holds({"all": [{"all": inside}, TRUE]}) == every
    assert holds({"any": [{"any": inside}, FALSE]}) == one
    assert holds({"all": [{"any": inside}, TRUE]}) == one
    assert holds({"any": [{"all": inside}, FALSE]}) == every


@pytest.mark.parametrize(
    ("window", "zone", "offset"),
    [("08:30-17:15", "", 0), ("00:00-00:01", "", 0), ("22:00-06:30", "", 0), ("00:00-23:59", "", 0),
     ("08:30-17:15", " Etc/GMT+10", -10), ("22:00-06:30", " Asia/Kolkata", 5.5), ("12:00-11:58", " Etc/GMT-14", 14)],
)  # fmt: skip
def test_time_windows_include_both_ends(window: str, zone: str, offset: float, holds: Make) -> None:
    start, end = ((int(t[:2]) * 60 + int(t[3:])) * 60 * SECOND for t in window.split("-"))
    midnight = (T0 - T0 % DAY) * SECOND - round(offset * 3600) * SECOND
    condition = {"time_window": window + zone}
    for edge in (0, start, end, DAY * SECOND):
        for step in (-60 * SECOND, -SECOND, -1, 0, 1, SECOND, 60 * SECOND):
            local = (edge + step) % (DAY * SECOND)
            inside = start <= local <= end if start <= end else local >= start or local <= end
            answer = holds(condition, clock=midnight + edge + step)
            assert answer == ("true" if inside else "false"), (edge, step)


def test_time_windows_where_a_zone_changes_its_offset(holds: Make) -> None:
    change = 1_711_846_800  # 2024-03-31 01:00 UTC: 02:00 in Berlin becomes 03:00
    two, three = {"time_window": "01:59-02:59 Europe/Berlin"}, {"time_window": "03:00-03:59 Europe/Berlin"}
    assert [holds(two, clock=change * SECOND + step) for step in (-SECOND, -1, 0)] == ["true", "true", "false"]
    assert [holds(three, clock=change * SECOND + step) for step in (-SECOND, -1, 0)] == ["false", "false", "true"]
    back = 1_729_990_800  # 2024-10-27 01:00 UTC: 03:00 becomes 02:00
    assert [holds(three, clock=back * SECOND + step) for step in (-SECOND, 0)] == ["false", "false"]
    assert [holds(two, clock=back * SECOND + step) for step in (-60 * SECOND, -SECOND, 0)] == ["true", "false", "true"]


def test_time_windows_under_a_clock_that_is_centuries_off(holds: Make) -> None:
    answers = [holds({"time_window": "00:00-23:59"}, clock=clock) for clock in (-(2**63), T0 * SECOND, 2**63 - 1)]
    assert answers == ["unknown", "true", "unknown"]


def test_trust_taints_country_role_and_principal(holds: Make) -> None:
    for bound in (0, 1, 40, 100):
        for trust in {0, max(0, bound - 1), bound, 100}:
            assert holds({"trust_min": bound}, trust=trust) == ("true" if trust >= bound else "false")
        assert holds({"trust_min": bound}) == "unknown"
    present, absent = {"taint_present": "pii"}, {"taint_absent": "pii"}
    for taints, has in (
        ([], False),
        (["pii"], True),
        (["a", "pii"], True),
        (["a", "b", "pii"], True),
        (["pi", "piip"], False),
    ):
        assert holds(present, taints=taints) == ("true" if has else "false")
        assert holds(absent, taints=taints) == ("false" if has else "true")
    assert holds(present) == holds(absent) == "unknown"
    country = {"geo_country": ["AT", "DE", "FR"]}
    assert [holds(country, current_geo=GeoLocation(c)) for c in ("AT", "DE", "FR", "AD", "DK", "US")] == (
        ["true"] * 3 + ["false"] * 3
    )
    assert holds(country) == "unknown"
    role = {"identity_role": "boss"}
    assert [holds(role, roles=roles) for roles in ([], ["boss"], ["a", "boss"], ["bos", "bosss"])] == [
        "false", "true", "true", "false",
    ]  # fmt: skip
    assert [holds({"identity_id": "alice"}, principal_id=who) for who in ("alice", "alic", "alicea")] == [
        "true", "false", "false",
    ]  # fmt: skip


@pytest.mark.parametrize("bound", [1, 600])
def test_session_age_at_the_bound(bound: int, holds: Make) -> None:
    condition = {"session_age_max": f"{bound}s"}
    for age, expected in ((0, "true"), (bound, "true"), (bound + 1, "false"), (-60, "true"), (-61, "unknown")):
        assert holds(condition, clock=T0 * SECOND, session_started_at=T0 - age) == expected, age
    assert holds(condition, clock=T0 * SECOND) == "true"


def test_patterns(holds: Make) -> None:
    table = {
        "pay": {"pay": True, "pa": False, "pays": False, "Pay": False},
        "pay*": {"pay": True, "pays": True, "pay.x": True, "pa": False},
        "pay.*": {"pay.x": True, "pay.": False, "pay": False, "payxx": False},
        "*": {"anything": True, "x": True},
    }
    for pattern, texts in table.items():
        for text, expected in texts.items():
            assert holds({"action": pattern}, action=text) == ("true" if expected else "false"), (pattern, text)
            if pattern != "pay.*":
                assert holds({"resource": pattern}, resource=text) == ("true" if expected else "false"), (pattern, text)
    assert holds({"resource": "*"}) == "unknown"


@pytest.mark.parametrize(
    ("written", "plain"),
    [("/a/b", "/a/b"), ("/a/b/", "/a/b"), ("//a///b", "/a/b"), ("/a/./b", "/a/b"), ("/./a", "/a"), ("/a/.", "/a"),
     ("/a/x/../b", "/a/b"), ("/a/b/..", "/a"), ("/x/..", "/"), ("/", "/"), ("//", "/"), ("a/../b", "b"), ("./a", "a"),
     ("a//b", "a/b"), ("a/..", ""), ("\\a\\b", "/a/b"), ("/%61/%62", "/a/b"), ("/%41", "/A"), ("/%7e%2D%5F%2e", "/~-_."),
     ("/%2e%2E/a", None), ("/a/%2e%2e/b", "/b"), ("/a%2fb", "/a%2fb"), ("/%6", "/%6"), ("/%", "/%"), ("/%zz", "/%zz"),
     ("/%g0", "/%g0"), ("/%0g", "/%0g"), ("/%30%39", "/09"), ("/%2f%3a%40%5b%60%7b", "/%2f%3a%40%5b%60%7b"),
     ("/.a", "/.a"), ("/..a", "/..a"), ("/a.", "/a."), ("/a..", "/a.."), ("/...", "/..."), ("/a/.../b", "/a/.../b"),
     ("..", None), ("../a", None), ("/..", None), ("/../a", None), ("a/../..", None), ("/a/../../b", None),
     ("/ab/../c", "/c"), ("/ab/cd/../../e", "/e"), ("ab/cd/..", "ab"), ("/%61%", "/a%"), ("/%61%6", "/a%6"),
     ("/%5A%5a%7A%7a", "/ZZzz"), ("/%40", "/%40"), ("/%7F", "/%7F")],
)  # fmt: skip
def test_paths_as_they_are_compared(written: str, plain: str | None, context: Make, permitting: Make) -> None:
    """A pattern is written plainly; a path that leads out of its root fits nothing, not even `*`."""
    if plain is None:
        assert permitting({"resource": "*"}).evaluate(context(resource=written)).is_refuse
        return
    if plain:
        assert permitting({"resource": plain}).evaluate(context(resource=written)).is_permit
    assert permitting({"resource": plain + "x"}).evaluate(context(resource=written)).is_refuse
    assert permitting({"resource": plain + "*"}).evaluate(context(resource=written)).is_permit
    if len(plain) > 1:
        assert permitting({"resource": plain[:-1] + "~"}).evaluate(context(resource=written)).is_refuse


# --- drift ---


def place(latitude: float | None = None, longitude: float | None = None) -> GeoLocation:
    return GeoLocation("DE", latitude=latitude, longitude=longitude)


PLACES = [
    ((0.0, 0.0), (0.0, 180.0), 20015.1), ((90.0, 0.0), (-90.0, 0.0), 20015.1), ((0.0, 0.0), (0.0, 1.0), 111.19),
    ((60.0, 10.0), (60.0, 11.0), 55.6), ((52.52, 13.405), (48.1374, 11.5755), 504.2),
    ((-33.87, 151.21), (51.5, -0.12), 16993.0),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "km"), PLACES)
def test_distance_at_the_threshold(one: Any, other: Any, km: float, permitting: Make, context: Make) -> None:
    given = {"ip": "2.2.2.2", "origin_ip": "1.1.1.1", "current_geo": place(*one), "origin_geo": place(*other)}
    assert permitting(geo_drift_max_km=km * 1.002).evaluate(context(**given)).is_permit
    verdict = permitting(geo_drift_max_km=km * 0.998).evaluate(context(**given))
    assert verdict.is_invalidate
    assert "moved" in verdict.reason


def test_the_same_place_is_no_kilometre_away(permitting: Make, context: Make) -> None:
    given = {"ip": "2.2.2.2", "origin_ip": "1.1.1.1", "current_geo": place(5, 6), "origin_geo": place(5, 6)}
    assert permitting(geo_drift_max_km=0.0).evaluate(context(**given)).is_permit
    assert permitting().evaluate(context(**given)).is_invalidate  # strict: another address is another place


def test_addresses_that_are_known_and_not(permitting: Make, context: Make) -> None:
    strict = permitting()
    assert strict.evaluate(context(ip="1.1.1.1")).is_permit
    assert strict.evaluate(context(origin_ip="1.1.1.1")).is_permit
    assert strict.evaluate(context(ip="1.1.1.1", origin_ip="1.1.1.1")).is_permit
    assert strict.evaluate(context(ip="1.1.1.1", origin_ip="::ffff:1.1.1.1")).is_permit
    assert strict.evaluate(context(ip="::1", origin_ip="::2")).is_invalidate
    assert strict.evaluate(context(ip="1.1.1.1", origin_ip="::101:101")).is_invalidate


AGES = (10_800, 10_801)  # a warning from here
RATES = (30, 31)  # a minute
NEAR = {"ip": "2.2.2.2", "origin_ip": "1.1.1.1", "current_geo": place(0, 0), "origin_geo": place(0, 1)}


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("rate", RATES)
def test_three_warnings_and_no_fewer_refuse(
    near: bool, age: int, rate: int, permitting: Make, context: Make, at: Make
) -> None:
    gate = permitting(geo_drift_max_km=500.0)
    at(gate, T0)
    verdict = gate.evaluate(
        context(session_started_at=T0 - age, action_count=rate * (age // 60), **(NEAR if near else {}))
    )
    assert verdict.kind == ("refuse" if near and age == AGES[1] and rate == RATES[1] else "permit")


DRIFTED = {
    "address": {"ip": "2.2.2.2", "origin_ip": "1.1.1.1"},
    "distance": {**NEAR, "origin_geo": place(0, 90)},
    "begins in the future": {"session_started_at": T0 + 3600},
    "age": {"session_started_at": T0 - 10 * DAY},
    "device": {"device": DeviceFingerprint("one"), "origin_device": DeviceFingerprint("other")},
    "rate": {"session_started_at": T0, "action_count": 1_000},
    "warnings": {"session_started_at": T0 - AGES[1], "action_count": RATES[1] * (AGES[1] // 60), **NEAR},
}


@pytest.mark.parametrize("cause", DRIFTED)
def test_what_drift_refuses_no_invariant_is_asked_about(cause: str, permitting: Make, context: Make, at: Make) -> None:
    gate = permitting(geo_drift_max_km=500.0, invariants=[("cap", "n", 1.0)])
    at(gate, T0)
    assert gate.evaluate(context(params={"n": 2})).code == "INVARIANT_VIOLATION"
    kept, broken = (gate.evaluate(context(params={"n": n}, **DRIFTED[cause])) for n in (1, 2))
    expected = ("refuse", "DRIFT_DETECTED") if cause == "warnings" else ("invalidate", None)
    assert (kept.kind, kept.code) == expected
    assert (broken.kind, broken.code, broken.reason) == (kept.kind, kept.code, kept.reason)


def test_the_place_where_the_gate_saw_a_session_begin_goes_before_invariants(permitting: Make, context: Make) -> None:
    gate = permitting(invariants=[("cap", "n", 1.0)])
    assert gate.evaluate(context(session_id="s", ip="1.1.1.1", params={"n": 1})).is_permit
    assert gate.evaluate(context(session_id="s", ip="2.2.2.2", params={"n": 2})).is_invalidate


@pytest.mark.parametrize(
    ("age", "actions", "kind"),
    [(0, 100, "permit"), (0, 101, "invalidate"), (59, 100, "permit"), (59, 101, "invalidate"), (60, 100, "permit"),
     (60, 101, "invalidate"), (119, 100, "permit"), (119, 101, "invalidate"), (120, 201, "permit"),
     (120, 202, "invalidate"), (600, 1009, "permit"), (600, 1010, "invalidate")],
)  # fmt: skip
def test_actions_a_minute(age: int, actions: int, kind: str, permitting: Make, context: Make, at: Make) -> None:
    gate = permitting()
    at(gate, T0)
    assert gate.evaluate(context(session_started_at=T0 - age, action_count=actions)).kind == kind


def test_devices_that_are_known_and_not(permitting: Make, context: Make) -> None:
    one, other = DeviceFingerprint("one"), DeviceFingerprint("other")
    gate = permitting()
    assert gate.evaluate(context(device=one)).is_permit
    assert gate.evaluate(context(origin_device=one)).is_permit
    assert gate.evaluate(context(device=one, origin_device=DeviceFingerprint("one"))).is_permit
    assert gate.evaluate(context(device=other, origin_device=one)).is_invalidate
    assert gate.evaluate(context(session_id="s", device=one)).is_permit
    assert gate.evaluate(context(session_id="s")).is_permit
    assert gate.evaluate(context(session_id="t")).is_permit
    assert gate.evaluate(context(session_id="t", device=other)).is_permit
    assert gate.evaluate(context(session_id="s", device=other)).is_invalidate


# --- invariants, caps, limits ---


def test_invariants_at_the_bound(permitting: Make, context: Make) -> None:
    gate = permitting(invariants=[("cap", "n", 10.0)])
    for n, expected in ((10.0, True), (math.nextafter(10.0, 11), False), (2**53, False), ("10", False)):
        assert gate.evaluate(context(params={"n": n})).is_permit is expected
    assert gate.evaluate(context()).is_refuse


@pytest.mark.parametrize("cap", [1, 3])
def test_caps_at_the_bound(cap: int, permitting: Make, context: Make) -> None:
    gate = permitting(max_session_actions=cap)
    assert [gate.evaluate(context(action_count=n)).is_permit for n in (cap - 1, cap, cap + 1)] == [True, True, False]
    assert [gate.evaluate(context(session_id="s")).is_permit for _ in range(cap + 2)] == [True] * cap + [False, False]
    # What the context says adds nothing to what the gate counted, and takes nothing away.
    other = permitting(max_session_actions=cap)
    assert other.evaluate(context(session_id="s", action_count=cap)).is_permit
    assert other.evaluate(context(session_id="s", action_count=cap + 1)).is_refuse


def test_a_limit_is_asked_last_and_counts_for_the_permitting_policy_only(context: Make) -> None:
    limit = {"rate_limit": {"max": 1, "window": "60s"}}
    policies = [
        {
            "name": "first",
            "effect": "permit",
            "conditions": [limit, {"action": "pay"}, {"param_max": {"field": "n", "max": 5}}],
        },
        {"name": "second", "effect": "permit", "conditions": [{"action": "pay"}, limit]},
    ]
    gate = Gate.from_dict({"policies": policies})
    names = [gate.evaluate(context(params={"n": n})).policy for n in (9, 5)]
    assert names == ["second", "first"]  # the refused try of the first policy cost it nothing
    verdict = gate.evaluate(context(params={"n": 1}))
    assert (verdict.code, verdict.policy) == ("RATE_LIMIT_EXCEEDED", "first")
    verdict = gate.evaluate(context(params={"n": 9}))
    assert (verdict.code, verdict.policy) == ("RATE_LIMIT_EXCEEDED", "second")
    assert gate.evaluate(context("steal")).code == "NO_POLICY_MATCH"


@pytest.mark.parametrize("which", ["param_max", "param_min"])
def test_hundreds_of_bounds_on_one_number(which: str, context: Make) -> None:
    """As if each policy were asked in turn: nothing but the bounds tells these apart, and a few have none."""
    member = which[-3:]
    bounds = [None if i % 37 == 36 else 10 * (i * 67 % 300) for i in range(300)]
    policies = [
        {"name": f"p{i}", "effect": "permit", "conditions": [] if b is None else [{which: {"field": "n", member: b}}]}
        for i, b in enumerate(bounds)
    ]
    gate = Gate.from_dict({"policies": policies}, enable_drift=False)
    for n in [n * 7919 % 3013 for n in range(-3, 600)]:
        fits = (b is None or (n <= b if which == "param_max" else n >= b) for b in bounds)
        expected = next(f"p{i}" for i, fit in enumerate(fits) if fit)
        assert gate.evaluate(context(params={"n": n})).policy == expected, n


@pytest.mark.parametrize("which", ["param_max", "param_min"])
def test_the_one_of_hundreds_that_fits(which: str, context: Make) -> None:
    """Wherever it stands."""
    sign = 1 if which == "param_max" else -1
    for at in range(0, 300, 11):
        policies = [
            {
                "name": f"p{i}",
                "effect": "permit",
                "conditions": [{which: {"field": "n", which[-3:]: sign * (1000 if i == at else i % 50)}}],
            }
            for i in range(300)
        ]
        gate = Gate.from_dict({"policies": policies}, enable_drift=False)
        assert gate.evaluate(context(params={"n": sign * 500})).policy == f"p{at}"
        assert gate.evaluate(context(params={"n": sign * 2000})).code == "NO_POLICY_MATCH"


@pytest.mark.parametrize("which", ["param_max", "param_min"])
@pytest.mark.parametrize("fitting", [1, 10, 40, 60, 100, 200, 299])
def test_the_first_of_those_that_fit_has_the_widest_bound(which: str, fitting: int, context: Make) -> None:
    """So that it is the last in the order of bounds."""
    sign, first = (1 if which == "param_max" else -1), 300 - fitting
    bounds = [i % 50 if i < first else 1000 + 300 - i for i in range(300)]
    policies = [
        {"name": f"p{i}", "effect": "permit", "conditions": [{which: {"field": "n", which[-3:]: sign * bound}}]}
        for i, bound in enumerate(bounds)
    ]
    gate = Gate.from_dict({"policies": policies}, enable_drift=False)
    assert gate.evaluate(context(params={"n": sign * 500})).policy == f"p{first}"


OTHERS = [{"name": f"o{i}", "effect": "permit", "conditions": [{"action": f"other{i}"}]} for i in range(100)]
ASKED: list[dict[str, Any]] = [
    {"resource": "/a", "params": {"f": "v3", "n": 3}},
    {"params": {"f": ["v3", "v4"], "n": 100}},
    {"resource": "/b/c", "params": {"f": ["v3", 5, True], "n": -1}},
    {"params": {"f": True}},
    {"params": {"f": 3.0, "n": "x"}},
    {"params": {"f": []}},
    {},
]
INDEXED: dict[str, Callable[[int], dict[str, Any]]] = {
    "resource": lambda i: {"resource": f"/a{i}"},
    "resource below": lambda i: {"resource": f"/b{i}/*"},
    "values": lambda i: {"param_in": {"field": "f", "values": ["v3", f"v{i}", i, i % 2 == 0]}},
    "bounds": lambda i: {"param_max": {"field": "n", "max": i}},
    "not": lambda i: {"not": {"resource": f"/a{i}"}},
}


@pytest.mark.parametrize("effect", ["permit", "refuse"])
@pytest.mark.parametrize("kind", INDEXED)
def test_how_many_policies_there_are_changes_no_verdict(kind: str, effect: str, context: Make) -> None:
    """With many there is an index, with few there is none; also of what the context does not say."""
    first = {"name": "first", "effect": effect, "conditions": [INDEXED[kind](3)]}
    last = {"name": "last", "effect": "permit", "conditions": []}
    alike = [{"name": f"p{i}", "effect": effect, "conditions": [INDEXED[kind](i)]} for i in range(200, 240)]
    few = Gate.from_dict({"policies": [first, alike[0], last]}, enable_drift=False)
    for others in (OTHERS, []):  # without them, it is the only thing to go by
        many = Gate.from_dict({"policies": [first, *others, *alike, last]}, enable_drift=False)
        for given in (*ASKED, *ASKED[::-1]):
            one, two = few.evaluate(context(**given)), many.evaluate(context(**given))
            assert (one.kind, one.policy, one.code) == (two.kind, two.policy, two.code), given
