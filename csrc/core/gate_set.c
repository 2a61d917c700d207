#include "gate_set.h"

#include "gate_index.h"

#include <string.h>

enum { POLICIES, NODES, FIELDS, LIMITS, ZONES, FIRST_CHUNK = 4096 };

kest_status kest_gate_set_new(kest_gate_set **out)
{
    *out = kest_calloc(1, sizeof **out);
    return *out ? KEST_OK : KEST_E_NOMEM;
}

void kest_gate_set_free(kest_gate_set *set)
{
    if (!set)
        return;
    kest_gate_index_free(set->index);
    kest_free(set->policies);
    kest_free(set->nodes);
    kest_free(set->fields);
    kest_free(set->limits);
    kest_free(set->zones);
    kest_arena_free(set->arena);
    kest_free(set);
}

/* Room for one more item in a list of the set. */
static bool room_for_one(kest_gate_set *set, int which, void *list, size_t count, size_t item)
{
    size_t more = set->room[which] ? set->room[which] * 2 : 16, size;
    void *moved;

    if (count < set->room[which])
        return true;
    if (count >= UINT32_MAX / 2 || !kest_mul(more, item, &size) || !(moved = kest_realloc(*(void **)list, size)))
        return false;
    *(void **)list = moved;
    set->room[which] = more;
    return true;
}

static void *keep(kest_gate_set *set, const void *data, size_t count, size_t item)
{
    size_t size;
    void *copy;

    if (!kest_mul(count, item, &size) || !(copy = kest_arena_take(&set->arena, FIRST_CHUNK, size)))
        return NULL;
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static bool keep_text(kest_gate_set *set, kest_str *text)
{
    const uint8_t *copy = keep(set, text->data, text->len, 1);

    text->data = copy;
    return copy != NULL;
}

kest_status kest_gate_set_zone(kest_gate_set *set, const int64_t *starts, const int32_t *offsets, size_t count)
{
    kest_gate_zone zone = {.count = count};

    if (set->sealed || count < 2)
        return KEST_E_SCHEMA;
    for (size_t i = 1; i < count; i++)
        if (starts[i] <= starts[i - 1])
            return KEST_E_SCHEMA;
    if (!room_for_one(set, ZONES, &set->zones, set->nzones, sizeof zone) ||
        !(zone.starts = keep(set, starts, count, sizeof *starts)) ||
        !(zone.offsets = keep(set, offsets, count - 1, sizeof *offsets)))
        return KEST_E_NOMEM;
    set->zones[set->nzones++] = zone;
    return KEST_OK;
}

kest_status kest_gate_set_policy(kest_gate_set *set, kest_str name, bool permit)
{
    kest_gate_policy policy = {.name = name, .permit = permit, .first = (uint32_t)set->nnodes};

    if (set->sealed)
        return KEST_E_SCHEMA;
    if (!room_for_one(set, POLICIES, &set->policies, set->npolicies, sizeof policy) || !keep_text(set, &policy.name))
        return KEST_E_NOMEM;
    kest_gate_name(policy.name, policy.key);
    set->policies[set->npolicies++] = policy;
    return KEST_OK;
}

static kest_status intern_field(kest_gate_set *set, kest_str name, uint32_t *out)
{
    for (size_t i = 0; i < set->nfields; i++)
        if (kest_str_compare(set->fields[i], name) == 0) {
            *out = (uint32_t)i;
            return KEST_OK;
        }
    if (!room_for_one(set, FIELDS, &set->fields, set->nfields, sizeof name) || !keep_text(set, &name))
        return KEST_E_NOMEM;
    *out = (uint32_t)set->nfields;
    set->fields[set->nfields++] = name;
    return KEST_OK;
}

static kest_status add_limit(kest_gate_set *set, kest_gate_node *node)
{
    const kest_gate_limit limit = {(uint32_t)(set->npolicies - 1), (uint32_t)node->integer, node->until, node->mode != 0};

    if (node->integer < 0 || node->integer > UINT32_MAX || node->until <= 0)
        return KEST_E_SCHEMA;
    if (!room_for_one(set, LIMITS, &set->limits, set->nlimits, sizeof limit))
        return KEST_E_NOMEM;
    node->ref = (uint32_t)set->nlimits;
    set->limits[set->nlimits++] = limit;
    return KEST_OK;
}

static bool keep_lists(kest_gate_set *set, kest_gate_node *node)
{
    kest_str *texts = keep(set, node->texts, node->ntexts, sizeof *texts);
    const double *numbers = keep(set, node->numbers, node->nnumbers, sizeof *numbers);

    if (!texts || !numbers || !keep_text(set, &node->text))
        return false;
    for (uint32_t i = 0; i < node->ntexts; i++)
        if (!keep_text(set, &texts[i]))
            return false;
    node->texts = texts;
    node->numbers = numbers;
    return true;
}

kest_status kest_gate_set_node(kest_gate_set *set, const kest_gate_node *given, kest_str field)
{
    kest_gate_node node = *given;
    kest_status st = KEST_OK;

    if (set->sealed || !set->npolicies || node.op >= KEST_OP_COUNT || !node.size || node.mode > KEST_PATTERN_ALL ||
        (node.op > KEST_OP_NOT && node.size != 1) || (node.op == KEST_OP_TIME && node.ref >= set->nzones))
        return KEST_E_SCHEMA;
    if (node.op >= KEST_OP_MAX && node.op <= KEST_OP_MATCHES)
        st = intern_field(set, field, &node.ref);
    else if (node.op == KEST_OP_RATE)
        st = add_limit(set, &node);
    if (st != KEST_OK)
        return st;
    if (!room_for_one(set, NODES, &set->nodes, set->nnodes, sizeof node) || !keep_lists(set, &node))
        return KEST_E_NOMEM;
    set->nodes[set->nnodes++] = node;
    set->policies[set->npolicies - 1].count++;
    return KEST_OK;
}

/* Whether nodes[at, end) are whole subtrees, nested no deeper than allowed. */
static bool well_formed(const kest_gate_set *set, size_t at, size_t end, int depth)
{
    if (depth > KEST_GATE_MAX_NESTING)
        return false;
    while (at < end) {
        const kest_gate_node *node = &set->nodes[at];

        if (node->size > end - at || (node->op == KEST_OP_NOT && node->size < 2))
            return false;
        if (node->op == KEST_OP_NOT && set->nodes[at + 1].size != node->size - 1)
            return false;
        if (!well_formed(set, at + 1, at + node->size, depth + 1))
            return false;
        at += node->size;
    }
    return true;
}

kest_status kest_gate_set_seal(kest_gate_set *set)
{
    kest_status st;

    if (set->sealed)
        return KEST_E_SCHEMA;
    for (size_t i = 0; i < set->npolicies; i++) {
        const kest_gate_policy *p = &set->policies[i];

        if (!well_formed(set, p->first, (size_t)p->first + p->count, 0))
            return KEST_E_SCHEMA;
    }
    st = kest_gate_index_new(set, &set->index);
    set->sealed = st == KEST_OK;
    return st;
}
