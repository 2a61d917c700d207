/* py_gate_params.c: Python values as the gate's parameters. */
#include "py_gate.h"

#include "../core/alloc.h"

#include <math.h>

int kest_gate_text(kest_state *state, PyObject *text, const char *what, kest_str *out)
{
    Py_ssize_t len;
    const char *data;

    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s is a str, not %s", what, Py_TYPE(text)->tp_name);
        return -1;
    }
    if (PyUnicode_GET_LENGTH(text) > KEST_GATE_MAX_TEXT) { /* before anything is encoded */
        kest_gate_input_error(state, "%s is longer than the 64 KiB that a gate accepts", what);
        return -1;
    }
    if (!(data = PyUnicode_AsUTF8AndSize(text, &len))) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            PyErr_Clear();
            kest_gate_input_error(state, "%s holds a lone surrogate: pass well-formed text", what);
        }
        return -1;
    }
    if (len > KEST_GATE_MAX_TEXT) {
        kest_gate_input_error(state, "%s is longer than the 64 KiB that a gate accepts", what);
        return -1;
    }
    *out = (kest_str){(const uint8_t *)data, (size_t)len};
    return 0;
}

int kest_gate_spend(kest_state *state, PyObject *text, const char *what, kest_str *out, size_t *allowance)
{
    const size_t size = PyUnicode_Check(text) ? (size_t)PyUnicode_GET_LENGTH(text) : 0;

    if (size > *allowance) {
        kest_gate_input_error(state, "%s: the texts of a context have at most %d characters together", what, KEST_GATE_ALLOWANCE);
        return -1;
    }
    *allowance -= size;
    return kest_gate_text(state, text, what, out);
}

static int read_double(kest_state *state, double number, PyObject *name, kest_gate_value *out)
{
    if (isnan(number)) {
        kest_gate_input_error(state, "parameter %R is NaN: a gate compares only numbers", name);
        return -1;
    }
    out->kind = isinf(number) ? KEST_VALUE_OTHER : KEST_VALUE_NUMBER;
    out->lo = out->hi = number;
    return 0;
}

/* The doubles on both sides of an integer beyond 2^53, or twice the one that equals it. */
static int read_large(PyObject *number, kest_gate_value *out)
{
    const double nearest = PyLong_AsDouble(number);
    PyObject *back;
    int less, more;

    if (nearest == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear(); /* 10**400: no number that can be compared */
        return 0;
    }
    if (!(back = PyLong_FromDouble(nearest)))
        return -1;
    less = PyObject_RichCompareBool(number, back, Py_LT);
    more = PyObject_RichCompareBool(number, back, Py_GT);
    Py_DECREF(back);
    if (less < 0 || more < 0)
        return -1;
    out->kind = KEST_VALUE_NUMBER;
    out->lo = less ? nextafter(nearest, -HUGE_VAL) : nearest;
    out->hi = more ? nextafter(nearest, HUGE_VAL) : nearest;
    return 0;
}

static int read_int(PyObject *number, kest_gate_value *out)
{
    int overflow;
    const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);

    if (value == -1 && PyErr_Occurred())
        return -1;
    if (overflow || value > KEST_MAX_SAFE_INT || value < -KEST_MAX_SAFE_INT)
        return read_large(number, out);
    out->kind = KEST_VALUE_NUMBER;
    out->lo = out->hi = (double)value;
    return 0;
}

/* Numbers of other libraries: by __index__, otherwise by __float__. */
static int read_foreign(kest_state *state, PyObject *value, PyObject *name, kest_gate_value *out)
{
    PyObject *number = PyIndex_Check(value) ? PyNumber_Index(value) : PyNumber_Float(value);
    int rc;

    if (!number)
        return -1;
    rc = PyLong_Check(number) ? read_int(number, out) : read_double(state, PyFloat_AS_DOUBLE(number), name, out);
    Py_DECREF(number);
    return rc;
}

/* Anything but a list. */
static int read_scalar(kest_state *state, PyObject *value, PyObject *name, kest_gate_value *out, size_t *allowance)
{
    const PyNumberMethods *as_number = Py_TYPE(value)->tp_as_number;

    *out = (kest_gate_value){.kind = KEST_VALUE_OTHER};
    if (PyBool_Check(value)) {
        out->kind = KEST_VALUE_BOOL;
        out->boolean = value == Py_True;
        return 0;
    }
    if (PyFloat_Check(value))
        return read_double(state, PyFloat_AS_DOUBLE(value), name, out);
    if (PyLong_Check(value))
        return read_int(value, out);
    if (PyUnicode_Check(value)) {
        out->kind = KEST_VALUE_TEXT;
        return kest_gate_spend(state, value, "a parameter", &out->text, allowance);
    }
    if (as_number && (as_number->nb_float || as_number->nb_index) && !PyComplex_Check(value))
        return read_foreign(state, value, name, out);
    return 0;
}

static bool is_list(PyObject *value)
{
    return PyList_Check(value) || PyTuple_Check(value) || PyAnySet_Check(value);
}

static int read_list(kest_state *state, PyObject *value, PyObject *name, kest_gate_param *param, kest_held_param *held,
                     size_t *allowance)
{
    PyObject *items;
    Py_ssize_t count;

    if (PyObject_Size(value) > KEST_GATE_MAX_ITEMS) { /* before it is copied */
        kest_gate_input_error(state, "parameter %R has more than %d items", name, KEST_GATE_MAX_ITEMS);
        return -1;
    }
    if (!(items = PySequence_Tuple(value)))
        return -1;
    held->value = items;
    count = PyTuple_GET_SIZE(items);
    if ((size_t)count > *allowance / (KEST_GATE_ALLOWANCE / KEST_GATE_MAX_ITEMS)) {
        kest_gate_input_error(state, "parameter %R has %zd items; the lists of a context have at most %d together", name, count,
                              KEST_GATE_MAX_ITEMS);
        return -1;
    }
    *allowance -= (size_t)count * (KEST_GATE_ALLOWANCE / KEST_GATE_MAX_ITEMS);
    if (!(held->items = kest_calloc(count ? (size_t)count : 1, sizeof *held->items))) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (read_scalar(state, PyTuple_GET_ITEM(items, i), name, &held->items[i], allowance) < 0)
            return -1;
    param->value = (kest_gate_value){.kind = KEST_VALUE_LIST, .items = held->items, .nitems = (size_t)count};
    return 0;
}

int kest_gate_read_param(kest_state *state, PyObject *name, PyObject *value, kest_gate_param *param, kest_held_param *held,
                         size_t *allowance)
{
    *held = (kest_held_param){.name = Py_NewRef(name)};
    if (kest_gate_spend(state, name, "the name of a parameter", &param->name, allowance) < 0)
        return -1;
    if (is_list(value))
        return read_list(state, value, name, param, held, allowance);
    if (read_scalar(state, value, name, &param->value, allowance) < 0)
        return -1;
    /* What no condition accepts is not kept alive either: it may be anything. */
    held->value = Py_NewRef(param->value.kind == KEST_VALUE_OTHER && !PyFloat_CheckExact(value) ? Py_None : value);
    return 0;
}

void kest_gate_drop_param(kest_held_param *held)
{
    Py_CLEAR(held->name);
    Py_CLEAR(held->value);
    kest_free(held->items);
    held->items = NULL;
}
