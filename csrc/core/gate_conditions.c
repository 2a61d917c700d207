/* gate_conditions.c: what each condition means. */
#include "gate_decide.h"

#define NS INT64_C(1000000000)
enum { DAY = 86400 };

static kest_tri tri(bool holds)
{
    return holds ? KEST_TRUE : KEST_FALSE;
}

static bool among(kest_str text, const kest_str *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (kest_gate_same(items[i], text))
            return true;
    return false;
}

/* ---- parameters ---- */

static kest_tri test_bound(const kest_gate_node *node, const kest_gate_value *value)
{
    if (!value || value->kind != KEST_VALUE_NUMBER)
        return KEST_UNKNOWN;
    return tri(node->op == KEST_OP_MAX ? value->hi <= node->number : value->lo >= node->number);
}

static bool number_among(double number, const double *items, uint32_t count)
{
    uint32_t lo = 0, hi = count;

    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;

        if (items[mid] < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < count && items[lo] == number;
}

/* A value that is no list: UNKNOWN when the condition is not about values of its type. */
static kest_tri test_scalar(const kest_gate_node *node, const kest_gate_value *value)
{
    if (node->op == KEST_OP_MATCHES)
        return value->kind == KEST_VALUE_TEXT ? tri(kest_gate_matches(node->mode, node->text, value->text)) : KEST_UNKNOWN;
    switch (value->kind) {
    case KEST_VALUE_TEXT:
        return node->ntexts ? tri(kest_taints_has(node->texts, node->ntexts, value->text)) : KEST_UNKNOWN;
    case KEST_VALUE_NUMBER:
        if (!node->nnumbers)
            return KEST_UNKNOWN;
        return tri(value->lo == value->hi && number_among(value->lo, node->numbers, node->nnumbers));
    case KEST_VALUE_BOOL: return node->mode ? tri((node->mode & (value->boolean ? 2 : 1)) != 0) : KEST_UNKNOWN;
    default: return KEST_UNKNOWN;
    }
}

/* A list: TRUE when all items are, FALSE when none is; mixed and empty lists are UNKNOWN, so that neither a permit nor the
 * absence of a refusal follows from some of the items. */
static kest_tri test_value(const kest_gate_node *node, const kest_gate_value *value)
{
    kest_tri all;

    if (!value)
        return KEST_UNKNOWN;
    if (value->kind != KEST_VALUE_LIST)
        return test_scalar(node, value);
    if (!value->nitems)
        return KEST_UNKNOWN;
    all = test_scalar(node, &value->items[0]);
    for (size_t i = 1; i < value->nitems; i++)
        if (test_scalar(node, &value->items[i]) != all)
            return KEST_UNKNOWN;
    return all;
}

/* ---- time ---- */

static kest_tri test_time(const kest_gate_case *c, const kest_gate_node *node)
{
    const kest_gate_zone *zone = &c->set->zones[node->ref];
    const int64_t wall = c->now.wall_ns / NS - (c->now.wall_ns % NS < 0);
    size_t lo = 0, hi = zone->count - 1;
    int64_t local, from = node->integer * NS, until = node->until * NS;

    if (wall < zone->starts[0] || wall >= zone->starts[zone->count - 1])
        return KEST_UNKNOWN; /* a clock that is centuries off */
    while (hi - lo > 1) {
        const size_t mid = lo + (hi - lo) / 2;

        if (zone->starts[mid] <= wall)
            lo = mid;
        else
            hi = mid;
    }
    local = (c->now.wall_ns + zone->offsets[lo] * NS) % (DAY * NS);
    if (local < 0)
        local += DAY * NS;
    return tri(from <= until ? from <= local && local <= until : local >= from || local <= until);
}

/* ---- the rest ---- */

static kest_tri test_taint(const kest_gate_case *c, const kest_gate_node *node)
{
    if (!c->ctx->has_taints)
        return KEST_UNKNOWN;
    return tri(among(node->text, c->ctx->taints, c->ctx->ntaints) == (node->op == KEST_OP_TAINT_PRESENT));
}

static kest_tri test_country(const kest_gate_case *c, const kest_gate_node *node)
{
    if (!c->ctx->geo.known)
        return KEST_UNKNOWN;
    return tri(kest_taints_has(node->texts, node->ntexts, (kest_str){c->ctx->geo.country, 2}));
}

static kest_tri test_limit(const kest_gate_case *c, const kest_gate_node *node)
{
    kest_gate_scratch *scratch = c->scratch;

    if (scratch->nlimits == scratch->limits_room) /* cannot happen: there is room for each limit of the set */
        return KEST_UNKNOWN;
    scratch->limits[scratch->nlimits++] = node->ref;
    return c->limiter(c->limiter_self, c, node->ref);
}

static kest_tri test_all(const kest_gate_case *c, uint32_t at, uint32_t end)
{
    kest_tri result = KEST_TRUE;

    while (at < end && result != KEST_FALSE) {
        const kest_tri one = kest_gate_test(c, at);

        if (one != KEST_TRUE)
            result = one;
        at += c->set->nodes[at].size;
    }
    return result;
}

static kest_tri test_any(const kest_gate_case *c, uint32_t at, uint32_t end)
{
    kest_tri result = KEST_FALSE;

    while (at < end && result != KEST_TRUE) {
        const kest_tri one = kest_gate_test(c, at);

        if (one != KEST_FALSE)
            result = one;
        at += c->set->nodes[at].size;
    }
    return result;
}

kest_tri kest_gate_test(const kest_gate_case *c, uint32_t at)
{
    const kest_gate_node *node = &c->set->nodes[at];
    const kest_gate_context *ctx = c->ctx;
    kest_tri inner;

    switch ((kest_gate_op)node->op) {
    case KEST_OP_ALL: return test_all(c, at + 1, at + node->size);
    case KEST_OP_ANY: return test_any(c, at + 1, at + node->size);
    case KEST_OP_NOT:
        inner = kest_gate_test(c, at + 1);
        return inner == KEST_UNKNOWN ? inner : tri(inner == KEST_FALSE);
    case KEST_OP_KIND: return tri(ctx->kind == node->ref);
    case KEST_OP_ROLE: return tri(among(node->text, ctx->roles, ctx->nroles));
    case KEST_OP_ID: return tri(kest_gate_same(node->text, ctx->principal));
    case KEST_OP_ACTION: return tri(kest_gate_matches(node->mode, node->text, ctx->action));
    case KEST_OP_RESOURCE:
        return ctx->has_resource ? tri(kest_gate_matches(node->mode, node->text, ctx->resource)) : KEST_UNKNOWN;
    case KEST_OP_MAX:
    case KEST_OP_MIN: return test_bound(node, kest_gate_find_param(ctx, c->set->fields[node->ref]));
    case KEST_OP_IN:
    case KEST_OP_MATCHES: return test_value(node, kest_gate_find_param(ctx, c->set->fields[node->ref]));
    case KEST_OP_RATE: return test_limit(c, node);
    case KEST_OP_AGE: return c->age_known ? tri(c->age_s <= node->integer) : KEST_UNKNOWN;
    case KEST_OP_TIME: return test_time(c, node);
    case KEST_OP_TRUST: return ctx->trust < 0 ? KEST_UNKNOWN : tri(ctx->trust >= node->integer);
    case KEST_OP_TAINT_PRESENT:
    case KEST_OP_TAINT_ABSENT: return test_taint(c, node);
    case KEST_OP_COUNTRY: return test_country(c, node);
    case KEST_OP_COUNT: break;
    }
    return KEST_UNKNOWN;
}
