/* Tests of status phrases, UTF-8, base64url and numbers. */
#include "check.h"

#include "b64url.h"
#include "kest.h"
#include "number.h"
#include "utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t *bytes(const char *text)
{
    return (const uint8_t *)text;
}

static bool same(const void *got, size_t len, const char *want)
{
    return len == strlen(want) && memcmp(got, want, len) == 0;
}

/* A heap copy of exactly this length, so that the address sanitizer sees a read beyond it. */
static uint8_t *exact(const void *src, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        abort();
    memcpy(copy, src, len);
    return copy;
}

/* ---- status ---- */

static void test_status(void)
{
    int i, k;

    for (i = 0; i < KEST_E_STATUS_COUNT; i++) {
        CHECK(strcmp(kest_strerror((kest_status)i), "unknown status") != 0);
        for (k = 0; k < i; k++)
            CHECK_ROW(strcmp(kest_strerror((kest_status)i), kest_strerror((kest_status)k)) != 0,
                      kest_strerror((kest_status)i));
    }
    CHECK(strcmp(kest_strerror(KEST_E_STATUS_COUNT), "unknown status") == 0);
    CHECK(strcmp(kest_strerror((kest_status)4000), "unknown status") == 0);
}

/* ---- UTF-8 ---- */

static const struct {
    const char *text;
    int bad; /* -1: valid */
} utf8_rows[] = {
    {"", -1},
    {"plain ASCII, longer than one word", -1},
    {"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", -1},
    {"12345678\xc3\xa9" "12345678\xe2\x82\xac", -1},
    {"\x80", 0},
    {"ab\xbf", 2},
    {"\xc0\xaf", 0},             /* overlong */
    {"\xc1\xbf", 0},
    {"\xe0\x9f\xbf", 0},
    {"\xf0\x8f\xbf\xbf", 0},
    {"x\xed\xa0\x80", 1},        /* U+D800 */
    {"x\xed\xbf\xbf", 1},        /* U+DFFF */
    {"\xf4\x90\x80\x80", 0},     /* U+110000 */
    {"\xf5\x80\x80\x80", 0},
    {"\xff", 0},
    {"12345678\xc3", 8},         /* cut short */
    {"\xe2\x82", 0},
    {"\xf0\x9f\x98", 0},
    {"\xc3\x28", 0},
    {"\xe2\x82\x28", 0},
    {"\xf0\x9f\x98\x28", 0},
};

/* In order of their UTF-16 code units. */
static const char *const utf16_rows[] = {
    "", "\x01", "a", "aa", "aaaaaaaa", "aaaaaaaaa", "aaaaaaaab", "ab", "b", "\xc2\x80", "\xc3\xb6", "\xe2\x82\xac",
    "\xed\x9f\xbf", "\xf0\x90\x80\x80", "\xf0\x9f\x98\x82", "\xf4\x8f\xbf\xbf", "\xee\x80\x80", "\xef\xac\xb3",
    "\xef\xbf\xbf",
};

static void test_utf8(void)
{
    size_t i, k, len, bad;
    uint8_t *copy, out[4];
    uint32_t cp;
    int order;
    bool valid;

    for (i = 0; i < ROWS(utf8_rows); i++) {
        len = strlen(utf8_rows[i].text);
        copy = exact(utf8_rows[i].text, len);
        bad = 99;
        valid = kest_utf8_valid(copy, len, &bad);
        CHECK_ROW(valid == (utf8_rows[i].bad < 0) && bad == (valid ? 99 : (size_t)utf8_rows[i].bad),
                  utf8_rows[i].text);
        CHECK(kest_utf8_valid(copy, len, NULL) == valid);
        free(copy);
    }
    for (i = 0; i < ROWS(utf16_rows); i++) {
        for (k = 0; k < ROWS(utf16_rows); k++) {
            order = kest_utf16_compare(bytes(utf16_rows[i]), strlen(utf16_rows[i]), bytes(utf16_rows[k]),
                                       strlen(utf16_rows[k]));
            CHECK_ROW((order > 0) - (order < 0) == (i > k) - (i < k), utf16_rows[i]);
        }
    }
    for (cp = 0; cp <= 0x10FFFF; cp += cp < 0x900 ? 1 : 0x3F)
        CHECK(kest_utf8_valid(out, kest_utf8_encode(cp, out), NULL) == (cp < 0xD800 || cp > 0xDFFF));
}

