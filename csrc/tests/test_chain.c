/* Tests of keys, entry ids, chains, verification and packing, including every allocation failing in turn. */
#include "check.h"

#include "failing_alloc.h"
#include "known.h"
#include "pack.h"
#include "samples.h"
#include "trust.h"
#include "uuid7.h"
#include "verify.h"

#include <stdlib.h>

static kest_status verify_all(kest_node *const *nodes, size_t count, const kest_keyring *ring, unsigned threads, size_t *index)
{
    kest_verdict verdict;

    kest_verify_nodes(nodes, count, ring, threads, &verdict);
    *index = verdict.index;
    return verdict.status;
}

/* ---- entry ids ---- */

static void test_uuid7(void)
{
    uint8_t last[KEST_UUID_LEN] = {0}, id[KEST_UUID_LEN], again[KEST_UUID_LEN];
    kest_uuid7_parts parts;
    int64_t ms;

    for (int i = 0; i < 5000; i++) {
        kest_uuid7(id, &ms);
        CHECK(memcmp(last, id, sizeof id) < 0);
        memcpy(last, id, sizeof id);
    }
    CHECK(kest_uuid7_split(id, sizeof id, &parts) && (int64_t)parts.unix_ms == ms);
    kest_uuid7_join(&parts, again);
    CHECK(memcmp(id, again, sizeof id) == 0);
    CHECK(!kest_uuid7_split(id, sizeof id - 1, &parts));
    id[14] = '4';
    CHECK(!kest_uuid7_split(id, sizeof id, &parts));
    id[14] = '7';
    id[0] = 'G';
    CHECK(!kest_uuid7_split(id, sizeof id, &parts));
}

/* ---- linking and verification ---- */

static void test_long_chain(void)
{
    enum { N = 300 };
    kest_node *tip = chain(N), **nodes;
    kest_keyring *ring = ring_for("spiffe://t/a", 100, true), *other = ring_for("spiffe://t/b", 100, true);
    size_t count, index;

    CHECK(tip && kest_chain_collect(&tip, 1, &nodes, &count) == KEST_OK);
    CHECK(count == N && nodes[N - 1] == tip && nodes[0]->nparents == 0);
    for (unsigned threads = 1; threads <= 4; threads++)
        CHECK(verify_all(nodes, count, ring, threads, &index) == KEST_OK && index == N);
    CHECK(verify_all(nodes, count, other, 2, &index) == KEST_E_PRINCIPAL && index == 0);
    nodes[200]->jws[nodes[200]->sig_at + 10] ^= 1; /* 'A'..: still base64url or not, the signature is wrong */
    for (unsigned threads = 1; threads <= 4; threads++)
        CHECK(verify_all(nodes, count, ring, threads, &index) == KEST_E_SIGNATURE && index == 200);
    kest_free(nodes);
    kest_keyring_unref(ring);
    kest_keyring_unref(other);
    kest_node_unref(tip);
}

static void test_rights(void)
{
    const sample low = {"spiffe://t/a", 40, "x", NULL, NULL}, raised = {"spiffe://t/a", 90, NULL, "x", "90"};
    kest_node *root = sign(&low, NULL, 0), *tip = sign(&raised, &root, 1), *both[2] = {root, tip};
    kest_keyring *full = ring_for("spiffe://t/a", 100, true), *bounded = ring_for("spiffe://t/a", 80, true);
    kest_keyring *timid = ring_for("spiffe://t/a", 100, false);
    size_t index;

    CHECK(tip->taints->count == 0 && (tip->flags & KEST_NODE_RISE) && (tip->flags & KEST_NODE_REMOVES));
    CHECK(verify_all(both, 2, full, 1, &index) == KEST_OK);
    CHECK(verify_all(both, 2, bounded, 1, &index) == KEST_E_TRUST_MAX && index == 1);
    CHECK(verify_all(both, 2, timid, 1, &index) == KEST_E_MAY_NOT_SANITISE && index == 1);
    kest_keyring_unref(full);
    kest_keyring_unref(bounded);
    kest_keyring_unref(timid);
    kest_node_unref(root);
    kest_node_unref(tip);
}

static void add(kest_builder *b, const kest_node *node)
{
    CHECK(kest_builder_add(b, node->jws, node->jws_len) == KEST_OK);
}

