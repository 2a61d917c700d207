/* utf8.h: validation and ordering of UTF-8 text. */
#ifndef KEST_UTF8_H
#define KEST_UTF8_H

#include "kest.h"

/* True for well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
 * On false, *bad (may be NULL) is the offset of the first byte that is not part of a well-formed sequence. */
bool kest_utf8_valid(const uint8_t *text, size_t len, size_t *bad);

/* Orders two well-formed UTF-8 texts by their UTF-16 code units, as RFC 8785, section 3.2.3 asks:
 * negative, zero or positive. Differs from memcmp only where U+E000..U+FFFF meets a supplementary character. */
int kest_utf16_compare(const uint8_t *a, size_t alen, const uint8_t *b, size_t blen);

/* Writes code point `cp` (a scalar value) as UTF-8 into out[4]; returns its length. */
size_t kest_utf8_encode(uint32_t cp, uint8_t out[4]);

#endif
