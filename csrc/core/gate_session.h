/* gate_session.h: the sessions that a gate owns: when they began and from where, how much they did, and what was invalidated.
 *
 * A session is opened by its first permitted action. It is forgotten when nothing was seen of it for the time to live;
 * invalidations of sessions, principals and roles are kept for at least a month. Bounded: at the limit no further session is
 * opened, and the gate refuses. Not thread-safe.
 */
#ifndef KEST_GATE_SESSION_H
#define KEST_GATE_SESSION_H

#include "gate_table.h"

typedef enum kest_gate_target { KEST_TARGET_SESSION = 1, KEST_TARGET_PRINCIPAL = 2, KEST_TARGET_ROLE = 3 } kest_gate_target;

typedef struct kest_gate_sessions kest_gate_sessions;

kest_status kest_gate_sessions_new(uint32_t limit, int64_t ttl_ns, kest_gate_sessions **out);
void kest_gate_sessions_free(kest_gate_sessions *sessions);
/* What is known of the context's session; also whether its principal or one of its roles was invalidated. */
void kest_gate_sessions_look(kest_gate_sessions *sessions, const kest_gate_context *ctx, kest_gate_time now, kest_gate_session *out);
/* An action of the context was permitted: opens its session if need be, and counts it unless `count` is false. */
kest_status kest_gate_sessions_permitted(kest_gate_sessions *sessions, const kest_gate_context *ctx, kest_gate_time now, bool count);
/* Takes the count of one action back: it was refused after all. */
void kest_gate_sessions_undo(kest_gate_sessions *sessions, const kest_gate_context *ctx);
/* KEST_E_LIMIT: the oldest invalidation would have to go. */
kest_status kest_gate_sessions_invalidate(kest_gate_sessions *sessions, kest_gate_target target, kest_str id, kest_gate_time now);
bool kest_gate_sessions_invalidated(const kest_gate_sessions *sessions, kest_gate_target target, kest_str id);
bool kest_gate_sessions_reinstate(kest_gate_sessions *sessions, kest_gate_target target, kest_str id); /* whether it was invalidated */
size_t kest_gate_sessions_sweep(kest_gate_sessions *sessions, kest_gate_time now, size_t budget);
size_t kest_gate_sessions_count(const kest_gate_sessions *sessions);
size_t kest_gate_sessions_invalidations(const kest_gate_sessions *sessions);
size_t kest_gate_sessions_bytes(const kest_gate_sessions *sessions);

#endif
