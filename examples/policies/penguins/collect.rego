# Data may come in from anywhere, as long as it is marked as unchecked. Advice may come from a model, marked likewise.
package penguins.collect

import rego.v1

default allow := false

allow if {
	input.source_type in {"third_party_api", "user_input"}
	"unchecked" in input.taints
}

allow if {
	input.source_type == "llm"
	"model-output" in input.taints
}
