/* py_entry.c: KestEntry, one entry before it is signed. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/b64url.h"
#include "../core/entry.h"
#include "../core/uuid7.h"

#include <structmember.h>

typedef struct EntryObject {
    PyObject_HEAD
    PyObject *operation, *classification, *parent_ids, *labels, *added_taints, *removed_taints, *taints;
    PyObject *policy_context, *input_hash, *entry_id;
    long long timestamp_ms;
    int trust_score;
} EntryObject;

static int entry_traverse(EntryObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->labels);
    Py_VISIT(self->policy_context);
    Py_VISIT(self->parent_ids);
    Py_VISIT(self->added_taints);
    Py_VISIT(self->removed_taints);
    Py_VISIT(self->taints);
    return 0;
}

static int entry_clear(EntryObject *self)
{
    Py_CLEAR(self->operation);
    Py_CLEAR(self->classification);
    Py_CLEAR(self->parent_ids);
    Py_CLEAR(self->labels);
    Py_CLEAR(self->added_taints);
    Py_CLEAR(self->removed_taints);
    Py_CLEAR(self->taints);
    Py_CLEAR(self->policy_context);
    Py_CLEAR(self->input_hash);
    Py_CLEAR(self->entry_id);
    return 0;
}

static void entry_dealloc(EntryObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    entry_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* A tuple of the distinct items in ascending order. */
static PyObject *sorted_tuple(PyObject *items, const char *what)
{
    PyObject *set, *list, *tuple = NULL;

    if (PyUnicode_Check(items)) {
        PyErr_Format(PyExc_TypeError, "%s is a sequence of str, not a single str", what);
        return NULL;
    }
    if (PyTuple_CheckExact(items) && (PyTuple_GET_SIZE(items) == 0 ||
                                      (PyTuple_GET_SIZE(items) == 1 && PyUnicode_Check(PyTuple_GET_ITEM(items, 0)) &&
                                       PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(items, 0)) > 0)))
        return Py_NewRef(items); /* the usual cases are in order as they are */
    set = PyFrozenSet_New(items);
    list = set ? PySequence_List(set) : NULL;
    Py_XDECREF(set);
    if (list && PyList_Sort(list) == 0) {
        tuple = PyList_AsTuple(list);
        for (Py_ssize_t i = 0; tuple && i < PyTuple_GET_SIZE(tuple); i++) {
            PyObject *item = PyTuple_GET_ITEM(tuple, i);

            if (!PyUnicode_Check(item) || PyUnicode_GET_LENGTH(item) == 0) {
                PyErr_Format(PyExc_TypeError, "%s holds non-empty str only", what);
                Py_CLEAR(tuple);
            }
        }
    }
    Py_XDECREF(list);
    return tuple;
}

/* A dict of the entry's own. */
static PyObject *copied_labels(PyObject *labels)
{
    PyObject *own;

    if (labels != Py_None && !PyObject_HasAttrString(labels, "keys"))
        return PyErr_Format(PyExc_TypeError, "labels is a mapping of str to str, not %s", Py_TYPE(labels)->tp_name);
    own = PyDict_New();
    if (own && labels != Py_None && PyDict_Update(own, labels) < 0)
        Py_CLEAR(own);
    return own;
}

static PyObject *default_context(void)
{
    return Py_BuildValue("{s:[],s:[],s:[],s:[],s:[]}", "enterprise_policies", "platform_policies", "app_policies",
                         "function_policies", "deviations");
}

static int entry_init_id(EntryObject *self, PyObject *entry_id, PyObject *timestamp)
{
    uint8_t id[KEST_UUID_LEN];
    int64_t now;

    kest_uuid7(id, &now);
    self->entry_id = entry_id != Py_None ? Py_NewRef(entry_id) : PyUnicode_FromStringAndSize((const char *)id, sizeof id);
    self->timestamp_ms = now;
    if (timestamp != Py_None) {
        self->timestamp_ms = PyLong_AsLongLong(timestamp);
        if (self->timestamp_ms == -1 && PyErr_Occurred())
            return -1;
        if (self->timestamp_ms < 0) {
            PyErr_SetString(PyExc_ValueError, "timestamp_ms is not negative");
            return -1;
        }
    }
    return self->entry_id ? 0 : -1;
}

static int check_trust(PyObject *trust, int *out)
{
    long value = -1;

    if (PyLong_Check(trust) && !PyBool_Check(trust))
        value = PyLong_AsLong(trust);
    if (value == -1 && PyErr_Occurred())
        PyErr_Clear();
    if (value < 0 || value > KEST_MAX_TRUST) {
        PyErr_SetString(PyExc_ValueError, "trust_score is an int from 0 to 100");
        return -1;
    }
    *out = (int)value;
    return 0;
}

