/* py_verify.c: verification of a whole passport. */
#include "state.h"

#include "../core/alloc.h"

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

/* A private, referenced copy: the passport may be added to by another thread while we are without the lock. */
static kest_node **pinned(kest_node *const *nodes, size_t count)
{
    kest_node **copy = kest_calloc(count ? count : 1, sizeof(kest_node *));

    for (size_t i = 0; copy && i < count; i++)
        copy[i] = kest_node_ref(nodes[i]);
    return copy;
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
    PyObject *object, *ring, *result = NULL;
    PassportObject *passport;
    kest_node **nodes, **copy;
    long asked = 0;
    size_t count;
    bool owned;
    kest_verdict verdict;

    if (!PyArg_ParseTuple(args, "O!O!|l:verify_passport", state->passport_type, &object, state->keyring_type, &ring, &asked))
        return NULL;
    passport = (PassportObject *)object;
    if (kest_passport_nodes(state, passport, &nodes, &count, &owned) < 0)
        return NULL;
    copy = pinned(nodes, count);
    if (owned)
        kest_free(nodes);
    if (!copy)
        return PyErr_NoMemory();
    run(state, copy, count, ((KeyringObject *)ring)->ring, threads_for(count, asked), &verdict);
    if (verdict.status != KEST_OK)
        kest_raise_verification(state, verdict.status, verdict.index);
    else
        result = principals_of(copy, count);
    while (count--)
        kest_node_unref(copy[count]);
    kest_free(copy);
    return result;
}

PyMethodDef kest_verify_methods[] = {
    {"verify_passport", verify_passport, METH_VARARGS,
     "verify_passport(passport, ring, threads=0, /)\n--\n\nVerifies every entry: form, links, trust, taints, the principal's rights "
     "and the signature. Returns the principals as a frozenset; raises VerificationError with the index of the first "
     "bad entry. threads: 0 chooses (several from 64 entries up)."},
    {NULL, NULL, 0, NULL},
};
