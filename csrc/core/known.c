#include "known.h"

#include "alloc.h"
#include "crypto.h"

#include <string.h>

enum {
    TAIL = 16,           /* characters at the end of a signature that say where to look; the whole text is compared */
    SETS = 64, WAYS = 4, /* dense passports kept */
    RECORD_BYTES = 32768, /* larger ones are not */
    NEW_ENTRIES = 16     /* how many entries beyond a kept passport are worth looking for */
};

/* An entry, and where in the same half the one is that followed it in the text read last: a guess. */
typedef struct place {
    kest_node *node;
    uint32_t next;
} place;

/* Open addressing; at most half full. */
typedef struct half {
    place *slots;
    size_t count, bytes;
} half;

typedef struct record {
    kest_dense *dense; /* NULL: free */
    kest_builder entries;
    uint64_t used; /* when last; of a set, the one least recently used gives way */
} record;

struct kest_known {
    half halves[2];
    int newer;
    size_t nslots, full_at, bytes_at;
    uint8_t key[KEST_KEYED_HASH_KEY]; /* places cannot be chosen from outside */
    record records[SETS][WAYS];
    uint64_t clock;
};

kest_status kest_known_new(size_t capacity, size_t max_bytes, kest_known **out)
{
    kest_known *known;

    if (capacity < 2 || capacity > (size_t)1 << 24)
        return KEST_E_LIMIT;
    known = kest_calloc(1, sizeof *known);
    if (!known)
        return KEST_E_NOMEM;
    known->full_at = capacity / 2;
    known->bytes_at = max_bytes / 2;
    known->nslots = 4;
    while (known->nslots < 2 * known->full_at)
        known->nslots *= 2;
    for (int i = 0; i < 2; i++)
        if (!(known->halves[i].slots = kest_calloc(known->nslots, sizeof(place)))) {
            kest_known_free(known);
            return KEST_E_NOMEM;
        }
    kest_random(known->key, sizeof known->key);
    *out = known;
    return KEST_OK;
}

static void half_empty(half *h, size_t nslots)
{
    for (size_t s = 0; h->count && s < nslots; s++)
        if (h->slots[s].node) {
            kest_node_unref(h->slots[s].node);
            h->slots[s].node = NULL;
            h->count--;
        }
    h->bytes = 0;
}

static void record_drop(record *r)
{
    if (r->dense)
        kest_builder_free(&r->entries);
    kest_dense_free(r->dense);
    r->dense = NULL;
}

void kest_known_free(kest_known *known)
{
    if (!known)
        return;
    for (int i = 0; i < 2; i++) {
        half_empty(&known->halves[i], known->nslots);
        kest_free(known->halves[i].slots);
    }
    for (int i = 0; i < SETS; i++)
        for (int w = 0; w < WAYS; w++)
            record_drop(&known->records[i][w]);
    kest_free(known);
}

size_t kest_known_count(const kest_known *known)
{
    return known->halves[0].count + known->halves[1].count;
}

static size_t place_of(const kest_known *known, kest_str jws)
{
    const size_t tail = jws.len < TAIL ? jws.len : TAIL;

    return (size_t)kest_keyed_hash(known->key, jws.data + (jws.len - tail), tail) & (known->nslots - 1);
}

/* The slot that holds this text, or the free one where it would go; `s` is its place. */
static place *slot(const kest_known *known, const half *h, kest_str jws, size_t s)
{
    for (const kest_node *n; (n = h->slots[s].node); s = (s + 1) & (known->nslots - 1))
        if (n->jws_len == jws.len && (n->jws == jws.data || memcmp(n->jws, jws.data, jws.len) == 0))
            break;
    return &h->slots[s];
}

static kest_str text_of(const kest_node *node)
{
    return (kest_str){node->jws, node->jws_len};
}

static void add(kest_known *known, kest_node *node, size_t at)
{
    half *h = &known->halves[known->newer];
    place *to = slot(known, h, text_of(node), at);

    if (to->node || node->jws_len > known->bytes_at)
        return;
    if (h->count >= known->full_at || h->bytes + node->jws_len > known->bytes_at) {
        known->newer = !known->newer;
        h = &known->halves[known->newer];
        half_empty(h, known->nslots);
        to = slot(known, h, text_of(node), at);
    }
    to->node = kest_node_ref(node);
    h->count++;
    h->bytes += node->jws_len;
}

bool kest_known_has(const kest_known *known, const kest_node *node)
{
    const kest_str jws = text_of(node);
    const size_t at = place_of(known, jws);

    return !node->broken && (slot(known, &known->halves[known->newer], jws, at)->node ||
                             slot(known, &known->halves[!known->newer], jws, at)->node);
}

void kest_known_add(kest_known *known, kest_node *node)
{
    add(known, node, place_of(known, text_of(node)));
}

/* The place of the known node with this text or NULL; it moves to the newer half. */
static place *find(kest_known *known, kest_str jws)
{
    const size_t at = place_of(known, jws);
    place *found = slot(known, &known->halves[known->newer], jws, at);
    kest_node *node;

    if (found->node)
        return found;
    if (!(node = slot(known, &known->halves[!known->newer], jws, at)->node))
        return NULL;
    kest_node_ref(node); /* the older half may be emptied for it */
    add(known, node, at);
    kest_node_unref(node);
    found = slot(known, &known->halves[known->newer], jws, at);
    return found->node ? found : NULL;
}

/* --- text --- */

