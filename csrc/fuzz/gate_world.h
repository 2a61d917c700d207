/* gate_world.h: what the fuzzer of the gate makes up from its tape: zone, policies, context, session, rules, answers. */
#ifndef KEST_FUZZ_GATE_WORLD_H
#define KEST_FUZZ_GATE_WORLD_H

#include "fuzz.h"

#include "gate_decide.h"

#include <math.h>

enum { MAX_POLICIES = 96, MAX_NODES = 2048, MAX_LIMITS = 256, MAX_CHILDREN = 3, MAX_DEPTH = 4, ITEMS = 3 };
#define NS INT64_C(1000000000)

static const char *const words[] = {"", "a", "b", "pay", "pay.", "pay.x", "pay.x.y", "payday", "orders/1", "orders/", "/", "DE", "FR", "\xc3\xa9"};
static const char *const field_names[] = {"amount", "currency", "path", "n"};
static const double numbers[] = {-1e300, -1, 0, 0.5, 1, 2, 10, 100, 9007199254740992.0, 1e300};

/* Where drift begins to mind: seconds of a session, and its actions. */
static const int64_t ages[] = {-61, -60, -1, 0, 1, 59, 60, 119, 120, 3600, 10799, 10800, 10801, 14399, 14400, 14401, 50000};
static const uint64_t counts[] = {0, 1, 30, 31, 61, 62, 100, 101, 200, 202, 5000, 1000000};

/* A condition as it was written down, its children behind it. */
typedef struct node {
    kest_gate_op op;
    int mode;
    int word, field, kind, bools;
    double number;
    int64_t integer, until;
    int nwords, nnumbers, items_words[ITEMS], items_numbers[ITEMS];
    int limit; /* RATE: its number */
    bool limited; /* it or a child is a rate limit */
    int children[MAX_CHILDREN], nchildren;
} node;

typedef struct policy {
    bool permit;
    int conditions[MAX_CHILDREN], nconditions;
} policy;

typedef struct world {
    node nodes[MAX_NODES];
    policy policies[MAX_POLICIES];
    int nnodes, npolicies, nlimits;
    bool count_refused[MAX_LIMITS];
    kest_tri answers[MAX_LIMITS];
    kest_gate_context ctx;
    kest_gate_session session;
    kest_gate_rules rules;
    kest_gate_time now;
    kest_gate_param params[4];
    kest_gate_value items[4][ITEMS];
    kest_str roles[3], taints[3];
    kest_gate_invariant invariants[2];
    int64_t starts[4];
    int32_t offsets[3];
    /* the plain statement's own */
    int consulted[MAX_LIMITS], nconsulted;
} world;

static world w;

static kest_str word(int i)
{
    return fuzz_str(words[i]);
}

static int any_word(tape *t)
{
    return (int)tape_below(t, sizeof words / sizeof *words);
}

/* ---- reading the tape ---- */

/* Ascending, each once: what the caller's validation guarantees. */
static int some_of(tape *t, int *out, int bound)
{
    int count = 0;

    for (int i = 0; i < bound && count < ITEMS; i++)
        if (tape_below(t, 4) == 0)
            out[count++] = i;
    return count;
}

static int by_text(const void *a, const void *b)
{
    return kest_str_compare(word(*(const int *)a), word(*(const int *)b));
}

/* Conditions with rate limits come last, as the compiler of documents puts them. */
static void limits_last(int *children, int count)
{
    int sorted[MAX_CHILDREN], n = 0;

    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < count; i++)
            if (w.nodes[children[i]].limited == (pass == 1))
                sorted[n++] = children[i];
    for (int i = 0; i < n; i++)
        children[i] = sorted[i];
}

