#include "gate_table.h"

#include "alloc.h"

#include <string.h>

enum { PER_PAGE = 256, PER_SEGMENT = 1024, MERGES = 2 /* for each removal, so that an emptied table has few buckets left */ };

void kest_gate_table_init(kest_gate_table *t, size_t record_size, uint32_t limit)
{
    *t = (kest_gate_table){.record_size = record_size, .limit = limit, .oldest = KEST_TABLE_NONE, .newest = KEST_TABLE_NONE};
}

void kest_gate_table_free(kest_gate_table *t)
{
    while (t->npages)
        kest_free(t->pages[--t->npages]);
    while (t->nsegments)
        kest_free(t->segments[--t->nsegments]);
    kest_free(t->pages);
    kest_free(t->segments);
    kest_gate_table_init(t, t->record_size, t->limit);
}

/* ---- records and buckets by number ---- */

static kest_gate_record *record_at(const kest_gate_table *t, uint32_t index)
{
    return (kest_gate_record *)(void *)(t->pages[index / PER_PAGE] + (index % PER_PAGE) * t->record_size);
}

static uint32_t *head_at(const kest_gate_table *t, uint32_t bucket)
{
    return &t->segments[bucket / PER_SEGMENT][bucket % PER_SEGMENT];
}

static uint32_t highest_power(uint32_t n) /* of two, not above n >= 1 */
{
    return UINT32_C(1) << (31 - __builtin_clz(n));
}

static uint32_t bucket_of(const kest_gate_table *t, const uint8_t *key)
{
    const uint32_t half = highest_power(t->nbuckets);
    uint32_t hash, bucket;

    memcpy(&hash, key, sizeof hash);
    bucket = hash & (2 * half - 1);
    return bucket < t->nbuckets ? bucket : bucket - half;
}

static uint32_t index_of(const kest_gate_table *t, const kest_gate_record *r)
{
    const uint32_t neighbour = r->older != KEST_TABLE_NONE ? record_at(t, r->older)->newer : t->oldest;

    return neighbour;
}

/* Where the number `index` stands in the chain of its bucket. */
static uint32_t *link_to(const kest_gate_table *t, const kest_gate_record *r, uint32_t index)
{
    uint32_t *link = head_at(t, bucket_of(t, r->key));

    while (*link != index)
        link = &record_at(t, *link)->next;
    return link;
}

/* Room for one more pointer. */
static bool extend(void *list, size_t count, size_t *room)
{
    void **items = *(void ***)list;
    size_t size, more = *room ? *room * 2 : 4;

    if (count < *room)
        return true;
    if (!kest_mul(more, sizeof *items, &size) || !(items = kest_realloc(items, size)))
        return false;
    *(void ***)list = items;
    *room = more;
    return true;
}

/* ---- buckets, one at a time ---- */

static bool add_bucket(kest_gate_table *t)
{
    const uint32_t fresh = t->nbuckets;
    uint32_t *from, *to, half;

    if (fresh / PER_SEGMENT == t->nsegments) {
        if (!extend(&t->segments, t->nsegments, &t->segments_room) ||
            !(t->segments[t->nsegments] = kest_malloc(PER_SEGMENT * sizeof(uint32_t))))
            return false;
        t->nsegments++;
    }
    *head_at(t, fresh) = KEST_TABLE_NONE;
    t->nbuckets++;
    if (!fresh)
        return true;
    half = highest_power(fresh);
    from = head_at(t, fresh - half);
    to = head_at(t, fresh);
    while (*from != KEST_TABLE_NONE) {
        const uint32_t index = *from;
        kest_gate_record *r = record_at(t, index);

        if (bucket_of(t, r->key) == fresh) {
            *from = r->next;
            r->next = *to;
            *to = index;
        } else {
            from = &r->next;
        }
    }
    return true;
}

static void drop_bucket(kest_gate_table *t)
{
    const uint32_t last = t->nbuckets - 1;
    uint32_t *into, chain = *head_at(t, last);

    t->nbuckets = last;
    if (last) {
        into = head_at(t, last - highest_power(last));
        while (*into != KEST_TABLE_NONE)
            into = &record_at(t, *into)->next;
        *into = chain;
    }
    if (last % PER_SEGMENT == 0)
        kest_free(t->segments[--t->nsegments]);
}

