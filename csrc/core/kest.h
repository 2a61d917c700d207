/* kest.h: what every file of the core shares: status codes, limits, version.
 *
 * The core is plain C11 without the interpreter's headers, so that it can be tested and fuzzed without an
 * interpreter. Every function that can fail returns kest_status and leaves its outputs untouched on failure
 * unless its comment says otherwise.
 */
#ifndef KEST_H
#define KEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEST_SCHEMA_VERSION "0.3.0"
#define KEST_RUNTIME_NAME "kest-c"
#define KEST_RUNTIME_VERSION "0.3.0"

enum {
    KEST_MAX_DEPTH = 64,          /* nesting of JSON values, both directions */
    KEST_HASH_LEN = 32,           /* SHA-256 */
    KEST_HASH_HEX = 64,
    KEST_SIG_LEN = 64,            /* Ed25519, and ES256 as raw r||s */
    KEST_PK_LEN = 32,             /* Ed25519 */
    KEST_SEED_LEN = 32,
    KEST_UUID_LEN = 36,
    KEST_MAX_PARENTS = 1024,
    KEST_MAX_TRUST = 100
};
/* Integers beyond this have no exact IEEE 754 double, so no canonical form (RFC 8785, section 3.2.2.3). */
#define KEST_MAX_SAFE_INT INT64_C(9007199254740991)
/* A JWS longer than this is refused before anything of it is decoded. */
#define KEST_MAX_JWS ((size_t)16 * 1024 * 1024)

typedef enum kest_status {
    KEST_OK = 0,
    KEST_E_NOMEM,
    KEST_E_OVERFLOW,   /* a size would not fit */
    KEST_E_LIMIT,      /* a configured cap was reached */
    KEST_E_CRYPTO,     /* the crypto library failed */
    /* text */
    KEST_E_UTF8,
    KEST_E_SURROGATE,  /* a lone surrogate */
    KEST_E_B64,
    KEST_E_PERCENT,
    KEST_E_JSON,       /* syntax */
    KEST_E_JSON_DUP,   /* duplicate object key */
    KEST_E_JSON_DEPTH,
    KEST_E_JSON_TRAIL, /* data after the value */
    KEST_E_JSON_NUMBER,/* a number outside what Kest accepts */
    KEST_E_NAN,        /* NaN or infinity */
    KEST_E_NOT_CANONICAL,
    /* JWS */
    KEST_E_JWS_PARTS,
    KEST_E_JWS_HEADER,
    KEST_E_JWS_ALG,
    KEST_E_JWS_CRIT,
    KEST_E_SIGNATURE,
    KEST_E_KEY,
    KEST_E_KEY_TIME,   /* no key of the principal was valid when the entry was made */
    KEST_E_PRINCIPAL,  /* unknown principal */
    KEST_E_KID,        /* header kid is not the signed principal */
    /* entry */
    KEST_E_SCHEMA,
    KEST_E_TRUST_RANGE,
    KEST_E_TRUST_RISE,
    KEST_E_TRUST_LABEL,
    KEST_E_TRUST_MAX,
    KEST_E_MAY_NOT_SANITISE,
    KEST_E_TAINTS,
    KEST_E_TAINT_ORDER,
    /* passport */
    KEST_E_PARENT_MISSING,
    KEST_E_PARENT_DUP,
    KEST_E_DUPLICATE,
    KEST_E_TIP,
    KEST_E_BROKEN,     /* the passport holds an entry that could not be read */
    /* packing */
    KEST_E_INFLATE,
    KEST_E_PACK_FORM,  /* this passport has no dense form */
    KEST_E_STATUS_COUNT
} kest_status;

/* A short lower-case English phrase for a status; never NULL. */
const char *kest_strerror(kest_status status);

#endif
