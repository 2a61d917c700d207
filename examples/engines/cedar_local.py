"""Cedar decides in this process: policies, entities and schema are parsed and checked once."""

from kest import CedarLocalEngine, PolicyDeniedError, StaticIdentity, configure, kest_verified

SCHEMA = """
entity Team;
entity Workload in [Team];
entity Resource;
action "refund" appliesTo {
    principal: Workload, resource: Resource, context: { args: { amount: Long }, taints: Set<String> }
};
"""
POLICIES = """
@id("shops")
permit(principal in Team::"shops", action == Action::"refund", resource) when { context.args.amount <= 500 };
@id("nothing-tainted")
forbid(principal, action, resource) when { !context.taints.isEmpty() };
"""
ENTITIES = [
    {
        "uid": {"type": "Workload", "id": "spiffe://example.org/shop"},
        "attrs": {},
        "parents": [{"type": "Team", "id": "shops"}],
    },
    {"uid": {"type": "Team", "id": "shops"}, "attrs": {}, "parents": []},
]
engine = CedarLocalEngine([POLICIES], entities=ENTITIES, schema=SCHEMA)
configure(engine=engine, identity=StaticIdentity("spiffe://example.org/shop"))


@kest_verified("refund", context_map={"amount": "amount"})
def refund(amount: int) -> str:
    return f"refunded {amount}"


@kest_verified("refund", context_map={"amount": "amount"}, added_taints=["unchecked"])
def refund_unchecked(amount: int) -> str:
    return f"refunded {amount}"


print(refund(120))
for call, amount in ((refund, 900), (refund_unchecked, 1)):
    try:
        call(amount)
    except PolicyDeniedError as denied:
        print(denied)
