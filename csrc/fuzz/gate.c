/* gate.c: the policy compiler, its index and the evaluator against a plain statement of what a gate decides: policies in order,
 * every condition asked, lists instead of tables (the same statement as tests/reference/gate.py, which the Python tests hold
 * against the gate over documents). The input is a tape of choices: zone, policies, context, rules, answers of the limiter. */
#include "fuzz.h"

#include "crypto.h"
#include "gate_decide.h"
#include "gate_index.h"

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

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    REQUIRE(kest_crypto_init() == KEST_OK);
    return 0;
}

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

/* ---- the compiled side ---- */

static uint32_t subtree(int at)
{
    uint32_t size = 1;

    for (int i = 0; i < w.nodes[at].nchildren; i++)
        size += subtree(w.nodes[at].children[i]);
    return size;
}

static void emit(kest_gate_set *set, int at)
{
    const node *n = &w.nodes[at];
    kest_gate_node out = {.op = (uint8_t)n->op, .mode = (uint8_t)(n->op == KEST_OP_IN ? n->bools : n->mode), .size = subtree(at),
                          .ref = n->op == KEST_OP_KIND ? (uint32_t)n->kind : 0, .text = word(n->word), .number = n->number,
                          .integer = n->integer, .until = n->until};
    kest_str texts[ITEMS];
    double values[ITEMS];

    for (int i = 0; i < n->nwords; i++)
        texts[i] = word(n->items_words[i]);
    for (int i = 0; i < n->nnumbers; i++)
        values[i] = numbers[n->items_numbers[i]];
    out.texts = texts;
    out.ntexts = (uint32_t)n->nwords;
    out.numbers = values;
    out.nnumbers = (uint32_t)n->nnumbers;
    REQUIRE(kest_gate_set_node(set, &out, fuzz_str(field_names[n->field])) == KEST_OK);
    for (int i = 0; i < n->nchildren; i++)
        emit(set, n->children[i]);
}

/* The compiled set numbers limits as they come; so does this. */
static int order[MAX_LIMITS], norder;

static void number_limits(int at)
{
    if (w.nodes[at].op == KEST_OP_RATE)
        order[norder++] = w.nodes[at].limit;
    for (int i = 0; i < w.nodes[at].nchildren; i++)
        number_limits(w.nodes[at].children[i]);
}

static kest_gate_set *compile(void)
{
    kest_gate_set *set = NULL;

    norder = 0;
    REQUIRE(kest_gate_set_new(&set) == KEST_OK && kest_gate_set_zone(set, w.starts, w.offsets, 4) == KEST_OK);
    for (int i = 0; i < w.npolicies; i++) {
        char name[8];

        (void)snprintf(name, sizeof name, "p%d", i);
        REQUIRE(kest_gate_set_policy(set, fuzz_str(name), w.policies[i].permit) == KEST_OK);
        for (int k = 0; k < w.policies[i].nconditions; k++) {
            emit(set, w.policies[i].conditions[k]);
            number_limits(w.policies[i].conditions[k]);
        }
    }
    REQUIRE(kest_gate_set_seal(set) == KEST_OK && norder == w.nlimits);
    return set;
}

static kest_tri answer(void *self, const kest_gate_case *c, uint32_t limit)
{
    (void)self;
    (void)c;
    return w.answers[order[limit]];
}

/* ---- the plain statement ---- */

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

/* ---- the two together ---- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tape t = {data, data + size};
    kest_gate_scratch scratch = {0};
    kest_gate_outcome expected, got, unindexed;
    kest_gate_index *index;
    kest_gate_set *set;
    kest_gate_case c;

    w.nnodes = w.nlimits = 0;
    read_context(&t);
    read_session(&t);
    read_rules(&t);
    read_policies(&t);
    set = compile();
    c = (kest_gate_case){.set = set, .rules = &w.rules, .ctx = &w.ctx, .session = &w.session, .now = w.now, .limiter = answer,
                         .scratch = &scratch};
    expected = plain_decide();
    kest_gate_prepare(&c);
    REQUIRE(kest_gate_decide(&c, &got) == KEST_OK);
    REQUIRE(got.verdict == expected.verdict && got.policy == expected.policy);
    if (expected.verdict == KEST_REFUSE && expected.why != KEST_WHY_PERMITTED)
        REQUIRE(got.why == expected.why);
    REQUIRE(scratch.nlimits == (size_t)w.nconsulted);
    for (int i = 0; i < w.nconsulted; i++)
        REQUIRE(order[scratch.limits[i]] == w.consulted[i]);
    index = set->index; /* it only filters */
    set->index = NULL;
    REQUIRE(kest_gate_decide(&c, &unindexed) == KEST_OK && unindexed.verdict == got.verdict && unindexed.why == got.why);
    REQUIRE(unindexed.policy == got.policy && unindexed.item == got.item);
    set->index = index;
    kest_gate_set_free(set);
    kest_gate_scratch_free(&scratch);
    return 0;
}
