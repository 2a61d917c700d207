/* dense.h: what the writer and the reader of the dense form share. The format is described in docs/formats.md. */
#ifndef KEST_DENSE_H
#define KEST_DENSE_H

#include "buf.h"

#include <zlib.h>

enum {
    KEST_DENSE_VERSION = 1,
    KEST_DENSE_MAX_ENTRIES = 4096,
    KEST_DENSE_NODE_BYTES = 7, /* the 52 random bits of a UUIDv7 */
    /* flags of one entry */
    KEST_DENSE_OWN_TIME = 1,  /* timestamp_ms is not that of the entry id */
    KEST_DENSE_INPUT = 2,     /* an input hash stands in the tail */
    KEST_DENSE_PARENTS = 4,   /* parents are listed; otherwise the entry before, or a root */
    KEST_DENSE_ROOT = 8
};

/* Preset dictionary of the deflate stream: part of the format, never changed within a version. */
extern const uint8_t kest_dense_dictionary[];
extern const size_t kest_dense_dictionary_len;

/* Texts that entries of one chain mostly repeat: a table each, and an index per entry. The template is the payload
 * with everything below cut out, behind the header's length and text. */
enum {
    KEST_TEXT_TEMPLATE, KEST_TEXT_PRINCIPAL, KEST_TEXT_OPERATION, KEST_TEXT_POLICIES, KEST_TEXT_TAINTS, KEST_TEXT_ADDED,
    KEST_TEXT_REMOVED, KEST_TEXT_CLASS, KEST_TEXTS
};

/* What is cut out of a payload, in the order in which it stands there; each marker is what is left behind. */
enum {
    KEST_CUT_ADDED, KEST_CUT_CLASS, KEST_CUT_ID, KEST_CUT_INPUT, KEST_CUT_PRINCIPAL, KEST_CUT_OPERATION, KEST_CUT_PARENTS,
    KEST_CUT_POLICIES, KEST_CUT_REMOVED, KEST_CUT_TAINTS, KEST_CUT_TIME, KEST_CUT_TRUST, KEST_CUTS
};
extern const char *const kest_dense_markers[KEST_CUTS];

/* Which text table fills a cut; KEST_TEXTS for a value with a column of another kind. */
static inline int kest_dense_table(int cut)
{
    switch (cut) {
    case KEST_CUT_ADDED: return KEST_TEXT_ADDED;
    case KEST_CUT_CLASS: return KEST_TEXT_CLASS;
    case KEST_CUT_PRINCIPAL: return KEST_TEXT_PRINCIPAL;
    case KEST_CUT_OPERATION: return KEST_TEXT_OPERATION;
    case KEST_CUT_POLICIES: return KEST_TEXT_POLICIES;
    case KEST_CUT_REMOVED: return KEST_TEXT_REMOVED;
    case KEST_CUT_TAINTS: return KEST_TEXT_TAINTS;
    default: return KEST_TEXTS;
    }
}

static inline uint64_t kest_zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static inline int64_t kest_unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }

/* Deflate never makes text longer than by 5 bytes in 16 kB: what is, cannot inflate to max_bytes, and is not even decoded. */
static inline bool kest_packed_too_long(size_t packed, size_t max_bytes)
{
    return packed > max_bytes && packed - max_bytes > max_bytes / 1000 + 64;
}

/* pack.c: inflates all of src with a prepared stream; KEST_E_LIMIT beyond max_bytes. */
kest_status kest_inflate(z_stream *stream, const uint8_t *src, size_t len, size_t max_bytes, kest_buf *out);

#endif
