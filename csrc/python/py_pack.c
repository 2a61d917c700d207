/* py_pack.c: the transport forms of a passport. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/pack.h"

/* zlib and the dense form of anything longer are worth a release of the lock. */
enum { RELEASE_FROM = 32768, DENSE_RELEASE_FROM = 16 };

static PyObject *ascii(const kest_buf *buf)
{
    return PyUnicode_DecodeASCII((const char *)buf->data, (Py_ssize_t)buf->len, NULL);
}

static PassportObject *passport_arg(kest_state *state, PyObject *arg)
{
    if (Py_TYPE(arg) == state->passport_type)
        return (PassportObject *)arg;
    PyErr_Format(PyExc_TypeError, "a Passport is needed, not %s", Py_TYPE(arg)->tp_name);
    return NULL;
}

static PyObject *pack_z(PyObject *module, PyObject *arg)
{
    kest_state *state = state_of_module(module);
    PassportObject *self = passport_arg(state, arg);
    PyObject *json;
    kest_str text;
    PyObject *packed;
    kest_status st;
    kest_buf out;

    if (!self)
        return NULL;
    if (self->z)
        return Py_NewRef(self->z);
    json = PyObject_CallMethod(arg, "serialize", NULL);
    if (!json || kest_str_view(state, json, "passport", &text) < 0) {
        Py_XDECREF(json);
        return NULL;
    }
    kest_buf_init(&out);
    if (text.len >= RELEASE_FROM) {
        KEST_GIL_RELEASE
        st = kest_pack_z(text.data, text.len, &out);
        KEST_GIL_RELEASE_END
    } else {
        st = kest_pack_z(text.data, text.len, &out);
    }
    packed = st == KEST_OK ? ascii(&out) : kest_raise(state, st);
    /* Kept only if it is still the form of what the passport holds. */
    if (packed && !self->z && self->json == json)
        self->z = Py_NewRef(packed);
    kest_buf_free(&out);
    Py_DECREF(json);
    return packed;
}

static PyObject *pack_dense(PyObject *module, PyObject *arg)
{
    kest_state *state = state_of_module(module);
    PassportObject *self = passport_arg(state, arg);
    PyObject *packed;
    kest_pinned all;
    kest_status st;
    kest_buf out;

    if (!self)
        return NULL;
    if (self->dense)
        return Py_NewRef(self->dense);
    if (kest_passport_pin(state, self, &all) < 0)
        return NULL;
    kest_buf_init(&out);
    if (all.count >= DENSE_RELEASE_FROM) {
        KEST_GIL_RELEASE
        st = kest_pack_dense(all.nodes, all.count, &out);
        KEST_GIL_RELEASE_END
    } else {
        st = kest_pack_dense(all.nodes, all.count, &out);
    }
    packed = st == KEST_OK ? ascii(&out) : st == KEST_E_PACK_FORM ? Py_NewRef(Py_None) : kest_raise(state, st);
    if (packed && !self->dense && (!self->builder || self->builder->count == all.count))
        self->dense = Py_NewRef(packed);
    kest_buf_free(&out);
    kest_pinned_drop(&all);
    return packed;
}

/* Reads (text, max_bytes, max_entries); the str keeps the view alive. */
static int unpack_args(kest_state *state, PyObject *args, kest_str *text, size_t *max_bytes, size_t *max_entries)
{
    PyObject *arg;
    Py_ssize_t bytes, entries;

    if (!PyArg_ParseTuple(args, "Unn", &arg, &bytes, &entries))
        return -1;
    if (kest_str_view(state, arg, "text", text) < 0) {
        if (PyErr_ExceptionMatches(state->canonicalization_error))
            PyErr_SetString(state->baggage_error, "packed passport refused: not base64url");
        return -1;
    }
    *max_bytes = bytes > 0 ? (size_t)bytes : 0;
    *max_entries = entries > 0 ? (size_t)entries : 0;
    return 0;
}

PyObject *kest_raise_unpacking(kest_state *state, kest_status status)
{
    if (status == KEST_E_NOMEM)
        return PyErr_NoMemory();
    PyErr_Format(state->baggage_error, "packed passport refused: %s", kest_strerror(status));
    return NULL;
}

static PyObject *finish(kest_state *state, kest_status st, kest_builder *builder)
{
    if (st == KEST_OK)
        return kest_passport_from_builder(state, builder);
    kest_builder_free(builder);
    return kest_raise_unpacking(state, st);
}

static PyObject *unpack_z(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    size_t max_bytes, max_entries, error_at;
    kest_builder builder;
    kest_str text;
    kest_status st;
    kest_buf json;

    if (unpack_args(state, args, &text, &max_bytes, &max_entries) < 0)
        return NULL;
    kest_builder_init(&builder);
    kest_buf_init(&json);
    KEST_GIL_RELEASE
    st = kest_unpack_z(text.data, text.len, max_bytes, &json);
    if (st == KEST_OK)
        st = kest_unpack_json(json.data, json.len, max_entries, &builder, &error_at);
    KEST_GIL_RELEASE_END
    kest_buf_free(&json);
    return finish(state, st, &builder);
}

static PyObject *unpack_dense(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    size_t max_bytes, max_entries;
    kest_builder builder;
    kest_str text;
    kest_status st;

    if (unpack_args(state, args, &text, &max_bytes, &max_entries) < 0)
        return NULL;
    kest_builder_init(&builder);
    KEST_GIL_RELEASE
    st = kest_unpack_dense(text.data, text.len, max_bytes, max_entries, &builder);
    KEST_GIL_RELEASE_END
    return finish(state, st, &builder);
}

PyMethodDef kest_pack_methods[] = {
    {"pack_z", pack_z, METH_O, "pack_z(passport, /)\n--\n\nThe value of kest.passport_z: zlib level 1, base64url."},
    {"pack_dense", pack_dense, METH_O,
     "pack_dense(passport, /)\n--\n\nThe dense form (docs/formats.md), or None when these entries have none."},
    {"unpack_z", unpack_z, METH_VARARGS,
     "unpack_z(text, max_bytes, max_entries, /)\n--\n\nUndoes pack_z; BaggageError when corrupt or above a cap."},
    {"unpack_dense", unpack_dense, METH_VARARGS,
     "unpack_dense(text, max_bytes, max_entries, /)\n--\n\nUndoes pack_dense; BaggageError when corrupt or above a cap."},
    {NULL, NULL, 0, NULL},
};
