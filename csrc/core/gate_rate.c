#include "gate_rate.h"

#include "alloc.h"

#include <string.h>

enum { INLINE = 2, SLICES = 32, MOST = SLICES + 2, SWEEP_EACH_CALL = 4 };

/* Events in order of time; `total` of the head is the sum of all hits. */
typedef struct series {
    kest_gate_record head;
    uint8_t count, cap;
    union {
        struct {
            int64_t at[INLINE];
            uint32_t hits[INLINE];
        } in;
        int64_t *out; /* cap times, then cap hits */
    } u;
} series;

typedef struct window {
    int64_t length;
    kest_gate_table table;
} window;

struct kest_gate_rates {
    window *windows;
    size_t nwindows, turn; /* whose expired keys are looked for next */
    uint32_t limit;
    int64_t latest;
    size_t heap; /* bytes of longer series */
};

static int64_t *times(series *s)
{
    return s->cap == INLINE ? s->u.in.at : s->u.out;
}

static uint32_t *hits(series *s)
{
    return s->cap == INLINE ? s->u.in.hits : (uint32_t *)(void *)(s->u.out + s->cap);
}

static size_t heap_of(const series *s)
{
    return s->cap > INLINE ? s->cap * (sizeof(int64_t) + sizeof(uint32_t)) : 0;
}

kest_status kest_gate_rates_new(uint32_t limit, kest_gate_rates **out)
{
    kest_gate_rates *rates = kest_calloc(1, sizeof *rates);

    if (!rates)
        return KEST_E_NOMEM;
    rates->limit = limit;
    rates->latest = INT64_MIN;
    *out = rates;
    return KEST_OK;
}

static void forget(kest_gate_rates *rates, window *w, series *s)
{
    if (s->cap > INLINE) {
        rates->heap -= heap_of(s);
        kest_free(s->u.out);
    }
    kest_gate_table_remove(&w->table, s);
}

void kest_gate_rates_free(kest_gate_rates *rates)
{
    if (!rates)
        return;
    for (size_t i = 0; i < rates->nwindows; i++) {
        kest_gate_table *table = &rates->windows[i].table;

        while (rates->heap && table->count)
            forget(rates, &rates->windows[i], kest_gate_table_oldest(table));
        kest_gate_table_free(table);
    }
    kest_free(rates->windows);
    kest_free(rates);
}

static window *find_window(const kest_gate_rates *rates, int64_t length)
{
    for (size_t i = 0; i < rates->nwindows; i++)
        if (rates->windows[i].length == length)
            return &rates->windows[i];
    return NULL;
}

static window *need_window(kest_gate_rates *rates, int64_t length, kest_status *st)
{
    window *more, *w = find_window(rates, length);

    if (w)
        return w;
    *st = KEST_E_LIMIT;
    if (rates->nwindows == KEST_RATES_MAX_WINDOWS)
        return NULL;
    *st = KEST_E_NOMEM;
    if (!(more = kest_realloc(rates->windows, (rates->nwindows + 1) * sizeof *more)))
        return NULL;
    rates->windows = more;
    w = &more[rates->nwindows++];
    w->length = length;
    kest_gate_table_init(&w->table, sizeof(series), rates->limit);
    return w;
}

static int64_t steady(kest_gate_rates *rates, int64_t now)
{
    if (now > rates->latest)
        rates->latest = now;
    return rates->latest;
}

static void expire(series *s, int64_t length, int64_t now)
{
    int64_t *at = times(s);
    uint32_t *hit = hits(s);
    uint8_t gone = 0;

    while (gone < s->count && now - at[gone] >= length)
        s->head.total -= hit[gone++];
    if (!gone)
        return;
    s->count = (uint8_t)(s->count - gone);
    memmove(at, at + gone, s->count * sizeof *at);
    memmove(hit, hit + gone, s->count * sizeof *hit);
}

uint32_t kest_gate_rates_count(kest_gate_rates *rates, const uint8_t key[KEST_GATE_KEY_LEN], int64_t length, int64_t now, bool *full)
{
    window *w = find_window(rates, length);
    series *s = w ? kest_gate_table_find(&w->table, key) : NULL;

    now = steady(rates, now);
    if (full)
        *full = w ? !s && w->table.count >= w->table.limit : rates->nwindows == KEST_RATES_MAX_WINDOWS || !rates->limit;
    if (!s)
        return 0;
    expire(s, length, now);
    return s->head.total;
}

