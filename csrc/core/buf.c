#include "buf.h"

#include "alloc.h"

void kest_buf_init(kest_buf *b)
{
    b->data = b->inline_room;
    b->len = 0;
    b->cap = KEST_BUF_INLINE;
    b->status = KEST_OK;
}

void kest_buf_free(kest_buf *b)
{
    if (b->data != b->inline_room)
        kest_free(b->data);
    b->data = b->inline_room;
    b->len = 0;
    b->cap = KEST_BUF_INLINE;
}

bool kest_buf_grow(kest_buf *b, size_t extra)
{
    size_t want, cap;
    uint8_t *data;

    if (b->status != KEST_OK)
        return false;
    if (!kest_add(b->len, extra, &want) || want > SIZE_MAX / 2) {
        b->status = KEST_E_OVERFLOW;
        return false;
    }
    cap = b->cap;
    while (cap < want)
        cap *= 2;
    data = kest_realloc(b->data == b->inline_room ? NULL : b->data, cap);
    if (!data) {
        b->status = KEST_E_NOMEM;
        return false;
    }
    if (b->data == b->inline_room)
        memcpy(data, b->inline_room, b->len);
    b->data = data;
    b->cap = cap;
    return true;
}

void kest_buf_varint(kest_buf *b, uint64_t value)
{
    while (value >= 0x80) {
        kest_buf_byte(b, (uint8_t)(value | 0x80));
        value >>= 7;
    }
    kest_buf_byte(b, (uint8_t)value);
}
