/* dense.c: hostile dense forms. A first byte of 'p' lets the mutations reach the columns: two bytes of length, a text that is
 * deflated here, and the tail. Otherwise the rest is the raw form. What is read and sound has one dense form at most, which reads
 * back to the same entries; reading in steps, or behind what was read before, changes nothing. */
#include "fuzz.h"

#include "alloc.h"
#include "b64url.h"
#include "dense.h"
#include "pack.h"

enum { MAX_BYTES = 1 << 18, MAX_ENTRIES = 64 };

/* Version, length, deflated text, tail; base64url. *out is freed with free(). */
static size_t wrap(const uint8_t *data, size_t size, uint8_t **out)
{
    kest_buf raw;
    size_t len;

    kest_buf_init(&raw);
    if (size >= 3 && data[0] == 'p') {
        size_t plain = (size_t)data[1] << 8 | data[2];
        z_stream z = {0};
        uint8_t packed[8192];

        plain = plain < size - 3 ? plain : size - 3;
        REQUIRE(deflateInit2(&z, 1, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
        REQUIRE(deflateSetDictionary(&z, kest_dense_dictionary, (uInt)kest_dense_dictionary_len) == Z_OK);
        z.next_in = (Bytef *)(uintptr_t)(data + 3);
        z.avail_in = (uInt)plain;
        z.next_out = packed;
        z.avail_out = sizeof packed;
        REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
        deflateEnd(&z);
        kest_buf_byte(&raw, KEST_DENSE_VERSION);
        kest_buf_varint(&raw, sizeof packed - z.avail_out);
        kest_buf_put(&raw, packed, sizeof packed - z.avail_out);
        kest_buf_put(&raw, data + 3 + plain, size - 3 - plain);
    } else {
        kest_buf_put(&raw, data, size);
    }
    len = kest_b64_encoded_len(raw.len);
    *out = malloc(len + 1);
    if (!*out)
        abort();
    kest_b64_encode(raw.data, raw.len, *out);
    kest_buf_free(&raw);
    return len;
}

static void same_nodes(const kest_builder *a, const kest_builder *b)
{
    REQUIRE(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        REQUIRE(a->nodes[i]->jws_len == b->nodes[i]->jws_len && a->nodes[i]->broken == b->nodes[i]->broken);
        REQUIRE(memcmp(a->nodes[i]->jws, b->nodes[i]->jws, a->nodes[i]->jws_len) == 0);
    }
}

/* Once more, with a reader that continues behind one that is done. */
static void check_steps(const uint8_t *text, size_t len, const kest_builder *b)
{
    kest_dense *first = NULL, *second = NULL;
    kest_builder done, resumed;

    kest_builder_init(&done);
    REQUIRE(kest_dense_open(text, len, MAX_BYTES, MAX_ENTRIES, &first) == KEST_OK);
    REQUIRE(kest_dense_count(first) == b->count && kest_dense_bytes(first) > 0);
    REQUIRE(kest_dense_build(first, &done) == KEST_OK);
    same_nodes(b, &done);
    REQUIRE(kest_dense_open(text, len, MAX_BYTES, MAX_ENTRIES, &second) == KEST_OK);
    REQUIRE(kest_builder_copy(&done, &resumed) == KEST_OK);
    if (kest_dense_resume(second, first)) {
        REQUIRE(kest_dense_build(second, &resumed) == KEST_OK);
        same_nodes(b, &resumed);
    }
    kest_builder_free(&resumed);
    kest_builder_free(&done);
    kest_dense_free(second);
    kest_dense_free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *text;
    const size_t len = wrap(data, size, &text);
    kest_builder b, again;
    kest_buf packed;
    kest_status st;

    kest_builder_init(&b);
    if (kest_unpack_dense(text, len, MAX_BYTES, MAX_ENTRIES, &b) == KEST_OK) {
        REQUIRE(b.count > 0 && b.count <= MAX_ENTRIES);
        check_steps(text, len, &b);
        if (kest_builder_broken(&b) == SIZE_MAX) {
            kest_buf_init(&packed);
            st = kest_pack_dense(b.nodes, b.count, &packed);
            REQUIRE(st == KEST_OK || st == KEST_E_PACK_FORM);
            if (st == KEST_OK) {
                kest_builder_init(&again);
                REQUIRE(kest_unpack_dense(packed.data, packed.len, (size_t)MAX_BYTES * 2, MAX_ENTRIES, &again) == KEST_OK);
                same_nodes(&b, &again);
                kest_builder_free(&again);
            }
            kest_buf_free(&packed);
        }
    }
    kest_builder_free(&b);
    free(text);
    return 0;
}
