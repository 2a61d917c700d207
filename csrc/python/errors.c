#include "state.h"

static PyObject *class_for(kest_state *state, kest_status status)
{
    switch (status) {
    case KEST_E_NOMEM:
        return PyExc_MemoryError;
    case KEST_E_CRYPTO:
        return PyExc_RuntimeError;
    case KEST_E_SURROGATE:
    case KEST_E_NAN:
    case KEST_E_JSON_NUMBER:
    case KEST_E_OVERFLOW:
        return state->canonicalization_error;
    case KEST_E_KEY:
        return state->key_error;
    case KEST_E_INFLATE:
    case KEST_E_B64:
    case KEST_E_PERCENT:
    case KEST_E_JSON:
        return state->baggage_error;
    default:
        return state->passport_error;
    }
}

/* What a status means to somebody who handed something over, where the core speaks of what it verifies. */
static const char *phrase(kest_status status)
{
    switch (status) {
    case KEST_E_LIMIT:
        return "an entry is larger than the 16 MiB that Kest accepts";
    case KEST_E_KEY:
        return "not a public key to verify with: Ed25519, P-256 or RSA of 2,048 to 16,384 bits, well-formed and, where a JWK says "
               "what it is for (use, key_ops, alg), for such signatures";
    default:
        return kest_strerror(status);
    }
}

PyObject *kest_raise(kest_state *state, kest_status status)
{
    if (status == KEST_E_NOMEM)
        return PyErr_NoMemory();
    PyErr_SetString(class_for(state, status), phrase(status));
    return NULL;
}

PyObject *kest_raise_verification(kest_state *state, kest_status status, size_t index)
{
    const char *reason = kest_strerror(status);
    PyObject *error = NULL, *at = NULL, *text = NULL, *args = NULL, *kwargs = NULL;

    if (status == KEST_E_NOMEM)
        return PyErr_NoMemory();
    at = index == SIZE_MAX ? Py_NewRef(Py_None) : PyLong_FromSize_t(index);
    text = index == SIZE_MAX ? PyUnicode_FromFormat("passport does not verify: %s", reason)
                             : PyUnicode_FromFormat("entry %zu does not verify: %s", index, reason);
    if (!at || !text)
        goto done;
    args = PyTuple_Pack(1, text);
    kwargs = Py_BuildValue("{s:O,s:s}", "index", at, "reason", reason);
    if (args && kwargs && (error = PyObject_Call(state->verification_error, args, kwargs)))
        PyErr_SetObject(state->verification_error, error);
done:
    Py_XDECREF(error);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(text);
    Py_XDECREF(at);
    return NULL;
}

PyObject *kest_raise_json(kest_state *state, kest_status status, size_t position)
{
    PyObject *error = NULL, *text;

    if (status == KEST_E_NOMEM)
        return PyErr_NoMemory();
    text = PyUnicode_FromFormat("%s at byte %zu", kest_strerror(status), position);
    if (text)
        error = PyObject_CallFunction(state->json_error, "On", text, (Py_ssize_t)position);
    if (error)
        PyErr_SetObject(state->json_error, error);
    Py_XDECREF(text);
    Py_XDECREF(error);
    return NULL;
}
