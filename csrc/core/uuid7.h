/* uuid7.h: UUIDv7 (RFC 9562, section 5.7), strictly increasing within a process, distinct after fork. */
#ifndef KEST_UUID7_H
#define KEST_UUID7_H

#include "kest.h"

/* Writes 36 lower-case characters, no terminator; *unix_ms (may be NULL) is the time the id carries.
 *
 * Layout: 48 bits of Unix milliseconds, then a 22-bit counter (RFC 9562, section 6.2, method 1) that starts at 0 in
 * each millisecond, then 52 bits drawn at random once per process and again after fork (section 6.9 and 6.10: the
 * random bits tell processes apart). Entry ids are public names, not secrets, so they need not be unguessable; ids
 * of one process share most of their bytes, which is what lets the dense form carry them in three or four.
 * When the clock is set back, ids go on from the last millisecond seen. Thread-safe, lock-free. */
void kest_uuid7(uint8_t out[KEST_UUID_LEN], int64_t *unix_ms);

/* The parts of a UUIDv7 text; false unless `text` is 36 lower-case characters of version 7 and RFC variant. */
typedef struct kest_uuid7_parts {
    uint64_t unix_ms; /* 48 bits */
    uint32_t counter; /* 22 bits */
    uint64_t node;    /* 52 bits */
} kest_uuid7_parts;
bool kest_uuid7_split(const uint8_t *text, size_t len, kest_uuid7_parts *out);
void kest_uuid7_join(const kest_uuid7_parts *parts, uint8_t out[KEST_UUID_LEN]);

#endif