/* ---- base64url ---- */

static const char *const b64_refused[] = {
    "A", "AAAAA", "AA==", "AAA=", "AB", "AAB", "A+AA", "A/AA", "AA AA", "AAAA\n", "\nAA", "AAA\x80", "AAA.", "A-_\xff",
};

static void test_b64(void)
{
    /* RFC 4648, section 10, without padding; and the two characters that differ from base64. */
    static const struct { const char *plain, *encoded; } rows[] = {
        {"", ""}, {"f", "Zg"}, {"fo", "Zm8"}, {"foo", "Zm9v"}, {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xfe", "-__-"},
    };
    uint8_t plain[256], encoded[400], decoded[256], c, *text, *out;
    size_t i, n, len, valid;

    for (i = 0; i < ROWS(rows); i++) {
        n = strlen(rows[i].plain);
        kest_b64_encode(bytes(rows[i].plain), n, encoded);
        CHECK_ROW(same(encoded, kest_b64_encoded_len(n), rows[i].encoded), rows[i].encoded);
    }
    for (i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i * 151 + 7);
    for (n = 0; n <= sizeof plain; n++) {
        len = kest_b64_encoded_len(n);
        kest_b64_encode(plain, n, encoded);
        text = exact(encoded, len);
        out = exact(decoded, n);
        CHECK(kest_b64_decoded_len(len) == n);
        CHECK(kest_b64_decode(text, len, out) == KEST_OK && memcmp(out, plain, n) == 0);
        free(text);
        free(out);
    }
    for (i = 0; i < ROWS(b64_refused); i++)
        CHECK_ROW(kest_b64_decode(bytes(b64_refused[i]), strlen(b64_refused[i]), decoded) == KEST_E_B64,
                  b64_refused[i]);
    for (i = 0, valid = 0; i < 256; i++) {
        c = (uint8_t)i;
        memset(encoded, 'A', 8);
        encoded[5] = c;
        valid += kest_b64_decode(encoded, 8, decoded) == KEST_OK;
    }
    CHECK(valid == 64);
}

/* ---- numbers ---- */

/* RFC 8785, appendix B, and the borders between the forms of ECMAScript. */
static const struct {
    uint64_t bits;
    const char *text;
} number_rows[] = {
    {0x0000000000000000, "0"}, {0x8000000000000000, "0"},
    {0x0000000000000001, "5e-324"}, {0x8000000000000001, "-5e-324"},
    {0x7fefffffffffffff, "1.7976931348623157e+308"}, {0xffefffffffffffff, "-1.7976931348623157e+308"},
    {0x4340000000000000, "9007199254740992"}, {0xc340000000000000, "-9007199254740992"},
    {0x4430000000000000, "295147905179352830000"},
    {0x44b52d02c7e14af5, "9.999999999999997e+22"}, {0x44b52d02c7e14af6, "1e+23"},
    {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
    {0x444b1ae4d6e2ef4e, "999999999999999700000"}, {0x444b1ae4d6e2ef4f, "999999999999999900000"},
    {0x444b1ae4d6e2ef50, "1e+21"},
    {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"}, {0x3eb0c6f7a0b5ed8d, "0.000001"},
    {0x41b3de4355555553, "333333333.3333332"}, {0x41b3de4355555554, "333333333.33333325"},
    {0x41b3de4355555555, "333333333.3333333"}, {0x41b3de4355555556, "333333333.3333334"},
    {0x41b3de4355555557, "333333333.33333343"}, {0xbecbf647612f3696, "-0.0000033333333333333333"},
    {0x43143ff3c1cb0959, "1424953923781206.2"},
    {0x3d30000000000000, "5.684341886080802e-14"}, /* 2^-44: see shortest() */
    {0x0010000000000000, "2.2250738585072014e-308"}, {0x000fffffffffffff, "2.225073858507201e-308"},
    {0x3ff8000000000000, "1.5"}, {0x3fb999999999999a, "0.1"}, {0x405ec00000000000, "123"},
};

static const struct {
    const char *token;
    double value;
} read_rows[] = {
    {"0.0", 0.0}, {"1e0", 1.0}, {"4.50", 4.5}, {"2e-3", 0.002}, {"1E30", 1e30}, {"-1.5E+2", -150.0},
    {"1e22", 1e22}, {"1e23", 1e23}, {"123456789012345678e-5", 1234567890123.45678},
    {"9007199254740993.0", 9007199254740992.0},
    {"9007199254740993.00000000000000000000000000000001", 9007199254740994.0},
    {"2.4703282292062327e-324", 0.0}, {"2.4703282292062328e-324", 5e-324}, {"1e-400", 0.0},
    {"0e999999999999999999999", 0.0},
    {"123e-99999999999999999999999", 0.0}, {"1.7976931348623158e308", 1.7976931348623157e308},
    {"0.000000000000000000000000000001e30", 1.0}, {"1000000000000000000000000000000e-30", 1.0},
};

static void test_long_numbers(void)
{
    enum { ZEROS = 5000 };
    static char text[ZEROS + 32];
    double value;
    int len;

    /* 1 after thousands of zeros, made good by the exponent. */
    len = snprintf(text, sizeof text, "0.%0*d1e%d", ZEROS, 0, ZEROS + 1);
    CHECK(kest_double_read(bytes(text), (size_t)len, &value) == KEST_OK && value == 1.0);
    len = snprintf(text, sizeof text, "1%0*de-%d", ZEROS, 0, ZEROS);
    CHECK(kest_double_read(bytes(text), (size_t)len, &value) == KEST_OK && value == 1.0);
    /* The midpoint of 2^53 and the next double is rounded to even, unless anything at all follows. */
    len = snprintf(text, sizeof text, "9007199254740993.%0*d", ZEROS, 0);
    CHECK(kest_double_read(bytes(text), (size_t)len, &value) == KEST_OK && value == 9007199254740992.0);
    len = snprintf(text, sizeof text, "9007199254740993.%0*d", ZEROS, 1);
    CHECK(kest_double_read(bytes(text), (size_t)len, &value) == KEST_OK && value == 9007199254740994.0);
}

static void test_numbers(void)
{
    static const char *const overflow[] = {"1e309", "-1e309", "1.7976931348623159e308", "1e99999999999999999999"};
    char out[KEST_NUMBER_ROOM];
    double value, back;
    uint64_t seed = 1;
    size_t i, len;

    for (i = 0; i < ROWS(number_rows); i++) {
        memcpy(&value, &number_rows[i].bits, sizeof value);
        CHECK(kest_double_print(value, out, &len) == KEST_OK);
        CHECK_ROW(same(out, len, number_rows[i].text), number_rows[i].text);
        CHECK_ROW(kest_double_read(bytes(out), len, &back) == KEST_OK && !(back < value) && !(back > value),
                  number_rows[i].text);
    }
    CHECK(kest_double_print(NAN, out, &len) == KEST_E_NAN);
    CHECK(kest_double_print(INFINITY, out, &len) == KEST_E_NAN);
    CHECK(kest_double_print(-INFINITY, out, &len) == KEST_E_NAN);
    CHECK(same(out, kest_int_print(0, out), "0") && same(out, kest_int_print(-10, out), "-10"));
    CHECK(same(out, kest_int_print(INT64_MIN, out), "-9223372036854775808"));
    CHECK(same(out, kest_int_print(INT64_MAX, out), "9223372036854775807"));
    for (i = 0; i < ROWS(read_rows); i++) {
        CHECK_ROW(kest_double_read(bytes(read_rows[i].token), strlen(read_rows[i].token), &value) == KEST_OK,
                  read_rows[i].token);
        CHECK_ROW(!(value < read_rows[i].value) && !(value > read_rows[i].value), read_rows[i].token);
    }
    for (i = 0; i < ROWS(overflow); i++)
        CHECK(kest_double_read(bytes(overflow[i]), strlen(overflow[i]), &value) == KEST_E_JSON_NUMBER);
    CHECK(kest_double_read(bytes("-0.0"), 4, &value) == KEST_OK && signbit(value) && value == 0);
    for (i = 0; i < 20000; i++) { /* any double reads back as itself */
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(&value, &seed, sizeof value);
        if (!isfinite(value))
            continue;
        CHECK(kest_double_print(value, out, &len) == KEST_OK && len <= sizeof out);
        CHECK(kest_double_read(bytes(out), len, &back) == KEST_OK && memcmp(&value, &back, sizeof value) == 0);
    }
    test_long_numbers();
}

int main(void)
{
    test_status();
    test_utf8();
    test_b64();
    test_numbers();
    return check_report();
}
