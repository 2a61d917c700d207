/* py_gate.c: GateCore: evaluates contexts against a policy set, with stores in memory or answers from elsewhere. */
#include "py_gate.h"

#include "../core/alloc.h"

#include <math.h>

typedef struct GateObject {
    PyObject_HEAD
    SetObject *set;
    RatesObject *rates;
    SessionsObject *sessions;
    PyObject *settings, *fields; /* `fields` keeps what the invariants' texts point into */
    kest_gate_invariant *invariants;
    kest_gate_rules rules;
    kest_gate_scratch scratch;
    int64_t ttl;
    bool observe, fixed;
    kest_gate_time at; /* when fixed */
} GateObject;

/* ---- life ---- */

static int read_invariants(kest_state *state, GateObject *self, PyObject *list)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(list);

    if (!(self->invariants = kest_calloc(count ? (size_t)count : 1, sizeof *self->invariants))) {
        PyErr_NoMemory();
        return -1;
    }
    self->fields = Py_NewRef(list);
    for (Py_ssize_t i = 0; i < count; i++) {
        kest_gate_invariant *inv = &self->invariants[i];
        PyObject *field, *action;
        unsigned int mode;

        if (!PyTuple_Check(PyTuple_GET_ITEM(list, i))) {
            PyErr_SetString(PyExc_TypeError, "an invariant is a tuple");
            return -1;
        }
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(list, i), "UddIU", &field, &inv->least, &inv->most, &mode, &action) ||
            kest_gate_text(state, field, "a field", &inv->field) < 0 || kest_gate_text(state, action, "an action", &inv->action) < 0)
            return -1;
        inv->mode = mode <= KEST_PATTERN_ALL ? (kest_gate_pattern_mode)mode : KEST_PATTERN_ALL;
    }
    self->rules.invariants = self->invariants;
    self->rules.ninvariants = (size_t)count;
    return 0;
}

