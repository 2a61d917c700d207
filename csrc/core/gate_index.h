/* gate_index.h: which policies can apply at all, without asking each.
 *
 * For each of some dimensions (kind, role, id, action, resource, numeric bounds of the busiest parameters) the index knows the
 * policies that a value does not rule out, as sets of bits; their intersection is asked in order. It only filters: a policy that
 * it leaves out is one of which a topmost condition fails; one that it lets through is still asked in full.
 */
#ifndef KEST_GATE_INDEX_H
#define KEST_GATE_INDEX_H

#include "gate_set.h"

typedef struct kest_gate_candidates {
    const uint64_t *words; /* NULL: all of them */
    size_t word, nwords;
    uint64_t left; /* of words[word] */
    uint32_t next, count;
} kest_gate_candidates;

/* *out is NULL when there are so few policies that asking each is quicker. */
kest_status kest_gate_index_new(const kest_gate_set *set, kest_gate_index **out);
void kest_gate_index_free(kest_gate_index *index);
size_t kest_gate_index_words(const kest_gate_index *index); /* of scratch that begin needs */
void kest_gate_index_begin(const kest_gate_set *set, const kest_gate_context *ctx, uint64_t *scratch, kest_gate_candidates *out);
/* The next policy in order, UINT32_MAX when there is none left. */
uint32_t kest_gate_index_next(kest_gate_candidates *candidates);

#endif
