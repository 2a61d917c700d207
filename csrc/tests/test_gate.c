/* Tests of the gate: tables that grow and shrink, sliding windows, sessions, texts, decisions with and without the index, and
 * every allocation failing in turn. */
#include "check.h"

#include "crypto.h"
#include "failing_alloc.h"
#include "gate_decide.h"
#include "gate_index.h"
#include "gate_rate.h"
#include "gate_session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000000)

static kest_str str(const char *text)
{
    return (kest_str){(const uint8_t *)text, strlen(text)};
}

static void key_of(uint32_t number, uint8_t key[KEST_GATE_KEY_LEN])
{
    kest_gate_name((kest_str){(const uint8_t *)&number, sizeof number}, key);
}

/* ---- tables ---- */

typedef struct item {
    kest_gate_record head;
    uint32_t number;
} item;

static void test_table(void)
{
    enum { COUNT = 20000 };
    uint8_t key[KEST_GATE_KEY_LEN];
    kest_gate_table t;
    uint32_t i, wrong = 0;
    item *found;

    kest_gate_table_init(&t, sizeof(item), COUNT);
    for (i = 0; i < COUNT; i++) {
        key_of(i, key);
        CHECK(!kest_gate_table_find(&t, key));
        CHECK(kest_gate_table_insert(&t, key, &found) == KEST_OK);
        found->number = i;
    }
    key_of(COUNT, key);
    CHECK(kest_gate_table_insert(&t, key, &found) == KEST_E_LIMIT);
    CHECK(kest_gate_table_bytes(&t) < COUNT * (sizeof(item) + 8));
    for (i = 0; i < COUNT; i += 3) { /* every third is touched, so the others are older */
        key_of(i, key);
        kest_gate_table_touch(&t, kest_gate_table_find(&t, key));
    }
    for (i = 0; i < COUNT - (COUNT + 2) / 3; i++) {
        found = kest_gate_table_oldest(&t);
        wrong += found->number % 3 == 0;
        kest_gate_table_remove(&t, found);
    }
    for (i = 0; i < COUNT; i++) {
        key_of(i, key);
        found = kest_gate_table_find(&t, key);
        wrong += i % 3 == 0 ? !found || found->number != i : found != NULL;
    }
    CHECK(wrong == 0);
    while ((found = kest_gate_table_oldest(&t)) != NULL)
        kest_gate_table_remove(&t, found);
    CHECK(t.count == 0 && t.npages == 0 && t.nsegments <= 1);
    kest_gate_table_free(&t);
    CHECK(live == 0);
}

/* ---- windows ---- */

static void test_rates(void)
{
    uint8_t a[KEST_GATE_KEY_LEN], b[KEST_GATE_KEY_LEN];
    kest_gate_rates *rates;
    size_t before;
    bool full;

    key_of(1, a);
    key_of(2, b);
    CHECK(kest_gate_rates_new(2000, &rates) == KEST_OK);
    before = kest_gate_rates_bytes(rates);
    CHECK(kest_gate_rates_count(rates, a, SECOND, 100 * SECOND, &full) == 0 && !full);
    for (int i = 0; i < 3; i++)
        CHECK(kest_gate_rates_record(rates, a, SECOND, 100 * SECOND + i) == KEST_OK);
    CHECK(kest_gate_rates_count(rates, a, SECOND, 101 * SECOND - 1, NULL) == 3);
    CHECK(kest_gate_rates_count(rates, a, SECOND, 101 * SECOND, NULL) == 2);
    CHECK(kest_gate_rates_count(rates, a, 2 * SECOND, 101 * SECOND, NULL) == 0); /* another window, another counter */
    CHECK(kest_gate_rates_count(rates, b, SECOND, 101 * SECOND, NULL) == 0);
    CHECK(kest_gate_rates_count(rates, a, SECOND, 5 * SECOND, NULL) == 2); /* a clock that goes back changes nothing */
    kest_gate_rates_undo(rates, a, SECOND);
    CHECK(kest_gate_rates_count(rates, a, SECOND, 101 * SECOND, NULL) == 1);
    for (int i = 0; i < 100000; i++) /* a hot key stays small */
        CHECK(kest_gate_rates_record(rates, b, SECOND, 102 * SECOND + i * 5000) == KEST_OK);
    CHECK(kest_gate_rates_count(rates, b, SECOND, 102 * SECOND + SECOND / 2, NULL) == 100000);
    CHECK(kest_gate_rates_bytes(rates) - before < 32768);
    for (uint32_t i = 10; i < 2008; i++) {
        uint8_t key[KEST_GATE_KEY_LEN];

        key_of(i, key);
        CHECK(kest_gate_rates_record(rates, key, SECOND, 200 * SECOND) == KEST_OK);
    }
    CHECK(kest_gate_rates_keys(rates) < 2000); /* recording forgets what has expired */
    while (kest_gate_rates_sweep(rates, 300 * SECOND, 100) > 0)
        ;
    CHECK(kest_gate_rates_keys(rates) == 0 && kest_gate_rates_bytes(rates) < before + 8192);
    kest_gate_rates_free(rates);
    CHECK(live == 0);
}

