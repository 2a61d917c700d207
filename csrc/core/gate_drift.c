/* gate_drift.c: has the session changed hands? Addresses, places, age, device and behaviour against how it began: as the
 * context says it began, and as the gate saw it begin. */
#include "gate_decide.h"

#include <string.h>

static bool invalidate(kest_gate_outcome *out, kest_gate_reason why, double number)
{
    out->verdict = KEST_INVALIDATE;
    out->why = why;
    out->number = number;
    return false;
}

/* One pair of addresses: false when it decides; *near when there is only reason for a warning. */
static bool same_place(const kest_gate_case *c, const kest_gate_ip *ip, const kest_gate_geo *geo, bool *near, kest_gate_outcome *out)
{
    double km;

    if (!ip->known || !c->ctx->ip.known || memcmp(ip->bytes, c->ctx->ip.bytes, sizeof ip->bytes) == 0)
        return true;
    if (c->rules->max_km < 0)
        return invalidate(out, KEST_WHY_IP, 0);
    if (!geo->placed || !c->ctx->geo.placed)
        return invalidate(out, KEST_WHY_IP_UNVERIFIABLE, 0);
    km = kest_gate_distance(geo, &c->ctx->geo);
    if (!(km <= c->rules->max_km))
        return invalidate(out, KEST_WHY_IP_FAR, km);
    *near = true;
    return true;
}

static bool same_device(const kest_gate_case *c)
{
    uint8_t name[KEST_GATE_KEY_LEN];

    if (!c->ctx->has_device)
        return true;
    if (c->ctx->has_origin_device && kest_str_compare(c->ctx->device, c->ctx->origin_device) != 0)
        return false;
    if (!c->session->known || !c->session->has_device)
        return true;
    kest_gate_name(c->ctx->device, name);
    return memcmp(name, c->session->device, sizeof name) == 0;
}

bool kest_gate_no_drift(const kest_gate_case *c, kest_gate_outcome *out)
{
    unsigned warnings = 0;
    uint64_t minutes, rate;
    bool near = false;

    if (!same_place(c, &c->ctx->origin_ip, &c->ctx->origin_geo, &near, out) ||
        (c->session->known && !same_place(c, &c->session->ip, &c->session->geo, &near, out)))
        return false;
    warnings += near;
    if (!c->age_known)
        return invalidate(out, KEST_WHY_AGE_FUTURE, (double)-c->age_s);
    if (c->age_s > KEST_GATE_AGE_MAX)
        return invalidate(out, KEST_WHY_AGE, (double)c->age_s);
    warnings += c->age_s > KEST_GATE_AGE_WARNS;
    if (!same_device(c))
        return invalidate(out, KEST_WHY_DEVICE, 0);
    minutes = c->age_s >= 60 ? (uint64_t)c->age_s / 60 : 1;
    rate = c->actions / minutes;
    if (rate > KEST_GATE_RATE_MAX)
        return invalidate(out, KEST_WHY_BEHAVIOUR, (double)rate);
    warnings += rate > KEST_GATE_RATE_WARNS;
    if (warnings < KEST_GATE_WARNINGS)
        return true;
    out->verdict = KEST_REFUSE;
    out->why = KEST_WHY_WARNINGS;
    out->number = warnings;
    return false;
}
