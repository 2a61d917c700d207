# Goguen-Meseguer: noninterference.
#
# J. A. Goguen and J. Meseguer, Security Policies and Security Models, IEEE Symposium on Security and Privacy, 1982.
#
# One group of users is noninterfering with another when what the first does has no effect on what the second can see.
# The policy is a relation "may interfere with" over security domains. A call acts for a domain and has an effect that an
# observer can see; it is allowed only when that domain, and every domain that has influenced this flow of control
# before (they travel as taints), may interfere with the observer.
package kest.policies.goguen_meseguer

import rego.v1

default allow := false

attributes := input.object.attributes

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

# A domain always interferes with itself, so a row of the relation that omits its observer is a mistake.
well_formed if {
	name(attributes.domain)
	name(attributes.observer)
	strings(attributes.may_interfere)
	attributes.observer in attributes.may_interfere
	strings(input.taints)
}

deny contains "attributes: one is missing, mistyped, or the relation is not reflexive" if not well_formed

deny contains "noninterference: the domain may not interfere with the observer" if {
	well_formed
	not attributes.domain in attributes.may_interfere
}

deny contains "noninterference: this flow was influenced by a domain that may not interfere with the observer" if {
	well_formed
	some taint in input.taints
	not taint in attributes.may_interfere
}

reasons := deny

allow if {
	well_formed
	count(deny) == 0
}
