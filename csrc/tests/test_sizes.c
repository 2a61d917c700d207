/* Sizes that cannot be: each is refused before a byte of what they claim to measure is read. */
#include "alloc.h"
#include "arena.h"
#include "buf.h"
#include "check.h"
#include "crypto.h"
#include "dense.h"
#include "jcs.h"
#include "kest.h"
#include "pack.h"
#include "shared.h"

#include <string.h>

static const uint8_t nothing[1];

static void test_memory(void)
{
    kest_arena *arena = NULL;

    CHECK(kest_calloc(SIZE_MAX, 2) == NULL);
    CHECK(kest_calloc(SIZE_MAX / 2 + 2, 2) == NULL);
    for (size_t less = 0; less < 16; less++) /* more than any, with what is added to it */
        CHECK(kest_arena_take(&arena, 64, SIZE_MAX - less) == NULL && !arena);
    CHECK(kest_arena_take(&arena, 64, 8) != NULL);
    kest_arena_free(arena);
}

static void test_buffers(void)
{
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2};

    for (size_t i = 0; i < ROWS(sizes); i++) {
        kest_buf b;

        kest_buf_init(&b);
        kest_buf_byte(&b, 'x');
        CHECK(!kest_buf_room(&b, sizes[i]) && b.status == KEST_E_OVERFLOW);
        CHECK(!kest_buf_grow(&b, 1)); /* sticky */
        kest_buf_byte(&b, 'y');
        CHECK(b.len == 1 && b.data[0] == 'x');
        kest_buf_free(&b);
        kest_buf_init(&b);
        kest_jcs_string(&b, nothing, sizes[i]);
        CHECK(b.status == KEST_E_OVERFLOW && b.len == 0);
        kest_jcs_string(&b, nothing, sizes[i]);
        CHECK(b.status == KEST_E_OVERFLOW);
        kest_buf_free(&b);
    }
}

static void test_shared(void)
{
    const kest_str endless[] = {{nothing, SIZE_MAX / 2}, {nothing, SIZE_MAX / 2}, {nothing, SIZE_MAX / 2}};
    kest_taints *taints = NULL;
    kest_text *text = NULL;

    CHECK(kest_text_new(nothing, (size_t)UINT32_MAX + 1, &text) == KEST_E_OVERFLOW && !text);
    CHECK(kest_taints_new(endless, (size_t)UINT32_MAX + 1, &taints) == KEST_E_OVERFLOW && !taints);
    CHECK(kest_taints_new(endless, ROWS(endless), &taints) == KEST_E_OVERFLOW && !taints);
}

static void test_packing(void)
{
    kest_buf out;

    kest_buf_init(&out);
    CHECK(kest_pack_z(nothing, UINT32_MAX, &out) == KEST_E_LIMIT);
    CHECK(kest_unpack_z(nothing, SIZE_MAX / 2, 1000, &out) == KEST_E_LIMIT);
    CHECK(out.len == 0);
    kest_buf_free(&out);
}

static void test_keys(void)
{
    static const uint8_t der[16385];
    kest_pubkey *key = NULL;

    CHECK(kest_pubkey_spki(der, sizeof der, &key) == KEST_E_KEY && !key);
    CHECK(kest_pubkey_rsa(der, KEST_RSA_N_MAX + 1, der, 3, &key) == KEST_E_KEY && !key);
    CHECK(kest_pubkey_rsa(der, 256, der, KEST_RSA_E_MAX + 1, &key) == KEST_E_KEY && !key);
    CHECK(kest_alg_name(KEST_ALG_COUNT) == NULL);
    CHECK(strcmp(kest_strerror((kest_status)-1), kest_strerror(KEST_E_STATUS_COUNT)) == 0);
}

int main(void)
{
    CHECK(kest_crypto_init() == KEST_OK);
    test_memory();
    test_buffers();
    test_shared();
    test_packing();
    test_keys();
    return check_report();
}
