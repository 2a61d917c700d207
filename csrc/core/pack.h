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

/* Reads a JSON array of strings into `builder`; KEST_E_LIMIT above max_entries. *error_at: offset of a syntax error. */
kest_status kest_unpack_json(const uint8_t *text, size_t len, size_t max_entries, kest_builder *builder, size_t *error_at);

#endif
