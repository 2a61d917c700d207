/* gate_types.h: the terms of the gate: what a policy is asked about, and how it answers.
 *
 * Conditions are three-valued (Kleene): UNKNOWN is a parameter that is missing, not a finite number or of the wrong type, a
 * resource that is not there, a trust score that nobody stated. A permit needs TRUE; a refusal fires on TRUE and UNKNOWN.
 */
#ifndef KEST_GATE_TYPES_H
#define KEST_GATE_TYPES_H

#include "shared.h"

typedef enum kest_tri { KEST_FALSE = 0, KEST_TRUE = 1, KEST_UNKNOWN = 2 } kest_tri;

enum {
    KEST_GATE_KINDS = 5,        /* user, agent, service, scheduler, external */
    KEST_GATE_MAX_NESTING = 16, /* of any, all, not */
    KEST_GATE_KEY_LEN = 16,     /* keyed hashes that stand for names */
    KEST_GATE_MAX_TEXT = 65536  /* bytes of one string in a context */
};

/* A parameter, or an item of a list. A number lies in [lo, hi]: equal, except for an integer that no double equals, which
 * lies between two neighbours. OTHER is everything that no condition accepts: infinities, nested values, null. */
typedef enum kest_gate_value_kind {
    KEST_VALUE_OTHER = 0,
    KEST_VALUE_NUMBER = 1,
    KEST_VALUE_TEXT = 2,
    KEST_VALUE_BOOL = 4,
    KEST_VALUE_LIST = 8
} kest_gate_value_kind;

typedef struct kest_gate_value kest_gate_value;
struct kest_gate_value {
    kest_gate_value_kind kind;
    bool boolean;
    double lo, hi;
    kest_str text;
    const kest_gate_value *items; /* of a list; no lists among them */
    size_t nitems;
};

typedef struct kest_gate_param {
    kest_str name;
    kest_gate_value value;
} kest_gate_param;

typedef struct kest_gate_ip {
    bool known;
    uint8_t bytes[16]; /* IPv4 as IPv4-mapped IPv6, so that both spellings are one address */
} kest_gate_ip;

typedef struct kest_gate_geo {
    bool known, placed; /* placed: latitude and longitude are there */
    uint8_t country[2]; /* upper case */
    double latitude, longitude; /* degrees */
} kest_gate_geo;

/* Everything an evaluation is asked about. Texts belong to the caller. */
typedef struct kest_gate_context {
    kest_str principal, action, session;
    uint8_t kind;
    bool has_resource; /* there is one, and it stays within its root after normalisation */
    bool has_session;
    kest_str resource; /* normalised */
    const kest_str *roles;
    size_t nroles;
    const kest_gate_param *params;
    size_t nparams;
    kest_gate_ip ip, origin_ip;
    kest_gate_geo geo, origin_geo;
    bool has_device, has_origin_device;
    kest_str device, origin_device;
    bool has_started;
    int64_t started_at; /* Unix seconds */
    uint64_t action_count;
    int trust; /* 0 to 100, or -1: nobody said */
    bool has_taints;
    const kest_str *taints; /* any order */
    size_t ntaints;
} kest_gate_context;

/* What a session store knows of the context's session before this action. */
typedef struct kest_gate_session {
    bool known;       /* it was opened by an earlier action */
    uint8_t revoked;  /* 0, or which of session (1), principal (2), role (3) was invalidated */
    bool full;        /* there is no room for another session */
    int64_t age_ns;
    uint64_t actions; /* permitted so far */
    kest_gate_ip ip;
    kest_gate_geo geo;
    bool has_device;
    uint8_t device[KEST_GATE_KEY_LEN]; /* kest_gate_name of the fingerprint */
} kest_gate_session;

typedef struct kest_gate_time {
    int64_t wall_ns;  /* Unix time */
    int64_t steady_ns; /* a clock that is never set */
} kest_gate_time;

#endif
