#include "json_escape.h"

#include "utf8.h"

#include <string.h>

/* Four hexadecimal digits, or -1. */
static int32_t hex4(const uint8_t *p, const uint8_t *end)
{
    int32_t value = 0;
    int i, digit;

    if (end - p < 4)
        return -1;
    for (i = 0; i < 4; i++) {
        if (p[i] >= '0' && p[i] <= '9')
            digit = p[i] - '0';
        else if ((p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'f')
            digit = (p[i] | 0x20) - 'a' + 10;
        else
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* A \u escape, of which *p is the backslash: moves *p behind it (and behind the second half of a pair). */
static kest_status read_unicode_escape(const uint8_t **p, const uint8_t *end, uint32_t *cp)
{
    int32_t high = hex4(*p + 2, end), low;

    if (high < 0)
        return KEST_E_JSON;
    if ((high & 0xF800) != 0xD800) {
        *cp = (uint32_t)high;
        *p += 6;
        return KEST_OK;
    }
    if (high >= 0xDC00 || end - *p < 8 || (*p)[6] != '\\' || (*p)[7] != 'u')
        return KEST_E_SURROGATE;
    low = hex4(*p + 8, end);
    if (low < 0)
        return KEST_E_JSON;
    if ((low & 0xFC00) != 0xDC00)
        return KEST_E_SURROGATE;
    *cp = (uint32_t)(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
    *p += 12;
    return KEST_OK;
}

/* One escape; same contract. */
static kest_status read_escape(const uint8_t **p, const uint8_t *end, uint32_t *cp)
{
    if (end - *p < 2)
        return KEST_E_JSON;
    switch ((*p)[1]) {
    case '"': *cp = '"'; break;
    case '\\': *cp = '\\'; break;
    case '/': *cp = '/'; break;
    case 'b': *cp = '\b'; break;
    case 'f': *cp = '\f'; break;
    case 'n': *cp = '\n'; break;
    case 'r': *cp = '\r'; break;
    case 't': *cp = '\t'; break;
    case 'u': return read_unicode_escape(p, end, cp);
    default: return KEST_E_JSON;
    }
    *p += 2;
    return KEST_OK;
}

kest_status kest_json_unescape(const uint8_t **p, const uint8_t *end, uint8_t *out, size_t *len)
{
    uint8_t *to = out;
    const uint8_t *run;
    kest_status status;
    uint32_t cp;

    for (;;) {
        run = memchr(*p, '\\', (size_t)(end - *p));
        run = run ? run : end;
        memcpy(to, *p, (size_t)(run - *p));
        to += run - *p;
        *p = run;
        if (run == end)
            break;
        status = read_escape(p, end, &cp);
        if (status != KEST_OK)
            return status;
        to += kest_utf8_encode(cp, to);
    }
    *len = (size_t)(to - out);
    return KEST_OK;
}
