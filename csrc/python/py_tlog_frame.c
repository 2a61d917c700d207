/* py_tlog_frame.c: records into frames of the journal, and back. */
#include "py_tlog.h"

#include "../core/alloc.h"
#include "../core/b64url.h"
#include "../core/parallel.h"

/* One record on its way into a frame. */
typedef struct item {
    kest_str data;          /* the record, or the payload that is to be signed */
    const kest_seckey *key; /* NULL: signed already */
    size_t header_at, header_len;
    size_t at, len;         /* where the record stands in the body, after its length */
} item;

typedef struct framing {
    item *items;
    size_t count;
    kest_buf headers;
    uint8_t *body, *hashes, *tags;
    kest_status *results;
} framing;

static int text_of(PyObject *object, kest_str *out)
{
    Py_ssize_t len;

    if (PyUnicode_Check(object)) {
        out->data = (const uint8_t *)PyUnicode_AsUTF8AndSize(object, &len);
        out->len = (size_t)len;
        return out->data ? 0 : -1;
    }
    if (!PyBytes_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a record is str, bytes or (Signer, typ, payload)");
        return -1;
    }
    *out = (kest_str){(const uint8_t *)PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object)};
    return 0;
}

/* (Signer, typ, payload): the header goes into `headers`, unless it is the one of the item before. */
static int unsigned_of(kest_state *state, PyObject *tuple, PyObject *before, framing *f, item *it)
{
    PyObject *signer, *typ;
    const SignerObject *s;
    kest_str name;

    if (PyTuple_GET_SIZE(tuple) != 3 || !Py_IS_TYPE(PyTuple_GET_ITEM(tuple, 0), state->signer_type) ||
        !PyUnicode_Check(PyTuple_GET_ITEM(tuple, 1))) {
        PyErr_SetString(PyExc_TypeError, "a record to be signed is (Signer, typ, payload)");
        return -1;
    }
    signer = PyTuple_GET_ITEM(tuple, 0);
    typ = PyTuple_GET_ITEM(tuple, 1);
    s = (const SignerObject *)signer;
    it->key = s->key;
    if (before && PyTuple_GET_ITEM(before, 0) == signer && PyTuple_GET_ITEM(before, 1) == typ) {
        it->header_at = it[-1].header_at;
        it->header_len = it[-1].header_len;
    } else {
        if (text_of(typ, &name) < 0)
            return -1;
        it->header_at = f->headers.len;
        if (kest_jws_header_write(&f->headers, KEST_ALG_EDDSA, s->principal->data, s->principal->len, (const char *)name.data) != KEST_OK) {
            kest_raise(state, f->headers.status);
            return -1;
        }
        it->header_len = f->headers.len - it->header_at;
    }
    if (text_of(PyTuple_GET_ITEM(tuple, 2), &it->data) < 0)
        return -1;
    it->len = it->header_len + kest_b64_encoded_len(it->data.len) + kest_b64_encoded_len(KEST_SIG_LEN) + 2;
    return 0;
}

/* Where everything comes from and goes to; the length of the body, or SIZE_MAX with an exception set. */
static size_t plan(kest_state *state, PyObject *records, framing *f)
{
    PyObject *before = NULL;
    size_t body = 0;

    for (size_t i = 0; i < f->count; i++) {
        PyObject *record = PyTuple_GET_ITEM(records, (Py_ssize_t)i);
        const bool to_sign = PyTuple_Check(record) && PyTuple_GET_SIZE(record) > 0;
        item *it = &f->items[i];

        if (to_sign ? unsigned_of(state, record, before, f, it) < 0 : text_of(record, &it->data) < 0)
            return SIZE_MAX;
        before = to_sign ? record : NULL;
        if (!to_sign)
            it->len = it->data.len;
        if (it->len > KEST_TLOG_MAX_RECORD) {
            PyErr_Format(PyExc_ValueError, "a record of %zu bytes is longer than the %d that a bundle takes", it->len, KEST_TLOG_MAX_RECORD);
            return SIZE_MAX;
        }
        it->at = body + 2;
        body += 2 + it->len;
    }
    if (body > UINT32_MAX) {
        kest_tlog_raise(state, KEST_E_OVERFLOW);
        return SIZE_MAX;
    }
    return body;
}