static void test_full_rates(void)
{
    uint8_t a[KEST_GATE_KEY_LEN], b[KEST_GATE_KEY_LEN];
    kest_gate_rates *rates;
    bool full;

    key_of(1, a);
    key_of(2, b);
    CHECK(kest_gate_rates_new(1, &rates) == KEST_OK);
    CHECK(kest_gate_rates_record(rates, a, SECOND, SECOND) == KEST_OK);
    CHECK(kest_gate_rates_count(rates, a, SECOND, SECOND, &full) == 1 && !full);
    CHECK(kest_gate_rates_count(rates, b, SECOND, SECOND, &full) == 0 && full);
    CHECK(kest_gate_rates_record(rates, b, SECOND, SECOND) == KEST_E_LIMIT);
    kest_gate_rates_free(rates);
    CHECK(live == 0);
}

/* ---- sessions ---- */

static void test_sessions(void)
{
    kest_gate_context ctx = {.principal = str("alice"), .action = str("pay"), .session = str("s1"), .has_session = true, .trust = -1};
    const kest_str role = str("admin");
    kest_gate_time now = {1000 * SECOND, 500 * SECOND};
    kest_gate_sessions *sessions;
    kest_gate_session seen;

    ctx.roles = &role;
    ctx.nroles = 1;
    CHECK(kest_gate_ip_read(str("10.0.0.1"), &ctx.ip));
    CHECK(kest_gate_sessions_new(1, 100 * SECOND, &sessions) == KEST_OK);
    kest_gate_sessions_look(sessions, &ctx, now, &seen);
    CHECK(!seen.known && !seen.revoked && !seen.full);
    CHECK(kest_gate_sessions_permitted(sessions, &ctx, now, true) == KEST_OK);
    now.steady_ns += 60 * SECOND;
    now.wall_ns -= 900 * SECOND; /* a clock set back makes no session younger */
    CHECK(kest_gate_sessions_permitted(sessions, &ctx, now, false) == KEST_OK);
    kest_gate_sessions_look(sessions, &ctx, now, &seen);
    CHECK(seen.known && seen.actions == 1 && seen.age_ns == 60 * SECOND && seen.ip.known);
    ctx.session = str("s2");
    kest_gate_sessions_look(sessions, &ctx, now, &seen);
    CHECK(!seen.known && seen.full);
    CHECK(kest_gate_sessions_permitted(sessions, &ctx, now, true) == KEST_E_LIMIT);
    now.steady_ns += 100 * SECOND;
    kest_gate_sessions_look(sessions, &ctx, now, &seen);
    CHECK(!seen.full && kest_gate_sessions_count(sessions) == 0);
    CHECK(kest_gate_sessions_invalidate(sessions, KEST_TARGET_ROLE, role, now) == KEST_OK);
    kest_gate_sessions_look(sessions, &ctx, now, &seen);
    CHECK(seen.revoked == KEST_TARGET_ROLE);
    CHECK(kest_gate_sessions_invalidate(sessions, KEST_TARGET_ROLE, role, now) == KEST_OK);
    CHECK(kest_gate_sessions_invalidate(sessions, KEST_TARGET_PRINCIPAL, ctx.principal, now) == KEST_E_LIMIT);
    CHECK(kest_gate_sessions_reinstate(sessions, KEST_TARGET_ROLE, role));
    CHECK(!kest_gate_sessions_reinstate(sessions, KEST_TARGET_ROLE, role));
    kest_gate_sessions_look(sessions, &ctx, now, &seen);
    CHECK(!seen.revoked && kest_gate_sessions_invalidations(sessions) == 0);
    CHECK(kest_gate_sessions_bytes(sessions) < 65536);
    kest_gate_sessions_free(sessions);
    CHECK(live == 0);
}

