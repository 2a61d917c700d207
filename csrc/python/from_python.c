/* from_python.c: the canonical form of Python values, written while walking them: no tree in between. */
#include "from_python.h"

#include "../core/alloc.h"
#include "../core/jcs.h"

#include <math.h>

/* Where the walk is, for messages; one frame on the C stack per level. */
typedef struct frame {
    const struct frame *up;
    PyObject *key; /* borrowed, or NULL */
    Py_ssize_t index;
    int depth;
} frame;

typedef struct walk {
    kest_state *state;
    kest_buf *out;
    PyObject *fallback;
    bool opaque;
    bool typed; /* for a digest that tells 1 from 1.0 and a tuple from a list: not JSON any more */
} walk;

static int write_value(walk *w, PyObject *value, const frame *at);

static PyObject *path_text(const frame *at)
{
    PyObject *path = PyUnicode_FromString("$"), *step, *longer;
    const frame *chain[KEST_MAX_DEPTH + 2];
    int n = 0;

    for (; at && at->up && n < KEST_MAX_DEPTH + 2; at = at->up)
        chain[n++] = at;
    while (path && n--) {
        step = chain[n]->key ? PyUnicode_FromFormat("[%R]", chain[n]->key) : PyUnicode_FromFormat("[%zd]", chain[n]->index);
        longer = step ? PyUnicode_Concat(path, step) : NULL;
        Py_XDECREF(step);
        Py_SETREF(path, longer);
    }
    return path;
}

static int refuse(walk *w, const frame *at, const char *what, PyObject *value)
{
    PyObject *path = path_text(at), *text = NULL, *error = NULL;

    if (path)
        text = value ? PyUnicode_FromFormat("%U: %s (%s)", path, what, Py_TYPE(value)->tp_name)
                     : PyUnicode_FromFormat("%U: %s", path, what);
    if (text)
        error = PyObject_CallFunctionObjArgs(w->state->canonicalization_error, text, path, NULL);
    if (error)
        PyErr_SetObject(w->state->canonicalization_error, error);
    Py_XDECREF(error);
    Py_XDECREF(text);
    Py_XDECREF(path);
    return -1;
}

static int refuse_status(walk *w, const frame *at, kest_status status)
{
    if (status == KEST_E_NOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    return refuse(w, at, kest_strerror(status), NULL);
}

/* UTF-8 of a str that is not ASCII, into `tmp`; not cached on the str, which may be large and live long. */
static kest_status encode_text(PyObject *text, kest_buf *tmp)
{
    const Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    const int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);

    for (Py_ssize_t i = 0; i < n; i++) {
        const Py_UCS4 c = PyUnicode_READ(kind, data, i);

        if (c >= 0xD800 && c <= 0xDFFF)
            return KEST_E_SURROGATE;
        if (!kest_buf_room(tmp, 4))
            return tmp->status;
        if (c < 0x80) {
            tmp->data[tmp->len++] = (uint8_t)c;
        } else if (c < 0x800) {
            tmp->data[tmp->len++] = (uint8_t)(0xC0 | c >> 6);
            tmp->data[tmp->len++] = (uint8_t)(0x80 | (c & 0x3F));
        } else if (c < 0x10000) {
            tmp->data[tmp->len++] = (uint8_t)(0xE0 | c >> 12);
            tmp->data[tmp->len++] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
            tmp->data[tmp->len++] = (uint8_t)(0x80 | (c & 0x3F));
        } else {
            tmp->data[tmp->len++] = (uint8_t)(0xF0 | c >> 18);
            tmp->data[tmp->len++] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
            tmp->data[tmp->len++] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
            tmp->data[tmp->len++] = (uint8_t)(0x80 | (c & 0x3F));
        }
    }
    return KEST_OK;
}

static int write_str(walk *w, PyObject *text, const frame *at)
{
    kest_buf tmp;
    kest_status st;

    if (PyUnicode_READY(text) < 0)
        return -1;
    if (PyUnicode_IS_ASCII(text)) {
        kest_jcs_string(w->out, PyUnicode_1BYTE_DATA(text), (size_t)PyUnicode_GET_LENGTH(text));
        return 0;
    }
    kest_buf_init(&tmp);
    st = encode_text(text, &tmp);
    if (st == KEST_OK)
        kest_jcs_string(w->out, tmp.data, tmp.len);
    kest_buf_free(&tmp);
    return st == KEST_OK ? 0 : refuse_status(w, at, st);
}

