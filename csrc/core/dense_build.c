#include "b64url.h"
#include "dense_reader.h"
#include "jcs.h"
#include "uuid7.h"

#include <string.h>

static bool next_id(kest_dense *r, kest_uuid7_parts *id)
{
    uint64_t delta, counter, node;
    const uint8_t *raw;

    if (!kest_take_varint(&r->left[COL_MS], &delta) || !kest_take_varint(&r->left[COL_COUNTER], &counter) ||
        !kest_take_varint(&r->left[COL_ORIGIN], &node) || counter >= UINT64_C(1) << 22)
        return false;
    if (__builtin_add_overflow(r->last_ms, kest_unzigzag(delta), &r->last_ms) || r->last_ms < 0 ||
        r->last_ms >= INT64_C(1) << 48)
        return false;
    id->unix_ms = (uint64_t)r->last_ms;
    id->counter = (uint32_t)counter;
    if (node > r->nnodes)
        return false;
    if (node == r->nnodes) {
        uint64_t value = 0;

        if (!kest_take(&r->left[COL_NODE], KEST_DENSE_NODE_BYTES, &raw))
            return false;
        for (int i = 0; i < KEST_DENSE_NODE_BYTES; i++)
            value = value << 8 | raw[i];
        if (value >> 52)
            return false;
        r->node_values[r->nnodes++] = value;
    }
    id->node = r->node_values[node];
    return true;
}

static void put_hash(kest_buf *out, const kest_node *node)
{
    uint8_t hex[KEST_HASH_HEX];

    kest_hex(node->hash, KEST_HASH_LEN, hex);
    kest_buf_byte(out, '"');
    kest_buf_put(out, hex, sizeof hex);
    kest_buf_byte(out, '"');
}

static void put_parents(kest_dense *r, kest_buf *out, const kest_builder *b, size_t i)
{
    const uint8_t flags = r->all[COL_FLAGS].at[i];
    uint64_t n, distance;

    if (flags & KEST_DENSE_ROOT) {
        kest_buf_lit(out, "\"0\"");
    } else if (!(flags & KEST_DENSE_PARENTS)) {
        put_hash(out, b->nodes[i - 1]);
    } else if (kest_take_varint(&r->left[COL_PARENTS], &n)) {
        for (uint64_t p = 0; p < n && kest_take_varint(&r->left[COL_PARENTS], &distance); p++) {
            if (p)
                kest_buf_byte(out, ',');
            put_hash(out, b->nodes[i - (size_t)distance]);
        }
    }
}

static bool put_input(kest_dense *r, kest_buf *out)
{
    uint8_t text[KEST_HASH_HEX];
    uint64_t index;

    if (!kest_take_varint(&r->left[COL_INPUT], &index) || index > r->nhashes)
        return false;
    r->nhashes += index == r->nhashes;
    kest_hex(r->all[COL_HASH].at + index * KEST_HASH_LEN, KEST_HASH_LEN, text);
    kest_buf_put(out, text, sizeof text);
    return true;
}

/* One cut value, in the place that its marker holds. */
static bool put_cut(kest_dense *r, kest_buf *out, const kest_builder *b, size_t i, int cut, const kest_uuid7_parts *id,
                    const kest_str texts[KEST_TEXTS])
{
    const int table = kest_dense_table(cut);
    uint8_t text[KEST_UUID_LEN];
    int64_t time = (int64_t)id->unix_ms;
    uint64_t diff;

    if (table != KEST_TEXTS) {
        kest_buf_put(out, texts[table].data, texts[table].len);
        return true;
    }
    switch (cut) {
    case KEST_CUT_ID:
        kest_uuid7_join(id, text);
        kest_buf_put(out, text, KEST_UUID_LEN);
        return true;
    case KEST_CUT_INPUT:
        return !(r->all[COL_FLAGS].at[i] & KEST_DENSE_INPUT) || put_input(r, out);
    case KEST_CUT_PARENTS:
        put_parents(r, out, b, i);
        return true;
    case KEST_CUT_TIME:
        if ((r->all[COL_FLAGS].at[i] & KEST_DENSE_OWN_TIME) &&
            (!kest_take_varint(&r->left[COL_TIME], &diff) || __builtin_add_overflow(time, kest_unzigzag(diff), &time)))
            return false;
        kest_jcs_int(out, time);
        return true;
    default:
        kest_jcs_int(out, r->all[COL_TRUST].at[i]);
        return true;
    }
}

static const uint8_t *find(const uint8_t *from, const uint8_t *end, const char *what)
{
    const size_t n = strlen(what);

    for (; (size_t)(end - from) >= n; from++) {
        from = memchr(from, what[0], (size_t)(end - from) - n + 1);
        if (!from)
            return NULL;
        if (memcmp(from, what, n) == 0)
            return from;
    }
    return NULL;
}

/* How much of a marker stands before the value that was cut out. */
static size_t before_cut(int cut)
{
    return strlen(kest_dense_markers[cut]) - 1;
}

