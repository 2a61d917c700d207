/* seen.h: hashes of entries that are known to verify, so that a chain that grew is not verified from the start again.
 *
 * An entry's hash covers its text, signature included, and the hashes of its parents; whether it verifies depends on
 * that and on the keys. One set belongs to one key ring. Bounded: when the newer half is full, the older one is
 * forgotten. Not thread-safe: callers hold a lock. */
#ifndef KEST_SEEN_H
#define KEST_SEEN_H

#include "kest.h"

typedef struct kest_seen kest_seen;
/* At most `capacity` hashes (2 to 2^24) are remembered; at least half as many of the latest. */
kest_status kest_seen_new(size_t capacity, kest_seen **out);
void kest_seen_free(kest_seen *seen);
bool kest_seen_has(const kest_seen *seen, const uint8_t hash[KEST_HASH_LEN]);
void kest_seen_add(kest_seen *seen, const uint8_t hash[KEST_HASH_LEN]);
size_t kest_seen_count(const kest_seen *seen);

#endif
