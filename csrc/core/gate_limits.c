#include "gate_limits.h"

static void limit_key(kest_gate_local *l, const kest_gate_case *c, uint32_t limit, uint8_t key[KEST_GATE_KEY_LEN])
{
    if (!l->named) {
        kest_gate_name(c->ctx->principal, l->names[0]);
        kest_gate_name(c->ctx->action, l->names[1]);
        l->named = true;
    }
    memcpy(l->names[2], c->set->policies[c->set->limits[limit].policy].key, KEST_GATE_KEY_LEN);
    kest_gate_join((const uint8_t (*)[KEST_GATE_KEY_LEN])l->names, 3, key);
}

kest_tri kest_gate_limits_ask(void *self, const kest_gate_case *c, uint32_t limit)
{
    const kest_gate_limit *lim = &c->set->limits[limit];
    uint8_t key[KEST_GATE_KEY_LEN];
    kest_gate_local *l = self;
    uint32_t count;
    bool full;

    limit_key(l, c, limit, key);
    count = kest_gate_rates_count(l->rates, key, lim->window_ns, c->now.steady_ns, &full);
    l->failed |= full;
    return count < lim->most ? KEST_TRUE : KEST_FALSE;
}

static bool same_counter(const kest_gate_set *set, uint32_t a, uint32_t b)
{
    const kest_gate_limit *x = &set->limits[a], *y = &set->limits[b];

    return x->window_ns == y->window_ns &&
           memcmp(set->policies[x->policy].key, set->policies[y->policy].key, KEST_GATE_KEY_LEN) == 0;
}

bool kest_gate_limits_counts(const kest_gate_case *c, size_t i, bool permitted)
{
    const uint32_t *limits = c->scratch->limits;

    if (!permitted && !c->set->limits[limits[i]].count_refused)
        return false;
    for (size_t j = 0; j < i; j++)
        if ((permitted || c->set->limits[limits[j]].count_refused) && same_counter(c->set, limits[j], limits[i]))
            return false;
    return true;
}

bool kest_gate_limits_returns(const kest_gate_case *c, size_t i)
{
    const uint32_t *limits = c->scratch->limits;

    for (size_t j = 0; j < c->scratch->nlimits; j++)
        if (c->set->limits[limits[j]].count_refused && same_counter(c->set, limits[j], limits[i]))
            return false;
    return true;
}

void kest_gate_limits_undo(kest_gate_local *l, const kest_gate_case *c, uint32_t limit)
{
    uint8_t key[KEST_GATE_KEY_LEN];

    limit_key(l, c, limit, key);
    kest_gate_rates_undo(l->rates, key, c->set->limits[limit].window_ns);
}

bool kest_gate_limits_record(kest_gate_local *l, const kest_gate_case *c, bool permitted)
{
    uint8_t key[KEST_GATE_KEY_LEN];
    size_t i;

    for (i = 0; i < c->scratch->nlimits; i++) {
        const uint32_t limit = c->scratch->limits[i];

        if (!kest_gate_limits_counts(c, i, permitted))
            continue;
        limit_key(l, c, limit, key);
        if (kest_gate_rates_record(l->rates, key, c->set->limits[limit].window_ns, c->now.steady_ns) != KEST_OK)
            break;
    }
    if (i == c->scratch->nlimits)
        return true;
    while (i-- > 0)
        if (kest_gate_limits_counts(c, i, permitted))
            kest_gate_limits_undo(l, c, c->scratch->limits[i]);
    return false;
}
