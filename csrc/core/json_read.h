/* json_read.h: a strict JSON reader (RFC 8259) into a read-only tree.
 *
 * Refused: duplicate keys (compared after unescaping), nesting beyond KEST_MAX_DEPTH, data after the value, a byte
 * order mark, invalid UTF-8, lone surrogates (raw or escaped), control characters in strings, integers outside
 * +-KEST_MAX_SAFE_INT, numbers that overflow to infinity.
 *
 * The tree lives in one arena that kest_json_free releases. Strings point into the source text when they hold no
 * escape, otherwise into the arena, so the source must outlive the tree. Nothing is NUL-terminated.
 */
#ifndef KEST_JSON_READ_H
#define KEST_JSON_READ_H

#include "kest.h"

typedef enum kest_json_type {
    KEST_JSON_NULL,
    KEST_JSON_FALSE,
    KEST_JSON_TRUE,
    KEST_JSON_INT,    /* a token without fraction and exponent; "-0" is a double */
    KEST_JSON_DOUBLE,
    KEST_JSON_STRING,
    KEST_JSON_ARRAY,
    KEST_JSON_OBJECT
} kest_json_type;

typedef struct kest_json kest_json;
struct kest_json {
    kest_json_type type;
    uint32_t count;          /* members of an array or object */
    size_t start, end;       /* where this value stands in the source text: [start, end) */
    const uint8_t *key;      /* unescaped key when this is a member of an object, else NULL */
    size_t key_len;
    kest_json *next;         /* next sibling, in source order */
    union {
        int64_t i;
        double d;
        struct { const uint8_t *data; size_t len; } str; /* unescaped UTF-8 */
        kest_json *child;    /* first member or NULL */
    } u;
};

typedef struct kest_json_doc {
    kest_json *root;
    void *arena;      /* private */
    size_t error_at;  /* byte offset, after a failure */
} kest_json_doc;

/* Reads one value with optional white space around it. `max_nodes` bounds the tree (0: no bound other than the
 * text's own length); KEST_E_LIMIT beyond it. On failure nothing needs freeing and doc->error_at is set. */
kest_status kest_json_parse(const uint8_t *text, size_t len, size_t max_nodes, kest_json_doc *doc);
void kest_json_free(kest_json_doc *doc); /* safe on a zeroed or failed doc */

/* Member of an object, NULL when absent. */
const kest_json *kest_json_get(const kest_json *object, const char *key);
/* True when v (may be NULL) is a string with exactly this content. */
bool kest_json_is(const kest_json *v, const char *text);

#endif
