/* py_gate_set.c: GatePolicySet: compiled policies. kest.gate.compile validates and flattens; this takes over what it made. */
#include "py_gate.h"

#include "../core/alloc.h"

static PyObject *set_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    SetObject *self;

    if (PyTuple_GET_SIZE(args) || (kwargs && PyDict_GET_SIZE(kwargs)))
        return PyErr_Format(PyExc_TypeError, "GatePolicySet() takes no arguments");
    if (!(self = (SetObject *)type->tp_alloc(type, 0)))
        return NULL;
    if (!(self->names = PyList_New(0)) || kest_gate_set_new(&self->set) != KEST_OK) {
        Py_DECREF(self);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void set_dealloc(SetObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    kest_gate_set *set = self->set;

    Py_XDECREF(self->names);
    Py_XDECREF(self->digest);
    type->tp_free(self);
    Py_DECREF(type);
    if (set && set->npolicies > 1000) {
        KEST_GIL_RELEASE
        kest_gate_set_free(set);
        KEST_GIL_RELEASE_END
    } else {
        kest_gate_set_free(set);
    }
}

static PyObject *failed(kest_status st)
{
    if (st == KEST_E_NOMEM)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, "compiled policies are malformed"); /* a defect of kest.gate.compile */
    return NULL;
}

static PyObject *set_add_zone(SetObject *self, PyObject *args)
{
    PyObject *starts, *offsets;
    int64_t *when = NULL;
    int32_t *east = NULL;
    kest_status st = KEST_E_NOMEM;
    Py_ssize_t count;

    if (!PyArg_ParseTuple(args, "O!O!:add_zone", &PyTuple_Type, &starts, &PyTuple_Type, &offsets))
        return NULL;
    count = PyTuple_GET_SIZE(starts);
    if (PyTuple_GET_SIZE(offsets) != count - 1 || self->busy)
        return failed(KEST_E_SCHEMA);
    when = kest_calloc((size_t)count, sizeof *when);
    east = kest_calloc((size_t)count, sizeof *east);
    for (Py_ssize_t i = 0; when && east && i < count && !PyErr_Occurred(); i++) {
        when[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(starts, i));
        if (i < count - 1)
            east[i] = (int32_t)PyLong_AsLong(PyTuple_GET_ITEM(offsets, i));
    }
    if (when && east && !PyErr_Occurred())
        st = kest_gate_set_zone(self->set, when, east, (size_t)count);
    kest_free(when);
    kest_free(east);
    if (PyErr_Occurred())
        return NULL;
    return st == KEST_OK ? Py_NewRef(Py_None) : failed(st);
}

/* Lets others run now and then, while much is read. */
static void give_way(uint32_t done)
{
    if (done % 512 == 511) {
        KEST_GIL_RELEASE
        KEST_GIL_RELEASE_END
    }
}

/* Texts and numbers of a node, which the set copies. */
static int read_lists(kest_state *state, PyObject *texts, PyObject *numbers, kest_gate_node *node, kest_str **t, double **n)
{
    node->ntexts = (uint32_t)PyTuple_GET_SIZE(texts);
    node->nnumbers = (uint32_t)PyTuple_GET_SIZE(numbers);
    *t = node->ntexts ? kest_calloc(node->ntexts, sizeof **t) : NULL;
    *n = node->nnumbers ? kest_calloc(node->nnumbers, sizeof **n) : NULL;
    if ((node->ntexts && !*t) || (node->nnumbers && !*n)) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < node->ntexts; i++, give_way(i))
        if (kest_gate_text(state, PyTuple_GET_ITEM(texts, i), "a value", &(*t)[i]) < 0)
            return -1;
    for (uint32_t i = 0; i < node->nnumbers; i++, give_way(i)) {
        (*n)[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(numbers, i));
        if (PyErr_Occurred())
            return -1;
    }
    node->texts = *t;
    node->numbers = *n;
    return 0;
}

static int add_node(kest_state *state, SetObject *self, PyObject *item)
{
    PyObject *text, *field, *texts, *numbers;
    kest_gate_node node = {0};
    long long integer, until;
    double *number_list = NULL;
    kest_str *text_list = NULL, name;
    unsigned int op, mode, size, ref;
    kest_status st = KEST_E_SCHEMA;
    int rc = -1;

    if (!PyTuple_Check(item)) {
        failed(KEST_E_SCHEMA);
        return -1;
    }
    if (!PyArg_ParseTuple(item, "IIIIUUdLLO!O!", &op, &size, &mode, &ref, &text, &field, &node.number,
                                                  &integer, &until, &PyTuple_Type, &texts, &PyTuple_Type, &numbers))
        return -1;
    node.op = (uint8_t)op;
    node.size = size;
    node.mode = (uint8_t)mode;
    node.ref = ref;
    node.integer = integer;
    node.until = until;
    if (op < KEST_OP_COUNT && mode <= 3 && kest_gate_text(state, text, "a text", &node.text) == 0 &&
        kest_gate_text(state, field, "a field", &name) == 0 &&
        read_lists(state, texts, numbers, &node, &text_list, &number_list) == 0) {
        if (node.ntexts > 512) {
            KEST_GIL_RELEASE /* the tuple keeps the texts, and `busy` keeps others off the set */
            st = kest_gate_set_node(self->set, &node, name);
            KEST_GIL_RELEASE_END
        } else {
            st = kest_gate_set_node(self->set, &node, name);
        }
        rc = st == KEST_OK ? 0 : -1;
    }
    kest_free(text_list);
    kest_free(number_list);
    if (rc < 0 && !PyErr_Occurred())
        failed(st);
    return rc;
}

