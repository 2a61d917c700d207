/* gate_plain.h: a plain statement of what a gate decides about the world of gate_world.h: policies in order, every condition
 * asked, lists instead of tables (the same statement as tests/reference/gate.py, which the Python tests hold against the gate
 * over documents). */
#ifndef KEST_FUZZ_GATE_PLAIN_H
#define KEST_FUZZ_GATE_PLAIN_H

#include "gate_world.h"

static bool is(kest_str a, kest_str b)
{
    return a.len == b.len && (!a.len || memcmp(a.data, b.data, a.len) == 0);
}

static bool plain_matches(int mode, kest_str pattern, kest_str text)
{
    const bool begins = text.len >= pattern.len && is((kest_str){text.data, pattern.len}, pattern);

    return mode == KEST_PATTERN_ALL || (begins && (mode == KEST_PATTERN_PREFIX || (mode == KEST_PATTERN_EXACT) == (text.len == pattern.len)));
}

static const kest_gate_value *param(const char *name)
{
    for (size_t i = 0; i < w.ctx.nparams; i++)
        if (is(w.ctx.params[i].name, fuzz_str(name)))
            return &w.ctx.params[i].value;
    return NULL;
}

static kest_tri truth(bool b)
{
    return b ? KEST_TRUE : KEST_FALSE;
}

static kest_tri plain_scalar(const node *n, const kest_gate_value *v)
{
    bool found = false;

    if (n->op == KEST_OP_MATCHES)
        return v->kind != KEST_VALUE_TEXT ? KEST_UNKNOWN : truth(plain_matches(n->mode, word(n->word), v->text));
    if (v->kind == KEST_VALUE_BOOL)
        return n->bools == 0 ? KEST_UNKNOWN : truth(v->boolean ? n->bools == 2 || n->bools == 3 : n->bools == 1 || n->bools == 3);
    if (v->kind == KEST_VALUE_TEXT) {
        for (int i = 0; i < n->nwords; i++)
            found = found || is(word(n->items_words[i]), v->text);
        return n->nwords ? truth(found) : KEST_UNKNOWN;
    }
    if (v->kind == KEST_VALUE_NUMBER) {
        for (int i = 0; i < n->nnumbers; i++)
            found = found || (numbers[n->items_numbers[i]] == v->lo && v->lo == v->hi);
        return n->nnumbers ? truth(found) : KEST_UNKNOWN;
    }
    return KEST_UNKNOWN;
}

static kest_tri plain_param(const node *n)
{
    const kest_gate_value *v = param(field_names[n->field]);
    int answers[3] = {0, 0, 0};

    if (!v)
        return KEST_UNKNOWN;
    if (n->op == KEST_OP_MAX || n->op == KEST_OP_MIN) {
        if (v->kind != KEST_VALUE_NUMBER)
            return KEST_UNKNOWN;
        return truth(n->op == KEST_OP_MAX ? !(v->hi > n->number) : !(v->lo < n->number));
    }
    if (v->kind != KEST_VALUE_LIST)
        return plain_scalar(n, v);
    for (size_t i = 0; i < v->nitems; i++)
        answers[plain_scalar(n, &v->items[i])]++;
    for (int i = 0; i < 3; i++)
        if (v->nitems && (size_t)answers[i] == v->nitems)
            return (kest_tri)i;
    return KEST_UNKNOWN;
}

static kest_tri plain_time(const node *n)
{
    const int64_t second = w.now.wall_ns / NS;
    const int64_t beyond = w.now.wall_ns % NS != 0;
    int64_t local;

    for (int i = 0; i < 3; i++)
        if (second >= w.starts[i] && second < w.starts[i + 1]) {
            bool after, before;

            local = ((second + w.offsets[i]) % 86400 + 86400) % 86400;
            after = local >= n->integer;
            before = local < n->until || (local == n->until && !beyond);
            return truth(n->integer <= n->until ? after && before : after || before);
        }
    return KEST_UNKNOWN;
}

static bool plain_age(int64_t *age)
{
    *age = w.ctx.has_started ? w.now.wall_ns / NS - w.ctx.started_at : 0;
    if (*age < -60)
        return false;
    if (w.session.known && w.session.age_ns / NS > *age)
        *age = w.session.age_ns / NS;
    if (*age < 0)
        *age = 0;
    return true;
}

static bool has_word(const kest_str *items, size_t count, kest_str what)
{
    bool found = false;

    for (size_t i = 0; i < count; i++)
        found = found || is(items[i], what);
    return found;
}

static kest_tri plain_test(int at)
{
    const node *n = &w.nodes[at];
    const kest_gate_context *c = &w.ctx;
    const kest_str text = word(n->word);
    kest_tri result;
    int64_t age;

    switch (n->op) {
    case KEST_OP_ALL:
    case KEST_OP_ANY:
        result = truth(n->op == KEST_OP_ALL);
        for (int i = 0; i < n->nchildren; i++) {
            const kest_tri one = plain_test(n->children[i]);

            if (one == truth(n->op == KEST_OP_ANY))
                return one;
            if (one == KEST_UNKNOWN)
                result = one;
        }
        return result;
    case KEST_OP_NOT:
        result = plain_test(n->children[0]);
        return result == KEST_UNKNOWN ? result : truth(result == KEST_FALSE);
    case KEST_OP_RATE:
        w.consulted[w.nconsulted++] = n->limit;
        return w.answers[n->limit];
    case KEST_OP_KIND: return truth(c->kind == n->kind);
    case KEST_OP_ROLE: return truth(has_word(c->roles, c->nroles, text));
    case KEST_OP_ID: return truth(is(c->principal, text));
    case KEST_OP_ACTION: return truth(plain_matches(n->mode, text, c->action));
    case KEST_OP_RESOURCE: return c->has_resource ? truth(plain_matches(n->mode, text, c->resource)) : KEST_UNKNOWN;
    case KEST_OP_AGE: return plain_age(&age) ? truth(age <= n->integer) : KEST_UNKNOWN;
    case KEST_OP_TIME: return plain_time(n);
    case KEST_OP_TRUST: return c->trust == -1 ? KEST_UNKNOWN : truth(c->trust >= n->integer);
    case KEST_OP_TAINT_PRESENT: return c->has_taints ? truth(has_word(c->taints, c->ntaints, text)) : KEST_UNKNOWN;
    case KEST_OP_TAINT_ABSENT: return c->has_taints ? truth(!has_word(c->taints, c->ntaints, text)) : KEST_UNKNOWN;
    case KEST_OP_COUNTRY: return c->geo.known ? truth(is(word(n->items_words[0]), (kest_str){c->geo.country, 2})) : KEST_UNKNOWN;
    default: return plain_param(n);
    }
}

