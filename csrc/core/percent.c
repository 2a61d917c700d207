#include "percent.h"

#include "utf8.h"

#include <string.h>

/* Octets that stand for themselves: baggage-octet (visible ASCII without the double quote, comma, semicolon and backslash)
 * without the two that do not. */
static const uint8_t plain[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['&'] = 1, ['\''] = 1, ['('] = 1, [')'] = 1, ['*'] = 1, ['-'] = 1, ['.'] = 1, ['/'] = 1,
    ['0'] = 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, [':'] = 1, ['<'] = 1, ['='] = 1, ['>'] = 1, ['?'] = 1, ['@'] = 1,
    ['A'] = 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ['['] = 1, [']'] = 1, ['^'] = 1,
    ['_'] = 1, ['`'] = 1, ['a'] = 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    ['{'] = 1, ['|'] = 1, ['}'] = 1, ['~'] = 1,
};

/* How many octets from src on stand for themselves. */
static size_t plain_run(const uint8_t *src, const uint8_t *end)
{
    const uint8_t *from = src;

    for (; end - src >= 8; src += 8)
        if (!(plain[src[0]] & plain[src[1]] & plain[src[2]] & plain[src[3]] & plain[src[4]] & plain[src[5]] & plain[src[6]] &
              plain[src[7]]))
            break;
    while (src < end && plain[*src])
        src++;
    return (size_t)(src - from);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

kest_status kest_percent_decode(const uint8_t *src, size_t n, uint8_t *out, size_t *len)
{
    const uint8_t *end = src + n;
    uint8_t *to = out;

    while (src < end) {
        const size_t run = plain_run(src, end);

        memcpy(to, src, run);
        to += run;
        src += run;
        if (src == end)
            break;
        if (*src == '+') {
            *to++ = ' ';
            src++;
        } else {
            const int high = end - src > 2 ? hex_digit(src[1]) : -1, low = end - src > 2 ? hex_digit(src[2]) : -1;

            if (*src != '%' || high < 0 || low < 0)
                return KEST_E_PERCENT;
            *to++ = (uint8_t)(high << 4 | low);
            src += 3;
        }
    }
    *len = (size_t)(to - out);
    return kest_utf8_valid(out, *len, NULL) ? KEST_OK : KEST_E_UTF8;
}
