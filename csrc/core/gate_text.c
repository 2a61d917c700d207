#include "gate_text.h"

#include "crypto.h"

#include <arpa/inet.h>
#include <math.h>
#include <pthread.h>

static bool starts_with(kest_str text, kest_str prefix)
{
    return text.len >= prefix.len && (prefix.len == 0 || memcmp(text.data, prefix.data, prefix.len) == 0);
}

bool kest_gate_matches(kest_gate_pattern_mode mode, kest_str pattern, kest_str text)
{
    switch (mode) {
    case KEST_PATTERN_EXACT: return text.len == pattern.len && starts_with(text, pattern);
    case KEST_PATTERN_PREFIX: return starts_with(text, pattern);
    case KEST_PATTERN_BEYOND: return text.len > pattern.len && starts_with(text, pattern);
    case KEST_PATTERN_ALL: return true;
    }
    return false;
}

const kest_gate_value *kest_gate_find_param(const kest_gate_context *ctx, kest_str name)
{
    for (size_t i = 0; i < ctx->nparams; i++)
        if (kest_gate_same(ctx->params[i].name, name))
            return &ctx->params[i].value;
    return NULL;
}

/* ---- paths ---- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unreserved(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
           c == '~';
}

/* The next character after decoding; moves *at behind it. */
static uint8_t next_char(kest_str path, size_t *at)
{
    const uint8_t c = path.data[(*at)++];

    if (c == '%' && path.len - *at >= 2) {
        const int high = hex_digit(path.data[*at]), low = hex_digit(path.data[*at + 1]);
        const int decoded = high < 0 || low < 0 ? -1 : high * 16 + low;

        if (unreserved(decoded)) {
            *at += 2;
            return (uint8_t)decoded;
        }
    }
    return c == '\\' ? '/' : c;
}

bool kest_gate_path_is_normal(kest_str path)
{
    for (size_t i = 0; i < path.len; i++) {
        const uint8_t c = path.data[i];

        if (c == '%' || c == '\\')
            return false;
        if ((c == '.' && (i == 0 || path.data[i - 1] == '/')) || (c == '/' && i && path.data[i - 1] == '/'))
            return false; /* perhaps: "/.x" is normal as well, and survives the long way */
    }
    return path.len <= 1 || path.data[path.len - 1] != '/';
}

/* Ends the segment that began at `start`; false when it leads out. `floor`: length of the root. */
static bool end_segment(uint8_t *out, size_t *len, size_t start, size_t floor)
{
    const size_t size = *len - start;

    if (size == 1 && out[start] == '.') {
        *len = start;
    } else if (size == 2 && out[start] == '.' && out[start + 1] == '.') {
        if (start <= floor)
            return false;
        *len = start - 1; /* the slash */
        while (*len > floor && out[*len - 1] != '/')
            --*len;
    }
    return true;
}

bool kest_gate_path(kest_str path, uint8_t *out, size_t *len)
{
    size_t at = 0, start, floor = 0;

    *len = 0;
    if (path.len && (path.data[0] == '/' || path.data[0] == '\\')) {
        out[(*len)++] = '/';
        floor = 1;
        at = 1;
    }
    start = *len;
    while (at < path.len) {
        const uint8_t c = next_char(path, &at);

        if (c != '/') {
            out[(*len)++] = c;
            continue;
        }
        if (!end_segment(out, len, start, floor))
            return false;
        if (*len > floor && out[*len - 1] != '/')
            out[(*len)++] = '/';
        start = *len;
    }
    if (!end_segment(out, len, start, floor))
        return false;
    if (*len > floor && out[*len - 1] == '/')
        --*len;
    return true;
}

/* ---- addresses and places ---- */

bool kest_gate_ip_read(kest_str text, kest_gate_ip *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char copy[INET6_ADDRSTRLEN + 1];

    if (text.len == 0 || text.len >= sizeof copy || memchr(text.data, 0, text.len))
        return false;
    memcpy(copy, text.data, text.len);
    copy[text.len] = 0;
    if (inet_pton(AF_INET, copy, out->bytes + 12) == 1)
        memcpy(out->bytes, mapped, sizeof mapped);
    else if (inet_pton(AF_INET6, copy, out->bytes) != 1)
        return false;
    out->known = true;
    return true;
}

double kest_gate_distance(const kest_gate_geo *a, const kest_gate_geo *b)
{
    const double radian = 3.14159265358979323846 / 180.0;
    const double north = sin((b->latitude - a->latitude) * radian / 2), east = sin((b->longitude - a->longitude) * radian / 2);
    const double square = north * north + cos(a->latitude * radian) * cos(b->latitude * radian) * east * east;

    return 2 * 6371.0 * asin(sqrt(square < 1 ? square : 1)); /* rounding can exceed 1 at antipodes */
}

/* ---- names ---- */

static uint8_t name_key[KEST_KEYED_HASH_KEY];
static pthread_once_t name_key_once = PTHREAD_ONCE_INIT;

static void draw_name_key(void)
{
    kest_random(name_key, sizeof name_key);
}

void kest_gate_name(kest_str name, uint8_t out[KEST_GATE_KEY_LEN])
{
    pthread_once(&name_key_once, draw_name_key);
    kest_keyed_hash128(name_key, name.data, name.len, out);
}

void kest_gate_join(const uint8_t (*parts)[KEST_GATE_KEY_LEN], size_t count, uint8_t out[KEST_GATE_KEY_LEN])
{
    kest_gate_name((kest_str){&parts[0][0], count * KEST_GATE_KEY_LEN}, out);
}
