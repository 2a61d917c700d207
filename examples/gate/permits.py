from kest.gate import (
    ActionContext,
    DirectoryTokenVerifier,
    Gate,
    InMemoryReplayStore,
    KeyPair,
    PqTokenSigner,
    PublicKeyDirectory,
)

keys = KeyPair.generate_with_expiry(90 * 86_400)
gate = Gate.from_dict(
    {"policies": [{"name": "refunds", "effect": "permit", "conditions": [{"action": "refund"}]}]},
    token_signer=PqTokenSigner.from_keypair_hybrid(keys),
    permit_audience="payments",
)
params = {"amount": 120.0, "order": "ORD-42"}
verdict = gate.evaluate(ActionContext("agent-7", "agent", "refund", resource="orders/ORD-42", params=params))

# In the payment service, which knows public keys only:
directory = PublicKeyDirectory.in_memory([keys.public_keys()])
verifier = DirectoryTokenVerifier(directory, audience="payments", replay_store=InMemoryReplayStore())
claims = verifier.verify(
    None,
    verdict.signature,
    require={"principal": "agent-7", "action": "refund", "resource": "orders/ORD-42", "params": params},
)
print(claims.principal_id, "may", claims.action_name, claims.resource)
