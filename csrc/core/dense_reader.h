/* dense_reader.h: a dense form taken apart, shared by what reads its columns and what rebuilds entries from them. */
#ifndef KEST_DENSE_READER_H
#define KEST_DENSE_READER_H

#include "dense.h"
#include "pack.h"

/* Everything here reads hostile bytes: each step checks what is left. */
typedef struct kest_cursor {
    const uint8_t *at, *end;
} kest_cursor;

static inline bool kest_take(kest_cursor *c, size_t n, const uint8_t **out)
{
    if ((size_t)(c->end - c->at) < n)
        return false;
    *out = c->at;
    c->at += n;
    return true;
}

/* Shortest form only, so that one passport has one dense form. */
static inline bool kest_take_varint(kest_cursor *c, uint64_t *out)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte;

        if (c->at == c->end)
            return false;
        byte = *c->at++;
        if ((shift == 63 && byte > 1) || (shift && byte == 0))
            return false;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

typedef struct kest_text_table {
    size_t count;
    kest_str *texts;
} kest_text_table;

/* What the inflated text and the tail behind it hold, entry after entry. */
enum {
    COL_INDEX, /* one per text table */
    COL_ORIGIN = COL_INDEX + KEST_TEXTS,
    COL_FLAGS,
    COL_PARENTS,
    COL_MS,
    COL_COUNTER,
    COL_INPUT,
    COL_TIME,
    COL_TRUST,
    COL_NODE, /* from here on in the tail */
    COL_HASH,
    COL_SIG,
    COLS
};

struct kest_dense {
    uint8_t *raw;   /* owns the tail */
    uint8_t *plain; /* owns the rest */
    size_t plain_len, count;
    kest_text_table tables[KEST_TEXTS];
    kest_cursor all[COLS], left[COLS];
    /* how far the entries are built */
    size_t built, nnodes, nhashes; /* distinct origins and input hashes met */
    uint64_t *node_values;
    int64_t last_ms;
    size_t budget; /* bytes that may still be built */
};

#endif
