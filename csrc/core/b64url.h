/* b64url.h: base64url without padding (RFC 4648, section 5; RFC 7515, appendix C). */
#ifndef KEST_B64URL_H
#define KEST_B64URL_H

#include "kest.h"

/* Length of the encoding of n bytes. n is at most SIZE_MAX / 2. */
static inline size_t kest_b64_encoded_len(size_t n) { return n / 3 * 4 + (n % 3 ? n % 3 + 1 : 0); }
/* Length of what n characters decode to, if they are valid. */
static inline size_t kest_b64_decoded_len(size_t n) { return n / 4 * 3 + (n % 4 ? n % 4 - 1 : 0); }

/* Writes kest_b64_encoded_len(n) characters, no terminator. */
void kest_b64_encode(const uint8_t *src, size_t n, uint8_t *out);

/* Writes kest_b64_decoded_len(n) bytes. Strict, so that one value has exactly one spelling: KEST_E_B64 for any
 * character outside the alphabet (padding, white space, '+', '/'), for n % 4 == 1, and for trailing bits set. */
kest_status kest_b64_decode(const uint8_t *src, size_t n, uint8_t *out);

#endif
