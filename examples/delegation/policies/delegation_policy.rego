# kest-agent: a person, known by a verified token, hands over a task. What comes from the internet is worth 10, no more.
package delegation_policy

import rego.v1

default allow := false

allow if {
	is_string(input.user)
	input.is_root
	input.source_type == "internet"
	input.trust_score <= 10
	"delegate" in input.object.attributes.scopes
}
