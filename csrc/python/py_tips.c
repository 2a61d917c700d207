/* py_tips.c: what the newest entries of a passport say, each in the order of its hash. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/entry.h"
#include "../core/json_read.h"

static PyObject *hex_object(const uint8_t hash[KEST_HASH_LEN])
{
    uint8_t hex[KEST_HASH_HEX];

    kest_hex(hash, KEST_HASH_LEN, hex);
    return PyUnicode_FromStringAndSize((const char *)hex, sizeof hex);
}

static PyObject *tip_tuple(PassportObject *self, PyObject *(*make)(const kest_node *, const PassportObject *))
{
    kest_pinned tips;
    PyObject *tuple = NULL;

    if (kest_passport_pin_tips(kest_state_of((PyObject *)self), self, &tips) == 0)
        tuple = PyTuple_New((Py_ssize_t)tips.count);
    for (size_t i = 0; tuple && i < tips.count; i++) {
        PyObject *item = make(tips.nodes[i], self);

        if (item)
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
        else
            Py_CLEAR(tuple);
    }
    kest_pinned_drop(&tips);
    return tuple;
}

static PyObject *tip_hash(const kest_node *tip, const PassportObject *self)
{
    (void)self;
    return hex_object(tip->hash);
}

static PyObject *tip_score(const kest_node *tip, const PassportObject *self)
{
    return PyLong_FromLong(tip->trust < self->ceiling ? tip->trust : self->ceiling);
}

static PyObject *tip_principal(const kest_node *tip, const PassportObject *self)
{
    (void)self;
    if (!kest_node_vouched(tip) || !tip->principal)
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8((const char *)tip->principal->data, (Py_ssize_t)tip->principal->len, NULL);
}

PyObject *kest_tip_principals(PassportObject *self, void *unused)
{
    (void)unused;
    return tip_tuple(self, tip_principal);
}

PyObject *kest_tip_hashes(PassportObject *self, void *unused)
{
    (void)unused;
    return tip_tuple(self, tip_hash);
}

PyObject *kest_passport_chain_tip(PassportObject *self, void *unused)
{
    PyObject *tips, *comma, *text = NULL;

    (void)unused;
    tips = kest_tip_hashes(self, NULL);
    if (!tips)
        return NULL;
    comma = PyUnicode_FromString(",");
    if (comma)
        text = PyUnicode_Join(comma, tips);
    Py_XDECREF(comma);
    Py_DECREF(tips);
    return text;
}

PyObject *kest_tip_scores(PassportObject *self, void *unused)
{
    (void)unused;
    if (kest_passport_empty(self))
        return Py_BuildValue("(i)", (int)self->ceiling);
    return tip_tuple(self, tip_score);
}

PyObject *kest_tip_entry(PassportObject *self, void *unused)
{
    (void)unused;
    if (kest_passport_tips(kest_state_of((PyObject *)self), self) < 0)
        return NULL;
    if (self->ntips != 1)
        Py_RETURN_NONE;
    return kest_node_text(self->tips[0]);
}

/* An entry was read before it became a node, so what cannot be read here is memory. */
static PyObject *tip_labels(const kest_node *tip, const PassportObject *self)
{
    const kest_json *labels;
    kest_parsed parsed;
    PyObject *dict = NULL;
    kest_status st = kest_parsed_read(tip->jws, tip->jws_len, &parsed);

    if (st != KEST_OK)
        return kest_raise(kest_state_of((PyObject *)(uintptr_t)self), st);
    labels = kest_json_get(parsed.doc.root, "labels");
    dict = labels ? kest_json_to_python(labels) : PyDict_New();
    kest_parsed_free(&parsed);
    return dict;
}

PyObject *kest_tip_labels(PassportObject *self, void *unused)
{
    (void)unused;
    return tip_tuple(self, tip_labels);
}
