#include "gate_decide.h"

#include "gate_index.h"

#include <math.h>

void kest_gate_scratch_free(kest_gate_scratch *scratch)
{
    kest_free(scratch->words);
    kest_free(scratch->limits);
    *scratch = (kest_gate_scratch){0};
}

kest_status kest_gate_make_room(kest_gate_scratch *scratch, const kest_gate_set *set)
{
    const size_t words = kest_gate_index_words(set->index);
    void *more;

    scratch->nlimits = 0;
    if (words > scratch->nwords) {
        if (!(more = kest_realloc(scratch->words, words * sizeof *scratch->words)))
            return KEST_E_NOMEM;
        scratch->words = more;
        scratch->nwords = words;
    }
    if (set->nlimits > scratch->limits_room) {
        if (!(more = kest_realloc(scratch->limits, set->nlimits * sizeof *scratch->limits)))
            return KEST_E_NOMEM;
        scratch->limits = more;
        scratch->limits_room = set->nlimits;
    }
    return KEST_OK;
}

void kest_gate_prepare(kest_gate_case *c)
{
    c->age_known = true;
    c->age_s = 0;
    if (c->ctx->has_started) {
        c->age_s = c->now.wall_ns / 1000000000 - c->ctx->started_at;
        c->age_known = c->age_s >= -KEST_GATE_CLOCK_LEEWAY;
        if (c->age_known && c->age_s < 0)
            c->age_s = 0;
    }
    if (c->session->known && c->age_known && c->session->age_ns / 1000000000 > c->age_s)
        c->age_s = c->session->age_ns / 1000000000;
    c->actions = c->ctx->action_count;
    if (c->session->known && c->session->actions > c->actions)
        c->actions = c->session->actions;
}

/* Conditions with rate limits come last, so that a limit is consulted only when all else holds. A permit is over at the
 * first condition that is not TRUE; a refusal only at one that is FALSE. *rated: it failed at a condition with a limit. */
static kest_tri test_policy(const kest_gate_case *c, const kest_gate_policy *p, bool *rated)
{
    const uint32_t end = p->first + p->count;
    kest_tri result = KEST_TRUE;

    for (uint32_t at = p->first; at < end; at += c->set->nodes[at].size) {
        const size_t consulted = c->scratch->nlimits;
        const kest_tri one = kest_gate_test(c, at);

        if (one == KEST_TRUE)
            continue;
        result = one;
        *rated = c->scratch->nlimits > consulted;
        if (one == KEST_FALSE || p->permit)
            break;
    }
    return result;
}

static void set_outcome(kest_gate_outcome *out, kest_gate_verdict verdict, kest_gate_reason why, uint32_t policy, uint32_t item)
{
    *out = (kest_gate_outcome){verdict, why, policy, item, 0};
}

/* A policy that did not permit the call after all: the call is none of its quota, unless the policy says so. */
static void release_limits(kest_gate_case *c, size_t from)
{
    kest_gate_scratch *scratch = c->scratch;
    size_t kept = from;

    for (size_t i = from; i < scratch->nlimits; i++)
        if (c->set->limits[scratch->limits[i]].count_refused)
            scratch->limits[kept++] = scratch->limits[i];
    scratch->nlimits = kept;
}

/* True when a policy permits. */
static bool ask_policies(kest_gate_case *c, kest_gate_outcome *out)
{
    kest_gate_candidates candidates;
    uint32_t i;

    set_outcome(out, KEST_REFUSE, KEST_WHY_NO_POLICY, UINT32_MAX, 0);
    kest_gate_index_begin(c->set, c->ctx, c->scratch->words, &candidates);
    while ((i = kest_gate_index_next(&candidates)) != UINT32_MAX) {
        const kest_gate_policy *p = &c->set->policies[i];
        const size_t consulted = c->scratch->nlimits;
        bool rated = false;
        const kest_tri holds = test_policy(c, p, &rated);

        if (holds == KEST_TRUE && p->permit) {
            set_outcome(out, KEST_PERMIT, KEST_WHY_PERMITTED, i, 0);
            return true;
        }
        if (holds != KEST_FALSE && !p->permit) {
            set_outcome(out, KEST_REFUSE, KEST_WHY_POLICY, i, 0);
            return false;
        }
        if (!p->permit)
            continue;
        if (rated && out->why == KEST_WHY_NO_POLICY)
            set_outcome(out, KEST_REFUSE, KEST_WHY_RATE, i, c->scratch->limits[c->scratch->nlimits - 1]);
        release_limits(c, consulted);
    }
    return false;
}

static bool invariants_hold(const kest_gate_case *c, kest_gate_outcome *out)
{
    for (size_t i = 0; i < c->rules->ninvariants; i++) {
        const kest_gate_invariant *inv = &c->rules->invariants[i];
        const kest_gate_value *value;

        if (!kest_gate_matches(inv->mode, inv->action, c->ctx->action))
            continue;
        value = kest_gate_find_param(c->ctx, inv->field);
        if (!value || value->kind != KEST_VALUE_NUMBER || !(value->hi <= inv->most) || !(value->lo >= inv->least)) {
            set_outcome(out, KEST_REFUSE, KEST_WHY_INVARIANT, out->policy, (uint32_t)i);
            return false;
        }
    }
    if (!c->rules->capped)
        return true;
    /* What the context counts may reach the cap itself; what the gate counted does not include this action yet. */
    if (c->ctx->action_count <= c->rules->max_actions && !(c->session->known && c->session->actions >= c->rules->max_actions))
        return true;
    set_outcome(out, KEST_REFUSE, KEST_WHY_SESSION_CAP, out->policy, 0);
    return false;
}

kest_status kest_gate_decide(kest_gate_case *c, kest_gate_outcome *out)
{
    const kest_status st = kest_gate_make_room(c->scratch, c->set);

    if (st != KEST_OK)
        return st;
    if (c->session->revoked) {
        set_outcome(out, KEST_REFUSE, KEST_WHY_REVOKED, UINT32_MAX, 0);
        out->number = c->session->revoked;
        return KEST_OK;
    }
    if (c->session->full) {
        set_outcome(out, KEST_REFUSE, KEST_WHY_SESSIONS_FULL, UINT32_MAX, 0);
        return KEST_OK;
    }
    if (ask_policies(c, out) && (!c->rules->drift || kest_gate_no_drift(c, out)))
        (void)invariants_hold(c, out);
    return KEST_OK;
}
