# Enterprise tier: only workloads of our own trust domain act at all.
package org.own_workloads

import rego.v1

default allow := false

allow if startswith(input.subject.workload, "spiffe://penguins.example/")