static int read_node(tape *t, int depth)
{
    const int at = w.nnodes++;
    node *n = &w.nodes[at];

    *n = (node){.op = (kest_gate_op)tape_below(t, KEST_OP_COUNT)};
    if (depth >= MAX_DEPTH && n->op <= KEST_OP_NOT)
        n->op = KEST_OP_ROLE;
    if (n->op == KEST_OP_RATE && w.nlimits == MAX_LIMITS)
        n->op = KEST_OP_ROLE;
    n->mode = (int)tape_below(t, 4);
    n->word = any_word(t);
    if (n->mode == KEST_PATTERN_ALL && (n->op == KEST_OP_ACTION || n->op == KEST_OP_RESOURCE || n->op == KEST_OP_MATCHES))
        n->word = 0;
    if (n->op <= KEST_OP_NOT) {
        n->nchildren = n->op == KEST_OP_NOT ? 1 : 1 + (int)tape_below(t, MAX_CHILDREN);
        for (int i = 0; i < n->nchildren; i++) {
            n->children[i] = read_node(t, depth + 1);
            n->limited |= w.nodes[n->children[i]].limited;
        }
        limits_last(n->children, n->nchildren);
        return at;
    }
    n->field = (int)tape_below(t, 4);
    n->kind = (int)tape_below(t, KEST_GATE_KINDS);
    n->number = numbers[tape_below(t, sizeof numbers / sizeof *numbers)];
    if (n->op == KEST_OP_IN) {
        n->bools = (int)tape_below(t, 4);
        n->nwords = some_of(t, n->items_words, sizeof words / sizeof *words);
        qsort(n->items_words, (size_t)n->nwords, sizeof(int), by_text);
        n->nnumbers = some_of(t, n->items_numbers, sizeof numbers / sizeof *numbers);
    } else if (n->op == KEST_OP_COUNTRY) {
        n->items_words[0] = 11 + (int)tape_below(t, 2);
        n->nwords = 1;
    } else if (n->op == KEST_OP_RATE) {
        n->limited = true;
        n->limit = w.nlimits++;
        w.count_refused[n->limit] = n->mode != 0;
        w.answers[n->limit] = (kest_tri)tape_below(t, 3);
    }
    n->integer = n->op == KEST_OP_TIME ? (int64_t)tape_byte(t) * 337 : (int64_t)tape_byte(t) * (n->op == KEST_OP_AGE ? 100 : 1);
    n->until = n->op == KEST_OP_TIME ? (int64_t)tape_byte(t) * 337 : 1 + tape_byte(t);
    return at;
}

static void read_policies(tape *t)
{
    w.npolicies = (int)tape_below(t, MAX_POLICIES) + 1;
    for (int i = 0; i < w.npolicies; i++) {
        policy *p = &w.policies[i];

        p->permit = tape_below(t, 4) != 0;
        p->nconditions = 0;
        for (int left = 1 + (int)tape_below(t, MAX_CHILDREN); left && w.nnodes < MAX_NODES - 200; left--)
            p->conditions[p->nconditions++] = read_node(t, 1);
        limits_last(p->conditions, p->nconditions);
    }
}

static kest_gate_value read_scalar(tape *t)
{
    static const kest_gate_value_kind kinds[] = {KEST_VALUE_OTHER, KEST_VALUE_NUMBER, KEST_VALUE_TEXT, KEST_VALUE_BOOL};
    kest_gate_value v = {.kind = kinds[tape_below(t, 4)]};

    v.boolean = tape_below(t, 2);
    v.lo = v.hi = numbers[tape_below(t, sizeof numbers / sizeof *numbers)];
    if (tape_below(t, 4) == 0) /* an integer between two doubles */
        v.hi = nextafter(v.lo, HUGE_VAL);
    v.text = word(any_word(t));
    return v;
}

static kest_gate_ip read_ip(tape *t)
{
    kest_gate_ip ip = {.known = tape_below(t, 3) != 0};

    ip.bytes[15] = (uint8_t)tape_below(t, 2);
    return ip;
}

static kest_gate_geo read_geo(tape *t)
{
    kest_gate_geo geo = {.known = tape_below(t, 3) != 0, .country = {'D', 'E'}};

    if (tape_below(t, 2))
        memcpy(geo.country, "FR", 2);
    geo.placed = geo.known && tape_below(t, 2);
    geo.latitude = tape_byte(t) % 90;
    geo.longitude = tape_byte(t) % 180;
    return geo;
}