static PyObject *entry_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"operation", "trust_score", "classification", "parent_ids", "labels", "added_taints",
                            "removed_taints", "taints", "policy_context", "input_hash", "entry_id", "timestamp_ms", NULL};
    PyObject *operation, *trust = NULL, *class = NULL, *parents = NULL, *labels = Py_None, *added = NULL, *removed = NULL;
    PyObject *taints = NULL, *context = Py_None, *input = NULL, *id = Py_None, *time = Py_None, *empty = PyTuple_New(0);
    EntryObject *self = (EntryObject *)type->tp_alloc(type, 0);

    if (!self || !empty ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "U|$OUOOOOOOUOO:KestEntry", names, &operation, &trust, &class, &parents,
                                     &labels, &added, &removed, &taints, &context, &input, &id, &time))
        goto fail;
    self->trust_score = KEST_MAX_TRUST;
    if (trust && check_trust(trust, &self->trust_score) < 0)
        goto fail;
    self->operation = Py_NewRef(operation);
    self->classification = class ? Py_NewRef(class) : PyUnicode_FromString("system");
    self->parent_ids = parents ? PySequence_Tuple(parents) : Py_BuildValue("(s)", "0");
    self->labels = self->parent_ids ? copied_labels(labels) : NULL;
    self->added_taints = self->labels ? sorted_tuple(added ? added : empty, "added_taints") : NULL;
    self->removed_taints = self->added_taints ? sorted_tuple(removed ? removed : empty, "removed_taints") : NULL;
    self->taints = self->removed_taints ? sorted_tuple(taints ? taints : empty, "taints") : NULL;
    self->policy_context = context != Py_None ? Py_NewRef(context) : default_context();
    self->input_hash = input ? Py_NewRef(input) : PyUnicode_FromString("");
    if (!self->classification || !self->parent_ids || !self->labels || !self->taints || !self->policy_context ||
        !self->input_hash || entry_init_id(self, id, time) < 0)
        goto fail;
    Py_DECREF(empty);
    return (PyObject *)self;
fail:
    Py_XDECREF(empty);
    Py_XDECREF(self);
    return NULL;
}

/* --- the payload --- */

/* Parents as raw hashes; ("0",) is none. */
static int parent_hashes(kest_state *state, PyObject *ids, uint8_t **out, size_t *count)
{
    const size_t n = (size_t)PyTuple_GET_SIZE(ids);
    kest_str text;

    *out = NULL;
    *count = 0;
    if (n == 1 && PyUnicode_Check(PyTuple_GET_ITEM(ids, 0)) &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(ids, 0), "0") == 0)
        return 0;
    if (!(*out = kest_calloc(n, KEST_HASH_LEN)))
        return PyErr_NoMemory(), -1;
    for (size_t i = 0; i < n; i++) {
        if (kest_str_view(state, PyTuple_GET_ITEM(ids, (Py_ssize_t)i), "a parent id", &text) < 0)
            goto fail;
        if (text.len != KEST_HASH_HEX || kest_unhex(text.data, KEST_HASH_LEN, *out + i * KEST_HASH_LEN) != KEST_OK) {
            PyErr_SetString(state->passport_error,
                            "parent_ids is (\"0\",) for a root, else lower-case hex SHA-256 of each parent's JWS");
            goto fail;
        }
    }
    *count = n;
    return 0;
fail:
    kest_free(*out);
    *out = NULL;
    return -1;
}

static int entry_labels(kest_state *state, EntryObject *self, kest_str principal, kest_label **out, size_t *count)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    kest_label *labels = kest_calloc((size_t)PyDict_GET_SIZE(self->labels) + 1, sizeof *labels);
    size_t n = 0;

    if (!labels)
        return PyErr_NoMemory(), -1;
    labels[n++] = (kest_label){{(const uint8_t *)KEST_LABEL_PRINCIPAL, sizeof KEST_LABEL_PRINCIPAL - 1}, principal};
    while (PyDict_Next(self->labels, &pos, &key, &value)) {
        if (kest_str_view(state, key, "a label's name", &labels[n].key) < 0 ||
            kest_str_view(state, value, "a label's value", &labels[n].value) < 0)
            goto fail;
        if (kest_str_compare(labels[n].key, labels[0].key) != 0)
            n++;
        else if (kest_str_compare(labels[n].value, principal) != 0) {
            PyErr_SetString(state->passport_error, "label 'principal' names another identity than the one that signs");
            goto fail;
        }
    }
    *out = labels;
    *count = n;
    return 0;
fail:
    kest_free(labels);
    return -1;
}

