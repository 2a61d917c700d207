/* crypto.h: the one seam to cryptographic libraries. crypto_sodium.c does Ed25519, random numbers and key memory;
 * crypto_openssl.c does SHA-256 (it uses the CPU's SHA instructions, libsodium does not) and the algorithms of keys
 * that live elsewhere (ES256, RS256), verification only. No primitive is written here.
 */
#ifndef KEST_CRYPTO_H
#define KEST_CRYPTO_H

#include "kest.h"

typedef enum kest_alg { KEST_ALG_EDDSA = 0, KEST_ALG_ES256 = 1, KEST_ALG_RS256 = 2, KEST_ALG_COUNT } kest_alg;

/* The JWS "alg" value; NULL out of range. */
const char *kest_alg_name(kest_alg alg);
/* KEST_E_JWS_ALG for anything but the three above. */
kest_status kest_alg_from_name(const uint8_t *name, size_t len, kest_alg *out);

/* Call once before anything else here; safe to call again and from several threads. */
kest_status kest_crypto_init(void);
void kest_random(void *out, size_t len); /* ends the process rather than give predictable bytes */
void kest_wipe(void *ptr, size_t len);

/* SipHash-2-4 under a random key: for tables whose places nobody outside may choose. */
enum { KEST_KEYED_HASH_KEY = 16 };
uint64_t kest_keyed_hash(const uint8_t key[KEST_KEYED_HASH_KEY], const uint8_t *data, size_t len);
/* The same with 128 bits of output, where equal hashes stand for equal names. */
void kest_keyed_hash128(const uint8_t key[KEST_KEYED_HASH_KEY], const void *data, size_t len, uint8_t out[16]);

kest_status kest_sha256(const void *data, size_t len, uint8_t out[KEST_HASH_LEN]);
void kest_hex(const uint8_t *src, size_t n, uint8_t *out); /* 2n lower-case digits, no terminator */
/* KEST_E_SCHEMA unless src is exactly n*2 lower-case hexadecimal digits. */
kest_status kest_unhex(const uint8_t *src, size_t n, uint8_t *out);

/* An Ed25519 secret key: in memory that is locked where the system permits, guarded by inaccessible pages,
 * read-only after creation and wiped when freed. Immutable, so threads may share it. */
typedef struct kest_seckey kest_seckey;
/* `seed` is KEST_SEED_LEN bytes, or NULL for a random key. */
kest_status kest_seckey_new(const uint8_t *seed, kest_seckey **out);
void kest_seckey_free(kest_seckey *key);
void kest_seckey_public(const kest_seckey *key, uint8_t out[KEST_PK_LEN]);
void kest_seckey_seed(const kest_seckey *key, uint8_t out[KEST_SEED_LEN]); /* the caller wipes out */
kest_status kest_sign(const kest_seckey *key, const uint8_t *msg, size_t len, uint8_t sig[KEST_SIG_LEN]);

/* A public key of any of the three algorithms. Immutable, reference counted, shared between threads. */
typedef struct kest_pubkey kest_pubkey;
kest_status kest_pubkey_ed25519(const uint8_t *raw, size_t len, kest_pubkey **out);
kest_status kest_pubkey_p256(const uint8_t *x, const uint8_t *y, kest_pubkey **out); /* 32 bytes each */
kest_status kest_pubkey_rsa(const uint8_t *n, size_t nlen, const uint8_t *e, size_t elen, kest_pubkey **out);
/* SubjectPublicKeyInfo; Ed25519, P-256 or RSA of 2,048 to 16,384 bits, otherwise KEST_E_KEY. */
kest_status kest_pubkey_spki(const uint8_t *der, size_t len, kest_pubkey **out);
enum { KEST_RSA_N_MAX = 2048, KEST_RSA_E_MAX = 8 }; /* bytes: larger ones only burn time */
/* What a JWK holds of it (RFC 7518, section 6; RFC 8037): x of an Ed25519 key, x and y of a P-256 key, n and e of an RSA key,
 * big-endian; `blen` is 0 where there is no second. */
kest_status kest_pubkey_numbers(const kest_pubkey *key, uint8_t a[KEST_RSA_N_MAX], size_t *alen, uint8_t b[32], size_t *blen);
kest_pubkey *kest_pubkey_ref(kest_pubkey *key);
void kest_pubkey_unref(kest_pubkey *key);
kest_alg kest_pubkey_alg(const kest_pubkey *key);
/* Raw bytes of an Ed25519 key, NULL for the others. */
const uint8_t *kest_pubkey_raw(const kest_pubkey *key);
/* KEST_OK or KEST_E_SIGNATURE. An ES256 signature is raw r||s (RFC 7518, section 3.4), never DER. */
kest_status kest_pubkey_verify(const kest_pubkey *key, const uint8_t *msg, size_t len, const uint8_t *sig,
                               size_t siglen);

#endif
