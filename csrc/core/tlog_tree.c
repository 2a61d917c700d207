#include "crypto.h"
#include "tlog.h"

#include <string.h>

kest_status kest_tlog_leaf(uint8_t *data, size_t len, uint8_t out[KEST_HASH_LEN])
{
    const uint8_t before = data[-1];
    kest_status st;

    data[-1] = 0;
    st = kest_sha256(data - 1, len + 1, out);
    data[-1] = before;
    return st;
}

kest_status kest_tlog_node(const uint8_t *left, const uint8_t *right, uint8_t out[KEST_HASH_LEN])
{
    uint8_t both[1 + 2 * KEST_HASH_LEN] = {1};

    memcpy(both + 1, left, KEST_HASH_LEN);
    memcpy(both + 1 + KEST_HASH_LEN, right, KEST_HASH_LEN);
    return kest_sha256(both, sizeof both, out);
}

/* Perfect subtrees seen so far, one per set bit of the number of hashes: what a binary counter holds. */
typedef struct frontier {
    uint8_t hashes[64][KEST_HASH_LEN];
    uint64_t count;
} frontier;

static kest_status frontier_push(frontier *f, const uint8_t *hash)
{
    uint8_t carry[KEST_HASH_LEN];
    unsigned level = 0;
    kest_status st = KEST_OK;

    memcpy(carry, hash, sizeof carry);
    for (; st == KEST_OK && f->count >> level & 1; level++)
        st = kest_tlog_node(f->hashes[level], carry, carry);
    memcpy(f->hashes[level], carry, sizeof carry);
    f->count++;
    return st;
}

/* Joins what is left of `hash` (a subtree to the right; NULL: none yet) with the perfect subtrees, smallest first. */
static kest_status frontier_root(const frontier *f, uint8_t out[KEST_HASH_LEN], bool *any)
{
    kest_status st = KEST_OK;

    for (unsigned level = 0; level < 64 && st == KEST_OK; level++) {
        if (!(f->count >> level & 1))
            continue;
        if (*any)
            st = kest_tlog_node(f->hashes[level], out, out);
        else
            memcpy(out, f->hashes[level], KEST_HASH_LEN);
        *any = true;
    }
    return st;
}

/* As frontier_root, over `count` hashes of one row. */
static kest_status row_root(const uint8_t *hashes, size_t count, uint8_t out[KEST_HASH_LEN], bool *any)
{
    frontier f = {.count = 0};
    kest_status st = KEST_OK;

    for (size_t i = 0; i < count && st == KEST_OK; i++)
        st = frontier_push(&f, hashes + i * KEST_HASH_LEN);
    return st == KEST_OK ? frontier_root(&f, out, any) : st;
}

kest_status kest_tlog_root(const uint8_t *hashes, size_t count, uint8_t out[KEST_HASH_LEN])
{
    bool any = false;

    return count ? row_root(hashes, count, out, &any) : kest_sha256("", 0, out);
}

kest_status kest_tlog_fold(const uint8_t *hashes, size_t count, uint8_t out[KEST_HASH_LEN])
{
    uint8_t acc[KEST_HASH_LEN];
    kest_status st = KEST_OK;

    memcpy(acc, hashes + (count - 1) * KEST_HASH_LEN, sizeof acc);
    for (size_t i = count - 1; i-- > 0 && st == KEST_OK;)
        st = kest_tlog_node(hashes + i * KEST_HASH_LEN, acc, acc);
    memcpy(out, acc, sizeof acc);
    return st;
}

/* A row has become a full tile: hand it out, and its root goes up. `size` is the number of leaves that it completes. */
static kest_status tile_done(kest_tlog_tree *tree, uint64_t size, kest_tile_fn full, void *context)
{
    kest_status st = KEST_OK;

    for (unsigned level = 0; level < KEST_TILE_LEVELS - 1 && st == KEST_OK; level++) {
        const uint64_t tiles = size >> (KEST_TILE_HEIGHT * (level + 1)); /* full ones at this level, by now */
        const size_t above = (size_t)(tiles - 1) & (KEST_TILE_WIDTH - 1);

        st = full(context, level, tiles - 1, tree->rows[level]);
        if (st == KEST_OK)
            st = kest_tlog_root(tree->rows[level], KEST_TILE_WIDTH, tree->rows[level + 1] + above * KEST_HASH_LEN);
        if (above != KEST_TILE_WIDTH - 1) /* the row above is not full yet */
            break;
    }
    return st;
}

kest_status kest_tlog_append(kest_tlog_tree *tree, const uint8_t *hashes, size_t count, kest_tile_fn full, void *context)
{
    kest_status st = KEST_OK;

    if (count > (UINT64_C(1) << 62) - tree->size)
        return KEST_E_OVERFLOW;
    while (count && st == KEST_OK) {
        const size_t width = kest_tlog_width(tree->size, 0), room = KEST_TILE_WIDTH - width;
        const size_t take = count < room ? count : room;

        memcpy(tree->rows[0] + width * KEST_HASH_LEN, hashes, take * KEST_HASH_LEN);
        hashes += take * KEST_HASH_LEN;
        count -= take;
        tree->size += take;
        if (take == room)
            st = tile_done(tree, tree->size, full, context);
    }
    return st;
}

kest_status kest_tlog_tree_root(const kest_tlog_tree *tree, uint8_t out[KEST_HASH_LEN])
{
    bool any = false;
    kest_status st = KEST_OK;

    if (!tree->size)
        return kest_sha256("", 0, out);
    for (unsigned level = 0; level < KEST_TILE_LEVELS && st == KEST_OK; level++)
        st = row_root(tree->rows[level], kest_tlog_width(tree->size, level), out, &any);
    return st;
}
