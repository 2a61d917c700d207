/* py_verify.c: verification of a whole passport. */
#include "state.h"

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

void kest_verify_run(kest_state *state, kest_node *const *nodes, size_t count, const kest_keyring *ring, long asked,
                     kest_verdict *verdict)
{
    const unsigned threads = threads_for(count, asked);

    if (count >= RELEASE_FROM) {
        KEST_GIL_RELEASE
        kest_verify_nodes(nodes, count, ring, threads, verdict);
        KEST_GIL_RELEASE_END
    } else {
        KEST_GIL_ADAPT(&state->gil)
        kest_verify_nodes(nodes, count, ring, 1, verdict);
        KEST_GIL_ADAPT_END(&state->gil)
    }
    for (size_t i = 0; verdict->status == KEST_OK && i < count; i++)
        kest_node_vouch(nodes[i], kest_keyring_id(ring));
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
    long asked = 0;
    kest_verdict verdict;
    kest_pinned all;

    if (!PyArg_ParseTuple(args, "O!O!|l:verify_passport", state->passport_type, &object, state->keyring_type, &ring, &asked))
        return NULL;
    if (kest_passport_pin(state, (PassportObject *)object, &all) == 0) {
        kest_verify_run(state, all.nodes, all.count, ((KeyringObject *)ring)->ring, asked, &verdict);
        if (verdict.status != KEST_OK)
            kest_raise_verification(state, verdict.status, verdict.index);
        else
            result = principals_of(all.nodes, all.count);
    }
    kest_pinned_drop(&all);
    return result;
}

PyMethodDef kest_verify_methods[] = {
    {"verify_passport", verify_passport, METH_VARARGS,
     "verify_passport(passport, ring, threads=0, /)\n--\n\nVerifies every entry: form, links, trust, taints, the principal's "
     "rights and the signature. Returns the principals as a frozenset; raises VerificationError with the index of the first "
     "bad entry. threads: 0 chooses (several from 64 entries up)."},
    {NULL, NULL, 0, NULL},
};
