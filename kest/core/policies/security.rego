# Security: access by clearance level and need to know, backed by lineage.
#
# The lattice is D. E. Denning's (A Lattice Model of Secure Information Flow, CACM 19(5), 1976) with the need-to-know
# compartments of Bell and LaPadula 1973. It decides access, not flow: where what was read must not be written down
# again, use bell_lapadula.
package kest.policies.security

import rego.v1

default allow := false

attributes := input.object.attributes

rank := {"public": 0, "internal": 1, "confidential": 2, "restricted": 3}

trust_floor := {"public": 0, "internal": 40, "confidential": 60, "restricted": 80}

# From here on somebody has to answer for the access.
accountable := {"confidential", "restricted"}

name(value) if {
	is_string(value)
	value != ""
}

strings(list) if {
	is_array(list)
	every item in list {
		is_string(item)
	}
}

# A rule of its own: in OPA the negated call of a function with a missing argument is undefined, not true.
authenticated if name(input.subject.user)

well_formed if {
	is_number(rank[attributes.clearance])
	is_number(rank[attributes.classification])
	strings(attributes.clearance_compartments)
	strings(attributes.compartments)
	is_boolean(attributes.revoked)
	strings(attributes.allowed_taints)
	strings(input.taints)
	is_number(input.trust_score)
	input.trust_score >= 0
	input.trust_score <= 100
	floor(input.trust_score) == input.trust_score
}

deny contains "attributes: one is missing, mistyped or outside its domain" if not well_formed

deny contains "revoked: the clearance has been withdrawn" if attributes.revoked == true

deny contains "clearance: lower than the classification" if {
	well_formed
	rank[attributes.clearance] < rank[attributes.classification]
}

deny contains "need to know: a compartment of the object is not in the clearance" if {
	well_formed
	some compartment in attributes.compartments
	not compartment in attributes.clearance_compartments
}

deny contains "accountability: this classification needs an authenticated user" if {
	well_formed
	attributes.classification in accountable
	not authenticated
}

deny contains "lineage: the trust score is too low for the classification" if {
	well_formed
	input.trust_score < trust_floor[attributes.classification]
}

deny contains "lineage: a taint is not among those allowed here" if {
	well_formed
	some taint in input.taints
	not taint in attributes.allowed_taints
}

reasons := deny

allow if {
	well_formed
	count(deny) == 0
}
