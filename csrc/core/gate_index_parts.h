/* gate_index_parts.h: what the two halves of the index share: making it (gate_index_build.c) and asking it (gate_index.c). */
#ifndef KEST_GATE_INDEX_PARTS_H
#define KEST_GATE_INDEX_PARTS_H

#include "gate_index.h"

#include <string.h>

enum {
    FEW = 8,         /* policies that need no index */
    NAMES = 4,       /* dimensions of names: role, id, action, resource */
    BOUNDS = 4,      /* dimensions of numeric bounds at most */
    VALUES = 4,      /* dimensions of parameters with listed values at most */
    WORTH = 16,      /* policies that make one of the latter two worth having */
    STEP_MIN = 32, STEPS = 256,
    FIRST_CHUNK = 16384
};

/* Policies under one name: bits when they are many, numbers when they are few. */
typedef struct posting {
    uint64_t hash;
    kest_str name;
    const uint64_t *bits;
    const uint32_t *items;
    uint32_t count; /* 0: a free slot */
} posting;

typedef struct names {
    uint8_t op;
    bool used;
    uint64_t *any;     /* policies without a condition in this dimension */
    uint64_t *unknown; /* those, and refusals with one: what an unknown value leaves */
    posting *exact, *prefixes;
    size_t exact_mask, prefix_mask;
    uint32_t *lengths; /* of prefixes, ascending */
    size_t nlengths;
} names;

/* Conditions `value <= bound` (or, both sides negated, `value >= bound`), by bound. */
typedef struct bounds {
    uint8_t op;
    uint32_t field;
    double *bound;     /* ascending */
    uint32_t *policy;
    size_t count, step;
    uint64_t *from;    /* for each step: the unconstrained, and all policies from there on */
    uint64_t *unknown;
} bounds;

/* Conditions that list the values of a parameter. */
typedef struct values {
    uint32_t field;
    uint64_t *any_text, *any_number; /* what a text, or a number, that nobody lists leaves */
    uint64_t *unknown;
    posting *texts, *numbers;        /* numbers under the bytes of their double */
    size_t text_mask, number_mask;
} values;

struct kest_gate_index {
    kest_arena *arena;
    size_t nwords;
    uint64_t *kinds[KEST_GATE_KINDS];
    names names[NAMES];
    bounds bounds[BOUNDS];
    values values[VALUES];
    size_t nbounds, nvalues;
};

static inline void set_bit(uint64_t *words, uint32_t i)
{
    words[i / 64] |= UINT64_C(1) << (i % 64);
}

static inline void clear_bit(uint64_t *words, uint32_t i)
{
    words[i / 64] &= ~(UINT64_C(1) << (i % 64));
}

static inline bool has_bit(const uint64_t *words, uint32_t i)
{
    return words[i / 64] >> (i % 64) & 1;
}

/* FNV-1a. Who chooses policies is trusted; what is looked up cannot lengthen any chain. */
static inline uint64_t hash_more(uint64_t hash, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    return hash;
}
#define HASH_START UINT64_C(0xcbf29ce484222325)

static inline size_t spread(uint64_t hash)
{
    return (size_t)(hash ^ hash >> 29);
}

static inline posting *find_posting(posting *slots, size_t mask, uint64_t hash, kest_str name)
{
    size_t i = spread(hash) & mask;

    while (slots[i].count && (slots[i].hash != hash || kest_str_compare(slots[i].name, name) != 0))
        i = (i + 1) & mask;
    return &slots[i];
}

#endif