static void test_builder_names_what_is_wrong(void)
{
    const sample plain = {"spiffe://t/a", 100, NULL, NULL, NULL}, silent_rise = {"spiffe://t/a", 100, NULL, NULL, NULL};
    const sample low = {"spiffe://t/a", 10, NULL, NULL, NULL}, wrong_label = {"spiffe://t/a", 50, NULL, NULL, "51"};
    kest_node *root = sign(&low, NULL, 0), *orphan_parent = sign(&plain, NULL, 0), *orphan = sign(&plain, &orphan_parent, 1);
    kest_node *rise = sign(&silent_rise, &root, 1), *label = sign(&wrong_label, &root, 1), **tips;
    kest_builder b;
    size_t count;

    kest_builder_init(&b);
    add(&b, root);
    add(&b, root);
    add(&b, orphan);
    add(&b, rise);
    add(&b, label);
    CHECK(kest_builder_add(&b, (const uint8_t *)"a.b", 3) == KEST_OK);
    CHECK(b.count == 6 && kest_builder_broken(&b) == 1);
    CHECK(b.nodes[0]->broken == KEST_OK);
    CHECK(b.nodes[1]->broken == KEST_E_DUPLICATE);
    CHECK(b.nodes[2]->broken == KEST_E_PARENT_MISSING);
    CHECK(b.nodes[3]->broken == KEST_E_TRUST_RISE);
    CHECK(b.nodes[4]->broken == KEST_E_TRUST_LABEL);
    CHECK(b.nodes[5]->broken == KEST_E_JWS_PARTS);
    CHECK(kest_builder_tips(&b, &tips, &count) == KEST_OK && count == 6);
    kest_free(tips);
    kest_builder_free(&b);
    kest_node_unref(root);
    kest_node_unref(orphan_parent);
    kest_node_unref(orphan);
    kest_node_unref(rise);
    kest_node_unref(label);
}

static void test_dag(void)
{
    const sample s = {"spiffe://t/a", 100, NULL, NULL, NULL};
    kest_node *root = sign(&s, NULL, 0), *left = sign(&s, &root, 1), *right = sign(&s, &root, 1);
    kest_node *tips[4] = {left, root, right, left}, **merged, **all, *join;
    size_t count;

    CHECK(kest_chain_merge(tips, 4, &merged, &count) == KEST_OK && count == 2);
    join = sign(&s, merged, 2);
    CHECK(kest_chain_collect(&join, 1, &all, &count) == KEST_OK && count == 4);
    CHECK(all[0] == root && all[3] == join && !(join->flags & KEST_NODE_LINEAR));
    CHECK(kest_chain_count(&join, 1, &count) == KEST_OK && count == 4);
    kest_free(all);
    kest_free(merged);
    kest_node_unref(join);
    kest_node_unref(left);
    kest_node_unref(right);
    kest_node_unref(root);
}

/* ---- packing ---- */

static void round_trip(kest_node *const *nodes, size_t count)
{
    kest_buf json, z, back, dense;
    kest_builder b;

    kest_buf_init(&json);
    kest_buf_init(&z);
    kest_buf_init(&back);
    kest_buf_init(&dense);
    kest_pack_json(&json, nodes, count);
    CHECK(kest_pack_z(json.data, json.len, &z) == KEST_OK && kest_unpack_z(z.data, z.len, json.len, &back) == KEST_OK);
    CHECK(back.len == json.len && memcmp(back.data, json.data, json.len) == 0);
    back.len = 0;
    CHECK(kest_unpack_z(z.data, z.len, json.len - 1, &back) == KEST_E_LIMIT);
    CHECK(kest_pack_dense(nodes, count, &dense) == KEST_OK && dense.len < z.len);
    kest_builder_init(&b);
    CHECK(kest_unpack_dense(dense.data, dense.len, json.len, count, &b) == KEST_OK && b.count == count);
    for (size_t i = 0; i < b.count; i++)
        CHECK(memcmp(b.nodes[i]->hash, nodes[i]->hash, KEST_HASH_LEN) == 0);
    kest_builder_free(&b);
    CHECK(kest_unpack_dense(dense.data, dense.len, json.len, count - 1, &b) == KEST_E_LIMIT);
    kest_builder_free(&b);
    for (size_t cut = 0; cut < dense.len; cut += 7) { /* truncated anywhere: refused, and nothing read out of bounds */
        const kest_status st = kest_unpack_dense(dense.data, cut, json.len, count, &b);

        CHECK(st != KEST_OK);
        kest_builder_free(&b);
    }
    kest_buf_free(&json);
    kest_buf_free(&z);
    kest_buf_free(&back);
    kest_buf_free(&dense);
}

static void test_packing(void)
{
    kest_node *tip = chain(20), **nodes;
    size_t count;

    CHECK(kest_chain_collect(&tip, 1, &nodes, &count) == KEST_OK);
    round_trip(nodes, count);
    round_trip(nodes, 2);
    kest_free(nodes);
    kest_node_unref(tip);
}

