/* percent.h: values of W3C baggage members. */
#ifndef KEST_PERCENT_H
#define KEST_PERCENT_H

#include "kest.h"

/* Decodes a member's value into `out` (room for n bytes): baggage-octets (W3C Baggage, section 3.3.1) with percent-encoded
 * octets (RFC 3986, section 2.1); a bare plus is OpenTelemetry's space. KEST_E_PERCENT for anything else, KEST_E_UTF8 when the
 * result is not UTF-8. */
kest_status kest_percent_decode(const uint8_t *src, size_t n, uint8_t *out, size_t *len);

#endif
