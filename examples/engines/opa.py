"""Open Policy Agent decides.

opa run --server --addr 127.0.0.1:8181 --set decision_logs.console=true     # or --addr unix:///run/opa.sock
python examples/engines/opa.py http://127.0.0.1:8181
"""

import sys

import httpx

from kest import OPAPolicyEngine, PolicyDeniedError, StaticIdentity, configure, kest_verified
from kest.core.context import get_current_passport

POLICY = """package shop.refund

import rego.v1

default allow := false

allow if count(reasons) == 0

reasons contains "the flow is tainted" if count(input.taints) > 0

reasons contains sprintf("%d is more than 500", [input.args.amount]) if input.args.amount > 500
"""
url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8181"
httpx.put(f"{url}/v1/policies/shop", content=POLICY).raise_for_status()  # in production: a bundle

engine = OPAPolicyEngine(url, timeout=1.0, provenance=True)
configure(engine=engine, identity=StaticIdentity("spiffe://example.org/shop"))


@kest_verified("shop/refund", context_map={"amount": "amount"})
def refund(amount: int) -> str:
    return f"refunded {amount}"


print(refund(120))
print("OPA's record:", get_current_passport().decode()[0]["labels"].get("kest.decision", "none (no decision logs)"))
try:
    refund(900)
except PolicyDeniedError as denied:
    print(denied)
engine.close()
