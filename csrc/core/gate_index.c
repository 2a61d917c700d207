#include "gate_index_parts.h"

/* What is left of a set, and where the next, narrower one is made. */
typedef struct narrowing {
    uint64_t *now, *next;
    size_t nwords;
} narrowing;

static void start(narrowing *n, const uint64_t *keep)
{
    for (size_t i = 0; i < n->nwords; i++)
        n->next[i] = n->now[i] & keep[i];
}

static void finish(narrowing *n)
{
    uint64_t *narrower = n->next;

    n->next = n->now;
    n->now = narrower;
}

static void keep_one(narrowing *n, uint32_t policy)
{
    if (has_bit(n->now, policy))
        set_bit(n->next, policy);
}

static void keep_posting(narrowing *n, const posting *p)
{
    if (p->bits) {
        for (size_t i = 0; i < n->nwords; i++)
            n->next[i] |= n->now[i] & p->bits[i];
    } else {
        for (uint32_t i = 0; i < p->count; i++)
            keep_one(n, p->items[i]);
    }
}

static void keep_name(narrowing *n, const names *dim, kest_str name)
{
    uint64_t hash = HASH_START;
    size_t done = 0;

    for (size_t i = 0; i < dim->nlengths && dim->lengths[i] <= name.len; i++) {
        hash = hash_more(hash, name.data + done, dim->lengths[i] - done);
        done = dim->lengths[i];
        keep_posting(n, find_posting(dim->prefixes, dim->prefix_mask, hash, (kest_str){name.data, done}));
    }
    hash = hash_more(hash, name.data + done, name.len - done);
    keep_posting(n, find_posting(dim->exact, dim->exact_mask, hash, name));
}

static void narrow_by_name(narrowing *n, const names *dim, const kest_gate_context *ctx)
{
    if (dim->op == KEST_OP_RESOURCE && !ctx->has_resource) {
        start(n, dim->unknown);
    } else {
        start(n, dim->any);
        if (dim->op == KEST_OP_ROLE)
            for (size_t i = 0; i < ctx->nroles; i++)
                keep_name(n, dim, ctx->roles[i]);
        else
            keep_name(n, dim, dim->op == KEST_OP_ID ? ctx->principal : dim->op == KEST_OP_ACTION ? ctx->action : ctx->resource);
    }
    finish(n);
}

static void narrow_by_bound(narrowing *n, const bounds *b, const kest_gate_value *value)
{
    size_t lo = 0, hi = b->count, step;
    double at;

    if (!value || value->kind != KEST_VALUE_NUMBER) {
        start(n, b->unknown);
        finish(n);
        return;
    }
    at = b->op == KEST_OP_MAX ? value->hi : -value->lo;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;

        if (b->bound[mid] < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    step = (lo + b->step - 1) / b->step;
    start(n, b->from + step * n->nwords);
    for (size_t i = lo; i < step * b->step && i < b->count; i++)
        keep_one(n, b->policy[i]);
    finish(n);
}

static void keep_value(narrowing *n, const posting *slots, size_t mask, kest_str name)
{
    keep_posting(n, find_posting((posting *)slots, mask, hash_more(HASH_START, name.data, name.len), name));
}

static void narrow_by_value(narrowing *n, const values *v, const kest_gate_value *value)
{
    if (value && (value->kind == KEST_VALUE_LIST || value->kind == KEST_VALUE_BOOL))
        return; /* asked one by one */
    if (value && value->kind == KEST_VALUE_TEXT) {
        start(n, v->any_text);
        keep_value(n, v->texts, v->text_mask, value->text);
    } else if (value && value->kind == KEST_VALUE_NUMBER) {
        const double number = value->lo + 0.0; /* of two zeros the positive one, as policies have it */

        start(n, v->any_number);
        if (value->lo == value->hi)
            keep_value(n, v->numbers, v->number_mask, (kest_str){(const uint8_t *)&number, sizeof number});
    } else {
        start(n, v->unknown);
    }
    finish(n);
}

void kest_gate_index_begin(const kest_gate_set *set, const kest_gate_context *ctx, uint64_t *scratch, kest_gate_candidates *out)
{
    const kest_gate_index *index = set->index;
    narrowing n;

    *out = (kest_gate_candidates){.count = (uint32_t)set->npolicies};
    if (!index)
        return;
    n = (narrowing){scratch, scratch + index->nwords, index->nwords};
    memcpy(n.now, index->kinds[ctx->kind], n.nwords * sizeof *n.now);
    for (size_t i = 0; i < NAMES; i++)
        if (index->names[i].used)
            narrow_by_name(&n, &index->names[i], ctx);
    for (size_t i = 0; i < index->nbounds; i++)
        narrow_by_bound(&n, &index->bounds[i], kest_gate_find_param(ctx, set->fields[index->bounds[i].field]));
    for (size_t i = 0; i < index->nvalues; i++)
        narrow_by_value(&n, &index->values[i], kest_gate_find_param(ctx, set->fields[index->values[i].field]));
    out->words = n.now;
    out->nwords = n.nwords;
    out->left = n.now[0];
}

uint32_t kest_gate_index_next(kest_gate_candidates *c)
{
    if (!c->words)
        return c->next < c->count ? c->next++ : UINT32_MAX;
    while (!c->left) {
        if (++c->word >= c->nwords)
            return UINT32_MAX;
        c->left = c->words[c->word];
    }
    c->next = (uint32_t)(c->word * 64) + (uint32_t)__builtin_ctzll(c->left);
    c->left &= c->left - 1;
    return c->next;
}
