/* arena.h: memory that is released all at once, for the trees of the JSON reader. */
#ifndef KEST_ARENA_H
#define KEST_ARENA_H

#include "alloc.h"

enum { KEST_ARENA_ALIGN = 8 }; /* enough for pointers, sizes, int64 and double */

typedef struct kest_arena kest_arena;
struct kest_arena {
    kest_arena *before;
    size_t used, size; /* of data */
    _Alignas(KEST_ARENA_ALIGN) uint8_t data[];
};

/* Puts a new chunk with room for at least `need` in front; false when there is no memory, with nothing changed.
 * The first chunk has about `first` bytes, each later one twice the one before, within bounds. */
bool kest_arena_extend(kest_arena **arena, size_t first, size_t need);
void kest_arena_free(kest_arena *arena); /* may be NULL */

/* Room for `size` bytes, aligned; NULL when there is no memory. */
static inline void *kest_arena_take(kest_arena **arena, size_t first, size_t size)
{
    size_t rounded;
    void *room;

    if (!kest_add(size, KEST_ARENA_ALIGN - 1, &rounded))
        return NULL;
    rounded &= ~(size_t)(KEST_ARENA_ALIGN - 1);
    if ((!*arena || (*arena)->size - (*arena)->used < rounded) && !kest_arena_extend(arena, first, rounded))
        return NULL;
    room = (*arena)->data + (*arena)->used;
    (*arena)->used += rounded;
    return room;
}

#endif