static PyObject *gate_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"policies", "rates", "sessions", "invariants", "drift", "max_km", "max_actions", "observe", "ttl",
                            "settings", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *set, *rates, *sessions, *invariants, *max_actions, *settings;
    int drift, observe;
    double max_km;
    long long ttl;
    GateObject *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!O!pdOpLO:GateCore", names, state->set_type, &set, state->rates_type, &rates,
                                     state->sessions_type, &sessions, &PyTuple_Type, &invariants, &drift, &max_km, &max_actions,
                                     &observe, &ttl, &settings) ||
        !(self = (GateObject *)type->tp_alloc(type, 0)))
        return NULL;
    self->set = (SetObject *)Py_NewRef(set);
    self->rates = (RatesObject *)Py_NewRef(rates);
    self->sessions = (SessionsObject *)Py_NewRef(sessions);
    self->settings = Py_NewRef(settings);
    self->rules.drift = drift;
    self->rules.max_km = max_km;
    self->rules.capped = max_actions != Py_None;
    self->observe = observe;
    self->ttl = ttl;
    if (self->rules.capped)
        self->rules.max_actions = PyLong_AsUnsignedLongLong(max_actions);
    if (PyErr_Occurred() || !self->set->set->sealed || read_invariants(state, self, invariants) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the policy set is not sealed");
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void gate_dealloc(GateObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->set);
    Py_XDECREF(self->rates);
    Py_XDECREF(self->sessions);
    Py_XDECREF(self->settings);
    Py_XDECREF(self->fields);
    kest_free(self->invariants);
    kest_gate_scratch_free(&self->scratch);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- what follows from a decision ---- */

/* The permit remembers what it gives back in case it is refused after all. */
static PyObject *with_limits(PyObject *verdict, const kest_gate_case *c)
{
    VerdictObject *v = (VerdictObject *)verdict;
    const size_t count = c->scratch->nlimits;
    size_t n = 0;

    if (!verdict || !count || v->kind != KEST_PERMIT || v->observed)
        return verdict;
    if (!(v->limits = kest_calloc(count, sizeof *v->limits))) {
        Py_DECREF(verdict);
        return PyErr_NoMemory();
    }
    for (size_t i = 0; i < count; i++)
        if (kest_gate_limits_counts(c, i, true) && kest_gate_limits_returns(c, i))
            v->limits[n++] = c->scratch->limits[i];
    v->nlimits = n;
    return verdict;
}

static void refuse(kest_gate_outcome *outcome, kest_gate_reason why)
{
    outcome->verdict = KEST_REFUSE;
    outcome->why = why;
}

/* What follows from the outcome for sessions; a permit that cannot be counted is none. */
static void commit_session(GateObject *self, const kest_gate_case *c, kest_gate_outcome *outcome)
{
    kest_gate_sessions *sessions = self->sessions->sessions;

    /* Observing opens sessions, so that drift can be observed; nothing else. */
    if (outcome->verdict == KEST_PERMIT && kest_gate_sessions_permitted(sessions, c->ctx, c->now, !self->observe) != KEST_OK)
        refuse(outcome, KEST_WHY_SESSIONS_FULL);
    /* When that finds no room the verdict stands all the same, and the session drifts again at its next action. */
    if (outcome->verdict == KEST_INVALIDATE && c->ctx->has_session && !self->observe)
        (void)kest_gate_sessions_invalidate(sessions, KEST_TARGET_SESSION, c->ctx->session, c->now);
}

static void commit_limits(GateObject *self, kest_gate_local *l, const kest_gate_case *c, kest_gate_outcome *outcome)
{
    if (!c->scratch->nlimits || self->observe)
        return;
    if (!kest_gate_limits_record(l, c, outcome->verdict == KEST_PERMIT))
        refuse(outcome, KEST_WHY_RATE_BACKEND);
}

/* ---- evaluation ---- */

enum { SWEEP = 4 }; /* expired keys that each evaluation forgets */

static ContextObject *check_context(kest_state *state, PyObject *given)
{
    if (Py_TYPE(given) == state->context_type)
        return (ContextObject *)given;
    PyErr_Format(PyExc_TypeError, "a gate evaluates an ActionContext, not %s", Py_TYPE(given)->tp_name);
    return NULL;
}

static kest_gate_case case_of(GateObject *self, ContextObject *ctx, const kest_gate_session *session)
{
    return (kest_gate_case){.set = self->set->set, .rules = &self->rules, .ctx = &ctx->ctx, .session = session,
                            .now = self->fixed ? self->at : kest_gate_now(), .scratch = &self->scratch};
}

static PyObject *verdict_of(GateObject *self, ContextObject *ctx, const kest_gate_case *c, const kest_gate_outcome *outcome)
{
    return kest_verdict_new(kest_state_of((PyObject *)self), ctx, self->set, self->settings, outcome,
                            c->now.wall_ns / 1000000000, self->ttl, self->observe);
}

static PyObject *gate_evaluate(GateObject *self, PyObject *given)
{
    ContextObject *ctx = check_context(kest_state_of((PyObject *)self), given);
    kest_gate_local l = {.rates = self->rates->rates};
    kest_gate_session session;
    kest_gate_outcome outcome;
    kest_gate_case c;

    if (!ctx)
        return NULL;
    c = case_of(self, ctx, &session);
    c.limiter = kest_gate_limits_ask;
    c.limiter_self = &l;
    kest_gate_sessions_look(self->sessions->sessions, c.ctx, c.now, &session);
    kest_gate_prepare(&c);
    if (kest_gate_decide(&c, &outcome) != KEST_OK)
        return PyErr_NoMemory();
    if (l.failed && outcome.verdict == KEST_PERMIT)
        refuse(&outcome, KEST_WHY_RATE_BACKEND);
    commit_limits(self, &l, &c, &outcome);
    commit_session(self, &c, &outcome);
    (void)kest_gate_rates_sweep(self->rates->rates, c.now.steady_ns, SWEEP);
    return with_limits(verdict_of(self, ctx, &c, &outcome), &c);
}

/* ---- with stores elsewhere ---- */

typedef struct remote {
    PyObject *answers, *needed; /* dict of bool by number of the limit; list */
    bool failed;
} remote;

static kest_tri ask_remote(void *self, const kest_gate_case *c, uint32_t limit)
{
    PyObject *number = PyLong_FromUnsignedLong(limit), *answer;
    remote *r = self;
    kest_tri result = KEST_TRUE; /* until somebody says otherwise */

    (void)c;
    answer = number ? PyDict_GetItemWithError(r->answers, number) : NULL;
    if (answer)
        result = answer == Py_True ? KEST_TRUE : KEST_FALSE;
    else if (!number || PyErr_Occurred() || PyList_Append(r->needed, number) < 0)
        r->failed = true;
    Py_XDECREF(number);
    return result;
}

/* (known, revoked, age in seconds, actions, ip, geo, device), the last three as of the start, or None. */
static int read_session(GateObject *self, PyObject *tuple, kest_gate_session *out)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *ip, *geo, *device;
    unsigned long long actions;
    int known, revoked;
    double age;
    kest_str text = {NULL, 0};

    *out = (kest_gate_session){0};
    if (tuple == Py_None)
        return 0;
    if (!PyTuple_Check(tuple) || !PyArg_ParseTuple(tuple, "pidKOOO", &known, &revoked, &age, &actions, &ip, &geo, &device))
        return -1;
    out->known = known;
    out->revoked = revoked >= 0 && revoked <= 3 ? (uint8_t)revoked : 1;
    out->age_ns = age > 0 && age < 4e9 ? (int64_t)(age * 1e9) : age >= 4e9 ? INT64_MAX : 0;
    out->actions = actions;
    if (ip != Py_None && (kest_gate_text(state, ip, "ip", &text) < 0 || !kest_gate_ip_read(text, &out->ip)))
        return -1;
    if (geo != Py_None && kest_gate_read_geo(state, geo, "geo", &out->geo) < 0)
        return -1;
    if (device != Py_None && kest_gate_text(state, device, "device", &text) < 0)
        return -1;
    if (device != Py_None)
        kest_gate_name(text, out->device);
    out->has_device = device != Py_None;
    return 0;
}

