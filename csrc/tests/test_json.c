/* Tests of the JSON reader and of canonical JSON, including every allocation failing in turn. */
#include "check.h"

#include "failing_alloc.h"
#include "jcs.h"

#include <math.h>
#include <stdlib.h>

static const uint8_t *bytes(const char *text)
{
    return (const uint8_t *)text;
}

static bool same(const void *got, size_t len, const char *want)
{
    return len == strlen(want) && memcmp(got, want, len) == 0;
}

/* ---- reading ---- */

static const struct {
    const char *text;
    kest_status status;
    size_t at;
} refused_rows[] = {
    {"", KEST_E_JSON, 0},
    {"  ", KEST_E_JSON, 2},
    {"\xef\xbb\xbf{}", KEST_E_JSON, 0},
    {"nul", KEST_E_JSON, 0},
    {"True", KEST_E_JSON, 0},
    {"[1,]", KEST_E_JSON, 3},
    {"[,1]", KEST_E_JSON, 1},
    {"[1 2]", KEST_E_JSON, 3},
    {"[1", KEST_E_JSON, 2},
    {"[", KEST_E_JSON, 1},
    {"{", KEST_E_JSON, 1},
    {"{\"a\"", KEST_E_JSON, 4},
    {"{\"a\":", KEST_E_JSON, 5},
    {"{\"a\":1,}", KEST_E_JSON, 7},
    {"{a:1}", KEST_E_JSON, 1},
    {"{1:1}", KEST_E_JSON, 1},
    {"[1}", KEST_E_JSON, 2},
    {"\v1", KEST_E_JSON, 0},
    {"// no\n1", KEST_E_JSON, 0},
    {"1 1", KEST_E_JSON_TRAIL, 2},
    {"{}}", KEST_E_JSON_TRAIL, 2},
    {"nullx", KEST_E_JSON_TRAIL, 4},
    {"-", KEST_E_JSON, 1},
    {"+1", KEST_E_JSON, 0},
    {"01", KEST_E_JSON, 1},
    {"-01", KEST_E_JSON, 2},
    {".5", KEST_E_JSON, 0},
    {"1.", KEST_E_JSON, 2},
    {"1.e5", KEST_E_JSON, 2},
    {"1e", KEST_E_JSON, 2},
    {"1e+", KEST_E_JSON, 3},
    {"NaN", KEST_E_JSON, 0},
    {"Infinity", KEST_E_JSON, 0},
    {"-Infinity", KEST_E_JSON, 1},
    {"0x1", KEST_E_JSON_TRAIL, 1},
    {"[9007199254740992]", KEST_E_JSON_NUMBER, 1},
    {"[-9007199254740992]", KEST_E_JSON_NUMBER, 1},
    {"[10000000000000000000000]", KEST_E_JSON_NUMBER, 1},
    {"[1e309]", KEST_E_JSON_NUMBER, 1},
    {"\"", KEST_E_JSON, 1},
    {"\"abc", KEST_E_JSON, 4},
    {"\"abc\\", KEST_E_JSON, 5},
    {"\"abc\\\"", KEST_E_JSON, 6},
    {"'a'", KEST_E_JSON, 0},
    {"\"a\tb\"", KEST_E_JSON, 2},
    {"\"0123456789\x1f\"", KEST_E_JSON, 11},
    {"\"a\\\n\"", KEST_E_JSON, 3},
    {"\"\\x41\"", KEST_E_JSON, 1},
    {"\"\\u12\"", KEST_E_JSON, 1},
    {"\"\\u12g4\"", KEST_E_JSON, 1},
    {"\"\\\xc3\xa9\"", KEST_E_JSON, 1},
    {"\"ab\\ud800\"", KEST_E_SURROGATE, 3},
    {"\"ab\\udc00\"", KEST_E_SURROGATE, 3},
    {"\"\\ud800\\u0041\"", KEST_E_SURROGATE, 1},
    {"\"\\ud800\\ud800\"", KEST_E_SURROGATE, 1},
    {"\"\\ud800x\"", KEST_E_SURROGATE, 1},
    {"\"a\xed\xa0\x80\"", KEST_E_SURROGATE, 2},
    {"\"a\xc0\xaf\"", KEST_E_UTF8, 2},
    {"\"a\xe2\x82\"", KEST_E_UTF8, 2},
    {"\"\\n\xff\"", KEST_E_UTF8, 3},
    {"{\"a\":1,\"a\":2}", KEST_E_JSON_DUP, 7},
    {"{\"b\":1,\"a\":2, \"\\u0062\":3}", KEST_E_JSON_DUP, 14},
    {"{\"\":1,\"\":2}", KEST_E_JSON_DUP, 6},
    {"[{\"a\":{\"x\":1,\"x\":1}}]", KEST_E_JSON_DUP, 13},
};

