# Records are changed and combined by trusted flows only: never on a model's word.
package penguins.change

import rego.v1

default allow := false

allow if {
	input.trust_score >= 40
	not "model-output" in input.taints
}
