# Financial: transaction limits and approval tiers.
#
# No single publication: limits, graded approval and dual control are what internal-control frameworks ask for; the
# separation of initiator and approvers follows Clark and Wilson 1987. Amounts are whole minor units (cents): binary
# fractions do not add up, and Cedar has none. The tiers below are the ones to edit.
package kest.policies.financial

import rego.v1

default allow := false

attributes := input.object.attributes

user := input.subject.user

# Up to this amount (inclusive) the named approvals suffice; above the last, all three are needed.
no_approval_limit := 100000

manager_limit := 1000000

director_limit := 10000000

trust_floor := 60

approval_trust_floor := 80

# The largest integer that every JSON implementation keeps exact.
largest := 9007199254740991

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

minor_units(value) if {
	is_number(value)
	value >= 0
	value <= largest
	floor(value) == value
}

# A rule of its own: in OPA the negated call of a function with a missing argument is undefined, not true.
authenticated if name(user)

well_formed if {
	minor_units(input.args.amount)
	input.args.amount > 0
	name(input.args.currency)
	name(attributes.currency)
	minor_units(attributes.limit)
	minor_units(attributes.period_limit)
	minor_units(attributes.period_total)
	strings(attributes.allowed_taints)
	strings(input.taints)
	minor_units(input.trust_score)
	input.trust_score <= 100
}

needs_manager if input.args.amount > no_approval_limit

needs_director if input.args.amount > manager_limit

needs_board if input.args.amount > director_limit

manager_approved if {
	name(attributes.approved_by_manager)
	attributes.approved_by_manager != user
}

director_approved if {
	name(attributes.approved_by_director)
	attributes.approved_by_director != user
	attributes.approved_by_director != attributes.approved_by_manager
}

board_approved if {
	name(attributes.approved_by_board)
	attributes.approved_by_board != user
	attributes.approved_by_board != attributes.approved_by_manager
	attributes.approved_by_board != attributes.approved_by_director
}

deny contains "attributes: one is missing, mistyped or outside its domain" if not well_formed

deny contains "initiator: no authenticated user" if not authenticated

deny contains "currency: not the currency that the limits are stated in" if {
	well_formed
	input.args.currency != attributes.currency
}

deny contains "limit: the amount exceeds the limit for one transaction" if {
	well_formed
	input.args.amount > attributes.limit
}

deny contains "limit: the amount exceeds what is left of the period's limit" if {
	well_formed
	attributes.period_total + input.args.amount > attributes.period_limit
}

deny contains "approval: a manager other than the initiator must approve" if {
	well_formed
	needs_manager
	not manager_approved
}

deny contains "approval: a director other than the initiator and the manager must approve" if {
	well_formed
	needs_director
	not director_approved
}

deny contains "approval: a board member other than the initiator, the manager and the director must approve" if {
	well_formed
	needs_board
	not board_approved
}

deny contains "lineage: the trust score is too low for a payment" if {
	well_formed
	input.trust_score < trust_floor
}

deny contains "lineage: the trust score is too low for a payment that needs approval" if {
	well_formed
	needs_manager
	input.trust_score < approval_trust_floor
}

deny contains "lineage: a taint is not among those allowed here" if {
	well_formed
	some taint in input.taints
	not taint in attributes.allowed_taints
}

reasons := deny

allow if {
	well_formed
	authenticated
	count(deny) == 0
}