static void test_refused(void)
{
    kest_json_doc doc;
    kest_status status;
    uint8_t *copy;
    size_t i, len;

    for (i = 0; i < ROWS(refused_rows); i++) {
        len = strlen(refused_rows[i].text);
        copy = malloc(len ? len : 1); /* exactly this long: a read beyond it shows */
        if (!copy)
            abort();
        memcpy(copy, refused_rows[i].text, len);
        status = kest_json_parse(copy, len, 0, &doc);
        CHECK_ROW(status == refused_rows[i].status, refused_rows[i].text);
        CHECK_ROW(doc.error_at == refused_rows[i].at && !doc.root && !doc.arena, refused_rows[i].text);
        kest_json_free(&doc);
        free(copy);
    }
    CHECK(kest_json_parse(NULL, 0, 0, &doc) == KEST_E_JSON);
    CHECK(kest_json_parse(bytes("1\0"), 2, 0, &doc) == KEST_E_JSON_TRAIL);
}

static void test_tree(void)
{
    static const char text[] = " {\"i\":-42, \"d\":-0, \"s\":\"a\\u20ac\\ud83d\\ude02\\/\\u0000\","
                               "\"l\":[null,true,false,9007199254740991],\"\\u006b\":\"plain\",\"o\":{}}\n";
    const kest_json *v;
    kest_json_doc doc;

    CHECK(kest_json_parse(bytes(text), sizeof text - 1, 0, &doc) == KEST_OK);
    CHECK(doc.root->type == KEST_JSON_OBJECT && doc.root->count == 6 && doc.root->start == 1);
    CHECK(doc.root->end == sizeof text - 2 && !doc.root->key && !doc.root->next);
    v = kest_json_get(doc.root, "i");
    CHECK(v && v->type == KEST_JSON_INT && v->u.i == -42 && same(text + v->start, v->end - v->start, "-42"));
    v = kest_json_get(doc.root, "d");
    CHECK(v && v->type == KEST_JSON_DOUBLE && v->u.d == 0 && signbit(v->u.d));
    v = kest_json_get(doc.root, "s");
    CHECK(v && v->u.str.len == 10 && memcmp(v->u.str.data, "a\xe2\x82\xac\xf0\x9f\x98\x82/\0", 10) == 0);
    CHECK(!kest_json_is(v, "a"));
    v = kest_json_get(doc.root, "l");
    CHECK(v && v->count == 4 && v->u.child->type == KEST_JSON_NULL && v->u.child->next->type == KEST_JSON_TRUE);
    CHECK(v && v->u.child->next->next->next->u.i == KEST_MAX_SAFE_INT && !v->u.child->next->next->next->next);
    v = kest_json_get(doc.root, "k");
    CHECK(kest_json_is(v, "plain") && !kest_json_is(v, "plai") && v->u.str.data == bytes(text) + v->start + 1);
    v = kest_json_get(doc.root, "o");
    CHECK(v && v->type == KEST_JSON_OBJECT && v->count == 0 && !v->u.child);
    CHECK(!kest_json_get(doc.root, "absent") && !kest_json_get(v, "i") && !kest_json_get(NULL, "i"));
    CHECK(!kest_json_get(kest_json_get(doc.root, "l"), "i") && !kest_json_is(NULL, "") && !kest_json_is(v, ""));
    kest_json_free(&doc);
    kest_json_free(&doc); /* twice is harmless */
}

