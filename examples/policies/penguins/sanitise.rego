# Only the curator may say that data has been checked.
package penguins.sanitise

import rego.v1

default allow := false

allow if input.subject.workload == "spiffe://penguins.example/curator"
