#include "jcs.h"

#include "alloc.h"
#include "number.h"
#include "scan.h"
#include "utf8.h"

#include <stdlib.h>

enum { SORT_INLINE = 32 }; /* objects of up to this many members are sorted on the stack */

/* ---- strings ---- */

/* The letter behind the backslash in the canonical escape of a control character; 'u' stands for \u00xx. */
static const char control_escape[0x21] = "uuuuuuuubtnufruuuuuuuuuuuuuuuuuu";
static const char hex_digits[17] = "0123456789abcdef";

static void put_escape(kest_buf *b, uint8_t c)
{
    uint8_t out[6] = {'\\', c, '0', '0', 0, 0};

    if (c >= 0x20) { /* quote or backslash */
        kest_buf_put(b, out, 2);
        return;
    }
    out[1] = (uint8_t)control_escape[c];
    if (out[1] != 'u') {
        kest_buf_put(b, out, 2);
        return;
    }
    out[4] = (uint8_t)hex_digits[c >> 4];
    out[5] = (uint8_t)hex_digits[c & 15];
    kest_buf_put(b, out, 6);
}

void kest_jcs_string(kest_buf *b, const uint8_t *text, size_t len)
{
    const uint8_t *p = text, *end, *stop;
    size_t quoted;

    if (!len) { /* text may be NULL then */
        kest_buf_lit(b, "\"\"");
        return;
    }
    end = text + len;
    if (!kest_add(len, 2, &quoted)) {
        b->status = b->status == KEST_OK ? KEST_E_OVERFLOW : b->status;
        return;
    }
    if (!kest_buf_room(b, quoted)) /* all at once: most strings need no escape */
        return;
    kest_buf_byte(b, '"');
    for (;;) {
        stop = kest_scan(p, end, KEST_SCAN_ANY);
        kest_buf_put(b, p, (size_t)(stop - p));
        if (stop == end)
            break;
        put_escape(b, *stop);
        p = stop + 1;
    }
    kest_buf_byte(b, '"');
}

/* Whether every escape inside a string token, [p, end), which is known to be valid, is the canonical one. */
static bool canonical_escapes(const uint8_t *p, const uint8_t *end)
{
    unsigned code;

    while ((p = memchr(p, '\\', (size_t)(end - p))) != NULL) {
        switch (p[1]) {
        case '"':
        case '\\':
        case 'b':
        case 'f':
        case 'n':
        case 'r':
        case 't': p += 2; break;
        case 'u':
            /* Only control characters without a short form, in lower case. */
            if (p[2] != '0' || p[3] != '0' || (p[4] != '0' && p[4] != '1') || (p[5] >= 'A' && p[5] <= 'F'))
                return false;
            code = (p[4] - (unsigned)'0') << 4 | (p[5] <= '9' ? p[5] - (unsigned)'0' : p[5] - (unsigned)'a' + 10);
            if (control_escape[code] != 'u')
                return false;
            p += 6;
            break;
        default: return false; /* a solidus needs no escape */
        }
    }
    return true;
}

/* ---- numbers ---- */

void kest_jcs_int(kest_buf *b, int64_t value)
{
    char out[KEST_NUMBER_ROOM];

    if (value > KEST_MAX_SAFE_INT || value < -KEST_MAX_SAFE_INT) {
        b->status = b->status == KEST_OK ? KEST_E_JSON_NUMBER : b->status;
        return;
    }
    kest_buf_put(b, out, kest_int_print(value, out));
}

void kest_jcs_double(kest_buf *b, double value)
{
    char out[KEST_NUMBER_ROOM];
    kest_status status;
    size_t len;

    status = kest_double_print(value, out, &len);
    if (status == KEST_OK)
        kest_buf_put(b, out, len);
    else if (b->status == KEST_OK)
        b->status = status;
}

/* ---- writing a tree ---- */

static void put_value(kest_buf *b, const kest_json *v);

static int compare_keys(const kest_json *a, const kest_json *b)
{
    return kest_utf16_compare(a->key, a->key_len, b->key, b->key_len);
}

static int compare_members(const void *a, const void *b)
{
    return compare_keys(*(const kest_json *const *)a, *(const kest_json *const *)b);
}

/* Insertion sort for few members (linear when they are sorted already, as most are), else the library's. */
static void sort_members(const kest_json **members, size_t count)
{
    const kest_json *m;
    size_t i, k;

    if (count > SORT_INLINE) {
        qsort(members, count, sizeof(*members), compare_members);
        return;
    }
    for (i = 1; i < count; i++) {
        m = members[i];
        for (k = i; k && compare_keys(members[k - 1], m) > 0; k--)
            members[k] = members[k - 1];
        members[k] = m;
    }
}

