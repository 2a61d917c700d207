#include "tlog.h"

#include <string.h>

#define MAX_SIZE (UINT64_C(1) << 62)

/* Largest power of two below n; n is at least 2. */
static uint64_t split(uint64_t n)
{
    return UINT64_C(1) << (63 - __builtin_clzll(n - 1));
}

/* Adds one element to the proof: the tree over leaves [lo, hi), as its perfect subtrees from the left. */
static void put_range(kest_tlog_path *out, uint64_t lo, uint64_t hi)
{
    while (lo < hi) {
        const unsigned level = (unsigned)(63 - __builtin_clzll(hi - lo)); /* lo is a multiple of this power, or 0 */

        out->nodes[out->count].level = (uint8_t)level;
        out->nodes[out->count].index = lo >> level;
        lo += UINT64_C(1) << level;
        out->nodes[out->count].ends = lo == hi;
        out->count++;
    }
}

/* Proofs run from the bottom up, the way down finds them from the top: the elements change places, not their nodes. */
static void reverse(kest_tlog_path *path)
{
    kest_tlog_coord copy[KEST_TLOG_MAX_NODES];
    size_t end = path->count, at = 0;

    memcpy(copy, path->nodes, sizeof copy);
    while (end) {
        size_t start = end - 1;

        while (start && !copy[start - 1].ends)
            start--;
        memcpy(path->nodes + at, copy + start, (end - start) * sizeof copy[0]);
        at += end - start;
        end = start;
    }
}

kest_status kest_tlog_inclusion_path(uint64_t index, uint64_t size, kest_tlog_path *out)
{
    uint64_t lo = 0, hi = size;

    if (index >= size || size > MAX_SIZE)
        return KEST_E_OVERFLOW;
    out->count = 0;
    while (hi - lo > 1) {
        const uint64_t middle = lo + split(hi - lo);

        if (index < middle) {
            put_range(out, middle, hi);
            hi = middle;
        } else {
            put_range(out, lo, middle);
            lo = middle;
        }
    }
    reverse(out);
    return KEST_OK;
}

kest_status kest_tlog_consistency_path(uint64_t old, uint64_t size, kest_tlog_path *out)
{
    uint64_t lo = 0, hi = size;
    bool whole = true; /* the old tree itself is this subtree: its root need not be said */

    if (!old || old > size || size > MAX_SIZE)
        return KEST_E_OVERFLOW;
    out->count = 0;
    while (old < hi) {
        const uint64_t middle = lo + split(hi - lo);

        if (old <= middle) {
            put_range(out, middle, hi);
            hi = middle;
        } else {
            put_range(out, lo, middle);
            lo = middle;
            whole = false;
        }
    }
    if (!whole)
        put_range(out, lo, hi);
    reverse(out);
    return KEST_OK;
}

kest_status kest_tlog_verify_inclusion(uint64_t index, uint64_t size, const uint8_t *leaf, const uint8_t *proof,
                                       size_t count, const uint8_t *root)
{
    uint64_t fn = index, sn = size - 1;
    uint8_t r[KEST_HASH_LEN];
    kest_status st = KEST_OK;

    if (index >= size || size > MAX_SIZE)
        return KEST_E_SIGNATURE;
    memcpy(r, leaf, sizeof r);
    for (size_t i = 0; i < count && st == KEST_OK; i++) {
        const uint8_t *p = proof + i * KEST_HASH_LEN;

        if (sn == 0)
            return KEST_E_SIGNATURE;
        if ((fn & 1) || fn == sn) {
            st = kest_tlog_node(p, r, r);
            while (fn && !(fn & 1)) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            st = kest_tlog_node(r, p, r);
        }
        fn >>= 1;
        sn >>= 1;
    }
    if (st != KEST_OK)
        return st;
    return sn == 0 && memcmp(r, root, sizeof r) == 0 ? KEST_OK : KEST_E_SIGNATURE;
}

/* Section 2.1.4.2, from its step 4 on: `first` is where both trees begin. */
static kest_status consistent(uint64_t fn, uint64_t sn, const uint8_t *first, const uint8_t *rest, size_t count,
                              const uint8_t *old_root, const uint8_t *root)
{
    uint8_t fr[KEST_HASH_LEN], sr[KEST_HASH_LEN];
    kest_status st = KEST_OK;

    memcpy(fr, first, sizeof fr);
    memcpy(sr, first, sizeof sr);
    while (fn & 1) {
        fn >>= 1;
        sn >>= 1;
    }
    for (size_t i = 0; i < count && st == KEST_OK; i++) {
        const uint8_t *c = rest + i * KEST_HASH_LEN;

        if (sn == 0)
            return KEST_E_SIGNATURE;
        if ((fn & 1) || fn == sn) {
            st = kest_tlog_node(c, fr, fr);
            if (st == KEST_OK)
                st = kest_tlog_node(c, sr, sr);
            while (fn && !(fn & 1)) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            st = kest_tlog_node(sr, c, sr);
        }
        fn >>= 1;
        sn >>= 1;
    }
    if (st != KEST_OK)
        return st;
    return sn == 0 && memcmp(fr, old_root, sizeof fr) == 0 && memcmp(sr, root, sizeof sr) == 0 ? KEST_OK : KEST_E_SIGNATURE;
}

kest_status kest_tlog_verify_consistency(uint64_t old, uint64_t size, const uint8_t *old_root, const uint8_t *proof,
                                         size_t count, const uint8_t *root)
{
    if (old > size || size > MAX_SIZE)
        return KEST_E_SIGNATURE;
    if (old == size)
        return !count && memcmp(old_root, root, KEST_HASH_LEN) == 0 ? KEST_OK : KEST_E_SIGNATURE;
    if (old == 0) {
        uint8_t empty[KEST_HASH_LEN];
        const kest_status st = kest_tlog_root(NULL, 0, empty);

        if (st != KEST_OK)
            return st;
        return !count && memcmp(old_root, empty, sizeof empty) == 0 ? KEST_OK : KEST_E_SIGNATURE;
    }
    if ((old & (old - 1)) == 0) /* the old tree is a subtree of the new one: its root begins the proof, unsaid */
        return consistent(old - 1, size - 1, old_root, proof, count, old_root, root);
    if (!count)
        return KEST_E_SIGNATURE;
    return consistent(old - 1, size - 1, proof, proof + KEST_HASH_LEN, count - 1, old_root, root);
}
