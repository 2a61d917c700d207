/* gate_limits.h: a gate's rate limits with counters in memory: the limiter of an evaluation, and what is counted after it. */
#ifndef KEST_GATE_LIMITS_H
#define KEST_GATE_LIMITS_H

#include "gate_decide.h"
#include "gate_rate.h"

/* Of one evaluation; zeroed but for `rates`. */
typedef struct kest_gate_local {
    kest_gate_rates *rates;
    bool failed; /* a limit could not be checked: no room for another key */
    bool named;
    uint8_t names[3][KEST_GATE_KEY_LEN]; /* principal, action, policy */
} kest_gate_local;

/* A kest_gate_limiter over a kest_gate_local. */
kest_tri kest_gate_limits_ask(void *self, const kest_gate_case *c, uint32_t limit);
/* Whether the call counts against the i-th limit that was consulted: a permitted one against each, a refused one where the
 * policy says so; once for each counter. */
bool kest_gate_limits_counts(const kest_gate_case *c, size_t i, bool permitted);
/* Whether what a permitted call counted there is given back when it is refused after all: not where refused calls count, too. */
bool kest_gate_limits_returns(const kest_gate_case *c, size_t i);
/* Counts the call against all limits that it counts against, or against none (false). */
bool kest_gate_limits_record(kest_gate_local *l, const kest_gate_case *c, bool permitted);
/* Takes one count of this limit back. */
void kest_gate_limits_undo(kest_gate_local *l, const kest_gate_case *c, uint32_t limit);

#endif
