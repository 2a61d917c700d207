/* py_hash.c: SHA-256 over the canonical form of Python values: policy input, arguments, results. */
#include "from_python.h"

/* SHA-256 of a buffer; lets go of the lock where that is worth it. */
static kest_status hash_buffer(const kest_buf *buf, uint8_t digest[KEST_HASH_LEN])
{
    kest_status st;

    if (buf->len < 65536)
        return kest_sha256(buf->data, buf->len, digest);
    KEST_GIL_RELEASE
    st = kest_sha256(buf->data, buf->len, digest);
    KEST_GIL_RELEASE_END
    return st;
}

static PyObject *hex_digest(kest_state *state, const kest_buf *buf)
{
    uint8_t digest[KEST_HASH_LEN], hex[KEST_HASH_HEX];
    const kest_status st = hash_buffer(buf, digest);

    if (st != KEST_OK)
        return kest_raise(state, st);
    kest_hex(digest, sizeof digest, hex);
    return PyUnicode_FromStringAndSize((const char *)hex, sizeof hex);
}

PyObject *kest_py_digest(PyObject *module, PyObject *value)
{
    kest_state *state = state_of_module(module);
    PyObject *result = NULL;
    uint8_t digest[KEST_HASH_LEN];
    kest_buf out;
    kest_status st;

    kest_buf_init(&out);
    if (kest_write_typed(state, &out, value) == 0) {
        st = hash_buffer(&out, digest);
        result = st == KEST_OK ? PyBytes_FromStringAndSize((const char *)digest, sizeof digest) : kest_raise(state, st);
    }
    kest_buf_free(&out);
    return result;
}

/* --- hashing arguments --- */

/* What stands for an argument that cannot be hashed: its type, and the fact. */
static int write_opaque(kest_state *state, kest_buf *out, PyObject *value)
{
    PyObject *module = PyObject_GetAttrString((PyObject *)Py_TYPE(value), "__module__");
    PyObject *name = module ? PyObject_GetAttrString((PyObject *)Py_TYPE(value), "__qualname__") : NULL;
    PyObject *full = name ? PyUnicode_FromFormat("%S.%S", module, name) : NULL, *form = NULL;
    int rc = -1;

    if (full && (form = Py_BuildValue("{s:s,s:O}", "$kest", "opaque", "type", full)))
        rc = kest_write_python(state, out, form, NULL, NULL);
    Py_XDECREF(form);
    Py_XDECREF(full);
    Py_XDECREF(name);
    Py_XDECREF(module);
    return rc;
}

/* Writes one argument; what has no canonical form (a NaN, a cycle, a lone surrogate) is marked instead. */
static int write_argument(kest_state *state, kest_buf *out, PyObject *value, PyObject *fallback, bool *opaque)
{
    const size_t mark = out->len;

    if (kest_write_python(state, out, value, fallback, opaque) == 0)
        return 0;
    if (!PyErr_ExceptionMatches(state->canonicalization_error))
        return -1;
    PyErr_Clear();
    out->len = mark;
    *opaque = true;
    return write_opaque(state, out, value);
}

static int write_arguments(kest_state *state, kest_buf *out, const kest_members *m, PyObject *fallback, PyObject *opaque)
{
    kest_buf_byte(out, '{');
    for (size_t i = 0; i < m->count; i++) {
        bool unknown = false;

        if (i)
            kest_buf_byte(out, ',');
        if (kest_write_name(state, out, m->items[i].key) < 0)
            return -1;
        kest_buf_byte(out, ':');
        if (write_argument(state, out, m->items[i].value, fallback, &unknown) < 0)
            return -1;
        if (unknown && PyList_Append(opaque, m->items[i].key) < 0)
            return -1;
    }
    kest_buf_byte(out, '}');
    return out->status == KEST_OK ? 0 : (kest_raise(state, out->status), -1);
}

static bool names_are_str(PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;

    while (PyDict_Next(dict, &pos, &key, &value))
        if (!PyUnicode_CheckExact(key))
            return false;
    return true;
}

PyObject *kest_py_hash_arguments(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    kest_state *state = state_of_module(module);
    PyObject *opaque = NULL, *names = NULL, *digest = NULL, *result = NULL;
    kest_member room[KEST_MEMBERS_ROOM];
    kest_members members;
    kest_buf out;

    if (nargs != 2 || !PyDict_CheckExact(args[0]) || !names_are_str(args[0])) {
        PyErr_SetString(PyExc_TypeError, "hash_arguments(arguments: dict of str, fallback)");
        return NULL;
    }
    kest_buf_init(&out);
    if (kest_members_take(args[0], room, KEST_MEMBERS_ROOM, &members) == 0 && (opaque = PyList_New(0)) &&
        write_arguments(state, &out, &members, args[1], opaque) == 0 && (digest = hex_digest(state, &out)) &&
        (names = PyList_AsTuple(opaque)))
        result = PyTuple_Pack(2, digest, names);
    kest_members_drop(&members);
    Py_XDECREF(digest);
    Py_XDECREF(names);
    Py_XDECREF(opaque);
    kest_buf_free(&out);
    return result;
}

PyObject *kest_py_hash_value(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    kest_state *state = state_of_module(module);
    PyObject *digest = NULL, *result = NULL;
    bool opaque = false;
    kest_buf out;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "hash_value(value, fallback)");
        return NULL;
    }
    kest_buf_init(&out);
    if (write_argument(state, &out, args[0], args[1], &opaque) == 0 && (digest = hex_digest(state, &out)))
        result = PyTuple_Pack(2, digest, opaque ? Py_True : Py_False);
    Py_XDECREF(digest);
    kest_buf_free(&out);
    return result;
}
