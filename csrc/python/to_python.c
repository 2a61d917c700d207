/* to_python.c: Python values from the strict JSON reader. */
#include "state.h"

#include "../core/json_read.h"

static PyObject *text(const uint8_t *data, size_t len)
{
    return PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)len, NULL);
}

static PyObject *array(const kest_json *value)
{
    PyObject *list = PyList_New((Py_ssize_t)value->count);
    Py_ssize_t i = 0;

    for (const kest_json *v = value->u.child; list && v; v = v->next) {
        PyObject *item = kest_json_to_python(v);

        if (item)
            PyList_SET_ITEM(list, i++, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *object(const kest_json *value)
{
    PyObject *dict = PyDict_New();

    for (const kest_json *v = value->u.child; dict && v; v = v->next) {
        PyObject *key = text(v->key, v->key_len), *item = key ? kest_json_to_python(v) : NULL;

        if (!item || PyDict_SetItem(dict, key, item) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(item);
        Py_XDECREF(key);
    }
    return dict;
}

PyObject *kest_json_to_python(const kest_json *value)
{
    switch (value->type) {
    case KEST_JSON_NULL:
        Py_RETURN_NONE;
    case KEST_JSON_FALSE:
        Py_RETURN_FALSE;
    case KEST_JSON_TRUE:
        Py_RETURN_TRUE;
    case KEST_JSON_INT:
        return PyLong_FromLongLong(value->u.i);
    case KEST_JSON_DOUBLE:
        return PyFloat_FromDouble(value->u.d);
    case KEST_JSON_STRING:
        return text(value->u.str.data, value->u.str.len);
    case KEST_JSON_ARRAY:
        return array(value);
    case KEST_JSON_OBJECT:
        return object(value);
    }
    Py_UNREACHABLE();
}

PyObject *kest_py_parse(PyObject *module, PyObject *arg)
{
    kest_state *state = state_of_module(module);
    kest_json_doc doc = {0};
    PyObject *result = NULL;
    Py_buffer view = {0};
    kest_str src;
    kest_status st;

    if (PyUnicode_Check(arg)) {
        if (kest_str_view(state, arg, "text", &src) < 0) {
            if (!PyErr_ExceptionMatches(state->canonicalization_error))
                return NULL;
            PyErr_Clear();
            return kest_raise_json(state, KEST_E_SURROGATE, 0);
        }
    } else {
        if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
            return NULL;
        src = (kest_str){view.buf, (size_t)view.len};
    }
    st = kest_json_parse(src.data, src.len, 0, &doc);
    if (st == KEST_OK) {
        result = kest_json_to_python(doc.root);
        kest_json_free(&doc);
    } else {
        kest_raise_json(state, st, doc.error_at);
    }
    if (view.obj)
        PyBuffer_Release(&view);
    return result;
}