static void put_members(kest_buf *b, const kest_json **members, size_t count)
{
    size_t i;

    kest_buf_byte(b, '{');
    for (i = 0; i < count; i++) {
        if (i)
            kest_buf_byte(b, ',');
        kest_jcs_string(b, members[i]->key, members[i]->key_len);
        kest_buf_byte(b, ':');
        put_value(b, members[i]);
    }
    kest_buf_byte(b, '}');
}

static void put_object(kest_buf *b, const kest_json *object)
{
    const kest_json *on_stack[SORT_INLINE], **members = on_stack, *m;
    size_t count = 0, size;

    if (object->count > SORT_INLINE) {
        members = kest_mul(object->count, sizeof(*members), &size) ? kest_malloc(size) : NULL;
        if (!members) {
            b->status = b->status == KEST_OK ? KEST_E_NOMEM : b->status;
            return;
        }
    }
    for (m = object->u.child; m; m = m->next)
        members[count++] = m;
    sort_members(members, count);
    put_members(b, members, count);
    if (members != on_stack)
        kest_free(members);
}

static void put_array(kest_buf *b, const kest_json *array)
{
    const kest_json *m;

    kest_buf_byte(b, '[');
    for (m = array->u.child; m; m = m->next) {
        put_value(b, m);
        if (m->next)
            kest_buf_byte(b, ',');
    }
    kest_buf_byte(b, ']');
}

/* As deep as the tree is, which the reader has bounded. */
static void put_value(kest_buf *b, const kest_json *v)
{
    if (b->status != KEST_OK)
        return;
    switch (v->type) {
    case KEST_JSON_NULL: kest_buf_lit(b, "null"); break;
    case KEST_JSON_FALSE: kest_buf_lit(b, "false"); break;
    case KEST_JSON_TRUE: kest_buf_lit(b, "true"); break;
    case KEST_JSON_INT: kest_jcs_int(b, v->u.i); break;
    case KEST_JSON_DOUBLE: kest_jcs_double(b, v->u.d); break;
    case KEST_JSON_STRING: kest_jcs_string(b, v->u.str.data, v->u.str.len); break;
    case KEST_JSON_ARRAY: put_array(b, v); break;
    case KEST_JSON_OBJECT: put_object(b, v); break;
    }
}

kest_status kest_jcs_value(kest_buf *b, const kest_json *value)
{
    put_value(b, value);
    return b->status;
}

/* ---- checking ---- */

/* The tree came from this very text by a strict reader, so only spellings are left to judge, and positions tell
 * most of them: where tokens are as near to each other as the grammar lets them be, there is no white space. */

static bool is_canonical(const uint8_t *text, const kest_json *v);

static bool canonical_string(const uint8_t *text, size_t start, size_t end, size_t unescaped_len)
{
    /* Every escape is longer than what it stands for, so equal lengths mean that there is none. */
    return end - start - 2 == unescaped_len || canonical_escapes(text + start + 1, text + end - 1);
}

static bool canonical_double(const uint8_t *text, const kest_json *v)
{
    char out[KEST_NUMBER_ROOM];
    size_t len;

    return kest_double_print(v->u.d, out, &len) == KEST_OK && len == v->end - v->start &&
           memcmp(out, text + v->start, len) == 0;
}

/* A key that must begin at `at` and end, with its colon, where the value begins. */
static bool canonical_key(const uint8_t *text, size_t at, const kest_json *member)
{
    return text[at] == '"' && text[member->start - 1] == ':' && text[member->start - 2] == '"' &&
           canonical_string(text, at, member->start - 1, member->key_len);
}

static bool canonical_container(const uint8_t *text, const kest_json *container)
{
    const kest_json *m, *previous = NULL;
    size_t at = container->start + 1;

    for (m = container->u.child; m; previous = m, m = m->next) {
        at += previous != NULL; /* the comma, unless there is white space, and then a test below fails */
        if (container->type == KEST_JSON_ARRAY) {
            if (m->start != at)
                return false;
        } else if (!canonical_key(text, at, m) || (previous && compare_keys(previous, m) >= 0)) {
            return false;
        }
        if (!is_canonical(text, m))
            return false;
        at = m->end;
    }
    return at + 1 == container->end;
}

static bool is_canonical(const uint8_t *text, const kest_json *v)
{
    switch (v->type) {
    case KEST_JSON_STRING: return canonical_string(text, v->start, v->end, v->u.str.len);
    case KEST_JSON_DOUBLE: return canonical_double(text, v);
    case KEST_JSON_ARRAY:
    case KEST_JSON_OBJECT: return canonical_container(text, v);
    case KEST_JSON_NULL:
    case KEST_JSON_FALSE:
    case KEST_JSON_TRUE:
    case KEST_JSON_INT: break; /* the grammar allows one spelling only */
    }
    return true;
}

kest_status kest_jcs_check(const uint8_t *text, size_t len, const kest_json *root)
{
    return root->start == 0 && root->end == len && is_canonical(text, root) ? KEST_OK : KEST_E_NOT_CANONICAL;
}
