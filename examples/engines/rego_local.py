"""Rego decides in this process, and says why not in its rule `reasons`."""

from kest import PolicyDeniedError, RegoLocalEngine, StaticIdentity, configure, kest_verified

POLICY = """package shop.refund

import rego.v1

default allow := false

allow if count(reasons) == 0

reasons contains "the flow is tainted" if count(input.taints) > 0

reasons contains sprintf("%d is more than 500", [input.args.amount]) if input.args.amount > 500
"""
engine = RegoLocalEngine(policies={"shop/refund": POLICY})  # backend="regorus" or "regopy" insists on one
configure(engine=engine, identity=StaticIdentity("spiffe://example.org/shop"))


@kest_verified("shop/refund", context_map={"amount": "amount"})
def refund(amount: int) -> str:
    return f"refunded {amount}"


print(refund(120))
try:
    refund(900)
except PolicyDeniedError as denied:
    print(denied)
engine.close()
