#include "seen.h"

#include "alloc.h"

#include <string.h>

/* Open addressing; a slot of zeros is free (no SHA-256 that anybody finds is zero). Half full at most. */
typedef struct half {
    uint8_t (*slots)[KEST_HASH_LEN];
    size_t count;
} half;

struct kest_seen {
    half halves[2];
    int newer;
    size_t nslots, full_at;
};

kest_status kest_seen_new(size_t capacity, kest_seen **out)
{
    kest_seen *seen;

    if (capacity < 2 || capacity > (size_t)1 << 24)
        return KEST_E_LIMIT;
    seen = kest_calloc(1, sizeof *seen);
    if (!seen)
        return KEST_E_NOMEM;
    seen->full_at = capacity / 2;
    seen->nslots = 4;
    while (seen->nslots < 2 * seen->full_at)
        seen->nslots *= 2;
    for (int i = 0; i < 2; i++)
        if (!(seen->halves[i].slots = kest_calloc(seen->nslots, KEST_HASH_LEN))) {
            kest_seen_free(seen);
            return KEST_E_NOMEM;
        }
    *out = seen;
    return KEST_OK;
}

void kest_seen_free(kest_seen *seen)
{
    if (!seen)
        return;
    kest_free(seen->halves[0].slots);
    kest_free(seen->halves[1].slots);
    kest_free(seen);
}

/* The slot that holds `hash`, or the free one where it would go. */
static uint8_t *slot(const kest_seen *seen, const half *h, const uint8_t hash[KEST_HASH_LEN], bool *found)
{
    static const uint8_t none[KEST_HASH_LEN];
    uint64_t key;
    size_t s;

    memcpy(&key, hash, sizeof key);
    for (s = (size_t)key & (seen->nslots - 1);; s = (s + 1) & (seen->nslots - 1)) {
        *found = memcmp(h->slots[s], hash, KEST_HASH_LEN) == 0;
        if (*found || memcmp(h->slots[s], none, KEST_HASH_LEN) == 0)
            return h->slots[s];
    }
}

bool kest_seen_has(const kest_seen *seen, const uint8_t hash[KEST_HASH_LEN])
{
    bool found;

    (void)slot(seen, &seen->halves[seen->newer], hash, &found);
    if (!found)
        (void)slot(seen, &seen->halves[!seen->newer], hash, &found);
    return found;
}

void kest_seen_add(kest_seen *seen, const uint8_t hash[KEST_HASH_LEN])
{
    half *h = &seen->halves[seen->newer];
    bool found;
    uint8_t *at = slot(seen, h, hash, &found);

    if (found)
        return;
    if (h->count >= seen->full_at) {
        seen->newer = !seen->newer;
        h = &seen->halves[seen->newer];
        memset(h->slots, 0, seen->nslots * KEST_HASH_LEN);
        h->count = 0;
        at = slot(seen, h, hash, &found);
    }
    memcpy(at, hash, KEST_HASH_LEN);
    h->count++;
}

size_t kest_seen_count(const kest_seen *seen)
{
    return seen->halves[0].count + seen->halves[1].count;
}
