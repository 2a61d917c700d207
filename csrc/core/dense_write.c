#include "alloc.h"
#include "b64url.h"
#include "dense.h"
#include "pack.h"
#include "uuid7.h"

#include <string.h>

/* A table of distinct texts in order of first use, and which one each entry has. */
typedef struct text_node {
    kest_str text;
    struct text_node *next;
} text_node;

typedef struct text_table {
    text_node *first, *last;
    uint64_t count;
    kest_buf texts, indices;
} text_table;

typedef struct writer {
    kest_node *const *nodes;
    text_table tables[KEST_TEXTS];
    kest_buf flags, parents, ms, counters, origins, inputs, times, trusts, tail_nodes, tail_inputs, tail_sigs;
    uint64_t *seen_nodes; /* random parts of entry ids, in order of first use */
    size_t nseen;
    int64_t last_ms;
} writer;

enum { COLUMNS = 11 };

static void columns(writer *w, kest_buf *list[COLUMNS])
{
    kest_buf *all[COLUMNS] = {&w->origins, &w->flags, &w->parents, &w->ms, &w->counters, &w->inputs, &w->times, &w->trusts,
                              &w->tail_nodes, &w->tail_inputs, &w->tail_sigs};

    memcpy(list, all, sizeof all);
}

static kest_status put_text(text_table *t, kest_str text)
{
    text_node *node;
    uint64_t index = 0;

    for (node = t->first; node; node = node->next, index++)
        if (kest_str_compare(node->text, text) == 0)
            break;
    if (!node) {
        uint8_t *copy;

        node = kest_malloc(sizeof *node + text.len);
        if (!node)
            return KEST_E_NOMEM;
        copy = (uint8_t *)(node + 1);
        if (text.len)
            memcpy(copy, text.data, text.len);
        *node = (text_node){{copy, text.len}, NULL};
        *(t->last ? &t->last->next : &t->first) = node;
        t->last = node;
        t->count++;
        kest_buf_varint(&t->texts, text.len);
        kest_buf_put(&t->texts, text.data, text.len);
    }
    kest_buf_varint(&t->indices, index);
    return t->texts.status;
}

static void table_free(text_table *t)
{
    while (t->first) {
        text_node *next = t->first->next;

        kest_free(t->first);
        t->first = next;
    }
    kest_buf_free(&t->texts);
    kest_buf_free(&t->indices);
}

/* The header that kest_jws_header_write makes for this principal need not be sent. */
static bool header_follows(const kest_node *node, kest_str header, kest_buf *scratch)
{
    scratch->len = 0;
    return kest_jws_header_write(scratch, (kest_alg)node->alg, node->principal->data, node->principal->len, "JWS") ==
               KEST_OK &&
           node->alg == KEST_ALG_EDDSA && scratch->len == header.len && memcmp(scratch->data, header.data, header.len) == 0;
}

/* The values with columns of their own, in the order of the cuts. */
static void find_cuts(const kest_json *root, const kest_json *cuts[KEST_CUTS])
{
    cuts[KEST_CUT_ADDED] = kest_json_get(root, "added_taints");
    cuts[KEST_CUT_CLASS] = kest_json_get(root, "classification");
    cuts[KEST_CUT_REMOVED] = kest_json_get(root, "removed_taints");
    cuts[KEST_CUT_ID] = kest_json_get(root, "entry_id");
    cuts[KEST_CUT_INPUT] = kest_json_get(root, "input_hash");
    cuts[KEST_CUT_PRINCIPAL] = kest_json_get(kest_json_get(root, "labels"), "principal");
    cuts[KEST_CUT_OPERATION] = kest_json_get(root, "operation");
    cuts[KEST_CUT_PARENTS] = kest_json_get(root, "parent_ids");
    cuts[KEST_CUT_POLICIES] = kest_json_get(kest_json_get(root, "policy_context"), "function_policies");
    cuts[KEST_CUT_TAINTS] = kest_json_get(root, "taints");
    cuts[KEST_CUT_TIME] = kest_json_get(root, "timestamp_ms");
    cuts[KEST_CUT_TRUST] = kest_json_get(root, "trust_score");
}

