#include "gate_session.h"

#include "alloc.h"
#include "gate_text.h"

#include <string.h>

enum { SWEEP_EACH_CALL = 2 };
#define DAY_NS (INT64_C(86400) * 1000000000)
#define REVOKED_NS (30 * DAY_NS)

typedef struct session {
    kest_gate_record head;
    int64_t started, seen; /* steady */
    uint64_t actions;
    kest_gate_ip ip;
    kest_gate_geo geo;
    bool has_device;
    uint8_t device[KEST_GATE_KEY_LEN];
} session;

typedef struct revocation {
    kest_gate_record head;
    int64_t since;
} revocation;

struct kest_gate_sessions {
    kest_gate_table open, revoked;
    int64_t ttl, latest;
    size_t wide; /* invalidated principals and roles; without any, nothing is looked up for them */
};

kest_status kest_gate_sessions_new(uint32_t limit, int64_t ttl_ns, kest_gate_sessions **out)
{
    kest_gate_sessions *s = kest_calloc(1, sizeof *s);

    if (!s)
        return KEST_E_NOMEM;
    kest_gate_table_init(&s->open, sizeof(session), limit);
    kest_gate_table_init(&s->revoked, sizeof(revocation), limit);
    s->ttl = ttl_ns;
    s->latest = INT64_MIN;
    *out = s;
    return KEST_OK;
}

void kest_gate_sessions_free(kest_gate_sessions *s)
{
    if (!s)
        return;
    kest_gate_table_free(&s->open);
    kest_gate_table_free(&s->revoked);
    kest_free(s);
}

static void key_of(kest_gate_target target, kest_str id, uint8_t key[KEST_GATE_KEY_LEN])
{
    uint8_t parts[2][KEST_GATE_KEY_LEN] = {{(uint8_t)target}};

    kest_gate_name(id, parts[1]);
    kest_gate_join((const uint8_t (*)[KEST_GATE_KEY_LEN])parts, 2, key);
}

static int64_t steady(kest_gate_sessions *s, int64_t now)
{
    if (now > s->latest)
        s->latest = now;
    return s->latest;
}

bool kest_gate_sessions_invalidated(const kest_gate_sessions *s, kest_gate_target target, kest_str id)
{
    uint8_t key[KEST_GATE_KEY_LEN];

    if (!s->revoked.count || (target != KEST_TARGET_SESSION && !s->wide))
        return false;
    key_of(target, id, key);
    return kest_gate_table_find(&s->revoked, key) != NULL;
}

static uint8_t revoked(const kest_gate_sessions *s, const kest_gate_context *ctx)
{
    if (ctx->has_session && kest_gate_sessions_invalidated(s, KEST_TARGET_SESSION, ctx->session))
        return KEST_TARGET_SESSION;
    if (!s->wide)
        return 0;
    if (kest_gate_sessions_invalidated(s, KEST_TARGET_PRINCIPAL, ctx->principal))
        return KEST_TARGET_PRINCIPAL;
    for (size_t i = 0; i < ctx->nroles; i++)
        if (kest_gate_sessions_invalidated(s, KEST_TARGET_ROLE, ctx->roles[i]))
            return KEST_TARGET_ROLE;
    return 0;
}

void kest_gate_sessions_look(kest_gate_sessions *s, const kest_gate_context *ctx, kest_gate_time now, kest_gate_session *out)
{
    const int64_t at = steady(s, now.steady_ns);
    uint8_t key[KEST_GATE_KEY_LEN];
    const session *found;

    *out = (kest_gate_session){.revoked = revoked(s, ctx)};
    if (!ctx->has_session)
        return;
    key_of(KEST_TARGET_SESSION, ctx->session, key);
    found = kest_gate_table_find(&s->open, key);
    if (found && at - found->seen >= s->ttl)
        found = NULL;
    if (!found) {
        (void)kest_gate_sessions_sweep(s, now, SWEEP_EACH_CALL);
        out->full = s->open.count >= s->open.limit;
        return;
    }
    out->known = true;
    out->age_ns = at - found->started;
    out->actions = found->actions;
    out->ip = found->ip;
    out->geo = found->geo;
    out->has_device = found->has_device;
    memcpy(out->device, found->device, sizeof out->device);
}

