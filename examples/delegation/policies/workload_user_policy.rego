# hop1 to hop3: a workload works for a person, on the task that was authorised and on nothing else.
#
# The token names who acts now (`agent`); the lineage says who signed last (`sender`). They must be the same workload: a
# token that somebody else got hold of comes with another lineage. Earlier actors, deeper in `act`, are for the record only
# (RFC 8693, section 4.1).
package workload_user_policy

import rego.v1

default allow := false

allow if {
	is_string(input.user)
	not input.is_root
	input.task == "task:process-data"
	input.trust_score == 100
	count(input.taints) == 0
	input.object.attributes.sender == concat("/", ["spiffe://delegation.example", input.agent])
}
