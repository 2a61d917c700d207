"""Amazon Verified Permissions decides.

    python examples/engines/verified_permissions.py PSEXAMPLEabcdefg111111      # your policy store, your AWS credentials

Without a policy store, botocore's Stubber answers in the service's place: it checks requests and answers against AWS's model.
"""

import sys

import boto3
from botocore.stub import ANY, Stubber

from kest import AVPPolicyEngine, PolicyDeniedError, StaticIdentity, configure, kest_verified

store = sys.argv[1] if len(sys.argv) > 1 else None
if store is not None:
    engine = AVPPolicyEngine(policy_store_id=store)
else:
    client = boto3.client(
        "verifiedpermissions", region_name="eu-west-1", aws_access_key_id="none", aws_secret_access_key="none"
    )
    stub = Stubber(client)
    asked = dict.fromkeys(("policyStoreId", "principal", "action", "resource", "context"), ANY)
    for decision, policy in (("ALLOW", "refunds"), ("DENY", "not-too-much")):
        answer = {"decision": decision, "determiningPolicies": [{"policyId": policy}], "errors": []}
        stub.add_response("is_authorized", answer, asked)
    stub.activate()
    engine = AVPPolicyEngine(policy_store_id="none", client=client)
configure(engine=engine, identity=StaticIdentity("spiffe://example.org/shop"))


@kest_verified("refund", context_map={"amount": "amount"})
def refund(amount: int) -> str:
    return f"refunded {amount}"


for amount in (120, 900):
    try:
        print(refund(amount))
    except PolicyDeniedError as denied:
        print(denied)
engine.close()
