/* passport.c: a whole passport, from texts to a verdict. Nothing verifies but what the harness itself signed; what was packed
 * comes back byte for byte; what is known changes no answer.
 *
 * The input is lines. Each makes one entry, by its first character:
 *   +header TAB payload   signed with the key of the ring (header empty: the usual one)
 *   !header TAB payload   signed with another key
 *   ~i at c               the i-th text (a digit) with the character at `at` (two digits of base 94) replaced by c
 *   =i                    the i-th text again
 *   anything else         the text as it stands
 * "@i" in a payload stands for the hash of the i-th text. tests/differential/test_corpus.py reads the same lines.
 */
#include "fuzz.h"

#include "alloc.h"
#include "b64url.h"
#include "known.h"
#include "pack.h"
#include "verify.h"

#include <ctype.h>

enum { MOST = 10, MAX_BYTES = 1 << 20 };

typedef struct text {
    uint8_t *data;
    size_t len;
    bool ours; /* signed with the ring's key */
} text;

static kest_seckey *key, *other;
static kest_keyring *ring;
static const char principal[] = "spiffe://t/a";

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const uint8_t seed[KEST_SEED_LEN] = {1, 2, 3}, other_seed[KEST_SEED_LEN] = {3, 2, 1};
    const kest_grant grant = {1000, INT64_MAX, 90, true}, timid = {0, 2000, 100, false};
    uint8_t raw[KEST_PK_LEN];
    kest_pubkey *public_key = NULL;

    (void)argc;
    (void)argv;
    REQUIRE(kest_crypto_init() == KEST_OK && kest_seckey_new(seed, &key) == KEST_OK && kest_seckey_new(other_seed, &other) == KEST_OK);
    kest_seckey_public(key, raw);
    REQUIRE(kest_pubkey_ed25519(raw, sizeof raw, &public_key) == KEST_OK && kest_keyring_new(&ring) == KEST_OK);
    REQUIRE(kest_keyring_add(ring, (const uint8_t *)principal, strlen(principal), public_key, &grant) == KEST_OK);
    REQUIRE(kest_keyring_add(ring, (const uint8_t *)"b", 1, public_key, &timid) == KEST_OK);
    kest_pubkey_unref(public_key);
    return 0;
}

/* ---- texts ---- */

static void put_b64(kest_buf *b, const uint8_t *data, size_t len)
{
    REQUIRE(kest_buf_room(b, kest_b64_encoded_len(len)));
    kest_b64_encode(data, len, b->data + b->len);
    b->len += kest_b64_encoded_len(len);
}

static void expand(kest_buf *out, kest_str payload, const text *texts, size_t count)
{
    uint8_t hash[KEST_HASH_LEN], hex[KEST_HASH_HEX];

    for (size_t i = 0; i < payload.len; i++) {
        const size_t which = i + 1 < payload.len && payload.data[i] == '@' ? (size_t)(payload.data[i + 1] - '0') : SIZE_MAX;

        if (which < count && which < MOST) {
            REQUIRE(kest_sha256(texts[which].data, texts[which].len, hash) == KEST_OK);
            kest_hex(hash, sizeof hash, hex);
            kest_buf_put(out, hex, sizeof hex);
            i++;
        } else {
            kest_buf_byte(out, payload.data[i]);
        }
    }
}

static void sign(kest_str line, const text *texts, size_t count, const kest_seckey *with, kest_buf *jws)
{
    const uint8_t *tab = memchr(line.data, '\t', line.len);
    const kest_str header = {line.data, tab ? (size_t)(tab - line.data) : 0};
    const kest_str rest = tab ? (kest_str){tab + 1, line.len - header.len - 1} : line;
    uint8_t signature[KEST_SIG_LEN];
    kest_buf payload;

    kest_buf_init(&payload);
    expand(&payload, rest, texts, count);
    if (header.len)
        put_b64(jws, header.data, header.len);
    else
        REQUIRE(kest_jws_header_write(jws, KEST_ALG_EDDSA, (const uint8_t *)principal, strlen(principal), "JWS") == KEST_OK);
    kest_buf_byte(jws, '.');
    put_b64(jws, payload.data, payload.len);
    REQUIRE(kest_sign(with, jws->data, jws->len, signature) == KEST_OK);
    kest_buf_byte(jws, '.');
    put_b64(jws, signature, sizeof signature);
    kest_buf_free(&payload);
}

