#include "alloc.h"
#include "b64url.h"
#include "chain.h"
#include "jws.h"
#include "trust.h"

#include <string.h>

static atomic_uint_fast64_t next_seq = 1;

kest_node *kest_node_ref(kest_node *node)
{
    atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
    return node;
}

/* Drops one reference; when it was the last, links the node into *dead (through its parent-count-free `seq`). */
static void release(kest_node *node, kest_node **dead)
{
    if (node && atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) == 1) {
        node->seq = (uint64_t)(uintptr_t)*dead;
        *dead = node;
    }
}

void kest_node_unref(kest_node *node)
{
    kest_node *dead = NULL;

    release(node, &dead);
    while (dead) {
        kest_node *gone = dead;

        dead = (kest_node *)(uintptr_t)gone->seq;
        for (size_t i = 0; i < gone->nparents; i++)
            release(kest_node_parent(gone, i), &dead);
        kest_free(gone->more);
        kest_text_unref(gone->principal);
        kest_taints_unref(gone->taints);
        kest_free(gone);
    }
}

/* A node without JWS text yet; takes references to parents, principal and taints. */
static kest_status node_new(const kest_node_facts *f, size_t jws_len, kest_node **out)
{
    kest_node *node = kest_malloc(sizeof *node + jws_len);
    uint8_t weakest = KEST_MAX_TRUST, flags = f->flags;

    if (!node)
        return KEST_E_NOMEM;
    memset(node, 0, sizeof *node);
    if (f->nparents > 1 && !(node->more = kest_calloc(f->nparents - 1, sizeof *node->more))) {
        kest_free(node);
        return KEST_E_NOMEM;
    }
    for (size_t i = 0; i < f->nparents; i++) {
        kest_node *parent = kest_node_ref(f->parents[i]);

        *(i ? &node->more[i - 1] : &node->parent) = parent;
        if (parent->trust < weakest)
            weakest = parent->trust;
    }
    if (f->nparents == 0)
        flags |= KEST_NODE_ROOT;
    else if (f->trust > weakest)
        flags |= KEST_NODE_RISE;
    if (f->nparents == 0 || (f->nparents == 1 && (node->parent->flags & KEST_NODE_LINEAR)))
        flags |= KEST_NODE_LINEAR;
    atomic_init(&node->refs, 1);
    atomic_init(&node->vouched, 0);
    atomic_init(&node->count, f->nparents == 0 ? 1 : 0);
    if (f->nparents == 1) {
        const uint64_t before = atomic_load_explicit(&node->parent->count, memory_order_relaxed);

        atomic_init(&node->count, before ? before + 1 : 0);
    }
    node->seq = atomic_fetch_add_explicit(&next_seq, 1, memory_order_relaxed);
    node->jws_len = (uint32_t)jws_len;
    node->timestamp_ms = f->timestamp_ms;
    node->principal = f->principal ? kest_text_ref(f->principal) : NULL;
    node->taints = kest_taints_ref(f->taints);
    node->nparents = (uint16_t)f->nparents;
    node->trust = f->trust;
    node->alg = (uint8_t)f->alg;
    node->flags = flags;
    *out = node;
    return KEST_OK;
}

kest_status kest_node_layout(const kest_node_facts *f, kest_str payload, kest_node **out)
{
    const size_t sig_len = kest_b64_encoded_len(KEST_SIG_LEN);
    size_t sig_at;
    kest_status st;

    if (f->nparents > KEST_MAX_PARENTS || !kest_jws_fits(f->header_b64.len, payload.len, KEST_SIG_LEN))
        return KEST_E_LIMIT;
    sig_at = f->header_b64.len + 1 + kest_b64_encoded_len(payload.len) + 1;
    if ((st = node_new(f, sig_at + sig_len, out)) != KEST_OK)
        return st;
    memcpy((*out)->jws, f->header_b64.data, f->header_b64.len);
    (*out)->jws[f->header_b64.len] = '.';
    (*out)->jws[sig_at - 1] = '.';
    (*out)->sig_at = (uint32_t)sig_at;
    kest_node_vouch(*out, KEST_SIGNED_HERE);
    return KEST_OK;
}

kest_status kest_node_sign(kest_node *node, kest_str payload, const kest_seckey *key)
{
    uint8_t sig[KEST_SIG_LEN];
    const size_t input = node->sig_at - 1U;
    kest_status st;

    kest_b64_encode(payload.data, payload.len, node->jws + input - kest_b64_encoded_len(payload.len));
    if ((st = kest_sign(key, node->jws, input, sig)) != KEST_OK)
        return st;
    kest_b64_encode(sig, sizeof sig, node->jws + node->sig_at);
    return kest_sha256(node->jws, node->jws_len, node->hash);
}

