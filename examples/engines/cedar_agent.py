"""A cedar-agent decides.

cedar-agent --addr 127.0.0.1 --port 8180
python examples/engines/cedar_agent.py http://127.0.0.1:8180
"""

import sys

import httpx

from kest import CedarPolicyEngine, PolicyDeniedError, StaticIdentity, configure, kest_verified

POLICIES = [  # cedar-agent 0.2 speaks Cedar 2
    {"id": "refunds", "content": 'permit(principal, action == Action::"refund", resource);'},
    {"id": "not-too-much", "content": "forbid(principal, action, resource) when { context.args.amount > 500 };"},
]
url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8180"
httpx.put(f"{url}/v1/policies", json=POLICIES).raise_for_status()

engine = CedarPolicyEngine(url, timeout=1.0)
configure(engine=engine, identity=StaticIdentity("spiffe://example.org/shop"))


@kest_verified("refund", context_map={"amount": "amount"})
def refund(amount: int) -> str:
    return f"refunded {amount}"


print(refund(120))
try:
    refund(900)
except PolicyDeniedError as denied:
    print(denied)
engine.close()