/* ---- texts ---- */

static void test_texts(void)
{
    static const struct { const char *path, *normal; } paths[] = {
        {"", ""}, {"a", "a"}, {"a/", "a"}, {"/", "/"}, {"//a", "/a"}, {"a/./b/../c", "a/c"}, {"a/..", ""}, {"..", NULL},
        {"/..", NULL}, {"a/../../b", NULL}, {"%61/%2e%2E/b", "b"}, {"a%2fb", "a%2fb"}, {"a\\b", "a/b"}, {"%", "%"}, {"%4", "%4"},
        {"/.", "/"}, {"a/.b", "a/.b"}, {"\\..\\x", NULL}, {"%252e", "%252e"},
    };
    static const char *const bad_ips[] = {"", " 1.2.3.4", "1.2.3.4:80", "1.2.3", "01.2.3.4", "fe80::1%eth0", "::g", "1.2.3.4\n",
                                          "0000:0000:0000:0000:0000:ffff:255.255.255.2550",
                                          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"};
    kest_gate_ip four, six;
    uint8_t out[64];
    size_t len;

    for (size_t i = 0; i < ROWS(paths); i++) {
        const bool ok = kest_gate_path(str(paths[i].path), out, &len);

        CHECK_ROW(ok == (paths[i].normal != NULL), paths[i].path);
        if (ok && paths[i].normal)
            CHECK_ROW(len == strlen(paths[i].normal) && memcmp(out, paths[i].normal, len) == 0, paths[i].path);
        if (kest_gate_path_is_normal(str(paths[i].path)))
            CHECK_ROW(paths[i].normal && strcmp(paths[i].path, paths[i].normal) == 0, paths[i].path);
    }
    for (size_t i = 0; i < ROWS(bad_ips); i++)
        CHECK_ROW(!kest_gate_ip_read(str(bad_ips[i]), &four), bad_ips[i]);
    CHECK(kest_gate_ip_read(str("1.2.3.4"), &four) && kest_gate_ip_read(str("::ffff:1.2.3.4"), &six));
    CHECK(memcmp(four.bytes, six.bytes, sizeof four.bytes) == 0);
    CHECK(kest_gate_matches(KEST_PATTERN_BEYOND, str("foo."), str("foo.x")));
    CHECK(!kest_gate_matches(KEST_PATTERN_BEYOND, str("foo."), str("foo.")));
    CHECK(!kest_gate_matches(KEST_PATTERN_BEYOND, str("foo."), str("foobar")));
}

/* ---- decisions ---- */

static kest_tri ample(void *self, const kest_gate_case *c, uint32_t limit)
{
    (void)self;
    (void)c;
    (void)limit;
    return KEST_TRUE;
}

static bool add(kest_gate_set *set, uint8_t op, uint8_t mode, const char *text, double number)
{
    const kest_gate_node node = {.op = op, .mode = mode, .size = 1, .text = str(text), .number = number};

    return kest_gate_set_node(set, &node, str("amount")) == KEST_OK;
}

/* `count` policies of which the last permits; NULL when memory ran out. */
static kest_gate_set *many(int count)
{
    const int64_t starts[] = {0, INT64_C(4102444800)};
    const int32_t offsets[] = {0};
    const kest_gate_node rate = {.op = KEST_OP_RATE, .size = 1, .integer = 3, .until = SECOND, .text = str("")};
    kest_gate_set *set = NULL;
    char action[32];
    bool ok = kest_gate_set_new(&set) == KEST_OK && kest_gate_set_zone(set, starts, offsets, 2) == KEST_OK;

    for (int i = 0; ok && i < count; i++) {
        const bool last = i == count - 1;

        snprintf(action, sizeof action, "act%d.", i % 7);
        ok = kest_gate_set_policy(set, str("p"), last || i % 3) == KEST_OK &&
             add(set, KEST_OP_ACTION, (uint8_t)(last ? KEST_PATTERN_EXACT : i % 3), last ? "pay" : action, 0) &&
             add(set, KEST_OP_MAX, 0, "", last ? 10 : i % 20) && kest_gate_set_node(set, &rate, str("")) == KEST_OK;
    }
    if (!ok || kest_gate_set_seal(set) != KEST_OK) {
        kest_gate_set_free(set);
        return NULL;
    }
    return set;
}

static bool decide(int count, double amount, kest_gate_outcome *out)
{
    const kest_gate_param param = {str("amount"), {.kind = KEST_VALUE_NUMBER, .lo = amount, .hi = amount}};
    const kest_gate_context ctx = {.principal = str("a"), .action = str("pay"), .trust = -1, .params = &param, .nparams = 1};
    const kest_gate_rules rules = {.drift = true, .max_km = -1};
    const kest_gate_session session = {0};
    kest_gate_scratch scratch = {0};
    kest_gate_set *set = many(count);
    kest_gate_case c = {.set = set, .rules = &rules, .ctx = &ctx, .session = &session, .limiter = ample, .scratch = &scratch};
    bool ok = false;

    if (set) {
        kest_gate_prepare(&c);
        ok = kest_gate_decide(&c, out) == KEST_OK;
    }
    kest_gate_scratch_free(&scratch);
    CHECK(!scratch.words && !scratch.nwords && !scratch.limits && !scratch.nlimits && !scratch.limits_room);
    kest_gate_set_free(set);
    return ok;
}

static void test_decisions(void)
{
    static const int counts[] = {1, 8, 9, 64, 65, 200};
    kest_gate_outcome out;
    char row[16];

    for (size_t i = 0; i < ROWS(counts); i++) {
        snprintf(row, sizeof row, "%d", counts[i]);
        CHECK_ROW(decide(counts[i], 10, &out) && out.verdict == KEST_PERMIT && out.policy == (uint32_t)counts[i] - 1, row);
        CHECK_ROW(decide(counts[i], nextafter(10, 11), &out) && out.why == KEST_WHY_NO_POLICY, row);
    }
    CHECK(live == 0);
}

/* How old a session is and how many actions it saw: by the context and by what the gate remembers, whichever is more. */
static void test_ages_and_counts(void)
{
    enum { NOW = 1000000, LEEWAY = KEST_GATE_CLOCK_LEEWAY };
    static const struct {
        bool started, known, age_known;
        int64_t ago, remembered, age_s; /* seconds */
        uint64_t given, counted, actions;
    } rows[] = {
        {false, false, true, 5, 7, 0, 3, 9, 3},         {true, false, true, 5, 7, 5, 3, 9, 3},
        {true, true, true, 5, 7, 7, 3, 9, 9},           {true, true, true, 7, 5, 7, 9, 3, 9},
        {false, true, true, 5, 7, 7, 0, 0, 0},          {true, false, true, 0, 0, 0, 0, 0, 0},
        {true, false, true, -1, 0, 0, 1, 0, 1},         {true, false, true, -LEEWAY, 0, 0, 1, 0, 1},
        {true, false, false, -LEEWAY - 1, 0, -LEEWAY - 1, 1, 0, 1},
        {true, true, true, -LEEWAY, 4, 4, 1, 1, 1},     {true, true, false, -LEEWAY - 1, 4, -LEEWAY - 1, 1, 2, 2},
        {true, true, true, 1, 1, 1, 5, 5, 5},
    };
    char row[16];

    for (size_t i = 0; i < ROWS(rows); i++)
        for (int64_t ns = 0; ns < 1000000000; ns += 999999999) { /* whole seconds count */
            const kest_gate_context ctx = {.has_started = rows[i].started, .started_at = NOW - rows[i].ago, .action_count = rows[i].given};
            const kest_gate_session session = {.known = rows[i].known, .age_ns = rows[i].remembered * 1000000000 + ns,
                                               .actions = rows[i].counted};
            kest_gate_case c = {.ctx = &ctx, .session = &session, .now = {.wall_ns = NOW * INT64_C(1000000000) + ns}};

            snprintf(row, sizeof row, "row %zu", i);
            kest_gate_prepare(&c);
            CHECK_ROW(c.age_known == rows[i].age_known && c.age_s == rows[i].age_s && c.actions == rows[i].actions, row);
        }
}

static void test_malformed_sets(void)
{
    const kest_gate_node outside = {.op = KEST_OP_ALL, .size = 3}, empty_not = {.op = KEST_OP_NOT, .size = 1};
    const kest_gate_node unknown = {.op = KEST_OP_COUNT, .size = 1}, no_zone = {.op = KEST_OP_TIME, .size = 1};
    kest_gate_node deep = {.op = KEST_OP_ALL};
    kest_gate_set *set;

    for (int i = 0; i < 3; i++) {
        CHECK(kest_gate_set_new(&set) == KEST_OK);
        CHECK(kest_gate_set_node(set, &outside, str("")) == KEST_E_SCHEMA); /* no policy yet */
        CHECK(kest_gate_set_policy(set, str("p"), true) == KEST_OK);
        CHECK(kest_gate_set_node(set, &unknown, str("")) == KEST_E_SCHEMA);
        CHECK(kest_gate_set_node(set, &no_zone, str("")) == KEST_E_SCHEMA);
        if (i < 2)
            CHECK(kest_gate_set_node(set, i ? &outside : &empty_not, str("")) == KEST_OK);
        for (uint32_t n = 20; i == 2 && n > 0; n--) {
            deep.size = n;
            CHECK(kest_gate_set_node(set, &deep, str("")) == KEST_OK);
        }
        CHECK(kest_gate_set_seal(set) == KEST_E_SCHEMA);
        kest_gate_set_free(set);
    }
    CHECK(live == 0);
}

/* Everything above once more with the n-th allocation failing, for every n: an error, no crash, nothing lost. */
static bool scenario(void)
{
    kest_gate_context ctx = {.principal = str("a"), .session = str("s"), .has_session = true};
    const kest_gate_time now = {SECOND, SECOND};
    kest_gate_sessions *sessions = NULL;
    kest_gate_rates *rates = NULL;
    uint8_t key[KEST_GATE_KEY_LEN];
    kest_gate_outcome out;
    bool ok = decide(70, 10, &out) && kest_gate_rates_new(1000, &rates) == KEST_OK &&
              kest_gate_sessions_new(1000, SECOND, &sessions) == KEST_OK;

    for (uint32_t i = 0; ok && i < 600; i++) {
        key_of(i % 300, key);
        ok = kest_gate_rates_record(rates, key, 100 * SECOND, i * SECOND / 10) == KEST_OK;
    }
    for (int i = 0; ok && i < 50; i++) {
        key_of(7, key);
        ok = kest_gate_rates_record(rates, key, 200 * SECOND, 60 * SECOND + i) == KEST_OK;
    }
    ok = ok && kest_gate_sessions_permitted(sessions, &ctx, now, true) == KEST_OK &&
         kest_gate_sessions_invalidate(sessions, KEST_TARGET_SESSION, ctx.session, now) == KEST_OK;
    kest_gate_rates_free(rates);
    kest_gate_sessions_free(sessions);
    return ok;
}

static void test_failing_allocations(void)
{
    size_t total;

    calls = fail_at = 0;
    CHECK(scenario() && live == 0);
    total = calls;
    CHECK(total > 20);
    for (size_t n = 1; n <= total; n++) {
        calls = 0;
        fail_at = n;
        (void)scenario(); /* a bucket that could not be had only makes a chain longer, so not every failure shows */
        CHECK(live == 0);
    }
    fail_at = 0;
}

int main(void)
{
    kest_set_allocator(&failing_allocator);
    CHECK(kest_crypto_init() == KEST_OK);
    test_table();
    test_rates();
    test_full_rates();
    test_sessions();
    test_texts();
    test_decisions();
    test_ages_and_counts();
    test_malformed_sets();
    test_failing_allocations();
    kest_set_allocator(NULL);
    return check_report();
}
