/* py_gate_context.c: ActionContext: what a gate is asked about. Texts stay where Python has them. */
#include "py_gate.h"

#include "../core/alloc.h"

#include <stdarg.h>

const char *const kest_gate_kinds[KEST_GATE_KINDS] = {"user", "agent", "service", "scheduler", "external"};

static const char *const arg_names[KEST_GATE_ARGS] = {
    "principal_id", "principal_kind", "action_name", "roles", "resource", "params", "ip", "session_id", "current_geo",
    "origin_geo", "origin_ip", "device", "origin_device", "session_started_at", "action_count", "trust", "taints",
};

#define EARLIEST INT64_C(-8334601228800) /* Unix seconds of the years -262142 and 262142 */
#define LATEST INT64_C(8210266876799)

PyObject *kest_gate_input_error(kest_state *state, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    PyErr_FormatV(state->gate_input_error, format, args);
    va_end(args);
    return NULL;
}

int kest_gate_kind(kest_state *state, PyObject *text)
{
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "principal_kind is a str, not %s", Py_TYPE(text)->tp_name);
        return -1;
    }
    for (int i = 0; i < KEST_GATE_KINDS; i++)
        if (PyUnicode_CompareWithASCIIString(text, kest_gate_kinds[i]) == 0)
            return i;
    kest_gate_input_error(state, "unknown principal kind: %.100U (known: user, agent, service, scheduler, external)", text);
    return -1;
}

/* ---- names: roles and taints ---- */

/* A tuple of the strs in a sequence or set; NULL with an exception set. */
static PyObject *name_tuple(PyObject *given, const char *what)
{
    PyObject *items;

    if (PyUnicode_Check(given) || PyBytes_Check(given)) {
        PyErr_Format(PyExc_TypeError, "%s is a sequence of str, not a %s by itself", what, Py_TYPE(given)->tp_name);
        return NULL;
    }
    items = PySequence_Tuple(given);
    if (items && PyTuple_GET_SIZE(items) > KEST_GATE_MAX_NAMES) {
        PyErr_Format(PyExc_ValueError, "%s has %zd items; a gate accepts %d", what, PyTuple_GET_SIZE(items), KEST_GATE_MAX_NAMES);
        Py_CLEAR(items);
    }
    return items;
}

static int read_names(kest_state *state, PyObject *tuple, const char *what, kest_str *out, size_t *allowance)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        if (kest_gate_spend(state, PyTuple_GET_ITEM(tuple, i), what, &out[i], allowance) < 0)
            return -1;
    return 0;
}

static int take_names(kest_state *state, ContextObject *self, PyObject *roles, PyObject *taints)
{
    size_t nroles = 0, ntaints = 0;

    if (roles && !(self->given[ARG_ROLES] = name_tuple(roles, "roles")))
        return -1;
    if (taints && !(self->given[ARG_TAINTS] = name_tuple(taints, "taints")))
        return -1;
    nroles = roles ? (size_t)PyTuple_GET_SIZE(self->given[ARG_ROLES]) : 0;
    ntaints = taints ? (size_t)PyTuple_GET_SIZE(self->given[ARG_TAINTS]) : 0;
    if (nroles + ntaints > KEST_GATE_ROOM && !(self->names = kest_calloc(nroles + ntaints, sizeof *self->names))) {
        self->names = self->names_room;
        PyErr_NoMemory();
        return -1;
    }
    if ((roles && read_names(state, self->given[ARG_ROLES], "a role", self->names, &self->allowance) < 0) ||
        (taints && read_names(state, self->given[ARG_TAINTS], "a taint", self->names + nroles, &self->allowance) < 0))
        return -1;
    self->ctx.roles = self->names;
    self->ctx.nroles = nroles;
    self->ctx.taints = self->names + nroles;
    self->ctx.ntaints = ntaints;
    self->ctx.has_taints = taints != NULL;
    return 0;
}

/* ---- parameters ---- */

