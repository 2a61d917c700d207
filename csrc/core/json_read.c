#include "json_read.h"

#include "arena.h"
#include "json_escape.h"
#include "number.h"
#include "scan.h"
#include "utf8.h"

#include <stdlib.h>

_Static_assert(_Alignof(kest_json) <= KEST_ARENA_ALIGN, "nodes must fit the alignment of the arena");

enum {
    /* Up to this many members each new key is compared with all before it; beyond, all are sorted at the end. */
    PAIRWISE_MAX = 16,
    MAX_INT_DIGITS = 16 /* of KEST_MAX_SAFE_INT */
};

typedef struct reader {
    const uint8_t *text, *at, *end;
    kest_arena *arena;
    size_t nodes, max_nodes;
    unsigned depth;
    size_t error_at;
} reader;

/* The first chunk is sized so that a text like an entry (some 16 bytes for each value) needs no second. */
static inline void *take(reader *r, size_t size)
{
    size_t len = (size_t)(r->end - r->text);

    return kest_arena_take(&r->arena, len < SIZE_MAX / 5 ? len * 5 : len, size);
}

static kest_status fail(reader *r, const uint8_t *where, kest_status status)
{
    r->error_at = (size_t)(where - r->text);
    return status;
}

static inline void skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

/* ---- strings ---- */

/* The inside of a string token, [p, end), without its escapes: in the arena. */
static kest_status unescape(reader *r, const uint8_t *p, const uint8_t *end, const uint8_t **data, size_t *len)
{
    uint8_t *out = take(r, (size_t)(end - p));
    kest_status status;

    if (!out)
        return fail(r, p, KEST_E_NOMEM);
    status = kest_json_unescape(&p, end, out, len);
    *data = out;
    return status == KEST_OK ? KEST_OK : fail(r, p, status);
}

static kest_status check_utf8(reader *r, const uint8_t *p, const uint8_t *end)
{
    size_t bad;

    if (kest_utf8_valid(p, (size_t)(end - p), &bad))
        return KEST_OK;
    p += bad;
    /* What a surrogate would be if UTF-8 had one; said apart because the cause is another. */
    if (end - p >= 3 && p[0] == 0xED && p[1] >= 0xA0 && p[1] <= 0xBF && (p[2] & 0xC0) == 0x80)
        return fail(r, p, KEST_E_SURROGATE);
    return fail(r, p, KEST_E_UTF8);
}

/* A string token, of which r->at is the opening quote. */
static kest_status read_string(reader *r, const uint8_t **data, size_t *len)
{
    const uint8_t *start = r->at + 1, *p = start, *high = NULL;
    uint64_t stop_high = KEST_SCAN_ASCII;
    bool escaped = false;
    kest_status status;

    for (;;) {
        p = kest_scan(p, r->end, stop_high);
        if (p == r->end || *p < 0x20)
            return fail(r, p, KEST_E_JSON);
        if (*p == '"')
            break;
        if (*p >= 0x80) {
            high = p;
            stop_high = KEST_SCAN_ANY;
            continue;
        }
        escaped = true;
        p++;
        if (p < r->end && (*p == '"' || *p == '\\')) /* escaped, so neither the end nor an escape */
            p++;
    }
    if (high && (status = check_utf8(r, high, p)) != KEST_OK)
        return status;
    r->at = p + 1;
    if (escaped)
        return unescape(r, start, p, data, len);
    *data = start;
    *len = (size_t)(p - start);
    return KEST_OK;
}

/* ---- numbers ---- */

static inline bool is_digit(const reader *r, const uint8_t *p)
{
    return p < r->end && *p >= '0' && *p <= '9';
}

/* Moves *p behind one or more digits. */
static inline bool skip_digits(const reader *r, const uint8_t **p)
{
    if (!is_digit(r, *p))
        return false;
    while (is_digit(r, *p))
        ++*p;
    return true;
}

static kest_status read_int(reader *r, const uint8_t *digits, bool negative, kest_json *v)
{
    const uint8_t *p;
    int64_t value = 0;

    if (r->at - digits > MAX_INT_DIGITS)
        return fail(r, r->text + v->start, KEST_E_JSON_NUMBER);
    for (p = digits; p < r->at; p++)
        value = value * 10 + (*p - '0');
    if (value > KEST_MAX_SAFE_INT)
        return fail(r, r->text + v->start, KEST_E_JSON_NUMBER);
    if (negative && value == 0) { /* no integer is -0 */
        v->type = KEST_JSON_DOUBLE;
        v->u.d = -0.0;
        return KEST_OK;
    }
    v->type = KEST_JSON_INT;
    v->u.i = negative ? -value : value;
    return KEST_OK;
}

