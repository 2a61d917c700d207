# Clark-Wilson: commercial integrity by well-formed transactions and separation of duty.
#
# D. D. Clark and D. R. Wilson, A Comparison of Commercial and Military Computer Security Policies, IEEE Symposium on
# Security and Privacy, 1987. Rule names C1, C5, E1-E4 are the paper's. C2 and C3 are what whoever fills the attributes
# certifies; C4 (the journal) is Kest's signed lineage.
package kest.policies.clark_wilson

import rego.v1

default allow := false

attributes := input.object.attributes

user := input.subject.user

actions := {"execute", "certify"}

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
authenticated if name(user)

well_formed if {
	attributes.action in actions
	name(attributes.procedure)
	strings(attributes.items)
	attributes.items != []
	strings(attributes.certified_items)
	strings(attributes.authorized_users)
	strings(attributes.certifiers)
	strings(attributes.prior_users)
	is_boolean(attributes.items_verified)
	is_boolean(attributes.accepts_unconstrained)
	strings(input.taints)
}

items_certified if {
	every item in attributes.items {
		item in attributes.certified_items
	}
}

input_constrained if input.taints == []

input_constrained if attributes.accepts_unconstrained == true

deny contains "attributes: one is missing, mistyped or outside its domain" if not well_formed

deny contains "E3: no authenticated user" if not authenticated

deny contains "C1: no integrity verification procedure has confirmed the items" if {
	well_formed
	attributes.action == "execute"
	attributes.items_verified == false
}

deny contains "C5: the procedure is not certified for unconstrained (tainted) input" if {
	well_formed
	attributes.action == "execute"
	not input_constrained
}

deny contains "E1: the procedure is not certified for every item" if {
	well_formed
	attributes.action == "execute"
	not items_certified
}

deny contains "E2: the user may not run this procedure on these items" if {
	well_formed
	attributes.action == "execute"
	not user in attributes.authorized_users
}

deny contains "E4: who certifies a procedure may not run it" if {
	well_formed
	attributes.action == "execute"
	user in attributes.certifiers
}

deny contains "C3: the user has already performed another step of this transaction" if {
	well_formed
	attributes.action == "execute"
	user in attributes.prior_users
}

deny contains "E4: only a certifier of the procedure may change its relations" if {
	well_formed
	attributes.action == "certify"
	not user in attributes.certifiers
}

deny contains "E4: who may run a procedure may not certify it" if {
	well_formed
	attributes.action == "certify"
	user in attributes.authorized_users
}

reasons := deny

allow if {
	well_formed
	authenticated
	count(deny) == 0
}
