#include "uuid7.h"

#include "crypto.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { COUNTER_BITS = 22, NODE_BITS = 52 };
#define COUNTER_MASK ((UINT64_C(1) << COUNTER_BITS) - 1)
#define NODE_MASK ((UINT64_C(1) << NODE_BITS) - 1)

/* These belong to the process, not to an interpreter: uniqueness is a promise across all of them.
 * `clock_state` is milliseconds (42 bits: until the year 2109) and counter in one word, so that one
 * compare-and-swap advances both. `node` is 0 until drawn. */
static atomic_uint_fast64_t clock_state;
static atomic_uint_fast64_t node;
static pthread_once_t fork_hook_once = PTHREAD_ONCE_INIT;

static void forget_node(void)
{
    atomic_store(&node, 0);
}

static void install_fork_hook(void)
{
    pthread_atfork(NULL, NULL, forget_node);
}

static uint64_t process_node(void)
{
    uint64_t seen = atomic_load_explicit(&node, memory_order_relaxed);

    while (seen == 0) {
        uint64_t fresh;

        pthread_once(&fork_hook_once, install_fork_hook);
        kest_random(&fresh, sizeof fresh);
        fresh &= NODE_MASK;
        if (fresh && atomic_compare_exchange_strong(&node, &seen, fresh))
            seen = fresh;
    }
    return seen;
}

static uint64_t next_tick(void)
{
    struct timespec ts;
    uint64_t now, last, next;

    clock_gettime(CLOCK_REALTIME, &ts);
    now = ((uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000) << COUNTER_BITS;
    last = atomic_load_explicit(&clock_state, memory_order_relaxed);
    do /* a full counter carries into the milliseconds, as section 6.2 allows */
        next = now > last ? now : last + 1;
    while (!atomic_compare_exchange_weak(&clock_state, &last, next));
    return next;
}

void kest_uuid7_join(const kest_uuid7_parts *p, uint8_t out[KEST_UUID_LEN])
{
    uint8_t raw[16], hex[32];
    const uint64_t high = (p->unix_ms << 16) | 0x7000 | (p->counter >> 10);
    const uint64_t low = UINT64_C(0x8000000000000000) | ((uint64_t)(p->counter & 0x3ff) << NODE_BITS) | p->node;
    size_t o = 0;

    for (int i = 0; i < 8; i++) {
        raw[i] = (uint8_t)(high >> (56 - 8 * i));
        raw[8 + i] = (uint8_t)(low >> (56 - 8 * i));
    }
    kest_hex(raw, 16, hex);
    for (size_t i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            out[o++] = '-';
        out[o++] = hex[i];
    }
}

bool kest_uuid7_split(const uint8_t *text, size_t len, kest_uuid7_parts *out)
{
    uint8_t hex[32], raw[16];
    uint64_t high = 0, low = 0;
    size_t o = 0;

    if (len != KEST_UUID_LEN)
        return false;
    for (size_t i = 0; i < KEST_UUID_LEN; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i] != '-')
                return false;
        } else {
            hex[o++] = text[i];
        }
    }
    if (kest_unhex(hex, 16, raw) != KEST_OK)
        return false;
    for (int i = 0; i < 8; i++) {
        high = high << 8 | raw[i];
        low = low << 8 | raw[8 + i];
    }
    if ((high >> 12 & 15) != 7 || low >> 62 != 2)
        return false;
    out->unix_ms = high >> 16;
    out->counter = (uint32_t)((high & 0xfff) << 10 | (low >> NODE_BITS & 0x3ff));
    out->node = low & NODE_MASK;
    return true;
}

void kest_uuid7(uint8_t out[KEST_UUID_LEN], int64_t *unix_ms)
{
    kest_uuid7_parts parts = {.node = process_node()};
    const uint64_t tick = next_tick();

    parts.unix_ms = tick >> COUNTER_BITS;
    parts.counter = (uint32_t)(tick & COUNTER_MASK);
    kest_uuid7_join(&parts, out);
    if (unix_ms)
        *unix_ms = (int64_t)parts.unix_ms;
}
