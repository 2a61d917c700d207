/* py_known.c: KnownEntries, what verified before under one ring of keys. */
#include "py_known.h"

#include "../core/alloc.h"
#include "../core/known.h"

#include <string.h>

/* Inflating and parsing longer things is worth a release of the lock. Whatever touches `known` holds it. */
enum { RELEASE_FROM = 16384, DENSE_RELEASE_FROM = 16 };

typedef struct KnownObject {
    PyObject_HEAD
    PyObject *ring; /* the KeyRing that the entries verified under */
    kest_known *known;
} KnownObject;

static PyObject *known_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ring", "capacity", "max_bytes", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *ring;
    Py_ssize_t capacity = 16384, max_bytes = (Py_ssize_t)32 * 1024 * 1024;
    KnownObject *self;
    kest_status st;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|nn:KnownEntries", names, state->keyring_type, &ring, &capacity,
                                     &max_bytes))
        return NULL;
    if (capacity < 2 || capacity > 1 << 24 || max_bytes < 0) {
        PyErr_SetString(PyExc_ValueError, "capacity is from 2 to 2**24 entries, max_bytes not negative");
        return NULL;
    }
    self = (KnownObject *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->ring = Py_NewRef(ring);
    if ((st = kest_known_new((size_t)capacity, (size_t)max_bytes, &self->known)) != KEST_OK) {
        kest_raise(state, st);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void known_dealloc(KnownObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->ring); /* a KeyRing refers to nothing, so no cycle can form */
    kest_known_free(self->known);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t known_length(KnownObject *self)
{
    return (Py_ssize_t)kest_known_count(self->known);
}

/* --- unpack --- */

static PyObject *refused_text(kest_state *state, kest_status st, kest_known_caps limit, size_t error_at)
{
    if (st == KEST_E_LIMIT)
        return PyErr_Format(state->baggage_error, "a passport of more than %zu entries or %zu bytes", limit.entries,
                            limit.bytes);
    return kest_raise_passport_text(state, st, error_at);
}

static kest_status read_text(kest_known *known, kest_str text, kest_known_caps limit, kest_builder *b, size_t *error_at)
{
    size_t taken;
    kest_status st;

    *error_at = 0;
    if (text.len > limit.bytes)
        return KEST_E_LIMIT;
    if ((st = kest_known_prefix(known, text, limit.entries, b, &taken)) != KEST_OK)
        return st;
    if (text.len - taken < RELEASE_FROM)
        return kest_known_rest(text, taken, limit.entries, b, error_at);
    KEST_GIL_RELEASE
    st = kest_known_rest(text, taken, limit.entries, b, error_at);
    KEST_GIL_RELEASE_END
    return st;
}

static PyObject *unpack_text(KnownObject *self, kest_state *state, kest_str text, kest_known_caps limit)
{
    size_t error_at;
    kest_builder b;
    kest_status st;

    kest_builder_init(&b);
    if ((st = read_text(self->known, text, limit, &b, &error_at)) == KEST_OK)
        return kest_passport_from_builder(state, &b);
    kest_builder_free(&b);
    return refused_text(state, st, limit, error_at);
}

static PyObject *unpack_z(KnownObject *self, kest_state *state, kest_str packed, kest_known_caps limit)
{
    size_t error_at = 0;
    kest_status st;
    kest_builder b;
    kest_buf json;

    kest_builder_init(&b);
    kest_buf_init(&json);
    if (packed.len < RELEASE_FROM) {
        st = kest_unpack_z(packed.data, packed.len, limit.bytes, &json);
    } else {
        KEST_GIL_RELEASE
        st = kest_unpack_z(packed.data, packed.len, limit.bytes, &json);
        KEST_GIL_RELEASE_END
    }
    if (st == KEST_OK)
        st = read_text(self->known, (kest_str){json.data, json.len}, limit, &b, &error_at);
    kest_buf_free(&json);
    if (st == KEST_OK)
        return kest_passport_from_builder(state, &b);
    kest_builder_free(&b);
    return kest_raise_unpacking(state, st);
}

static PyObject *unpack_dense(KnownObject *self, kest_state *state, kest_str packed, kest_known_caps limit)
{
    kest_dense *dense = NULL;
    PyObject *passport = NULL;
    kest_builder b;
    kest_status st;

    kest_builder_init(&b);
    st = kest_dense_open(packed.data, packed.len, limit.bytes, limit.entries, &dense);
    if (st == KEST_OK)
        st = kest_known_resume(self->known, dense, &b);
    if (st == KEST_OK) {
        if (kest_dense_count(dense) - b.count < DENSE_RELEASE_FROM) {
            st = kest_dense_build(dense, &b);
        } else {
            KEST_GIL_RELEASE
            st = kest_dense_build(dense, &b);
            KEST_GIL_RELEASE_END
        }
    }
    if (st != KEST_OK) {
        kest_builder_free(&b);
        kest_raise_unpacking(state, st);
    } else if ((passport = kest_passport_from_builder(state, &b))) {
        ((PassportObject *)passport)->arrived = dense;
        return passport;
    }
    kest_dense_free(dense);
    return passport;
}

PyObject *kest_known_unpack(PyObject *known, kest_form form, kest_str text, kest_known_caps limit)
{
    kest_state *state = kest_state_of(known);

    switch (form) {
    case KEST_FORM_TEXT: return unpack_text((KnownObject *)known, state, text, limit);
    case KEST_FORM_Z: return unpack_z((KnownObject *)known, state, text, limit);
    case KEST_FORM_DENSE: return unpack_dense((KnownObject *)known, state, text, limit);
    case KEST_FORM_NONE: break;
    }
    PyErr_SetString(PyExc_ValueError, "not a form of a passport");
    return NULL;
}

kest_form kest_form_of(const char *key, size_t len)
{
    static const struct {
        const char *key;
        kest_form form;
    } forms[] = {{"kest.passport", KEST_FORM_TEXT}, {"kest.passport_z", KEST_FORM_Z}, {"kest.passport_d", KEST_FORM_DENSE}};

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strlen(forms[i].key) == len && memcmp(forms[i].key, key, len) == 0)
            return forms[i].form;
    return KEST_FORM_NONE;
}

static PyObject *known_unpack(KnownObject *self, PyObject *args)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *text;
    Py_ssize_t max_bytes, max_entries, start = 0;
    const char *key;
    kest_str view;
    kest_known_caps limit;
    kest_form form;

    if (!PyArg_ParseTuple(args, "sUnn|n:unpack", &key, &text, &max_bytes, &max_entries, &start))
        return NULL;
    if (kest_str_view(state, text, key, &view) < 0)
        return NULL;
    if (start < 0 || (size_t)start > view.len) {
        PyErr_SetString(PyExc_ValueError, "start lies outside the value");
        return NULL;
    }
    view.data += start;
    view.len -= (size_t)start;
    limit = (kest_known_caps){max_bytes > 0 ? (size_t)max_bytes : 0, max_entries > 0 ? (size_t)max_entries : 0};
    if ((form = kest_form_of(key, strlen(key))) == KEST_FORM_NONE)
        return PyErr_Format(PyExc_ValueError, "no form of a passport is called %s", key);
    return kest_known_unpack((PyObject *)self, form, view, limit);
}

