/* gate_index_build.c: makes the index of a policy set. */
#include "gate_index_parts.h"

#include <stdlib.h>

static void *take(kest_gate_index *index, size_t count, size_t item)
{
    size_t size;
    void *room;

    if (!kest_mul(count, item, &size) || !(room = kest_arena_take(&index->arena, FIRST_CHUNK, size)))
        return NULL;
    memset(room, 0, size);
    return room;
}

static uint64_t *take_words(kest_gate_index *index)
{
    return take(index, index->nwords, sizeof(uint64_t));
}

/* All policies. */
static uint64_t *take_full(kest_gate_index *index, const kest_gate_set *set)
{
    uint64_t *words = take_words(index);

    for (uint32_t i = 0; words && i < set->npolicies; i++)
        set_bit(words, i);
    return words;
}

/* ---- building: names ---- */

typedef struct rule {
    const kest_gate_node *node;
    kest_str name;
    uint32_t policy;
} rule;

static bool is_prefix(const kest_gate_node *node)
{
    return node->mode == KEST_PATTERN_PREFIX || node->mode == KEST_PATTERN_BEYOND;
}

/* By name, each in order of policies. */
static int compare_rules(const void *a, const void *b)
{
    const rule *x = a, *y = b;
    const int order = kest_str_compare(x->name, y->name);

    return order ? order : (x->policy > y->policy) - (x->policy < y->policy);
}

/* The same, exact ones first. */
static int compare_names(const void *a, const void *b)
{
    const rule *x = a, *y = b;

    if (is_prefix(x->node) != is_prefix(y->node))
        return is_prefix(x->node) ? 1 : -1;
    return compare_rules(a, b);
}

/* The first topmost condition of each policy that `wanted` accepts, as far as there is one. */
static size_t collect(const kest_gate_set *set, uint8_t op, uint32_t field, rule *out)
{
    size_t count = 0;

    for (uint32_t i = 0; i < set->npolicies; i++) {
        const uint32_t end = set->policies[i].first + set->policies[i].count;

        for (uint32_t at = set->policies[i].first; at < end; at += set->nodes[at].size) {
            const kest_gate_node *node = &set->nodes[at];

            if (node->op == op && (field == UINT32_MAX ? node->mode != KEST_PATTERN_ALL : node->ref == field)) {
                out[count++] = (rule){node, node->text, i};
                break;
            }
        }
    }
    return count;
}

static bool add_posting(kest_gate_index *index, posting *slots, size_t mask, const rule *rules, size_t count)
{
    const kest_str name = rules[0].name;
    const uint64_t hash = hash_more(HASH_START, name.data, name.len);
    posting *slot = find_posting(slots, mask, hash, name);
    uint64_t *bits = NULL;
    uint32_t *items = NULL;

    if (count > 4 * index->nwords ? !(bits = take_words(index)) : !(items = take(index, count, sizeof *items)))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (bits)
            set_bit(bits, rules[i].policy);
        else
            items[i] = rules[i].policy;
    }
    *slot = (posting){hash, name, bits, items, (uint32_t)count};
    return true;
}

static bool add_postings(kest_gate_index *index, const rule *rules, size_t count, posting **out, size_t *mask)
{
    size_t slots = 4, group;

    while (slots < 2 * count)
        slots *= 2;
    *mask = slots - 1;
    if (!(*out = take(index, slots, sizeof **out)))
        return false;
    for (size_t i = 0; i < count; i += group) {
        for (group = 1; i + group < count && kest_str_compare(rules[i].name, rules[i + group].name) == 0;)
            group++;
        if (!add_posting(index, *out, *mask, rules + i, group))
            return false;
    }
    return true;
}

