/* inflate.c: kest.passport_z. What was packed comes back; hostile streams never give more than was allowed, and what they give
 * is what zlib gives for exactly one complete stream. */
#include "fuzz.h"

#include "b64url.h"
#include "pack.h"

#include <zlib.h>

enum { MOST = 1 << 16 };

static void check_round_trip(const uint8_t *data, size_t size)
{
    kest_buf z, back;

    kest_buf_init(&z);
    kest_buf_init(&back);
    REQUIRE(kest_pack_z(data, size, &z) == KEST_OK && kest_unpack_z(z.data, z.len, size, &back) == KEST_OK);
    REQUIRE(back.len == size && (!size || memcmp(back.data, data, size) == 0));
    back.len = 0;
    if (size)
        REQUIRE(kest_unpack_z(z.data, z.len, size - 1, &back) == KEST_E_LIMIT);
    kest_buf_free(&z);
    kest_buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t expected[MOST + 1];
    uLongf n = sizeof expected;
    uLong used = (uLong)size;
    const int rc = uncompress2(expected, &n, data, &used);
    const size_t len = kest_b64_encoded_len(size);
    uint8_t *text = malloc(len + 1);
    kest_buf out;
    kest_status st;

    if (!text)
        abort();
    kest_b64_encode(data, size, text);
    kest_buf_init(&out);
    st = kest_unpack_z(text, len, MOST, &out);
    if (st == KEST_OK) {
        REQUIRE(rc == Z_OK && used == size && n == out.len && (!n || memcmp(out.data, expected, n) == 0));
    } else {
        REQUIRE(rc != Z_OK || used != size || n > MOST);
    }
    kest_buf_free(&out);
    free(text);
    check_round_trip(data, size);
    return 0;
}
