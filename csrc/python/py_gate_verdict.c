/* py_gate_verdict.c: Verdict. Reasons and permits are made when somebody asks for them. */
#include "py_gate.h"

#include "../core/alloc.h"
#include "../core/uuid7.h"

/* Evaluator and code for each reason; what the reason is called where kest.gate.reasons words it. */
static const struct {
    const char *evaluator, *code, *name;
} reasons[KEST_WHY_COUNT] = {
    [KEST_WHY_PERMITTED] = {NULL, NULL, "permitted"},
    [KEST_WHY_REVOKED] = {"gate", "SESSION_INVALID", "revoked"},
    [KEST_WHY_SESSIONS_FULL] = {"gate", "SESSION_INVALID", "sessions_full"},
    [KEST_WHY_NO_POLICY] = {"policy", "NO_POLICY_MATCH", "no_policy"},
    [KEST_WHY_POLICY] = {"policy", "POLICY_DENIED", "policy"},
    [KEST_WHY_RATE] = {"policy", "RATE_LIMIT_EXCEEDED", "rate"},
    [KEST_WHY_RATE_BACKEND] = {"policy", "POLICY_DENIED", "rate_backend"},
    [KEST_WHY_IP] = {"drift", NULL, "ip"},
    [KEST_WHY_IP_FAR] = {"drift", NULL, "ip_far"},
    [KEST_WHY_IP_UNVERIFIABLE] = {"drift", NULL, "ip_unverifiable"},
    [KEST_WHY_AGE] = {"drift", NULL, "age"},
    [KEST_WHY_AGE_FUTURE] = {"drift", NULL, "age_future"},
    [KEST_WHY_DEVICE] = {"drift", NULL, "device"},
    [KEST_WHY_BEHAVIOUR] = {"drift", NULL, "behaviour"},
    [KEST_WHY_WARNINGS] = {"drift", "DRIFT_DETECTED", "warnings"},
    [KEST_WHY_INVARIANT] = {"invariants", "INVARIANT_VIOLATION", "invariant"},
    [KEST_WHY_SESSION_CAP] = {"invariants", "INVARIANT_VIOLATION", "session_cap"},
};

static const char *const kinds[] = {"permit", "refuse", "invalidate"};

PyObject *kest_verdict_new(kest_state *state, ContextObject *ctx, SetObject *set, PyObject *settings, const kest_gate_outcome *outcome,
                           int64_t now, int64_t ttl, bool observing)
{
    VerdictObject *self = (VerdictObject *)state->verdict_type->tp_alloc(state->verdict_type, 0);

    if (!self)
        return NULL;
    self->ctx = (ContextObject *)Py_NewRef(ctx);
    self->set = (SetObject *)Py_NewRef(set);
    self->settings = Py_NewRef(settings);
    self->outcome = *outcome;
    self->kind = outcome->verdict;
    self->issued = now;
    self->expires = now + ttl;
    kest_uuid7(self->evaluation, NULL);
    if (self->kind == KEST_PERMIT)
        kest_uuid7(self->token, NULL);
    if (observing) { /* what would have been becomes a verdict of its own behind a permit */
        const kest_gate_outcome permit = {KEST_PERMIT, KEST_WHY_PERMITTED, outcome->policy, 0, 0};
        VerdictObject *shown = (VerdictObject *)kest_verdict_new(state, ctx, set, settings, &permit, now, ttl, false);

        if (shown)
            shown->observed = (PyObject *)self;
        else
            Py_DECREF(self);
        return (PyObject *)shown;
    }
    return (PyObject *)self;
}

static void verdict_dealloc(VerdictObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->ctx);
    Py_XDECREF(self->set);
    Py_XDECREF(self->settings);
    Py_XDECREF(self->observed);
    Py_XDECREF(self->permit);
    Py_XDECREF(self->reason);
    Py_XDECREF(self->evaluator);
    Py_XDECREF(self->code);
    kest_free(self->limits);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *text_or_none(const char *text)
{
    return text ? PyUnicode_FromString(text) : Py_NewRef(Py_None);
}

static PyObject *get_kind(VerdictObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(kinds[self->kind]);
}

static PyObject *is_kind(VerdictObject *self, void *kind)
{
    return PyBool_FromLong((uintptr_t)self->kind == (uintptr_t)kind);
}

static PyObject *get_evaluator(VerdictObject *self, void *unused)
{
    (void)unused;
    return self->evaluator ? Py_NewRef(self->evaluator) : text_or_none(reasons[self->outcome.why].evaluator);
}

