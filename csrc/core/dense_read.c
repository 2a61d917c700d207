#include "alloc.h"
#include "b64url.h"
#include "dense_reader.h"

#include <string.h>

/* Walks `n` varints from c, leaving a kest_cursor over exactly those in *column. */
static bool varint_column(kest_cursor *c, uint64_t n, kest_cursor *column)
{
    uint64_t ignored, eight;

    column->at = c->at;
    for (; n >= 8 && c->end - c->at >= 8; n -= 8, c->at += 8) { /* most are of one byte */
        memcpy(&eight, c->at, 8);
        if (eight & UINT64_C(0x8080808080808080))
            break;
    }
    while (n--)
        if (!kest_take_varint(c, &ignored))
            return false;
    column->end = c->at;
    return true;
}

static bool byte_column(kest_cursor *c, size_t n, kest_cursor *column)
{
    if (!kest_take(c, n, &column->at))
        return false;
    column->end = c->at;
    return true;
}

static bool parents_column(kest_dense *r, kest_cursor *c)
{
    r->all[COL_PARENTS].at = c->at;
    for (size_t i = 0; i < r->count; i++) {
        uint64_t n, distance;

        if (!(r->all[COL_FLAGS].at[i] & KEST_DENSE_PARENTS))
            continue;
        if (!kest_take_varint(c, &n) || n == 0 || n > KEST_MAX_PARENTS)
            return false;
        while (n--)
            if (!kest_take_varint(c, &distance) || distance == 0 || distance > i)
                return false;
    }
    r->all[COL_PARENTS].end = c->at;
    return true;
}

static size_t flagged(const kest_dense *r, uint8_t flag)
{
    size_t n = 0;

    for (size_t i = 0; i < r->count; i++)
        n += (r->all[COL_FLAGS].at[i] & flag) != 0;
    return n;
}

static bool flags_sane(const kest_dense *r)
{
    for (size_t i = 0; i < r->count; i++) {
        const uint8_t f = r->all[COL_FLAGS].at[i];

        if (f > 15 || (f & (KEST_DENSE_PARENTS | KEST_DENSE_ROOT)) == (KEST_DENSE_PARENTS | KEST_DENSE_ROOT) ||
            (i == 0 && !(f & KEST_DENSE_ROOT)))
            return false;
    }
    return true;
}

static kest_status read_table(kest_text_table *t, kest_cursor *c)
{
    uint64_t len;

    t->texts = kest_calloc(t->count, sizeof *t->texts);
    if (!t->texts)
        return KEST_E_NOMEM;
    for (size_t i = 0; i < t->count; i++) {
        if (!kest_take_varint(c, &len) || len > SIZE_MAX || !kest_take(c, (size_t)len, &t->texts[i].data))
            return KEST_E_INFLATE;
        t->texts[i].len = (size_t)len;
    }
    return KEST_OK;
}

static kest_status read_columns(kest_dense *r, kest_cursor *c, size_t max_entries)
{
    uint64_t count, texts;
    kest_status st;

    if (!kest_take_varint(c, &count) || count == 0)
        return KEST_E_INFLATE;
    if (count > max_entries || count > KEST_DENSE_MAX_ENTRIES)
        return KEST_E_LIMIT;
    r->count = (size_t)count;
    for (int i = 0; i < KEST_TEXTS; i++) {
        if (!kest_take_varint(c, &texts) || texts == 0 || texts > count)
            return KEST_E_INFLATE;
        r->tables[i].count = (size_t)texts;
    }
    if (!(r->node_values = kest_calloc(r->count, sizeof *r->node_values)))
        return KEST_E_NOMEM;
    for (int i = 0; i < KEST_TEXTS; i++)
        if ((st = read_table(&r->tables[i], c)) != KEST_OK)
            return st;
    for (int i = 0; i < KEST_TEXTS; i++)
        if (!varint_column(c, count, &r->all[COL_INDEX + i]))
            return KEST_E_INFLATE;
    if (!varint_column(c, count, &r->all[COL_ORIGIN]) || !byte_column(c, r->count, &r->all[COL_FLAGS]) || !flags_sane(r) ||
        !parents_column(r, c) || !varint_column(c, count, &r->all[COL_MS]) || !varint_column(c, count, &r->all[COL_COUNTER]) ||
        !varint_column(c, flagged(r, KEST_DENSE_INPUT), &r->all[COL_INPUT]) ||
        !varint_column(c, flagged(r, KEST_DENSE_OWN_TIME), &r->all[COL_TIME]) ||
        !byte_column(c, r->count, &r->all[COL_TRUST]) || c->at != c->end)
        return KEST_E_INFLATE;
    return KEST_OK;
}

/* How many values of a column introduce something new: those that equal the number of new ones before them. */
static size_t introduced(kest_cursor column)
{
    uint64_t value;
    size_t n = 0;

    while (kest_take_varint(&column, &value))
        n += value == n;
    return n;
}

static bool read_tail(kest_dense *r, kest_cursor *c)
{
    const size_t nodes = introduced(r->all[COL_ORIGIN]) * KEST_DENSE_NODE_BYTES;
    const size_t hashes = introduced(r->all[COL_INPUT]) * KEST_HASH_LEN;

    return byte_column(c, nodes, &r->all[COL_NODE]) && byte_column(c, hashes, &r->all[COL_HASH]) &&
           byte_column(c, r->count * KEST_SIG_LEN, &r->all[COL_SIG]) && c->at == c->end;
}