/* The usual case: its only parent is the newest node, so that it cannot be there itself. */
static bool follows(const kest_builder *b, const kest_node *node)
{
    return node->nparents == 1 && b->count && node->parent == b->nodes[b->count - 1];
}

/* Whether each parent is there as the very node: two copies of one entry would make two tips of one. */
static bool parents_there(const kest_builder *b, const kest_node *node)
{
    for (size_t i = 0; i < node->nparents; i++) {
        const kest_node *parent = kest_node_parent(node, i);

        if (kest_builder_find(b, parent->hash) != parent)
            return false;
    }
    return true;
}

/* Whether the array ends here, or another element follows without a space. */
static bool goes_on(kest_str text, size_t at)
{
    return at < text.len && (text.data[at] == ',' || (text.data[at] == ']' && at + 1 == text.len));
}

/* Whether `text` goes on with this node's text and the quotation mark after it. */
static bool is_next(const kest_node *node, kest_str text)
{
    return node && node->jws_len < text.len && text.data[node->jws_len] == '"' && memcmp(node->jws, text.data, node->jws_len) == 0;
}

/* The known entry that `text` begins with: the one that followed `last` before, or any. A JWS holds nothing that JSON would
 * escape, so a known one is spelled like its text, or not found. */
static place *leading(kest_known *known, place *last, kest_str text)
{
    place *slots = known->halves[known->newer].slots, *found = last ? &slots[last->next] : NULL;
    const uint8_t *end;

    if (found && is_next(found->node, text))
        return found;
    end = memchr(text.data, '"', text.len);
    return end ? find(known, (kest_str){text.data, (size_t)(end - text.data)}) : NULL;
}

kest_status kest_known_prefix(kest_known *known, kest_str text, size_t max_entries, kest_builder *b, size_t *taken)
{
    place *last = NULL;
    size_t at = 0;

    *taken = 0;
    while (b->count < max_entries && at + 2 < text.len && text.data[at] == (at ? ',' : '[') && text.data[at + 1] == '"') {
        const int newer = known->newer;
        place *found = leading(known, last, (kest_str){text.data + at + 2, text.len - at - 2});
        const size_t before = b->count, end = found ? at + 2 + found->node->jws_len + 1 : 0;
        kest_status st;

        if (!found || !goes_on(text, end))
            break;
        if (follows(b, found->node))
            st = kest_builder_push(b, found->node);
        else if (parents_there(b, found->node))
            st = kest_builder_share(b, found->node);
        else
            break;
        if (st != KEST_OK)
            return st;
        if (b->count == before) /* twice in one passport: for the rest to say */
            break;
        if (last && known->newer == newer) /* both in one half */
            last->next = (uint32_t)(found - known->halves[newer].slots);
        last = found;
        at = end;
        *taken = at;
    }
    return KEST_OK;
}

kest_status kest_known_rest(kest_str text, size_t taken, size_t max_entries, kest_builder *b, size_t *error_at)
{
    const size_t shared = b->count;
    kest_status st;
    kest_buf rest;

    if (!taken)
        return kest_unpack_json(text.data, text.len, max_entries, b, error_at);
    if (text.data[taken] == ']') /* the end, otherwise a comma */
        return KEST_OK;
    kest_buf_init(&rest);
    kest_buf_byte(&rest, '[');
    kest_buf_put(&rest, text.data + taken + 1, text.len - taken - 1);
    st = rest.status;
    if (st == KEST_OK)
        st = kest_unpack_json(rest.data, rest.len, max_entries - shared, b, error_at);
    if (st == KEST_OK && b->count == shared) /* a comma with nothing behind it */
        st = KEST_E_JSON;
    *error_at += taken;
    kest_buf_free(&rest);
    return st;
}

/* --- the dense form --- */

/* Where a passport that ends with the first `count` entries of `dense` is kept. */
static record *set_of(kest_known *known, const kest_dense *dense, size_t count)
{
    return known->records[kest_keyed_hash(known->key, kest_dense_signature(dense, count - 1), KEST_SIG_LEN) % SETS];
}

bool kest_known_keep(kest_known *known, kest_dense *dense, const kest_builder *entries)
{
    record *set = set_of(known, dense, kest_dense_count(dense)), *oldest = set, fresh = {.dense = dense, .used = ++known->clock};

    if (kest_dense_bytes(dense) > RECORD_BYTES || kest_builder_copy(entries, &fresh.entries) != KEST_OK) {
        kest_dense_free(dense); /* it is read in full the next time */
        return false;
    }
    for (record *r = set + 1; r < set + WAYS; r++)
        if (!r->dense || (oldest->dense && r->used < oldest->used))
            oldest = r;
    record_drop(oldest);
    *oldest = fresh;
    return true;
}

/* The kept passport of `n` entries with which `dense` begins, or NULL. */
static record *resumed(kest_known *known, kest_dense *dense, size_t n)
{
    record *set = set_of(known, dense, n);

    for (record *r = set; r < set + WAYS; r++)
        if (r->dense && kest_dense_count(r->dense) == n && kest_dense_resume(dense, r->dense))
            return r;
    return NULL;
}

kest_status kest_known_resume(kest_known *known, kest_dense *dense, kest_builder *b)
{
    const size_t total = kest_dense_count(dense);
    record *r = NULL;

    for (size_t n = total; !r && n && n + NEW_ENTRIES >= total; n--)
        r = resumed(known, dense, n);
    if (!r)
        return KEST_OK;
    r->used = ++known->clock;
    return kest_builder_copy(&r->entries, b);
}