static kest_status read_number(reader *r, kest_json *v)
{
    const uint8_t *start = r->at, *p = start, *digits;
    bool negative = *p == '-', is_int = true;

    p += negative;
    digits = p;
    if (!skip_digits(r, &p))
        return fail(r, p, KEST_E_JSON);
    if (*digits == '0' && p - digits > 1)
        return fail(r, digits + 1, KEST_E_JSON);
    if (p < r->end && *p == '.') {
        is_int = false;
        p++;
        if (!skip_digits(r, &p))
            return fail(r, p, KEST_E_JSON);
    }
    if (p < r->end && (*p == 'e' || *p == 'E')) {
        is_int = false;
        p++;
        if (p < r->end && (*p == '+' || *p == '-'))
            p++;
        if (!skip_digits(r, &p))
            return fail(r, p, KEST_E_JSON);
    }
    r->at = p;
    if (is_int)
        return read_int(r, digits, negative, v);
    v->type = KEST_JSON_DOUBLE;
    if (kest_double_read(start, (size_t)(p - start), &v->u.d) != KEST_OK)
        return fail(r, start, KEST_E_JSON_NUMBER);
    return KEST_OK;
}

/* ---- duplicate keys ---- */

static bool same_key(const kest_json *a, const kest_json *b)
{
    return a->key_len == b->key_len && (a->key_len == 0 || memcmp(a->key, b->key, a->key_len) == 0);
}

/* By key, equal ones in source order. */
static int compare_members(const void *a, const void *b)
{
    const kest_json *x = *(const kest_json *const *)a, *y = *(const kest_json *const *)b;
    int order = kest_utf16_compare(x->key, x->key_len, y->key, y->key_len);

    return order ? order : x->start < y->start ? -1 : 1;
}

/* Where the key of a member stands: behind the value before it (or the brace), white space and a comma. */
static const uint8_t *key_position(const reader *r, const kest_json *object, const kest_json *member)
{
    const uint8_t *p = r->text + object->start + 1;
    const kest_json *m;

    for (m = object->u.child; m && m != member; m = m->next)
        p = r->text + m->end;
    while (*p != '"')
        p++;
    return p;
}

/* Sorting rather than hashing: no chosen keys can make it slow. */
static kest_status check_sorted(reader *r, const kest_json *object)
{
    const kest_json **members, *m, *repeated = NULL;
    size_t size, i = 0;

    if (!kest_mul(object->count, sizeof(*members), &size) || !(members = kest_malloc(size)))
        return fail(r, r->text + object->start, KEST_E_NOMEM);
    for (m = object->u.child; m; m = m->next)
        members[i++] = m;
    qsort(members, i, sizeof(*members), compare_members);
    for (i = 1; i < object->count; i++) {
        if (same_key(members[i - 1], members[i]) && (!repeated || members[i]->start < repeated->start))
            repeated = members[i];
    }
    kest_free(members);
    return repeated ? fail(r, key_position(r, object, repeated), KEST_E_JSON_DUP) : KEST_OK;
}

static bool is_repeated(const kest_json *object, const kest_json *member)
{
    const kest_json *m;

    for (m = object->u.child; m != member; m = m->next) {
        if (same_key(m, member))
            return true;
    }
    return false;
}

/* ---- values ---- */

static kest_status read_value(reader *r, kest_json *v);

/* Appends an empty node to a container. */
static kest_status add_member(reader *r, kest_json *container, kest_json **last, kest_json **out)
{
    kest_json *node;

    if ((r->max_nodes && r->nodes >= r->max_nodes) || container->count == UINT32_MAX)
        return fail(r, r->at, KEST_E_LIMIT);
    node = take(r, sizeof(*node));
    if (!node)
        return fail(r, r->at, KEST_E_NOMEM);
    memset(node, 0, sizeof(*node));
    r->nodes++;
    container->count++;
    if (*last)
        (*last)->next = node;
    else
        container->u.child = node;
    *last = *out = node;
    return KEST_OK;
}

/* After a member: moves behind the comma, or behind `close`, which sets *done. */
static kest_status read_separator(reader *r, uint8_t close, bool *done)
{
    skip_space(r);
    if (r->at == r->end || (*r->at != ',' && *r->at != close))
        return fail(r, r->at, KEST_E_JSON);
    *done = *r->at++ == close;
    if (!*done)
        skip_space(r);
    return KEST_OK;
}

static kest_status read_array(reader *r, kest_json *array)
{
    kest_json *last = NULL, *item;
    kest_status status;
    bool done = false;

    array->type = KEST_JSON_ARRAY;
    r->at++;
    skip_space(r);
    if (r->at < r->end && *r->at == ']') {
        r->at++;
        return KEST_OK;
    }
    while (!done) {
        if ((status = add_member(r, array, &last, &item)) != KEST_OK || (status = read_value(r, item)) != KEST_OK ||
            (status = read_separator(r, ']', &done)) != KEST_OK)
            return status;
    }
    return KEST_OK;
}

