/* py_text.c: small functions on bytes and text. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/b64url.h"
#include "../core/percent.h"
#include "../core/uuid7.h"

static PyObject *py_sha256(PyObject *module, PyObject *data)
{
    kest_state *state = state_of_module(module);
    uint8_t digest[KEST_HASH_LEN];
    Py_buffer view;
    kest_status st;

    if (PyObject_GetBuffer(data, &view, PyBUF_C_CONTIGUOUS) < 0)
        return NULL;
    if (view.len >= 65536) {
        KEST_GIL_RELEASE
        st = kest_sha256(view.buf, (size_t)view.len, digest);
        KEST_GIL_RELEASE_END
    } else {
        st = kest_sha256(view.buf, (size_t)view.len, digest);
    }
    PyBuffer_Release(&view);
    return st == KEST_OK ? PyBytes_FromStringAndSize((const char *)digest, sizeof digest) : kest_raise(state, st);
}

static PyObject *py_b64url_encode(PyObject *module, PyObject *data)
{
    PyObject *result = NULL;
    Py_buffer view;

    (void)module;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (view.len > PY_SSIZE_T_MAX / 2)
        PyErr_NoMemory();
    else
        result = PyUnicode_New((Py_ssize_t)kest_b64_encoded_len((size_t)view.len), 127);
    if (result && view.len)
        kest_b64_encode(view.buf, (size_t)view.len, PyUnicode_1BYTE_DATA(result));
    PyBuffer_Release(&view);
    return result;
}

static PyObject *py_b64url_decode(PyObject *module, PyObject *arg)
{
    kest_state *state = state_of_module(module);
    PyObject *result;
    Py_buffer view = {0};
    kest_str text;

    if (PyUnicode_Check(arg)) {
        if (kest_str_view(state, arg, "text", &text) < 0)
            return NULL;
    } else {
        if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
            return NULL;
        text = (kest_str){view.buf, (size_t)view.len};
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)kest_b64_decoded_len(text.len));
    if (result && kest_b64_decode(text.data, text.len, (uint8_t *)PyBytes_AS_STRING(result)) != KEST_OK) {
        Py_CLEAR(result);
        kest_raise(state, KEST_E_B64);
    }
    if (view.obj)
        PyBuffer_Release(&view);
    return result;
}

/* Short enough for a header; longer ones are refused before they come here. */
static PyObject *py_baggage_value(PyObject *module, PyObject *arg)
{
    PyObject *result = NULL;
    size_t len = 0;
    kest_status st;
    uint8_t *out;

    if (!PyBytes_Check(arg))
        return PyErr_Format(PyExc_TypeError, "bytes are needed, not %s", Py_TYPE(arg)->tp_name);
    out = kest_malloc((size_t)PyBytes_GET_SIZE(arg));
    if (!out)
        return PyErr_NoMemory();
    st = kest_percent_decode((const uint8_t *)PyBytes_AS_STRING(arg), (size_t)PyBytes_GET_SIZE(arg), out, &len);
    if (st == KEST_OK)
        result = PyUnicode_DecodeUTF8((const char *)out, (Py_ssize_t)len, NULL);
    else
        PyErr_SetString(state_of_module(module)->baggage_error,
                        st == KEST_E_UTF8 ? "the value is not UTF-8" : "the value is not percent-encoded as W3C Baggage asks (section 3.3.1)");
    kest_free(out);
    return result;
}

static PyObject *py_uuid7(PyObject *module, PyObject *unused)
{
    uint8_t id[KEST_UUID_LEN];

    (void)module;
    (void)unused;
    kest_uuid7(id, NULL);
    return PyUnicode_FromStringAndSize((const char *)id, sizeof id);
}

static PyObject *py_stamp(PyObject *module, PyObject *unused)
{
    uint8_t id[KEST_UUID_LEN];
    int64_t ms;

    (void)module;
    (void)unused;
    kest_uuid7(id, &ms);
    return Py_BuildValue("s#L", (const char *)id, (Py_ssize_t)sizeof id, (long long)ms);
}