/* --- from text --- */

static kest_status broken_node(const uint8_t *jws, size_t len, kest_status why, kest_node **out)
{
    kest_node_facts facts = {0};
    kest_status st;

    if ((st = kest_taints_new(NULL, 0, &facts.taints)) != KEST_OK)
        return st;
    st = node_new(&facts, len, out);
    kest_taints_unref(facts.taints);
    if (st == KEST_OK) {
        memcpy((*out)->jws, jws, len);
        (*out)->broken = (uint8_t)why;
        st = kest_sha256(jws, len, (*out)->hash);
    }
    return st;
}

/* The rules that tie an entry to its parents (PRODUCT, sections 3 and 4); sets f->taints (a new reference). */
static kest_status link_facts(const kest_parsed *p, kest_node *const *parents, kest_node_facts *f)
{
    enum { INLINE = 16 };
    kest_taints *room[INLINE], **sets = room;
    uint8_t weakest = KEST_MAX_TRUST;
    bool removed = false;
    kest_status st;

    if (p->has_override && !p->override_exact)
        return KEST_E_TRUST_LABEL;
    if (p->nparents > INLINE && !(sets = kest_calloc(p->nparents, sizeof(kest_taints *))))
        return KEST_E_NOMEM;
    for (size_t i = 0; i < p->nparents; i++) {
        sets[i] = parents[i]->taints;
        if (parents[i]->trust < weakest)
            weakest = parents[i]->trust;
    }
    st = kest_taints_combine(sets, p->nparents, p->added, p->nadded, p->removed, p->nremoved, &f->taints, &removed);
    if (sets != room)
        kest_free(sets);
    if (st != KEST_OK)
        return st;
    if (!kest_taints_equal(f->taints, p->taints, p->ntaints))
        st = KEST_E_TAINTS;
    else if (p->trust > weakest && p->nparents && !p->has_override)
        st = KEST_E_TRUST_RISE;
    if (st != KEST_OK) {
        kest_taints_unref(f->taints);
        f->taints = NULL;
        return st;
    }
    f->flags = (uint8_t)((p->has_override ? KEST_NODE_LABELLED : 0) | (removed ? KEST_NODE_REMOVES : 0));
    return KEST_OK;
}

static kest_status linked_node(const kest_builder *b, const uint8_t *jws, size_t len, const kest_parsed *p,
                               const uint8_t hash[KEST_HASH_LEN], kest_node **out)
{
    enum { INLINE = 16 };
    kest_node *room[INLINE], **parents = room;
    kest_node_facts f = {.nparents = p->nparents, .timestamp_ms = p->timestamp_ms, .trust = p->trust,
                         .alg = p->header.alg};
    kest_status st = KEST_OK;

    if (p->nparents > INLINE && !(parents = kest_calloc(p->nparents, sizeof(kest_node *))))
        return KEST_E_NOMEM;
    for (size_t i = 0; i < p->nparents && st == KEST_OK; i++)
        if (!(parents[i] = kest_builder_find(b, p->parents + i * KEST_HASH_LEN)))
            st = KEST_E_PARENT_MISSING;
    f.parents = parents;
    if (st == KEST_OK)
        st = link_facts(p, parents, &f);
    if (st == KEST_OK) {
        if (p->nparents && parents[0]->principal &&
            kest_text_is(parents[0]->principal, p->principal.data, p->principal.len))
            f.principal = kest_text_ref(parents[0]->principal);
        else
            st = kest_text_new(p->principal.data, p->principal.len, &f.principal);
    }
    if (st == KEST_OK && (st = node_new(&f, len, out)) == KEST_OK) {
        memcpy((*out)->jws, jws, len);
        memcpy((*out)->hash, hash, KEST_HASH_LEN);
        (*out)->sig_at = (uint32_t)p->view.sig_at;
    }
    kest_text_unref(f.principal);
    kest_taints_unref(f.taints);
    if (parents != room)
        kest_free(parents);
    return st;
}

kest_status kest_node_from_text(const kest_builder *b, const uint8_t *jws, size_t len, kest_node **out)
{
    kest_parsed parsed;
    uint8_t hash[KEST_HASH_LEN];
    kest_status st = kest_parsed_read(jws, len, &parsed);

    if (st == KEST_OK) {
        st = kest_sha256(jws, len, hash);
        if (st == KEST_OK && kest_builder_find(b, hash))
            st = KEST_E_DUPLICATE;
        if (st == KEST_OK)
            st = linked_node(b, jws, len, &parsed, hash, out);
        kest_parsed_free(&parsed);
    }
    if (st == KEST_OK || st == KEST_E_NOMEM || st == KEST_E_CRYPTO)
        return st;
    return broken_node(jws, len, st, out);
}