static kest_status sign(const framing *f, const item *it, uint8_t *out)
{
    uint8_t sig[KEST_SIG_LEN];
    const size_t sig_at = it->len - kest_b64_encoded_len(sizeof sig);
    kest_status st;

    memcpy(out, f->headers.data + it->header_at, it->header_len);
    out[it->header_len] = '.';
    kest_b64_encode(it->data.data, it->data.len, out + it->header_len + 1);
    st = kest_sign(it->key, out, sig_at - 1, sig);
    out[sig_at - 1] = '.';
    kest_b64_encode(sig, sizeof sig, out + sig_at);
    return st;
}

static void place(void *context, size_t i, void *scratch)
{
    const framing *f = context;
    const item *it = &f->items[i];
    uint8_t *out = f->body + it->at, *leaf = f->hashes + i * KEST_HASH_LEN;
    kest_status st = KEST_OK;

    out[-2] = (uint8_t)(it->len >> 8);
    out[-1] = (uint8_t)it->len;
    if (it->key)
        st = sign(f, it, out);
    else if (it->len)
        memcpy(out, it->data.data, it->len);
    if (st == KEST_OK)
        st = kest_tlog_leaf(out, it->len, leaf);
    if (st == KEST_OK)
        st = kest_record_tag((kest_str){out, it->len}, leaf, scratch, f->tags + i * KEST_TAG_LEN);
    f->results[i] = st;
}

/* Offsets, from `base` on, of the records whose index is a multiple of a tile's width. */
static PyObject *cuts_of(uint64_t first, size_t base, const void *at, size_t stride, size_t count)
{
    PyObject *cuts = PyList_New(0);
    size_t i = (size_t)((KEST_TILE_WIDTH - first % KEST_TILE_WIDTH) % KEST_TILE_WIDTH);

    for (; cuts && i < count; i += KEST_TILE_WIDTH) {
        size_t offset;
        PyObject *number;

        memcpy(&offset, (const uint8_t *)at + i * stride, sizeof offset); /* text buffers are not aligned */
        number = PyLong_FromSize_t(offset - 2 + base);
        if (!number || PyList_Append(cuts, number) < 0)
            Py_CLEAR(cuts);
        Py_XDECREF(number);
    }
    return cuts;
}

PyObject *kest_tlog_frame(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    PyObject *given, *records = NULL, *frame = NULL, *hashes = NULL, *tags = NULL, *cuts = NULL, *result = NULL;
    unsigned long long first;
    unsigned threads = 1;
    Py_buffer before = {0};
    framing f = {0};
    size_t body;
    kest_status st = KEST_OK;

    if (!PyArg_ParseTuple(args, "OKy*|I:tlog_frame", &given, &first, &before, &threads))
        return NULL;
    kest_buf_init(&f.headers);
    if (before.len != KEST_HASH_LEN) {
        PyErr_SetString(PyExc_ValueError, "the digest of the frame before is 32 bytes");
        goto done;
    }
    if (!(records = PySequence_Tuple(given)))
        goto done;
    f.count = (size_t)PyTuple_GET_SIZE(records);
    f.items = kest_calloc(f.count, sizeof *f.items);
    f.results = kest_calloc(f.count, sizeof *f.results);
    if (!f.items || !f.results) {
        PyErr_NoMemory();
        goto done;
    }
    if ((body = plan(state, records, &f)) == SIZE_MAX)
        goto done;
    frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(KEST_FRAME_HEAD + body));
    hashes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(f.count * KEST_HASH_LEN));
    tags = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(f.count * KEST_TAG_LEN));
    if (!frame || !hashes || !tags)
        goto done;
    f.body = (uint8_t *)PyBytes_AS_STRING(frame) + KEST_FRAME_HEAD;
    f.hashes = (uint8_t *)PyBytes_AS_STRING(hashes);
    f.tags = (uint8_t *)PyBytes_AS_STRING(tags);
    KEST_GIL_RELEASE
    st = kest_parallel(f.count, 8, threads, KEST_TLOG_MAX_RECORD, place, &f);
    for (size_t i = 0; i < f.count && st == KEST_OK; i++)
        st = f.results[i];
    if (st == KEST_OK)
        st = kest_frame_seal(f.body - KEST_FRAME_HEAD, first, (uint32_t)f.count, (uint32_t)body, before.buf);
    KEST_GIL_RELEASE_END
    if (st != KEST_OK)
        kest_tlog_raise(state, st);
    else if ((cuts = cuts_of(first, KEST_FRAME_HEAD, f.items ? &f.items[0].at : NULL, sizeof f.items[0], f.count)))
        result = PyTuple_Pack(4, frame, hashes, tags, cuts);
