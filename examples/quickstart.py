from kest import CedarLocalEngine, PassportVerifier, PolicyDeniedError, StaticIdentity, configure, kest_verified
from kest.core.context import get_current_passport

CLEAN = "permit(principal, action, resource) when { context.trust_score >= 80 && context.taints.isEmpty() };"
shop = StaticIdentity("spiffe://example.org/shop")
configure(identity=shop, engine=CedarLocalEngine({"take": "permit(principal, action, resource);", "pay": CLEAN}))


@kest_verified("take", source_type="user_input", added_taints=["unchecked"])
def order(text: str) -> str:
    return text


@kest_verified("take", trust_override=90, removed_taints=["unchecked"])
def check(text: str) -> int:
    return int(text)


@kest_verified("pay")
def pay(amount: int) -> str:
    return f"paid {amount}"


try:
    pay(int(order("42")))  # straight from the user: trust 40, tainted
except PolicyDeniedError as denied:
    print(denied)
print(pay(check(order("42"))))
print(PassportVerifier.verify(get_current_passport(), {"spiffe://example.org/shop": shop}).trust_score)
