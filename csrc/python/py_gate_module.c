/* py_gate_module.c: functions of the module for the gate. */
#include "py_gate.h"

#include "../core/alloc.h"

static PyObject *py_gate_register(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    PyObject *geo, *device, *permit, *reason;

    if (!PyArg_ParseTuple(args, "OOOO:gate_register", &geo, &device, &permit, &reason))
        return NULL;
    Py_XSETREF(state->gate_geo_type, Py_NewRef(geo));
    Py_XSETREF(state->gate_device_type, Py_NewRef(device));
    Py_XSETREF(state->gate_permit_type, Py_NewRef(permit));
    Py_XSETREF(state->gate_reason, Py_NewRef(reason));
    Py_RETURN_NONE;
}

static PyObject *py_gate_path(PyObject *module, PyObject *arg)
{
    PyObject *result = NULL;
    uint8_t *out;
    kest_str text;
    size_t len;

    if (kest_gate_text(state_of_module(module), arg, "a resource", &text) < 0)
        return NULL;
    if (!(out = kest_malloc(text.len)))
        return PyErr_NoMemory();
    result = kest_gate_path(text, out, &len) ? PyUnicode_DecodeUTF8((const char *)out, (Py_ssize_t)len, NULL) : Py_NewRef(Py_None);
    kest_free(out);
    return result;
}

PyMethodDef kest_gate_methods[] = {
    {"gate_register", py_gate_register, METH_VARARGS,
     "gate_register(GeoLocation, DeviceFingerprint, PermitToken, reason, /)\n--\n\nFor kest.gate, when it is imported."},
    {"gate_path", py_gate_path, METH_O, "gate_path(resource, /)\n--\n\nThe resource as it is compared, or None when it leads out of its root."},
    {NULL, NULL, 0, NULL},
};
