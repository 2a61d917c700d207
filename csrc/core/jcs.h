/* jcs.h: RFC 8785 canonical JSON, written straight into a buffer. */
#ifndef KEST_JCS_H
#define KEST_JCS_H

#include "buf.h"
#include "json_read.h"

/* A quoted, escaped string. `text` must be well-formed UTF-8 (kest_utf8_valid); this does not check. */
void kest_jcs_string(kest_buf *b, const uint8_t *text, size_t len);
/* An integer within +-KEST_MAX_SAFE_INT; a larger one sets b->status to KEST_E_JSON_NUMBER. */
void kest_jcs_int(kest_buf *b, int64_t value);
/* A finite double; others set b->status to KEST_E_NAN. */
void kest_jcs_double(kest_buf *b, double value);

/* The canonical form of a parsed tree. KEST_E_NOMEM or b->status. */
kest_status kest_jcs_value(kest_buf *b, const kest_json *value);

/* KEST_OK when `text`, from which `root` was parsed, is exactly its own canonical form (no white space around it
 * either), else KEST_E_NOT_CANONICAL. Must not be slower than a small multiple of reading the text once, and
 * allocates nothing for objects of up to 32 members. */
kest_status kest_jcs_check(const uint8_t *text, size_t len, const kest_json *root);

#endif