/* Where and when it began, as far as the context says. */
static void begin(session *found, const kest_gate_context *ctx, kest_gate_time now, int64_t at)
{
    int64_t age = ctx->has_started ? now.wall_ns / 1000000000 - ctx->started_at : 0;

    age = age < 0 ? 0 : age > INT64_C(4000000000) ? INT64_C(4000000000) : age;
    found->started = at - age * 1000000000;
    found->actions = 0;
    found->ip = ctx->origin_ip.known ? ctx->origin_ip : ctx->ip;
    found->geo = ctx->origin_geo.known ? ctx->origin_geo : ctx->geo;
    found->has_device = ctx->has_origin_device || ctx->has_device;
    if (found->has_device)
        kest_gate_name(ctx->has_origin_device ? ctx->origin_device : ctx->device, found->device);
}

/* What the first action did not say, a later one can. */
static void complete(session *found, const kest_gate_context *ctx)
{
    if (!found->ip.known)
        found->ip = ctx->ip;
    if (!found->geo.known)
        found->geo = ctx->geo;
    if (!found->has_device && ctx->has_device) {
        found->has_device = true;
        kest_gate_name(ctx->device, found->device);
    }
}

kest_status kest_gate_sessions_permitted(kest_gate_sessions *s, const kest_gate_context *ctx, kest_gate_time now, bool count)
{
    const int64_t at = steady(s, now.steady_ns);
    uint8_t key[KEST_GATE_KEY_LEN];
    session *found;
    kest_status st;

    if (!ctx->has_session)
        return KEST_OK;
    key_of(KEST_TARGET_SESSION, ctx->session, key);
    found = kest_gate_table_find(&s->open, key);
    if (found && at - found->seen < s->ttl) {
        complete(found, ctx);
        kest_gate_table_touch(&s->open, found);
    } else {
        if (found)
            kest_gate_table_touch(&s->open, found);
        else if ((st = kest_gate_table_insert(&s->open, key, &found)) != KEST_OK)
            return st;
        begin(found, ctx, now, at);
    }
    found->seen = at;
    found->actions += count;
    (void)kest_gate_sessions_sweep(s, now, SWEEP_EACH_CALL);
    return KEST_OK;
}

void kest_gate_sessions_undo(kest_gate_sessions *s, const kest_gate_context *ctx)
{
    uint8_t key[KEST_GATE_KEY_LEN];
    session *found;

    if (!ctx->has_session)
        return;
    key_of(KEST_TARGET_SESSION, ctx->session, key);
    found = kest_gate_table_find(&s->open, key);
    if (found && found->actions)
        found->actions--;
}

static void drop_revocation(kest_gate_sessions *s, revocation *r)
{
    s->wide -= r->head.total != KEST_TARGET_SESSION; /* `total` holds the kind of target */
    kest_gate_table_remove(&s->revoked, r);
}

kest_status kest_gate_sessions_invalidate(kest_gate_sessions *s, kest_gate_target target, kest_str id, kest_gate_time now)
{
    const int64_t at = steady(s, now.steady_ns);
    uint8_t key[KEST_GATE_KEY_LEN];
    revocation *r;
    kest_status st;

    key_of(target, id, key);
    r = kest_gate_table_find(&s->revoked, key);
    if (r) {
        r->since = at;
        kest_gate_table_touch(&s->revoked, r);
        return KEST_OK;
    }
    if ((st = kest_gate_table_insert(&s->revoked, key, &r)) != KEST_OK)
        return st;
    r->head.total = (uint32_t)target;
    r->since = at;
    s->wide += target != KEST_TARGET_SESSION;
    return KEST_OK;
}

bool kest_gate_sessions_reinstate(kest_gate_sessions *s, kest_gate_target target, kest_str id)
{
    uint8_t key[KEST_GATE_KEY_LEN];
    revocation *r;

    key_of(target, id, key);
    r = kest_gate_table_find(&s->revoked, key);
    if (r)
        drop_revocation(s, r);
    return r != NULL;
}

size_t kest_gate_sessions_sweep(kest_gate_sessions *s, kest_gate_time now, size_t budget)
{
    const int64_t at = steady(s, now.steady_ns);
    size_t gone = 0;
    revocation *r;
    session *old;

    for (; gone < budget && (old = kest_gate_table_oldest(&s->open)) != NULL && at - old->seen >= s->ttl; gone++)
        kest_gate_table_remove(&s->open, old);
    for (; gone < budget && (r = kest_gate_table_oldest(&s->revoked)) != NULL && at - r->since >= REVOKED_NS; gone++)
        drop_revocation(s, r);
    return gone;
}

size_t kest_gate_sessions_count(const kest_gate_sessions *s)
{
    return s->open.count;
}

size_t kest_gate_sessions_invalidations(const kest_gate_sessions *s)
{
    return s->revoked.count;
}

size_t kest_gate_sessions_bytes(const kest_gate_sessions *s)
{
    return sizeof *s + kest_gate_table_bytes(&s->open) + kest_gate_table_bytes(&s->revoked);
}
