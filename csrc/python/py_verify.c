/* py_verify.c: verification of a whole passport. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/seen.h"

#include <unistd.h>

/* From here on several threads pay for their start (about 30 us each, against 50 us per signature). */
enum { PARALLEL_FROM = 64, RELEASE_FROM = 16, MOST_THREADS = 8 };

static unsigned threads_for(size_t count, long asked)
{
    long cores;

    if (asked > 0)
        return asked > MOST_THREADS ? MOST_THREADS : (unsigned)asked;
    if (count < PARALLEL_FROM)
        return 1;
    cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > MOST_THREADS ? MOST_THREADS : (unsigned)cores;
}

static void run(kest_state *state, kest_node *const *nodes, size_t count, const kest_keyring *ring, unsigned threads,
                kest_verdict *verdict)
{
    if (count >= RELEASE_FROM) {
        KEST_GIL_RELEASE
        kest_verify_nodes(nodes, count, ring, threads, verdict);
        KEST_GIL_RELEASE_END
    } else {
        KEST_GIL_ADAPT(&state->gil)
        kest_verify_nodes(nodes, count, ring, 1, verdict);
        KEST_GIL_ADAPT_END(&state->gil)
    }
}

/* --- SeenEntries --- */

typedef struct SeenObject {
    PyObject_HEAD
    PyObject *ring; /* the KeyRing that the entries verified under */
    kest_seen *seen;
} SeenObject;

static PyObject *seen_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ring", "capacity", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *ring;
    Py_ssize_t capacity = 65536;
    SeenObject *self;
    kest_status st;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|n:SeenEntries", names, state->keyring_type, &ring, &capacity))
        return NULL;
    if (capacity < 2 || capacity > 1 << 24) {
        PyErr_SetString(PyExc_ValueError, "capacity is from 2 to 2**24 entries");
        return NULL;
    }
    self = (SeenObject *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->ring = Py_NewRef(ring);
    if ((st = kest_seen_new((size_t)capacity, &self->seen)) != KEST_OK) {
        kest_raise(state, st);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void seen_dealloc(SeenObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->ring); /* a KeyRing refers to nothing, so no cycle can form */
    kest_seen_free(self->seen);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t seen_length(SeenObject *self)
{
    return (Py_ssize_t)kest_seen_count(self->seen);
}

static PyType_Slot seen_slots[] = {
    {Py_tp_new, seen_new},
    {Py_tp_dealloc, seen_dealloc},
    {Py_mp_length, seen_length},
    {Py_tp_doc, "SeenEntries(ring, capacity=65536)\n--\n\nHashes of entries that verified under `ring`; verify_passport() passes over them "
                "and adds to them. Bounded: the oldest are forgotten."},
    {0, NULL},
};

PyType_Spec kest_seen_spec = {"kest._kestcore.SeenEntries", sizeof(SeenObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, seen_slots};

/* --- verify_passport --- */

/* Those nodes that have to be verified, and their places in the passport. */
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

static int task_fill(task *t, const kest_pinned *all, const kest_seen *seen)
{
    *t = (task){kest_calloc(all->count + 1, sizeof(kest_node *)), kest_calloc(all->count + 1, sizeof(size_t)), 0};
    if (!t->fresh || !t->places) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < all->count; i++) {
        /* A broken node can have the hash of a sound one elsewhere: what is wrong with it is its place here. */
        if (seen && !all->nodes[i]->broken && kest_seen_has(seen, all->nodes[i]->hash))
            continue;
        t->places[t->count] = i;
        t->fresh[t->count++] = all->nodes[i];
    }
    return 0;
}

static PyObject *principals_of(kest_node *const *nodes, size_t count)
{
    PyObject *set = PySet_New(NULL), *frozen;
    const kest_text *last = NULL;

    for (size_t i = 0; set && i < count; i++) {
        PyObject *name;

        if (nodes[i]->principal == last) /* neighbours share it */
            continue;
        last = nodes[i]->principal;
        name = PyUnicode_DecodeUTF8((const char *)last->data, (Py_ssize_t)last->len, NULL);
        if (!name || PySet_Add(set, name) < 0)
            Py_CLEAR(set);
        Py_XDECREF(name);
    }
    frozen = set ? PyFrozenSet_New(set) : NULL;
    Py_XDECREF(set);
    return frozen;
}

static PyObject *verify_passport(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    PyObject *object, *ring, *given = Py_None, *result = NULL;
    SeenObject *seen = NULL;
    long asked = 0;
    kest_verdict verdict;
    kest_pinned all;
    task t = {NULL, NULL, 0};

    if (!PyArg_ParseTuple(args, "O!O!|lO:verify_passport", state->passport_type, &object, state->keyring_type, &ring, &asked,
                          &given))
        return NULL;
    if (given != Py_None) {
        if (Py_TYPE(given) != state->seen_type || ((SeenObject *)given)->ring != ring) {
            PyErr_SetString(PyExc_ValueError, "the SeenEntries belong to another KeyRing");
            return NULL;
        }
        seen = (SeenObject *)given;
    }
    if (kest_passport_pin(state, (PassportObject *)object, &all) < 0 || task_fill(&t, &all, seen ? seen->seen : NULL) < 0)
        goto done;
    run(state, t.fresh, t.count, ((KeyringObject *)ring)->ring, threads_for(t.count, asked), &verdict);
    if (verdict.status != KEST_OK) {
        kest_raise_verification(state, verdict.status, t.places[verdict.index]);
    } else {
        for (size_t i = 0; seen && i < t.count; i++)
            kest_seen_add(seen->seen, t.fresh[i]->hash);
        result = principals_of(all.nodes, all.count);
    }
done:
    task_free(&t);
    kest_pinned_drop(&all);
    return result;
}

PyMethodDef kest_verify_methods[] = {
    {"verify_passport", verify_passport, METH_VARARGS,
     "verify_passport(passport, ring, threads=0, seen=None, /)\n--\n\nVerifies every entry: form, links, trust, taints, the principal's "
     "rights and the signature. Returns the principals as a frozenset; raises VerificationError with the index of the first "
     "bad entry. threads: 0 chooses (several from 64 entries up). seen: a SeenEntries of this ring; entries in it are not "
     "verified again."},
    {NULL, NULL, 0, NULL},
};
