"""The samples of the public guide (003) and package page (004) about decorators run as printed, after the two renames.

A sample is the document's own lines; what surrounds it (names that it takes for granted, and what is asserted) is ours.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import textwrap
from typing import Any

import pytest

from kest.gate import ActionContext, Gate, Refused

QUICKSTART = """
from kavach import ActionContext, Gate

# Policy as a native Python dict. No separate config format to learn.
POLICY = {
    "policies": [
        {
            "name": "agent_small_refunds",
            "effect": "permit",
            "conditions": [
                {"identity_kind": "agent"},
                {"action": "issue_refund"},
                {"param_max": {"field": "amount", "max": 1000.0}},
            ],
        },
    ],
}

gate = Gate.from_dict(
    POLICY,
    invariants=[("hard_cap", "amount", 50_000.0)],
)
"""

GUIDE_DECORATOR = """
from kavach import guarded

@guarded(gate, action="issue_refund", param_fields={"amount": "amount"})
async def issue_refund(order_id: str, amount: float) -> dict:
    # Only runs if the gate permits.
    return {"status": "refunded", "order_id": order_id, "amount": amount}

result = await issue_refund(
    "ORD-123", 500.0,
    _principal_id="agent-bot",
    _principal_kind="agent",
    _roles=["support"],
    _ip="10.0.0.1",
    _session_id="sess-1",
)
"""

PAGE_DECORATOR = """
from kavach import guarded

@guarded(gate, action="issue_refund", param_fields={"amount": "amount"})
async def issue_refund(order_id: str, amount: float):
    return {"status": "refunded", "order_id": order_id, "amount": amount}

result = await issue_refund(
    "ORD-123", 500.0,
    _principal_id="bot", _principal_kind="agent",
)
"""

CATCHING = """
from kavach import Refused, Invalidated

try:
    gate.check(ctx)
except Refused as e:
    print(f"refused by {e.evaluator} ({e.code}): {e.reason}")
except Invalidated as e:
    # Session revoked. Kill session state, force re-auth.
    print(f"invalidated by {e.evaluator}: {e.reason}")
"""

END_TO_END_POLICY = """
POLICY = {
    "policies": [
        {
            "name": "support_small_refunds",
            "effect": "permit",
            "conditions": [
                {"identity_role": "support"},
                {"action": "issue_refund"},
                {"param_max": {"field": "amount", "max": 5000.0}},
            ],
        },
        {
            "name": "allow_fetch_report",
            "effect": "permit",
            "conditions": [
                {"action": "fetch_report"},
            ],
        },
    ],
}
"""

END_TO_END_DECORATOR = """
    # 4. Decorator wrapping a real function.
    @guarded(gate, action="issue_refund", param_fields={"amount": "amount"})
    async def issue_refund(order_id: str, amount: float) -> dict:
        return {"status": "refunded", "order_id": order_id, "amount": amount}

    result = await issue_refund(
        "ORD-1", 500.0,
        _principal_id="agent-alice",
        _principal_kind="agent",
        _roles=["support"],
    )
    print("decorator result:", result)

    try:
        await issue_refund(
            "ORD-2", 999_999.0,
            _principal_id="agent-alice", _principal_kind="agent", _roles=["support"],
        )
    except Refused as e:
        print("decorator blocked:", e)
"""


async def run(sample: str, **names: Any) -> tuple[dict[str, Any], str]:
    """Execute a sample, which may await; returns its names and what it prints."""
    renamed = sample.replace("from kavach import", "from kest.gate import")
    body = textwrap.indent(textwrap.dedent(renamed), "    ")
    namespace: dict[str, Any] = {"__name__": "sample", **names}
    exec(compile(f"async def main():\n{body}\n    return locals()\n", "<sample>", "exec"), namespace)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        local = await namespace["main"]()
    return local, out.getvalue()


@pytest.mark.parametrize("sample", [GUIDE_DECORATOR, PAGE_DECORATOR])
async def test_the_decorator(sample: str) -> None:
    gate = (await run(QUICKSTART))[0]["gate"]
    names, _ = await run(sample, gate=gate)
    refund = names["issue_refund"]
    assert names["result"] == {"status": "refunded", "order_id": "ORD-123", "amount": 500.0}
    assert inspect.iscoroutinefunction(refund)
    assert list(inspect.signature(refund).parameters) == ["order_id", "amount"]
    with pytest.raises(Refused):
        await refund("ORD-123", 1000.5, _principal_id="bot", _principal_kind="agent")
    with pytest.raises(Refused):
        await refund("ORD-123", 500.0, _principal_id="bot", _principal_kind="user")


async def test_catching_what_check_raises() -> None:
    gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": [{"action": "read"}]}]})
    refused = ActionContext("alice", "user", "write")
    moved = ActionContext("alice", "user", "read", ip="10.0.0.2", origin_ip="10.0.0.1")
    expected = {
        refused: "refused by policy (NO_POLICY_MATCH): no policy permits 'write' for principal 'alice'\n",
        moved: "invalidated by drift: IP changed mid-session: 10.0.0.1 → 10.0.0.2\n",
    }
    for context, printed in expected.items():
        assert (await run(CATCHING, gate=gate, ctx=context))[1] == printed


async def test_the_decorator_of_the_walkthrough() -> None:
    from kest.gate import guarded

    policy = (await run(END_TO_END_POLICY))[0]["POLICY"]
    gate = Gate.from_dict(policy, invariants=[("hard_cap", "amount", 10_000.0)], geo_drift_max_km=500.0)
    _, printed = await run(END_TO_END_DECORATOR, gate=gate, guarded=guarded, Refused=Refused)
    first, second = printed.splitlines()
    assert first == "decorator result: {'status': 'refunded', 'order_id': 'ORD-1', 'amount': 500.0}"
    assert second.startswith("decorator blocked: [NO_POLICY_MATCH] policy: ")
