#include "alloc.h"
#include "b64url.h"
#include "dense.h"
#include "jcs.h"
#include "pack.h"
#include "uuid7.h"

#include <string.h>

/* Everything here reads hostile bytes: each step checks what is left. */
typedef struct cursor {
    const uint8_t *at, *end;
} cursor;

static bool take(cursor *c, size_t n, const uint8_t **out)
{
    if ((size_t)(c->end - c->at) < n)
        return false;
    *out = c->at;
    c->at += n;
    return true;
}

/* Shortest form only, so that one passport has one dense form. */
static bool take_varint(cursor *c, uint64_t *out)
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

typedef struct text_table {
    size_t count;
    kest_str *texts;
    cursor indices;
} text_table;

typedef struct reader {
    size_t count, nnodes;
    text_table tables[KEST_TEXTS];
    cursor origins, flags, parents, ms, counters, inputs, times, trusts; /* columns; bounded by the plain text, read in step */
    cursor nodes, hashes, sigs;                          /* the tail */
    size_t nhashes;                                      /* distinct input hashes seen so far */
    uint64_t *node_values;
    int64_t last_ms;
    size_t budget; /* bytes that may still be built */
} reader;

/* Walks `n` varints from c, leaving a cursor over exactly those in *column. */
static bool varint_column(cursor *c, uint64_t n, cursor *column)
{
    uint64_t ignored;

    column->at = c->at;
    while (n--)
        if (!take_varint(c, &ignored))
            return false;
    column->end = c->at;
    return true;
}

static bool parents_column(reader *r, cursor *c)
{
    r->parents.at = c->at;
    for (size_t i = 0; i < r->count; i++) {
        uint64_t n, distance;

        if (!(r->flags.at[i] & KEST_DENSE_PARENTS))
            continue;
        if (!take_varint(c, &n) || n == 0 || n > KEST_MAX_PARENTS)
            return false;
        while (n--)
            if (!take_varint(c, &distance) || distance == 0 || distance > i)
                return false;
    }
    r->parents.end = c->at;
    return true;
}

static size_t flagged(const reader *r, uint8_t flag)
{
    size_t n = 0;

    for (size_t i = 0; i < r->count; i++)
        n += (r->flags.at[i] & flag) != 0;
    return n;
}

static bool flags_sane(const reader *r)
{
    for (size_t i = 0; i < r->count; i++) {
        const uint8_t f = r->flags.at[i];

        if (f > 15 || (f & (KEST_DENSE_PARENTS | KEST_DENSE_ROOT)) == (KEST_DENSE_PARENTS | KEST_DENSE_ROOT) ||
            (i == 0 && !(f & KEST_DENSE_ROOT)))
            return false;
    }
    return true;
}

static kest_status read_table(text_table *t, cursor *c)
{
    uint64_t len;

    t->texts = kest_calloc(t->count, sizeof *t->texts);
    if (!t->texts)
        return KEST_E_NOMEM;
    for (size_t i = 0; i < t->count; i++) {
        if (!take_varint(c, &len) || len > SIZE_MAX || !take(c, (size_t)len, &t->texts[i].data))
            return KEST_E_INFLATE;
        t->texts[i].len = (size_t)len;
    }
    return KEST_OK;
}

static kest_status read_columns(reader *r, cursor *c, size_t max_entries)
{
    uint64_t count, texts;
    kest_status st;

    if (!take_varint(c, &count) || count == 0)
        return KEST_E_INFLATE;
    if (count > max_entries || count > KEST_DENSE_MAX_ENTRIES)
        return KEST_E_LIMIT;
    r->count = (size_t)count;
    for (int i = 0; i < KEST_TEXTS; i++) {
        if (!take_varint(c, &texts) || texts == 0 || texts > count)
            return KEST_E_INFLATE;
        r->tables[i].count = (size_t)texts;
    }
    if (!(r->node_values = kest_calloc(r->count, sizeof *r->node_values)))
        return KEST_E_NOMEM;
    for (int i = 0; i < KEST_TEXTS; i++)
        if ((st = read_table(&r->tables[i], c)) != KEST_OK)
            return st;
    for (int i = 0; i < KEST_TEXTS; i++)
        if (!varint_column(c, count, &r->tables[i].indices))
            return KEST_E_INFLATE;
    if (!varint_column(c, count, &r->origins) || !take(c, r->count, &r->flags.at) || !flags_sane(r))
        return KEST_E_INFLATE;
    r->flags.end = r->flags.at + r->count;
    if (!parents_column(r, c) || !varint_column(c, count, &r->ms) || !varint_column(c, count, &r->counters) ||
        !varint_column(c, flagged(r, KEST_DENSE_INPUT), &r->inputs) ||
        !varint_column(c, flagged(r, KEST_DENSE_OWN_TIME), &r->times) || !take(c, r->count, &r->trusts.at) || c->at != c->end)
        return KEST_E_INFLATE;
    return KEST_OK;
}