static PyObject *get_code(VerdictObject *self, void *unused)
{
    (void)unused;
    return self->code ? Py_NewRef(self->code) : text_or_none(reasons[self->outcome.why].code);
}

static PyObject *get_policy(VerdictObject *self, void *unused)
{
    (void)unused;
    if (self->outcome.policy == UINT32_MAX)
        Py_RETURN_NONE;
    return Py_NewRef(PyTuple_GET_ITEM(self->set->names, (Py_ssize_t)self->outcome.policy));
}

static PyObject *get_policy_digest(VerdictObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->set->digest ? self->set->digest : Py_None);
}

/* (name of the reason, number, limit as (most, seconds) or index of the invariant). */
static PyObject *get_facts(VerdictObject *self, void *unused)
{
    const kest_gate_outcome *o = &self->outcome;

    (void)unused;
    if (o->why == KEST_WHY_RATE && o->item < self->set->set->nlimits) {
        const kest_gate_limit *limit = &self->set->set->limits[o->item];

        return Py_BuildValue("sd(IL)", reasons[o->why].name, o->number, (unsigned int)limit->most,
                             (long long)(limit->window_ns / 1000000000));
    }
    return Py_BuildValue("sdI", reasons[o->why].name, o->number, (unsigned int)o->item);
}

static PyObject *get_reason(VerdictObject *self, void *unused)
{
    kest_state *state = kest_state_of((PyObject *)self);

    (void)unused;
    if (self->kind == KEST_PERMIT)
        Py_RETURN_NONE;
    if (!self->reason) {
        if (!state->gate_reason) {
            PyErr_SetString(PyExc_RuntimeError, "import kest.gate first");
            return NULL;
        }
        self->reason = PyObject_CallOneArg(state->gate_reason, (PyObject *)self);
    }
    return Py_XNewRef(self->reason);
}

static PyObject *get_token_id(VerdictObject *self, void *unused)
{
    (void)unused;
    return self->kind == KEST_PERMIT ? PyUnicode_FromStringAndSize((const char *)self->token, KEST_UUID_LEN) : Py_NewRef(Py_None);
}

static PyObject *get_evaluation_id(VerdictObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromStringAndSize((const char *)self->evaluation, KEST_UUID_LEN);
}

static PyObject *get_permit(VerdictObject *self, void *unused)
{
    kest_state *state = kest_state_of((PyObject *)self);

    (void)unused;
    if (self->kind != KEST_PERMIT)
        Py_RETURN_NONE;
    if (!self->permit) {
        if (!state->gate_permit_type) {
            PyErr_SetString(PyExc_RuntimeError, "import kest.gate first");
            return NULL;
        }
        self->permit = PyObject_CallFunction(state->gate_permit_type, "s#s#LLO", (const char *)self->token, (Py_ssize_t)KEST_UUID_LEN,
                                             (const char *)self->evaluation, (Py_ssize_t)KEST_UUID_LEN, (long long)self->issued,
                                             (long long)self->expires, self->ctx->given[ARG_ACTION]);
    }
    return Py_XNewRef(self->permit);
}

static PyObject *get_signature(VerdictObject *self, void *unused)
{
    (void)unused;
    return self->permit ? PyObject_GetAttrString(self->permit, "signature") : Py_NewRef(Py_None);
}

static PyObject *get_observed(VerdictObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->observed ? self->observed : Py_None);
}

static PyObject *get_context(VerdictObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->ctx);
}

static PyObject *get_settings(VerdictObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->settings);
}

static PyObject *verdict_repr(VerdictObject *self)
{
    PyObject *evaluator = get_evaluator(self, NULL), *reason = get_reason(self, NULL), *text = NULL;

    if (evaluator && reason && self->kind == KEST_PERMIT)
        text = PyUnicode_FromFormat("Verdict.Permit(token=%.36s)", (const char *)self->token);
    else if (evaluator && reason && self->kind == KEST_REFUSE)
        text = PyUnicode_FromFormat("Verdict.Refuse(evaluator=%U, reason=%U)", evaluator, reason);
    else if (evaluator && reason)
        text = PyUnicode_FromFormat("Verdict.Invalidate(reason=%U)", reason);
    Py_XDECREF(evaluator);
    Py_XDECREF(reason);
    return text;
}

/* A verdict that is reached like any other: observe mode aside, only the gate makes them. */
static PyObject *verdict_sign(VerdictObject *self, PyObject *permit)
{
    if (self->kind != KEST_PERMIT || (PyObject *)Py_TYPE(permit) != kest_state_of((PyObject *)self)->gate_permit_type) {
        PyErr_SetString(PyExc_TypeError, "only a permit verdict takes a PermitToken");
        return NULL;
    }
    Py_XSETREF(self->permit, Py_NewRef(permit));
    Py_RETURN_NONE;
}