static PyObject *py_lock_mode(PyObject *module, PyObject *arg)
{
    static const char *const names[] = {"adaptive", "hold", "always"};
    kest_state *state = state_of_module(module);

    if (arg != Py_None) {
        for (int i = 0; i < 3; i++)
            if (PyUnicode_Check(arg) && PyUnicode_CompareWithASCIIString(arg, names[i]) == 0) {
                atomic_store(&state->gil.mode, i);
                return PyUnicode_FromString(names[i]);
            }
        PyErr_SetString(PyExc_ValueError, "lock mode is 'adaptive', 'hold' or 'always'");
        return NULL;
    }
    return PyUnicode_FromString(names[atomic_load(&state->gil.mode)]);
}

static PyObject *py_lock_stats(PyObject *module, PyObject *unused)
{
    const kest_gil_policy *gil = &state_of_module(module)->gil;

    (void)unused;
    return Py_BuildValue("{s:K,s:K,s:K}", "held", (unsigned long long)atomic_load(&gil->held), "released",
                         (unsigned long long)atomic_load(&gil->released), "cliffs", (unsigned long long)atomic_load(&gil->cliffs));
}

PyMethodDef kest_text_methods[] = {
    {"canonicalize", kest_py_canonicalize, METH_O,
     "canonicalize(value, /)\n--\n\nRFC 8785 canonical JSON as bytes. Exact str, int (within 2^53 - 1), finite float, bool, None, "
     "list, tuple and dict with str keys; anything else is a CanonicalizationError that names the path."},
    {"digest", kest_py_digest, METH_O, "digest(value, /)\n--\n\n32 bytes that tell any two JSON values apart, 1 and 1.0 or a list and a tuple too. For cache keys."},
    {"parse", kest_py_parse, METH_O,
     "parse(data, /)\n--\n\nStrict JSON (RFC 8259; no duplicate keys, at most 64 levels, integers within 2^53 - 1) from str or bytes."},
    {"hash_arguments", (PyCFunction)(void (*)(void))kest_py_hash_arguments, METH_FASTCALL,
     "hash_arguments(arguments, fallback, /)\n--\n\n(hex SHA-256 of the canonical arguments, names of those that are opaque)."},
    {"hash_value", (PyCFunction)(void (*)(void))kest_py_hash_value, METH_FASTCALL,
     "hash_value(value, fallback, /)\n--\n\n(hex SHA-256 of the canonical value, whether any of it is opaque)."},
    {"know_record", kest_py_know_record, METH_VARARGS,
     "know_record(cls, pydantic, type_name, names, /)\n--\n\nFrom now on instances of this class (as it is now) are hashed without asking the fallback: as "
     "its stand-in for a pydantic model, or for a dataclass, would be. False: it is not a class that can be remembered."},
    {"sha256", py_sha256, METH_O, "sha256(data, /)\n--\n\nSHA-256 of a C-contiguous buffer, 32 bytes; without the lock from 64 kB."},
    {"b64url_encode", py_b64url_encode, METH_O, "b64url_encode(data, /)\n--\n\nbase64url without padding (RFC 4648, section 5)."},
    {"b64url_decode", py_b64url_decode, METH_O,
     "b64url_decode(text, /)\n--\n\nStrict: no padding, no white space, no trailing bits; otherwise BaggageError."},
    {"baggage_value", py_baggage_value, METH_O,
     "baggage_value(encoded, /)\n--\n\nA W3C baggage member's value without its percent-encoding; BaggageError."},
    {"uuid7", py_uuid7, METH_NOARGS, "uuid7()\n--\n\nA UUIDv7 (RFC 9562), increasing within the process."},
    {"stamp", py_stamp, METH_NOARGS, "stamp()\n--\n\n(UUIDv7, the Unix milliseconds in it)."},
    {"lock_mode", py_lock_mode, METH_O,
     "lock_mode(mode, /)\n--\n\nSets ('adaptive', 'hold', 'always') or, given None, tells when signing releases the interpreter's lock."},
    {"lock_stats", py_lock_stats, METH_NOARGS,
     "lock_stats()\n--\n\nHow often signing held or released the lock, and how often getting it back took over 4 ms."},
    {NULL, NULL, 0, NULL},
};