/* Changes single bytes of packed forms: whatever comes out, it is an error or entries, never a crash. */
static void test_packed_noise(void)
{
    kest_node *tip = chain(3), **nodes;
    kest_buf dense;
    size_t count;
    uint32_t random = 12345;

    kest_buf_init(&dense);
    CHECK(kest_chain_collect(&tip, 1, &nodes, &count) == KEST_OK && kest_pack_dense(nodes, count, &dense) == KEST_OK);
    for (int i = 0; i < 20000; i++) {
        kest_builder b;
        uint8_t *at, before;

        random = random * 1664525 + 1013904223;
        at = &dense.data[random % dense.len];
        before = *at;
        *at = (uint8_t) "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[random >> 26];
        kest_builder_init(&b);
        (void)kest_unpack_dense(dense.data, dense.len, 100000, 100, &b);
        kest_builder_free(&b);
        *at = before;
    }
    CHECK(true);
    kest_buf_free(&dense);
    kest_free(nodes);
    kest_node_unref(tip);
}

/* ---- what verified before ---- */

/* Takes `nodes` in through `known` in both forms; *resumed: how many entries of the dense one need not be built. */
static bool take_in(kest_known *known, kest_node *const *nodes, size_t count, size_t *shared, size_t *resumed)
{
    kest_builder from_text, from_dense;
    kest_dense *dense = NULL;
    kest_buf json, packed;
    size_t taken, error_at;
    bool ok;

    kest_builder_init(&from_text);
    kest_builder_init(&from_dense);
    kest_buf_init(&json);
    kest_buf_init(&packed);
    kest_pack_json(&json, nodes, count);
    ok = json.status == KEST_OK && kest_pack_dense(nodes, count, &packed) == KEST_OK &&
         kest_known_prefix(known, (kest_str){json.data, json.len}, 100, &from_text, &taken) == KEST_OK;
    if (ok) {
        *shared = from_text.count;
        ok = kest_known_rest((kest_str){json.data, json.len}, taken, 100, &from_text, &error_at) == KEST_OK &&
             kest_dense_open(packed.data, packed.len, 100000, 100, &dense) == KEST_OK &&
             kest_known_resume(known, dense, &from_dense) == KEST_OK;
    }
    if (ok) {
        *resumed = from_dense.count;
        ok = kest_dense_build(dense, &from_dense) == KEST_OK && from_dense.count == count && from_text.count == count;
    }
    for (size_t i = 0; ok && i < count; i++) {
        ok = memcmp(from_text.nodes[i]->hash, nodes[i]->hash, KEST_HASH_LEN) == 0 &&
             memcmp(from_dense.nodes[i]->hash, nodes[i]->hash, KEST_HASH_LEN) == 0;
        if (ok)
            kest_known_add(known, from_text.nodes[i]);
    }
    if (ok) {
        ok = kest_known_keep(known, dense, &from_dense);
        dense = NULL;
    }
    kest_dense_free(dense);
    kest_buf_free(&packed);
    kest_buf_free(&json);
    kest_builder_free(&from_dense);
    kest_builder_free(&from_text);
    return ok;
}

static void test_known(void)
{
    kest_node *tip = chain(40), *stranger = chain(3), **nodes, **others;
    kest_known *known;
    size_t count, n, shared = 0, resumed = 0;

    CHECK(kest_known_new(1, 1000, &known) == KEST_E_LIMIT);
    CHECK(kest_known_new(1000, 1000000, &known) == KEST_OK);
    CHECK(kest_chain_collect(&tip, 1, &nodes, &count) == KEST_OK && kest_chain_collect(&stranger, 1, &others, &n) == KEST_OK);
    CHECK(take_in(known, nodes, 10, &shared, &resumed) && shared == 0 && resumed == 0);
    CHECK(take_in(known, nodes, 10, &shared, &resumed) && shared == 10 && resumed == 10);
    CHECK(take_in(known, nodes, 26, &shared, &resumed) && shared == 10 && resumed == 10);
    CHECK(take_in(known, nodes, 27, &shared, &resumed) && shared == 26 && resumed == 26);
    CHECK(take_in(known, others, n, &shared, &resumed) && shared == 0 && resumed == 0);
    CHECK(kest_known_has(known, nodes[26]) && !kest_known_has(known, nodes[27]) && kest_known_count(known) == 30);
    kest_known_free(known);
    CHECK(kest_known_new(8, 1000000, &known) == KEST_OK);
    for (size_t i = 0; i < count; i++)
        kest_known_add(known, nodes[i]);
    CHECK(kest_known_count(known) <= 8 && kest_known_has(known, nodes[count - 1]) && !kest_known_has(known, nodes[0]));
    kest_known_free(known);
    kest_free(nodes);
    kest_free(others);
    kest_node_unref(tip);
    kest_node_unref(stranger);
}

/* ---- every allocation fails once ---- */

static bool twice_through(kest_node *const *nodes, size_t count)
{
    kest_known *known = NULL;
    size_t shared = 0, resumed = 0;
    bool ok = kest_known_new(16, 100000, &known) == KEST_OK && take_in(known, nodes, count, &shared, &resumed) &&
              take_in(known, nodes, count, &shared, &resumed) && shared == count && resumed == count;

    kest_known_free(known);
    return ok;
}

