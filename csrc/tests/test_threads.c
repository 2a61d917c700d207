/* Tests of what threads share: nodes, known entries under a lock, key rings, gate sets and stores, entry ids, verification in
 * parallel. Made for ThreadSanitizer (tools/test-tsan), which needs only that things happen at the same time; the counts are
 * checked as well. */
#include "check.h"

#include "gate_decide.h"
#include "gate_rate.h"
#include "gate_session.h"
#include "known.h"
#include "pack.h"
#include "samples.h"
#include "uuid7.h"
#include "verify.h"

#include <pthread.h>

enum { THREADS = 4, ENTRIES = 80, ROUNDS = 6 };

static kest_node **nodes; /* borrowed: the tip owns them */
static kest_node *tip;
static kest_keyring *ring;
static size_t count;
static pthread_barrier_t barrier;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Runs `work` in THREADS threads that begin together; its results are added up. */
static size_t together(void *(*work)(void *))
{
    pthread_t ids[THREADS];
    size_t numbers[THREADS], sum = 0;

    pthread_barrier_init(&barrier, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&ids[i], NULL, work, &numbers[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *result;

        CHECK(pthread_join(ids[i], &result) == 0);
        sum += (size_t)result;
    }
    pthread_barrier_destroy(&barrier);
    return sum;
}

/* ---- entry ids ---- */

enum { IDS = 2000 };
static uint8_t ids[THREADS][IDS][KEST_UUID_LEN];

static void *draw_ids(void *arg)
{
    const size_t me = *(size_t *)arg;
    size_t ascending = 1;

    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < IDS; i++) {
        kest_uuid7(ids[me][i], NULL);
        ascending += i && memcmp(ids[me][i - 1], ids[me][i], KEST_UUID_LEN) < 0;
    }
    return (void *)ascending;
}

static int by_text(const void *a, const void *b)
{
    return memcmp(a, b, KEST_UUID_LEN);
}

static void test_ids(void)
{
    CHECK(together(draw_ids) == (size_t)THREADS * IDS);
    qsort(ids, (size_t)THREADS * IDS, KEST_UUID_LEN, by_text);
    for (size_t i = 1; i < (size_t)THREADS * IDS; i++)
        CHECK(memcmp(ids[(i - 1) / IDS][(i - 1) % IDS], ids[i / IDS][i % IDS], KEST_UUID_LEN) != 0);
}

/* ---- shared nodes ---- */

/* Branches off shared nodes, merges, counts, vouches and lets go, all at once. */
static void *use_nodes(void *arg)
{
    const sample s = {"spiffe://t/a", 100, "x", NULL, NULL};
    size_t good = 0;

    (void)arg;
    pthread_barrier_wait(&barrier);
    for (int round = 0; round < ROUNDS; round++) {
        kest_node *pair[2] = {kest_node_ref(tip), sign(&s, &tip, 1)}, **all = NULL, **merged = NULL;
        size_t n = 0, m = 0, counted = 0;

        good += pair[1] && kest_chain_collect(&pair[1], 1, &all, &n) == KEST_OK && n == count + 1;
        good += pair[1] && kest_chain_merge(pair, 2, &merged, &m) == KEST_OK && m == 1 && merged[0] == pair[1];
        good += kest_chain_count(&tip, 1, &counted) == KEST_OK && counted == count;
        for (size_t i = 0; i < count; i++) {
            kest_node_vouch(nodes[i], kest_keyring_id(ring));
            good += kest_node_vouched(nodes[i]) == kest_keyring_id(ring);
        }
        kest_free(all);
        kest_free(merged);
        kest_node_unref(pair[0]);
        kest_node_unref(pair[1]);
    }
    return (void *)good;
}

/* ---- verification: each caller in several threads, over one ring ---- */

static void *verify_in_parallel(void *arg)
{
    size_t good = 0;

    pthread_barrier_wait(&barrier);
    for (int round = 0; round < ROUNDS; round++) {
        kest_keyring *mine = kest_keyring_ref(ring);
        kest_verdict verdict;

        kest_verify_nodes(nodes, count, mine, 1 + (unsigned)*(size_t *)arg, &verdict);
        good += verdict.status == KEST_OK && verdict.index == count;
        kest_keyring_unref(mine);
    }
    return (void *)good;
}

/* ---- known entries: a lock, as callers hold it, and nodes that leave the set while others use them ---- */

static kest_known *known;
static kest_buf json;

static void *read_known(void *arg)
{
    size_t good = 0;

    (void)arg;
    pthread_barrier_wait(&barrier);
    for (int round = 0; round < ROUNDS; round++) {
        size_t taken, error_at;
        kest_verdict verdict = {KEST_E_BROKEN, 0};
        kest_builder b;
        kest_status st;

        kest_builder_init(&b);
        pthread_mutex_lock(&lock);
        st = kest_known_prefix(known, (kest_str){json.data, json.len}, ENTRIES, &b, &taken);
        pthread_mutex_unlock(&lock);
        if (st == KEST_OK)
            st = kest_known_rest((kest_str){json.data, json.len}, taken, ENTRIES, &b, &error_at);
        if (st == KEST_OK)
            kest_verify_nodes(b.nodes, b.count, ring, 2, &verdict);
        pthread_mutex_lock(&lock);
        for (size_t i = 0; verdict.status == KEST_OK && i < b.count; i++)
            kest_known_add(known, b.nodes[i]);
        pthread_mutex_unlock(&lock);
        good += verdict.status == KEST_OK && b.count == count;
        kest_builder_free(&b);
    }
    return (void *)good;
}

