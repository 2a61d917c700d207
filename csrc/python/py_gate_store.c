/* py_gate_store.c: rate limits and sessions in memory. */
#include "py_gate.h"

#include <time.h>

enum { MOST_KEYS = 1 << 24 };

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

kest_gate_time kest_gate_now(void)
{
#ifdef CLOCK_BOOTTIME /* goes on while the machine sleeps */
    return (kest_gate_time){clock_ns(CLOCK_REALTIME), clock_ns(CLOCK_BOOTTIME)};
#else
    return (kest_gate_time){clock_ns(CLOCK_REALTIME), clock_ns(CLOCK_MONOTONIC)};
#endif
}

/* ---- rates ---- */

static PyObject *rates_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_keys", NULL};
    unsigned int most = 1 << 22;
    RatesObject *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|I:InMemoryRateLimitStore", names, &most))
        return NULL;
    if (most < 1 || most > MOST_KEYS)
        return PyErr_Format(PyExc_ValueError, "max_keys is from 1 to %d", MOST_KEYS);
    if ((self = (RatesObject *)type->tp_alloc(type, 0)) && kest_gate_rates_new(most, &self->rates) != KEST_OK) {
        Py_CLEAR(self);
        PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void rates_dealloc(RatesObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_gate_rates_free(self->rates);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t rates_length(RatesObject *self)
{
    return (Py_ssize_t)kest_gate_rates_keys(self->rates);
}

enum { SWEEP = 256 }; /* records: about 20 us */

static PyObject *rates_sweep(RatesObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSize_t(kest_gate_rates_sweep(self->rates, kest_gate_now().steady_ns, SWEEP));
}

static PyObject *rates_bytes(RatesObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(kest_gate_rates_bytes(self->rates));
}

static PyMethodDef rates_methods[] = {
    {"sweep", (PyCFunction)rates_sweep, METH_NOARGS,
     "sweep()\n--\n\nForgets up to 256 keys whose window has passed; returns how many. Evaluations forget a few each as well."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef rates_getset[] = {
    {"nbytes", (getter)rates_bytes, NULL, "Memory in use, in bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot rates_slots[] = {
    {Py_tp_new, rates_new},
    {Py_tp_dealloc, rates_dealloc},
    {Py_tp_methods, rates_methods},
    {Py_tp_getset, rates_getset},
    {Py_sq_length, rates_length},
    {Py_tp_doc, "InMemoryRateLimitStore(max_keys=4194304)\n--\n\nSliding windows of this process. When max_keys are in use, calls under "
                "further keys are refused."},
    {0, NULL},
};

PyType_Spec kest_rates_spec = {"kest._kestcore.InMemoryRateLimitStore", sizeof(RatesObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, rates_slots};

/* ---- sessions ---- */

static PyObject *sessions_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ttl", "max_sessions", NULL};
    double ttl = 86400;
    unsigned int most = 1 << 20;
    SessionsObject *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|dI:InMemorySessionStore", names, &ttl, &most))
        return NULL;
    if (most < 1 || most > MOST_KEYS)
        return PyErr_Format(PyExc_ValueError, "max_sessions is from 1 to %d", MOST_KEYS);
    if (!(ttl >= KEST_GATE_AGE_MAX && ttl <= 1e9))
        return PyErr_Format(PyExc_ValueError, "ttl is from %d seconds (the age at which a session ends) to 1e9", KEST_GATE_AGE_MAX);
    if ((self = (SessionsObject *)type->tp_alloc(type, 0)) &&
        kest_gate_sessions_new(most, (int64_t)(ttl * 1e9), &self->sessions) != KEST_OK) {
        Py_CLEAR(self);
        PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void sessions_dealloc(SessionsObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_gate_sessions_free(self->sessions);
    type->tp_free(self);
    Py_DECREF(type);
}

static int read_target(kest_state *state, PyObject *args, const char *format, kest_gate_target *target, kest_str *id)
{
    PyObject *text, *kind = NULL;

    if (!PyArg_ParseTuple(args, format, &text, &kind) || kest_gate_text(state, text, "an id", id) < 0)
        return -1;
    *target = KEST_TARGET_SESSION;
    if (!kind || PyUnicode_CompareWithASCIIString(kind, "session") == 0)
        return 0;
    if (PyUnicode_CompareWithASCIIString(kind, "principal") == 0)
        *target = KEST_TARGET_PRINCIPAL;
    else if (PyUnicode_CompareWithASCIIString(kind, "role") == 0)
        *target = KEST_TARGET_ROLE;
    else {
        kest_gate_input_error(state, "target_kind must be session, principal or role, not %.60R", kind);
        return -1;
    }
    return 0;
}

static PyObject *sessions_is_invalidated(SessionsObject *self, PyObject *args)
{
    kest_gate_target target;
    kest_str id;

    if (read_target(kest_state_of((PyObject *)self), args, "U|U:is_invalidated", &target, &id) < 0)
        return NULL;
    return PyBool_FromLong(kest_gate_sessions_invalidated(self->sessions, target, id));
}

static PyObject *sessions_invalidate(SessionsObject *self, PyObject *args)
{
    kest_gate_target target;
    kest_status st;
    kest_str id;

    if (read_target(kest_state_of((PyObject *)self), args, "U|U:invalidate", &target, &id) < 0)
        return NULL;
    st = kest_gate_sessions_invalidate(self->sessions, target, id, kest_gate_now());
    if (st == KEST_E_NOMEM)
        return PyErr_NoMemory();
    if (st != KEST_OK)
        return kest_gate_input_error(kest_state_of((PyObject *)self), "the store holds as many invalidations as max_sessions allows");
    Py_RETURN_NONE;
}

static PyObject *sessions_reinstate(SessionsObject *self, PyObject *args)
{
    kest_gate_target target;
    kest_str id;

    if (read_target(kest_state_of((PyObject *)self), args, "U|U:reinstate", &target, &id) < 0)
        return NULL;
    return PyBool_FromLong(kest_gate_sessions_reinstate(self->sessions, target, id));
}

static PyObject *sessions_sweep(SessionsObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSize_t(kest_gate_sessions_sweep(self->sessions, kest_gate_now(), SWEEP));
}

static PyObject *get_invalidations(SessionsObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(kest_gate_sessions_invalidations(self->sessions));
}

static PyObject *get_open(SessionsObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(kest_gate_sessions_count(self->sessions));
}

static PyObject *sessions_bytes(SessionsObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(kest_gate_sessions_bytes(self->sessions));
}

static PyMethodDef sessions_methods[] = {
    {"is_invalidated", (PyCFunction)sessions_is_invalidated, METH_VARARGS,
     "is_invalidated(id, kind='session', /)\n--\n\nWhether a session, principal or role was invalidated."},
    {"invalidate", (PyCFunction)sessions_invalidate, METH_VARARGS,
     "invalidate(id, kind='session', /)\n--\n\nFrom now on gates on this store refuse it, for 30 days at least."},
    {"reinstate", (PyCFunction)sessions_reinstate, METH_VARARGS,
     "reinstate(id, kind='session', /)\n--\n\nTakes an invalidation back; whether there was one."},
    {"sweep", (PyCFunction)sessions_sweep, METH_NOARGS, "sweep()\n--\n\nForgets up to 256 expired records; returns how many."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef sessions_getset[] = {
    {"len", (getter)get_invalidations, NULL, "How many invalidations are in force.", NULL},
    {"open_sessions", (getter)get_open, NULL, "How many sessions are remembered.", NULL},
    {"nbytes", (getter)sessions_bytes, NULL, "Memory in use, in bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot sessions_slots[] = {
    {Py_tp_new, sessions_new},
    {Py_tp_dealloc, sessions_dealloc},
    {Py_tp_methods, sessions_methods},
    {Py_tp_getset, sessions_getset},
    {Py_tp_doc, "InMemorySessionStore(ttl=86400.0, max_sessions=1048576)\n--\n\nThe sessions of this process: start, origin, device, "
                "number of actions; and what was invalidated.\n\nttl: seconds after which an idle session is forgotten. At max_sessions "
                "further sessions are refused."},
    {0, NULL},
};

PyType_Spec kest_sessions_spec = {"kest._kestcore.InMemorySessionStore", sizeof(SessionsObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, sessions_slots};