static int write_long(walk *w, PyObject *value, const frame *at, bool *too_big)
{
    int overflow;
    const long long v = PyLong_AsLongLongAndOverflow(value, &overflow);

    if (v == -1 && !overflow && PyErr_Occurred())
        return -1;
    *too_big = overflow || v > KEST_MAX_SAFE_INT || v < -KEST_MAX_SAFE_INT;
    if (*too_big)
        return w->fallback ? 0 : refuse(w, at, "an integer beyond 2^53 - 1 has no canonical form; send it as a string", NULL);
    kest_jcs_int(w->out, v);
    return 0;
}

/* --- objects --- */

static uint32_t utf16_rank(Py_UCS4 c)
{
    /* Supplementary characters are written with surrogates, which sort below U+E000. */
    return c < 0xE000 ? c : c < 0x10000 ? c + 0x110000 : c;
}

static int compare_keys(const void *a, const void *b)
{
    PyObject *x = ((const kest_member *)a)->key, *y = ((const kest_member *)b)->key;
    const Py_ssize_t nx = PyUnicode_GET_LENGTH(x), ny = PyUnicode_GET_LENGTH(y), n = nx < ny ? nx : ny;

    if (PyUnicode_IS_ASCII(x) && PyUnicode_IS_ASCII(y)) {
        const int order = memcmp(PyUnicode_1BYTE_DATA(x), PyUnicode_1BYTE_DATA(y), (size_t)n);

        return order ? order : (nx > ny) - (nx < ny);
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        const uint32_t cx = utf16_rank(PyUnicode_READ_CHAR(x, i)), cy = utf16_rank(PyUnicode_READ_CHAR(y, i));

        if (cx != cy)
            return cx < cy ? -1 : 1;
    }
    return (nx > ny) - (nx < ny);
}

static void sort_members(kest_member *m, size_t n)
{
    if (n > 24) {
        qsort(m, n, sizeof *m, compare_keys);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        const kest_member moved = m[i];
        size_t at = i;

        for (; at && compare_keys(&moved, &m[at - 1]) < 0; at--)
            m[at] = m[at - 1];
        m[at] = moved;
    }
}

/* Only exact str keys can be members; with a fallback, "$kest" is reserved for its tagged forms. */
static int plain_keys(walk *w, PyObject *dict, const frame *at, bool *plain)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;

    *plain = true;
    while (PyDict_Next(dict, &pos, &key, &value)) {
        if (!PyUnicode_CheckExact(key)) {
            *plain = false;
            return w->fallback ? 0 : refuse(w, at, "object keys must be str", key);
        }
        if (PyUnicode_READY(key) < 0)
            return -1;
        if (w->fallback && PyUnicode_GET_LENGTH(key) == 5 && PyUnicode_CompareWithASCIIString(key, "$kest") == 0)
            *plain = false;
    }
    return 0;
}

int kest_members_take(PyObject *dict, kest_member *room, size_t nroom, kest_members *out)
{
    const size_t n = (size_t)PyDict_GET_SIZE(dict);
    PyObject *key, *value;
    Py_ssize_t pos = 0;

    *out = (kest_members){room, 0, room};
    if (n > nroom && !(out->items = kest_calloc(n, sizeof *out->items))) {
        out->items = room;
        PyErr_NoMemory();
        return -1;
    }
    while (out->count < n && PyDict_Next(dict, &pos, &key, &value))
        out->items[out->count++] = (kest_member){Py_NewRef(key), Py_NewRef(value)};
    sort_members(out->items, out->count);
    return 0;
}

void kest_members_drop(kest_members *m)
{
    while (m->count--) {
        Py_DECREF(m->items[m->count].key);
        Py_DECREF(m->items[m->count].value);
    }
    if (m->items != m->room)
        kest_free(m->items);
}

