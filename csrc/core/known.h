/* known.h: entries that are known to verify, so that a chain that grew is neither read nor verified from the start again.
 *
 * An entry's text, signature included, fixes its parents' hashes; whether it verifies depends on that and on the keys. One
 * set belongs to one key ring. Bounded in entries and in bytes: when the newer half is full, the older one is forgotten; what
 * is found moves to the newer one. Not thread-safe: callers hold a lock. */
#ifndef KEST_KNOWN_H
#define KEST_KNOWN_H

#include "chain.h"
#include "pack.h"

typedef struct kest_known kest_known;
/* At most `capacity` entries (2 to 2^24) of together `max_bytes` are remembered; at least half as much of the latest. */
kest_status kest_known_new(size_t capacity, size_t max_bytes, kest_known **out);
void kest_known_free(kest_known *known);
size_t kest_known_count(const kest_known *known);
/* Whether an entry with this very text is known. A broken node is not: what is wrong with it is its place. */
bool kest_known_has(const kest_known *known, const kest_node *node);
void kest_known_add(kest_known *known, kest_node *node);

/* --- reading what begins with known entries --- */
/* `text` is a JSON array of JWS strings as Kest writes it: appends the known entries that it begins with to `b`, up to
 * `max_entries`, and says how many bytes they take. 0: none, or not written like that. */
kest_status kest_known_prefix(kest_known *known, kest_str text, size_t max_entries, kest_builder *b, size_t *taken);
/* Reads such a text after its first `taken` bytes (from kest_known_prefix). Otherwise as kest_unpack_json. */
kest_status kest_known_rest(kest_str text, size_t taken, size_t max_entries, kest_builder *b, size_t *error_at);

/* A dense passport that verified, and its entries. Takes `dense` over; false when it is too large to keep, or memory short. */
bool kest_known_keep(kest_known *known, kest_dense *dense, const kest_builder *entries);
/* Puts the entries of the longest such passport that `dense` begins with into `b`, which is empty, and lets it continue behind them. */
kest_status kest_known_resume(kest_known *known, kest_dense *dense, kest_builder *b);

#endif