static void edit(kest_str line, const text *texts, size_t count, bool change, kest_buf *jws)
{
    const size_t which = line.len ? (size_t)(line.data[0] - '0') : SIZE_MAX;

    if (which >= count || which >= MOST) {
        kest_buf_put(jws, line.data, line.len);
        return;
    }
    kest_buf_put(jws, texts[which].data, texts[which].len);
    if (change && line.len >= 4 && jws->len)
        jws->data[(((size_t)line.data[1] - 33) * 94 + ((size_t)line.data[2] - 33)) % jws->len] = line.data[3];
}

static size_t read_lines(const uint8_t *data, size_t size, text *texts)
{
    const uint8_t *end = data + size;
    size_t count = 0;

    while (data < end && count < MOST) {
        const uint8_t *newline = memchr(data, '\n', (size_t)(end - data));
        const kest_str line = {data, (size_t)((newline ? newline : end) - data)}, tail = {data + 1, line.len ? line.len - 1 : 0};
        const int kind = line.len ? line.data[0] : 0;
        kest_buf jws;

        kest_buf_init(&jws);
        if (kind == '+' || kind == '!')
            sign(tail, texts, count, kind == '+' ? key : other, &jws);
        else if (kind == '~' || kind == '=')
            edit(tail, texts, count, kind == '~', &jws);
        else
            kest_buf_put(&jws, line.data, line.len);
        texts[count++] = (text){exact(jws.data, jws.len), jws.len, kind == '+'};
        kest_buf_free(&jws);
        data = newline ? newline + 1 : end;
    }
    return count;
}

/* ---- properties ---- */

static bool signed_by_us(const kest_node *node, const text *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (texts[i].ours && texts[i].len == node->jws_len && memcmp(texts[i].data, node->jws, node->jws_len) == 0)
            return true;
    return false;
}

static void same_nodes(const kest_builder *a, const kest_builder *b)
{
    REQUIRE(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        REQUIRE(a->nodes[i]->broken == b->nodes[i]->broken && a->nodes[i]->nparents == b->nodes[i]->nparents);
        REQUIRE(a->nodes[i]->jws_len == b->nodes[i]->jws_len);
        REQUIRE(memcmp(a->nodes[i]->jws, b->nodes[i]->jws, a->nodes[i]->jws_len) == 0);
        REQUIRE(memcmp(a->nodes[i]->hash, b->nodes[i]->hash, KEST_HASH_LEN) == 0);
    }
}

static void check_packing(const kest_builder *b)
{
    kest_buf json, z, back, dense;
    kest_builder again;
    kest_status st;

    kest_buf_init(&json);
    kest_buf_init(&z);
    kest_buf_init(&back);
    kest_buf_init(&dense);
    kest_pack_json(&json, b->nodes, b->count);
    REQUIRE(kest_pack_z(json.data, json.len, &z) == KEST_OK && kest_unpack_z(z.data, z.len, json.len, &back) == KEST_OK);
    REQUIRE(back.len == json.len && memcmp(back.data, json.data, json.len) == 0);
    if (kest_builder_broken(b) == SIZE_MAX) {
        size_t error_at;

        kest_builder_init(&again);
        REQUIRE(kest_unpack_json(json.data, json.len, MOST, &again, &error_at) == KEST_OK);
        same_nodes(b, &again);
        kest_builder_free(&again);
        st = kest_pack_dense(b->nodes, b->count, &dense);
        REQUIRE(st == KEST_OK || st == KEST_E_PACK_FORM);
        if (st == KEST_OK) {
            kest_builder_init(&again);
            REQUIRE(kest_unpack_dense(dense.data, dense.len, MAX_BYTES, MOST, &again) == KEST_OK);
            same_nodes(b, &again);
            kest_builder_free(&again);
        }
    }
    kest_buf_free(&json);
    kest_buf_free(&z);
    kest_buf_free(&back);
    kest_buf_free(&dense);
}

