#include "crypto.h"

#include "alloc.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>

struct kest_pubkey {
    atomic_uint refs;
    kest_alg alg;
    EVP_PKEY *pkey;           /* ES256 and RS256 */
    uint8_t raw[KEST_PK_LEN]; /* EdDSA */
};

/* Fetched once: a fetch by name takes longer than hashing an entry. */
static EVP_MD *sha256_md;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void fetch_sha256(void)
{
    sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
}

kest_status kest_sha256(const void *data, size_t len, uint8_t out[KEST_HASH_LEN])
{
    pthread_once(&sha256_once, fetch_sha256);
    if (!sha256_md || EVP_Digest(data, len, out, NULL, sha256_md, NULL) != 1)
        return KEST_E_CRYPTO;
    return KEST_OK;
}

void kest_hex(const uint8_t *src, size_t n, uint8_t *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = (uint8_t)digits[src[i] >> 4];
        out[2 * i + 1] = (uint8_t)digits[src[i] & 15];
    }
}

static int nibble(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

kest_status kest_unhex(const uint8_t *src, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        int hi = nibble(src[2 * i]), lo = nibble(src[2 * i + 1]);

        if (hi < 0 || lo < 0)
            return KEST_E_SCHEMA;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return KEST_OK;
}

const char *kest_alg_name(kest_alg alg)
{
    static const char *const names[] = {"EdDSA", "ES256", "RS256"};

    return alg < KEST_ALG_COUNT ? names[alg] : NULL;
}

kest_status kest_alg_from_name(const uint8_t *name, size_t len, kest_alg *out)
{
    for (unsigned a = 0; a < KEST_ALG_COUNT; a++) {
        const char *known = kest_alg_name((kest_alg)a);

        if (strlen(known) == len && memcmp(known, name, len) == 0) {
            *out = (kest_alg)a;
            return KEST_OK;
        }
    }
    return KEST_E_JWS_ALG;
}

static kest_status pubkey_new(kest_alg alg, EVP_PKEY *pkey, kest_pubkey **out)
{
    kest_pubkey *key = kest_calloc(1, sizeof *key);

    if (!key)
        return KEST_E_NOMEM;
    atomic_init(&key->refs, 1);
    key->alg = alg;
    key->pkey = pkey;
    *out = key;
    return KEST_OK;
}

kest_status kest_pubkey_ed25519(const uint8_t *raw, size_t len, kest_pubkey **out)
{
    kest_status st;

    /* A point of small order would make signatures that verify for many messages. */
    if (len != KEST_PK_LEN || !crypto_core_ed25519_is_valid_point(raw))
        return KEST_E_KEY;
    st = pubkey_new(KEST_ALG_EDDSA, NULL, out);
    if (st == KEST_OK)
        memcpy((*out)->raw, raw, KEST_PK_LEN);
    return st;
}

/* RFC 8017, section 3.1: odd, and 3 or more (under 1 everybody can sign); and small, for a large one only burns time. */
static bool has_good_exponent(const EVP_PKEY *pkey)
{
    BIGNUM *e = NULL;
    bool ok = EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &e) == 1 && BN_is_odd(e) && !BN_is_one(e) &&
              BN_num_bytes(e) <= KEST_RSA_E_MAX;

    BN_free(e);
    return ok;
}

/* Takes over `pkey` (NULL: something before failed) after checking that it is a kind we verify with. */
static kest_status adopt(EVP_PKEY *pkey, kest_pubkey **out)
{
    kest_status st = KEST_E_KEY;
    char group[32] = "";

    if (!pkey)
        return KEST_E_KEY;
    if (EVP_PKEY_is_a(pkey, "ED25519")) {
        uint8_t raw[KEST_PK_LEN];
        size_t len = sizeof raw;

        if (EVP_PKEY_get_raw_public_key(pkey, raw, &len) == 1)
            st = kest_pubkey_ed25519(raw, len, out);
        EVP_PKEY_free(pkey);
        return st;
    }
    if (EVP_PKEY_is_a(pkey, "EC")) {
        if (EVP_PKEY_get_group_name(pkey, group, sizeof group, NULL) == 1 && strcmp(group, "prime256v1") == 0)
            st = pubkey_new(KEST_ALG_ES256, pkey, out);
    } else if (EVP_PKEY_is_a(pkey, "RSA") && EVP_PKEY_get_bits(pkey) >= 2048 && EVP_PKEY_get_bits(pkey) <= 8 * KEST_RSA_N_MAX &&
               has_good_exponent(pkey)) {
        st = pubkey_new(KEST_ALG_RS256, pkey, out);
    }
    if (st != KEST_OK)
        EVP_PKEY_free(pkey);
    return st;
}

/* Builds a key of `type` ("EC", "RSA") from parameters; the provider checks that a point is on its curve. */
static EVP_PKEY *from_params(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *pkey = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);

    if (ctx && params && EVP_PKEY_fromdata_init(ctx) == 1 &&
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
        pkey = NULL;
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

kest_status kest_pubkey_p256(const uint8_t *x, const uint8_t *y, kest_pubkey **out)
{
    char group[] = "prime256v1";
    uint8_t point[65] = {4};
    OSSL_PARAM params[3];

    memcpy(point + 1, x, 32);
    memcpy(point + 33, y, 32);
    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0);
    params[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point);
    params[2] = OSSL_PARAM_construct_end();
    return adopt(from_params("EC", params), out);
}