/* Quotes and brackets stay behind. */
static size_t kept(int cut)
{
    return cut != KEST_CUT_TIME && cut != KEST_CUT_TRUST;
}

static void put_template(kest_buf *out, const kest_parsed *p, const kest_json *const cuts[KEST_CUTS])
{
    size_t at = 0;

    for (int i = 0; i < KEST_CUTS; i++) {
        kest_buf_put(out, p->payload.data + at, cuts[i]->start + kept(i) - at);
        at = cuts[i]->end - kept(i);
    }
    kest_buf_put(out, p->payload.data + at, p->payload.len - at);
}

/* The source text of a cut value, without its quotes or brackets. */
static kest_str inner(const kest_parsed *p, const kest_json *value)
{
    return (kest_str){p->payload.data + value->start + 1, value->end - value->start - 2};
}

static kest_status put_texts(writer *w, const kest_parsed *p, const kest_json *const cuts[KEST_CUTS], const kest_buf *template)
{
    kest_status st = template->status;

    if (st == KEST_OK)
        st = put_text(&w->tables[KEST_TEXT_TEMPLATE], (kest_str){template->data, template->len});
    for (int cut = 0; cut < KEST_CUTS && st == KEST_OK; cut++)
        if (kest_dense_table(cut) != KEST_TEXTS)
            st = put_text(&w->tables[kest_dense_table(cut)], inner(p, cuts[cut]));
    return st;
}

/* Calls that pass on what they were given have the hash of their caller. */
static void put_input(writer *w, const uint8_t hash[KEST_HASH_LEN])
{
    const size_t known = w->tail_inputs.len / KEST_HASH_LEN;
    size_t at = 0;

    while (at < known && memcmp(w->tail_inputs.data + at * KEST_HASH_LEN, hash, KEST_HASH_LEN) != 0)
        at++;
    kest_buf_varint(&w->inputs, at);
    if (at == known)
        kest_buf_put(&w->tail_inputs, hash, KEST_HASH_LEN);
}

static kest_status put_parents(writer *w, size_t i, uint8_t *flags)
{
    const kest_node *node = w->nodes[i];

    if (node->nparents == 0) {
        *flags |= KEST_DENSE_ROOT;
        return KEST_OK;
    }
    if (node->nparents == 1 && i && memcmp(node->parent->hash, w->nodes[i - 1]->hash, KEST_HASH_LEN) == 0)
        return KEST_OK;
    *flags |= KEST_DENSE_PARENTS;
    kest_buf_varint(&w->parents, node->nparents);
    for (size_t p = 0; p < node->nparents; p++) {
        size_t back = i;

        while (back && memcmp(w->nodes[back - 1]->hash, kest_node_parent(node, p)->hash, KEST_HASH_LEN) != 0)
            back--;
        if (!back)
            return KEST_E_PACK_FORM;
        kest_buf_varint(&w->parents, i - (back - 1));
    }
    return w->parents.status;
}

static void put_id(writer *w, const kest_uuid7_parts *id)
{
    size_t known = 0;

    kest_buf_varint(&w->ms, kest_zigzag((int64_t)id->unix_ms - w->last_ms));
    w->last_ms = (int64_t)id->unix_ms;
    kest_buf_varint(&w->counters, id->counter);
    while (known < w->nseen && w->seen_nodes[known] != id->node)
        known++;
    kest_buf_varint(&w->origins, known);
    if (known < w->nseen)
        return;
    w->seen_nodes[w->nseen++] = id->node;
    for (int i = 0; i < KEST_DENSE_NODE_BYTES; i++)
        kest_buf_byte(&w->tail_nodes, (uint8_t)(id->node >> (8 * (KEST_DENSE_NODE_BYTES - 1 - i))));
}

