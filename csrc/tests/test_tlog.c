/* Tests of trees, proofs, frames and records of transparency logs, including every allocation failing in turn. */
#include "check.h"

#include "b64url.h"
#include "failing_alloc.h"
#include "jws.h"
#include "parallel.h"
#include "tlog_journal.h"
#include "tlog_record.h"

#include <stdlib.h>
#include <string.h>

/* The tree of Certificate Transparency's own tests: eight leaves and the roots of 0 to 8 of them. */
static const char *const leaves[] = {"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"};
static const char *const roots[] = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
};

static void leaf_hashes(uint8_t out[8][KEST_HASH_LEN])
{
    for (size_t i = 0; i < 8; i++) {
        uint8_t room[1 + 16] = {0xee};
        const size_t len = strlen(leaves[i]) / 2;

        CHECK(kest_unhex((const uint8_t *)leaves[i], len, room + 1) == KEST_OK);
        CHECK(kest_tlog_leaf(room + 1, len, out[i]) == KEST_OK);
        CHECK(room[0] == 0xee); /* put back */
    }
}

static kest_status no_tile(void *context, unsigned level, uint64_t index, const uint8_t *hashes)
{
    (void)context, (void)level, (void)index, (void)hashes;
    return KEST_E_SCHEMA;
}

static void test_roots(void)
{
    uint8_t hashes[8][KEST_HASH_LEN], root[KEST_HASH_LEN], wanted[KEST_HASH_LEN];
    kest_tlog_tree *tree = kest_calloc(1, sizeof *tree);

    leaf_hashes(hashes);
    for (size_t n = 0; tree && n <= 8; n++) {
        CHECK(kest_unhex((const uint8_t *)roots[n], KEST_HASH_LEN, wanted) == KEST_OK);
        CHECK_ROW(kest_tlog_root(hashes[0], n, root) == KEST_OK && memcmp(root, wanted, sizeof root) == 0, roots[n]);
        CHECK_ROW(kest_tlog_tree_root(tree, root) == KEST_OK && memcmp(root, wanted, sizeof root) == 0, roots[n]);
        if (n < 8)
            CHECK(kest_tlog_append(tree, hashes[n], 1, no_tile, NULL) == KEST_OK);
    }
    kest_free(tree);
}

typedef struct count {
    unsigned tiles[3];
    kest_status answer;
} count;

static kest_status count_tile(void *context, unsigned level, uint64_t index, const uint8_t *hashes)
{
    count *c = context;

    CHECK(level < 3 && index == c->tiles[level] && hashes != NULL);
    c->tiles[level]++;
    return c->answer;
}

static void test_tiles(void)
{
    kest_tlog_tree *tree = kest_calloc(1, sizeof *tree);
    uint8_t *many = kest_calloc(70000, KEST_HASH_LEN);
    count c = {{0, 0, 0}, KEST_OK};

    if (tree && many) {
        CHECK(kest_tlog_append(tree, many, 70000, count_tile, &c) == KEST_OK);
        CHECK(c.tiles[0] == 273 && c.tiles[1] == 1 && c.tiles[2] == 0);
        CHECK(kest_tlog_width(tree->size, 0) == 112 && kest_tlog_width(tree->size, 1) == 17 && kest_tlog_width(tree->size, 2) == 1);
        c.answer = KEST_E_NOMEM;
        CHECK(kest_tlog_append(tree, many, 200, count_tile, &c) == KEST_E_NOMEM);
        tree->size = (UINT64_C(1) << 62) - 1;
        CHECK(kest_tlog_append(tree, many, 2, count_tile, &c) == KEST_E_OVERFLOW);
    }
    kest_free(many);
    kest_free(tree);
}

/* The hash of a node of the tree over `hashes`. */
static void node(uint8_t hashes[8][KEST_HASH_LEN], const kest_tlog_coord *c, uint8_t out[KEST_HASH_LEN])
{
    CHECK(kest_tlog_root(hashes[c->index << c->level], (size_t)1 << c->level, out) == KEST_OK);
}

static size_t prove(uint8_t hashes[8][KEST_HASH_LEN], const kest_tlog_path *path, uint8_t out[KEST_TLOG_MAX_PROOF][KEST_HASH_LEN])
{
    uint8_t parts[KEST_TLOG_MAX_PROOF][KEST_HASH_LEN];
    size_t elements = 0, n = 0;

    for (size_t i = 0; i < path->count; i++) {
        node(hashes, &path->nodes[i], parts[n++]);
        if (path->nodes[i].ends) {
            CHECK(kest_tlog_fold(parts[0], n, out[elements++]) == KEST_OK);
            n = 0;
        }
    }
    CHECK(n == 0);
    return elements;
}

