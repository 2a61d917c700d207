#include "parallel.h"

#include "alloc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

typedef struct job {
    size_t count, run;
    kest_each_fn each;
    void *context;
    atomic_size_t next;
} job;

typedef struct worker {
    job *job;
    void *scratch;
    pthread_t id;
} worker;

static void *work(void *arg)
{
    const worker *w = arg;
    job *j = w->job;
    size_t at;

    while ((at = atomic_fetch_add_explicit(&j->next, j->run, memory_order_relaxed)) < j->count) {
        const size_t end = j->count - at < j->run ? j->count : at + j->run;

        for (; at < end; at++)
            j->each(j->context, at, w->scratch);
    }
    return NULL;
}

kest_status kest_parallel(size_t count, size_t run, unsigned threads, size_t scratch, kest_each_fn each, void *context)
{
    worker workers[KEST_MOST_THREADS];
    unsigned made = 0, started = 1;
    job j = {.count = count, .run = run ? run : 1, .each = each, .context = context};

    atomic_init(&j.next, 0);
    if (threads > KEST_MOST_THREADS)
        threads = KEST_MOST_THREADS;
    do {
        workers[made].job = &j;
        workers[made].scratch = kest_malloc(scratch);
    } while (workers[made].scratch && ++made < threads);
    if (!made)
        return KEST_E_NOMEM;
    while (started < made && started * j.run < count && pthread_create(&workers[started].id, NULL, work, &workers[started]) == 0)
        started++;
    work(&workers[0]);
    while (--started)
        pthread_join(workers[started].id, NULL);
    while (made)
        kest_free(workers[--made].scratch);
    return KEST_OK;
}

unsigned kest_processors(void)
{
    const long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : n > KEST_MOST_THREADS ? KEST_MOST_THREADS : (unsigned)n;
}
