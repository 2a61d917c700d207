/* samples.h: small signed chains and the ring that verifies them. Include from one file of each program. */
#ifndef KEST_TESTS_SAMPLES_H
#define KEST_TESTS_SAMPLES_H

#include "alloc.h"
#include "chain.h"
#include "trust.h"
#include "uuid7.h"
#include "verify.h"

#include <stdlib.h>
#include <string.h>

#define CONTEXT                                                                                                \
    "{\"app_policies\":[],\"deviations\":[],\"enterprise_policies\":[],\"function_policies\":[\"p\"],\"platform_policies\":[]}"

static const uint8_t seed[KEST_SEED_LEN] = {1, 2, 3};

static kest_str str(const char *text)
{
    return (kest_str){(const uint8_t *)text, strlen(text)};
}

/* What one entry of these tests is made of. */
typedef struct sample {
    const char *principal;
    uint8_t trust;
    const char *added, *removed; /* at most one taint each */
    const char *override;        /* the label's text, or NULL */
} sample;

/* Signs an entry over `parents`; NULL on failure. */
static kest_node *sign(const sample *s, kest_node *const *parents, size_t nparents)
{
    kest_str added = str(s->added ? s->added : ""), removed = str(s->removed ? s->removed : "");
    kest_label labels[2] = {{str("principal"), str(s->principal)}, {str(KEST_LABEL_OVERRIDE), str(s->override ? s->override : "")}};
    uint8_t id[KEST_UUID_LEN], hashes[8 * KEST_HASH_LEN];
    kest_taints *sets[8], *taints = NULL;
    kest_text *principal = NULL;
    kest_seckey *key = NULL;
    kest_node *node = NULL;
    kest_buf payload, header;
    kest_entry e = {.operation = str("op"), .classification = str("system"), .input_hash = str(""), .entry_id = {id, sizeof id},
                    .trust = s->trust, .labels = labels, .nlabels = s->override ? 2 : 1, .added = &added, .removed = &removed,
                    .nadded = s->added != NULL, .nremoved = s->removed != NULL, .policy_context = str(CONTEXT),
                    .parents = hashes, .nparents = nparents};
    bool really = false, ok;

    kest_buf_init(&payload);
    kest_buf_init(&header);
    for (size_t i = 0; i < nparents; i++) {
        memcpy(hashes + i * KEST_HASH_LEN, parents[i]->hash, KEST_HASH_LEN);
        sets[i] = parents[i]->taints;
    }
    kest_uuid7(id, &e.timestamp_ms);
    ok = kest_seckey_new(seed, &key) == KEST_OK &&
         kest_text_new(e.labels[0].value.data, e.labels[0].value.len, &principal) == KEST_OK &&
         kest_taints_combine(sets, nparents, e.added, e.nadded, e.removed, e.nremoved, &taints, &really) == KEST_OK &&
         kest_jws_header_write(&header, KEST_ALG_EDDSA, principal->data, principal->len, "JWS") == KEST_OK;
    if (ok) {
        const uint8_t flags = (uint8_t)((s->override ? KEST_NODE_LABELLED : 0) | (really ? KEST_NODE_REMOVES : 0));
        const kest_node_facts facts = {{header.data, header.len}, principal, taints, parents, nparents, e.timestamp_ms, s->trust,
                                       flags, KEST_ALG_EDDSA};

        e.taints = taints->items;
        e.ntaints = taints->count;
        kest_entry_write(&payload, &e);
        ok = payload.status == KEST_OK && kest_node_layout(&facts, (kest_str){payload.data, payload.len}, &node) == KEST_OK &&
             kest_node_sign(node, (kest_str){payload.data, payload.len}, key) == KEST_OK;
    }
    if (!ok) {
        kest_node_unref(node);
        node = NULL;
    }
    kest_buf_free(&payload);
    kest_buf_free(&header);
    kest_taints_unref(taints);
    kest_text_unref(principal);
    kest_seckey_free(key);
    return node;
}

static kest_keyring *ring_for(const char *principal, uint8_t max_trust, bool may_sanitise)
{
    const kest_grant grant = {0, INT64_MAX, max_trust, may_sanitise};
    uint8_t raw[KEST_PK_LEN];
    kest_keyring *ring = NULL;
    kest_pubkey *key = NULL;
    kest_seckey *secret = NULL;

    if (kest_seckey_new(seed, &secret) == KEST_OK) {
        kest_seckey_public(secret, raw);
        if (kest_pubkey_ed25519(raw, sizeof raw, &key) == KEST_OK && kest_keyring_new(&ring) == KEST_OK &&
            kest_keyring_add(ring, (const uint8_t *)principal, strlen(principal), key, &grant) != KEST_OK) {
            kest_keyring_unref(ring);
            ring = NULL;
        }
    }
    kest_pubkey_unref(key);
    kest_seckey_free(secret);
    CHECK(!ring || kest_keyring_count(ring) == 1);
    return ring;
}

/* A chain of n entries; the nodes own each other, *tip the last. */
static kest_node *chain(size_t n)
{
    const sample s = {"spiffe://t/a", 100, NULL, NULL, NULL};
    kest_node *tip = NULL;

    while (n--) {
        kest_node *next = sign(&s, &tip, tip ? 1 : 0);

        kest_node_unref(tip);
        tip = next;
        if (!tip)
            return NULL;
    }
    return tip;
}

#endif
