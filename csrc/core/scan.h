/* scan.h: the inner loop of reading and writing JSON strings (private to the core). */
#ifndef KEST_SCAN_H
#define KEST_SCAN_H

#include "kest.h"

#include <string.h>

#define KEST_SCAN_ONES UINT64_C(0x0101010101010101)
/* Values of stop_high. */
#define KEST_SCAN_ASCII UINT64_C(0x8080808080808080) /* bytes >= 0x80 end the run */
#define KEST_SCAN_ANY UINT64_C(0)                    /* bytes >= 0x80 belong to the run */

/* The bytes of a word that cannot stand for themselves in a JSON string (controls, quote, backslash, and those
 * of stop_high) have their top bit set in the result. Borrows can set further bits, but only above a true one,
 * so the result is exact as a whole and in its lowest bit. */
static inline uint64_t kest_scan_word(uint64_t word, uint64_t stop_high)
{
    uint64_t quote = word ^ (KEST_SCAN_ONES * '"'), slash = word ^ (KEST_SCAN_ONES * '\\');
    uint64_t special = (word - KEST_SCAN_ONES * 0x20) & ~word;

    special |= (quote - KEST_SCAN_ONES) & ~quote;
    special |= (slash - KEST_SCAN_ONES) & ~slash;
    return (special & KEST_SCAN_ASCII) | (word & stop_high);
}

/* The first byte in [p, end) that ends the run, or end. */
static inline const uint8_t *kest_scan(const uint8_t *p, const uint8_t *end, uint64_t stop_high)
{
    uint64_t word, found;

    for (; end - p >= 8; p += 8) {
        memcpy(&word, p, sizeof word);
        found = kest_scan_word(word, stop_high);
        if (found) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            return p + __builtin_ctzll(found) / 8;
#else
            break; /* the loop below finds which of the eight it was */
#endif
        }
    }
    for (; p < end; p++) {
        if (*p < 0x20 || *p == '"' || *p == '\\' || (stop_high && *p >= 0x80))
            break;
    }
    return p;
}

/* Where `what` first stands in `text`, or NULL. For short needles. */
static inline const uint8_t *kest_find(const uint8_t *text, size_t len, const char *what, size_t size)
{
    const uint8_t *const end = text + len;

    while (len >= size && (text = memchr(text, what[0], len - size + 1)) != NULL) {
        if (memcmp(text, what, size) == 0)
            return text;
        len = (size_t)(end - ++text);
    }
    return NULL;
}

#endif