/* Events of one aligned slice become one, at the time of the last of them. */
static void merge_slices(series *s, int64_t slice)
{
    int64_t *at = times(s);
    uint32_t *hit = hits(s);
    uint8_t to = 0;

    for (uint8_t i = 1; i < s->count; i++) {
        if (at[i] / slice == at[to] / slice)
            hit[to] += hit[i];
        else
            hit[++to] = hit[i];
        at[to] = at[i];
    }
    s->count = (uint8_t)(to + 1);
}

static bool widen(kest_gate_rates *rates, series *s)
{
    const uint8_t cap = s->cap == INLINE ? 6 : s->cap == 6 ? 16 : MOST;
    int64_t *out = kest_malloc(cap * (sizeof(int64_t) + sizeof(uint32_t)));

    if (!out)
        return false;
    memcpy(out, times(s), s->count * sizeof(int64_t));
    memcpy(out + cap, hits(s), s->count * sizeof(uint32_t));
    rates->heap -= heap_of(s);
    if (s->cap > INLINE)
        kest_free(s->u.out);
    s->cap = cap;
    s->u.out = out;
    rates->heap += heap_of(s);
    return true;
}

static bool append(kest_gate_rates *rates, series *s, int64_t length, int64_t now)
{
    const int64_t slice = length / SLICES > 0 ? length / SLICES : 1;

    if (s->count >= SLICES) {
        merge_slices(s, slice);
        if (times(s)[s->count - 1] / slice == now / slice)
            goto join;
    }
    if (s->count && times(s)[s->count - 1] == now)
        goto join;
    if (s->count == s->cap && !widen(rates, s))
        return false;
    times(s)[s->count] = now;
    hits(s)[s->count++] = 1;
    s->head.total++;
    return true;
join:
    times(s)[s->count - 1] = now;
    hits(s)[s->count - 1]++;
    s->head.total++;
    return true;
}

kest_status kest_gate_rates_record(kest_gate_rates *rates, const uint8_t key[KEST_GATE_KEY_LEN], int64_t length, int64_t now)
{
    kest_status st = KEST_OK;
    window *w = need_window(rates, length, &st);
    series *s;

    if (!w)
        return st;
    now = steady(rates, now);
    s = kest_gate_table_find(&w->table, key);
    if (s) {
        expire(s, length, now);
        kest_gate_table_touch(&w->table, s);
    } else {
        if ((st = kest_gate_table_insert(&w->table, key, &s)) != KEST_OK)
            return st;
        s->cap = INLINE;
    }
    if (s->head.total < UINT32_MAX && !append(rates, s, length, now))
        return KEST_E_NOMEM; /* a new key always has room for its first event */
    (void)kest_gate_rates_sweep(rates, now, SWEEP_EACH_CALL);
    return KEST_OK;
}

void kest_gate_rates_undo(kest_gate_rates *rates, const uint8_t key[KEST_GATE_KEY_LEN], int64_t length)
{
    window *w = find_window(rates, length);
    series *s = w ? kest_gate_table_find(&w->table, key) : NULL;

    if (!s || !s->count)
        return;
    s->head.total--;
    if (--hits(s)[s->count - 1] == 0)
        s->count--;
}

static size_t sweep_window(kest_gate_rates *rates, window *w, int64_t now, size_t budget)
{
    size_t gone = 0;
    series *s;

    while (gone < budget && (s = kest_gate_table_oldest(&w->table)) != NULL &&
           (!s->count || now - times(s)[s->count - 1] >= w->length)) {
        forget(rates, w, s);
        gone++;
    }
    return gone;
}

size_t kest_gate_rates_sweep(kest_gate_rates *rates, int64_t now, size_t budget)
{
    size_t gone = 0;

    now = steady(rates, now);
    for (size_t i = 0; i < rates->nwindows && gone < budget; i++) {
        gone += sweep_window(rates, &rates->windows[rates->turn % rates->nwindows], now, budget - gone);
        if (gone < budget) {
            rates->turn = (rates->turn + 1) % rates->nwindows;
            if (budget <= SWEEP_EACH_CALL && i >= 1)
                break;
        }
    }
    return gone;
}

size_t kest_gate_rates_keys(const kest_gate_rates *rates)
{
    size_t keys = 0;

    for (size_t i = 0; i < rates->nwindows; i++)
        keys += rates->windows[i].table.count;
    return keys;
}

size_t kest_gate_rates_bytes(const kest_gate_rates *rates)
{
    size_t bytes = sizeof *rates + rates->nwindows * sizeof(window) + rates->heap;

    for (size_t i = 0; i < rates->nwindows; i++)
        bytes += kest_gate_table_bytes(&rates->windows[i].table);
    return bytes;
}
