# Biba, strict integrity policy: "no read down, no write up".
#
# K. J. Biba, Integrity Considerations for Secure Computer Systems, MTR-3153, MITRE; ESD-TR-76-372, 1977.
#
# A subject observes only objects of at least its own integrity, modifies only objects of at most its own integrity, and
# invokes only subjects of at most its own integrity. What Kest adds: the trust score is the low-water mark of everything
# that this flow of control has been through, so a subject's level counts for modifying and invoking only as far as the
# trust score carries it.
package kest.policies.biba

import rego.v1

default allow := false

attributes := input.object.attributes

rank := {"low": 0, "medium": 1, "high": 2}

trust_floor := {"low": 0, "medium": 40, "high": 80}

accesses := {"read", "write", "invoke"}

modifying := {"write", "invoke"}

well_formed if {
	attributes.access in accesses
	is_number(rank[attributes.subject_integrity])
	is_number(rank[attributes.object_integrity])
	is_number(input.trust_score)
	input.trust_score >= 0
	input.trust_score <= 100
	floor(input.trust_score) == input.trust_score
}

deny contains "attributes: one is missing, mistyped or outside its domain" if not well_formed

deny contains "simple integrity: the object is less trustworthy than the subject (no read down)" if {
	well_formed
	attributes.access == "read"
	rank[attributes.object_integrity] < rank[attributes.subject_integrity]
}

deny contains "integrity *-property: the object is more trustworthy than the subject (no write up)" if {
	well_formed
	attributes.access == "write"
	rank[attributes.object_integrity] > rank[attributes.subject_integrity]
}

deny contains "invocation: the invoked subject is more trustworthy than the caller" if {
	well_formed
	attributes.access == "invoke"
	rank[attributes.object_integrity] > rank[attributes.subject_integrity]
}

deny contains "lineage: the trust score does not carry the integrity of what would be modified" if {
	well_formed
	attributes.access in modifying
	input.trust_score < trust_floor[attributes.object_integrity]
}

reasons := deny

allow if {
	well_formed
	count(deny) == 0
}
