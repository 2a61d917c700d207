#include "utf8.h"

#include <string.h>

/* Length of the well-formed sequence at p that begins with a byte >= 0x80; 0 when there is none.
 * The bounds on the second byte are those of RFC 3629, section 4: they exclude overlong forms, surrogates and
 * everything above U+10FFFF. */
static size_t sequence(const uint8_t *p, size_t room)
{
    uint8_t lead = p[0], low = 0x80, high = 0xBF;
    size_t len, i;

    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (room < len)
        return 0;
    switch (lead) {
    case 0xE0: low = 0xA0; break;
    case 0xED: high = 0x9F; break;
    case 0xF0: low = 0x90; break;
    case 0xF4: high = 0x8F; break;
    default: break;
    }
    if (p[1] < low || p[1] > high)
        return 0;
    for (i = 2; i < len; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    return len;
}

bool kest_utf8_valid(const uint8_t *text, size_t len, size_t *bad)
{
    size_t at = 0, step;
    uint64_t word;

    while (at < len) {
        if (text[at] < 0x80) {
            /* Most text is ASCII: pass over it eight bytes at a time. */
            for (; len - at >= 8; at += 8) {
                memcpy(&word, text + at, sizeof word);
                if (word & UINT64_C(0x8080808080808080))
                    break;
            }
            while (at < len && text[at] < 0x80)
                at++;
            continue;
        }
        step = sequence(text + at, len - at);
        if (!step) {
            if (bad)
                *bad = at;
            return false;
        }
        at += step;
    }
    return true;
}

int kest_utf16_compare(const uint8_t *a, size_t alen, const uint8_t *b, size_t blen)
{
    size_t common = alen < blen ? alen : blen, i = 0;
    uint64_t x, y;

    for (; common - i >= 8; i += 8) {
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        if (x != y)
            break;
    }
    while (i < common && a[i] == b[i])
        i++;
    if (i == common)
        return alen == blen ? 0 : alen < blen ? -1 : 1;
    /* Everything before is equal, so both bytes are at the same place of a sequence, and UTF-8 byte order is code
     * point order. UTF-16 agrees except that supplementary characters (lead byte >= 0xF0) begin with a surrogate
     * and so come before U+E000..U+FFFF (lead byte 0xEE or 0xEF). No continuation byte is that large. */
    if (a[i] >= 0xEE && b[i] >= 0xEE && (a[i] >= 0xF0) != (b[i] >= 0xF0))
        return a[i] >= 0xF0 ? -1 : 1;
    return a[i] < b[i] ? -1 : 1;
}

size_t kest_utf8_encode(uint32_t cp, uint8_t out[4])
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xC0 | cp >> 6);
        out[1] = (uint8_t)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xE0 | cp >> 12);
        out[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | cp >> 18);
    out[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (cp & 0x3F));
    return 4;
}
