/* number.h: numbers as ECMAScript prints them (RFC 8785, section 3.2.2.3), and back. */
#ifndef KEST_NUMBER_H
#define KEST_NUMBER_H

#include "kest.h"

enum { KEST_NUMBER_ROOM = 32 }; /* enough for any double or int64 */

/* ECMAScript Number::toString of a finite double: shortest digits that read back to the same value, the one
 * closest to it among those; "0" for both zeros. KEST_E_NAN for NaN and infinities.
 * Independent of the locale. Writes *len characters, no terminator. */
kest_status kest_double_print(double value, char out[KEST_NUMBER_ROOM], size_t *len);

/* Decimal digits of an int64; returns their count. */
size_t kest_int_print(int64_t value, char out[KEST_NUMBER_ROOM]);

/* The double nearest to a JSON number token (already checked to match the grammar), independent of the locale.
 * KEST_E_JSON_NUMBER when it would be infinite. `len` may be any length. */
kest_status kest_double_read(const uint8_t *token, size_t len, double *out);

#endif
