/* Tests of taints, rights, keys and DAGs against the plainest way to say the same. */
#include "check.h"

#include "failing_alloc.h"
#include "samples.h"

#include <stdio.h>

/* ---- taints ---- */

enum { NAMES = 80 };
static char names[NAMES][4];

/* The names whose bit is set (of a set of up to 80 by index), ascending. */
typedef struct picks {
    bool in[NAMES];
} picks;

static size_t list(const picks *p, kest_str *out)
{
    size_t n = 0;

    for (size_t i = 0; i < NAMES; i++)
        if (p->in[i])
            out[n++] = str(names[i]);
    return n;
}

static uint32_t state = 7;

static uint32_t draw(uint32_t below)
{
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
}

static picks pick(size_t count)
{
    picks p = {{false}};

    while (count)
        if (!p.in[draw(NAMES)]) {
            const uint32_t at = draw(NAMES);

            count -= !p.in[at];
            p.in[at] = true;
        }
    return p;
}

/* Combines and compares; false only for want of memory. */
static bool combine(const picks *parents, size_t nparents, const picks *added, const picks *removed)
{
    kest_str items[NAMES], more[NAMES], gone[NAMES], expected[NAMES];
    kest_taints *sets[4] = {NULL}, *out = NULL;
    picks left = *added;
    bool really = false, unasked = true, ok = true;
    size_t n;

    for (size_t p = 0; p < nparents && ok; p++) {
        for (size_t i = 0; i < NAMES; i++)
            left.in[i] |= parents[p].in[i];
        ok = kest_taints_new(items, list(&parents[p], items), &sets[p]) == KEST_OK;
    }
    for (size_t i = 0; i < NAMES; i++) {
        really |= left.in[i] && removed->in[i];
        left.in[i] &= !removed->in[i];
    }
    n = list(&left, expected);
    if (ok) {
        const kest_status st =
            kest_taints_combine(sets, nparents, more, list(added, more), gone, list(removed, gone), &out, &unasked);

        ok = st == KEST_OK;
        CHECK(ok || st == KEST_E_NOMEM);
    }
    if (ok) {
        CHECK(out->count == n && kest_taints_equal(out, expected, n) && kest_taints_check(out->items, out->count) == KEST_OK);
        CHECK(unasked == really);
        /* What changes nothing is shared, not copied. */
        CHECK((out == sets[0]) == (nparents && kest_taints_equal(sets[0], expected, n)));
        kest_taints_unref(out);
        ok = kest_taints_combine(sets, nparents, more, list(added, more), gone, list(removed, gone), &out, NULL) == KEST_OK;
        if (ok) {
            CHECK(kest_taints_equal(out, expected, n));
            kest_taints_unref(out);
        }
    }
    for (size_t p = 0; p < nparents; p++)
        kest_taints_unref(sets[p]);
    return ok;
}

static void test_taints(void)
{
    static const size_t sizes[] = {0, 1, 2, 10, 11, 16, 31, 32, 33, 40};

    for (size_t i = 0; i < NAMES; i++)
        (void)snprintf(names[i], sizeof names[i], "%c%u", i % 2 ? 'b' : 'a', (unsigned)(i / 2));
    /* By code point, as the lists have to be: a0 a1 a10 a11 … */
    qsort(names, NAMES, sizeof names[0], (int (*)(const void *, const void *))strcmp);
    for (size_t nparents = 0; nparents <= 3; nparents++)
        for (size_t a = 0; a < ROWS(sizes); a++)
            for (size_t r = 0; r < ROWS(sizes); r++) {
                const picks parents[3] = {pick(sizes[draw(ROWS(sizes))]), pick(sizes[draw(ROWS(sizes))]), pick(draw(3))};
                const picks added = pick(sizes[a]), removed = pick(sizes[r]), none = {{false}};

                CHECK(combine(parents, nparents, &added, &removed));
                CHECK(combine(parents, nparents, &parents[0], &none));
                CHECK(combine(parents, nparents, &none, &none));
                CHECK(combine(parents, nparents, &none, &removed));
            }
}

