#include "crypto.h"

#include <sodium.h>
#include <string.h>

struct kest_seckey {
    uint8_t sk[crypto_sign_SECRETKEYBYTES]; /* seed || public key */
};

_Static_assert(crypto_sign_BYTES == KEST_SIG_LEN, "Ed25519 signature length");
_Static_assert(crypto_sign_PUBLICKEYBYTES == KEST_PK_LEN, "Ed25519 public key length");
_Static_assert(crypto_shorthash_KEYBYTES == KEST_KEYED_HASH_KEY && crypto_shorthash_BYTES == 8, "SipHash-2-4");
_Static_assert(crypto_shorthash_siphashx24_BYTES == 16 && crypto_shorthash_siphashx24_KEYBYTES == KEST_KEYED_HASH_KEY, "SipHash-128 lengths");
_Static_assert(crypto_sign_SEEDBYTES == KEST_SEED_LEN, "Ed25519 seed length");

kest_status kest_crypto_init(void)
{
    return sodium_init() < 0 ? KEST_E_CRYPTO : KEST_OK;
}

void kest_random(void *out, size_t len)
{
    randombytes_buf(out, len); /* getrandom(2): safe after fork */
}

void kest_keyed_hash128(const uint8_t key[KEST_KEYED_HASH_KEY], const void *data, size_t len, uint8_t out[16])
{
    (void)crypto_shorthash_siphashx24(out, data, len, key);
}

void kest_wipe(void *ptr, size_t len)
{
    sodium_memzero(ptr, len);
}

uint64_t kest_keyed_hash(const uint8_t key[KEST_KEYED_HASH_KEY], const uint8_t *data, size_t len)
{
    uint8_t out[crypto_shorthash_BYTES];
    uint64_t value;

    crypto_shorthash(out, data, len, key); /* cannot fail */
    memcpy(&value, out, sizeof value);
    return value;
}

kest_status kest_seckey_new(const uint8_t *seed, kest_seckey **out)
{
    uint8_t pk[KEST_PK_LEN];
    kest_seckey *key = sodium_malloc(sizeof *key);

    if (!key)
        return KEST_E_NOMEM;
    if ((seed ? crypto_sign_seed_keypair(pk, key->sk, seed) : crypto_sign_keypair(pk, key->sk)) != 0 ||
        sodium_mprotect_readonly(key) != 0) {
        sodium_free(key);
        return KEST_E_CRYPTO;
    }
    *out = key;
    return KEST_OK;
}

void kest_seckey_free(kest_seckey *key)
{
    sodium_free(key); /* wipes; NULL is fine */
}

void kest_seckey_public(const kest_seckey *key, uint8_t out[KEST_PK_LEN])
{
    memcpy(out, key->sk + KEST_SEED_LEN, KEST_PK_LEN);
}

void kest_seckey_seed(const kest_seckey *key, uint8_t out[KEST_SEED_LEN])
{
    memcpy(out, key->sk, KEST_SEED_LEN);
}

kest_status kest_sign(const kest_seckey *key, const uint8_t *msg, size_t len, uint8_t sig[KEST_SIG_LEN])
{
    return crypto_sign_detached(sig, NULL, msg, len, key->sk) == 0 ? KEST_OK : KEST_E_CRYPTO;
}
