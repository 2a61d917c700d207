/* gate_decide.h: one decision: session state, policy, drift, invariants, permit; the first that objects decides.
 *
 * Pure apart from asking the limiter: nothing is recorded, so that a caller can commit what was decided, or not. Allocates
 * nothing once its scratch is large enough for the set.
 */
#ifndef KEST_GATE_DECIDE_H
#define KEST_GATE_DECIDE_H

#include "gate_set.h"

typedef enum kest_gate_verdict { KEST_PERMIT, KEST_REFUSE, KEST_INVALIDATE } kest_gate_verdict;

typedef enum kest_gate_reason {
    KEST_WHY_PERMITTED,
    KEST_WHY_REVOKED,         /* number: kest_gate_target */
    KEST_WHY_SESSIONS_FULL,
    KEST_WHY_NO_POLICY,
    KEST_WHY_POLICY,          /* policy */
    KEST_WHY_RATE,            /* policy; item: the limit */
    KEST_WHY_RATE_BACKEND,
    KEST_WHY_IP,              /* strict mode */
    KEST_WHY_IP_FAR,          /* number: kilometres */
    KEST_WHY_IP_UNVERIFIABLE,
    KEST_WHY_AGE,             /* number: seconds */
    KEST_WHY_AGE_FUTURE,      /* number: seconds ahead */
    KEST_WHY_DEVICE,
    KEST_WHY_BEHAVIOUR,       /* number: actions a minute */
    KEST_WHY_WARNINGS,        /* number: how many */
    KEST_WHY_INVARIANT,       /* item: the invariant */
    KEST_WHY_SESSION_CAP,
    KEST_WHY_COUNT
} kest_gate_reason;

typedef struct kest_gate_invariant {
    kest_str field;
    double least, most; /* -HUGE_VAL, HUGE_VAL: no bound */
    kest_gate_pattern_mode mode;
    kest_str action; /* for which actions it holds */
} kest_gate_invariant;

typedef struct kest_gate_rules {
    const kest_gate_invariant *invariants;
    size_t ninvariants;
    bool drift;
    double max_km; /* negative: strict */
    bool capped;
    uint64_t max_actions; /* of a session, this one included */
} kest_gate_rules;

enum {
    KEST_GATE_AGE_WARNS = 10800, KEST_GATE_AGE_MAX = 14400,  /* seconds */
    KEST_GATE_RATE_WARNS = 30, KEST_GATE_RATE_MAX = 100,     /* actions a minute */
    KEST_GATE_WARNINGS = 3,                                  /* together they refuse */
    KEST_GATE_CLOCK_LEEWAY = 60                              /* seconds that a session may seem to lie ahead */
};

/* Memory that evaluations use again and again; one evaluation at a time. */
typedef struct kest_gate_scratch {
    uint64_t *words;
    size_t nwords;
    uint32_t *limits; /* that the last evaluation consulted and that its call counts against */
    size_t nlimits, limits_room;
} kest_gate_scratch;

typedef struct kest_gate_case kest_gate_case;
/* Whether the limit has room for the call: TRUE, FALSE, or UNKNOWN when the answer could not be had. */
typedef kest_tri (*kest_gate_limiter)(void *self, const kest_gate_case *c, uint32_t limit);

struct kest_gate_case {
    const kest_gate_set *set;
    const kest_gate_rules *rules;
    const kest_gate_context *ctx;
    const kest_gate_session *session;
    kest_gate_time now;
    kest_gate_limiter limiter;
    void *limiter_self;
    kest_gate_scratch *scratch;
    bool age_known;  /* worked out by kest_gate_prepare */
    int64_t age_s;   /* of the session */
    uint64_t actions; /* of the session, before this one */
};

typedef struct kest_gate_outcome {
    kest_gate_verdict verdict;
    kest_gate_reason why;
    uint32_t policy; /* that decided; UINT32_MAX: none */
    uint32_t item;
    double number;
} kest_gate_outcome;

void kest_gate_scratch_free(kest_gate_scratch *scratch);
/* Room for what evaluations of the set need, and no limits consulted yet. kest_gate_decide does this itself. */
kest_status kest_gate_make_room(kest_gate_scratch *scratch, const kest_gate_set *set);
void kest_gate_prepare(kest_gate_case *c); /* before the two below */
kest_status kest_gate_decide(kest_gate_case *c, kest_gate_outcome *out);
/* One condition by itself, for explanations and tests. */
kest_tri kest_gate_test(const kest_gate_case *c, uint32_t node);

/* gate_drift.c: false when drift decides, with *out filled in. */
bool kest_gate_no_drift(const kest_gate_case *c, kest_gate_outcome *out);
#endif