static int params_room(ContextObject *self, size_t count)
{
    kest_gate_param *params;
    kest_held_param *held;

    if (count <= self->params_room)
        return 0;
    params = kest_calloc(count, sizeof *params);
    held = kest_calloc(count, sizeof *held);
    if (!params || !held) {
        kest_free(params);
        kest_free(held);
        PyErr_NoMemory();
        return -1;
    }
    memcpy(params, self->params, self->ctx.nparams * sizeof *params);
    memcpy(held, self->held, self->ctx.nparams * sizeof *held);
    if (self->params != self->param_room) {
        kest_free(self->params);
        kest_free(self->held);
    }
    self->params = params;
    self->held = held;
    self->params_room = count;
    self->ctx.params = params;
    return 0;
}

/* `fresh`: no parameter of this name can be there. */
static int set_param(kest_state *state, ContextObject *self, PyObject *name, PyObject *value, bool fresh)
{
    kest_held_param held;
    kest_gate_param param;
    size_t at = fresh ? self->ctx.nparams : 0;

    if (kest_gate_read_param(state, name, value, &param, &held, &self->allowance) < 0) {
        kest_gate_drop_param(&held);
        return -1;
    }
    while (at < self->ctx.nparams && kest_str_compare(self->params[at].name, param.name) != 0)
        at++;
    if (at == KEST_GATE_MAX_PARAMS) {
        kest_gate_drop_param(&held);
        kest_gate_input_error(state, "a context has at most %d parameters", KEST_GATE_MAX_PARAMS);
        return -1;
    }
    if (at == self->ctx.nparams) {
        if (at == self->params_room && params_room(self, at * 2 > 8 ? at * 2 : 8) < 0) {
            kest_gate_drop_param(&held);
            return -1;
        }
        self->ctx.nparams++;
        self->params[at] = param;
        self->held[at] = held;
    } else {
        kest_held_param before = self->held[at];

        self->params[at] = param;
        self->held[at] = held;
        kest_gate_drop_param(&before);
    }
    return 0;
}

/* Items are taken first: conversions can run code that changes the mapping. */
static int take_params(kest_state *state, ContextObject *self, PyObject *mapping)
{
    PyObject *items, *name, *value;
    Py_ssize_t at = 0;
    int rc = 0;

    if (PyDict_CheckExact(mapping) && PyDict_GET_SIZE(mapping) == 1 && PyDict_Next(mapping, &at, &name, &value)) {
        Py_INCREF(name);
        Py_INCREF(value);
        rc = set_param(state, self, name, value, true);
        Py_DECREF(name);
        Py_DECREF(value);
        return rc;
    }
    items = PyMapping_Check(mapping) ? PyMapping_Items(mapping) : NULL;
    if (!items) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Format(PyExc_TypeError, "params is a mapping of names to values, not %s", Py_TYPE(mapping)->tp_name);
        return -1;
    }
    if (PyList_GET_SIZE(items) > KEST_GATE_MAX_PARAMS) {
        Py_DECREF(items);
        kest_gate_input_error(state, "a context has at most %d parameters", KEST_GATE_MAX_PARAMS);
        return -1;
    }
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);

        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "params is a mapping: its items are pairs of name and value");
            rc = -1;
        } else {
            rc = set_param(state, self, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1),
                           PyDict_CheckExact(mapping) && PyUnicode_CheckExact(PyTuple_GET_ITEM(pair, 0)));
        }
    }
    Py_DECREF(items);
    return rc;
}

/* ---- numbers ---- */

static int take_numbers(kest_state *state, ContextObject *self, PyObject *const *a)
{
    int overflow;

    if (a[ARG_STARTED]) {
        if (!PyLong_Check(a[ARG_STARTED]) || PyBool_Check(a[ARG_STARTED])) {
            PyErr_Format(PyExc_TypeError, "session_started_at is an int of Unix seconds, not %s", Py_TYPE(a[ARG_STARTED])->tp_name);
            return -1;
        }
        self->ctx.started_at = PyLong_AsLongLongAndOverflow(a[ARG_STARTED], &overflow);
        if (overflow || self->ctx.started_at < EARLIEST || self->ctx.started_at > LATEST) {
            kest_gate_input_error(state, "session_started_at: %.60S is not a valid unix timestamp", a[ARG_STARTED]);
            return -1;
        }
        self->ctx.has_started = true;
    }
    if (a[ARG_COUNT]) {
        self->ctx.action_count = PyLong_AsUnsignedLongLong(a[ARG_COUNT]);
        if (PyErr_Occurred())
            return -1;
    }
    self->ctx.trust = -1;
    if (a[ARG_TRUST]) {
        const long trust = PyLong_Check(a[ARG_TRUST]) && !PyBool_Check(a[ARG_TRUST])
                               ? PyLong_AsLongAndOverflow(a[ARG_TRUST], &overflow) : -1;

        if (trust < 0 || trust > KEST_MAX_TRUST) {
            kest_gate_input_error(state, "trust is an int from 0 to 100, or None where nobody said");
            return -1;
        }
        self->ctx.trust = (int)trust;
    }
    return 0;
}