/* True when one permits. */
static bool plain_policies(kest_gate_outcome *out)
{
    *out = (kest_gate_outcome){KEST_REFUSE, KEST_WHY_NO_POLICY, UINT32_MAX, 0, 0};
    for (int i = 0; i < w.npolicies; i++) {
        const policy *p = &w.policies[i];
        const int before = w.nconsulted;
        bool all = true, any_false = false, rated = false;
        int kept = before;

        for (int k = 0; k < p->nconditions; k++) {
            const int count = w.nconsulted;
            const kest_tri one = plain_test(p->conditions[k]);

            if (one == KEST_TRUE)
                continue;
            all = false;
            rated = w.nconsulted > count;
            any_false = any_false || one == KEST_FALSE;
            if (one == KEST_FALSE || p->permit)
                break;
        }
        if (p->permit && all) {
            *out = (kest_gate_outcome){KEST_PERMIT, KEST_WHY_PERMITTED, (uint32_t)i, 0, 0};
            return true;
        }
        if (!p->permit && !any_false) {
            *out = (kest_gate_outcome){KEST_REFUSE, KEST_WHY_POLICY, (uint32_t)i, 0, 0};
            return false;
        }
        if (!p->permit)
            continue;
        if (rated && out->why == KEST_WHY_NO_POLICY)
            *out = (kest_gate_outcome){KEST_REFUSE, KEST_WHY_RATE, (uint32_t)i, 0, 0};
        for (int k = before; k < w.nconsulted; k++)
            if (w.count_refused[w.consulted[k]])
                w.consulted[kept++] = w.consulted[k];
        w.nconsulted = kept;
    }
    return false;
}

/* PERMIT: nothing drifted; warnings are counted once for both addresses. */
static kest_gate_verdict plain_drift(void)
{
    const kest_gate_context *c = &w.ctx;
    const kest_gate_ip *ips[2] = {&c->origin_ip, &w.session.ip};
    const kest_gate_geo *geos[2] = {&c->origin_geo, &w.session.geo};
    uint8_t name[KEST_GATE_KEY_LEN];
    uint64_t actions = c->action_count;
    bool near = false;
    int warnings = 0;
    int64_t age;

    for (int i = 0; i < (w.session.known ? 2 : 1); i++) {
        if (!ips[i]->known || !c->ip.known || memcmp(ips[i]->bytes, c->ip.bytes, 16) == 0)
            continue;
        if (w.rules.max_km < 0 || !geos[i]->placed || !c->geo.placed || kest_gate_distance(geos[i], &c->geo) > w.rules.max_km)
            return KEST_INVALIDATE;
        near = true;
    }
    if (!plain_age(&age) || age > 14400)
        return KEST_INVALIDATE;
    kest_gate_name(c->device, name);
    if (c->has_device && ((c->has_origin_device && !is(c->device, c->origin_device)) ||
                          (w.session.known && w.session.has_device && memcmp(name, w.session.device, sizeof name) != 0)))
        return KEST_INVALIDATE;
    if (w.session.known && w.session.actions > actions)
        actions = w.session.actions;
    actions /= age >= 60 ? (uint64_t)age / 60 : 1;
    if (actions > 100)
        return KEST_INVALIDATE;
    warnings = near + (age > 10800) + (actions > 30);
    return warnings >= 3 ? KEST_REFUSE : KEST_PERMIT;
}

static bool plain_invariants(void)
{
    for (size_t i = 0; i < w.rules.ninvariants; i++) {
        const kest_gate_invariant *inv = &w.invariants[i];
        const kest_gate_value *v = NULL;

        if (!plain_matches((int)inv->mode, inv->action, w.ctx.action))
            continue;
        for (size_t k = 0; k < w.ctx.nparams; k++)
            if (!v && is(w.ctx.params[k].name, inv->field))
                v = &w.ctx.params[k].value;
        if (!v || v->kind != KEST_VALUE_NUMBER || v->hi > inv->most || v->lo < inv->least)
            return false;
    }
    return !w.rules.capped ||
           (w.ctx.action_count <= w.rules.max_actions && !(w.session.known && w.session.actions >= w.rules.max_actions));
}

static kest_gate_outcome plain_decide(void)
{
    kest_gate_outcome out = {KEST_REFUSE, KEST_WHY_REVOKED, UINT32_MAX, 0, 0};

    w.nconsulted = 0;
    if (w.session.revoked)
        return out;
    out.why = KEST_WHY_SESSIONS_FULL;
    if (w.session.full)
        return out;
    if (!plain_policies(&out))
        return out;
    if (w.rules.drift)
        out.verdict = plain_drift();
    if (out.verdict == KEST_PERMIT && !plain_invariants())
        out.verdict = KEST_REFUSE;
    return out;
}

#endif
