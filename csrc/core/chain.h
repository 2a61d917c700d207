/* chain.h: the Merkle DAG of signed entries, as immutable, shared, reference-counted nodes.
 *
 * A node owns its JWS and holds references to its parents, so a passport is nothing but its tips: appending and
 * branching cost the same at any depth, and two passports share whatever they have in common. Nodes never change
 * after creation, so threads may share them; reference counts are atomic.
 */
#ifndef KEST_CHAIN_H
#define KEST_CHAIN_H

#include "entry.h"
#include "shared.h"

typedef struct kest_node kest_node;

enum {
    KEST_NODE_ROOT = 1,     /* no parents */
    KEST_NODE_LABELLED = 2, /* carries kest.trust_override */
    KEST_NODE_RISE = 4,     /* trust above its weakest parent's */
    KEST_NODE_REMOVES = 8,  /* a taint really went away here */
    KEST_NODE_LINEAR = 16   /* neither it nor any ancestor has two parents */
};

struct kest_node {
    atomic_uint refs;
    uint32_t jws_len;
    uint64_t seq;                /* order of creation in this process: parents before children */
    atomic_uint_fast64_t vouched; /* 0: by nobody; 1: signed by this process; else the id of the last ring that it verified under */
    atomic_uint_fast64_t count;  /* ancestors including itself; 0: not yet counted */
    int64_t timestamp_ms;
    kest_text *principal;        /* NULL in a broken node */
    kest_taints *taints;         /* never NULL */
    kest_node *parent;           /* the first one, or NULL */
    kest_node **more;            /* the other nparents - 1 */
    uint32_t sig_at;             /* where the signature part of the JWS starts */
    uint16_t nparents;
    uint8_t trust;
    uint8_t alg;                 /* kest_alg */
    uint8_t flags;
    uint8_t broken;              /* kest_status: why this text is not an acceptable entry of this chain */
    uint8_t hash[KEST_HASH_LEN]; /* SHA-256 of the JWS */
    uint8_t jws[];
};

kest_node *kest_node_ref(kest_node *node);
void kest_node_unref(kest_node *node); /* NULL is fine; never recurses, however long the chain */
static inline kest_node *kest_node_parent(const kest_node *n, size_t i) { return i ? n->more[i - 1] : n->parent; }

/* --- signing a new entry ---
 * First half: with the payload written, lay out the node and its JWS up to the signature. `header_b64` is what
 * kest_jws_header_write made for `principal`. `principal` and `taints` are shared; `parents` gain references. */
typedef struct kest_node_facts {
    kest_str header_b64;
    kest_text *principal;
    kest_taints *taints;
    kest_node *const *parents;
    size_t nparents;
    int64_t timestamp_ms;
    uint8_t trust;
    uint8_t flags; /* LABELLED, REMOVES; the others follow from the parents */
    kest_alg alg;
} kest_node_facts;
kest_status kest_node_layout(const kest_node_facts *facts, kest_str payload, kest_node **out);
/* Second half, pure computation for a thread without the interpreter's lock: base64, sign, base64, hash. */
kest_status kest_node_sign(kest_node *node, kest_str payload, const kest_seckey *key);

/* Says that an entry was signed here (KEST_SIGNED_HERE) or verified under a ring: from then on its principal is more than a claim. */
#define KEST_SIGNED_HERE UINT64_C(1)
static inline void kest_node_vouch(kest_node *n, uint64_t by) { atomic_store_explicit(&n->vouched, by, memory_order_relaxed); }
static inline uint64_t kest_node_vouched(const kest_node *n)
{
    return atomic_load_explicit(&((kest_node *)(uintptr_t)n)->vouched, memory_order_relaxed);
}

/* --- passports from text --- */
/* Entries in the order in which they arrived, linked as far as they can be. Not thread-safe. */
typedef struct kest_builder {
    kest_node **nodes;
    size_t count, cap;
    uint32_t *slots; /* open addressing on the hash; index + 1, 0: empty */
    size_t nslots;   /* a power of two */
} kest_builder;
/* One entry after those of `b`: a node linked to its parents there, or a broken one. The caller adds it. */
kest_status kest_node_from_text(const kest_builder *b, const uint8_t *jws, size_t len, kest_node **out);
void kest_builder_init(kest_builder *b);
void kest_builder_free(kest_builder *b);
/* Appends one entry. Fails only for want of memory or above KEST_MAX_JWS; a text that is not an acceptable entry becomes a
 * broken node, so that a verifier can name it: nothing is dropped. */
kest_status kest_builder_add(kest_builder *b, const uint8_t *jws, size_t len);
/* Appends a node that exists (by reference), unless one of its hash is there already. */
kest_status kest_builder_share(kest_builder *b, kest_node *node);
/* The same without looking, for a node that cannot be there: because its only parent is the newest node, say. */
kest_status kest_builder_push(kest_builder *b, kest_node *node);
/* The same nodes in the same order, broken ones too. `out` needs no kest_builder_init; untouched on failure. */
kest_status kest_builder_copy(const kest_builder *b, kest_builder *out);
kest_node *kest_builder_find(const kest_builder *b, const uint8_t hash[KEST_HASH_LEN]);
/* The nodes that no other node names as a parent; *out (kest_free) holds borrowed pointers sorted by hash. */
kest_status kest_builder_tips(const kest_builder *b, kest_node ***out, size_t *count);
/* Index of the first broken node, or SIZE_MAX. */
size_t kest_builder_broken(const kest_builder *b);

/* --- walking --- */
/* Every ancestor of the tips and the tips, parents before children, each hash once. *out (kest_free) borrows. */
kest_status kest_chain_collect(kest_node *const *tips, size_t ntips, kest_node ***out, size_t *count);
/* How many entries that is; O(1) once counted. */
kest_status kest_chain_count(kest_node *const *tips, size_t ntips, size_t *count);
/* The tips of several passports as one: without duplicates and without those that another one descends from,
 * sorted by hash. *out (kest_free) borrows. */
kest_status kest_chain_merge(kest_node *const *tips, size_t ntips, kest_node ***out, size_t *count);

#endif
