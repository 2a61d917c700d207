/* gate_text.h: patterns, names, resource paths, addresses, and keyed hashes of names. */
#ifndef KEST_GATE_TEXT_H
#define KEST_GATE_TEXT_H

#include "gate_types.h"

#include <string.h>

/* `*` alone matches everything; a trailing `*` any ending; a trailing `.*` at least one more character after the dot. */
typedef enum kest_gate_pattern_mode {
    KEST_PATTERN_EXACT = 0,
    KEST_PATTERN_PREFIX = 1,  /* text is what stands before the star */
    KEST_PATTERN_BEYOND = 2,  /* text ends with the dot, and something must follow */
    KEST_PATTERN_ALL = 3
} kest_gate_pattern_mode;

bool kest_gate_matches(kest_gate_pattern_mode mode, kest_str pattern, kest_str text);

/* Equal: lengths first, since that tells most names apart. */
static inline bool kest_gate_same(kest_str a, kest_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* The parameter of that name, or NULL. */
const kest_gate_value *kest_gate_find_param(const kest_gate_context *ctx, kest_str name);

/* True when `path` is already what kest_gate_path would make of it. */
bool kest_gate_path_is_normal(kest_str path);
/* Normalises a resource: percent-encoded unreserved characters decoded (RFC 3986, section 6.2.2.2), backslashes as
 * slashes, repeated slashes as one, "." and ".." resolved, no slash at the end. `out` has room for path.len bytes.
 * False when ".." leads out of the root: such a path names nothing. */
bool kest_gate_path(kest_str path, uint8_t *out, size_t *len);

/* An IPv4 or IPv6 literal; false for anything else. */
bool kest_gate_ip_read(kest_str text, kest_gate_ip *out);

/* Kilometres on a sphere of radius 6371.0 (haversine). Both must be placed. */
double kest_gate_distance(const kest_gate_geo *a, const kest_gate_geo *b);

/* A 128-bit hash of a name under a key that this process drew: nobody outside can make two names collide.
 * kest_gate_join hashes several hashes, so that no concatenation of names is ambiguous. */
void kest_gate_name(kest_str name, uint8_t out[KEST_GATE_KEY_LEN]);
void kest_gate_join(const uint8_t (*parts)[KEST_GATE_KEY_LEN], size_t count, uint8_t out[KEST_GATE_KEY_LEN]);

#endif
