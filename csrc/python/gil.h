/* gil.h: when to let go of the interpreter's lock around a signature.
 *
 * A signature takes about 20 us. Holding the lock for that long keeps a second core idle; letting go of it beside a
 * CPU-bound Python thread costs up to a whole switch interval (5 ms) to get it back. Neither is right always, so
 * the choice is made from what getting it back has cost lately:
 *
 *  - a signature that comes more than 200 us after the last one in the process holds: there is nothing to overlap;
 *  - otherwise it lets go, and times the way back. Two waits over 4 ms in a row mean that somebody computes:
 *    hold for 25 ms, then let one thread probe; while a probe still waits that long the time doubles, up to 200 ms;
 *  - beside a probe the other signing threads hold, but let go when it has just begun to wait: otherwise they would be
 *    the very wait that it measures;
 *  - 64 short waits (under 1 ms) forget all that.
 *
 * Work of a millisecond or more always lets go: use KEST_GIL_RELEASE for it.
 */
#ifndef KEST_GIL_H
#define KEST_GIL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum kest_gil_mode { KEST_GIL_ADAPTIVE = 0, KEST_GIL_HOLD = 1, KEST_GIL_ALWAYS = 2 } kest_gil_mode;

/* Shared by all threads of an interpreter; times in nanoseconds of the monotonic clock. */
typedef struct kest_gil_policy {
    atomic_int mode;
    atomic_uint_fast64_t last;       /* when the last section began */
    atomic_uint_fast64_t hold_until;
    atomic_uint_fast64_t hold_for;   /* length of the last hold; 0: none in force */
    atomic_uint slow, fast;          /* waits in a row */
    atomic_bool probing;
    atomic_uint_fast64_t waiting_since; /* when the probe began to wait; 0: it does not */
    atomic_uint_fast64_t held, released, cliffs; /* counters, for tests and benchmarks */
} kest_gil_policy;

typedef struct kest_gil_section {
    PyThreadState *saved; /* NULL: held */
    bool probe;
} kest_gil_section;

void kest_gil_begin(kest_gil_policy *policy, kest_gil_section *section);
void kest_gil_end(kest_gil_policy *policy, kest_gil_section *section);

/* Between these two, only C locals and memory that we own. */
#define KEST_GIL_ADAPT(policy) { kest_gil_section gil_section_; kest_gil_begin((policy), &gil_section_);
#define KEST_GIL_ADAPT_END(policy) kest_gil_end((policy), &gil_section_); }
#define KEST_GIL_RELEASE Py_BEGIN_ALLOW_THREADS
#define KEST_GIL_RELEASE_END Py_END_ALLOW_THREADS

#endif