/* ---- order of touch ---- */

static void unlink_order(kest_gate_table *t, const kest_gate_record *r)
{
    if (r->older != KEST_TABLE_NONE)
        record_at(t, r->older)->newer = r->newer;
    else
        t->oldest = r->newer;
    if (r->newer != KEST_TABLE_NONE)
        record_at(t, r->newer)->older = r->older;
    else
        t->newest = r->older;
}

static void link_newest(kest_gate_table *t, kest_gate_record *r, uint32_t index)
{
    r->older = t->newest;
    r->newer = KEST_TABLE_NONE;
    if (t->newest != KEST_TABLE_NONE)
        record_at(t, t->newest)->newer = index;
    else
        t->oldest = index;
    t->newest = index;
}

/* ---- the interface ---- */

void *kest_gate_table_find(const kest_gate_table *t, const uint8_t key[KEST_GATE_KEY_LEN])
{
    if (!t->count)
        return NULL;
    for (uint32_t i = *head_at(t, bucket_of(t, key)); i != KEST_TABLE_NONE;) {
        kest_gate_record *r = record_at(t, i);

        if (memcmp(r->key, key, KEST_GATE_KEY_LEN) == 0)
            return r;
        i = r->next;
    }
    return NULL;
}

kest_status kest_gate_table_insert(kest_gate_table *t, const uint8_t key[KEST_GATE_KEY_LEN], void *out_record)
{
    const uint32_t index = t->count;
    kest_gate_record *r;
    uint32_t *head;

    if (t->count >= t->limit)
        return KEST_E_LIMIT;
    if (index / PER_PAGE == t->npages) {
        if (!extend(&t->pages, t->npages, &t->pages_room) || !(t->pages[t->npages] = kest_malloc(PER_PAGE * t->record_size)))
            return KEST_E_NOMEM;
        t->npages++;
    }
    /* Without memory for a bucket chains only get longer; the first one is needed. */
    if (t->count >= t->nbuckets && !add_bucket(t) && !t->nbuckets) {
        if (t->count == 0) {
            kest_free(t->pages[0]);
            t->npages = 0;
        }
        return KEST_E_NOMEM;
    }
    t->count++;
    r = record_at(t, index);
    memset(r, 0, t->record_size);
    memcpy(r->key, key, KEST_GATE_KEY_LEN);
    head = head_at(t, bucket_of(t, key));
    r->next = *head;
    *head = index;
    link_newest(t, r, index);
    *(kest_gate_record **)out_record = r;
    return KEST_OK;
}

void *kest_gate_table_oldest(const kest_gate_table *t)
{
    return t->oldest == KEST_TABLE_NONE ? NULL : record_at(t, t->oldest);
}

void kest_gate_table_touch(kest_gate_table *t, void *record)
{
    const uint32_t index = index_of(t, record);

    if (t->newest != index) {
        unlink_order(t, record);
        link_newest(t, record, index);
    }
}

void kest_gate_table_remove(kest_gate_table *t, void *record)
{
    kest_gate_record *r = record, *moved;
    const uint32_t index = index_of(t, r), last = t->count - 1;

    *link_to(t, r, index) = r->next;
    unlink_order(t, r);
    if (index != last) { /* the last one takes its place, so that pages stay dense */
        moved = record_at(t, last);
        *link_to(t, moved, last) = index;
        if (moved->older != KEST_TABLE_NONE)
            record_at(t, moved->older)->newer = index;
        else
            t->oldest = index;
        if (moved->newer != KEST_TABLE_NONE)
            record_at(t, moved->newer)->older = index;
        else
            t->newest = index;
        memcpy(r, moved, t->record_size);
    }
    t->count = last;
    if (last % PER_PAGE == 0)
        kest_free(t->pages[--t->npages]);
    for (int i = 0; i < MERGES && t->nbuckets && t->nbuckets / 2 >= t->count; i++)
        drop_bucket(t);
}

size_t kest_gate_table_bytes(const kest_gate_table *t)
{
    return t->npages * PER_PAGE * t->record_size + t->nsegments * PER_SEGMENT * sizeof(uint32_t) +
           (t->pages_room + t->segments_room) * sizeof(void *);
}