static PyObject *consulted_tuple(const kest_gate_scratch *scratch)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)scratch->nlimits), *number;

    for (size_t i = 0; tuple && i < scratch->nlimits; i++) {
        if ((number = PyLong_FromUnsignedLong(scratch->limits[i])))
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, number);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static int prepare_with(GateObject *self, kest_gate_case *c, PyObject *session, kest_gate_session *out)
{
    if (session == Py_Ellipsis) {
        kest_gate_sessions_look(self->sessions->sessions, c->ctx, c->now, out);
    } else if (read_session(self, session, out) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a session store returned an address that is none");
        return -1;
    }
    kest_gate_prepare(c);
    return 0;
}

static PyObject *gate_evaluate_with(GateObject *self, PyObject *args)
{
    PyObject *given, *known, *answers, *verdict = NULL, *consulted = NULL;
    kest_gate_local l = {.rates = self->rates->rates};
    remote r = {.needed = NULL};
    kest_gate_session session;
    kest_gate_outcome outcome;
    ContextObject *ctx;
    kest_gate_case c;

    if (!PyArg_ParseTuple(args, "OOO:evaluate_with", &given, &known, &answers) ||
        !(ctx = check_context(kest_state_of((PyObject *)self), given)))
        return NULL;
    if (answers != Py_Ellipsis && !PyDict_Check(answers))
        return PyErr_Format(PyExc_TypeError, "answers is a dict, or ... for the store in memory");
    c = case_of(self, ctx, &session);
    c.limiter = answers == Py_Ellipsis ? kest_gate_limits_ask : ask_remote;
    c.limiter_self = answers == Py_Ellipsis ? (void *)&l : (void *)&r;
    r.answers = answers;
    if (!(r.needed = PyList_New(0)) || prepare_with(self, &c, known, &session) < 0)
        goto done;
    if (kest_gate_decide(&c, &outcome) != KEST_OK || r.failed || !(consulted = consulted_tuple(&self->scratch))) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        goto done;
    }
    if (l.failed && outcome.verdict == KEST_PERMIT)
        refuse(&outcome, KEST_WHY_RATE_BACKEND);
    if (answers == Py_Ellipsis)
        commit_limits(self, &l, &c, &outcome);
    if (known == Py_Ellipsis && PyList_GET_SIZE(r.needed) == 0)
        commit_session(self, &c, &outcome);
    verdict = verdict_of(self, ctx, &c, &outcome);
    if (answers == Py_Ellipsis)
        verdict = with_limits(verdict, &c);
    if (verdict)
        verdict = Py_BuildValue("NOO", verdict, r.needed, consulted);
done:
    Py_XDECREF(consulted);
    Py_XDECREF(r.needed);
    return verdict;
}

/* ---- second thoughts ---- */

static PyObject *gate_take_back(GateObject *self, PyObject *given)
{
    kest_gate_local l = {.rates = self->rates->rates};
    kest_gate_session session;
    VerdictObject *verdict;
    kest_gate_case c;

    if (Py_TYPE(given) != kest_state_of((PyObject *)self)->verdict_type)
        return PyErr_Format(PyExc_TypeError, "take_back() takes a Verdict");
    verdict = (VerdictObject *)given;
    if (verdict->kind != KEST_PERMIT || self->observe)
        Py_RETURN_NONE;
    c = case_of(self, verdict->ctx, &session);
    c.set = verdict->set->set; /* policies may have been reloaded since */
    for (; verdict->nlimits; verdict->nlimits--)
        kest_gate_limits_undo(&l, &c, verdict->limits[verdict->nlimits - 1]);
    kest_gate_sessions_undo(self->sessions->sessions, c.ctx);
    Py_RETURN_NONE;
}

/* ---- explanation ---- */

