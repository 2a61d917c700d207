/* vault.h: secret-key encryption, from libsodium: data under a passphrase (Argon2id), data under a key
 * (XChaCha20-Poly1305), and streams of messages under a key that moves on with each (secretstream).
 * Derived keys live in locked memory and are wiped. Nothing here allocates but for those.
 */
#ifndef KEST_VAULT_H
#define KEST_VAULT_H

#include "crypto.h"

enum {
    KEST_VAULT_KEY = 32,
    KEST_VAULT_NONCE = 24,
    KEST_VAULT_SALT = 16,
    KEST_VAULT_TAG = 16,    /* what sealing adds */
    KEST_STREAM_HEADER = 24,
    KEST_STREAM_ADDS = 17
};

typedef struct kest_bytes {
    const uint8_t *data;
    size_t len;
} kest_bytes;

/* What a key is derived with: passes and bytes of Argon2id (RFC 9106, one lane). */
typedef struct kest_vault_cost {
    unsigned long long passes;
    size_t memory;
} kest_vault_cost;

/* XChaCha20-Poly1305; `out` has msg.len + KEST_VAULT_TAG bytes, or that much less. Opening: KEST_E_SIGNATURE when the key,
 * the nonce, the data or the associated data is another; `out` then holds nothing of use. */
kest_status kest_aead_seal(const uint8_t key[KEST_VAULT_KEY], const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes msg,
                           uint8_t *out);
kest_status kest_aead_open(const uint8_t key[KEST_VAULT_KEY], const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes sealed,
                           uint8_t *out);

/* The same under a passphrase. KEST_E_LIMIT: a cost that libsodium does not do; KEST_E_NOMEM: not that much memory. */
kest_status kest_vault_seal(kest_bytes passphrase, const uint8_t salt[KEST_VAULT_SALT], kest_vault_cost cost,
                            const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes msg, uint8_t *out);
kest_status kest_vault_open(kest_bytes passphrase, const uint8_t salt[KEST_VAULT_SALT], kest_vault_cost cost,
                            const uint8_t nonce[KEST_VAULT_NONCE], kest_bytes ad, kest_bytes sealed, uint8_t *out);

/* One direction of a stream. The key is replaced after each message and the old one wiped: who takes the state later
 * cannot read what went before. Not for two threads at once. */
typedef struct kest_stream kest_stream;
kest_status kest_stream_push_new(const uint8_t key[KEST_VAULT_KEY], uint8_t header[KEST_STREAM_HEADER], kest_stream **out);
kest_status kest_stream_pull_new(const uint8_t key[KEST_VAULT_KEY], const uint8_t header[KEST_STREAM_HEADER], kest_stream **out);
void kest_stream_free(kest_stream *stream); /* wipes; NULL is fine */
/* `out` has msg.len + KEST_STREAM_ADDS bytes, or that much less. */
kest_status kest_stream_push(kest_stream *stream, kest_bytes ad, kest_bytes msg, bool last, uint8_t *out);
/* KEST_E_SIGNATURE: not the next message of this stream; the stream stays where it was. */
kest_status kest_stream_pull(kest_stream *stream, kest_bytes ad, kest_bytes sealed, uint8_t *out, bool *last);

#endif