/* ---- life ---- */

static void context_dealloc(ContextObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    for (size_t i = 0; i < self->ctx.nparams; i++)
        kest_gate_drop_param(&self->held[i]);
    for (int i = 0; i < KEST_GATE_ARGS; i++)
        Py_XDECREF(self->given[i]);
    Py_XDECREF(self->devices[0]);
    Py_XDECREF(self->devices[1]);
    if (self->params != self->param_room) {
        kest_free(self->params);
        kest_free(self->held);
    }
    if (self->names != self->names_room)
        kest_free(self->names);
    kest_free(self->path);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Texts are taken from self->given, which keeps them. */
static int take_texts(kest_state *state, ContextObject *self)
{
    PyObject **g = self->given;
    const int kind = kest_gate_kind(state, g[ARG_KIND]);

    if (kind < 0)
        return -1;
    self->ctx.kind = (uint8_t)kind;
    self->ctx.has_device = g[ARG_DEVICE] != NULL;
    self->ctx.has_origin_device = g[ARG_ORIGIN_DEVICE] != NULL;
    if (kest_gate_spend(state, g[ARG_PRINCIPAL], "principal_id", &self->ctx.principal, &self->allowance) < 0 ||
        kest_gate_spend(state, g[ARG_ACTION], "action_name", &self->ctx.action, &self->allowance) < 0 ||
        (g[ARG_RESOURCE] && kest_gate_take_resource(state, self, g[ARG_RESOURCE]) < 0) ||
        (g[ARG_IP] && kest_gate_take_ip(state, g[ARG_IP], "ip", &self->ctx.ip) < 0) ||
        (g[ARG_ORIGIN_IP] && kest_gate_take_ip(state, g[ARG_ORIGIN_IP], "origin_ip", &self->ctx.origin_ip) < 0) ||
        (g[ARG_SESSION] && kest_gate_take_session(state, self, g[ARG_SESSION]) < 0) ||
        (g[ARG_GEO] && kest_gate_read_geo(state, g[ARG_GEO], "current_geo", &self->ctx.geo) < 0) ||
        (g[ARG_ORIGIN_GEO] && kest_gate_read_geo(state, g[ARG_ORIGIN_GEO], "origin_geo", &self->ctx.origin_geo) < 0) ||
        (g[ARG_DEVICE] && kest_gate_take_device(state, g[ARG_DEVICE], "device", &self->devices[0], &self->ctx.device) < 0) ||
        (g[ARG_ORIGIN_DEVICE] && kest_gate_take_device(state, g[ARG_ORIGIN_DEVICE], "origin_device", &self->devices[1], &self->ctx.origin_device) < 0))
        return -1;
    return 0;
}

static PyObject *make_context(PyTypeObject *type, PyObject *const *a)
{
    kest_state *state = PyType_GetModuleState(type);
    ContextObject *self;

    for (int i = 0; i < 3; i++)
        if (!a[i])
            return PyErr_Format(PyExc_TypeError, "ActionContext() needs %s", arg_names[i]);
    if (!(self = (ContextObject *)type->tp_alloc(type, 0)))
        return NULL;
    self->allowance = KEST_GATE_ALLOWANCE;
    self->params = self->param_room;
    self->ctx.params = self->params;
    self->held = self->held_room;
    self->params_room = KEST_GATE_ROOM;
    self->names = self->names_room;
    for (int i = 0; i < KEST_GATE_ARGS; i++)
        if (i != ARG_ROLES && i != ARG_TAINTS && i != ARG_PARAMS)
            self->given[i] = Py_XNewRef(a[i]);
    if (take_texts(state, self) < 0 || take_numbers(state, self, a) < 0 ||
        ((a[ARG_ROLES] || a[ARG_TAINTS]) && take_names(state, self, a[ARG_ROLES], a[ARG_TAINTS]) < 0) ||
        (a[ARG_PARAMS] && take_params(state, self, a[ARG_PARAMS]) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int find_arg(kest_state *state, PyObject *name, int guess)
{
    if (guess < KEST_GATE_ARGS && state->gate_args[guess] == name)
        return guess;
    for (int i = 0; i < KEST_GATE_ARGS; i++)
        if (state->gate_args[i] == name)
            return i;
    for (int i = 0; i < KEST_GATE_ARGS; i++)
        if (PyUnicode_Compare(state->gate_args[i], name) == 0)
            return i;
    PyErr_Format(PyExc_TypeError, "ActionContext() got an unexpected keyword argument %R", name);
    return -1;
}

/* None means "not given", except where it would be a mistake. */
static int place(PyObject **a, int at, PyObject *value)
{
    if (a[at]) {
        PyErr_Format(PyExc_TypeError, "ActionContext() got multiple values for argument '%s'", arg_names[at]);
        return -1;
    }
    if (value == Py_None && at == ARG_ROLES) {
        PyErr_SetString(PyExc_TypeError, "roles is a sequence of str, not None");
        return -1;
    }
    a[at] = value == Py_None && at > ARG_ACTION ? NULL : value;
    return 0;
}

static PyObject *context_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    kest_state *state = PyType_GetModuleState((PyTypeObject *)type);
    const Py_ssize_t nargs = PyVectorcall_NARGS(nargsf), nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    PyObject *a[KEST_GATE_ARGS] = {NULL};
    int at = (int)nargs;

    if (nargs > KEST_GATE_ARGS)
        return PyErr_Format(PyExc_TypeError, "ActionContext() takes at most %d arguments", KEST_GATE_ARGS);
    for (int i = 0; i < nargs; i++)
        if (place(a, i, args[i]) < 0)
            return NULL;
    for (Py_ssize_t i = 0; i < nkw; i++, at++)
        if ((at = find_arg(state, PyTuple_GET_ITEM(kwnames, i), at)) < 0 || place(a, at, args[nargs + i]) < 0)
            return NULL;
    return make_context((PyTypeObject *)type, a);
}

/* For callers that do not go by vectorcall, such as type.__call__ reached through super(). */
static PyObject *context_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    kest_state *state = PyType_GetModuleState(type);
    PyObject *a[KEST_GATE_ARGS] = {NULL}, *name, *value;
    Py_ssize_t pos = 0;
    int at;

    if (PyTuple_GET_SIZE(args) > KEST_GATE_ARGS)
        return PyErr_Format(PyExc_TypeError, "ActionContext() takes at most %d arguments", KEST_GATE_ARGS);
    for (int i = 0; i < PyTuple_GET_SIZE(args); i++)
        if (place(a, i, PyTuple_GET_ITEM(args, i)) < 0)
            return NULL;
    while (kwargs && PyDict_Next(kwargs, &pos, &name, &value))
        if ((at = find_arg(state, name, 0)) < 0 || place(a, at, value) < 0)
            return NULL;
    return make_context(type, a);
}

/* ---- what it shows ---- */

static PyObject *context_with_param(ContextObject *self, PyObject *args)
{
    PyObject *name, *value;

    if (!PyArg_ParseTuple(args, "UO:with_param", &name, &value) ||
        set_param(kest_state_of((PyObject *)self), self, name, value, false) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *get_given(ContextObject *self, void *which)
{
    const size_t i = (size_t)(uintptr_t)which;

    if (i == ARG_SESSION && self->ctx.has_session)
        return PyUnicode_FromStringAndSize((const char *)self->ctx.session.data, (Py_ssize_t)self->ctx.session.len);
    if (self->given[i])
        return Py_NewRef(self->given[i]);
    if (i == ARG_ROLES)
        return PyTuple_New(0);
    if (i == ARG_COUNT)
        return PyLong_FromLong(0);
    Py_RETURN_NONE;
}

static PyObject *get_params(ContextObject *self, void *unused)
{
    PyObject *params = PyDict_New();

    (void)unused;
    for (size_t i = 0; params && i < self->ctx.nparams; i++)
        if (PyDict_SetItem(params, self->held[i].name, self->held[i].value) < 0)
            Py_CLEAR(params);
    return params;
}

static PyObject *context_repr(ContextObject *self)
{
    return PyUnicode_FromFormat("ActionContext(principal_id=%.200R, principal_kind='%s', action_name=%.200R)",
                                self->given[ARG_PRINCIPAL], kest_gate_kinds[self->ctx.kind], self->given[ARG_ACTION]);
}

#define SHOW(name, which, doc) {name, (getter)get_given, NULL, doc, (void *)(uintptr_t)(which)}
static PyGetSetDef context_getset[] = {
    SHOW("principal_id", ARG_PRINCIPAL, "Who acts."),
    SHOW("principal_kind", ARG_KIND, "user, agent, service, scheduler or external."),
    SHOW("action_name", ARG_ACTION, "What is to be done."),
    SHOW("roles", ARG_ROLES, "Roles of the principal, a tuple."),
    SHOW("resource", ARG_RESOURCE, "What it is done to, as given, or None."),
    SHOW("ip", ARG_IP, "Where the principal is now, or None."),
    SHOW("session_id", ARG_SESSION, "The session (a UUID in lower case and hyphenated), or None."),
    SHOW("current_geo", ARG_GEO, "GeoLocation or None."),
    SHOW("origin_geo", ARG_ORIGIN_GEO, "GeoLocation at the start of the session, or None."),
    SHOW("origin_ip", ARG_ORIGIN_IP, "Address at the start of the session, or None."),
    SHOW("device", ARG_DEVICE, "DeviceFingerprint or None."),
    SHOW("origin_device", ARG_ORIGIN_DEVICE, "DeviceFingerprint at the start of the session, or None."),
    SHOW("session_started_at", ARG_STARTED, "Unix seconds, or None."),
    SHOW("action_count", ARG_COUNT, "Actions of the session so far, as the caller counts."),
    SHOW("trust", ARG_TRUST, "Trust score of the lineage, 0 to 100, or None where nobody said."),
    SHOW("taints", ARG_TAINTS, "Taints of the lineage, a tuple, or None where nobody said."),
    {"params", (getter)get_params, NULL, "A copy of the parameters; what no condition accepts shows as None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef context_methods[] = {
    {"with_param", (PyCFunction)context_with_param, METH_VARARGS,
     "with_param(key, value, /)\n--\n\nSets a parameter: a number, str, bool, or a list of these. NaN is a GateInputError."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot context_slots[] = {
    {Py_tp_new, context_new},
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_repr, context_repr},
    {Py_tp_methods, context_methods},
    {Py_tp_getset, context_getset},
    {Py_tp_doc, "ActionContext(principal_id, principal_kind, action_name, roles=(), resource=None, params=None, ip=None, session_id=None, "
                "current_geo=None, origin_geo=None, origin_ip=None, device=None, origin_device=None, session_started_at=None, "
                "action_count=0, trust=None, taints=None)\n--\n\nOne action that a gate is asked about.\n\n"
                "params maps names to numbers, str, bool, or lists of these. GateInputError (a ValueError) for an address, session, "
                "number or text that is not one."},
    {0, NULL},
};

PyType_Spec kest_context_spec = {"kest._kestcore.ActionContext", sizeof(ContextObject), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, context_slots};

int kest_gate_context_ready(PyTypeObject *type)
{
    kest_state *state = PyType_GetModuleState(type);

    for (int i = 0; i < KEST_GATE_ARGS; i++)
        if (!(state->gate_args[i] = PyUnicode_InternFromString(arg_names[i])))
            return -1;
    type->tp_vectorcall = context_vectorcall;
    return 0;
}