static PyObject *set_add(SetObject *self, PyObject *args)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *name, *nodes;
    bool ok = true;
    kest_status st;
    kest_str text;
    int permit;

    if (!PyArg_ParseTuple(args, "UpO!:add", &name, &permit, &PyTuple_Type, &nodes) ||
        kest_gate_text(state, name, "the name of a policy", &text) < 0)
        return NULL;
    if (self->set->sealed || self->busy)
        return failed(KEST_E_SCHEMA);
    if ((st = kest_gate_set_policy(self->set, text, permit)) != KEST_OK)
        return failed(st);
    self->busy = true;
    for (Py_ssize_t i = 0; ok && i < PyTuple_GET_SIZE(nodes); i++, give_way((uint32_t)i * 8 + 7))
        ok = add_node(state, self, PyTuple_GET_ITEM(nodes, i)) == 0;
    self->busy = false;
    if (!ok || PyList_Append(self->names, name) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *set_seal(SetObject *self, PyObject *args)
{
    PyObject *names, *digest = NULL;
    kest_status st;

    if (!PyArg_ParseTuple(args, "|U:seal", &digest))
        return NULL;
    if (self->set->sealed || self->busy)
        return failed(KEST_E_SCHEMA);
    if (!(names = PyList_AsTuple(self->names)))
        return NULL;
    Py_SETREF(self->names, names);
    Py_XSETREF(self->digest, Py_XNewRef(digest));
    self->busy = true;
    KEST_GIL_RELEASE /* sorting many policies takes a while */
    st = kest_gate_set_seal(self->set);
    KEST_GIL_RELEASE_END
    self->busy = false;
    return st == KEST_OK ? Py_NewRef(self) : failed(st);
}

static PyObject *get_names(SetObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->names);
}

static PyObject *get_limits(SetObject *self, void *unused)
{
    const kest_gate_set *set = self->set;
    PyObject *limits = PyTuple_New((Py_ssize_t)set->nlimits), *item;

    (void)unused;
    for (size_t i = 0; limits && i < set->nlimits; i++) {
        const kest_gate_limit *limit = &set->limits[i];

        item = Py_BuildValue("OILO", PySequence_Fast_GET_ITEM(self->names, (Py_ssize_t)limit->policy), (unsigned int)limit->most,
                             (long long)limit->window_ns, limit->count_refused ? Py_True : Py_False);
        if (item)
            PyTuple_SET_ITEM(limits, (Py_ssize_t)i, item);
        else
            Py_CLEAR(limits);
    }
    return limits;
}

static Py_ssize_t set_length(SetObject *self)
{
    return (Py_ssize_t)self->set->npolicies;
}

static PyMethodDef set_methods[] = {
    {"add_zone", (PyCFunction)set_add_zone, METH_VARARGS,
     "add_zone(starts, offsets, /)\n--\n\nA time zone: offsets[i] seconds east from starts[i] (Unix seconds) until starts[i + 1]."},
    {"add", (PyCFunction)set_add, METH_VARARGS,
     "add(name, permit, nodes, /)\n--\n\nA policy, asked after those added before. Each node is (op, size, mode, ref, text, field, number, "
     "integer, until, texts, numbers)."},
    {"seal", (PyCFunction)set_seal, METH_VARARGS,
     "seal(digest=None, /)\n--\n\nChecks and indexes; nothing can be added after it. digest: of the policies, for verdicts to show. Returns the set."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef set_getset[] = {
    {"names", (getter)get_names, NULL, "Names of the policies, in the order in which they are asked.", NULL},
    {"limits", (getter)get_limits, NULL, "Rate limits: (policy, most, window in ns, whether refused calls count).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot set_slots[] = {
    {Py_tp_new, set_new},
    {Py_tp_dealloc, set_dealloc},
    {Py_tp_methods, set_methods},
    {Py_tp_getset, set_getset},
    {Py_sq_length, set_length},
    {Py_tp_doc, "GatePolicySet()\n--\n\nCompiled policies, immutable once sealed."},
    {0, NULL},
};

PyType_Spec kest_set_spec = {"kest._kestcore.GatePolicySet", sizeof(SetObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                             set_slots};
