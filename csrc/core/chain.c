#include "chain.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

/* --- a set of node pointers, for walking a DAG without visiting anything twice --- */

typedef struct visited {
    const kest_node **slots;
    size_t nslots, count;
} visited;

static size_t pointer_slot(const visited *v, const kest_node *node)
{
    return (size_t)(((uintptr_t)node >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (v->nslots - 1);
}

/* 1: added now; 0: was there; -1: no memory. */
static int visit(visited *v, const kest_node *node)
{
    size_t s;

    if (2 * (v->count + 1) > v->nslots) {
        visited bigger = {.nslots = v->nslots ? v->nslots * 2 : 64, .count = v->count};

        bigger.slots = kest_calloc(bigger.nslots, sizeof *bigger.slots);
        if (!bigger.slots)
            return -1;
        for (size_t i = 0; i < v->nslots; i++)
            if (v->slots[i]) {
                s = pointer_slot(&bigger, v->slots[i]);
                while (bigger.slots[s])
                    s = (s + 1) & (bigger.nslots - 1);
                bigger.slots[s] = v->slots[i];
            }
        kest_free(v->slots);
        *v = bigger;
    }
    for (s = pointer_slot(v, node); v->slots[s]; s = (s + 1) & (v->nslots - 1))
        if (v->slots[s] == node)
            return 0;
    v->slots[s] = node;
    v->count++;
    return 1;
}

/* --- a growing list of borrowed nodes --- */

typedef struct node_list {
    kest_node **items;
    size_t count, cap;
} node_list;

static bool push(node_list *list, kest_node *node)
{
    if (list->count == list->cap) {
        const size_t cap = list->cap ? list->cap * 2 : 32;
        kest_node **items = kest_realloc(list->items, cap * sizeof *items);

        if (!items)
            return false;
        list->items = items;
        list->cap = cap;
    }
    list->items[list->count++] = node;
    return true;
}

static int by_seq(const void *a, const void *b)
{
    const uint64_t x = (*(kest_node *const *)a)->seq, y = (*(kest_node *const *)b)->seq;

    return (x > y) - (x < y);
}

static int by_hash(const void *a, const void *b)
{
    return memcmp((*(kest_node *const *)a)->hash, (*(kest_node *const *)b)->hash, KEST_HASH_LEN);
}

/* One unbranched chain: its length is known, so it is written from the end. */
static kest_status collect_linear(kest_node *tip, kest_node ***out, size_t *count)
{
    const size_t n = (size_t)atomic_load_explicit(&tip->count, memory_order_relaxed);
    kest_node **all = kest_calloc(n, sizeof *all);

    if (!all)
        return KEST_E_NOMEM;
    for (size_t i = n; i--; tip = tip->parent)
        all[i] = tip;
    *out = all;
    *count = n;
    return KEST_OK;
}

/* Drops later nodes whose hash an earlier one has (two copies of one entry that came by different ways). */
static kest_status drop_copies(node_list *all)
{
    kest_builder seen;
    size_t kept = 0;
    kest_status st = KEST_OK;

    kest_builder_init(&seen);
    for (size_t i = 0; i < all->count && st == KEST_OK; i++) {
        const size_t before = seen.count;

        st = kest_builder_share(&seen, all->items[i]);
        if (st == KEST_OK && seen.count > before)
            all->items[kept++] = all->items[i];
    }
    kest_builder_free(&seen);
    all->count = kept;
    return st;
}

kest_status kest_chain_collect(kest_node *const *tips, size_t ntips, kest_node ***out, size_t *count)
{
    node_list all = {0}, todo = {0};
    visited seen = {0};
    kest_status st = KEST_E_NOMEM;

    if (ntips == 1 && (tips[0]->flags & KEST_NODE_LINEAR))
        return collect_linear(tips[0], out, count);
    for (size_t i = 0; i < ntips; i++)
        if (!push(&todo, tips[i]))
            goto done;
    while (todo.count) {
        kest_node *node = todo.items[--todo.count];
        const int fresh = visit(&seen, node);

        if (fresh < 0 || (fresh && !push(&all, node)))
            goto done;
        for (size_t i = 0; fresh && i < node->nparents; i++)
            if (!push(&todo, kest_node_parent(node, i)))
                goto done;
    }
    if (all.count)
        qsort(all.items, all.count, sizeof *all.items, by_seq);
    if ((st = drop_copies(&all)) == KEST_OK) {
        *out = all.items;
        *count = all.count;
        all.items = NULL;
    }
done:
    kest_free(all.items);
    kest_free(todo.items);
    kest_free(seen.slots);
    return st;
}

kest_status kest_chain_count(kest_node *const *tips, size_t ntips, size_t *count)
{
    kest_node **all = NULL;
    kest_status st;

    if (ntips == 0) {
        *count = 0;
        return KEST_OK;
    }
    if (ntips == 1) {
        *count = (size_t)atomic_load_explicit(&tips[0]->count, memory_order_relaxed);
        if (*count)
            return KEST_OK;
    }
    st = kest_chain_collect(tips, ntips, &all, count);
    kest_free(all);
    if (st == KEST_OK && ntips == 1)
        atomic_store_explicit(&tips[0]->count, *count, memory_order_relaxed);
    return st;
}

/* 1 when an entry with the hash of `node` is a proper ancestor of `from`, 0 when not, -1 for want of memory. */
static int descends(kest_node *from, const kest_node *node)
{
    node_list todo = {0};
    visited seen = {0};
    int found = -1;

    while (from->nparents == 1) { /* the usual case needs no set */
        from = from->parent;
        if (memcmp(from->hash, node->hash, KEST_HASH_LEN) == 0)
            return 1;
    }
    if (!from->nparents)
        return 0;
    if (!push(&todo, from))
        goto done;
    while (todo.count) {
        kest_node *at = todo.items[--todo.count];

        for (size_t i = 0; i < at->nparents; i++) {
            kest_node *parent = kest_node_parent(at, i);
            const int fresh = visit(&seen, parent);

            if (memcmp(parent->hash, node->hash, KEST_HASH_LEN) == 0) {
                found = 1;
                goto done;
            }
            if (fresh < 0 || (fresh && !push(&todo, parent)))
                goto done;
        }
    }
    found = 0;
done:
    kest_free(todo.items);
    kest_free(seen.slots);
    return found;
}

kest_status kest_chain_merge(kest_node *const *tips, size_t ntips, kest_node ***out, size_t *count)
{
    kest_node **all = kest_calloc(ntips ? ntips : 1, sizeof *all);
    size_t n = 0, kept = 0;

    if (!all)
        return KEST_E_NOMEM;
    for (size_t i = 0; i < ntips; i++)
        all[n++] = tips[i];
    qsort(all, n, sizeof *all, by_hash);
    for (size_t i = 0; i < n; i++)
        if (!kept || by_hash(&all[kept - 1], &all[i]) != 0)
            all[kept++] = all[i];
    n = kept;
    kept = 0;
    for (size_t i = 0; i < n; i++) {
        int covered = 0;

        for (size_t j = 0; j < n && covered == 0; j++)
            if (j != i && all[j])
                covered = descends(all[j], all[i]);
        if (covered < 0) {
            kest_free(all);
            return KEST_E_NOMEM;
        }
        if (covered)
            all[i] = NULL; /* whatever descends from it stays, so leaving it out loses nothing */
    }
    for (size_t i = 0; i < n; i++)
        if (all[i])
            all[kept++] = all[i];
    *out = all;
    *count = kept;
    return KEST_OK;
}

/* One line: each the only parent of the next. */
static bool one_line(const kest_builder *b)
{
    for (size_t i = 1; i < b->count; i++)
        if (b->nodes[i]->nparents != 1 || b->nodes[i]->parent != b->nodes[i - 1])
            return false;
    return b->count != 0;
}

kest_status kest_builder_tips(const kest_builder *b, kest_node ***out, size_t *count)
{
    kest_node **tips = kest_calloc(b->count ? b->count : 1, sizeof *tips);
    visited parents = {0};
    kest_status st = KEST_E_NOMEM;
    size_t n = 0;

    if (!tips)
        goto done;
    if (one_line(b)) {
        tips[n++] = b->nodes[b->count - 1];
        goto found;
    }
    for (size_t i = 0; i < b->count; i++)
        for (size_t p = 0; p < b->nodes[i]->nparents; p++)
            if (visit(&parents, kest_node_parent(b->nodes[i], p)) < 0)
                goto done;
    for (size_t i = 0; i < b->count; i++) {
        int fresh;

        if ((fresh = visit(&parents, b->nodes[i])) < 0)
            goto done;
        if (fresh)
            tips[n++] = b->nodes[i];
    }
    qsort(tips, n, sizeof *tips, by_hash);
found:
    *out = tips;
    *count = n;
    tips = NULL;
    st = KEST_OK;
done:
    kest_free(tips);
    kest_free(parents.slots);
    return st;
}
