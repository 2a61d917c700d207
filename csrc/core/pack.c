#include "pack.h"

#include "alloc.h"
#include "b64url.h"
#include "dense.h"
#include "jcs.h"

#include <zlib.h>

void kest_pack_json(kest_buf *out, kest_node *const *nodes, size_t count)
{
    kest_buf_byte(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i)
            kest_buf_byte(out, ',');
        kest_jcs_string(out, nodes[i]->jws, nodes[i]->jws_len);
    }
    kest_buf_byte(out, ']');
}

kest_status kest_pack_z(const uint8_t *text, size_t len, kest_buf *out)
{
    uLong bound = compressBound((uLong)len);
    uint8_t *packed;

    if (len > UINT32_MAX / 2)
        return KEST_E_LIMIT;
    packed = kest_malloc(bound);
    if (!packed)
        return KEST_E_NOMEM;
    if (compress2(packed, &bound, text, (uLong)len, 1) != Z_OK) {
        kest_free(packed);
        return KEST_E_NOMEM;
    }
    if (kest_buf_room(out, kest_b64_encoded_len(bound))) {
        kest_b64_encode(packed, bound, out->data + out->len);
        out->len += kest_b64_encoded_len(bound);
    }
    kest_free(packed);
    return out->status;
}


/* Inflates all of src with a prepared stream, never holding more than max_bytes and one step of room. Z_FINISH spares zlib its
 * window where everything fits the first step. */
kest_status kest_inflate(z_stream *stream, const uint8_t *src, size_t len, size_t max_bytes, kest_buf *out)
{
    enum { STEP = 16384 };
    int rc = Z_OK;

    if (len > UINT32_MAX)
        return KEST_E_LIMIT;
    stream->next_in = (Bytef *)(uintptr_t)src;
    stream->avail_in = (uInt)len;
    while (rc != Z_STREAM_END) {
        if (!kest_buf_room(out, STEP))
            return out->status;
        stream->next_out = out->data + out->len;
        stream->avail_out = STEP;
        rc = inflate(stream, Z_FINISH);
        if (rc != Z_STREAM_END && (rc != Z_BUF_ERROR || stream->avail_out)) /* room left: truncated */
            return rc == Z_MEM_ERROR ? KEST_E_NOMEM : KEST_E_INFLATE;
        out->len += STEP - stream->avail_out;
        if (out->len > max_bytes)
            return KEST_E_LIMIT;
    }
    return stream->avail_in ? KEST_E_INFLATE : KEST_OK;
}

kest_status kest_unpack_z(const uint8_t *text, size_t len, size_t max_bytes, kest_buf *out)
{
    z_stream stream = {0};
    const size_t n = kest_b64_decoded_len(len);
    uint8_t *packed;
    kest_status st;

    if (kest_packed_too_long(n, max_bytes))
        return KEST_E_LIMIT;
    packed = kest_malloc(n);
    if (!packed)
        return KEST_E_NOMEM;
    st = kest_b64_decode(text, len, packed);
    if (st == KEST_OK)
        st = inflateInit(&stream) == Z_OK ? KEST_OK : KEST_E_NOMEM;
    if (st == KEST_OK) {
        st = kest_inflate(&stream, packed, n, max_bytes, out);
        inflateEnd(&stream);
    }
    kest_free(packed);
    return st;
}

kest_status kest_unpack_json(const uint8_t *text, size_t len, size_t max_entries, kest_builder *builder, size_t *error_at)
{
    kest_json_doc doc = {0};
    kest_status st = kest_json_parse(text, len, max_entries + 1, &doc);

    *error_at = doc.error_at;
    if (st != KEST_OK)
        return st;
    if (doc.root->type != KEST_JSON_ARRAY)
        st = KEST_E_JSON;
    for (const kest_json *v = doc.root->u.child; v && st == KEST_OK; v = v->next) {
        *error_at = v->start;
        st = v->type == KEST_JSON_STRING ? kest_builder_add(builder, v->u.str.data, v->u.str.len) : KEST_E_JSON;
    }
    kest_json_free(&doc);
    return st;
}