static kest_status parse_status(const char *text, size_t len, size_t max_nodes)
{
    kest_json_doc doc;
    kest_status status = kest_json_parse(bytes(text), len, max_nodes, &doc);

    kest_json_free(&doc);
    return status;
}

static void test_limits(void)
{
    char text[2 * (KEST_MAX_DEPTH + 1)];

    memset(text, '[', KEST_MAX_DEPTH + 1);
    memset(text + KEST_MAX_DEPTH + 1, ']', KEST_MAX_DEPTH + 1);
    CHECK(parse_status(text + 1, sizeof text - 2, 0) == KEST_OK);
    CHECK(parse_status(text, sizeof text, 0) == KEST_E_JSON_DEPTH);
    CHECK(parse_status("[[],[],[[]],1]", 14, 0) == KEST_OK);
    CHECK(parse_status("[1,2,3]", 7, 4) == KEST_OK);
    CHECK(parse_status("[1,2,3]", 7, 3) == KEST_E_LIMIT);
    CHECK(parse_status("1", 1, 1) == KEST_OK);
}

/* {"<key>":0,...} with `count` keys in an order that is not sorted; key `repeat`, if below count, twice.
 * *at is where the repetition stands. To be freed with free(). */
static char *wide_object(unsigned count, unsigned repeat, size_t *len, size_t *at)
{
    char *text = malloc((size_t)count * 20 + 40);
    unsigned i;

    if (!text)
        abort();
    text[0] = '{';
    *len = 1;
    for (i = 0; i < count; i++)
        *len += (size_t)sprintf(text + *len, "\"k%u\":0,", (unsigned)((uint64_t)i * 7919 % 100003));
    *at = *len;
    *len += (size_t)sprintf(text + *len, "\"\\u006b%u\" : 1}",
                            repeat < count ? (unsigned)((uint64_t)repeat * 7919 % 100003) : 200000u);
    return text;
}

static void test_duplicates(void)
{
    static const unsigned counts[] = {2, 14, 15, 16, 17, 40, 1000, 100000};
    kest_json_doc doc;
    size_t i, len, at;
    char *text;

    for (i = 0; i < ROWS(counts); i++) {
        text = wide_object(counts[i], counts[i] / 2, &len, &at);
        CHECK(kest_json_parse(bytes(text), len, 0, &doc) == KEST_E_JSON_DUP && doc.error_at == at);
        free(text);
        text = wide_object(counts[i], UINT32_MAX, &len, &at);
        CHECK(kest_json_parse(bytes(text), len, 0, &doc) == KEST_OK && doc.root->count == counts[i] + 1);
        kest_json_free(&doc);
        free(text);
    }
}

/* ---- writing and checking ---- */