static int write_members(walk *w, const kest_member *m, size_t n, const frame *at)
{
    kest_buf_byte(w->out, '{');
    for (size_t i = 0; i < n; i++) {
        const frame here = {at, m[i].key, 0, at->depth + 1};

        if (i)
            kest_buf_byte(w->out, ',');
        if (write_str(w, m[i].key, at) < 0)
            return -1;
        kest_buf_byte(w->out, ':');
        if (write_value(w, m[i].value, &here) < 0)
            return -1;
    }
    kest_buf_byte(w->out, '}');
    return 0;
}

static int write_dict(walk *w, PyObject *dict, const frame *at)
{
    kest_member room[KEST_MEMBERS_ROOM];
    kest_members members;
    int rc = -1;

    if (kest_members_take(dict, room, KEST_MEMBERS_ROOM, &members) == 0)
        rc = write_members(w, members.items, members.count, at);
    kest_members_drop(&members);
    return rc;
}

static int write_sequence(walk *w, PyObject *seq, const frame *at)
{
    frame here = {at, NULL, 0, at->depth + 1};

    kest_buf_byte(w->out, w->typed && PyTuple_CheckExact(seq) ? '(' : '[');
    for (; here.index < PySequence_Fast_GET_SIZE(seq); here.index++) { /* a list may change under a fallback */
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(seq, here.index));
        int rc;

        if (here.index)
            kest_buf_byte(w->out, ',');
        rc = write_value(w, item, &here);
        Py_DECREF(item);
        if (rc < 0)
            return -1;
    }
    kest_buf_byte(w->out, ']');
    return 0;
}

/* As the fallback's stand-in for a record would be written: {"$kest": what it is, "fields": {...}, "type": its class}. */
static int write_record(walk *w, const kest_record *record, const frame *at)
{
    const frame here = {at->up, at->key, at->index, at->depth + 1};
    const frame inner = {&here, w->state->name_fields, 0, at->depth + 2};

    if (inner.depth >= KEST_MAX_DEPTH)
        return refuse(w, &inner, "nested deeper than 64 levels, or contains itself", NULL);
    if (record->pydantic)
        kest_buf_lit(w->out, "{\"$kest\":\"pydantic\",\"fields\":");
    else
        kest_buf_lit(w->out, "{\"$kest\":\"dataclass\",\"fields\":");
    if (write_members(w, record->fields.items, record->fields.count, &inner) < 0)
        return -1;
    kest_buf_lit(w->out, ",\"type\":");
    if (write_str(w, record->type_name, &here) < 0)
        return -1;
    kest_buf_byte(w->out, '}');
    return 0;
}

/* Asks the fallback for a form that can be written; its answer counts one level, so it cannot go on for ever. */
static int write_foreign(walk *w, PyObject *value, const frame *at)
{
    const frame here = {at->up, at->key, at->index, at->depth + 1};
    PyObject *answer = PyObject_CallOneArg(w->fallback, value);
    int rc = -1, opaque;

    if (!answer)
        return -1;
    if (!PyTuple_CheckExact(answer) || PyTuple_GET_SIZE(answer) != 2) {
        PyErr_SetString(PyExc_TypeError, "a fallback must return (replacement, opaque)");
    } else if ((opaque = PyObject_IsTrue(PyTuple_GET_ITEM(answer, 1))) >= 0) {
        PyObject *form = PyTuple_GET_ITEM(answer, 0);

        w->opaque |= opaque != 0;
        if (PyDict_CheckExact(form)) /* may carry "$kest": this is where the tags come from */
            rc = here.depth > KEST_MAX_DEPTH ? refuse_status(w, at, KEST_E_JSON_DEPTH) : write_dict(w, form, &here);
        else
            rc = write_value(w, form, &here);
    }
    Py_DECREF(answer);
    return rc;
}

static int write_object(walk *w, PyObject *value, const frame *at)
{
    kest_record record;
    int rc;

    if (at->depth >= KEST_MAX_DEPTH)
        return refuse(w, at, "nested deeper than 64 levels, or contains itself", NULL);
    if ((rc = kest_record_take(w->state, value, &record)) <= 0)
        return rc < 0 ? -1 : write_foreign(w, value, at);
    rc = write_record(w, &record, at);
    kest_record_drop(&record);
    return rc;
}

