"""What a gate decides, said as plainly as possible: lists instead of tables, Python's exact numbers instead of doubles.

Policies are documents that were already accepted; contexts are plain dicts (a missing key: not given). Truth is True,
False or None (unknown).
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

NS = 1_000_000_000
UNIT = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Decision(NamedTuple):
    kind: str
    code: str | None = None
    evaluator: str | None = None
    policy: str | None = None


# --- pieces ---


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"\s*(\d+)([smhd]?)\s*", duration).groups()  # type: ignore[union-attr]
    return int(number) * UNIT[unit]


def matches(pattern: str, text: str) -> bool:
    if pattern in ("*", ".*"):
        return True
    if pattern.endswith(".*"):
        return text.startswith(pattern[:-1]) and len(text) > len(pattern) - 1
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return text == pattern


def matches_path(pattern: str, path: str) -> bool:
    if pattern in ("*", ".*"):
        return True
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def normal_path(path: str) -> str | None:
    """None: it leads out of its root."""

    def decode(found: re.Match[str]) -> str:
        char = chr(int(found[1], 16))
        return char if re.fullmatch(r"[A-Za-z0-9\-._~]", char) else found[0]

    path = re.sub(r"%([0-9A-Fa-f]{2})", decode, path).replace("\\", "/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not kept:
                return None
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(kept)


def address(text: str) -> IPv4Address | IPv6Address:
    parsed = ip_address(text)
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def in_window(window: str, wall_ns: int) -> bool:
    times, _, zone = window.partition(" ")
    start, end = (timedelta(hours=int(t.split(":")[0]), minutes=int(t.split(":")[1])) for t in times.split("-"))
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=wall_ns // NS)
    local = moment.astimezone(ZoneInfo(zone.strip() or "UTC"))
    since = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
    late = since, wall_ns % NS  # a nanosecond after the end is after the end
    if start <= end:
        return (start, 0) <= late <= (end, 0)
    return late >= (start, 0) or late <= (end, 0)


def kilometres(a: dict[str, Any], b: dict[str, Any]) -> float | None:
    points = [a.get("latitude"), a.get("longitude"), b.get("latitude"), b.get("longitude")]
    if None in points:
        return None
    lat_a, lon_a, lat_b, lon_b = map(math.radians, points)  # type: ignore[arg-type]
    square = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * 6371.0 * math.asin(math.sqrt(min(1.0, square)))


# --- parameters ---


def kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "number" if abs(value) < 2**1023 else "other"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else "other"
    return "text" if isinstance(value, str) else "other"


def one_of(value: object, allowed: list[Any]) -> bool | None:
    kind = kind_of(value)
    alike = [item for item in allowed if kind_of(item) == kind]
    return None if kind == "other" or not alike else value in alike


def each(value: object, test: Any) -> bool | None:
    if not isinstance(value, list):
        return test(value)  # type: ignore[no-any-return]
    answers = {test(item) for item in value}
    return answers.pop() if len(answers) == 1 else None


# --- the gate ---


class ReferenceGate:
    def __init__(
        self,
        policies: list[dict[str, Any]],
        *,
        invariants: list[tuple[str, str, float]] | None = None,
        drift: bool = True,
        max_km: float | None = None,
        max_actions: int | None = None,
    ) -> None:
        self.policies = sorted(policies, key=lambda policy: policy.get("priority", 100))
        self.invariants = invariants or []
        self.drift, self.max_km, self.max_actions = drift, max_km, max_actions
        self.events: dict[tuple[str, str, str, int], list[int]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.revoked: set[tuple[str, str]] = set()

    # conditions

    def test(self, condition: dict[str, Any], policy: dict[str, Any]) -> bool | None:
        ((name, value),) = condition.items()
        c = self.context
        if name in ("any", "all"):
            return self.group(name, value, policy)
        if name == "not":
            inner = self.test(value, policy)
            return None if inner is None else not inner
        if name == "rate_limit":
            return self.has_room(value, policy)
        if name.startswith("param_"):
            return self.test_param(name, value)
        if name == "identity_kind":
            return c["principal_kind"] == value
        if name == "identity_role":
            return value in c.get("roles", [])
        if name == "identity_id":
            return c["principal_id"] == value
        if name == "action":
            return matches(value, c["action_name"])
        if name == "resource":
            path = None if c.get("resource") is None else normal_path(c["resource"])
            return None if path is None else matches_path(value, path)
        if name == "session_age_max":
            return None if self.age is None else self.age <= seconds(value)
        if name == "time_window":
            return in_window(value, self.wall)
        if name == "trust_min":
            return None if c.get("trust") is None else c["trust"] >= value
        if name in ("taint_present", "taint_absent"):
            return None if c.get("taints") is None else (value in c["taints"]) == (name == "taint_present")
        assert name == "geo_country", name
        countries = [value] if isinstance(value, str) else value
        place = c.get("current_geo")
        return None if place is None else place["country_code"].upper() in [country.upper() for country in countries]

    def test_param(self, name: str, value: dict[str, Any]) -> bool | None:
        params = self.context.get("params", {})
        if value["field"] not in params:
            return None
        given = params[value["field"]]
        if name in ("param_max", "param_min"):
            if kind_of(given) != "number":
                return None
            return given <= value["max"] if name == "param_max" else given >= value["min"]  # type: ignore[no-any-return]
        if name == "param_matches":
            return each(given, lambda v: matches(value["pattern"], v) if isinstance(v, str) else None)
        allowed = value["values"] if name == "param_in" else [value["value"]]
        return each(given, lambda v: one_of(v, allowed))

    def group(self, name: str, conditions: list[dict[str, Any]], policy: dict[str, Any]) -> bool | None:
        decisive = name == "any"
        result: bool | None = not decisive
        for condition in self.limits_last(conditions):
            answer = self.test(condition, policy)
            if answer is decisive:
                return answer
            if answer is None:
                result = None
        return result

    def limits_last(self, conditions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(conditions, key=self.limited)

    def limited(self, condition: dict[str, Any]) -> bool:
        ((name, value),) = condition.items()
        if name in ("any", "all"):
            return any(self.limited(part) for part in value)
        return self.limited(value) if name == "not" else name == "rate_limit"

    def has_room(self, limit: dict[str, Any], policy: dict[str, Any]) -> bool:
        key = (*self.who, policy["name"], seconds(limit["window"]))
        self.consulted.append((key, limit.get("count_refused", False)))
        inside = [at for at in self.events.get(key, []) if self.steady - at < key[3] * NS]
        return len(inside) < limit["max"]

    # order

    def evaluate(self, context: dict[str, Any], wall_ns: int, steady_ns: int) -> Decision:
        self.context, self.wall, self.steady = context, wall_ns, steady_ns
        self.who = (context["principal_id"], context["action_name"])
        self.session = self.sessions.get(context.get("session_id") or "")
        self.consulted: list[tuple[tuple[str, str, str, int], bool]] = []
        self.age = self.session_age()
        decision = self.decide()
        permitted = decision.kind == "permit"
        for key in {key for key, refused_too in self.consulted if permitted or refused_too}:
            self.events.setdefault(key, []).append(steady_ns)
        if context.get("session_id"):
            if permitted:
                self.count()
            elif decision.kind == "invalidate":
                self.revoked.add(("session", context["session_id"]))
        return decision

    def session_age(self) -> int | None:
        started = self.context.get("session_started_at")
        age = 0 if started is None else self.wall // NS - started
        if age < -60:
            return None
        known = (self.steady - self.session["started"]) // NS if self.session else 0
        return int(max(age, known, 0))

    def decide(self) -> Decision:
        c = self.context
        over = [("session", c.get("session_id")), ("principal", c["principal_id"])]
        if any(one in self.revoked for one in [*over, *(("role", role) for role in c.get("roles", []))]):
            return Decision("refuse", "SESSION_INVALID", "gate")
        decision = self.ask_policies()
        if decision.kind != "permit":
            return decision
        return (self.check_drift() if self.drift else None) or self.check_invariants() or decision

    def ask_policies(self) -> Decision:
        result = Decision("refuse", "NO_POLICY_MATCH", "policy")
        for policy in self.policies:
            before = list(self.consulted)
            permit = policy["effect"] == "permit"
            answers: list[bool | None] = []
            rated = False
            for condition in self.limits_last(policy["conditions"]):
                count = len(self.consulted)
                answers.append(self.test(condition, policy))
                rated = answers[-1] is not True and len(self.consulted) > count
                if answers[-1] is False or (permit and answers[-1] is None):
                    break
            if permit and all(answer is True for answer in answers):
                return Decision("permit", policy=policy["name"])
            if not permit and False not in answers:
                return Decision("refuse", "POLICY_DENIED", "policy", policy["name"])
            if permit:
                if rated and result.code == "NO_POLICY_MATCH":
                    result = Decision("refuse", "RATE_LIMIT_EXCEEDED", "policy", policy["name"])
                self.consulted = before + [one for one in self.consulted[len(before) :] if one[1]]
        return result

    def check_drift(self) -> Decision | None:
        c, session = self.context, self.session or {}
        violated = Decision("invalidate", None, "drift")
        warnings = 0
        origins = [(c.get("origin_ip"), c.get("origin_geo")), (session.get("ip"), session.get("geo"))]
        near = False
        for ip, geo in origins:
            if not ip or not c.get("ip") or address(ip) == address(c["ip"]):
                continue
            km = kilometres(geo, c["current_geo"]) if geo and c.get("current_geo") else None
            if self.max_km is None or km is None or km > self.max_km:
                return violated
            near = True
        warnings += near
        if self.age is None or self.age > 14400:
            return violated
        warnings += self.age > 10800
        for device in (c.get("origin_device"), session.get("device")):
            if device and c.get("device") and device["hash"] != c["device"]["hash"]:
                return violated
        rate = self.actions() // max(self.age // 60, 1)
        if rate > 100:
            return violated
        warnings += rate > 30
        return Decision("refuse", "DRIFT_DETECTED", "drift") if warnings >= 3 else None

    def actions(self) -> int:
        return max(self.context.get("action_count", 0), self.session["actions"] if self.session else 0)

    def check_invariants(self) -> Decision | None:
        violated = Decision("refuse", "INVARIANT_VIOLATION", "invariants")
        for _, field, most in self.invariants:
            value = self.context.get("params", {}).get(field)
            if kind_of(value) != "number" or value > most:  # type: ignore[operator]
                return violated
        if self.max_actions is None:
            return None
        beyond = self.context.get("action_count", 0) > self.max_actions
        return violated if beyond or (self.session and self.session["actions"] >= self.max_actions) else None

    def count(self) -> None:
        c = self.context
        session = self.sessions.get(c["session_id"])
        if session is None:
            started = c.get("session_started_at")
            age = max(0, self.wall // NS - started) if started is not None else 0
            session = {
                "started": self.steady - age * NS,
                "actions": 0,
                "ip": c.get("origin_ip") or c.get("ip"),
                "geo": c.get("origin_geo") or c.get("current_geo"),
                "device": c.get("origin_device") or c.get("device"),
            }
            self.sessions[c["session_id"]] = session
        for name, now in (("ip", "ip"), ("geo", "current_geo"), ("device", "device")):
            session[name] = session[name] or c.get(now)
        session["actions"] += 1
