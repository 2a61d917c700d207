/* py_arrive.c: the baggage header of nearly every request in one go: split, decoded, unpacked, held against its chain_tip.
 *
 * Whatever is unusual or wrong (claim checks, repeated keys, properties, anything that is refused) is answered with None: the
 * slower functions of kest.http and kest.core.baggage judge it and say what is wrong with it, so there is one place for that. */
#include "py_known.h"

#include "../core/alloc.h"
#include "../core/percent.h"

#include <string.h>

enum { USER, AGENT, TASK, WHO };

static const char *const who_keys[WHO] = {"kest.user", "kest.agent", "kest.task"};
static const char tip_key[] = "kest.chain_tip", prefix[] = "kest.";

typedef struct arrival {
    kest_form form;
    kest_str passport, tip, who[WHO]; /* decoded; data is NULL where there is none */
    PyObject *foreign;                /* list of bytes */
    uint8_t *room;                    /* what is decoded, each behind the other */
    size_t used;
} arrival;

static bool is_key(kest_str key, const char *name)
{
    return key.len == strlen(name) && memcmp(key.data, name, key.len) == 0;
}

static kest_str *place_of(arrival *a, kest_str key)
{
    const kest_form form = kest_form_of((const char *)key.data, key.len);

    if (form != KEST_FORM_NONE) {
        if (a->form != KEST_FORM_NONE)
            return NULL;
        a->form = form;
        return &a->passport;
    }
    for (int i = 0; i < WHO; i++)
        if (is_key(key, who_keys[i]))
            return &a->who[i];
    return is_key(key, tip_key) ? &a->tip : NULL;
}

static bool take_own(arrival *a, kest_str member)
{
    const uint8_t *equals = memchr(member.data, '=', member.len);
    kest_str key, *place;
    size_t len = 0;

    if (!equals)
        return false;
    key = (kest_str){member.data, (size_t)(equals - member.data)};
    if (!(place = place_of(a, key)) || place->data)
        return false;
    if (kest_percent_decode(equals + 1, member.len - key.len - 1, a->room + a->used, &len) != KEST_OK)
        return false;
    *place = (kest_str){a->room + a->used, len};
    a->used += len;
    return true;
}

/* Somebody else's, unless its key could be read as one of ours. */
static bool take_foreign(arrival *a, kest_str member)
{
    PyObject *bytes;
    bool kept;

    for (size_t i = 0; i < member.len && member.data[i] != '=' && member.data[i] != ';'; i++)
        if (member.data[i] == '%')
            return false;
    bytes = PyBytes_FromStringAndSize((const char *)member.data, (Py_ssize_t)member.len);
    kept = bytes && (a->foreign || (a->foreign = PyList_New(0))) && PyList_Append(a->foreign, bytes) == 0;
    Py_XDECREF(bytes);
    return kept;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static kest_str stripped(kest_str item)
{
    while (item.len && is_space(item.data[0])) {
        item.data++;
        item.len--;
    }
    while (item.len && is_space(item.data[item.len - 1]))
        item.len--;
    return item;
}

static bool take_all(arrival *a, kest_str header)
{
    const uint8_t *end = header.data + header.len;

    for (const uint8_t *p = header.data; p <= end;) {
        const uint8_t *comma = p < end ? memchr(p, ',', (size_t)(end - p)) : NULL, *stop = comma ? comma : end;
        const kest_str member = stripped((kest_str){p, (size_t)(stop - p)});

        if (member.len) {
            const bool own = member.len >= sizeof prefix - 1 && memcmp(member.data, prefix, sizeof prefix - 1) == 0;

            if (!(own ? take_own(a, member) : take_foreign(a, member)))
                return false;
        }
        p = stop + 1;
    }
    return a->form != KEST_FORM_NONE && a->passport.len > 0;
}

/* Whether the passport has entries, and the tip that came with it, if one did. */
static bool fits(const arrival *a, PyObject *passport)
{
    PyObject *tip;
    bool same;

    if (kest_passport_empty((PassportObject *)passport))
        return false;
    if (!a->tip.data)
        return true;
    tip = kest_passport_chain_tip((PassportObject *)passport, NULL);
    same = tip && PyUnicode_IS_ASCII(tip) && (size_t)PyUnicode_GET_LENGTH(tip) == a->tip.len &&
           memcmp(PyUnicode_1BYTE_DATA(tip), a->tip.data, a->tip.len) == 0;
    Py_XDECREF(tip);
    return same;
}

static PyObject *text_or_none(kest_str text)
{
    if (!text.data)
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8((const char *)text.data, (Py_ssize_t)text.len, NULL);
}

static PyObject *whose(const arrival *a)
{
    PyObject *result = PyTuple_New(WHO);

    for (Py_ssize_t i = 0; result && i < WHO; i++) {
        PyObject *name = text_or_none(a->who[i]);

        if (!name) {
            Py_CLEAR(result);
            break;
        }
        PyTuple_SET_ITEM(result, i, name);
    }
    return result;
}

static PyObject *answer(const arrival *a, PyObject *passport)
{
    PyObject *foreign = a->foreign ? PyList_AsTuple(a->foreign) : PyTuple_New(0), *who = whose(a), *result = NULL;

    if (foreign && who)
        result = PyTuple_Pack(3, passport, foreign, who);
    Py_XDECREF(foreign);
    Py_XDECREF(who);
    return result;
}

PyObject *kest_known_arrive(PyObject *self, PyObject *args)
{
    PyObject *header, *passport = NULL, *result = NULL;
    Py_ssize_t max_bytes, max_entries;
    arrival a = {.form = KEST_FORM_NONE};
    kest_str view;

    if (!PyArg_ParseTuple(args, "Onn:arrive", &header, &max_bytes, &max_entries))
        return NULL;
    if (!PyBytes_CheckExact(header))
        Py_RETURN_NONE;
    view = (kest_str){(const uint8_t *)PyBytes_AS_STRING(header), (size_t)PyBytes_GET_SIZE(header)};
    if (max_bytes <= 0 || max_entries <= 0)
        Py_RETURN_NONE;
    if (!(a.room = kest_malloc(view.len + 1)))
        return PyErr_NoMemory();
    if (take_all(&a, view) &&
        (passport = kest_known_unpack(self, a.form, a.passport, (kest_known_caps){(size_t)max_bytes, (size_t)max_entries})) &&
        fits(&a, passport))
        result = answer(&a, passport);
    Py_XDECREF(passport);
    Py_XDECREF(a.foreign);
    kest_free(a.room);
    if (result)
        return result;
    PyErr_Clear();
    Py_RETURN_NONE;
}