/* Reading behind what is known gives what reading everything gives. */
static void read_both_ways(kest_known *known, kest_str json)
{
    size_t taken, error_at;
    kest_builder behind, all;

    kest_builder_init(&behind);
    kest_builder_init(&all);
    REQUIRE(kest_unpack_json(json.data, json.len, MOST, &all, &error_at) == KEST_OK);
    REQUIRE(kest_known_prefix(known, json, MOST, &behind, &taken) == KEST_OK && taken <= json.len);
    REQUIRE(kest_known_rest(json, taken, MOST, &behind, &error_at) == KEST_OK);
    same_nodes(&all, &behind);
    kest_builder_free(&behind);
    kest_builder_free(&all);
}

/* Entries that are known do not change what a text reads as, nor what one reads as that differs by a character. */
static void check_known(const kest_builder *b)
{
    kest_known *known = NULL;
    kest_buf json;

    REQUIRE(kest_known_new((size_t)2 * MOST, MAX_BYTES, &known) == KEST_OK);
    kest_buf_init(&json);
    kest_pack_json(&json, b->nodes, b->count);
    for (size_t n = 0; n <= b->count; n++) {
        read_both_ways(known, (kest_str){json.data, json.len});
        if (n < b->count && !b->nodes[n]->broken) {
            kest_known_add(known, b->nodes[n]);
            REQUIRE(kest_known_has(known, b->nodes[n]));
        }
    }
    for (size_t n = 0, at = 2; n < b->count && json.len > 2; at += b->nodes[n++]->jws_len + 3) {
        uint8_t *changed = &json.data[at + b->nodes[n]->jws_len / 2];

        if (b->nodes[n]->broken || !isalnum(*changed))
            break; /* its text may be escaped: the places of the others are not known */
        *changed ^= 1;
        read_both_ways(known, (kest_str){json.data, json.len});
        *changed ^= 1;
    }
    kest_buf_free(&json);
    kest_known_free(known);
}

static void check_verdict(const kest_builder *b, const text *texts, size_t count)
{
    kest_verdict one, several;
    kest_node **tips = NULL, **all = NULL;
    size_t ntips, n;

    kest_verify_nodes(b->nodes, b->count, ring, 1, &one);
    for (size_t i = 0; i < (one.status == KEST_OK ? b->count : one.index); i++)
        REQUIRE(!b->nodes[i]->broken && signed_by_us(b->nodes[i], texts, count));
    REQUIRE((one.status == KEST_OK) == (one.index == b->count));
    REQUIRE(one.index <= kest_builder_broken(b));
    if (b->count > 3) {
        kest_verify_nodes(b->nodes, b->count, ring, 2, &several);
        REQUIRE(one.status == several.status && one.index == several.index);
    }
    if (kest_builder_broken(b) == SIZE_MAX) { /* the tips reach everything */
        REQUIRE(kest_builder_tips(b, &tips, &ntips) == KEST_OK && kest_chain_collect(tips, ntips, &all, &n) == KEST_OK);
        REQUIRE(n == b->count);
        kest_free(all);
        kest_free(tips);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    text texts[MOST];
    const size_t count = read_lines(data, size, texts);
    kest_builder b;

    kest_builder_init(&b);
    for (size_t i = 0; i < count; i++)
        REQUIRE(kest_builder_add(&b, texts[i].data, texts[i].len) == KEST_OK);
    REQUIRE(b.count == count);
    check_verdict(&b, texts, count);
    if (count) {
        /* A text that is not UTF-8 cannot stand in JSON; it is broken, and so are all that are not base64url. */
        bool plain = true;

        for (size_t i = 0; i < count; i++)
            for (size_t k = 0; k < texts[i].len; k++)
                plain = plain && texts[i].data[k] < 0x80;
        if (plain) {
            check_packing(&b);
            check_known(&b);
        }
    }
    kest_builder_free(&b);
    for (size_t i = 0; i < count; i++)
        free(texts[i].data);
    return 0;
}
