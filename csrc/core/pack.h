/* pack.h: the compressed transport forms of a passport. */
#ifndef KEST_PACK_H
#define KEST_PACK_H

#include "buf.h"
#include "chain.h"

/* The JSON array of JWS strings. A JWS of an unbroken node holds nothing that JSON would escape; others are escaped. */
void kest_pack_json(kest_buf *out, kest_node *const *nodes, size_t count);

/* zlib at level 1, then base64url (kest.passport_z). */
kest_status kest_pack_z(const uint8_t *text, size_t len, kest_buf *out);
/* Undoes it into `out`; stops as soon as more than max_bytes would come out (KEST_E_LIMIT). KEST_E_B64 or
 * KEST_E_INFLATE for anything that is not exactly one complete zlib stream. */
kest_status kest_unpack_z(const uint8_t *text, size_t len, size_t max_bytes, kest_buf *out);

/* The dense form (docs/formats.md): about a quarter of passport_z. KEST_E_PACK_FORM when these entries cannot be
 * rebuilt byte for byte from it: use another form then. Result is base64url. */
kest_status kest_pack_dense(kest_node *const *nodes, size_t count, kest_buf *out);
/* Rebuilds every JWS into `builder`, in order. Caps as above; `max_bytes` counts what is inflated and what is built. */
kest_status kest_unpack_dense(const uint8_t *text, size_t len, size_t max_bytes, size_t max_entries,
                              kest_builder *builder);

/* The same in steps. A dense form taken apart, of which nothing is rebuilt yet. */
typedef struct kest_dense kest_dense;
kest_status kest_dense_open(const uint8_t *text, size_t len, size_t max_bytes, size_t max_entries, kest_dense **out);
void kest_dense_free(kest_dense *dense); /* NULL is fine */
size_t kest_dense_count(const kest_dense *dense); /* entries, at least one */
size_t kest_dense_bytes(const kest_dense *dense); /* memory that it holds on to */
const uint8_t *kest_dense_signature(const kest_dense *dense, size_t entry); /* KEST_SIG_LEN bytes */
/* True when `dense` begins with exactly what `done`, built to its end, holds: then it goes on behind those entries, which
 * have to be in the builder. False: unchanged. */
bool kest_dense_resume(kest_dense *dense, const kest_dense *done);
/* Rebuilds what is left into `builder`, which holds the entries before. */
kest_status kest_dense_build(kest_dense *dense, kest_builder *builder);

/* Reads a JSON array of strings into `builder`; KEST_E_LIMIT above max_entries. *error_at: offset of a syntax error. */
kest_status kest_unpack_json(const uint8_t *text, size_t len, size_t max_entries, kest_builder *builder, size_t *error_at);

#endif
