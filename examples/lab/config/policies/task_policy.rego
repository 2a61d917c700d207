# kest-gateway /execute-task: the token is one that the gateway had issued for this one scope, the lineage ends in its own
# authorisation, and the job is the one that was authorised.
package task_policy

import rego.v1

default allow := false

allow if {
	input.principal == "spiffe://delegation.example/kest-gateway"
	is_string(input.user)
	input.agent == "kest-gateway"
	input.task == "task:process-data"
	input.trust_score == 100
	count(input.taints) == 0
	input.object.attributes.sender == "spiffe://delegation.example/kest-gateway"
	input.object.attributes.authorised == input.object.id
}
