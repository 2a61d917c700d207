/* text.c: base64url, percent-encoding, UTF-8, UUIDs and resource paths, each against a slow statement of itself. The first
 * byte chooses. */
#include "fuzz.h"

#include "b64url.h"
#include "gate_text.h"
#include "percent.h"
#include "slow_json.h"
#include "utf8.h"
#include "uuid7.h"

static void base64url(const uint8_t *text, size_t len)
{
    const size_t n = kest_b64_decoded_len(len), encoded = kest_b64_encoded_len(len);
    uint8_t *out = exact(text, n > len ? len : n), *again = malloc(len + 1), *both = malloc(encoded + 1), *back = malloc(len + 1);

    if (!again || !both || !back)
        abort();
    if (kest_b64_decode(text, len, out) == KEST_OK) { /* one value has exactly one spelling */
        REQUIRE(kest_b64_encoded_len(n) == len);
        kest_b64_encode(out, n, again);
        REQUIRE(memcmp(again, text, len) == 0);
    }
    kest_b64_encode(text, len, both);
    for (size_t i = 0; i < encoded; i++)
        REQUIRE(isalnum(both[i]) || both[i] == '-' || both[i] == '_');
    REQUIRE(kest_b64_decoded_len(encoded) == len && kest_b64_decode(both, encoded, back) == KEST_OK);
    REQUIRE(memcmp(back, text, len) == 0);
    free(out);
    free(again);
    free(both);
    free(back);
}

static bool slow_utf8(const uint8_t *text, size_t len)
{
    slow s = {text, len, 0};
    slow_key key = {malloc(len + 1), 0};
    bool ok = true;

    if (!key.data)
        abort();
    while (ok && s.at < len) {
        if (text[s.at] < 0x20) /* which JSON would escape */
            s.at++;
        else
            ok = slow_plain(&s, &key);
    }
    free(key.data);
    return ok;
}

static void percent(const uint8_t *text, size_t len)
{
    static const char refused[] = "\",;\\% ";
    uint8_t *out = exact(text, len), *slow_out = exact(text, len);
    size_t n = SIZE_MAX, m = 0;
    const kest_status st = kest_percent_decode(text, len, out, &n);
    bool ok = true;

    for (size_t i = 0; ok && i < len; i++) {
        if (text[i] == '%' && len - i > 2 && isxdigit(text[i + 1]) && isxdigit(text[i + 2])) {
            const char digits[3] = {(char)text[i + 1], (char)text[i + 2], 0};

            slow_out[m++] = (uint8_t)strtoul(digits, NULL, 16);
            i += 2;
        } else {
            ok = text[i] > 0x20 && text[i] < 0x7f && !strchr(refused, text[i]);
            slow_out[m++] = text[i] == '+' ? ' ' : text[i];
        }
    }
    REQUIRE((st == KEST_E_PERCENT) == !ok);
    if (ok) {
        REQUIRE((st == KEST_OK) == slow_utf8(slow_out, m));
        REQUIRE(n == m && memcmp(out, slow_out, m) == 0);
    }
    free(out);
    free(slow_out);
}

static void utf8(const uint8_t *text, size_t len)
{
    const size_t half = len / 2;
    size_t bad = len;

    REQUIRE(kest_utf8_valid(text, len, &bad) == slow_utf8(text, len));
    REQUIRE(bad <= len && kest_utf8_valid(text, bad, NULL));
    if (kest_utf8_valid(text, half, NULL) && kest_utf8_valid(text + half, len - half, NULL)) {
        const int ab = kest_utf16_compare(text, half, text + half, len - half);
        const int ba = kest_utf16_compare(text + half, len - half, text, half);

        REQUIRE((ab > 0) - (ab < 0) == (ba < 0) - (ba > 0));
        REQUIRE((ab == 0) == (half == len - half && memcmp(text, text + half, half) == 0));
    }
}

static void uuid(const uint8_t *text, size_t len)
{
    uint8_t again[KEST_UUID_LEN];
    kest_uuid7_parts parts;

    if (!kest_uuid7_split(text, len, &parts))
        return;
    REQUIRE(len == KEST_UUID_LEN && parts.counter < 1u << 22 && parts.node < UINT64_C(1) << 52 && parts.unix_ms < UINT64_C(1) << 48);
    kest_uuid7_join(&parts, again);
    REQUIRE(memcmp(again, text, len) == 0);
}

/* Decoded once; backslashes are slashes; then segment by segment, from copies. */
static bool slow_path(const uint8_t *text, size_t len, uint8_t *out, size_t *n)
{
    uint8_t *plain = exact(text, len), *decoded = plain;
    size_t starts[512], depth = 0, m = 0;
    bool ok = true;

    for (size_t i = 0; i < len; i++) {
        const bool escaped = text[i] == '%' && len - i > 2 && isxdigit(text[i + 1]) && isxdigit(text[i + 2]);
        const char digits[3] = {(char)(escaped ? text[i + 1] : '0'), (char)(escaped ? text[i + 2] : '0'), 0};
        const int value = escaped ? (int)strtol(digits, NULL, 16) : -1;

        if (value > 0 && value < 0x80 && (isalnum(value) || strchr("-._~", value))) {
            plain[m++] = (uint8_t)value;
            i += 2;
        } else {
            plain[m++] = text[i] == '\\' ? '/' : text[i];
        }
    }
    *n = 0;
    if (m && plain[0] == '/')
        out[(*n)++] = '/';
    for (size_t at = 0; ok && at <= m; at++) {
        const size_t from = at;

        while (at < m && decoded[at] != '/')
            at++;
        if (at == from || (at == from + 1 && decoded[from] == '.'))
            continue;
        if (at == from + 2 && decoded[from] == '.' && decoded[from + 1] == '.') {
            ok = depth > 0;
            if (ok)
                *n = starts[--depth];
            continue;
        }
        REQUIRE(depth < 512);
        starts[depth] = *n;
        if (depth++)
            out[(*n)++] = '/';
        memcpy(out + *n, decoded + from, at - from);
        *n += at - from;
    }
    free(plain);
    return ok;
}

static void path(const uint8_t *text, size_t len)
{
    uint8_t *out, *expected;
    size_t n = 0, m = 0;
    bool ok;

    if (len > 1000)
        return;
    out = exact(text, len);
    expected = malloc(len + 2);
    if (!expected)
        abort();
    ok = kest_gate_path((kest_str){text, len}, out, &n);
    REQUIRE(ok == slow_path(text, len, expected, &m));
    if (ok)
        REQUIRE(n == m && memcmp(out, expected, n) == 0);
    if (kest_gate_path_is_normal((kest_str){text, len}))
        REQUIRE(ok && n == len && memcmp(out, text, len) == 0);
    free(out);
    free(expected);
}

static void address(const uint8_t *text, size_t len)
{
    kest_gate_ip ip = {0};

    if (kest_gate_ip_read((kest_str){text, len}, &ip)) {
        REQUIRE(ip.known);
        for (size_t i = 0; i < len; i++)
            REQUIRE(isxdigit(text[i]) || text[i] == ':' || text[i] == '.');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(const uint8_t *, size_t) = {base64url, percent, utf8, uuid, path, address};
    uint8_t *text;

    if (!size)
        return 0;
    text = exact(data + 1, size - 1);
    kinds[data[0] % (sizeof kinds / sizeof *kinds)](text, size - 1);
    free(text);
    return 0;
}