static PyObject *entry_payload(EntryObject *self, PyObject *arg)
{
    kest_state *state = kest_state_of((PyObject *)self);
    kest_str room[3][16], *lists[3] = {NULL, NULL, NULL}, principal;
    PyObject *tuples[3] = {self->added_taints, self->removed_taints, self->taints}, *result = NULL;
    size_t counts[3] = {0, 0, 0};
    uint8_t *parents = NULL;
    kest_entry e = {0};
    kest_buf context, payload;
    kest_status st;

    kest_buf_init(&context);
    kest_buf_init(&payload);
    if (kest_str_view(state, arg, "principal", &principal) < 0)
        return NULL;
    for (int i = 0; i < 3; i++)
        if (kest_taint_list(state, tuples[i], room[i], 16, &lists[i], &counts[i]) < 0) {
            lists[i] = NULL;
            goto done;
        }
    e = (kest_entry){.timestamp_ms = self->timestamp_ms, .trust = (uint8_t)self->trust_score,
                     .added = lists[0], .removed = lists[1], .taints = lists[2],
                     .nadded = counts[0], .nremoved = counts[1], .ntaints = counts[2]};
    if (parent_hashes(state, self->parent_ids, &parents, &e.nparents) < 0 ||
        entry_labels(state, self, principal, &e.labels, &e.nlabels) < 0 ||
        kest_str_view(state, self->operation, "operation", &e.operation) < 0 ||
        kest_str_view(state, self->classification, "classification", &e.classification) < 0 ||
        kest_str_view(state, self->input_hash, "input_hash", &e.input_hash) < 0 ||
        kest_str_view(state, self->entry_id, "entry_id", &e.entry_id) < 0 ||
        kest_write_python(state, &context, self->policy_context, NULL, NULL) < 0)
        goto done;
    e.parents = parents;
    e.policy_context = (kest_str){context.data, context.len};
    kest_entry_write(&payload, &e);
    st = payload.status == KEST_OK ? kest_payload_check(payload.data, payload.len) : payload.status;
    if (st == KEST_OK)
        result = PyBytes_FromStringAndSize((const char *)payload.data, (Py_ssize_t)payload.len);
    else
        kest_raise(state, st);
done:
    for (int i = 0; i < 3; i++)
        if (lists[i] && lists[i] != room[i])
            kest_free(lists[i]);
    kest_free(e.labels);
    kest_free(parents);
    kest_buf_free(&context);
    kest_buf_free(&payload);
    return result;
}

static PyObject *entry_repr(EntryObject *self)
{
    return PyUnicode_FromFormat("<KestEntry %R %U trust=%d>", self->operation, self->entry_id, self->trust_score);
}

#define MEMBER(name, doc) {#name, T_OBJECT_EX, offsetof(EntryObject, name), READONLY, doc}
static PyMemberDef entry_members[] = {
    MEMBER(operation, "What was called."),
    MEMBER(classification, "system, data, critic, snapshot or sanitizer."),
    MEMBER(parent_ids, "(\"0\",) for a root, else the hex SHA-256 of each parent's JWS."),
    MEMBER(labels, "str to str; the principal is added when the entry is signed."),
    MEMBER(added_taints, "Taints that begin here, ascending."),
    MEMBER(removed_taints, "Taints that end here, ascending."),
    MEMBER(taints, "All taints after this entry, ascending."),
    MEMBER(policy_context, "Which policies of each tier were evaluated, and the deviations applied."),
    MEMBER(input_hash, "Hex SHA-256 of the canonical arguments, or empty."),
    MEMBER(entry_id, "UUIDv7."),
    {"timestamp_ms", T_LONGLONG, offsetof(EntryObject, timestamp_ms), READONLY, "Unix milliseconds."},
    {"trust_score", T_INT, offsetof(EntryObject, trust_score), READONLY, "0..100."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef entry_methods[] = {
    {"payload", (PyCFunction)entry_payload, METH_O,
     "payload(principal, /)\n--\n\nThe canonical bytes (RFC 8785) that `principal` would sign; PassportError when the entry is "
     "not one that a verifier accepts."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot entry_slots[] = {
    {Py_tp_new, entry_new},
    {Py_tp_dealloc, entry_dealloc},
    {Py_tp_traverse, entry_traverse},
    {Py_tp_clear, entry_clear},
    {Py_tp_repr, entry_repr},
    {Py_tp_members, entry_members},
    {Py_tp_methods, entry_methods},
    {Py_tp_doc,
     "KestEntry(operation, *, trust_score=100, classification='system', parent_ids=('0',), labels=None, added_taints=(), "
     "removed_taints=(), taints=(), policy_context=None, input_hash='', entry_id=None, timestamp_ms=None)\n--\n\n"
     "One entry of a passport before it is signed. Taints are sorted and made distinct."},
    {0, NULL},
};

PyType_Spec kest_entry_spec = {"kest._kestcore.KestEntry", sizeof(EntryObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, entry_slots};