static kest_status put_entry(writer *w, size_t i, const kest_parsed *p, kest_buf *scratch, kest_buf *text)
{
    const kest_node *node = w->nodes[i];
    const kest_str header = {node->jws, p->view.header_len};
    const kest_json *cuts[KEST_CUTS];
    kest_uuid7_parts id;
    uint8_t flags = 0, raw[KEST_HASH_LEN];
    kest_status st;

    if (p->signature.len != KEST_SIG_LEN || !kest_uuid7_split(p->entry_id.data, p->entry_id.len, &id))
        return KEST_E_PACK_FORM;
    find_cuts(p->doc.root, cuts);
    text->len = 0;
    if (header_follows(node, header, scratch)) {
        kest_buf_varint(text, 0);
    } else {
        kest_buf_varint(text, header.len);
        kest_buf_put(text, header.data, header.len);
    }
    put_template(text, p, cuts);
    if ((st = put_texts(w, p, cuts, text)) != KEST_OK || (st = put_parents(w, i, &flags)) != KEST_OK)
        return st;
    put_id(w, &id);
    if (p->timestamp_ms != (int64_t)id.unix_ms) {
        flags |= KEST_DENSE_OWN_TIME;
        kest_buf_varint(&w->times, kest_zigzag(p->timestamp_ms - (int64_t)id.unix_ms));
    }
    if (cuts[KEST_CUT_INPUT]->u.str.len) {
        flags |= KEST_DENSE_INPUT;
        kest_unhex(cuts[KEST_CUT_INPUT]->u.str.data, KEST_HASH_LEN, raw); /* checked when the entry was read */
        put_input(w, raw);
    }
    kest_buf_byte(&w->trusts, p->trust);
    kest_buf_byte(&w->flags, flags);
    kest_buf_put(&w->tail_sigs, p->signature.data, KEST_SIG_LEN);
    return KEST_OK;
}

static kest_status collect(writer *w, size_t count)
{
    kest_buf scratch, text;
    kest_status st = KEST_OK;

    kest_buf_init(&scratch);
    kest_buf_init(&text);
    for (size_t i = 0; i < count && st == KEST_OK; i++) {
        kest_parsed parsed;

        st = w->nodes[i]->broken ? KEST_E_PACK_FORM : kest_parsed_read(w->nodes[i]->jws, w->nodes[i]->jws_len, &parsed);
        if (st == KEST_OK) {
            st = put_entry(w, i, &parsed, &scratch, &text);
            kest_parsed_free(&parsed);
        }
    }
    kest_buf_free(&scratch);
    kest_buf_free(&text);
    return st;
}

