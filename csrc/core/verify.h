/* verify.h: whose keys are believed, and the verification of a whole passport with them. */
#ifndef KEST_VERIFY_H
#define KEST_VERIFY_H

#include "chain.h"
#include "crypto.h"

/* What one principal may do with one key. Times are Unix milliseconds, inclusive. */
typedef struct kest_grant {
    int64_t not_before, not_after;
    uint8_t max_trust;  /* what its roots, and its raises, may claim */
    bool may_sanitise;  /* whether its overrides and taint removals count */
} kest_grant;

/* Principals and their keys: immutable once shared, reference counted, so that a verification without the
 * interpreter's lock keeps the ring that it began with. */
typedef struct kest_keyring kest_keyring;
kest_status kest_keyring_new(kest_keyring **out);
/* Only before the ring is shared. The ring keeps its own reference to `key`. */
kest_status kest_keyring_add(kest_keyring *ring, const uint8_t *principal, size_t len, kest_pubkey *key,
                             const kest_grant *grant);
kest_keyring *kest_keyring_ref(kest_keyring *ring);
void kest_keyring_unref(kest_keyring *ring);
uint64_t kest_keyring_id(const kest_keyring *ring); /* of its own in this process; never KEST_SIGNED_HERE or 0 */
size_t kest_keyring_count(const kest_keyring *ring); /* keys, not principals */

typedef struct kest_verdict {
    kest_status status; /* KEST_OK: every entry verifies */
    size_t index;       /* the first entry that does not */
} kest_verdict;

/* Verifies nodes in the given order. Links, trust and taints were checked when the nodes were made; this looks at
 * what was found then, at the principal's rights, and at every signature. `threads` of 1 stays on this thread. */
void kest_verify_nodes(kest_node *const *nodes, size_t count, const kest_keyring *ring, unsigned threads,
                       kest_verdict *out);

#endif
