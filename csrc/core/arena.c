#include "arena.h"

enum { CHUNK_MIN = 1024, CHUNK_MAX = 256 * 1024 };

bool kest_arena_extend(kest_arena **arena, size_t first, size_t need)
{
    size_t size = *arena ? (*arena)->size : first, total;
    kest_arena *chunk;

    if (*arena && size <= CHUNK_MAX)
        size *= 2;
    size = size < CHUNK_MIN ? CHUNK_MIN : size > CHUNK_MAX ? CHUNK_MAX : size;
    size = size < need ? need : size;
    if (!kest_add(size, sizeof(kest_arena), &total))
        return false;
    chunk = kest_malloc(total);
    if (!chunk)
        return false;
    chunk->before = *arena;
    chunk->used = 0;
    chunk->size = size;
    *arena = chunk;
    return true;
}

void kest_arena_free(kest_arena *arena)
{
    kest_arena *before;

    for (; arena; arena = before) {
        before = arena->before;
        kest_free(arena);
    }
}
