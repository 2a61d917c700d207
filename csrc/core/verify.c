#include "verify.h"

#include "alloc.h"
#include "b64url.h"

#include <pthread.h>
#include <string.h>

typedef struct ring_key {
    kest_pubkey *key;
    kest_grant grant;
    struct ring_key *next; /* of the same principal */
} ring_key;

typedef struct ring_slot {
    kest_text *principal; /* NULL: free */
    ring_key *keys;
} ring_slot;

struct kest_keyring {
    atomic_uint refs;
    uint64_t id;
    ring_slot *slots;
    size_t nslots, principals, keys;
};

enum { MAX_THREADS = 16, MAX_RSA_SIG = 2048 };

static atomic_uint_fast64_t next_id = KEST_SIGNED_HERE + 1;

kest_status kest_keyring_new(kest_keyring **out)
{
    kest_keyring *ring = kest_calloc(1, sizeof *ring);

    if (!ring)
        return KEST_E_NOMEM;
    atomic_init(&ring->refs, 1);
    ring->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
    *out = ring;
    return KEST_OK;
}

/* FNV-1a. Principals come from the operator's own trust store, so nobody outside chooses what collides. */
static size_t hash_name(const uint8_t *name, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        h = (h ^ name[i]) * UINT64_C(0x100000001b3);
    return (size_t)(h ^ h >> 32);
}

static ring_slot *find_slot(ring_slot *slots, size_t nslots, const uint8_t *name, size_t len)
{
    size_t s = hash_name(name, len) & (nslots - 1);

    while (slots[s].principal && !kest_text_is(slots[s].principal, name, len))
        s = (s + 1) & (nslots - 1);
    return &slots[s];
}

static kest_status ring_room(kest_keyring *ring)
{
    const size_t nslots = ring->nslots ? ring->nslots * 2 : 8;
    ring_slot *slots;

    if (2 * (ring->principals + 1) <= ring->nslots)
        return KEST_OK;
    slots = kest_calloc(nslots, sizeof *slots);
    if (!slots)
        return KEST_E_NOMEM;
    for (size_t i = 0; i < ring->nslots; i++) {
        const kest_text *p = ring->slots[i].principal;

        if (p)
            *find_slot(slots, nslots, p->data, p->len) = ring->slots[i];
    }
    kest_free(ring->slots);
    ring->slots = slots;
    ring->nslots = nslots;
    return KEST_OK;
}

kest_status kest_keyring_add(kest_keyring *ring, const uint8_t *principal, size_t len, kest_pubkey *key,
                             const kest_grant *grant)
{
    ring_slot *slot;
    ring_key *entry;
    kest_status st;

    if ((st = ring_room(ring)) != KEST_OK)
        return st;
    entry = kest_calloc(1, sizeof *entry);
    if (!entry)
        return KEST_E_NOMEM;
    slot = find_slot(ring->slots, ring->nslots, principal, len);
    if (!slot->principal) {
        if ((st = kest_text_new(principal, len, &slot->principal)) != KEST_OK) {
            slot->principal = NULL;
            kest_free(entry);
            return st;
        }
        ring->principals++;
    }
    entry->key = kest_pubkey_ref(key);
    entry->grant = *grant;
    entry->next = slot->keys;
    slot->keys = entry;
    ring->keys++;
    return KEST_OK;
}

kest_keyring *kest_keyring_ref(kest_keyring *ring)
{
    atomic_fetch_add_explicit(&ring->refs, 1, memory_order_relaxed);
    return ring;
}

