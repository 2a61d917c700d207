/* json.c: the strict reader accepts exactly what the slow statement of it accepts; what it accepts has a canonical form, which
 * is its own canonical form and reads back; kest_jcs_check knows that form and no other. */
#include "fuzz.h"

#include "buf.h"
#include "jcs.h"
#include "number.h"
#include "slow_json.h"

/* A double from 2^53 to 10^21 prints as an integer, which the reader refuses: such a text has no way back. */
static bool has_way_back(const kest_json *v)
{
    if (v->type == KEST_JSON_DOUBLE && fabs(v->u.d) > (double)KEST_MAX_SAFE_INT && fabs(v->u.d) < 1e21)
        return false;
    if (v->type == KEST_JSON_ARRAY || v->type == KEST_JSON_OBJECT)
        for (const kest_json *child = v->u.child; child; child = child->next)
            if (!has_way_back(child))
                return false;
    return true;
}

/* Every number is the double that the C library reads, and prints to something that reads back to it. */
static void check_numbers(const uint8_t *text, const kest_json *v)
{
    if (v->type == KEST_JSON_DOUBLE) {
        const size_t n = v->end - v->start;
        char out[KEST_NUMBER_ROOM], *token = calloc(n + 1, 1);
        double expected, back;
        size_t len;

        if (!token)
            abort();
        memcpy(token, text + v->start, n);
        expected = strtod(token, NULL);
        free(token);
        REQUIRE(!(expected < v->u.d) && !(expected > v->u.d) && !signbit(expected) == !signbit(v->u.d));
        REQUIRE(kest_double_print(v->u.d, out, &len) == KEST_OK && len <= sizeof out);
        REQUIRE(kest_double_read((const uint8_t *)out, len, &back) == KEST_OK && !(back < expected) && !(back > expected));
    }
    if (v->type == KEST_JSON_ARRAY || v->type == KEST_JSON_OBJECT)
        for (const kest_json *child = v->u.child; child; child = child->next)
            check_numbers(text, child);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *text = exact(data, size);
    kest_json_doc doc, again;
    kest_buf canonical, twice;
    const kest_status st = kest_json_parse(text, size, 0, &doc);

    REQUIRE((st == KEST_OK) == slow_accepts(text, size));
    if (st != KEST_OK) {
        REQUIRE(doc.error_at <= size && !doc.root && !doc.arena);
        free(text);
        return 0;
    }
    kest_buf_init(&canonical);
    kest_buf_init(&twice);
    check_numbers(text, doc.root);
    REQUIRE(kest_jcs_value(&canonical, doc.root) == KEST_OK);
    REQUIRE((kest_jcs_check(text, size, doc.root) == KEST_OK) ==
            (size == canonical.len && memcmp(text, canonical.data, size) == 0));
    if (has_way_back(doc.root)) {
        REQUIRE(kest_json_parse(canonical.data, canonical.len, 0, &again) == KEST_OK);
        REQUIRE(kest_jcs_check(canonical.data, canonical.len, again.root) == KEST_OK);
        REQUIRE(kest_jcs_value(&twice, again.root) == KEST_OK);
        REQUIRE(twice.len == canonical.len && memcmp(twice.data, canonical.data, twice.len) == 0);
        kest_json_free(&again);
    }
    kest_buf_free(&twice);
    kest_buf_free(&canonical);
    kest_json_free(&doc);
    free(text);
    return 0;
}
