#include "alloc.h"

#include <stdlib.h>
#include <string.h>

static const kest_allocator libc_allocator = {malloc, realloc, free};
static kest_allocator active = {malloc, realloc, free};

void kest_set_allocator(const kest_allocator *allocator)
{
    active = allocator ? *allocator : libc_allocator;
}

void *kest_malloc(size_t size)
{
    return active.malloc_fn(size ? size : 1);
}

void *kest_calloc(size_t count, size_t size)
{
    size_t total;
    void *ptr;

    if (!kest_mul(count, size, &total))
        return NULL;
    ptr = kest_malloc(total);
    if (ptr)
        memset(ptr, 0, total ? total : 1);
    return ptr;
}

void *kest_realloc(void *ptr, size_t size)
{
    return active.realloc_fn(ptr, size ? size : 1);
}

void kest_free(void *ptr)
{
    if (ptr)
        active.free_fn(ptr);
}
