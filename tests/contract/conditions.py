"""The conditions of gates under contract: for each a value, and contexts in which it holds and does not."""

from __future__ import annotations

from typing import Any, NamedTuple

from kest.gate import ActionContext, GeoLocation


class Case(NamedTuple):
    """``holds``, ``fails``, ``unknown``: what differs from `context`; None: there is no such context.

    ``other``: where it depends on more than the context (time, earlier calls), a value with which ``holds`` fails.
    """

    value: Any
    holds: dict[str, Any]
    fails: dict[str, Any] | None = None
    unknown: dict[str, Any] | None = None
    other: Any = None


def context(**given: Any) -> ActionContext:
    return ActionContext(**{"principal_id": "alice", "principal_kind": "user", "action_name": "pay", **given})


def _amount(amount: Any) -> dict[str, Any]:
    return {"params": {"amount": amount}}


def _session(age: int) -> dict[str, Any]:
    return {"session_id": f"s{age}", "session_started_at": NOW - age}


NOW = 1_700_044_200  # a Wednesday, 10:30 UTC
CASES: dict[str, Case] = {
    "identity_kind": Case("agent", {"principal_kind": "agent"}, {}),
    "identity_role": Case("support", {"roles": ["support"]}, {"roles": ["sales"]}),
    "identity_id": Case("alice", {}, {"principal_id": "bob"}),
    "action": Case("pay.*", {"action_name": "pay.out"}, {"action_name": "pay"}),
    "resource": Case("orders/*", {"resource": "orders/1"}, {"resource": "order"}, {}),
    "param_max": Case({"field": "amount", "max": 5}, _amount(5), _amount(6), {}),
    "param_min": Case({"field": "amount", "min": 5}, _amount(5), _amount(4), _amount("5")),
    "param_in": Case({"field": "amount", "values": ["a", 5]}, _amount(5), _amount(6), {}),
    "param_equals": Case({"field": "amount", "value": True}, _amount(True), _amount(False), {}),
    "param_matches": Case({"field": "amount", "pattern": "EUR*"}, _amount("EUR 5"), _amount("USD 5"), {}),
    "rate_limit": Case({"max": 1, "window": "1h"}, {}, other={"max": 0, "window": "1h"}),
    "session_age_max": Case("10m", _session(600), _session(601)),
    "time_window": Case("10:00-11:00", {}, other="11:00-12:00"),
    "geo_country": Case(["DE"], {"current_geo": GeoLocation("DE")}, {"current_geo": GeoLocation("FR")}, {}),
    "trust_min": Case(70, {"trust": 70}, {"trust": 69}, {}),
    "taint_present": Case("pii", {"taints": ["pii"]}, {"taints": []}, {}),
    "taint_absent": Case("pii", {"taints": []}, {"taints": ["pii"]}, {}),
}
