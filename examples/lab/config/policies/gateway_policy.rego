# kest-gateway /authorise: the agent asks, with a token that was issued to it for the person, and with the scope of the task.
#
# Keycloak's tokens name no actor. `agent` is the client that the token was issued to; the workload that signed the lineage
# last must be the same.
package gateway_policy

import rego.v1

default allow := false

allow if {
	input.principal == "spiffe://delegation.example/kest-gateway"
	is_string(input.user)
	input.agent == "kest-agent"
	input.object.attributes.sender == "spiffe://delegation.example/kest-agent"
	input.args.scope in input.object.attributes.scopes
}