static const struct {
    const char *text, *canonical; /* NULL: text is canonical already */
} jcs_rows[] = {
    /* RFC 8785, sections 3.2.2 and 3.2.3 */
    {"{\n\"numbers\": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],\n"
     "\"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\n\"literals\": [null, true, false]}",
     "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],"
     "\"string\":\"\xe2\x82\xac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"},
    {"{\"\\u20ac\":\"Euro Sign\",\"\\r\":\"Carriage Return\",\"\\ufb33\":\"Hebrew Letter Dalet With Dagesh\","
     "\"1\":\"One\",\"\\ud83d\\ude00\":\"Emoji: Grinning Face\",\"\\u0080\":\"Control\","
     "\"\\u00f6\":\"Latin Small Letter O With Diaeresis\"}",
     "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\","
     "\"\xc3\xb6\":\"Latin Small Letter O With Diaeresis\",\"\xe2\x82\xac\":\"Euro Sign\","
     "\"\xf0\x9f\x98\x80\":\"Emoji: Grinning Face\",\"\xef\xac\xb3\":\"Hebrew Letter Dalet With Dagesh\"}"},
    {"{}", NULL}, {"[]", NULL}, {"\"\"", NULL}, {"0", NULL}, {"-1", NULL}, {"null", NULL}, {"[[],{}]", NULL},
    {"9007199254740991", NULL}, {"1.5", NULL}, {"1e-7", NULL}, {"1e+21", NULL},
    {"{\"\":0,\"a\":{\"b\":[1,2,{\"c\":\"d\"}]},\"b\":\"\"}", NULL},
    {"\"\\b\\t\\n\\f\\r\\u0000\\u0001\\u001f\\\"\\\\\x7f\"", NULL},
    {"{\"\\n\":1,\"\\\"\":2}", NULL},
    {"{\"a,\\\":\":1,\"b\":[\"],[\",\"{\"]}", NULL}, /* punctuation inside strings */
    {" {}", "{}"}, {"{} ", "{}"}, {"{ }", "{}"}, {"[ ]", "[]"}, {" 1", "1"}, {"1\n", "1"},
    {"[1 ]", "[1]"}, {"[ 1]", "[1]"}, {"[1 ,2]", "[1,2]"}, {"[1, 2]", "[1,2]"},
    {"{ \"a\":1}", "{\"a\":1}"}, {"{\"a\" :1}", "{\"a\":1}"}, {"{\"a\": 1}", "{\"a\":1}"}, {"{\"a\":1 }", "{\"a\":1}"},
    {"{\"a\":1 ,\"b\":2}", "{\"a\":1,\"b\":2}"}, {"{\"a\":1, \"b\":2}", "{\"a\":1,\"b\":2}"},
    {"{\"b\":1,\"a\":2}", "{\"a\":2,\"b\":1}"}, {"{\"aa\":1,\"a\":2}", "{\"a\":2,\"aa\":1}"},
    {"[{\"b\":1,\"a\":2}]", "[{\"a\":2,\"b\":1}]"},
    {"-0", "0"}, {"1.0", "1"}, {"1e2", "100"}, {"1E-7", "1e-7"}, {"1e21", "1e+21"}, {"0.10", "0.1"}, {"-0.0", "0"},
    {"\"\\/\"", "\"/\""}, {"\"\\u0041\"", "\"A\""}, {"\"\\u000a\"", "\"\\n\""}, {"\"\\u0008\"", "\"\\b\""},
    {"\"\\u001F\"", "\"\\u001f\""}, {"\"\\u0022\"", "\"\\\"\""}, {"\"\\u005c\"", "\"\\\\\""}, {"\"\\u0020\"", "\" \""},
    {"\"\\u007f\"", "\"\x7f\""}, {"\"\\u00e9\"", "\"\xc3\xa9\""}, {"\"\\n\\u000c\"", "\"\\n\\f\""},
    {"\"\\ud83d\\ude02\"", "\"\xf0\x9f\x98\x82\""}, {"{\"\\u0061\":1}", "{\"a\":1}"},
    {"{\"\xef\xac\xb3\":1,\"\xf0\x9f\x98\x82\":2}", "{\"\xf0\x9f\x98\x82\":2,\"\xef\xac\xb3\":1}"},
};

