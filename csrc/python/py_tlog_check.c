/* py_tlog_check.c: RecordKeys, and the verification of many records at once. */
#include "py_tlog.h"

#include "../core/alloc.h"
#include "../core/parallel.h"

_Static_assert(sizeof(kest_record_facts) == 48, "facts are read by others as 48 bytes");

static int take_key(kest_state *state, PyObject *pair, kest_text **principal, kest_pubkey **key)
{
    PyObject *name, *object;
    kest_str text;
    kest_status st;

    if (!PyTuple_Check(pair)) {
        PyErr_SetString(PyExc_TypeError, "keys are pairs of a principal and a PublicKey");
        return -1;
    }
    if (!PyArg_ParseTuple(pair, "UO!", &name, state->pubkey_type, &object) || kest_str_view(state, name, "principal", &text) < 0)
        return -1;
    *key = ((PubkeyObject *)object)->key;
    if ((st = kest_text_new(text.data, text.len, principal)) != KEST_OK) {
        kest_raise(state, st);
        return -1;
    }
    return 0;
}

static PyObject *keys_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *argnames[] = {"keys", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *given, *pairs;
    RecordKeysObject *self = NULL;
    kest_text **names = NULL;
    kest_pubkey **keys = NULL;
    size_t count, taken = 0;
    kest_status st;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:RecordKeys", argnames, &given) || !(pairs = PySequence_Tuple(given)))
        return NULL;
    count = (size_t)PyTuple_GET_SIZE(pairs);
    names = kest_calloc(count, sizeof *names);
    keys = kest_calloc(count, sizeof *keys);
    if (!names || !keys) {
        PyErr_NoMemory();
        goto done;
    }
    for (; taken < count; taken++)
        if (take_key(state, PyTuple_GET_ITEM(pairs, (Py_ssize_t)taken), &names[taken], &keys[taken]) < 0)
            goto done;
    self = (RecordKeysObject *)type->tp_alloc(type, 0);
    if (self && (st = kest_record_keys_set(&self->keys, names, keys, count)) != KEST_OK) {
        if (st == KEST_E_LIMIT)
            PyErr_Format(PyExc_ValueError, "at most %d keys", KEST_MOST_RECORD_KEYS);
        else
            kest_raise(state, st);
        Py_CLEAR(self);
    }
done:
    while (taken)
        kest_text_unref(names[--taken]);
    kest_free(names);
    kest_free(keys);
    Py_DECREF(pairs);
    return (PyObject *)self;
}

static void keys_dealloc(RecordKeysObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_record_keys_clear(&self->keys);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t keys_length(RecordKeysObject *self)
{
    return (Py_ssize_t)self->keys.count;
}

static PyType_Slot keys_slots[] = {
    {Py_tp_new, keys_new},
    {Py_tp_dealloc, keys_dealloc},
    {Py_mp_length, keys_length},
    {Py_tp_doc, "RecordKeys(keys)\n--\n\nAn immutable list of (principal, PublicKey), for tlog_check: facts name a key by its place in it."},
    {0, NULL},
};

PyType_Spec kest_record_keys_spec = {"kest._kestcore.RecordKeys", sizeof(RecordKeysObject), 0,
                                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, keys_slots};

typedef struct checking {
    kest_str *records;
    size_t count, cap;
    const kest_record_keys *keys;
    uint8_t *hashes, *facts;
    atomic_int status;
} checking;

static kest_status note(checking *c, kest_str record)
{
    if (c->count == c->cap) {
        const size_t cap = c->cap ? 2 * c->cap : 1024;
        kest_str *grown = kest_realloc(c->records, cap * sizeof *grown);

        if (!grown)
            return KEST_E_NOMEM;
        c->records = grown;
        c->cap = cap;
    }
    c->records[c->count++] = record;
    return KEST_OK;
}

/* Finds the records of every bundle. */
static kest_status lay_out(checking *c, PyObject *bundles)
{
    kest_status st = KEST_OK;

    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bundles) && st == KEST_OK; i++) {
        PyObject *bundle = PyTuple_GET_ITEM(bundles, i);
        const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(bundle);
        const size_t len = (size_t)PyBytes_GET_SIZE(bundle);
        kest_str record;
        size_t at = 0;

        while (st == KEST_OK && kest_bundle_next(data, len, &at, &record))
            st = note(c, record);
        if (st == KEST_OK && at != len)
            st = KEST_E_SCHEMA;
    }
    return st;
}