static int write_container(walk *w, PyObject *value, const frame *at)
{
    bool plain;

    if (at->depth >= KEST_MAX_DEPTH)
        return refuse(w, at, "nested deeper than 64 levels, or contains itself", NULL);
    if (!PyDict_CheckExact(value))
        return write_sequence(w, value, at);
    if (plain_keys(w, value, at, &plain) < 0)
        return -1;
    return plain ? write_dict(w, value, at) : write_foreign(w, value, at);
}

static int write_value(walk *w, PyObject *value, const frame *at)
{
    bool too_big = false;

    if (w->out->status != KEST_OK)
        return refuse_status(w, at, w->out->status);
    if (PyUnicode_CheckExact(value))
        return write_str(w, value, at);
    if (value == Py_None) {
        kest_buf_lit(w->out, "null");
    } else if (value == Py_True) {
        kest_buf_lit(w->out, "true");
    } else if (value == Py_False) {
        kest_buf_lit(w->out, "false");
    } else if (PyLong_CheckExact(value)) {
        if (write_long(w, value, at, &too_big) < 0)
            return -1;
        return too_big ? write_foreign(w, value, at) : 0;
    } else if (PyFloat_CheckExact(value)) {
        if (w->typed)
            kest_buf_byte(w->out, signbit(PyFloat_AS_DOUBLE(value)) ? 'g' : 'f');
        kest_jcs_double(w->out, PyFloat_AS_DOUBLE(value));
        if (w->out->status == KEST_E_NAN) {
            w->out->status = KEST_OK;
            return refuse_status(w, at, KEST_E_NAN);
        }
    } else if (PyDict_CheckExact(value) || PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
        return write_container(w, value, at);
    } else if (w->fallback) {
        return write_object(w, value, at);
    } else {
        return refuse(w, at, "has no JSON form; use str, int, float, bool, None, list, tuple or dict", value);
    }
    return 0;
}

static int write_top(walk *w, PyObject *value)
{
    const frame top = {NULL, NULL, 0, 0};
    int rc = write_value(w, value, &top);

    if (rc == 0 && w->out->status != KEST_OK)
        rc = refuse_status(w, &top, w->out->status);
    return rc;
}

int kest_write_typed(kest_state *state, kest_buf *out, PyObject *value)
{
    walk w = {.state = state, .out = out, .typed = true};

    return write_top(&w, value);
}

int kest_write_python(kest_state *state, kest_buf *out, PyObject *value, PyObject *fallback, bool *opaque)
{
    walk w = {.state = state, .out = out, .fallback = fallback};
    const int rc = write_top(&w, value);

    if (opaque)
        *opaque = w.opaque;
    return rc;
}

int kest_write_name(kest_state *state, kest_buf *out, PyObject *name)
{
    walk w = {.state = state, .out = out};
    const frame top = {NULL, NULL, 0, 0};

    return write_str(&w, name, &top);
}

int kest_str_view(kest_state *state, PyObject *text, const char *what, kest_str *out)
{
    walk w = {.state = state};
    const frame top = {NULL, NULL, 0, 0};
    const char *data;
    Py_ssize_t len;

    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s must be str, not %s", what, Py_TYPE(text)->tp_name);
        return -1;
    }
    data = PyUnicode_AsUTF8AndSize(text, &len);
    if (!data) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeError))
            return -1;
        PyErr_Clear();
        return refuse(&w, &top, "a lone surrogate has no UTF-8 form", NULL);
    }
    *out = (kest_str){(const uint8_t *)data, (size_t)len};
    return 0;
}

PyObject *kest_py_canonicalize(PyObject *module, PyObject *value)
{
    PyObject *result = NULL;
    kest_buf out;

    kest_buf_init(&out);
    if (kest_write_python(state_of_module(module), &out, value, NULL, NULL) == 0)
        result = PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.len);
    kest_buf_free(&out);
    return result;
}