/* Observing: the refusal is what would have been, and the action is permitted. Takes over the refusal. */
static PyObject *behind_permit(const VerdictObject *self, VerdictObject *refused)
{
    VerdictObject *shown = (VerdictObject *)kest_verdict_new(kest_state_of((PyObject *)refused), self->ctx, self->set, self->settings,
                                                             &self->outcome, self->issued, self->expires - self->issued, false);

    if (shown)
        shown->observed = (PyObject *)refused;
    else
        Py_DECREF(refused);
    return (PyObject *)shown;
}

static PyObject *verdict_refused(VerdictObject *self, PyObject *args)
{
    PyObject *evaluator, *code, *reason;
    VerdictObject *refused;
    kest_gate_outcome outcome = self->outcome;

    if (!PyArg_ParseTuple(args, "UUU:_refused", &evaluator, &code, &reason))
        return NULL;
    outcome.verdict = KEST_REFUSE;
    refused = (VerdictObject *)kest_verdict_new(kest_state_of((PyObject *)self), self->ctx, self->set, self->settings, &outcome,
                                                self->issued, 0, false);
    if (!refused)
        return NULL;
    memcpy(refused->evaluation, self->evaluation, KEST_UUID_LEN);
    refused->evaluator = Py_NewRef(evaluator);
    refused->code = Py_NewRef(code);
    refused->reason = Py_NewRef(reason);
    return self->observed ? behind_permit(self, refused) : (PyObject *)refused;
}

static PyMethodDef verdict_methods[] = {
    {"_sign", (PyCFunction)verdict_sign, METH_O, "_sign(permit, /)\n--\n\nPuts the signed PermitToken in place."},
    {"_refused", (PyCFunction)verdict_refused, METH_VARARGS,
     "_refused(evaluator, code, reason, /)\n--\n\nThe refusal that takes this verdict's place."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef verdict_getset[] = {
    {"kind", (getter)get_kind, NULL, "'permit', 'refuse' or 'invalidate'.", NULL},
    {"is_permit", (getter)is_kind, NULL, "Whether the action may run.", (void *)(uintptr_t)KEST_PERMIT},
    {"is_refuse", (getter)is_kind, NULL, "Whether this action may not run.", (void *)(uintptr_t)KEST_REFUSE},
    {"is_invalidate", (getter)is_kind, NULL, "Whether the session must end.", (void *)(uintptr_t)KEST_INVALIDATE},
    {"evaluator", (getter)get_evaluator, NULL, "'gate', 'policy', 'drift' or 'invariants': which one objected. None for a permit.", NULL},
    {"code", (getter)get_code, NULL, "NO_POLICY_MATCH, POLICY_DENIED, ... for a refusal, otherwise None.", NULL},
    {"reason", (getter)get_reason, NULL, "Why not, in words; None for a permit.", NULL},
    {"policy", (getter)get_policy, NULL, "Name of the policy that decided, or None.", NULL},
    {"policy_digest", (getter)get_policy_digest, NULL, "SHA-256 (hex) of the policies that were asked.", NULL},
    {"token_id", (getter)get_token_id, NULL, "Id of the permit (UUIDv7), or None.", NULL},
    {"evaluation_id", (getter)get_evaluation_id, NULL, "Id of this evaluation (UUIDv7).", NULL},
    {"permit_token", (getter)get_permit, NULL, "The PermitToken, or None.", NULL},
    {"signature", (getter)get_signature, NULL, "Signature of the permit, or None.", NULL},
    {"observed", (getter)get_observed, NULL, "In observe mode the verdict that would have been, otherwise None.", NULL},
    {"context", (getter)get_context, NULL, "What was asked.", NULL},
    {"_settings", (getter)get_settings, NULL, "What the gate was made with.", NULL},
    {"_facts", (getter)get_facts, NULL, "What the reason is worded from.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot verdict_slots[] = {
    {Py_tp_dealloc, verdict_dealloc},
    {Py_tp_repr, verdict_repr},
    {Py_tp_methods, verdict_methods},
    {Py_tp_getset, verdict_getset},
    {Py_tp_doc, "What a gate decided."},
    {0, NULL},
};

PyType_Spec kest_verdict_spec = {"kest._kestcore.Verdict", sizeof(VerdictObject), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, verdict_slots};
