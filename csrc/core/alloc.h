/* alloc.h: the one allocator of the core, replaceable so that tests can make any allocation fail. */
#ifndef KEST_ALLOC_H
#define KEST_ALLOC_H

#include "kest.h"

typedef struct kest_allocator {
    void *(*malloc_fn)(size_t size);
    void *(*realloc_fn)(void *ptr, size_t size);
    void (*free_fn)(void *ptr);
} kest_allocator;

/* Replaces the process-wide allocator; NULL restores the C library's. Call only while nothing is allocated. */
void kest_set_allocator(const kest_allocator *allocator);

void *kest_malloc(size_t size);
void *kest_calloc(size_t count, size_t size); /* checked multiplication, zeroed */
void *kest_realloc(void *ptr, size_t size);
void kest_free(void *ptr);

/* Checked arithmetic: true when the result fits, which is then in *out. */
static inline bool kest_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool kest_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }

#endif
