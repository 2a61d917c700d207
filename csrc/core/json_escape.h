/* json_escape.h: the escapes of JSON strings (RFC 8259, section 7), for the reader. */
#ifndef KEST_JSON_ESCAPE_H
#define KEST_JSON_ESCAPE_H

#include "kest.h"

/* Writes the inside of a string token, [*p, end), to `out` without its escapes; `out` has room for as many bytes, since each
 * escape is longer than what it stands for. On failure *p stands at the escape that is none: KEST_E_JSON, or
 * KEST_E_SURROGATE for half a pair. */
kest_status kest_json_unescape(const uint8_t **p, const uint8_t *end, uint8_t *out, size_t *len);

#endif