static bool put_payload(kest_dense *r, kest_buf *out, const kest_builder *b, size_t i, kest_str text, const kest_uuid7_parts *id,
                        const kest_str texts[KEST_TEXTS])
{
    const uint8_t *at = text.data, *end = text.data + text.len;

    for (int cut = 0; cut < KEST_CUTS; cut++) {
        /* Inside a JSON string every quote is escaped, so a marker only ever stands for itself; the writer has checked
         * that the first of its kind is the right one. */
        const uint8_t *marker = find(at, end, kest_dense_markers[cut]);

        if (!marker)
            return false;
        marker += before_cut(cut);
        kest_buf_put(out, at, (size_t)(marker - at));
        if (!put_cut(r, out, b, i, cut, id, texts))
            return false;
        at = marker;
    }
    kest_buf_put(out, at, (size_t)(end - at));
    return true;
}

static bool put_b64(kest_buf *out, const uint8_t *data, size_t len)
{
    const size_t n = kest_b64_encoded_len(len);

    if (!kest_buf_room(out, n))
        return false;
    kest_b64_encode(data, len, out->data + out->len);
    out->len += n;
    return true;
}

/* Without a header of its own, the one that kest_jws_header_write makes: the principal is spelled there as here. */
static bool put_header(kest_buf *jws, kest_buf *scratch, kest_str given, kest_str principal)
{
    scratch->len = 0;
    if (given.len) { /* decoded only to know that it is base64url: nothing else may get into the text */
        if (!kest_buf_room(scratch, given.len) || kest_b64_decode(given.data, given.len, scratch->data) != KEST_OK)
            return false;
        kest_buf_put(jws, given.data, given.len);
        return jws->status == KEST_OK;
    }
    kest_buf_lit(scratch, "{\"alg\":\"EdDSA\",\"kid\":\"");
    kest_buf_put(scratch, principal.data, principal.len);
    kest_buf_lit(scratch, "\",\"typ\":\"JWS\"}");
    return scratch->status == KEST_OK && put_b64(jws, scratch->data, scratch->len);
}

static bool next_texts(kest_dense *r, kest_str texts[KEST_TEXTS])
{
    uint64_t index;

    for (int i = 0; i < KEST_TEXTS; i++) {
        if (!kest_take_varint(&r->left[COL_INDEX + i], &index) || index >= r->tables[i].count)
            return false;
        texts[i] = r->tables[i].texts[index];
    }
    return true;
}

static kest_status build_entry(kest_dense *r, size_t i, kest_builder *b, kest_buf *jws, kest_buf *scratch)
{
    kest_uuid7_parts id;
    kest_str texts[KEST_TEXTS], header, template;
    uint64_t header_len;
    const uint8_t *sig;
    size_t size = 0;
    kest_cursor c;

    if (!next_texts(r, texts) || !next_id(r, &id))
        return KEST_E_INFLATE;
    for (int t = 0; t < KEST_TEXTS; t++) /* each is within the inflated text, so this cannot overflow */
        size += texts[t].len;
    if (size > r->budget)
        return KEST_E_LIMIT;
    c = (kest_cursor){texts[KEST_TEXT_TEMPLATE].data, texts[KEST_TEXT_TEMPLATE].data + texts[KEST_TEXT_TEMPLATE].len};
    if (!kest_take_varint(&c, &header_len) || header_len > SIZE_MAX || !kest_take(&c, (size_t)header_len, &header.data))
        return KEST_E_INFLATE;
    header.len = (size_t)header_len;
    template = (kest_str){c.at, (size_t)(c.end - c.at)};
    jws->len = 0;
    if (!put_header(jws, scratch, header, texts[KEST_TEXT_PRINCIPAL]))
        return KEST_E_INFLATE;
    kest_buf_byte(jws, '.');
    scratch->len = 0;
    if (!put_payload(r, scratch, b, i, template, &id, texts) || scratch->status != KEST_OK ||
        !kest_take(&r->left[COL_SIG], KEST_SIG_LEN, &sig))
        return scratch->status == KEST_E_NOMEM ? KEST_E_NOMEM : KEST_E_INFLATE;
    put_b64(jws, scratch->data, scratch->len);
    kest_buf_byte(jws, '.');
    put_b64(jws, sig, KEST_SIG_LEN);
    if (jws->status != KEST_OK)
        return jws->status;
    if (jws->len > r->budget)
        return KEST_E_LIMIT;
    r->budget -= jws->len;
    return kest_builder_add(b, jws->data, jws->len);
}

kest_status kest_dense_build(kest_dense *r, kest_builder *b)
{
    kest_buf jws, scratch;
    kest_status st = KEST_OK;

    kest_buf_init(&jws);
    kest_buf_init(&scratch);
    for (; r->built < r->count && st == KEST_OK; r->built++)
        st = build_entry(r, r->built, b, &jws, &scratch);
    kest_buf_free(&jws);
    kest_buf_free(&scratch);
    return st;
}