static void test_taints_want_memory(void)
{
    const picks parents[2] = {pick(30), pick(30)}, added = pick(30), removed = pick(5);
    bool ok = false;

    kest_set_allocator(&failing_allocator);
    for (fail_at = 1; !ok && fail_at < 100; fail_at++) {
        calls = 0;
        ok = combine(parents, 2, &added, &removed);
        CHECK(live == 0);
    }
    CHECK(ok && fail_at > 3);
    fail_at = 0;
    kest_set_allocator(NULL);
}

/* ---- rights ---- */

static kest_status verify(kest_node *node, const kest_keyring *ring, size_t *index)
{
    kest_verdict verdict;

    kest_verify_nodes(&node, 1, ring, 1, &verdict);
    if (index)
        *index = verdict.index;
    return verdict.status;
}

static void test_rights_of_every_kind_of_entry(void)
{
    const sample low = {"spiffe://t/a", 40, "x", NULL, NULL};
    /* Over that root, and as a root: what each claims. */
    static const struct {
        sample s;
        bool root, sanitises, bounded;
    } rows[] = {
        {{"spiffe://t/a", 60, NULL, NULL, NULL}, true, false, true},
        {{"spiffe://t/a", 60, "y", NULL, NULL}, true, false, true},
        {{"spiffe://t/a", 60, NULL, "y", NULL}, true, false, true}, /* nothing went away */
        {{"spiffe://t/a", 60, NULL, NULL, "60"}, true, true, true}, /* a root whose score is no origin's */
        {{"spiffe://t/a", 40, NULL, NULL, NULL}, false, false, false},
        {{"spiffe://t/a", 20, NULL, "y", NULL}, false, false, false},
        {{"spiffe://t/a", 20, NULL, "x", NULL}, false, true, false},
        {{"spiffe://t/a", 60, NULL, NULL, "60"}, false, true, true},
        {{"spiffe://t/a", 40, NULL, NULL, "40"}, false, false, false}, /* a label that raises nothing */
        {{"spiffe://t/a", 60, NULL, "x", "60"}, false, true, true},
    };
    kest_node *root = sign(&low, NULL, 0);

    for (size_t i = 0; i < ROWS(rows); i++) {
        kest_node *node = sign(&rows[i].s, &root, rows[i].root ? 0 : 1);

        for (uint8_t most = 0; most <= 100; most++)
            for (int may = 0; may < 2; may++) {
                kest_keyring *ring = ring_for("spiffe://t/a", most, may != 0);
                const kest_status expected = rows[i].sanitises && !may                    ? KEST_E_MAY_NOT_SANITISE
                                             : rows[i].bounded && rows[i].s.trust > most ? KEST_E_TRUST_MAX
                                                                                         : KEST_OK;
                char row[64];

                (void)snprintf(row, sizeof row, "row %zu, at most %u, may sanitise %d", i, most, may);
                CHECK_ROW(verify(node, ring, NULL) == expected, row);
                kest_keyring_unref(ring);
            }
        kest_node_unref(node);
    }
    kest_node_unref(root);
}

/* ---- keys ---- */

static kest_pubkey *key_of(uint8_t first)
{
    const uint8_t other_seed[KEST_SEED_LEN] = {first, 2, 3};
    uint8_t raw[KEST_PK_LEN];
    kest_seckey *secret = NULL;
    kest_pubkey *key = NULL;

    CHECK(kest_seckey_new(other_seed, &secret) == KEST_OK);
    kest_seckey_public(secret, raw);
    CHECK(kest_pubkey_ed25519(raw, sizeof raw, &key) == KEST_OK);
    kest_seckey_free(secret);
    return key;
}