static void check_one(void *context, size_t i, void *scratch)
{
    checking *c = context;
    const kest_str record = c->records[i];
    uint8_t *copy = (uint8_t *)scratch + 1;
    kest_record_facts facts;
    kest_status st;

    if (record.len)
        memcpy(copy, record.data, record.len);
    st = kest_tlog_leaf(copy, record.len, c->hashes + i * KEST_HASH_LEN);
    kest_record_check((kest_str){copy, record.len}, c->keys, &facts);
    memcpy(c->facts + i * sizeof facts, &facts, sizeof facts);
    if (st == KEST_OK && (facts.status == KEST_E_NOMEM || facts.status == KEST_E_CRYPTO))
        st = (kest_status)facts.status;
    if (st != KEST_OK)
        atomic_store(&c->status, (int)st);
}

PyObject *kest_tlog_check(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    PyObject *given, *keys, *bundles, *hashes = NULL, *facts = NULL, *result = NULL;
    unsigned threads = 0;
    checking c = {0};
    kest_status st;

    if (!PyArg_ParseTuple(args, "OO!|I:tlog_check", &given, state->record_keys_type, &keys, &threads) ||
        !(bundles = PySequence_Tuple(given)))
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bundles); i++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(bundles, i))) {
            PyErr_SetString(PyExc_TypeError, "bundles are bytes");
            goto done;
        }
    c.keys = &((RecordKeysObject *)keys)->keys;
    if ((st = lay_out(&c, bundles)) != KEST_OK) {
        kest_tlog_raise(state, st);
        goto done;
    }
    hashes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(c.count * KEST_HASH_LEN));
    facts = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(c.count * sizeof(kest_record_facts)));
    if (!hashes || !facts)
        goto done;
    c.hashes = (uint8_t *)PyBytes_AS_STRING(hashes);
    c.facts = (uint8_t *)PyBytes_AS_STRING(facts);
    KEST_GIL_RELEASE
    st = kest_parallel(c.count, 16, threads ? threads : kest_processors(), 1 + KEST_TLOG_MAX_RECORD, check_one, &c);
    KEST_GIL_RELEASE_END
    if (st == KEST_OK)
        st = (kest_status)atomic_load(&c.status);
    if (st != KEST_OK)
        kest_tlog_raise(state, st);
    else
        result = PyTuple_Pack(2, hashes, facts);
done:
    Py_XDECREF(hashes);
    Py_XDECREF(facts);
    Py_DECREF(bundles);
    kest_free(c.records);
    return result;
}

PyObject *kest_py_record_check(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    kest_record_facts facts;
    uint8_t *copy;
    PyObject *keys;
    Py_buffer view;

    if (!PyArg_ParseTuple(args, "y*O!:record_check", &view, state->record_keys_type, &keys))
        return NULL;
    copy = kest_malloc((size_t)view.len);
    if (copy) {
        if (view.len)
            memcpy(copy, view.buf, (size_t)view.len);
        KEST_GIL_RELEASE
        kest_record_check((kest_str){copy, (size_t)view.len}, &((RecordKeysObject *)keys)->keys, &facts);
        KEST_GIL_RELEASE_END
        kest_free(copy);
    }
    PyBuffer_Release(&view);
    if (!copy || facts.status == KEST_E_NOMEM)
        return PyErr_NoMemory();
    return PyBytes_FromStringAndSize((const char *)&facts, sizeof facts);
}

PyObject *kest_py_status_text(PyObject *module, PyObject *arg)
{
    const long status = PyLong_AsLong(arg);

    (void)module;
    if (status == -1 && PyErr_Occurred())
        return NULL;
    return PyUnicode_FromString(kest_strerror((kest_status)status));
}
