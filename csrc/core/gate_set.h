/* gate_set.h: policies compiled into flat, immutable arrays.
 *
 * A builder takes policies in the order in which they are asked, each as its conditions in preorder; what it makes is never
 * changed, so that any number of readers may use it. Validation is the caller's: the builder checks only what memory safety needs.
 */
#ifndef KEST_GATE_SET_H
#define KEST_GATE_SET_H

#include "arena.h"
#include "gate_text.h"

typedef enum kest_gate_op {
    KEST_OP_ALL, KEST_OP_ANY, KEST_OP_NOT,
    KEST_OP_KIND, KEST_OP_ROLE, KEST_OP_ID, KEST_OP_ACTION, KEST_OP_RESOURCE,
    KEST_OP_MAX, KEST_OP_MIN, KEST_OP_IN, KEST_OP_MATCHES,
    KEST_OP_RATE, KEST_OP_AGE, KEST_OP_TIME,
    KEST_OP_TRUST, KEST_OP_TAINT_PRESENT, KEST_OP_TAINT_ABSENT, KEST_OP_COUNTRY,
    KEST_OP_COUNT
} kest_gate_op;

/* One condition; which members count depends on op. */
typedef struct kest_gate_node {
    uint8_t op, mode;         /* mode: of a pattern; for RATE, whether refused calls count too; for IN, which bools (1 false, 2 true) */
    uint32_t size;            /* nodes of this subtree, itself included */
    uint32_t ref;             /* KIND: the kind; parameters: the field; RATE: the limit; TIME: the zone */
    uint32_t ntexts, nnumbers;
    kest_str text;            /* ROLE, ID, TAINT; without its star: ACTION, RESOURCE, MATCHES */
    double number;            /* MAX, MIN */
    int64_t integer, until;   /* AGE: seconds; TRUST: the least; TIME: seconds of the day from, until; RATE: most, window in ns */
    const kest_str *texts;    /* IN, COUNTRY: ascending */
    const double *numbers;    /* IN: ascending, no negative zero */
} kest_gate_node;

typedef struct kest_gate_policy {
    kest_str name;
    bool permit;
    uint32_t first, count; /* nodes; all of the topmost must hold */
    uint8_t key[KEST_GATE_KEY_LEN]; /* kest_gate_name of the name */
} kest_gate_policy;

typedef struct kest_gate_limit {
    uint32_t policy, most;
    int64_t window_ns;
    bool count_refused;
} kest_gate_limit;

/* Offsets from UTC: offsets[i] holds from starts[i] until starts[i + 1], the last one until the end of starts. */
typedef struct kest_gate_zone {
    const int64_t *starts;  /* count Unix seconds, ascending */
    const int32_t *offsets; /* count - 1 seconds east */
    size_t count;
} kest_gate_zone;

typedef struct kest_gate_index kest_gate_index;

typedef struct kest_gate_set {
    kest_gate_policy *policies;
    kest_gate_node *nodes;
    kest_str *fields;
    kest_gate_limit *limits;
    kest_gate_zone *zones;
    size_t npolicies, nnodes, nfields, nlimits, nzones;
    size_t room[5]; /* of the five, while building */
    bool sealed;
    kest_arena *arena; /* texts and numbers */
    kest_gate_index *index; /* NULL: too few policies to need one */
} kest_gate_set;

kest_status kest_gate_set_new(kest_gate_set **out);
void kest_gate_set_free(kest_gate_set *set);
/* Everything given is copied. After a failure the set is only good for kest_gate_set_free. */
kest_status kest_gate_set_zone(kest_gate_set *set, const int64_t *starts, const int32_t *offsets, size_t count);
kest_status kest_gate_set_policy(kest_gate_set *set, kest_str name, bool permit);
/* Adds a node to the policy begun last. For parameters `field` is the name that ref will stand for. KEST_E_SCHEMA when it does
 * not fit: an unknown op, a subtree that exceeds its parent, a zone that is not there. */
kest_status kest_gate_set_node(kest_gate_set *set, const kest_gate_node *node, kest_str field);
/* Checks the shape of every tree and builds the index; nothing can be added any more. */
kest_status kest_gate_set_seal(kest_gate_set *set);

#endif
