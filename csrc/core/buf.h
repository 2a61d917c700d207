/* buf.h: a growable byte buffer with inline room, so that an ordinary entry needs no allocation.
 *
 * Errors are sticky: after one failed append, later appends do nothing and `status` says why. Check it once,
 * at the end. The inline room means that a kest_buf must not be copied by assignment.
 */
#ifndef KEST_BUF_H
#define KEST_BUF_H

#include "kest.h"

#include <string.h>

enum { KEST_BUF_INLINE = 1024 };

typedef struct kest_buf {
    uint8_t *data; /* inline_room or heap */
    size_t len;
    size_t cap;
    kest_status status;
    uint8_t inline_room[KEST_BUF_INLINE];
} kest_buf;

void kest_buf_init(kest_buf *b);
void kest_buf_free(kest_buf *b);
/* Makes room for `extra` more bytes; false (and a sticky status) when that cannot be had. */
bool kest_buf_grow(kest_buf *b, size_t extra);

static inline bool kest_buf_room(kest_buf *b, size_t extra)
{
    return b->status == KEST_OK && (b->cap - b->len >= extra || kest_buf_grow(b, extra));
}

static inline void kest_buf_put(kest_buf *b, const void *src, size_t n)
{
    if (n && kest_buf_room(b, n)) {
        memcpy(b->data + b->len, src, n);
        b->len += n;
    }
}

static inline void kest_buf_byte(kest_buf *b, uint8_t c)
{
    if (kest_buf_room(b, 1))
        b->data[b->len++] = c;
}

/* A string literal. */
#define kest_buf_lit(b, literal) kest_buf_put((b), (literal), sizeof(literal) - 1)

/* LEB128, for the packed forms. */
void kest_buf_varint(kest_buf *b, uint64_t value);

#endif
