/* parallel.h: one function over many indices, on several threads. */
#ifndef KEST_PARALLEL_H
#define KEST_PARALLEL_H

#include "kest.h"

enum { KEST_MOST_THREADS = 16 };

/* `scratch` is the thread's own, of the size that was asked for. */
typedef void (*kest_each_fn)(void *context, size_t index, void *scratch);

/* Calls `each` for every index below `count`, on up to `threads` threads, this one among them. Indices are handed out in
 * runs of `run`. KEST_E_NOMEM, before anything was called, when there is no scratch space for a single thread; with less
 * memory or threads than asked for, fewer do the work. */
kest_status kest_parallel(size_t count, size_t run, unsigned threads, size_t scratch, kest_each_fn each, void *context);

/* Processors that are there, as far as the system says: 1 to KEST_MOST_THREADS. */
unsigned kest_processors(void);

#endif
