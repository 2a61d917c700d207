/* failing_alloc.h: an allocator whose n-th allocation fails, and which knows what is still in use. */
#ifndef KEST_TESTS_FAILING_ALLOC_H
#define KEST_TESTS_FAILING_ALLOC_H

#include "alloc.h"

#include <stdlib.h>

static size_t live, calls, fail_at; /* blocks in use; allocations so far; which of them fails (0: none) */

static void *failing_malloc(size_t size)
{
    void *ptr = ++calls == fail_at ? NULL : malloc(size);

    live += ptr != NULL;
    return ptr;
}

static void *failing_realloc(void *ptr, size_t size)
{
    void *moved = ++calls == fail_at ? NULL : realloc(ptr, size);

    live += moved && !ptr;
    return moved;
}

static void counting_free(void *ptr)
{
    live -= ptr != NULL;
    free(ptr);
}

static const kest_allocator failing_allocator = {failing_malloc, failing_realloc, counting_free};

#endif
