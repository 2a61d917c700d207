#include "alloc.h"
#include "chain.h"

#include <string.h>

void kest_builder_init(kest_builder *b)
{
    memset(b, 0, sizeof *b);
}

void kest_builder_free(kest_builder *b)
{
    for (size_t i = 0; i < b->count; i++)
        kest_node_unref(b->nodes[i]);
    kest_free(b->nodes);
    kest_free(b->slots);
    kest_builder_init(b);
}

static size_t slot_of(const kest_builder *b, const uint8_t hash[KEST_HASH_LEN])
{
    uint64_t key;

    memcpy(&key, hash, sizeof key); /* a SHA-256: as good as any hash function */
    return (size_t)key & (b->nslots - 1);
}

kest_node *kest_builder_find(const kest_builder *b, const uint8_t hash[KEST_HASH_LEN])
{
    if (!b->nslots)
        return NULL;
    for (size_t s = slot_of(b, hash); b->slots[s]; s = (s + 1) & (b->nslots - 1)) {
        kest_node *node = b->nodes[b->slots[s] - 1];

        if (memcmp(node->hash, hash, KEST_HASH_LEN) == 0)
            return node;
    }
    return NULL;
}

static void index_node(kest_builder *b, size_t at)
{
    size_t s = slot_of(b, b->nodes[at]->hash);

    while (b->slots[s])
        s = (s + 1) & (b->nslots - 1);
    b->slots[s] = (uint32_t)(at + 1);
}

/* Room for one more node, the table at most half full. */
static kest_status make_room(kest_builder *b)
{
    if (b->count == b->cap) {
        const size_t cap = b->cap ? b->cap * 2 : 8;
        kest_node **nodes;

        if (cap > UINT32_MAX / 2)
            return KEST_E_LIMIT;
        nodes = kest_realloc(b->nodes, cap * sizeof *nodes);
        if (!nodes)
            return KEST_E_NOMEM;
        b->nodes = nodes;
        b->cap = cap;
    }
    if (2 * (b->count + 1) > b->nslots) {
        const size_t nslots = b->nslots ? b->nslots * 2 : 16;
        uint32_t *slots = kest_calloc(nslots, sizeof *slots);

        if (!slots)
            return KEST_E_NOMEM;
        kest_free(b->slots);
        b->slots = slots;
        b->nslots = nslots;
        for (size_t i = 0; i < b->count; i++)
            index_node(b, i);
    }
    return KEST_OK;
}

kest_status kest_builder_copy(const kest_builder *b, kest_builder *out)
{
    kest_builder copy = {.count = b->count, .cap = b->count, .nslots = b->nslots};

    copy.nodes = kest_calloc(b->count ? b->count : 1, sizeof *copy.nodes);
    copy.slots = kest_calloc(b->nslots ? b->nslots : 1, sizeof *copy.slots);
    if (!copy.nodes || !copy.slots) {
        kest_free(copy.nodes);
        kest_free(copy.slots);
        return KEST_E_NOMEM;
    }
    for (size_t i = 0; i < b->count; i++)
        copy.nodes[i] = kest_node_ref(b->nodes[i]);
    if (b->nslots)
        memcpy(copy.slots, b->slots, b->nslots * sizeof *copy.slots);
    *out = copy;
    return KEST_OK;
}

kest_status kest_builder_add(kest_builder *b, const uint8_t *jws, size_t len)
{
    kest_node *node;
    kest_status st;

    if (len > KEST_MAX_JWS)
        return KEST_E_LIMIT;
    if ((st = make_room(b)) != KEST_OK || (st = kest_node_from_text(b, jws, len, &node)) != KEST_OK)
        return st;
    b->nodes[b->count] = node;
    index_node(b, b->count++);
    return KEST_OK;
}

kest_status kest_builder_push(kest_builder *b, kest_node *node)
{
    const kest_status st = make_room(b);

    if (st == KEST_OK) {
        b->nodes[b->count] = kest_node_ref(node);
        index_node(b, b->count++);
    }
    return st;
}

kest_status kest_builder_share(kest_builder *b, kest_node *node)
{
    return kest_builder_find(b, node->hash) ? KEST_OK : kest_builder_push(b, node);
}

size_t kest_builder_broken(const kest_builder *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->nodes[i]->broken)
            return i;
    return SIZE_MAX;
}
