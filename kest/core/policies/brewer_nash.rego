# Brewer-Nash: the Chinese Wall.
#
# D. F. C. Brewer and M. J. Nash, The Chinese Wall Security Policy, IEEE Symposium on Security and Privacy, 1989.
#
# Objects belong to a company's dataset, datasets to a conflict-of-interest class. A subject may access an object when it
# has already accessed that dataset, or nothing yet in the dataset's class, or when the object is sanitised (simple
# security). It may write only when, besides, everything unsanitised that it has accessed lies in the dataset written to
# (*-property); sanitised information forms a dataset of its own.
package kest.policies.brewer_nash

import rego.v1

default allow := false

attributes := input.object.attributes

accesses := {"read", "write"}

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

well_formed if {
	attributes.access in accesses
	name(attributes.dataset)
	name(attributes.conflict_class)
	is_boolean(attributes.sanitized)
	strings(attributes.accessed_datasets)
	strings(attributes.accessed_classes)
	history_consistent
}

# A history that names the dataset without its class would open the wall to the dataset's competitors.
history_consistent if attributes.conflict_class in attributes.accessed_classes

history_consistent if not attributes.dataset in attributes.accessed_datasets

may_access if attributes.sanitized == true

may_access if attributes.dataset in attributes.accessed_datasets

may_access if not attributes.conflict_class in attributes.accessed_classes

nothing_else_accessed if {
	attributes.sanitized == false
	every held in attributes.accessed_datasets {
		held == attributes.dataset
	}
}

nothing_else_accessed if {
	attributes.sanitized == true
	count(attributes.accessed_datasets) == 0
}

deny contains "attributes: one is missing, mistyped, outside its domain, or the history contradicts itself" if {
	not well_formed
}

deny contains "simple security: the subject is on the other side of the wall in this conflict-of-interest class" if {
	well_formed
	not may_access
}

deny contains "*-property: the subject holds unsanitised information of another dataset" if {
	well_formed
	attributes.access == "write"
	not nothing_else_accessed
}

reasons := deny

allow if {
	well_formed
	count(deny) == 0
}