static int compare_lengths(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static bool add_lengths(kest_gate_index *index, names *dim, const rule *rules, size_t count)
{
    size_t unique = 0;

    if (!(dim->lengths = take(index, count, sizeof *dim->lengths)))
        return false;
    for (size_t i = 0; i < count; i++)
        dim->lengths[i] = (uint32_t)rules[i].node->text.len;
    qsort(dim->lengths, count, sizeof *dim->lengths, compare_lengths);
    for (size_t i = 0; i < count; i++)
        if (!unique || dim->lengths[unique - 1] != dim->lengths[i])
            dim->lengths[unique++] = dim->lengths[i];
    dim->nlengths = unique;
    return true;
}

static bool build_names(kest_gate_index *index, const kest_gate_set *set, names *dim, uint8_t op, rule *rules)
{
    const size_t count = collect(set, op, UINT32_MAX, rules);
    size_t exact = 0;

    dim->op = op;
    dim->used = count > 0;
    if (!count)
        return true;
    qsort(rules, count, sizeof *rules, compare_names);
    while (exact < count && !is_prefix(rules[exact].node))
        exact++;
    if (!(dim->any = take_full(index, set)) || !(dim->unknown = take_full(index, set)))
        return false;
    for (size_t i = 0; i < count; i++) {
        clear_bit(dim->any, rules[i].policy);
        if (set->policies[rules[i].policy].permit)
            clear_bit(dim->unknown, rules[i].policy);
    }
    return add_postings(index, rules, exact, &dim->exact, &dim->exact_mask) &&
           add_postings(index, rules + exact, count - exact, &dim->prefixes, &dim->prefix_mask) &&
           add_lengths(index, dim, rules + exact, count - exact);
}

static bool build_kinds(kest_gate_index *index, const kest_gate_set *set, rule *rules)
{
    const size_t count = collect(set, KEST_OP_KIND, UINT32_MAX, rules);

    for (uint32_t kind = 0; kind < KEST_GATE_KINDS; kind++) {
        if (!(index->kinds[kind] = take_full(index, set)))
            return false;
        for (size_t i = 0; i < count; i++)
            if (rules[i].node->ref != kind)
                clear_bit(index->kinds[kind], rules[i].policy);
    }
    return true;
}

/* ---- building: bounds ---- */

static double oriented(const kest_gate_node *node)
{
    return node->op == KEST_OP_MAX ? node->number : -node->number;
}

static int compare_bounds(const void *a, const void *b)
{
    const rule *x = a, *y = b;
    const double p = oriented(x->node), q = oriented(y->node);

    return p != q ? (p > q) - (p < q) : (x->policy > y->policy) - (x->policy < y->policy);
}

static bool build_bounds(kest_gate_index *index, const kest_gate_set *set, uint8_t op, uint32_t field, rule *rules)
{
    const size_t count = collect(set, op, field, rules);
    bounds *b = &index->bounds[index->nbounds];
    uint64_t *words;
    size_t steps;

    if (count < WORTH || index->nbounds == BOUNDS)
        return true;
    qsort(rules, count, sizeof *rules, compare_bounds);
    b->op = op;
    b->field = field;
    b->count = count;
    b->step = count / STEPS > STEP_MIN ? count / STEPS : STEP_MIN;
    steps = count / b->step + 1; /* the last of them may have less than a step behind it */
    if (!(b->bound = take(index, count, sizeof *b->bound)) || !(b->policy = take(index, count, sizeof *b->policy)) ||
        !(b->from = take(index, (steps + 1) * index->nwords, sizeof *b->from)) || !(b->unknown = take_full(index, set)))
        return false;
    words = b->from + steps * index->nwords; /* beyond the last one: the unconstrained only */
    for (uint32_t i = 0; i < set->npolicies; i++)
        set_bit(words, i);
    for (size_t i = 0; i < count; i++) {
        b->bound[i] = oriented(rules[i].node);
        b->policy[i] = rules[i].policy;
        clear_bit(words, rules[i].policy);
        if (set->policies[rules[i].policy].permit)
            clear_bit(b->unknown, rules[i].policy);
    }
    for (size_t step = steps; step-- > 0;) {
        words = b->from + step * index->nwords;
        memcpy(words, words + index->nwords, index->nwords * sizeof *words);
        for (size_t i = step * b->step; i < count && i < (step + 1) * b->step; i++)
            set_bit(words, b->policy[i]);
    }
    index->nbounds++;
    return true;
}

/* ---- building: listed values ---- */

/* One rule for each listed text, or number. */
static bool build_listed(kest_gate_index *index, const rule *rules, size_t count, bool texts, posting **out, size_t *mask)
{
    size_t total = 0, n = 0;
    rule *listed;
    bool ok;

    for (size_t i = 0; i < count; i++)
        total += texts ? rules[i].node->ntexts : rules[i].node->nnumbers;
    if (!(listed = kest_calloc(total ? total : 1, sizeof *listed)))
        return false;
    for (size_t i = 0; i < count; i++) {
        const kest_gate_node *node = rules[i].node;

        for (uint32_t k = 0; k < (texts ? node->ntexts : node->nnumbers); k++)
            listed[n++] = (rule){node, texts ? node->texts[k] : (kest_str){(const uint8_t *)&node->numbers[k], sizeof(double)},
                                 rules[i].policy};
    }
    qsort(listed, n, sizeof *listed, compare_rules); /* their mode says which of true and false is listed, and is no pattern */
    ok = add_postings(index, listed, n, out, mask);
    kest_free(listed);
    return ok;
}

static bool build_values(kest_gate_index *index, const kest_gate_set *set, uint32_t field, rule *rules)
{
    const size_t count = collect(set, KEST_OP_IN, field, rules);
    values *v = &index->values[index->nvalues];

    if (count < WORTH || index->nvalues == VALUES)
        return true;
    v->field = field;
    if (!(v->any_text = take_full(index, set)) || !(v->any_number = take_full(index, set)) || !(v->unknown = take_full(index, set)))
        return false;
    for (size_t i = 0; i < count; i++) {
        const bool permit = set->policies[rules[i].policy].permit;

        /* A refusal that lists no texts does not know what to make of one, and fires. */
        if (permit || rules[i].node->ntexts)
            clear_bit(v->any_text, rules[i].policy);
        if (permit || rules[i].node->nnumbers)
            clear_bit(v->any_number, rules[i].policy);
        if (permit)
            clear_bit(v->unknown, rules[i].policy);
    }
    index->nvalues++;
    return build_listed(index, rules, count, true, &v->texts, &v->text_mask) &&
           build_listed(index, rules, count, false, &v->numbers, &v->number_mask);
}

kest_status kest_gate_index_new(const kest_gate_set *set, kest_gate_index **out)
{
    static const uint8_t ops[NAMES] = {KEST_OP_ROLE, KEST_OP_ID, KEST_OP_ACTION, KEST_OP_RESOURCE};
    kest_gate_index *index;
    rule *rules;
    bool ok;

    *out = NULL;
    if (set->npolicies <= FEW)
        return KEST_OK;
    index = kest_calloc(1, sizeof *index);
    rules = kest_calloc(set->npolicies, sizeof *rules);
    ok = index && rules;
    if (ok) {
        index->nwords = (set->npolicies + 63) / 64;
        ok = build_kinds(index, set, rules);
    }
    for (size_t i = 0; ok && i < NAMES; i++)
        ok = build_names(index, set, &index->names[i], ops[i], rules);
    for (uint32_t field = 0; ok && field < set->nfields && field < 64; field++)
        ok = build_bounds(index, set, KEST_OP_MAX, field, rules) && build_bounds(index, set, KEST_OP_MIN, field, rules) &&
             build_values(index, set, field, rules);
    kest_free(rules);
    if (!ok) {
        kest_gate_index_free(index);
        return KEST_E_NOMEM;
    }
    *out = index;
    return KEST_OK;
}

void kest_gate_index_free(kest_gate_index *index)
{
    if (!index)
        return;
    kest_arena_free(index->arena);
    kest_free(index);
}

size_t kest_gate_index_words(const kest_gate_index *index)
{
    return index ? 2 * index->nwords : 0;
}
