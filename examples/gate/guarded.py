"""Functions that run only when a gate permits the call."""

from kest.gate import Gate, Refused, guarded

gate = Gate.from_dict(
    {
        "policies": [
            {
                "name": "small_refunds",
                "effect": "permit",
                "conditions": [{"identity_role": "support"}, {"param_max": {"field": "amount", "max": 100}}],
            }
        ]
    },
    max_session_actions=50,
)


@guarded(gate, action="refund", param_fields={"amount": "amount"})
def refund(order: str, amount: float) -> str:
    return f"{order}: {amount} paid back"


who = {"_principal_id": "ann", "_roles": ["support"], "_session_id": "session-1"}
print(refund("A-1", 42.0, **who))
try:
    refund("A-1", 4200.0, **who)
except Refused as refused:
    print(refused)