/* `ascending` stays true while keys come in canonical order; then none can be a duplicate, at no further cost. */
static kest_status read_member(reader *r, kest_json *object, kest_json **last, bool *ascending)
{
    const uint8_t *key_at = r->at;
    kest_json *previous = *last, *member;
    kest_status status;

    if (r->at == r->end || *r->at != '"')
        return fail(r, r->at, KEST_E_JSON);
    if ((status = add_member(r, object, last, &member)) != KEST_OK ||
        (status = read_string(r, &member->key, &member->key_len)) != KEST_OK)
        return status;
    if (previous && *ascending)
        *ascending = kest_utf16_compare(previous->key, previous->key_len, member->key, member->key_len) < 0;
    if (!*ascending && object->count <= PAIRWISE_MAX && is_repeated(object, member))
        return fail(r, key_at, KEST_E_JSON_DUP);
    skip_space(r);
    if (r->at == r->end || *r->at != ':')
        return fail(r, r->at, KEST_E_JSON);
    r->at++;
    skip_space(r);
    return read_value(r, member);
}

static kest_status read_object(reader *r, kest_json *object)
{
    bool done = false, ascending = true;
    kest_json *last = NULL;
    kest_status status;

    object->type = KEST_JSON_OBJECT;
    r->at++;
    skip_space(r);
    if (r->at < r->end && *r->at == '}') {
        r->at++;
        return KEST_OK;
    }
    while (!done) {
        if ((status = read_member(r, object, &last, &ascending)) != KEST_OK ||
            (status = read_separator(r, '}', &done)) != KEST_OK)
            return status;
    }
    return ascending || object->count <= PAIRWISE_MAX ? KEST_OK : check_sorted(r, object);
}

static kest_status read_literal(reader *r, const char *word, size_t len, kest_json_type type, kest_json *v)
{
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return fail(r, r->at, KEST_E_JSON);
    r->at += len;
    v->type = type;
    return KEST_OK;
}

static kest_status read_container(reader *r, kest_json *v)
{
    kest_status status;

    if (r->depth == KEST_MAX_DEPTH)
        return fail(r, r->at, KEST_E_JSON_DEPTH);
    r->depth++;
    status = *r->at == '[' ? read_array(r, v) : read_object(r, v);
    r->depth--;
    return status;
}

static kest_status read_value(reader *r, kest_json *v)
{
    kest_status status;

    if (r->at == r->end)
        return fail(r, r->at, KEST_E_JSON);
    v->start = (size_t)(r->at - r->text);
    switch (*r->at) {
    case '"':
        v->type = KEST_JSON_STRING;
        status = read_string(r, &v->u.str.data, &v->u.str.len);
        break;
    case '[':
    case '{': status = read_container(r, v); break;
    case 'n': status = read_literal(r, "null", 4, KEST_JSON_NULL, v); break;
    case 'f': status = read_literal(r, "false", 5, KEST_JSON_FALSE, v); break;
    case 't': status = read_literal(r, "true", 4, KEST_JSON_TRUE, v); break;
    default: status = read_number(r, v); break; /* refuses whatever is no number */
    }
    v->end = (size_t)(r->at - r->text);
    return status;
}

static kest_status read_document(reader *r, kest_json_doc *doc)
{
    kest_json holder = {0}, *last = NULL, *root; /* the holder only gives the root a container */
    kest_status status;

    skip_space(r);
    if ((status = add_member(r, &holder, &last, &root)) != KEST_OK || (status = read_value(r, root)) != KEST_OK)
        return status;
    skip_space(r);
    if (r->at != r->end)
        return fail(r, r->at, KEST_E_JSON_TRAIL);
    doc->root = root;
    return KEST_OK;
}

kest_status kest_json_parse(const uint8_t *text, size_t len, size_t max_nodes, kest_json_doc *doc)
{
    static const uint8_t nothing[1] = {0};
    reader r = {0};
    kest_status status;

    r.text = r.at = text ? text : nothing; /* so that NULL with length 0 is only an empty text */
    r.end = r.text + len;
    r.max_nodes = max_nodes;
    *doc = (kest_json_doc){0};
    status = read_document(&r, doc);
    if (status == KEST_OK) {
        doc->arena = r.arena;
    } else {
        kest_arena_free(r.arena);
        doc->error_at = r.error_at;
    }
    return status;
}

void kest_json_free(kest_json_doc *doc)
{
    kest_arena_free(doc->arena);
    *doc = (kest_json_doc){0};
}

const kest_json *kest_json_get(const kest_json *object, const char *key)
{
    const kest_json *m;
    size_t len = strlen(key);

    if (!object || object->type != KEST_JSON_OBJECT)
        return NULL;
    for (m = object->u.child; m; m = m->next) {
        if (m->key_len == len && memcmp(m->key, key, len) == 0)
            return m;
    }
    return NULL;
}

bool kest_json_is(const kest_json *v, const char *text)
{
    size_t len = strlen(text);

    return v && v->type == KEST_JSON_STRING && v->u.str.len == len && memcmp(v->u.str.data, text, len) == 0;
}
