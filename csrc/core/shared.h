/* shared.h: immutable, reference-counted strings and taint sets. Entries of one chain mostly repeat the principal
 * and taints of their parent, so nodes share these instead of holding copies. */
#ifndef KEST_SHARED_H
#define KEST_SHARED_H

#include "kest.h"

#include <stdatomic.h>

typedef struct kest_text {
    atomic_uint refs;
    uint32_t len;
    uint8_t data[];
} kest_text;

kest_status kest_text_new(const uint8_t *data, size_t len, kest_text **out);
kest_text *kest_text_ref(kest_text *text);
void kest_text_unref(kest_text *text); /* NULL is fine */
bool kest_text_is(const kest_text *text, const uint8_t *data, size_t len);

/* A view of bytes that somebody else owns. */
typedef struct kest_str {
    const uint8_t *data;
    size_t len;
} kest_str;

int kest_str_compare(kest_str a, kest_str b); /* by bytes, which for UTF-8 is by code point */

/* A set of taints: non-empty strings, ascending by code point, no duplicates. */
typedef struct kest_taints {
    atomic_uint refs;
    uint32_t count;
    kest_str items[]; /* pointing into the same allocation */
} kest_taints;

kest_taints *kest_taints_ref(kest_taints *taints);
void kest_taints_unref(kest_taints *taints);
/* KEST_E_TAINT_ORDER unless items are non-empty, strictly ascending. */
kest_status kest_taints_check(const kest_str *items, size_t count);
/* A copy of a checked list. */
kest_status kest_taints_new(const kest_str *items, size_t count, kest_taints **out);
bool kest_taints_equal(const kest_taints *a, const kest_str *items, size_t count);
bool kest_taints_has(const kest_str *items, size_t count, kest_str item);

#endif
