# Bell-LaPadula: confidentiality, "no read up, no write down".
#
# D. E. Bell and L. J. LaPadula, Secure Computer Systems: Mathematical Foundations, MTR-2547 vol. I, MITRE, 1973; the
# three properties in the form of Unified Exposition and Multics Interpretation, MTR-2997, 1976.
#
# A security level is a classification and a set of categories; level A dominates level B when A's classification is at
# least B's and A's categories include B's. The state is (b, M, f): current accesses, access matrix and levels. A call
# asks for one access to be added to b; it is allowed only when the three properties hold afterwards.
package kest.policies.bell_lapadula

import rego.v1

default allow := false

attributes := input.object.attributes

rank := {"unclassified": 0, "confidential": 1, "secret": 2, "top_secret": 3}

# Which accesses let information flow to the subject, and which let it flow to the object.
observing := {"read", "write"}

altering := {"append", "write"}

accesses := {"read", "append", "write", "execute"}

strings(list) if {
	is_array(list)
	every item in list {
		is_string(item)
	}
}

well_formed if {
	attributes.access in accesses
	is_number(rank[attributes.clearance])
	is_number(rank[attributes.current_level])
	is_number(rank[attributes.classification])
	strings(attributes.clearance_categories)
	strings(attributes.current_categories)
	strings(attributes.categories)
	strings(attributes.permitted_accesses)
}

dominates(level, categories, other_level, other_categories) if {
	rank[level] >= rank[other_level]
	every category in other_categories {
		category in categories
	}
}

clearance_dominates_object if {
	dominates(
		attributes.clearance, attributes.clearance_categories,
		attributes.classification, attributes.categories,
	)
}

clearance_dominates_current if {
	dominates(
		attributes.clearance, attributes.clearance_categories,
		attributes.current_level, attributes.current_categories,
	)
}

current_dominates_object if {
	dominates(
		attributes.current_level, attributes.current_categories,
		attributes.classification, attributes.categories,
	)
}

object_dominates_current if {
	dominates(
		attributes.classification, attributes.categories,
		attributes.current_level, attributes.current_categories,
	)
}

deny contains "attributes: one is missing, mistyped or outside its domain" if not well_formed

deny contains "level: the current level exceeds the subject's clearance" if {
	well_formed
	not clearance_dominates_current
}

deny contains "ss-property: the clearance does not dominate the object (no read up)" if {
	well_formed
	attributes.access in observing
	not clearance_dominates_object
}

deny contains "*-property: the current level does not dominate the object that would be observed" if {
	well_formed
	attributes.access in observing
	not current_dominates_object
}

deny contains "*-property: the object that would be altered does not dominate the current level (no write down)" if {
	well_formed
	attributes.access in altering
	not object_dominates_current
}

deny contains "ds-property: the access matrix does not grant this access" if {
	well_formed
	not attributes.access in attributes.permitted_accesses
}

reasons := deny

allow if {
	well_formed
	count(deny) == 0
}