done:
    Py_XDECREF(cuts);
    Py_XDECREF(tags);
    Py_XDECREF(hashes);
    Py_XDECREF(frame);
    Py_XDECREF(records);
    kest_buf_free(&f.headers);
    kest_free(f.items);
    kest_free(f.results);
    PyBuffer_Release(&before);
    return result;
}

PyObject *kest_tlog_frames(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    PyObject *frames = NULL, *result = NULL;
    kest_status st = KEST_OK;
    size_t at = 0;
    Py_buffer data;

    if (!PyArg_ParseTuple(args, "y*:tlog_frames", &data))
        return NULL;
    frames = PyList_New(0);
    while (frames && at < (size_t)data.len) {
        const uint8_t *here = (const uint8_t *)data.buf + at;
        PyObject *frame;
        kest_frame f;

        KEST_GIL_RELEASE
        st = kest_frame_read(here, (size_t)data.len - at, &f);
        KEST_GIL_RELEASE_END
        if (st != KEST_OK)
            break;
        frame = Py_BuildValue("(KInIy#y#)", (unsigned long long)f.first, f.count, (Py_ssize_t)(at + KEST_FRAME_HEAD), f.body_len,
                              (const char *)f.before, (Py_ssize_t)KEST_HASH_LEN, (const char *)f.digest, (Py_ssize_t)KEST_HASH_LEN);
        if (!frame || PyList_Append(frames, frame) < 0)
            Py_CLEAR(frames);
        Py_XDECREF(frame);
        at += KEST_FRAME_HEAD + f.body_len;
    }
    if (st == KEST_E_CRYPTO)
        kest_raise(state, st);
    else if (frames)
        result = Py_BuildValue("(Ons)", frames, (Py_ssize_t)at,
                               st == KEST_OK          ? NULL
                               : st == KEST_E_LIMIT   ? "cut off"
                               : st == KEST_E_SCHEMA  ? "not a frame"
                                                      : "its digest does not match");
    Py_XDECREF(frames);
    PyBuffer_Release(&data);
    return result;
}

PyObject *kest_tlog_leaves(PyObject *module, PyObject *args)
{
    kest_state *state = state_of_module(module);
    PyObject *cuts = NULL, *result = NULL;
    kest_buf hashes, tags, offsets;
    uint8_t *scratch = NULL, leaf[KEST_HASH_LEN], tag[KEST_TAG_LEN];
    kest_status st = KEST_OK;
    unsigned long long first;
    size_t at = 0;
    kest_str record;
    Py_buffer data;

    if (!PyArg_ParseTuple(args, "y*K:tlog_leaves", &data, &first))
        return NULL;
    kest_buf_init(&hashes);
    kest_buf_init(&tags);
    kest_buf_init(&offsets);
    scratch = kest_malloc(1 + KEST_TLOG_MAX_RECORD);
    if (!scratch) {
        PyErr_NoMemory();
        goto done;
    }
    KEST_GIL_RELEASE
    while (st == KEST_OK && kest_bundle_next(data.buf, (size_t)data.len, &at, &record)) {
        const size_t start = at - record.len;

        if (record.len)
            memcpy(scratch + 1, record.data, record.len);
        st = kest_tlog_leaf(scratch + 1, record.len, leaf);
        if (st == KEST_OK)
            st = kest_record_tag(record, leaf, scratch, tag);
        kest_buf_put(&hashes, leaf, sizeof leaf);
        kest_buf_put(&tags, tag, sizeof tag);
        kest_buf_put(&offsets, &start, sizeof start);
    }
    KEST_GIL_RELEASE_END
    if (st == KEST_OK && at != (size_t)data.len)
        st = KEST_E_SCHEMA;
    if (st == KEST_OK)
        st = hashes.status != KEST_OK ? hashes.status : tags.status != KEST_OK ? tags.status : offsets.status;
    if (st != KEST_OK)
        kest_tlog_raise(state, st);
    else if ((cuts = cuts_of(first, 0, offsets.data, sizeof(size_t), offsets.len / sizeof(size_t))))
        result = Py_BuildValue("(y#y#O)", (const char *)hashes.data, (Py_ssize_t)hashes.len, (const char *)tags.data,
                               (Py_ssize_t)tags.len, cuts);
done:
    Py_XDECREF(cuts);
    kest_free(scratch);
    kest_buf_free(&hashes);
    kest_buf_free(&tags);
    kest_buf_free(&offsets);
    PyBuffer_Release(&data);
    return result;
}