static void give(kest_keyring *ring, const char *principal, uint8_t first, int64_t not_before, int64_t not_after)
{
    const kest_grant grant = {not_before, not_after, 100, true};
    kest_pubkey *key = key_of(first);

    CHECK(kest_keyring_add(ring, (const uint8_t *)principal, strlen(principal), key, &grant) == KEST_OK);
    kest_pubkey_unref(key);
}

static void test_keys_and_when_they_are_valid(void)
{
    const sample s = {"spiffe://t/a", 100, NULL, NULL, NULL};
    kest_node *node = sign(&s, NULL, 0);
    const int64_t at = node->timestamp_ms;
    /* The key that signed (its seed begins with 1) and another one, each with times. */
    const struct {
        int64_t from, until, other_from, other_until;
        kest_status expected;
    } rows[] = {
        {0, INT64_MAX, 0, INT64_MAX, KEST_OK},       {at, at, 0, INT64_MAX, KEST_OK},
        {at, at, at + 1, INT64_MAX, KEST_OK},        {at + 1, INT64_MAX, at + 1, INT64_MAX, KEST_E_KEY_TIME},
        {0, at - 1, 0, at - 1, KEST_E_KEY_TIME},     {at + 1, INT64_MAX, 0, INT64_MAX, KEST_E_SIGNATURE},
        {0, at - 1, 0, INT64_MAX, KEST_E_SIGNATURE}, {at + 1, INT64_MAX, 0, at - 1, KEST_E_KEY_TIME},
    };

    for (size_t i = 0; i < ROWS(rows); i++)
        for (int order = 0; order < 2; order++) {
            kest_keyring *ring = NULL;
            char row[16];

            (void)snprintf(row, sizeof row, "row %zu", i);
            CHECK(kest_keyring_new(&ring) == KEST_OK && kest_keyring_count(ring) == 0);
            CHECK(verify(node, ring, NULL) == KEST_E_PRINCIPAL);
            if (order)
                give(ring, "spiffe://t/a", 9, rows[i].other_from, rows[i].other_until);
            give(ring, "spiffe://t/a", 1, rows[i].from, rows[i].until);
            if (!order)
                give(ring, "spiffe://t/a", 9, rows[i].other_from, rows[i].other_until);
            CHECK(kest_keyring_count(ring) == 2);
            /* A failed signature stays one when the last key asked is only out of its time. */
            CHECK_ROW(verify(node, ring, NULL) == rows[i].expected, row);
            kest_keyring_unref(ring);
        }
    kest_node_unref(node);
}

static void test_many_principals(void)
{
    enum { N = 70 };
    char principals[N][24];
    kest_keyring *ring = NULL;

    CHECK(kest_keyring_new(&ring) == KEST_OK);
    for (size_t i = 0; i < N; i++) {
        (void)snprintf(principals[i], sizeof principals[i], "spiffe://t/%zu", i);
        give(ring, principals[i], 1, 0, INT64_MAX);
        for (size_t j = 0; j < N; j += j < i + 1 ? 1 : 7) {
            const sample s = {j <= i ? principals[j] : "spiffe://t/none", 100, NULL, NULL, NULL};

            if (j + 3 > i || j % 16 == 0) {
                kest_node *node = sign(&s, NULL, 0);

                CHECK(verify(node, ring, NULL) == (j <= i ? KEST_OK : KEST_E_PRINCIPAL));
                kest_node_unref(node);
            }
        }
    }
    CHECK(kest_keyring_count(ring) == N);
    kest_keyring_unref(ring);
}

static void test_more_threads_than_there_are(void)
{
    enum { N = 40 };
    kest_node *nodes[N], *tip = chain(N), *at = tip;
    kest_keyring *ring = ring_for("spiffe://t/a", 100, true);
    kest_verdict verdict;

    for (size_t i = N; i--; at = at->parent)
        nodes[i] = at;
    for (unsigned threads = 0; threads <= 64; threads += 4) {
        kest_verify_nodes(nodes, N, ring, threads, &verdict);
        CHECK(verdict.status == KEST_OK && verdict.index == N);
    }
    kest_keyring_unref(ring);
    kest_node_unref(tip);
}

