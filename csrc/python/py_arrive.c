/* py_arrive.c: the baggage header of nearly every request in one go: split, decoded, unpacked, held against its chain_tip.
 *
 * Whatever is unusual or wrong (repeated keys, properties, claim checks of a cache that is not at hand, anything that is
 * refused) is answered with None: the slower functions of kest.http and kest.core.baggage judge it and say what is wrong
 * with it, so there is one place for that. */
#include "py_known.h"

#include "../core/alloc.h"
#include "../core/percent.h"

#include <string.h>

enum { USER, AGENT, TASK, WHO };

static const char *const who_keys[WHO] = {"kest.user", "kest.agent", "kest.task"};
static const char tip_key[] = "kest.chain_tip", claim_key[] = "kest.claim_check", prefix[] = "kest.";

typedef struct arrival {
    kest_form form; /* of the passport, also of one that a claim check stands for */
    kest_str passport, claim, tip, who[WHO]; /* decoded; data is NULL where there is none */
    kest_known_caps caps;
    PyObject *record;                 /* what the passport is in, if a claim check came */
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
    const bool claim = is_key(key, claim_key);
    const kest_form form = claim ? KEST_FORM_TEXT : kest_form_of((const char *)key.data, key.len);

    if (form != KEST_FORM_NONE) {
        if (a->form != KEST_FORM_NONE)
            return NULL;
        a->form = form;
        return claim ? &a->claim : &a->passport;
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
    return a->passport.len > 0 || a->claim.len > 0;
}

static bool is_uuid(kest_str text)
{
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    if (text.len != sizeof shape - 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        const uint8_t c = text.data[i];

        if (shape[i] == '-' ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}

/* The record behind the claim check: the tip that came with it, a line feed, the passport. */
static bool redeem(arrival *a, PyObject *get, size_t max_record)
{
    PyObject *claim;
    kest_str text;

    if (get == Py_None || !a->tip.data || !is_uuid(a->claim))
        return false;
    if (!(claim = PyUnicode_DecodeASCII((const char *)a->claim.data, (Py_ssize_t)a->claim.len, NULL)))
        return false;
    a->record = PyObject_CallOneArg(get, claim);
    Py_DECREF(claim);
    if (!a->record || !PyUnicode_CheckExact(a->record) || !PyUnicode_IS_COMPACT_ASCII(a->record))
        return false;
    text = (kest_str){PyUnicode_1BYTE_DATA(a->record), (size_t)PyUnicode_GET_LENGTH(a->record)};
    if (text.len > max_record || text.len <= a->tip.len || memcmp(text.data, a->tip.data, a->tip.len) != 0 ||
        text.data[a->tip.len] != '\n')
        return false;
    a->passport = (kest_str){text.data + a->tip.len + 1, text.len - a->tip.len - 1};
    a->caps.bytes = max_record;
    return true;
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

/* NULL with or without an exception: not for this way. */
static PyObject *arrived(PyObject *self, arrival *a, kest_str header, PyObject *get, size_t max_record)
{
    PyObject *passport, *result = NULL;

    if (!take_all(a, header) || (a->claim.data && !redeem(a, get, max_record)))
        return NULL;
    passport = kest_known_unpack(self, a->form, a->passport, a->caps);
    if (passport && fits(a, passport))
        result = answer(a, passport);
    Py_XDECREF(passport);
    return result;
}

PyObject *kest_known_arrive(PyObject *self, PyObject *args)
{
    PyObject *header, *get = Py_None, *result;
    Py_ssize_t max_bytes, max_entries, max_record = 0;
    arrival a = {.form = KEST_FORM_NONE};
    kest_str view;

    if (!PyArg_ParseTuple(args, "Onn|On:arrive", &header, &max_bytes, &max_entries, &get, &max_record))
        return NULL;
    if (!PyBytes_CheckExact(header) || max_bytes <= 0 || max_entries <= 0 || max_record < 0)
        Py_RETURN_NONE;
    view = (kest_str){(const uint8_t *)PyBytes_AS_STRING(header), (size_t)PyBytes_GET_SIZE(header)};
    a.caps = (kest_known_caps){(size_t)max_bytes, (size_t)max_entries};
    if (!(a.room = kest_malloc(view.len + 1)))
        return PyErr_NoMemory();
    result = arrived(self, &a, view, get, (size_t)max_record);
    Py_XDECREF(a.record);
    Py_XDECREF(a.foreign);
    kest_free(a.room);
    if (result || (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))) /* an interruption is nobody's to judge */
        return result;
    PyErr_Clear();
    Py_RETURN_NONE;
}