static PyObject *gate_explain(GateObject *self, PyObject *args)
{
    kest_state *state = kest_state_of((PyObject *)self);
    kest_gate_local l = {.rates = self->rates->rates};
    const kest_gate_policy *policy;
    kest_gate_session session;
    PyObject *given, *bytes;
    ContextObject *ctx;
    unsigned int i;
    kest_gate_case c;

    if (!PyArg_ParseTuple(args, "OI:explain", &given, &i) || !(ctx = check_context(state, given)))
        return NULL;
    if (i >= self->set->set->npolicies)
        return PyErr_Format(PyExc_IndexError, "there is no policy %u", i);
    c = case_of(self, ctx, &session);
    c.limiter = kest_gate_limits_ask;
    c.limiter_self = &l;
    kest_gate_sessions_look(self->sessions->sessions, c.ctx, c.now, &session);
    kest_gate_prepare(&c);
    if (kest_gate_make_room(&self->scratch, c.set) != KEST_OK)
        return PyErr_NoMemory();
    policy = &c.set->policies[i];
    if (!(bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)policy->count)))
        return NULL;
    for (uint32_t n = 0; n < policy->count; n++) {
        self->scratch.nlimits = 0;
        PyBytes_AS_STRING(bytes)[n] = (char)kest_gate_test(&c, policy->first + n);
    }
    return bytes;
}

static PyObject *gate_replace(GateObject *self, PyObject *set)
{
    if ((PyTypeObject *)Py_TYPE(set) != kest_state_of((PyObject *)self)->set_type || !((SetObject *)set)->set->sealed)
        return PyErr_Format(PyExc_TypeError, "a sealed GatePolicySet is needed");
    Py_SETREF(self->set, (SetObject *)Py_NewRef(set));
    Py_RETURN_NONE;
}

static PyObject *gate_set_clock(GateObject *self, PyObject *args)
{
    long long wall_ns = 0, steady_ns = 0;
    PyObject *wall, *steady;

    if (!PyArg_ParseTuple(args, "OO:set_clock", &wall, &steady) ||
        (wall != Py_None && !PyArg_ParseTuple(args, "LL:set_clock", &wall_ns, &steady_ns)))
        return NULL;
    self->fixed = wall != Py_None;
    self->at = (kest_gate_time){wall_ns, steady_ns};
    Py_RETURN_NONE;
}

static PyObject *gate_clock(GateObject *self, PyObject *unused)
{
    const kest_gate_time now = self->fixed ? self->at : kest_gate_now();

    (void)unused;
    return Py_BuildValue("LL", (long long)now.wall_ns, (long long)now.steady_ns);
}

static PyObject *get_policies(GateObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->set);
}

static PyMethodDef gate_methods[] = {
    {"evaluate", (PyCFunction)gate_evaluate, METH_O, "evaluate(context, /)\n--\n\nThe Verdict. Counts, opens sessions and invalidates "
     "in the stores in memory."},
    {"evaluate_with", (PyCFunction)gate_evaluate_with, METH_VARARGS,
     "evaluate_with(context, session, answers, /)\n--\n\n(verdict, limits still unanswered, limits consulted). session: None or (known, "
     "revoked, age in seconds, actions, ip, geo, device hash); answers: whether there is room, by number of the limit. ... in place of either "
     "goes to the store in memory, and records there once nothing is unanswered."},
    {"take_back", (PyCFunction)gate_take_back, METH_O,
     "take_back(verdict, /)\n--\n\nA permit is refused after all: takes it out of the counters in memory, once."},
    {"explain", (PyCFunction)gate_explain, METH_VARARGS,
     "explain(context, policy, /)\n--\n\nFor each node of a policy, in preorder: 0 false, 1 true, 2 unknown. Changes nothing."},
    {"replace", (PyCFunction)gate_replace, METH_O, "replace(policies, /)\n--\n\nEvaluates against another set from now on."},
    {"set_clock", (PyCFunction)gate_set_clock, METH_VARARGS,
     "set_clock(wall_ns, steady_ns, /)\n--\n\nStops the clocks of this gate at these times; None, None lets them go."},
    {"clock", (PyCFunction)gate_clock, METH_NOARGS, "clock()\n--\n\n(Unix time, steady time), both in nanoseconds."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef gate_getset[] = {
    {"policies", (getter)get_policies, NULL, "The GatePolicySet in force.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot gate_slots[] = {
    {Py_tp_new, gate_new},
    {Py_tp_dealloc, gate_dealloc},
    {Py_tp_methods, gate_methods},
    {Py_tp_getset, gate_getset},
    {Py_tp_doc, "GateCore(policies, rates, sessions, invariants, drift, max_km, max_actions, observe, ttl, settings)\n--\n\n"
                "The part of kest.gate.Gate that decides."},
    {0, NULL},
};

PyType_Spec kest_gate_spec = {"kest._kestcore.GateCore", sizeof(GateObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                              gate_slots};