/* ---- DAGs ---- */

/* Every ancestor of `at` and itself, marked by its place in `nodes`. */
static void mark(kest_node *const *nodes, size_t n, const kest_node *at, bool *seen)
{
    for (size_t i = 0; i < n; i++)
        if (nodes[i] == at && !seen[i]) {
            seen[i] = true;
            for (size_t p = 0; p < at->nparents; p++)
                mark(nodes, n, kest_node_parent(at, p), seen);
        }
}

static void check_collected(kest_node *const *nodes, size_t n, kest_node *const *tips, size_t ntips)
{
    kest_node **all = NULL, **merged = NULL;
    bool *seen = calloc(n, sizeof *seen);
    size_t count = 0, counted = 0, expected = 0, nmerged = 0;

    for (size_t t = 0; t < ntips; t++)
        mark(nodes, n, tips[t], seen);
    for (size_t i = 0; i < n; i++)
        expected += seen[i];
    CHECK(kest_chain_count(tips, ntips, &counted) == KEST_OK && counted == expected);
    CHECK(kest_chain_count(tips, ntips, &counted) == KEST_OK && counted == expected); /* now remembered */
    CHECK(kest_chain_collect(tips, ntips, &all, &count) == KEST_OK && count == expected);
    for (size_t i = 0, at = 0; i < n; i++) /* parents first: in the order in which they were made */
        if (seen[i])
            CHECK(at < count && all[at++] == nodes[i]);
    CHECK(kest_chain_merge(tips, ntips, &merged, &nmerged) == KEST_OK);
    for (size_t i = 0; i < nmerged; i++)
        CHECK(i == 0 || memcmp(merged[i - 1]->hash, merged[i]->hash, KEST_HASH_LEN) < 0);
    for (size_t t = 0; t < ntips; t++) { /* a tip is kept unless another one descends from it */
        bool covered = false, kept = false;

        for (size_t o = 0; o < ntips; o++) {
            bool *below = calloc(n, sizeof *below);

            if (tips[o] != tips[t])
                mark(nodes, n, tips[o], below);
            for (size_t i = 0; i < n; i++)
                covered |= below[i] && nodes[i] == tips[t];
            free(below);
        }
        for (size_t i = 0; i < nmerged; i++)
            kept |= merged[i] == tips[t];
        CHECK(kept == !covered);
    }
    kest_free(all);
    kest_free(merged);
    free(seen);
}

/* Entries over one to four of those before; wide enough for every table to grow. */
static void test_dags(void)
{
    enum { N = 140 };
    const sample s = {"spiffe://t/a", 100, NULL, NULL, NULL};

    for (size_t round = 0; round < 6; round++) {
        kest_node *nodes[N], **tips = NULL;
        kest_builder b;
        size_t ntips = 0;

        kest_builder_init(&b);
        for (size_t i = 0; i < N; i++) {
            kest_node *parents[4];
            size_t nparents = i == 0 || draw(20) == 0 ? 0 : 1 + draw(round ? 4 : 1), kept = 0;

            for (size_t p = 0; p < nparents; p++) {
                kest_node *candidate = nodes[i - 1 - draw((uint32_t)(i < 30 ? i : 30))];
                bool twice = false;

                for (size_t q = 0; q < kept; q++)
                    twice |= parents[q] == candidate;
                if (!twice)
                    parents[kept++] = candidate;
            }
            nodes[i] = sign(&s, parents, kept);
            CHECK(nodes[i] && nodes[i]->nparents == kept);
            CHECK(kest_builder_share(&b, nodes[i]) == KEST_OK && kest_builder_share(&b, nodes[i]) == KEST_OK);
            CHECK(b.count == i + 1 && kest_builder_find(&b, nodes[i]->hash) == nodes[i]);
        }
        for (size_t ask = 0; ask < 12; ask++) {
            kest_node *some[3] = {nodes[draw(N)], nodes[draw(N)], nodes[N - 1]};

            check_collected(nodes, N, some, 1 + draw(3));
        }
        CHECK(kest_builder_tips(&b, &tips, &ntips) == KEST_OK);
        for (size_t i = 0, found = 0; i < N; i++) { /* exactly those that are nobody's parent */
            bool parent = false, tip = false;

            for (size_t j = i + 1; j < N; j++)
                for (size_t p = 0; p < nodes[j]->nparents; p++)
                    parent |= kest_node_parent(nodes[j], p) == nodes[i];
            for (size_t t = 0; t < ntips; t++)
                tip |= tips[t] == nodes[i];
            found += tip;
            CHECK(tip == !parent && (i + 1 < N || found == ntips));
        }
        for (size_t t = 1; t < ntips; t++)
            CHECK(memcmp(tips[t - 1]->hash, tips[t]->hash, KEST_HASH_LEN) < 0);
        kest_free(tips);
        kest_builder_free(&b);
        for (size_t i = 0; i < N; i++)
            kest_node_unref(nodes[i]);
    }
}

