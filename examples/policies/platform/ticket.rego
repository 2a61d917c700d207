# Platform tier: whatever runs, runs for a ticket.
package platform.ticket

import rego.v1

default allow := false

allow if regex.match(`^PEN-[0-9]+$`, input.task)
