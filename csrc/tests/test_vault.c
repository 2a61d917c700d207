/* Encryption of vault.h: it opens what it sealed, nothing else, and says so. */
#include "check.h"
#include "vault.h"

#include <string.h>

enum { ROOM = 256 };

static kest_bytes bytes(const char *text)
{
    return (kest_bytes){(const uint8_t *)text, strlen(text)};
}

static void test_aead(void)
{
    uint8_t key[KEST_VAULT_KEY] = {1}, nonce[KEST_VAULT_NONCE] = {2}, sealed[ROOM], opened[ROOM];
    const kest_bytes msg = bytes("message"), ad = bytes("ad");
    kest_bytes all = {sealed, msg.len + KEST_VAULT_TAG};

    CHECK(kest_aead_seal(key, nonce, ad, msg, sealed) == KEST_OK);
    CHECK(kest_aead_open(key, nonce, ad, all, opened) == KEST_OK && !memcmp(opened, msg.data, msg.len));
    for (size_t i = 0; i < all.len; i++) {
        sealed[i] ^= 1;
        CHECK(kest_aead_open(key, nonce, ad, all, opened) == KEST_E_SIGNATURE);
        sealed[i] ^= 1;
    }
    CHECK(kest_aead_open(key, nonce, bytes("AD"), all, opened) == KEST_E_SIGNATURE);
    for (all.len = 0; all.len < msg.len + KEST_VAULT_TAG; all.len++)
        CHECK(kest_aead_open(key, nonce, ad, all, opened) == KEST_E_SIGNATURE);
}

static void test_vault(void)
{
    static const kest_vault_cost refused[] = {{0, 8192}, {65, 8192}, {1, 0}, {1, 8191}, {1, ((size_t)1 << 30) + 1}};
    const uint8_t salt[KEST_VAULT_SALT] = {3}, nonce[KEST_VAULT_NONCE] = {4};
    const kest_vault_cost cost = {1, 8192}, other = {2, 8192};
    uint8_t sealed[ROOM], opened[ROOM];
    const kest_bytes msg = bytes("secret"), ad = bytes("");
    const kest_bytes all = {sealed, msg.len + KEST_VAULT_TAG};

    CHECK(kest_vault_seal(bytes("pass"), salt, cost, nonce, ad, msg, sealed) == KEST_OK);
    CHECK(kest_vault_open(bytes("pass"), salt, cost, nonce, ad, all, opened) == KEST_OK && !memcmp(opened, msg.data, msg.len));
    CHECK(kest_vault_open(bytes("Pass"), salt, cost, nonce, ad, all, opened) == KEST_E_SIGNATURE);
    CHECK(kest_vault_open(bytes("pass"), salt, other, nonce, ad, all, opened) == KEST_E_SIGNATURE);
    for (size_t i = 0; i < ROWS(refused); i++)
        CHECK(kest_vault_seal(bytes("pass"), salt, refused[i], nonce, ad, msg, sealed) == KEST_E_LIMIT);
}

static void test_streams(void)
{
    const uint8_t key[KEST_VAULT_KEY] = {5};
    uint8_t header[KEST_STREAM_HEADER], one[ROOM], two[ROOM], opened[ROOM];
    const kest_bytes a = bytes("first"), b = bytes("second"), ad = bytes("ad");
    const kest_bytes first = {one, a.len + KEST_STREAM_ADDS}, second = {two, b.len + KEST_STREAM_ADDS}, none = {one, KEST_STREAM_ADDS - 1};
    kest_stream *out = NULL, *in = NULL;
    bool last = true;

    CHECK(kest_stream_push_new(key, header, &out) == KEST_OK && kest_stream_pull_new(key, header, &in) == KEST_OK);
    if (!out || !in)
        return;
    CHECK(kest_stream_push(out, ad, a, false, one) == KEST_OK && kest_stream_push(out, ad, b, true, two) == KEST_OK);
    CHECK(kest_stream_pull(in, ad, second, opened, &last) == KEST_E_SIGNATURE);
    CHECK(kest_stream_pull(in, ad, none, opened, &last) == KEST_E_SIGNATURE);
    CHECK(kest_stream_pull(in, ad, first, opened, &last) == KEST_OK && !last && !memcmp(opened, a.data, a.len));
    CHECK(kest_stream_pull(in, ad, first, opened, &last) == KEST_E_SIGNATURE);
    CHECK(kest_stream_pull(in, bytes("AD"), second, opened, &last) == KEST_E_SIGNATURE);
    CHECK(kest_stream_pull(in, ad, second, opened, &last) == KEST_OK && last && !memcmp(opened, b.data, b.len));
    kest_stream_free(out);
    kest_stream_free(in);
    kest_stream_free(NULL);
}

int main(void)
{
    CHECK(kest_crypto_init() == KEST_OK);
    test_aead();
    test_vault();
    test_streams();
    return check_report();
}