static void test_a_line(void)
{
    enum { N = 70 };
    kest_node *nodes[N], *tip = chain(N), *at = tip;

    for (size_t i = N; i--; at = at->parent)
        nodes[i] = at;
    CHECK(!at && (tip->flags & KEST_NODE_LINEAR));
    for (size_t i = 0; i < N; i += 23) {
        kest_node *some[3] = {tip, nodes[i], nodes[N / 2]};

        for (size_t n = 1; n <= 3; n++)
            check_collected(nodes, N, some, n);
    }
    kest_node_unref(tip);
}

static void test_the_weakest_parent_counts_wherever_it_stands(void)
{
    const sample strong = {"spiffe://t/a", 90, NULL, NULL, NULL}, weak = {"spiffe://t/a", 30, NULL, NULL, NULL};
    kest_node *a = sign(&strong, NULL, 0), *b = sign(&weak, NULL, 0), *c = sign(&strong, NULL, 0);
    kest_node *orders[3][3] = {{b, a, c}, {a, b, c}, {a, c, b}};

    for (size_t i = 0; i < 3; i++)
        for (uint8_t trust = 29; trust <= 31; trust++) {
            const sample s = {"spiffe://t/a", trust, NULL, NULL, NULL};
            kest_node *node = sign(&s, orders[i], 3);
            kest_builder builder;

            CHECK(!(node->flags & KEST_NODE_RISE) == (trust <= 30) && !(node->flags & (KEST_NODE_ROOT | KEST_NODE_LINEAR)));
            kest_builder_init(&builder);
            CHECK(kest_builder_share(&builder, a) == KEST_OK && kest_builder_share(&builder, b) == KEST_OK);
            CHECK(kest_builder_share(&builder, c) == KEST_OK);
            CHECK(kest_builder_add(&builder, node->jws, node->jws_len) == KEST_OK && builder.count == 4);
            CHECK(builder.nodes[3]->broken == (trust <= 30 ? KEST_OK : KEST_E_TRUST_RISE));
            CHECK(kest_builder_broken(&builder) == (trust <= 30 ? SIZE_MAX : 3));
            kest_builder_free(&builder);
            kest_node_unref(node);
        }
    kest_node_unref(a);
    kest_node_unref(b);
    kest_node_unref(c);
}

int main(void)
{
    CHECK(kest_crypto_init() == KEST_OK);
    test_taints();
    test_taints_want_memory();
    test_rights_of_every_kind_of_entry();
    test_keys_and_when_they_are_valid();
    test_many_principals();
    test_more_threads_than_there_are();
    test_dags();
    test_a_line();
    test_the_weakest_parent_counts_wherever_it_stands();
    return check_report();
}