/* ---- the gate: one compiled set for all, scratch of one's own, stores under a lock ---- */

static kest_gate_set *set;
static kest_gate_rates *rates;
static kest_gate_sessions *sessions;

static kest_tri consult(void *self, const kest_gate_case *c, uint32_t limit)
{
    const kest_gate_limit *l = &c->set->limits[limit];
    uint32_t used;

    (void)self;
    pthread_mutex_lock(&lock);
    used = kest_gate_rates_count(rates, c->set->policies[l->policy].key, l->window_ns, c->now.steady_ns, NULL);
    pthread_mutex_unlock(&lock);
    return used < l->most ? KEST_TRUE : KEST_FALSE;
}

static void *decide(void *arg)
{
    const kest_gate_context ctx = {.principal = str("a"), .action = str("pay"), .session = str("s"), .has_session = true, .trust = -1};
    const kest_gate_rules rules = {.max_km = -1};
    const kest_gate_time now = {1000000000, 1000000000};
    kest_gate_scratch scratch = {0};
    size_t good = 0;

    (void)arg;
    pthread_barrier_wait(&barrier);
    for (int round = 0; round < ROUNDS * 20; round++) {
        kest_gate_session session;
        kest_gate_case c = {.set = set, .rules = &rules, .ctx = &ctx, .session = &session, .now = now, .limiter = consult, .scratch = &scratch};
        kest_gate_outcome out;

        pthread_mutex_lock(&lock);
        kest_gate_sessions_look(sessions, &ctx, now, &session);
        pthread_mutex_unlock(&lock);
        kest_gate_prepare(&c);
        if (kest_gate_decide(&c, &out) != KEST_OK || out.verdict != KEST_PERMIT || scratch.nlimits != 1)
            continue;
        pthread_mutex_lock(&lock);
        good += kest_gate_sessions_permitted(sessions, &ctx, now, true) == KEST_OK &&
                kest_gate_rates_record(rates, set->policies[out.policy].key, 1000000000, now.steady_ns) == KEST_OK;
        pthread_mutex_unlock(&lock);
    }
    kest_gate_scratch_free(&scratch);
    return (void *)good;
}

static void make_set(void)
{
    const kest_gate_node action = {.op = KEST_OP_ACTION, .size = 1, .text = str("other")}, pay = {.op = KEST_OP_ACTION, .size = 1, .text = str("pay")};
    const kest_gate_node rate = {.op = KEST_OP_RATE, .size = 1, .integer = 1000000, .until = 1000000000, .text = str("")};

    CHECK(kest_gate_set_new(&set) == KEST_OK);
    for (int i = 0; i < 20; i++) { /* enough for an index */
        CHECK(kest_gate_set_policy(set, str(i < 19 ? "no" : "yes"), true) == KEST_OK);
        CHECK(kest_gate_set_node(set, i < 19 ? &action : &pay, str("")) == KEST_OK);
        CHECK(kest_gate_set_node(set, &rate, str("")) == KEST_OK);
    }
    CHECK(kest_gate_set_seal(set) == KEST_OK && set->index);
    CHECK(kest_gate_rates_new(100, &rates) == KEST_OK && kest_gate_sessions_new(100, INT64_C(60000000000), &sessions) == KEST_OK);
}

int main(void)
{
    CHECK(kest_crypto_init() == KEST_OK);
    test_ids();
    tip = chain(ENTRIES);
    ring = ring_for("spiffe://t/a", 100, true);
    CHECK(tip && ring && kest_chain_collect(&tip, 1, &nodes, &count) == KEST_OK && count == ENTRIES);
    CHECK(together(use_nodes) == (size_t)THREADS * ROUNDS * (3 + ENTRIES));
    CHECK(together(verify_in_parallel) == (size_t)THREADS * ROUNDS);
    kest_buf_init(&json);
    kest_pack_json(&json, nodes, count);
    CHECK(kest_known_new(60, 1000000, &known) == KEST_OK); /* too small for all: halves are emptied all the time */
    CHECK(together(read_known) == (size_t)THREADS * ROUNDS);
    make_set();
    CHECK(together(decide) == (size_t)THREADS * ROUNDS * 20);
    kest_gate_set_free(set);
    kest_gate_rates_free(rates);
    kest_gate_sessions_free(sessions);
    kest_known_free(known);
    kest_buf_free(&json);
    kest_free(nodes);
    kest_keyring_unref(ring);
    kest_node_unref(tip);
    return check_report();
}