/* --- verify --- */

/* Those nodes that are not known, and their places in the passport. */
typedef struct task {
    kest_node **fresh; /* borrowed from what is pinned */
    size_t *places;
    size_t count;
} task;

static void task_free(task *t)
{
    kest_free(t->fresh);
    kest_free(t->places);
}

/* Whether it verified under this ring: as this very node, or as another with its text. */
static bool is_known(const KnownObject *self, const kest_node *node)
{
    return kest_node_vouched(node) == kest_keyring_id(((const KeyringObject *)self->ring)->ring) ||
           kest_known_has(self->known, node);
}

static int task_fill(task *t, const kest_pinned *all, const KnownObject *self)
{
    *t = (task){kest_calloc(all->count + 1, sizeof(kest_node *)), kest_calloc(all->count + 1, sizeof(size_t)), 0};
    if (!t->fresh || !t->places) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < all->count; i++) {
        if (is_known(self, all->nodes[i]))
            continue;
        t->places[t->count] = i;
        t->fresh[t->count++] = all->nodes[i];
    }
    return 0;
}

/* The dense form goes to where the next one like it will be looked for. */
static void keep_arrived(KnownObject *self, PassportObject *passport)
{
    kest_dense *dense = passport->arrived;

    passport->arrived = NULL;
    if (dense && passport->builder && passport->builder->count == kest_dense_count(dense))
        (void)kest_known_keep(self->known, dense, passport->builder);
    else
        kest_dense_free(dense);
}