static void test_proofs(void)
{
    uint8_t hashes[8][KEST_HASH_LEN], root[KEST_HASH_LEN], before[KEST_HASH_LEN], proof[KEST_TLOG_MAX_PROOF][KEST_HASH_LEN];
    kest_tlog_path path;

    leaf_hashes(hashes);
    for (size_t n = 1; n <= 8; n++) {
        CHECK(kest_tlog_root(hashes[0], n, root) == KEST_OK);
        for (size_t i = 0; i < n; i++) {
            size_t len;

            CHECK(kest_tlog_inclusion_path(i, n, &path) == KEST_OK);
            len = prove(hashes, &path, proof);
            CHECK(kest_tlog_verify_inclusion(i, n, hashes[i], proof[0], len, root) == KEST_OK);
            CHECK(kest_tlog_verify_inclusion(i, n, hashes[(i + 1) % 8], proof[0], len, root) == KEST_E_SIGNATURE);
            CHECK(kest_tlog_verify_inclusion(i, n, hashes[i], proof[0], len + 1, root) == KEST_E_SIGNATURE);
            CHECK(!len || kest_tlog_verify_inclusion(i, n, hashes[i], proof[0], len - 1, root) == KEST_E_SIGNATURE);
            CHECK(kest_tlog_consistency_path(i + 1, n, &path) == KEST_OK);
            len = prove(hashes, &path, proof);
            CHECK(kest_tlog_root(hashes[0], i + 1, before) == KEST_OK);
            CHECK(kest_tlog_verify_consistency(i + 1, n, before, proof[0], len, root) == KEST_OK);
            CHECK(i + 1 == n || kest_tlog_verify_consistency(i + 1, n, root, proof[0], len, root) == KEST_E_SIGNATURE);
            CHECK(kest_tlog_verify_consistency(i + 1, n, before, proof[0], len + 1, root) == KEST_E_SIGNATURE);
        }
    }
    CHECK(kest_tlog_inclusion_path(0, 0, &path) == KEST_E_OVERFLOW);
    CHECK(kest_tlog_inclusion_path(0, UINT64_MAX, &path) == KEST_E_OVERFLOW);
    CHECK(kest_tlog_consistency_path(0, 5, &path) == KEST_E_OVERFLOW);
    CHECK(kest_tlog_consistency_path((UINT64_C(1) << 62) - 3, (UINT64_C(1) << 62) - 1, &path) == KEST_OK && path.count < KEST_TLOG_MAX_NODES);
    CHECK(kest_tlog_verify_inclusion(0, UINT64_MAX, hashes[0], NULL, 0, root) == KEST_E_SIGNATURE);
}

static void test_frames(void)
{
    uint8_t frame[KEST_FRAME_HEAD + 9] = {0}, before[KEST_HASH_LEN] = {7};
    kest_frame f;
    kest_str record;
    size_t at = 0;

    memcpy(frame + KEST_FRAME_HEAD, "\0\3abc\0\2de", 9);
    CHECK(kest_frame_seal(frame, 5, 2, 9, before) == KEST_OK);
    CHECK(kest_frame_read(frame, sizeof frame, &f) == KEST_OK && f.first == 5 && f.count == 2 && f.body_len == 9);
    CHECK(memcmp(f.before, before, sizeof before) == 0);
    for (size_t cut = 0; cut < sizeof frame; cut++)
        CHECK(kest_frame_read(frame, cut, &f) == KEST_E_LIMIT);
    for (size_t i = 0; i < sizeof frame; i++) {
        frame[i] ^= 1;
        CHECK(kest_frame_read(frame, sizeof frame, &f) != KEST_OK);
        frame[i] ^= 1;
    }
    CHECK(kest_bundle_next(frame + KEST_FRAME_HEAD, 9, &at, &record) && record.len == 3 && memcmp(record.data, "abc", 3) == 0);
    CHECK(kest_bundle_next(frame + KEST_FRAME_HEAD, 9, &at, &record) && record.len == 2 && at == 9);
    CHECK(!kest_bundle_next(frame + KEST_FRAME_HEAD, 9, &at, &record) && at == 9);
    at = 5;
    CHECK(!kest_bundle_next(frame + KEST_FRAME_HEAD, 8, &at, &record) && at == 5);
    CHECK(!kest_bundle_next(frame + KEST_FRAME_HEAD, 6, &at, &record) && at == 5);
}

