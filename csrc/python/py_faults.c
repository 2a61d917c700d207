/* py_faults.c: makes one allocation of the core fail, for tests; only in builds with KEST_FAULTS (setup.py). */
#include "state.h"

#ifdef KEST_FAULTS

#include "../core/alloc.h"

#include <stdlib.h>

static atomic_size_t made, failing; /* allocations since the last call; which of them fails (0: none) */

static bool fails(void)
{
    return atomic_fetch_add(&made, 1) + 1 == atomic_load(&failing);
}

static void *faulty_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

static void *faulty_realloc(void *ptr, size_t size)
{
    return fails() ? NULL : realloc(ptr, size);
}

static PyObject *py_fail_allocation(PyObject *module, PyObject *arg)
{
    static const kest_allocator faulty = {faulty_malloc, faulty_realloc, free};
    const size_t which = PyLong_AsSize_t(arg), count = atomic_load(&made);

    (void)module;
    if (which == (size_t)-1 && PyErr_Occurred())
        return NULL;
    kest_set_allocator(which ? &faulty : NULL); /* the same memory either way, so that blocks may outlive the change */
    atomic_store(&made, 0);
    atomic_store(&failing, which);
    return PyLong_FromSize_t(count);
}

PyMethodDef kest_fault_methods[] = {
    {"fail_allocation", py_fail_allocation, METH_O,
     "fail_allocation(n, /)\n--\n\nThe core's n-th allocation from now on fails (0: none will); how many there were since the last call."},
    {NULL, NULL, 0, NULL},
};

#endif