static void test_jcs(void)
{
    const char *want;
    kest_json_doc doc;
    kest_buf b;
    size_t i;

    for (i = 0; i < ROWS(jcs_rows); i++) {
        const char *text = jcs_rows[i].text;

        want = jcs_rows[i].canonical ? jcs_rows[i].canonical : text;
        CHECK_ROW(kest_json_parse(bytes(text), strlen(text), 0, &doc) == KEST_OK, text);
        kest_buf_init(&b);
        CHECK_ROW(kest_jcs_value(&b, doc.root) == KEST_OK && same(b.data, b.len, want), text);
        CHECK_ROW(kest_jcs_check(bytes(text), strlen(text), doc.root) ==
                  (jcs_rows[i].canonical ? KEST_E_NOT_CANONICAL : KEST_OK), text);
        kest_json_free(&doc);
        CHECK_ROW(kest_json_parse(b.data, b.len, 0, &doc) == KEST_OK, text);
        CHECK_ROW(kest_jcs_check(b.data, b.len, doc.root) == KEST_OK, text);
        kest_json_free(&doc);
        kest_buf_free(&b);
    }
}

static void test_jcs_refused(void)
{
    kest_buf b;

    kest_buf_init(&b);
    kest_jcs_double(&b, NAN);
    CHECK(b.status == KEST_E_NAN && b.len == 0);
    kest_jcs_int(&b, INT64_MAX);
    CHECK(b.status == KEST_E_NAN); /* the first error stays */
    kest_jcs_string(&b, bytes("x"), 1);
    CHECK(b.len == 0);
    kest_buf_init(&b);
    kest_jcs_int(&b, -KEST_MAX_SAFE_INT);
    CHECK(b.status == KEST_OK && same(b.data, b.len, "-9007199254740991"));
    kest_jcs_int(&b, -KEST_MAX_SAFE_INT - 1);
    CHECK(b.status == KEST_E_JSON_NUMBER);
    kest_buf_init(&b);
    kest_jcs_string(&b, bytes("a\0b"), 3);
    kest_jcs_string(&b, NULL, 0);
    CHECK(same(b.data, b.len, "\"a\\u0000b\"\"\""));
}

/* ---- failing allocator ---- */

/* Reads, writes and checks. */
static kest_status round_trip(const char *text, size_t len)
{
    kest_json_doc doc;
    kest_buf b;
    kest_status status = kest_json_parse(bytes(text), len, 0, &doc);

    if (status != KEST_OK) {
        CHECK(live == 0); /* nothing needs freeing after a failure */
        return status;
    }
    kest_buf_init(&b);
    status = kest_jcs_value(&b, doc.root);
    if (status == KEST_OK)
        CHECK(kest_jcs_check(bytes(text), len, doc.root) == KEST_E_NOT_CANONICAL);
    kest_buf_free(&b);
    kest_json_free(&doc);
    return status;
}

static void test_allocations(const char *text, size_t len, size_t at_least)
{
    kest_status status = KEST_E_NOMEM;

    for (fail_at = 1; status == KEST_E_NOMEM && fail_at < 1000; fail_at++) {
        calls = 0;
        status = round_trip(text, len);
        CHECK(live == 0);
        CHECK(status == KEST_E_NOMEM || (status == KEST_OK && calls < fail_at));
    }
    CHECK(status == KEST_OK && calls >= at_least);
}

static void test_failing_allocator(void)
{
    static const char small[] = "{\"b\":[1,2.5,\"\\n\"],\"a\":{}}";
    size_t len, at;
    char *wide = wide_object(3000, UINT32_MAX, &len, &at);

    kest_set_allocator(&failing_allocator);
    test_allocations(small, sizeof small - 1, 1);
    test_allocations(wide, len, 6); /* several chunks, two sorts, a growing buffer */
    fail_at = 0;
    CHECK(round_trip("{\"b\":0,\"a\":0,\"b\":0}", 19) == KEST_E_JSON_DUP && live == 0);
    kest_set_allocator(NULL);
    free(wide);
}

int main(void)
{
    test_refused();
    test_tree();
    test_limits();
    test_duplicates();
    test_jcs();
    test_jcs_refused();
    test_failing_allocator();
    return check_report();
}