static PyObject *known_verify(KnownObject *self, PyObject *args)
{
    kest_state *state = kest_state_of((PyObject *)self);
    const uint64_t id = kest_keyring_id(((KeyringObject *)self->ring)->ring);
    PyObject *passport, *result = NULL;
    long threads = 0;
    kest_verdict verdict;
    kest_pinned all;
    task t = {NULL, NULL, 0};

    if (!PyArg_ParseTuple(args, "O!|l:verify", state->passport_type, &passport, &threads))
        return NULL;
    if (kest_passport_pin(state, (PassportObject *)passport, &all) < 0 || task_fill(&t, &all, self) < 0)
        goto done;
    kest_verify_run(state, t.fresh, t.count, ((KeyringObject *)self->ring)->ring, threads, &verdict);
    if (verdict.status != KEST_OK) {
        kest_raise_verification(state, verdict.status, t.places[verdict.index]);
        goto done;
    }
    for (size_t i = 0; i < t.count; i++)
        kest_known_add(self->known, t.fresh[i]);
    for (size_t i = 0; i < all.count; i++) /* what was skipped can be another node of the same text */
        if (kest_node_vouched(all.nodes[i]) != id)
            kest_node_vouch(all.nodes[i], id);
    keep_arrived(self, (PassportObject *)passport);
    result = Py_NewRef(Py_None);
done:
    task_free(&t);
    kest_pinned_drop(&all);
    return result;
}

static PyObject *known_missing(KnownObject *self, PyObject *passport)
{
    kest_state *state = kest_state_of((PyObject *)self);
    kest_pinned all;
    size_t missing = 0;
    int failed;

    if (Py_TYPE(passport) != state->passport_type)
        return PyErr_Format(PyExc_TypeError, "a Passport is needed, not %s", Py_TYPE(passport)->tp_name);
    failed = kest_passport_pin(state, (PassportObject *)passport, &all) < 0;
    for (size_t i = 0; !failed && i < all.count; i++)
        missing += !is_known(self, all.nodes[i]);
    kest_pinned_drop(&all);
    return failed ? NULL : PyLong_FromSize_t(missing);
}

static PyMethodDef known_methods[] = {
    {"unpack", (PyCFunction)known_unpack, METH_VARARGS,
     "unpack(key, value, max_bytes, max_entries, start=0, /)\n--\n\nThe passport in a value (after its first `start` bytes) of kest.passport, kest.passport_z or "
     "kest.passport_d, sharing the entries that it begins with and that are known. Verifies nothing. BaggageError when corrupt or "
     "above a cap."},
    {"verify", (PyCFunction)known_verify, METH_VARARGS,
     "verify(passport, threads=0, /)\n--\n\nVerifies what is not known of a passport, and knows it from then on. "
     "VerificationError as from verify_passport()."},
    {"arrive", (PyCFunction)kest_known_arrive, METH_VARARGS,
     "arrive(header, max_bytes, max_entries, get=None, max_record=0, /)\n--\n\nWhat a baggage header value (bytes) brings, in one go: (passport, "
     "other vendors' members, (kest.user, kest.agent, kest.task)), as read_baggage() and BaggageManager.unpack() would have it; verifies "
     "nothing. `get` is that of a cache in memory, for claim checks. None for whatever is unusual or wrong, which is for them to judge."},
    {"missing", (PyCFunction)known_missing, METH_O, "missing(passport, /)\n--\n\nHow many of its entries verify() would look at."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot known_slots[] = {
    {Py_tp_new, known_new},
    {Py_tp_dealloc, known_dealloc},
    {Py_tp_methods, known_methods},
    {Py_mp_length, known_length},
    {Py_tp_doc, "KnownEntries(ring, capacity=16384, max_bytes=33554432)\n--\n\nEntries that verified under `ring`: a passport that "
                "begins with them is read and verified at the cost of the rest. Bounded: the oldest are forgotten. Thread-safe."},
    {0, NULL},
};

PyType_Spec kest_known_spec = {"kest._kestcore.KnownEntries", sizeof(KnownObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, known_slots};