void kest_keyring_unref(kest_keyring *ring)
{
    if (!ring || atomic_fetch_sub_explicit(&ring->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < ring->nslots; i++) {
        ring_key *key = ring->slots[i].keys;

        while (key) {
            ring_key *next = key->next;

            kest_pubkey_unref(key->key);
            kest_free(key);
            key = next;
        }
        kest_text_unref(ring->slots[i].principal);
    }
    kest_free(ring->slots);
    kest_free(ring);
}

uint64_t kest_keyring_id(const kest_keyring *ring)
{
    return ring->id;
}

size_t kest_keyring_count(const kest_keyring *ring)
{
    return ring->keys;
}

/* The rights that matter for this node. */
static kest_status check_grant(const kest_node *node, const kest_grant *grant)
{
    const bool raises = (node->flags & KEST_NODE_RISE) ||
                        ((node->flags & KEST_NODE_ROOT) && (node->flags & KEST_NODE_LABELLED));

    if ((raises || (node->flags & KEST_NODE_REMOVES)) && !grant->may_sanitise)
        return KEST_E_MAY_NOT_SANITISE;
    if ((raises || (node->flags & KEST_NODE_ROOT)) && node->trust > grant->max_trust)
        return KEST_E_TRUST_MAX;
    return KEST_OK;
}

static kest_status verify_node(const kest_node *node, const kest_keyring *ring)
{
    uint8_t sig[MAX_RSA_SIG];
    const size_t sig_text = node->jws_len - node->sig_at, sig_len = kest_b64_decoded_len(sig_text);
    const ring_slot *slot;
    kest_status st = KEST_E_KEY;

    if (node->broken)
        return (kest_status)node->broken;
    if (!ring->nslots)
        return KEST_E_PRINCIPAL;
    slot = find_slot(ring->slots, ring->nslots, node->principal->data, node->principal->len);
    if (!slot->principal)
        return KEST_E_PRINCIPAL;
    if (sig_len > sizeof sig || kest_b64_decode(node->jws + node->sig_at, sig_text, sig) != KEST_OK)
        return KEST_E_SIGNATURE;
    for (const ring_key *k = slot->keys; k && st != KEST_OK; k = k->next) {
        /* The algorithm is the key's, never the header's choice. */
        if (kest_pubkey_alg(k->key) != (kest_alg)node->alg)
            continue;
        if (node->timestamp_ms < k->grant.not_before || node->timestamp_ms > k->grant.not_after) {
            if (st == KEST_E_KEY)
                st = KEST_E_KEY_TIME;
            continue;
        }
        st = check_grant(node, &k->grant);
        if (st == KEST_OK)
            st = kest_pubkey_verify(k->key, node->jws, node->sig_at - 1U, sig, sig_len);
    }
    return st;
}

typedef struct job {
    kest_node *const *nodes;
    size_t count;
    const kest_keyring *ring;
    atomic_size_t next;
    atomic_size_t bad; /* lowest bad index so far; count: none */
} job;

static void *work(void *arg)
{
    job *j = arg;
    size_t i;

    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) <
           atomic_load_explicit(&j->bad, memory_order_relaxed)) {
        if (verify_node(j->nodes[i], j->ring) != KEST_OK) {
            size_t seen = atomic_load(&j->bad);

            while (i < seen && !atomic_compare_exchange_weak(&j->bad, &seen, i))
                ;
        }
    }
    return NULL;
}

void kest_verify_nodes(kest_node *const *nodes, size_t count, const kest_keyring *ring, unsigned threads,
                       kest_verdict *out)
{
    pthread_t ids[MAX_THREADS];
    unsigned started = 0;
    job j = {.nodes = nodes, .count = count, .ring = ring};
    size_t bad;

    atomic_init(&j.next, 0);
    atomic_init(&j.bad, count);
    /* A thread that cannot be started is no failure: the others, and this one, do its share. */
    while (started + 1 < threads && started < MAX_THREADS && pthread_create(&ids[started], NULL, work, &j) == 0)
        started++;
    work(&j);
    while (started)
        pthread_join(ids[--started], NULL);
    bad = atomic_load(&j.bad);
    out->index = bad;
    /* Indices are handed out in order, so everything before the lowest bad one was verified. The reason is worked
     * out again rather than carried between threads; one that is gone by then (a library that had no memory) is a failure
     * all the same, for nothing after it was looked at. */
    out->status = bad == count ? KEST_OK : verify_node(nodes[bad], ring);
    if (bad != count && out->status == KEST_OK)
        out->status = KEST_E_CRYPTO;
}