kest_status kest_pubkey_rsa(const uint8_t *n, size_t nlen, const uint8_t *e, size_t elen, kest_pubkey **out)
{
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params = NULL;
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    BIGNUM *bn = NULL, *be = NULL;

    if (nlen > KEST_RSA_N_MAX || elen > KEST_RSA_E_MAX)
        goto done;
    bn = BN_bin2bn(n, (int)nlen, NULL);
    be = BN_bin2bn(e, (int)elen, NULL);
    if (!bld || !bn || !be || OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, bn) != 1 ||
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, be) != 1)
        goto done;
    params = OSSL_PARAM_BLD_to_param(bld);
    pkey = from_params("RSA", params);
done:
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    BN_free(bn);
    BN_free(be);
    return adopt(pkey, out);
}

/* libcrypto reads more than DER: numbers without their sign, lengths that could be shorter. One key has one encoding. */
static bool is_der_of(const EVP_PKEY *pkey, const uint8_t *der, size_t len)
{
    uint8_t *again = NULL;
    const int n = i2d_PUBKEY(pkey, &again);
    const bool same = n > 0 && (size_t)n == len && memcmp(again, der, len) == 0;

    OPENSSL_free(again);
    return same;
}

kest_status kest_pubkey_spki(const uint8_t *der, size_t len, kest_pubkey **out)
{
    const uint8_t *p = der;
    EVP_PKEY *pkey;

    if (len > 16384)
        return KEST_E_KEY;
    pkey = d2i_PUBKEY(NULL, &p, (long)len);
    if (pkey && !is_der_of(pkey, der, len)) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    return adopt(pkey, out);
}

kest_pubkey *kest_pubkey_ref(kest_pubkey *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

void kest_pubkey_unref(kest_pubkey *key)
{
    if (!key || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1)
        return;
    EVP_PKEY_free(key->pkey);
    kest_free(key);
}

kest_alg kest_pubkey_alg(const kest_pubkey *key)
{
    return key->alg;
}

const uint8_t *kest_pubkey_raw(const kest_pubkey *key)
{
    return key->alg == KEST_ALG_EDDSA ? key->raw : NULL;
}

/* Parameter `name`, big-endian, in `width` bytes or (0) without leading zeros; the caller's buffer is large enough for any key
 * that was let in. */
static kest_status number(const EVP_PKEY *pkey, const char *name, int width, uint8_t *out, size_t *len)
{
    BIGNUM *bn = NULL;
    int n = -1;

    if (EVP_PKEY_get_bn_param(pkey, name, &bn) == 1)
        n = BN_bn2binpad(bn, out, width ? width : BN_num_bytes(bn));
    BN_free(bn);
    *len = n > 0 ? (size_t)n : 0;
    return n > 0 ? KEST_OK : KEST_E_NOMEM;
}

kest_status kest_pubkey_numbers(const kest_pubkey *key, uint8_t a[KEST_RSA_N_MAX], size_t *alen, uint8_t b[32], size_t *blen)
{
    kest_status st;

    *blen = 0;
    switch (key->alg) {
    case KEST_ALG_EDDSA:
        memcpy(a, key->raw, KEST_PK_LEN);
        *alen = KEST_PK_LEN;
        return KEST_OK;
    case KEST_ALG_ES256:
        st = number(key->pkey, OSSL_PKEY_PARAM_EC_PUB_X, 32, a, alen);
        return st == KEST_OK ? number(key->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, 32, b, blen) : st;
    default:
        st = number(key->pkey, OSSL_PKEY_PARAM_RSA_N, 0, a, alen);
        return st == KEST_OK ? number(key->pkey, OSSL_PKEY_PARAM_RSA_E, 0, b, blen) : st;
    }
}

/* Raw r||s to the DER form that libcrypto takes; returns its length, 0 on failure. */
static size_t ecdsa_der(const uint8_t *sig, uint8_t **der)
{
    size_t len = 0;
    int n;
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(sig, 32, NULL), *s = BN_bin2bn(sig + 32, 32, NULL);

    if (pair && r && s && ECDSA_SIG_set0(pair, r, s) == 1) {
        r = s = NULL; /* now owned by pair */
        n = i2d_ECDSA_SIG(pair, der);
        len = n > 0 ? (size_t)n : 0;
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(pair);
    return len;
}

static kest_status evp_verify(const kest_pubkey *key, const uint8_t *msg, size_t len, const uint8_t *sig, size_t siglen)
{
    kest_status st = KEST_E_SIGNATURE;
    EVP_MD_CTX *ctx;

    pthread_once(&sha256_once, fetch_sha256);
    ctx = EVP_MD_CTX_new();
    if (!ctx)
        return KEST_E_NOMEM;
    if (EVP_DigestVerifyInit_ex(ctx, NULL, "SHA256", NULL, NULL, key->pkey, NULL) == 1 &&
        EVP_DigestVerify(ctx, sig, siglen, msg, len) == 1)
        st = KEST_OK;
    EVP_MD_CTX_free(ctx);
    return st;
}

kest_status kest_pubkey_verify(const kest_pubkey *key, const uint8_t *msg, size_t len, const uint8_t *sig,
                               size_t siglen)
{
    kest_status st = KEST_E_SIGNATURE;
    uint8_t *der = NULL;

    switch (key->alg) {
    case KEST_ALG_EDDSA:
        if (siglen == KEST_SIG_LEN && crypto_sign_verify_detached(sig, msg, len, key->raw) == 0)
            st = KEST_OK;
        break;
    case KEST_ALG_ES256:
        if (siglen == KEST_SIG_LEN) {
            size_t derlen = ecdsa_der(sig, &der);

            st = derlen ? evp_verify(key, msg, len, der, derlen) : KEST_E_NOMEM;
            OPENSSL_free(der);
        }
        break;
    case KEST_ALG_RS256:
        st = evp_verify(key, msg, len, sig, siglen);
        break;
    default:
        break;
    }
    return st;
}