/* The text form and kest.passport_z. */
static bool as_text(kest_node *const *nodes, size_t count)
{
    kest_buf json, z, back;
    kest_builder b;
    size_t error_at;
    bool ok;

    kest_buf_init(&json);
    kest_buf_init(&z);
    kest_buf_init(&back);
    kest_builder_init(&b);
    kest_pack_json(&json, nodes, count);
    ok = json.status == KEST_OK && kest_pack_z(json.data, json.len, &z) == KEST_OK &&
         kest_unpack_z(z.data, z.len, 100000, &back) == KEST_OK &&
         kest_unpack_json(back.data, back.len, 100, &b, &error_at) == KEST_OK && b.count == count;
    kest_builder_free(&b);
    kest_buf_free(&json);
    kest_buf_free(&z);
    kest_buf_free(&back);
    return ok;
}

/* Signs, joins, packs, unpacks and verifies; true when all of it went well. */
static bool whole_path(void)
{
    const sample s = {"spiffe://t/a", 50, "x", NULL, NULL};
    kest_node *root = sign(&s, NULL, 0), *left = NULL, *right = NULL, *join = NULL, **all = NULL, **merged = NULL;
    kest_keyring *ring = ring_for("spiffe://t/a", 100, true);
    kest_builder b, broken;
    kest_buf dense;
    size_t count = 0, index;
    bool ok = false;

    kest_builder_init(&b);
    kest_buf_init(&dense);
    left = root ? sign(&s, &root, 1) : NULL;
    right = root ? sign(&s, &root, 1) : NULL;
    if (left && right && ring) {
        kest_node *tips[2] = {left, right};

        if (kest_chain_merge(tips, 2, &merged, &count) == KEST_OK)
            join = sign(&s, merged, count);
    }
    if (join && kest_chain_collect(&join, 1, &all, &count) == KEST_OK && kest_pack_dense(all, count, &dense) == KEST_OK &&
        kest_unpack_dense(dense.data, dense.len, 100000, 100, &b) == KEST_OK)
        ok = verify_all(b.nodes, b.count, ring, 1, &index) == KEST_OK && b.count == 4 && twice_through(all, count) && as_text(all, count);
    kest_builder_init(&broken); /* what is no entry keeps its place */
    ok = ok && kest_builder_add(&broken, (const uint8_t *)"x", 1) == KEST_OK && kest_builder_broken(&broken) == 0;
    kest_builder_free(&broken);
    CHECK(!ok || kest_keyring_count(ring) == 1);
    kest_free(merged);
    kest_free(all);
    kest_buf_free(&dense);
    kest_builder_free(&b);
    kest_keyring_unref(ring);
    kest_node_unref(join);
    kest_node_unref(left);
    kest_node_unref(right);
    kest_node_unref(root);
    return ok;
}

static void test_failing_allocator(void)
{
    bool ok = false;

    kest_set_allocator(&failing_allocator);
    for (fail_at = 1; !ok && fail_at < 5000; fail_at++) {
        calls = 0;
        ok = whole_path();
        CHECK(live == 0);
        CHECK(!ok || calls < fail_at);
    }
    CHECK(ok);
    fail_at = 0;
    kest_set_allocator(NULL);
}

/* Each limit by itself: more parents than an entry has, more text than a JWS holds, and lengths that would overflow. */
static void test_limits(void)
{
    const kest_node_facts many = {.header_b64 = str("e30"), .nparents = KEST_MAX_PARENTS + 1}, none = {.header_b64 = str("e30")};
    const size_t lengths[] = {KEST_MAX_JWS + 1, SIZE_MAX / 4 * 3, SIZE_MAX};
    kest_node *node = NULL;
    kest_builder b;

    CHECK(kest_node_layout(&many, str("{}"), &node) == KEST_E_LIMIT && !node);
    kest_builder_init(&b);
    for (size_t i = 0; i < ROWS(lengths); i++) { /* not one byte of it is read */
        CHECK(kest_node_layout(&none, (kest_str){(const uint8_t *)"", lengths[i]}, &node) == KEST_E_LIMIT && !node);
        CHECK(kest_builder_add(&b, (const uint8_t *)"", lengths[i]) == KEST_E_LIMIT && b.count == 0);
    }
    kest_builder_free(&b);
}

int main(void)
{
    CHECK(kest_crypto_init() == KEST_OK);
    test_uuid7();
    test_long_chain();
    test_rights();
    test_builder_names_what_is_wrong();
    test_dag();
    test_packing();
    test_packed_noise();
    test_known();
    test_limits();
    test_failing_allocator();
    return check_report();
}