static kest_status deflate_into(kest_buf *out, const kest_buf *plain)
{
    z_stream z = {0};
    size_t room;
    kest_status st = KEST_E_NOMEM;

    if (deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return st;
    room = deflateBound(&z, (uLong)plain->len);
    if (deflateSetDictionary(&z, kest_dense_dictionary, (uInt)kest_dense_dictionary_len) == Z_OK &&
        kest_buf_room(out, room)) {
        z.next_in = plain->data;
        z.avail_in = (uInt)plain->len;
        z.next_out = out->data + out->len;
        z.avail_out = (uInt)room;
        if (deflate(&z, Z_FINISH) == Z_STREAM_END) {
            out->len += room - z.avail_out;
            st = KEST_OK;
        }
    }
    deflateEnd(&z);
    return st;
}

/* version, length of the deflated part, deflated columns, incompressible tail. */
static kest_status assemble(writer *w, size_t count, kest_buf *out)
{
    /* Origins next to the text indices: one process per principal is usual, and then they repeat each other. */
    const kest_buf *order[8] = {&w->origins, &w->flags, &w->parents, &w->ms, &w->counters, &w->inputs, &w->times, &w->trusts};
    const kest_buf *tail[3] = {&w->tail_nodes, &w->tail_inputs, &w->tail_sigs};
    kest_buf plain, packed;
    kest_status st;

    kest_buf_init(&plain);
    kest_buf_init(&packed);
    kest_buf_varint(&plain, count);
    for (int i = 0; i < KEST_TEXTS; i++)
        kest_buf_varint(&plain, w->tables[i].count);
    for (int i = 0; i < KEST_TEXTS; i++)
        kest_buf_put(&plain, w->tables[i].texts.data, w->tables[i].texts.len);
    for (int i = 0; i < KEST_TEXTS; i++)
        kest_buf_put(&plain, w->tables[i].indices.data, w->tables[i].indices.len);
    for (int i = 0; i < 8; i++)
        kest_buf_put(&plain, order[i]->data, order[i]->len);
    st = plain.len > UINT32_MAX / 2 ? KEST_E_LIMIT : plain.status;
    if (st == KEST_OK)
        st = deflate_into(&packed, &plain);
    plain.len = 0;
    kest_buf_byte(&plain, KEST_DENSE_VERSION);
    kest_buf_varint(&plain, packed.len);
    kest_buf_put(&plain, packed.data, packed.len);
    for (int i = 0; i < 3; i++)
        kest_buf_put(&plain, tail[i]->data, tail[i]->len);
    if (st == KEST_OK)
        st = plain.status;
    if (st == KEST_OK && kest_buf_room(out, kest_b64_encoded_len(plain.len))) {
        kest_b64_encode(plain.data, plain.len, out->data + out->len);
        out->len += kest_b64_encoded_len(plain.len);
    }
    kest_buf_free(&plain);
    kest_buf_free(&packed);
    return st == KEST_OK ? out->status : st;
}

/* The promise is byte for byte, so it is checked every time rather than argued for. */
static kest_status proves_itself(kest_node *const *nodes, size_t count, const kest_buf *out)
{
    kest_builder built;
    kest_status st;

    kest_builder_init(&built);
    st = kest_unpack_dense(out->data, out->len, SIZE_MAX, count, &built);
    if (st != KEST_OK && st != KEST_E_NOMEM)
        st = KEST_E_PACK_FORM;
    if (st == KEST_OK && built.count != count)
        st = KEST_E_PACK_FORM;
    for (size_t i = 0; i < count && st == KEST_OK; i++)
        if (memcmp(built.nodes[i]->hash, nodes[i]->hash, KEST_HASH_LEN) != 0)
            st = KEST_E_PACK_FORM;
    kest_builder_free(&built);
    return st;
}

kest_status kest_pack_dense(kest_node *const *nodes, size_t count, kest_buf *out)
{
    writer w = {.nodes = nodes};
    kest_buf *list[COLUMNS];
    kest_status st;

    if (count == 0 || count > KEST_DENSE_MAX_ENTRIES)
        return KEST_E_PACK_FORM;
    if (!(w.seen_nodes = kest_calloc(count, sizeof *w.seen_nodes)))
        return KEST_E_NOMEM;
    columns(&w, list);
    for (int i = 0; i < COLUMNS; i++)
        kest_buf_init(list[i]);
    for (int i = 0; i < KEST_TEXTS; i++) {
        kest_buf_init(&w.tables[i].texts);
        kest_buf_init(&w.tables[i].indices);
    }
    st = collect(&w, count);
    for (int i = 0; i < COLUMNS && st == KEST_OK; i++)
        st = list[i]->status;
    for (int i = 0; i < KEST_TEXTS && st == KEST_OK; i++)
        st = w.tables[i].indices.status;
    if (st == KEST_OK)
        st = assemble(&w, count, out);
    if (st == KEST_OK)
        st = proves_itself(nodes, count, out);
    for (int i = 0; i < COLUMNS; i++)
        kest_buf_free(list[i]);
    for (int i = 0; i < KEST_TEXTS; i++)
        table_free(&w.tables[i]);
    kest_free(w.seen_nodes);
    return st;
}
