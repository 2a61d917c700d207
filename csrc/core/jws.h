/* jws.h: the compact serialisation of a JWS (RFC 7515, section 7.1) as Kest writes and accepts it. */
#ifndef KEST_JWS_H
#define KEST_JWS_H

#include "b64url.h"
#include "buf.h"
#include "crypto.h"
#include "json_read.h"
#include "shared.h"

/* Where the three parts stand in the text; the signing input is [0, sig_at - 1). */
typedef struct kest_jws_view {
    size_t header_len;
    size_t payload_at, payload_len;
    size_t sig_at, sig_len;
} kest_jws_view;

/* KEST_E_JWS_PARTS unless there are exactly three non-empty parts, KEST_E_LIMIT beyond KEST_MAX_JWS. */
kest_status kest_jws_split(const uint8_t *jws, size_t len, kest_jws_view *out);

/* Whether a JWS of these parts (header in base64url, payload and signature before it) is one that readers take. */
static inline bool kest_jws_fits(size_t header_b64, size_t payload, size_t sig)
{
    return header_b64 <= KEST_MAX_JWS && payload <= KEST_MAX_JWS &&
           header_b64 + kest_b64_encoded_len(payload) + kest_b64_encoded_len(sig) + 2 <= KEST_MAX_JWS;
}

typedef struct kest_jws_header {
    kest_alg alg;
    kest_str kid; /* into the decoded header or the tree read from it */
} kest_jws_header;

/* Reads a decoded header: canonical JSON with exactly alg, kid (not empty) and typ "JWS", and x5c (a non-empty array
 * of strings) where the algorithm is not EdDSA. Anything else could be a demand that we would overlook. */
kest_status kest_jws_header_read(const uint8_t *text, size_t len, const kest_json *root, kest_jws_header *out);

/* base64url of the header for `alg`, `principal` and `typ`, appended to `out`. */
kest_status kest_jws_header_write(kest_buf *out, kest_alg alg, const uint8_t *principal, size_t len, const char *typ);

#endif
