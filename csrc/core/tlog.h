/* tlog.h: the Merkle tree of a transparency log (RFC 9162, section 2.1) in tiles of height 8 (c2sp.org/tlog-tiles).
 *
 * A leaf hash is SHA-256(0x00 || entry), an inner one SHA-256(0x01 || left || right); the empty tree hashes to SHA-256 of
 * nothing. Hashes lie side by side, KEST_HASH_LEN bytes each.
 */
#ifndef KEST_TLOG_H
#define KEST_TLOG_H

#include "kest.h"

enum {
    KEST_TILE_HEIGHT = 8,
    KEST_TILE_WIDTH = 256,
    KEST_TILE_BYTES = KEST_TILE_WIDTH * KEST_HASH_LEN,
    KEST_TILE_LEVELS = 8,            /* 2^64 leaves */
    KEST_TLOG_MAX_RECORD = 65535,    /* a bundle writes lengths in 16 bits */
    KEST_TLOG_MAX_NODES = 160,       /* more than any proof needs */
    KEST_TLOG_MAX_PROOF = 64
};

/* --- hashes --- */
/* The entry with the byte before it free to write to (it is put back): data[-1] must belong to the caller. */
kest_status kest_tlog_leaf(uint8_t *data, size_t len, uint8_t out[KEST_HASH_LEN]);
kest_status kest_tlog_node(const uint8_t *left, const uint8_t *right, uint8_t out[KEST_HASH_LEN]);
/* The tree over `count` hashes as its leaves (RFC 9162, section 2.1.1). */
kest_status kest_tlog_root(const uint8_t *hashes, size_t count, uint8_t out[KEST_HASH_LEN]);
/* h0 over (h1 over (h2 ...)): how perfect subtrees, the largest first, make up a tree. count is at least 1. */
kest_status kest_tlog_fold(const uint8_t *hashes, size_t count, uint8_t out[KEST_HASH_LEN]);

/* --- a tree that grows, as the rows of its rightmost tiles --- */
typedef struct kest_tlog_tree {
    uint64_t size;
    uint8_t rows[KEST_TILE_LEVELS][KEST_TILE_BYTES]; /* row l holds (size >> 8l) & 255 hashes of height 8l */
} kest_tlog_tree;

static inline size_t kest_tlog_width(uint64_t size, unsigned level)
{
    return (size_t)(size >> (KEST_TILE_HEIGHT * level)) & (KEST_TILE_WIDTH - 1);
}

/* Called for each tile that is complete, lower levels first; what it returns ends the append when it is not KEST_OK. */
typedef kest_status (*kest_tile_fn)(void *context, unsigned level, uint64_t index, const uint8_t *hashes);
/* After a failure the tree is of no more use. */
kest_status kest_tlog_append(kest_tlog_tree *tree, const uint8_t *hashes, size_t count, kest_tile_fn full, void *context);
kest_status kest_tlog_tree_root(const kest_tlog_tree *tree, uint8_t out[KEST_HASH_LEN]);

/* --- proofs --- */
/* The hash of leaves [index << level, (index + 1) << level). */
typedef struct kest_tlog_coord {
    uint64_t index;
    uint8_t level;
    bool ends; /* the last one of an element of the proof, which is the fold of its nodes */
} kest_tlog_coord;

typedef struct kest_tlog_path {
    kest_tlog_coord nodes[KEST_TLOG_MAX_NODES];
    size_t count;
} kest_tlog_path;

/* Which nodes prove that leaf `index` is in the tree of `size` leaves (RFC 9162, section 2.1.3.1). KEST_E_OVERFLOW
 * unless index < size <= 2^62. */
kest_status kest_tlog_inclusion_path(uint64_t index, uint64_t size, kest_tlog_path *out);
/* Which nodes prove that the tree of `size` extends the one of `old` (section 2.1.4.1): 0 < old <= size <= 2^62. */
kest_status kest_tlog_consistency_path(uint64_t old, uint64_t size, kest_tlog_path *out);
/* KEST_E_SIGNATURE unless the proof of `count` hashes leads from the leaf to the root (section 2.1.3.2). */
kest_status kest_tlog_verify_inclusion(uint64_t index, uint64_t size, const uint8_t *leaf, const uint8_t *proof,
                                       size_t count, const uint8_t *root);
/* The same for consistency (section 2.1.4.2). The empty tree is consistent with any, by the empty proof. */
kest_status kest_tlog_verify_consistency(uint64_t old, uint64_t size, const uint8_t *old_root, const uint8_t *proof,
                                         size_t count, const uint8_t *root);

#endif