static void read_context(tape *t)
{
    kest_gate_context *c = &w.ctx;

    *c = (kest_gate_context){.principal = word(any_word(t)), .action = word(any_word(t)), .resource = word(any_word(t))};
    c->kind = (uint8_t)tape_below(t, KEST_GATE_KINDS);
    c->has_resource = tape_below(t, 2);
    c->roles = w.roles;
    c->nroles = tape_below(t, 4);
    for (size_t i = 0; i < c->nroles; i++)
        w.roles[i] = word(any_word(t));
    c->has_taints = tape_below(t, 2);
    c->taints = w.taints;
    c->ntaints = c->has_taints ? tape_below(t, 4) : 0;
    for (size_t i = 0; i < c->ntaints; i++)
        w.taints[i] = word(any_word(t));
    c->params = w.params;
    for (int i = 0; i < 4; i++) {
        if (tape_below(t, 4) == 0)
            continue;
        w.params[c->nparams] = (kest_gate_param){fuzz_str(field_names[i]), read_scalar(t)};
        if (tape_below(t, 4) == 0) {
            kest_gate_value *v = &w.params[c->nparams].value;

            v->kind = KEST_VALUE_LIST;
            v->nitems = tape_below(t, ITEMS + 1);
            v->items = w.items[i];
            for (size_t k = 0; k < v->nitems; k++)
                w.items[i][k] = read_scalar(t);
        }
        c->nparams++;
    }
    c->trust = (int)tape_below(t, 102) - 1;
    c->ip = read_ip(t);
    c->origin_ip = read_ip(t);
    c->geo = read_geo(t);
    c->origin_geo = read_geo(t);
    c->has_device = tape_below(t, 2);
    c->device = word((int)tape_below(t, 3));
    c->has_origin_device = tape_below(t, 2);
    c->origin_device = word((int)tape_below(t, 3));
    c->has_started = tape_below(t, 2);
    c->action_count = counts[tape_below(t, sizeof counts / sizeof *counts)];
    w.now = (kest_gate_time){(int64_t)tape_byte(t) * 1000 * NS + tape_byte(t), NS};
    c->started_at = w.now.wall_ns / NS - ages[tape_below(t, sizeof ages / sizeof *ages)];
}

static void read_session(tape *t)
{
    kest_gate_session *s = &w.session;

    *s = (kest_gate_session){.known = tape_below(t, 2), .revoked = tape_below(t, 8) ? 0 : 1, .full = tape_below(t, 16) == 1};
    s->age_ns = llabs(ages[tape_below(t, sizeof ages / sizeof *ages)]) * NS;
    s->actions = counts[tape_below(t, sizeof counts / sizeof *counts)];
    s->ip = read_ip(t);
    s->geo = read_geo(t);
    s->has_device = tape_below(t, 2);
    kest_gate_name(word((int)tape_below(t, 3)), s->device);
}

static void read_rules(tape *t)
{
    w.rules = (kest_gate_rules){.invariants = w.invariants, .ninvariants = tape_below(t, 3), .drift = tape_below(t, 2)};
    w.rules.max_km = tape_below(t, 2) ? -1 : tape_byte(t) * 10.0;
    w.rules.capped = tape_below(t, 2);
    w.rules.max_actions = tape_byte(t);
    for (size_t i = 0; i < w.rules.ninvariants; i++) {
        const double least = numbers[tape_below(t, 4)], most = numbers[5 + tape_below(t, 4)];
        const kest_gate_pattern_mode mode = (kest_gate_pattern_mode)tape_below(t, 4);

        w.invariants[i] = (kest_gate_invariant){fuzz_str(field_names[tape_below(t, 4)]), least, most, mode, word(any_word(t))};
    }
    for (int i = 0; i < 4; i++)
        w.starts[i] = (i ? w.starts[i - 1] + 1 : 0) + (int64_t)tape_byte(t) * 300;
    for (int i = 0; i < 3; i++)
        w.offsets[i] = ((int32_t)tape_byte(t) - 128) * 337;
}

#endif