/* base64url(header) "." base64url(payload) "." base64url(signature) by the key of these tests. */
static size_t sign(const char *typ, const char *payload, uint8_t out[2048], kest_pubkey **key)
{
    const uint8_t seed[KEST_SEED_LEN] = {1};
    const size_t payload_len = strlen(payload);
    uint8_t sig[KEST_SIG_LEN], pk[KEST_PK_LEN];
    kest_seckey *secret = NULL;
    kest_buf header;
    size_t len = 0;

    kest_buf_init(&header);
    if (kest_seckey_new(seed, &secret) == KEST_OK && kest_jws_header_write(&header, KEST_ALG_EDDSA, (const uint8_t *)"p", 1, typ) == KEST_OK) {
        memcpy(out, header.data, header.len);
        len = header.len;
        out[len++] = '.';
        kest_b64_encode((const uint8_t *)payload, payload_len, out + len);
        len += kest_b64_encoded_len(payload_len);
        CHECK(kest_sign(secret, out, len, sig) == KEST_OK);
        out[len++] = '.';
        kest_b64_encode(sig, sizeof sig, out + len);
        len += kest_b64_encoded_len(sizeof sig);
        kest_seckey_public(secret, pk);
        CHECK(kest_pubkey_ed25519(pk, sizeof pk, key) == KEST_OK);
    }
    kest_seckey_free(secret);
    kest_buf_free(&header);
    return len;
}

#define HASH "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_records(void)
{
    static const struct {
        const char *typ, *payload;
        int kind, status;
    } rows[] = {
        {"kest-verdict+jws", "{\"record\":\"verdict\",\"timestamp_ms\":5}", KEST_RECORD_VERDICT, KEST_OK},
        {"JWS", "{\"record\":\"verdict\",\"timestamp_ms\":5}", KEST_RECORD_VERDICT, KEST_OK},
        {"kest-outcome+jws", "{\"entry_hash\":\"" HASH "\",\"record\":\"outcome\",\"timestamp_ms\":5}", KEST_RECORD_OUTCOME, KEST_OK},
        {"kest-outcome+jws", "{\"record\":\"outcome\",\"timestamp_ms\":5}", 0, KEST_E_SCHEMA},
        {"kest-outcome+jws", "{\"record\":\"verdict\",\"timestamp_ms\":5}", 0, KEST_E_SCHEMA},
        {"kest-denial+jws", "{\"principal\":\"q\",\"record\":\"denial\",\"timestamp_ms\":5}", 0, KEST_E_KID},
        {"kest-key+jws", "{\"principal\":\"q\",\"record\":\"key\",\"timestamp_ms\":5}", KEST_RECORD_KEY, KEST_OK},
        {"kest-log+jws", "{\"record\":\"log\", \"timestamp_ms\":5}", 0, KEST_E_NOT_CANONICAL},
        {"kest-log+jws", "{\"record\":\"log\",\"timestamp_ms\":\"5\"}", 0, KEST_E_SCHEMA},
        {"kest-other+jws", "{\"record\":\"other\",\"timestamp_ms\":5}", 0, KEST_E_JWS_HEADER},
        {"JWS", "{}", 0, KEST_E_SCHEMA},
        {"JWS", "[]", 0, KEST_E_SCHEMA},
    };

    for (size_t i = 0; i < ROWS(rows); i++) {
        uint8_t jws[2048];
        kest_pubkey *key = NULL;
        kest_text *name = NULL, *other = NULL;
        const size_t len = sign(rows[i].typ, rows[i].payload, jws, &key);
        kest_record_keys keys;
        kest_record_facts facts;

        CHECK(kest_text_new((const uint8_t *)"p", 1, &name) == KEST_OK && kest_text_new((const uint8_t *)"a", 1, &other) == KEST_OK);
        CHECK(kest_record_keys_set(&keys, (kest_text *[]){name, other}, (kest_pubkey *[]){key, key}, 2) == KEST_OK);
        kest_record_check((kest_str){jws, len}, &keys, &facts);
        CHECK_ROW(facts.kind == rows[i].kind && facts.status == rows[i].status, rows[i].payload);
        CHECK_ROW(facts.key == (rows[i].status == KEST_OK ? 0 : -1), rows[i].payload);
        if (facts.status == KEST_OK) {
            CHECK(facts.timestamp_ms == 5 && facts.length == len);
            jws[len - 3] ^= 1;
            kest_record_check((kest_str){jws, len}, &keys, &facts);
            CHECK(facts.status == KEST_E_SIGNATURE || facts.status == KEST_E_B64);
        }
        kest_record_keys_clear(&keys);
        kest_text_unref(name);
        kest_text_unref(other);
        kest_pubkey_unref(key);
    }
}

