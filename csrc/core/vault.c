#include "vault.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

struct kest_stream {
    crypto_secretstream_xchacha20poly1305_state state;
};

_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == KEST_VAULT_KEY, "key length");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == KEST_VAULT_NONCE, "nonce length");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == KEST_VAULT_TAG, "tag length");
_Static_assert(crypto_pwhash_argon2id_SALTBYTES == KEST_VAULT_SALT, "salt length");
_Static_assert(crypto_secretstream_xchacha20poly1305_KEYBYTES == KEST_VAULT_KEY, "stream key length");
_Static_assert(crypto_secretstream_xchacha20poly1305_HEADERBYTES == KEST_STREAM_HEADER, "stream header length");
_Static_assert(crypto_secretstream_xchacha20poly1305_ABYTES == KEST_STREAM_ADDS, "stream overhead");

kest_status kest_aead_seal(const uint8_t key[KEST_VAULT_KEY], const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes msg,
                           uint8_t *out)
{
    return crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, msg.data, msg.len, ad.data, ad.len, NULL, nonce, key) == 0
               ? KEST_OK : KEST_E_CRYPTO;
}

kest_status kest_aead_open(const uint8_t key[KEST_VAULT_KEY], const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes sealed,
                           uint8_t *out)
{
    if (sealed.len < KEST_VAULT_TAG)
        return KEST_E_SIGNATURE;
    return crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed.data, sealed.len, ad.data, ad.len, nonce, key) == 0
               ? KEST_OK : KEST_E_SIGNATURE;
}

/* Derives the key of a passphrase into locked memory; the caller frees it, which wipes it. */
static kest_status derive(kest_bytes passphrase, const uint8_t salt[KEST_VAULT_SALT], kest_vault_cost cost, uint8_t **out)
{
    uint8_t *key;

    if (cost.passes < crypto_pwhash_argon2id_OPSLIMIT_MIN || cost.passes > 64 || cost.memory < crypto_pwhash_argon2id_MEMLIMIT_MIN ||
        cost.memory > (size_t)1 << 30 || passphrase.len > crypto_pwhash_argon2id_PASSWD_MAX)
        return KEST_E_LIMIT;
    if (!(key = sodium_malloc(KEST_VAULT_KEY)))
        return KEST_E_NOMEM;
    if (crypto_pwhash_argon2id(key, KEST_VAULT_KEY, (const char *)passphrase.data, passphrase.len, salt, cost.passes, cost.memory,
                               crypto_pwhash_argon2id_ALG_ARGON2ID13) != 0) {
        sodium_free(key);
        return errno == ENOMEM ? KEST_E_NOMEM : KEST_E_CRYPTO;
    }
    *out = key;
    return KEST_OK;
}

kest_status kest_vault_seal(kest_bytes passphrase, const uint8_t salt[KEST_VAULT_SALT], kest_vault_cost cost,
                            const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes msg, uint8_t *out)
{
    uint8_t *key = NULL;
    kest_status st = derive(passphrase, salt, cost, &key);

    if (st == KEST_OK)
        st = kest_aead_seal(key, nonce, ad, msg, out);
    sodium_free(key);
    return st;
}

kest_status kest_vault_open(kest_bytes passphrase, const uint8_t salt[KEST_VAULT_SALT], kest_vault_cost cost,
                            const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes sealed, uint8_t *out)
{
    uint8_t *key = NULL;
    kest_status st = derive(passphrase, salt, cost, &key);

    if (st == KEST_OK)
        st = kest_aead_open(key, nonce, ad, sealed, out);
    sodium_free(key);
    return st;
}

/* --- streams --- */

kest_status kest_stream_push_new(const uint8_t key[KEST_VAULT_KEY], uint8_t header[KEST_STREAM_HEADER], kest_stream **out)
{
    kest_stream *stream = sodium_malloc(sizeof *stream);

    if (!stream)
        return KEST_E_NOMEM;
    if (crypto_secretstream_xchacha20poly1305_init_push(&stream->state, header, key) != 0) {
        sodium_free(stream);
        return KEST_E_CRYPTO;
    }
    *out = stream;
    return KEST_OK;
}

kest_status kest_stream_pull_new(const uint8_t key[KEST_VAULT_KEY], const uint8_t header[KEST_STREAM_HEADER], kest_stream **out)
{
    kest_stream *stream = sodium_malloc(sizeof *stream);

    if (!stream)
        return KEST_E_NOMEM;
    if (crypto_secretstream_xchacha20poly1305_init_pull(&stream->state, header, key) != 0) {
        sodium_free(stream);
        return KEST_E_CRYPTO;
    }
    *out = stream;
    return KEST_OK;
}

void kest_stream_free(kest_stream *stream)
{
    sodium_free(stream);
}

kest_status kest_stream_push(kest_stream *stream, kest_bytes ad, kest_bytes msg, bool last, uint8_t *out)
{
    const unsigned char tag = last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL : crypto_secretstream_xchacha20poly1305_TAG_REKEY;

    if (msg.len > crypto_secretstream_xchacha20poly1305_MESSAGEBYTES_MAX)
        return KEST_E_LIMIT;
    return crypto_secretstream_xchacha20poly1305_push(&stream->state, out, NULL, msg.data, msg.len, ad.data, ad.len, tag) == 0
               ? KEST_OK : KEST_E_CRYPTO;
}

kest_status kest_stream_pull(kest_stream *stream, kest_bytes ad, kest_bytes sealed, uint8_t *out, bool *last)
{
    unsigned char tag = 0;

    if (sealed.len < KEST_STREAM_ADDS ||
        crypto_secretstream_xchacha20poly1305_pull(&stream->state, out, NULL, &tag, sealed.data, sealed.len, ad.data, ad.len) != 0)
        return KEST_E_SIGNATURE;
    /* Ours carry no other tags; the message was authentic, so the other side is not a Kest. */
    if (tag != crypto_secretstream_xchacha20poly1305_TAG_REKEY && tag != crypto_secretstream_xchacha20poly1305_TAG_FINAL)
        return KEST_E_SIGNATURE;
    *last = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
    return KEST_OK;
}