/* What comes out is kept for long, what it takes to inflate it is not. */
static kest_status inflate_columns(kest_dense *r, const uint8_t *packed, size_t len, size_t max_bytes)
{
    z_stream z = {0};
    kest_status st = KEST_E_NOMEM;
    kest_buf plain;

    if (inflateInit2(&z, -15) != Z_OK)
        return st;
    kest_buf_init(&plain);
    if (inflateSetDictionary(&z, kest_dense_dictionary, (uInt)kest_dense_dictionary_len) == Z_OK)
        st = kest_inflate(&z, packed, len, max_bytes, &plain);
    inflateEnd(&z);
    if (st == KEST_OK && !(r->plain = kest_malloc(plain.len)))
        st = KEST_E_NOMEM;
    if (st == KEST_OK) {
        memcpy(r->plain, plain.data, plain.len);
        r->plain_len = plain.len;
    }
    kest_buf_free(&plain);
    return st;
}

/* From base64url to columns. */
static kest_status open_raw(kest_dense *r, const uint8_t *text, size_t len, size_t max_bytes, size_t max_entries)
{
    const size_t n = kest_b64_decoded_len(len);
    const uint8_t *version, *packed;
    uint64_t packed_len;
    kest_cursor c, columns;
    kest_status st;

    if ((st = kest_b64_decode(text, len, r->raw)) != KEST_OK)
        return st;
    c = (kest_cursor){r->raw, r->raw + n};
    if (!kest_take(&c, 1, &version) || *version != KEST_DENSE_VERSION || !kest_take_varint(&c, &packed_len) ||
        packed_len > SIZE_MAX || !kest_take(&c, (size_t)packed_len, &packed))
        return KEST_E_INFLATE;
    if ((st = inflate_columns(r, packed, (size_t)packed_len, max_bytes)) != KEST_OK)
        return st;
    columns = (kest_cursor){r->plain, r->plain + r->plain_len};
    if ((st = read_columns(r, &columns, max_entries)) != KEST_OK)
        return st;
    return read_tail(r, &c) ? KEST_OK : KEST_E_INFLATE;
}

kest_status kest_dense_open(const uint8_t *text, size_t len, size_t max_bytes, size_t max_entries, kest_dense **out)
{
    const size_t n = kest_b64_decoded_len(len);
    kest_dense *r;
    kest_status st;

    if (kest_packed_too_long(n, max_bytes))
        return KEST_E_LIMIT;
    if (!(r = kest_calloc(1, sizeof *r)))
        return KEST_E_NOMEM;
    r->budget = max_bytes;
    st = (r->raw = kest_malloc(n)) ? open_raw(r, text, len, max_bytes, max_entries) : KEST_E_NOMEM;
    if (st != KEST_OK) {
        kest_dense_free(r);
        return st;
    }
    memcpy(r->left, r->all, sizeof r->left);
    *out = r;
    return KEST_OK;
}

void kest_dense_free(kest_dense *r)
{
    if (!r)
        return;
    for (int i = 0; i < KEST_TEXTS; i++)
        kest_free(r->tables[i].texts);
    kest_free(r->node_values);
    kest_free(r->plain);
    kest_free(r->raw);
    kest_free(r);
}

size_t kest_dense_count(const kest_dense *r)
{
    return r->count;
}

size_t kest_dense_bytes(const kest_dense *r)
{
    size_t texts = 0;

    for (int i = 0; i < KEST_TEXTS; i++)
        texts += r->tables[i].count;
    return sizeof *r + r->plain_len + (size_t)(r->all[COL_SIG].end - r->raw) + texts * sizeof(kest_str) +
           r->count * sizeof *r->node_values;
}

const uint8_t *kest_dense_signature(const kest_dense *r, size_t entry)
{
    return r->all[COL_SIG].at + entry * KEST_SIG_LEN;
}

static bool same_tables(const kest_dense *a, const kest_dense *b)
{
    for (int i = 0; i < KEST_TEXTS; i++) {
        if (a->tables[i].count < b->tables[i].count)
            return false;
        for (size_t t = 0; t < b->tables[i].count; t++)
            if (kest_str_compare(a->tables[i].texts[t], b->tables[i].texts[t]) != 0)
                return false;
    }
    return true;
}

static size_t size_of(kest_cursor c)
{
    return (size_t)(c.end - c.at);
}

/* What an entry becomes follows from its values in the columns and from what stands before it: where tables and columns
 * begin alike, so do the passports. */
bool kest_dense_resume(kest_dense *r, const kest_dense *done)
{
    if (r->count < done->count || done->built != done->count || r->built || !same_tables(r, done))
        return false;
    for (int i = 0; i < COLS; i++)
        if (size_of(r->all[i]) < size_of(done->all[i]) || memcmp(r->all[i].at, done->all[i].at, size_of(done->all[i])) != 0)
            return false;
    for (int i = 0; i < COLS; i++)
        r->left[i].at += size_of(done->all[i]);
    memcpy(r->node_values, done->node_values, done->nnodes * sizeof *r->node_values);
    r->built = done->built;
    r->nnodes = done->nnodes;
    r->nhashes = done->nhashes;
    r->last_ms = done->last_ms;
    return true;
}

kest_status kest_unpack_dense(const uint8_t *text, size_t len, size_t max_bytes, size_t max_entries,
                              kest_builder *builder)
{
    kest_dense *dense;
    kest_status st = kest_dense_open(text, len, max_bytes, max_entries, &dense);

    if (st == KEST_OK) {
        st = kest_dense_build(dense, builder);
        kest_dense_free(dense);
    }
    return st;
}
