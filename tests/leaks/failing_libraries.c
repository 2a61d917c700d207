/* Preloaded, makes one call of libsodium, libcrypto, zlib or pthread_create fail: what fails is counted from kest_fail_call on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stddef.h>
#include <zlib.h>

static atomic_size_t made, failing;

/* The n-th call from now on fails (0: none); how many there were since the last time. */
size_t kest_fail_call(size_t which)
{
    const size_t count = atomic_load(&made);

    atomic_store(&failing, which);
    atomic_store(&made, 0);
    return count;
}

static int fails(void)
{
    return atomic_fetch_add(&made, 1) + 1 == atomic_load(&failing);
}

#define FAILING(type, name, failure, parameters, arguments)       \
    type name parameters                                          \
    {                                                             \
        static type(*real) parameters;                            \
                                                                  \
        if (!real)                                                \
            *(void **)&real = dlsym(RTLD_NEXT, #name);            \
        return fails() ? failure : real arguments;                \
    }

typedef unsigned char byte;
typedef unsigned long long length;

FAILING(int, crypto_sign_seed_keypair, -1, (byte *pk, byte *sk, const byte *seed), (pk, sk, seed))
FAILING(int, crypto_sign_keypair, -1, (byte *pk, byte *sk), (pk, sk))
FAILING(int, crypto_sign_detached, -1, (byte *sig, length *n, const byte *m, length mlen, const byte *sk), (sig, n, m, mlen, sk))
FAILING(int, crypto_sign_verify_detached, -1, (const byte *sig, const byte *m, length mlen, const byte *pk), (sig, m, mlen, pk))
FAILING(void *, sodium_malloc, NULL, (size_t size), (size))
FAILING(int, sodium_mprotect_readonly, -1, (void *at), (at))
FAILING(int, crypto_pwhash_argon2id, (errno = ENOMEM, -1),
        (byte *out, length n, const char *p, length plen, const byte *salt, length ops, size_t mem, int alg),
        (out, n, p, plen, salt, ops, mem, alg))
FAILING(int, crypto_aead_xchacha20poly1305_ietf_encrypt, -1,
        (byte *c, length *clen, const byte *m, length mlen, const byte *ad, length adlen, const byte *s, const byte *n, const byte *k),
        (c, clen, m, mlen, ad, adlen, s, n, k))
FAILING(int, crypto_aead_xchacha20poly1305_ietf_decrypt, -1,
        (byte *m, length *mlen, byte *s, const byte *c, length clen, const byte *ad, length adlen, const byte *n, const byte *k),
        (m, mlen, s, c, clen, ad, adlen, n, k))
FAILING(int, crypto_secretstream_xchacha20poly1305_init_push, -1,
        (crypto_secretstream_xchacha20poly1305_state * state, byte *header, const byte *k), (state, header, k))
FAILING(int, crypto_secretstream_xchacha20poly1305_init_pull, -1,
        (crypto_secretstream_xchacha20poly1305_state * state, const byte *header, const byte *k), (state, header, k))
FAILING(int, crypto_secretstream_xchacha20poly1305_push, -1,
        (crypto_secretstream_xchacha20poly1305_state * state, byte *c, length *clen, const byte *m, length mlen, const byte *ad,
         length adlen, byte tag),
        (state, c, clen, m, mlen, ad, adlen, tag))

FAILING(int, EVP_Digest, 0, (const void *data, size_t n, byte *md, unsigned *size, const EVP_MD *type, ENGINE *impl),
        (data, n, md, size, type, impl))
FAILING(int, EVP_PKEY_get_raw_public_key, 0, (const EVP_PKEY *key, byte *raw, size_t *n), (key, raw, n))
FAILING(int, EVP_PKEY_get_group_name, 0, (const EVP_PKEY *key, char *name, size_t size, size_t *n), (key, name, size, n))
FAILING(int, EVP_PKEY_get_bn_param, 0, (const EVP_PKEY *key, const char *name, BIGNUM **out), (key, name, out))
FAILING(int, BN_bn2binpad, -1, (const BIGNUM *number, byte *to, int size), (number, to, size))
FAILING(EVP_PKEY_CTX *, EVP_PKEY_CTX_new_from_name, NULL, (OSSL_LIB_CTX * lib, const char *name, const char *query), (lib, name, query))
FAILING(int, EVP_PKEY_fromdata_init, 0, (EVP_PKEY_CTX * ctx), (ctx))
FAILING(int, EVP_PKEY_fromdata, 0, (EVP_PKEY_CTX * ctx, EVP_PKEY **key, int selection, OSSL_PARAM p[]), (ctx, key, selection, p))
FAILING(OSSL_PARAM_BLD *, OSSL_PARAM_BLD_new, NULL, (void), ())
FAILING(int, OSSL_PARAM_BLD_push_BN, 0, (OSSL_PARAM_BLD * bld, const char *key, const BIGNUM *bn), (bld, key, bn))
FAILING(OSSL_PARAM *, OSSL_PARAM_BLD_to_param, NULL, (OSSL_PARAM_BLD * bld), (bld))
FAILING(BIGNUM *, BN_bin2bn, NULL, (const byte *s, int n, BIGNUM *out), (s, n, out))
FAILING(EVP_PKEY *, d2i_PUBKEY, NULL, (EVP_PKEY **out, const byte **in, long n), (out, in, n))
FAILING(int, i2d_PUBKEY, -1, (const EVP_PKEY *key, byte **out), (key, out))
FAILING(ECDSA_SIG *, ECDSA_SIG_new, NULL, (void), ())
FAILING(int, ECDSA_SIG_set0, 0, (ECDSA_SIG * sig, BIGNUM *r, BIGNUM *s), (sig, r, s))
FAILING(int, i2d_ECDSA_SIG, -1, (const ECDSA_SIG *sig, byte **out), (sig, out))
FAILING(EVP_MD_CTX *, EVP_MD_CTX_new, NULL, (void), ())
FAILING(int, EVP_DigestVerifyInit_ex, 0,
        (EVP_MD_CTX * ctx, EVP_PKEY_CTX **pctx, const char *name, OSSL_LIB_CTX *lib, const char *props, EVP_PKEY *key,
         const OSSL_PARAM p[]),
        (ctx, pctx, name, lib, props, key, p))
FAILING(int, EVP_DigestVerify, -1, (EVP_MD_CTX * ctx, const byte *sig, size_t n, const byte *m, size_t mlen), (ctx, sig, n, m, mlen))

FAILING(int, compress2, Z_MEM_ERROR, (Bytef *to, uLongf *n, const Bytef *from, uLong size, int level), (to, n, from, size, level))
FAILING(int, deflateInit2_, Z_MEM_ERROR,
        (z_streamp z, int level, int method, int bits, int mem, int strategy, const char *version, int size),
        (z, level, method, bits, mem, strategy, version, size))
FAILING(int, deflateSetDictionary, Z_STREAM_ERROR, (z_streamp z, const Bytef *d, uInt n), (z, d, n))
FAILING(int, deflate, Z_STREAM_ERROR, (z_streamp z, int flush), (z, flush))
FAILING(int, inflateInit_, Z_MEM_ERROR, (z_streamp z, const char *version, int size), (z, version, size))
FAILING(int, inflateInit2_, Z_MEM_ERROR, (z_streamp z, int bits, const char *version, int size), (z, bits, version, size))
FAILING(int, inflateSetDictionary, Z_DATA_ERROR, (z_streamp z, const Bytef *d, uInt n), (z, d, n))
FAILING(int, inflate, Z_MEM_ERROR, (z_streamp z, int flush), (z, flush))

FAILING(int, pthread_create, EAGAIN, (pthread_t * id, const pthread_attr_t *attr, void *(*run)(void *), void *arg),
        (id, attr, run, arg))
