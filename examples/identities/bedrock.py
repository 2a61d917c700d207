"""A Bedrock agent, with the KMS key of the workload that runs it. Needs kest[aws], KEST_KMS_KEY_ID, and the agent's ids in
BEDROCK_AGENT_ID and BEDROCK_AGENT_ALIAS_ID."""

from shipping import prove, ship

from kest import BedrockAgentIdentity, TrustStore, configure

identity = BedrockAgentIdentity()
configure(identity=identity)
ship("order 7")
prove(TrustStore.from_jwks({"keys": [identity.public_jwk()]}))
identity.close()