static void test_tags(void)
{
    static const char id[] = "01234567-89ab-7def-8123-456789abcdef";
    const uint8_t leaf[KEST_HASH_LEN] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    uint8_t jws[2048], scratch[2048], tag[KEST_TAG_LEN], hash[KEST_HASH_LEN];
    kest_pubkey *key = NULL;
    size_t len = sign("JWS", "{\"a\":\"\\\"entry_id\\\":\\\"x\",\"entry_id\":\"01234567-89ab-7def-8123-456789abcdef\"}", jws, &key);

    CHECK(kest_record_tag((kest_str){jws, len}, leaf, scratch, tag) == KEST_OK);
    CHECK(kest_sha256(id, sizeof id - 1, hash) == KEST_OK);
    CHECK(memcmp(tag, leaf, 8) == 0 && memcmp(tag + 8, hash, 8) == 0);
    kest_pubkey_unref(key);
    key = NULL;
    len = sign("JWS", "{\"principal\":\"a\\\"b\",\"record\":\"key\"}", jws, &key);
    CHECK(kest_record_tag((kest_str){jws, len}, leaf, scratch, tag) == KEST_OK);
    CHECK(kest_sha256("a\\\"b", 4, hash) == KEST_OK && memcmp(tag + 8, hash, 8) == 0);
    kest_pubkey_unref(key);
    memset(hash, 0, sizeof hash);
    for (const char *const *text = (const char *const[]){"", "a", "a.b", "a.b.c", "a.!.c", "..", NULL}; *text; text++)
        CHECK_ROW(kest_record_tag((kest_str){(const uint8_t *)*text, strlen(*text)}, leaf, scratch, tag) == KEST_OK && memcmp(tag + 8, hash, 8) == 0, *text);
}

static void add_one(void *context, size_t index, void *scratch)
{
    atomic_uint *seen = context;

    *(size_t *)scratch = index;
    atomic_fetch_add(&seen[index], 1);
}

static void test_parallel(void)
{
    static atomic_uint seen[1000];

    for (unsigned threads = 0; threads < 40; threads += 3)
        CHECK(kest_parallel(ROWS(seen), threads, threads, sizeof(size_t), add_one, seen) == KEST_OK);
    for (size_t i = 0; i < ROWS(seen); i++)
        CHECK(atomic_load(&seen[i]) == 14);
    CHECK(kest_parallel(0, 1, 4, 1, add_one, seen) == KEST_OK);
    CHECK(kest_processors() >= 1);
}

/* Everything that allocates, once; the status. */
static kest_status everything(const uint8_t *jws, size_t len, kest_pubkey *key)
{
    static atomic_uint seen[4];
    kest_text *name = NULL;
    kest_record_keys keys = {NULL, NULL, 0};
    kest_record_facts facts = {.status = 0};
    kest_status st = kest_text_new((const uint8_t *)"p", 1, &name);

    if (st == KEST_OK)
        st = kest_record_keys_set(&keys, &name, &key, 1);
    if (st == KEST_OK) {
        kest_record_check((kest_str){jws, len}, &keys, &facts);
        st = (kest_status)facts.status;
    }
    if (st == KEST_OK)
        st = kest_parallel(4, 1, 2, sizeof(size_t), add_one, seen);
    kest_record_keys_clear(&keys);
    kest_text_unref(name);
    return st;
}

static void test_failing_allocations(void)
{
    uint8_t jws[2048];
    kest_pubkey *key = NULL;
    const size_t len = sign("kest-verdict+jws", "{\"record\":\"verdict\",\"timestamp_ms\":5}", jws, &key);
    kest_status st = KEST_E_NOMEM;
    size_t before;

    kest_set_allocator(&failing_allocator);
    before = live;
    for (size_t n = 1; n < 100 && st != KEST_OK; n++) {
        calls = 0;
        fail_at = n;
        st = everything(jws, len, key);
        CHECK(st == KEST_OK || st == KEST_E_NOMEM);
        CHECK(live == before);
    }
    CHECK(st == KEST_OK && calls > 5);
    kest_set_allocator(NULL);
    kest_pubkey_unref(key);
}

int main(void)
{
    if (kest_crypto_init() != KEST_OK)
        return 1;
    test_roots();
    test_tiles();
    test_proofs();
    test_frames();
    test_records();
    test_tags();
    test_parallel();
    test_failing_allocations();
    return check_report();
}
