#include "gil.h"

#include <time.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

enum { FAST_TO_FORGET = 64, SLOW_TO_HOLD = 2 };

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static uint64_t load(atomic_uint_fast64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

/* True for the first millisecond in which the probing thread wants the lock back: whoever holds it gives way. After
 * that it is clear that somebody else took it. */
static bool prober_just_waits(kest_gil_policy *p, uint64_t now)
{
    const uint64_t since = load(&p->waiting_since);

    return since && now - since < 1 * MS;
}

static bool decide(kest_gil_policy *p, kest_gil_section *s)
{
    const uint64_t now = now_ns();
    const uint64_t last = atomic_exchange_explicit(&p->last, now, memory_order_relaxed);
    bool idle = false;

    if (now - last > 200 * US || now < load(&p->hold_until))
        return false;
    if (load(&p->hold_for) == 0)
        return true;
    /* A hold has run out: one thread finds out whether it is still needed, the others wait for its answer. */
    s->probe = atomic_compare_exchange_strong(&p->probing, &idle, true);
    return s->probe || prober_just_waits(p, now);
}

void kest_gil_begin(kest_gil_policy *p, kest_gil_section *s)
{
    const int mode = atomic_load_explicit(&p->mode, memory_order_relaxed);

    s->probe = false;
    s->saved = NULL;
    if (mode == KEST_GIL_ALWAYS || (mode == KEST_GIL_ADAPTIVE && decide(p, s))) {
        atomic_fetch_add_explicit(&p->released, 1, memory_order_relaxed);
        s->saved = PyEval_SaveThread();
    } else {
        atomic_fetch_add_explicit(&p->held, 1, memory_order_relaxed);
    }
}

static void learn(kest_gil_policy *p, bool probe, uint64_t waited, uint64_t now)
{
    if (waited > 4 * MS) {
        const unsigned slow = atomic_fetch_add_explicit(&p->slow, 1, memory_order_relaxed) + 1;

        atomic_store_explicit(&p->fast, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->cliffs, 1, memory_order_relaxed);
        if (probe || slow >= SLOW_TO_HOLD) {
            const uint64_t before = load(&p->hold_for);
            uint64_t hold = 25 * MS;

            if (before) {
                hold = before;
                if (probe) /* only the probing thread doubles: the others saw the same cliff */
                    hold = before * 2 > 200 * MS ? 200 * MS : before * 2;
            }
            atomic_store_explicit(&p->hold_for, hold, memory_order_relaxed);
            atomic_store_explicit(&p->hold_until, now + hold, memory_order_relaxed);
            atomic_store_explicit(&p->slow, 0, memory_order_relaxed);
        }
    } else {
        atomic_store_explicit(&p->slow, 0, memory_order_relaxed);
        if (waited < 1 * MS && atomic_fetch_add_explicit(&p->fast, 1, memory_order_relaxed) + 1 >= FAST_TO_FORGET) {
            atomic_store_explicit(&p->fast, 0, memory_order_relaxed);
            atomic_store_explicit(&p->hold_for, 0, memory_order_relaxed);
        }
    }
}

void kest_gil_end(kest_gil_policy *p, kest_gil_section *s)
{
    uint64_t before, after;

    if (!s->saved)
        return;
    before = now_ns();
    if (s->probe)
        atomic_store_explicit(&p->waiting_since, before, memory_order_relaxed);
    PyEval_RestoreThread(s->saved);
    after = now_ns();
    if (s->probe)
        atomic_store_explicit(&p->waiting_since, 0, memory_order_relaxed);
    if (atomic_load_explicit(&p->mode, memory_order_relaxed) == KEST_GIL_ADAPTIVE)
        learn(p, s->probe, after - before, after);
    if (s->probe)
        atomic_store(&p->probing, false);
}
