/* py_gate.h: the gate's types, for the files that make them. All of them live under the interpreter's lock: evaluation takes
 * about a microsecond and never lets go of it, so tables and scratch need no lock of their own. */
#ifndef KEST_PY_GATE_H
#define KEST_PY_GATE_H

#include "../core/gate_limits.h"
#include "../core/gate_session.h"
#include "state.h"

enum {
    KEST_GATE_ARGS = 17,
    KEST_GATE_ROOM = 4,
    KEST_GATE_MAX_PARAMS = 256,
    KEST_GATE_MAX_RESOURCE = 8192, /* bytes */
    KEST_GATE_MAX_NAMES = 256,  /* roles, or taints */
    KEST_GATE_MAX_ITEMS = 1024, /* of one list, and of all lists together */
    KEST_GATE_ALLOWANCE = 65536 /* characters of all texts together; an item of a list counts as 64 */
};

/* Where the arguments of ActionContext stand. */
enum {
    ARG_PRINCIPAL, ARG_KIND, ARG_ACTION, ARG_ROLES, ARG_RESOURCE, ARG_PARAMS, ARG_IP, ARG_SESSION, ARG_GEO, ARG_ORIGIN_GEO,
    ARG_ORIGIN_IP, ARG_DEVICE, ARG_ORIGIN_DEVICE, ARG_STARTED, ARG_COUNT, ARG_TRUST, ARG_TAINTS
};

/* What a parameter keeps alive. */
typedef struct kest_held_param {
    PyObject *name, *value; /* value: what .params shows; owns the texts of lists as well */
    kest_gate_value *items;
} kest_held_param;

typedef struct ContextObject {
    PyObject_HEAD
    kest_gate_context ctx;
    PyObject *given[KEST_GATE_ARGS]; /* what getters show, and what texts point into; NULL: not given */
    PyObject *devices[2]; /* the texts of device and origin_device */
    kest_gate_param *params;         /* room or heap, as many as held */
    kest_held_param *held;
    size_t params_room;
    kest_gate_param param_room[KEST_GATE_ROOM];
    kest_held_param held_room[KEST_GATE_ROOM];
    kest_str *names; /* roles, then taints: &names_room or heap */
    kest_str names_room[KEST_GATE_ROOM];
    size_t allowance; /* what is left of it: making and evaluating a context stays quick whatever is in it */
    uint8_t *path; /* the normalised resource where it differs */
    uint8_t uuid[KEST_UUID_LEN];
} ContextObject;

typedef struct SetObject {
    PyObject_HEAD
    kest_gate_set *set;
    bool busy; /* somebody is adding: others may run in between */
    PyObject *names; /* list, then tuple, of the policies' names */
    PyObject *digest; /* of the policies, as the one who compiled them said, or NULL */
} SetObject;

typedef struct RatesObject {
    PyObject_HEAD
    kest_gate_rates *rates;
} RatesObject;

typedef struct SessionsObject {
    PyObject_HEAD
    kest_gate_sessions *sessions;
} SessionsObject;

typedef struct VerdictObject {
    PyObject_HEAD
    ContextObject *ctx;
    SetObject *set;
    PyObject *settings; /* the gate's, for the words of reasons */
    PyObject *observed; /* would-be Verdict, or NULL */
    PyObject *permit, *reason; /* once asked for, or put in place */
    PyObject *evaluator, *code; /* override what follows from `outcome` */
    kest_gate_outcome outcome;
    kest_gate_verdict kind;
    uint32_t *limits; /* that the permit was counted against, or NULL */
    size_t nlimits;
    int64_t issued, expires; /* Unix seconds */
    uint8_t token[KEST_UUID_LEN], evaluation[KEST_UUID_LEN];
} VerdictObject;

extern PyType_Spec kest_context_spec, kest_set_spec, kest_rates_spec, kest_sessions_spec, kest_verdict_spec, kest_gate_spec;
extern PyMethodDef kest_gate_methods[];

/* Exact value of a constructor's kind argument; -1 with an exception set. */
int kest_gate_kind(kest_state *state, PyObject *text);
extern const char *const kest_gate_kinds[KEST_GATE_KINDS];
/* A str as UTF-8; -1 and GateInputError for lone surrogates and more than 64 KiB. */
int kest_gate_text(kest_state *state, PyObject *text, const char *what, kest_str *out);
/* The same, out of a context's allowance. */
int kest_gate_spend(kest_state *state, PyObject *text, const char *what, kest_str *out, size_t *allowance);
/* Fills in a parameter's value; -1 with an exception set. */
int kest_gate_read_param(kest_state *state, PyObject *name, PyObject *value, kest_gate_param *param, kest_held_param *held,
                         size_t *allowance);
void kest_gate_drop_param(kest_held_param *held);
/* py_gate_where.c: fill in a context; -1 with an exception set. */
int kest_gate_take_ip(kest_state *state, PyObject *given, const char *what, kest_gate_ip *out);
int kest_gate_take_device(kest_state *state, PyObject *given, const char *what, PyObject **held, kest_str *out);
int kest_gate_take_session(kest_state *state, ContextObject *self, PyObject *given);
int kest_gate_take_resource(kest_state *state, ContextObject *self, PyObject *given);
/* A GeoLocation's facts; -1 with an exception set. */
int kest_gate_read_geo(kest_state *state, PyObject *given, const char *what, kest_gate_geo *out);
PyObject *kest_gate_input_error(kest_state *state, const char *format, ...);
kest_gate_time kest_gate_now(void);
int kest_gate_context_ready(PyTypeObject *type); /* after the type was made */
/* A verdict at `now`, whose permit is good for `ttl` seconds. */
PyObject *kest_verdict_new(kest_state *state, ContextObject *ctx, SetObject *set, PyObject *settings, const kest_gate_outcome *outcome,
                           int64_t now, int64_t ttl, bool observing);

#endif
