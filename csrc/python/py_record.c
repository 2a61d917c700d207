/* py_record.c: classes whose instances are records (dataclasses, pydantic models), remembered once Python has said so, so
 * that a list of a thousand rows is hashed without a thousand calls into Python.
 *
 * A class is recognised by its address and its version tag. Tags are never used twice within an interpreter, and change
 * whenever an attribute of the class or of one of its bases does; so neither a class that took the place of one that is gone
 * nor one that has changed is mistaken for what was remembered, and no class is kept alive. */
#include "from_python.h"

#include "../core/alloc.h"

#include <string.h>

enum { RECORDS = 256 }; /* places; a class takes that of another with the same hash */

struct kest_record_class {
    const PyTypeObject *cls; /* to be compared only */
    unsigned int version;
    bool pydantic;
    PyObject *qualname, *type_name, *names; /* names: of the fields, in canonical order */
};

/* 0: it has none now. */
static unsigned int version_of(const PyTypeObject *cls)
{
#if PY_VERSION_HEX < 0x030D0000
    if (!(cls->tp_flags & Py_TPFLAGS_VALID_VERSION_TAG))
        return 0;
#endif
    return cls->tp_version_tag;
}

static size_t place_of(const PyTypeObject *cls)
{
    return ((uintptr_t)cls >> 4 ^ (uintptr_t)cls >> 12) % RECORDS;
}

static kest_record_class *find(const kest_state *state, const PyTypeObject *cls)
{
    kest_record_class *known = state->records ? &state->records[place_of(cls)] : NULL;
    const unsigned int version = version_of(cls);

    if (!known || known->cls != cls || !version || known->version != version ||
        ((const PyHeapTypeObject *)cls)->ht_qualname != known->qualname) /* its name can change without a new version */
        return NULL;
    return known;
}

static void clear(kest_record_class *record)
{
    record->cls = NULL;
    Py_CLEAR(record->qualname);
    Py_CLEAR(record->type_name);
    Py_CLEAR(record->names);
}

int kest_records_ready(kest_state *state)
{
    state->name_dict = PyUnicode_InternFromString("__dict__");
    state->name_extra = PyUnicode_InternFromString("__pydantic_extra__");
    state->name_fields = PyUnicode_InternFromString("fields");
    return state->name_dict && state->name_extra && state->name_fields ? 0 : -1;
}

void kest_records_free(kest_state *state)
{
    Py_CLEAR(state->name_dict);
    Py_CLEAR(state->name_extra);
    Py_CLEAR(state->name_fields);
    for (size_t i = 0; state->records && i < RECORDS; i++)
        clear(&state->records[i]);
    kest_free(state->records);
    state->records = NULL;
}

/* --- values --- */

/* Strong references to the fields of an object, by its class's own way to attributes, as object.__getattribute__ would. */
static bool take_attributes(PyObject *value, PyObject *names, kest_members *out)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i), *field = PyObject_GenericGetAttr(value, name);

        if (!field)
            return false;
        out->items[out->count++] = (kest_member){Py_NewRef(name), field};
    }
    return true;
}

/* The same of a model: its __dict__ if that holds just the fields, and nothing beside them. */
static bool take_model(kest_state *state, PyObject *value, PyObject *names, kest_members *out)
{
    PyObject *extra = PyObject_GenericGetAttr(value, state->name_extra), *fields = NULL;
    bool whole = extra && (extra == Py_None || (PyDict_CheckExact(extra) && PyDict_GET_SIZE(extra) == 0)) &&
                 (fields = PyObject_GenericGetAttr(value, state->name_dict)) && PyDict_CheckExact(fields) &&
                 PyDict_GET_SIZE(fields) == PyTuple_GET_SIZE(names);

    for (Py_ssize_t i = 0; whole && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i), *field = PyDict_GetItemWithError(fields, name);

        if ((whole = field != NULL))
            out->items[out->count++] = (kest_member){Py_NewRef(name), Py_NewRef(field)};
    }
    Py_XDECREF(extra);
    Py_XDECREF(fields);
    return whole;
}

int kest_record_take(kest_state *state, PyObject *value, kest_record *record)
{
    const kest_record_class *known = find(state, Py_TYPE(value));
    PyObject *names;
    size_t count;
    bool whole;

    if (!known)
        return 0;
    count = (size_t)PyTuple_GET_SIZE(known->names);
    record->fields = (kest_members){record->room, 0, record->room};
    if (count > KEST_MEMBERS_ROOM && !(record->fields.items = kest_calloc(count, sizeof(kest_member)))) {
        PyErr_NoMemory();
        return -1;
    }
    names = Py_NewRef(known->names); /* reading a field can run code, and that can take this class's place */
    record->type_name = Py_NewRef(known->type_name);
    record->pydantic = known->pydantic;
    whole = record->pydantic ? take_model(state, value, names, &record->fields) : take_attributes(value, names, &record->fields);
    Py_DECREF(names);
    if (whole)
        return 1;
    kest_record_drop(record);
    if (PyErr_Occurred() && (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)))
        return -1;
    PyErr_Clear(); /* no such attribute, say: Python says what to make of it */
    return 0;
}

void kest_record_drop(kest_record *record)
{
    kest_members_drop(&record->fields);
    Py_CLEAR(record->type_name);
}

/* --- remembering --- */

static bool plain_name(PyObject *name)
{
    return PyUnicode_CheckExact(name) && PyUnicode_CompareWithASCIIString(name, "$kest") != 0;
}

/* The names in canonical order; NULL without an exception: some cannot be members. */
static PyObject *in_order(PyObject *names)
{
    PyObject *set = PyDict_New(), *result = NULL;
    kest_member room[KEST_MEMBERS_ROOM];
    kest_members members = {room, 0, room};
    bool plain = true;

    for (Py_ssize_t i = 0; set && plain && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);

        if ((plain = plain_name(name)) && PyDict_SetItem(set, name, Py_None) < 0)
            Py_CLEAR(set);
    }
    if (set && plain && kest_members_take(set, room, KEST_MEMBERS_ROOM, &members) == 0 &&
        (result = PyTuple_New((Py_ssize_t)members.count)))
        for (size_t i = 0; i < members.count; i++)
            PyTuple_SET_ITEM(result, (Py_ssize_t)i, Py_NewRef(members.items[i].key));
    kest_members_drop(&members);
    Py_XDECREF(set);
    return result;
}

PyObject *kest_py_know_record(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    PyObject *cls, *names, *type_name, *ordered;
    kest_record_class *known;
    int pydantic;

    if (!PyArg_ParseTuple(args, "O!pUO!:know_record", &PyType_Type, &cls, &pydantic, &type_name, &PyTuple_Type, &names))
        return NULL;
    if (!(((PyTypeObject *)cls)->tp_flags & Py_TPFLAGS_HEAPTYPE) || !version_of((PyTypeObject *)cls))
        Py_RETURN_FALSE;
    if (!state->records && !(state->records = kest_calloc(RECORDS, sizeof *state->records)))
        return PyErr_NoMemory();
    if (!(ordered = in_order(names))) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_FALSE;
    }
    known = &state->records[place_of((PyTypeObject *)cls)];
    clear(known);
    *known = (kest_record_class){(PyTypeObject *)cls, version_of((PyTypeObject *)cls), pydantic != 0,
                                 Py_NewRef(((PyHeapTypeObject *)cls)->ht_qualname), Py_NewRef(type_name), ordered};
    Py_RETURN_TRUE;
}
