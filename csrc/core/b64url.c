#include "b64url.h"

#include <string.h>

static const char alphabet[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Value of each character plus one: everything outside the alphabet is an unnamed element, which is zero. */
static const uint8_t values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63, ['_'] = 64,
};

/* 0..63, or UINT32_MAX for a character outside the alphabet. */
static inline uint32_t value(uint8_t c)
{
    return (uint32_t)values[c] - 1u;
}

static inline uint8_t letter(uint64_t bits)
{
    return (uint8_t)alphabet[bits & 63];
}

void kest_b64_encode(const uint8_t *src, size_t n, uint8_t *out)
{
    uint64_t w;

    /* Six bytes are eight characters: enough independent look-ups to keep the processor busy. */
    for (; n >= 6; n -= 6, src += 6, out += 8) {
        w = (uint64_t)src[0] << 40 | (uint64_t)src[1] << 32 | (uint64_t)src[2] << 24 | (uint64_t)src[3] << 16 |
            (uint64_t)src[4] << 8 | (uint64_t)src[5];
        out[0] = letter(w >> 42);
        out[1] = letter(w >> 36);
        out[2] = letter(w >> 30);
        out[3] = letter(w >> 24);
        out[4] = letter(w >> 18);
        out[5] = letter(w >> 12);
        out[6] = letter(w >> 6);
        out[7] = letter(w);
    }
    for (; n >= 3; n -= 3, src += 3, out += 4) {
        w = (uint64_t)src[0] << 16 | (uint64_t)src[1] << 8 | (uint64_t)src[2];
        out[0] = letter(w >> 18);
        out[1] = letter(w >> 12);
        out[2] = letter(w >> 6);
        out[3] = letter(w);
    }
    if (n) {
        w = (uint64_t)src[0] << 16 | (n == 2 ? (uint64_t)src[1] << 8 : 0);
        out[0] = letter(w >> 18);
        out[1] = letter(w >> 12);
        if (n == 2)
            out[2] = letter(w >> 6);
    }
}

/* The last two or three characters; anything but exact bytes followed by zero bits has a second spelling. */
static kest_status decode_tail(const uint8_t *src, size_t n, uint8_t *out)
{
    uint32_t a = value(src[0]), b = value(src[1]), c = n == 3 ? value(src[2]) : 0, bits;

    if ((a | b | c) > 63)
        return KEST_E_B64;
    bits = a << 18 | b << 12 | c << 6;
    if (bits & (n == 3 ? 0xFFu : 0xFFFFu))
        return KEST_E_B64;
    out[0] = (uint8_t)(bits >> 16);
    if (n == 3)
        out[1] = (uint8_t)(bits >> 8);
    return KEST_OK;
}

/* 24 bits of four characters; *bad grows beyond 63 for one outside the alphabet. */
static inline uint32_t four(const uint8_t *src, uint32_t *bad)
{
    const uint32_t a = value(src[0]), b = value(src[1]), c = value(src[2]), d = value(src[3]);

    *bad |= a | b | c | d;
    return a << 18 | b << 12 | c << 6 | d;
}

static inline void put_be64(uint8_t *out, uint64_t word)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(out, &word, sizeof word);
}

kest_status kest_b64_decode(const uint8_t *src, size_t n, uint8_t *out)
{
    uint32_t bad = 0;

    if (n % 4 == 1)
        return KEST_E_B64;
    /* Eight characters are six bytes; the two that one store writes beyond them are written again by the next one. */
    for (; n >= 12; n -= 8, src += 8, out += 6) {
        const uint64_t high = four(src, &bad), low = four(src + 4, &bad) & 0xFFFFFFu;

        put_be64(out, high << 40 | low << 16);
    }
    for (; n >= 4; n -= 4, src += 4, out += 3) {
        const uint32_t bits = four(src, &bad);

        out[0] = (uint8_t)(bits >> 16);
        out[1] = (uint8_t)(bits >> 8);
        out[2] = (uint8_t)bits;
    }
    if (bad > 63)
        return KEST_E_B64;
    return n ? decode_tail(src, n, out) : KEST_OK;
}