/* How many values of a column introduce something new: those that equal the number of new ones before them. */
static size_t introduced(cursor column)
{
    uint64_t value;
    size_t n = 0;

    while (take_varint(&column, &value))
        n += value == n;
    return n;
}

static bool read_tail(reader *r, cursor *c)
{
    const size_t sigs = r->count * KEST_SIG_LEN, hashes = introduced(r->inputs) * KEST_HASH_LEN;
    const size_t nodes = introduced(r->origins) * KEST_DENSE_NODE_BYTES;

    if ((size_t)(c->end - c->at) != nodes + hashes + sigs)
        return false;
    r->nodes = (cursor){c->at, c->at + nodes};
    r->hashes = (cursor){r->nodes.end, r->nodes.end + hashes};
    r->sigs = (cursor){r->hashes.end, c->end};
    return true;
}

static bool next_id(reader *r, kest_uuid7_parts *id)
{
    uint64_t delta, counter, node;
    const uint8_t *raw;

    if (!take_varint(&r->ms, &delta) || !take_varint(&r->counters, &counter) || !take_varint(&r->origins, &node) ||
        counter >= UINT64_C(1) << 22)
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

        if (!take(&r->nodes, KEST_DENSE_NODE_BYTES, &raw))
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

static void put_parents(reader *r, kest_buf *out, const kest_builder *b, size_t i)
{
    const uint8_t flags = r->flags.at[i];
    uint64_t n, distance;

    if (flags & KEST_DENSE_ROOT) {
        kest_buf_lit(out, "\"0\"");
    } else if (!(flags & KEST_DENSE_PARENTS)) {
        put_hash(out, b->nodes[i - 1]);
    } else if (take_varint(&r->parents, &n)) {
        for (uint64_t p = 0; p < n && take_varint(&r->parents, &distance); p++) {
            if (p)
                kest_buf_byte(out, ',');
            put_hash(out, b->nodes[i - (size_t)distance]);
        }
    }
}

static bool put_input(reader *r, kest_buf *out)
{
    uint8_t text[KEST_HASH_HEX];
    uint64_t index;

    if (!take_varint(&r->inputs, &index) || index > r->nhashes)
        return false;
    r->nhashes += index == r->nhashes;
    kest_hex(r->hashes.at + index * KEST_HASH_LEN, KEST_HASH_LEN, text);
    kest_buf_put(out, text, sizeof text);
    return true;
}

/* One cut value, in the place that its marker holds. */
static bool put_cut(reader *r, kest_buf *out, const kest_builder *b, size_t i, int cut, const kest_uuid7_parts *id,
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
        return !(r->flags.at[i] & KEST_DENSE_INPUT) || put_input(r, out);
    case KEST_CUT_PARENTS:
        put_parents(r, out, b, i);
        return true;
    case KEST_CUT_TIME:
        if ((r->flags.at[i] & KEST_DENSE_OWN_TIME) &&
            (!take_varint(&r->times, &diff) || __builtin_add_overflow(time, kest_unzigzag(diff), &time)))
            return false;
        kest_jcs_int(out, time);
        return true;
    default:
        kest_jcs_int(out, r->trusts.at[i]);
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

static bool put_payload(reader *r, kest_buf *out, const kest_builder *b, size_t i, kest_str text, const kest_uuid7_parts *id,
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

static bool next_texts(reader *r, kest_str texts[KEST_TEXTS])
{
    uint64_t index;

    for (int i = 0; i < KEST_TEXTS; i++) {
        if (!take_varint(&r->tables[i].indices, &index) || index >= r->tables[i].count)
            return false;
        texts[i] = r->tables[i].texts[index];
    }
    return true;
}

static kest_status build_entry(reader *r, size_t i, kest_builder *b, kest_buf *jws, kest_buf *scratch)
{
    kest_uuid7_parts id;
    kest_str texts[KEST_TEXTS], header, template;
    uint64_t header_len;
    const uint8_t *sig;
    size_t size = 0;
    cursor c;

    if (!next_texts(r, texts) || !next_id(r, &id))
        return KEST_E_INFLATE;
    for (int t = 0; t < KEST_TEXTS; t++) /* each is within the inflated text, so this cannot overflow */
        size += texts[t].len;
    if (size > r->budget)
        return KEST_E_LIMIT;
    c = (cursor){texts[KEST_TEXT_TEMPLATE].data, texts[KEST_TEXT_TEMPLATE].data + texts[KEST_TEXT_TEMPLATE].len};
    if (!take_varint(&c, &header_len) || header_len > SIZE_MAX || !take(&c, (size_t)header_len, &header.data))
        return KEST_E_INFLATE;
    header.len = (size_t)header_len;
    template = (kest_str){c.at, (size_t)(c.end - c.at)};
    jws->len = 0;
    if (!put_header(jws, scratch, header, texts[KEST_TEXT_PRINCIPAL]))
        return KEST_E_INFLATE;
    kest_buf_byte(jws, '.');
    scratch->len = 0;
    if (!put_payload(r, scratch, b, i, template, &id, texts) || scratch->status != KEST_OK ||
        !take(&r->sigs, KEST_SIG_LEN, &sig))
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

static kest_status build(reader *r, kest_builder *b)
{
    kest_buf jws, scratch;
    kest_status st = KEST_OK;

    kest_buf_init(&jws);
    kest_buf_init(&scratch);
    for (size_t i = 0; i < r->count && st == KEST_OK; i++)
        st = build_entry(r, i, b, &jws, &scratch);
    kest_buf_free(&jws);
    kest_buf_free(&scratch);
    return st;
}

static kest_status inflate_columns(const uint8_t *packed, size_t len, size_t max_bytes, kest_buf *plain)
{
    z_stream z = {0};
    kest_status st = KEST_E_NOMEM;

    if (inflateInit2(&z, -15) != Z_OK)
        return st;
    if (inflateSetDictionary(&z, kest_dense_dictionary, (uInt)kest_dense_dictionary_len) == Z_OK)
        st = kest_inflate(&z, packed, len, max_bytes, plain);
    inflateEnd(&z);
    return st;
}

kest_status kest_unpack_dense(const uint8_t *text, size_t len, size_t max_bytes, size_t max_entries,
                              kest_builder *builder)
{
    reader r = {.budget = max_bytes};
    const size_t n = kest_b64_decoded_len(len);
    uint8_t *raw;
    const uint8_t *version, *packed;
    uint64_t packed_len;
    kest_buf plain;
    cursor c, columns;
    kest_status st;

    if (kest_packed_too_long(n, max_bytes))
        return KEST_E_LIMIT;
    raw = kest_malloc(n);
    if (!raw)
        return KEST_E_NOMEM;
    kest_buf_init(&plain);
    if ((st = kest_b64_decode(text, len, raw)) != KEST_OK)
        goto done;
    c = (cursor){raw, raw + n};
    st = KEST_E_INFLATE;
    if (!take(&c, 1, &version) || *version != KEST_DENSE_VERSION || !take_varint(&c, &packed_len) ||
        packed_len > SIZE_MAX || !take(&c, (size_t)packed_len, &packed))
        goto done;
    if ((st = inflate_columns(packed, (size_t)packed_len, max_bytes, &plain)) != KEST_OK)
        goto done;
    columns = (cursor){plain.data, plain.data + plain.len};
    if ((st = read_columns(&r, &columns, max_entries)) == KEST_OK)
        st = read_tail(&r, &c) ? build(&r, builder) : KEST_E_INFLATE;
done:
    for (int i = 0; i < KEST_TEXTS; i++)
        kest_free(r.tables[i].texts);
    kest_free(r.node_values);
    kest_buf_free(&plain);
    kest_free(raw);
    return st;
}
