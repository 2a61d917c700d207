/* py_tlog.c: hashes, proofs and bundles of a transparency log. */
#include "py_tlog.h"

#include "../core/alloc.h"

/* Work on less than this many hashes is shorter than letting go of the lock is worth. */
enum { RELEASE_FROM = 1024 };

PyObject *kest_tlog_raise(kest_state *state, kest_status st)
{
    if (st == KEST_E_NOMEM || st == KEST_E_CRYPTO)
        return kest_raise(state, st);
    PyErr_SetString(PyExc_ValueError, kest_strerror(st));
    return NULL;
}

static PyObject *hash_object(kest_state *state, kest_status st, const uint8_t hash[KEST_HASH_LEN])
{
    return st == KEST_OK ? PyBytes_FromStringAndSize((const char *)hash, KEST_HASH_LEN) : kest_tlog_raise(state, st);
}

/* A view of whole hashes; -1 with an exception set. */
static int hashes_view(PyObject *arg, Py_buffer *view, size_t *count)
{
    if (PyObject_GetBuffer(arg, view, PyBUF_SIMPLE) < 0)
        return -1;
    if (view->len % KEST_HASH_LEN) {
        PyErr_Format(PyExc_ValueError, "hashes are %d bytes each, %zd are no whole number of them", KEST_HASH_LEN, view->len);
        PyBuffer_Release(view);
        return -1;
    }
    *count = (size_t)view->len / KEST_HASH_LEN;
    return 0;
}

static PyObject *tlog_root(PyObject *module, PyObject *arg)
{
    uint8_t out[KEST_HASH_LEN];
    kest_status st;
    Py_buffer view;
    size_t count;

    if (hashes_view(arg, &view, &count) < 0)
        return NULL;
    if (count >= RELEASE_FROM) {
        KEST_GIL_RELEASE
        st = kest_tlog_root(view.buf, count, out);
        KEST_GIL_RELEASE_END
    } else {
        st = kest_tlog_root(view.buf, count, out);
    }
    PyBuffer_Release(&view);
    return hash_object(state_of_module(module), st, out);
}

static PyObject *tlog_fold(PyObject *module, PyObject *arg)
{
    uint8_t out[KEST_HASH_LEN];
    kest_status st = KEST_E_SCHEMA;
    Py_buffer view;
    size_t count;

    if (hashes_view(arg, &view, &count) < 0)
        return NULL;
    if (count)
        st = kest_tlog_fold(view.buf, count, out);
    PyBuffer_Release(&view);
    return hash_object(state_of_module(module), st, out);
}

static PyObject *tlog_leaf(PyObject *module, PyObject *arg)
{
    uint8_t out[KEST_HASH_LEN], *copy = NULL;
    kest_status st = KEST_E_NOMEM;
    Py_buffer view;

    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    copy = kest_malloc((size_t)view.len + 1);
    if (copy) {
        if (view.len)
            memcpy(copy + 1, view.buf, (size_t)view.len);
        st = kest_tlog_leaf(copy + 1, (size_t)view.len, out);
        kest_free(copy);
    }
    PyBuffer_Release(&view);
    return hash_object(state_of_module(module), st, out);
}

static PyObject *path_object(kest_state *state, kest_status st, const kest_tlog_path *path)
{
    PyObject *elements, *element = NULL;

    if (st != KEST_OK)
        return kest_tlog_raise(state, st);
    elements = PyList_New(0);
    for (size_t i = 0; elements && i < path->count; i++) {
        const kest_tlog_coord *c = &path->nodes[i];
        PyObject *coord = Py_BuildValue("(IK)", (unsigned)c->level, (unsigned long long)c->index);

        if (!element)
            element = PyList_New(0);
        if (!coord || !element || PyList_Append(element, coord) < 0 || (c->ends && PyList_Append(elements, element) < 0))
            Py_CLEAR(elements);
        Py_XDECREF(coord);
        if (c->ends)
            Py_CLEAR(element);
    }
    Py_XDECREF(element);
    return elements;
}

static PyObject *tlog_inclusion_path(PyObject *module, PyObject *args)
{
    unsigned long long index, size;
    kest_tlog_path path;

    if (!PyArg_ParseTuple(args, "KK:tlog_inclusion_path", &index, &size))
        return NULL;
    return path_object(state_of_module(module), kest_tlog_inclusion_path(index, size, &path), &path);
}

static PyObject *tlog_consistency_path(PyObject *module, PyObject *args)
{
    unsigned long long old, size;
    kest_tlog_path path;

    if (!PyArg_ParseTuple(args, "KK:tlog_consistency_path", &old, &size))
        return NULL;
    return path_object(state_of_module(module), kest_tlog_consistency_path(old, size, &path), &path);
}

/* (number, number, hash, proof, hash) */
static PyObject *verify_proof(PyObject *module, PyObject *args, bool inclusion)
{
    unsigned long long a, b;
    kest_status st = KEST_E_SIGNATURE;
    Py_buffer first, proof, root;
    size_t count;

    if (!PyArg_ParseTuple(args, "KKy*y*y*", &a, &b, &first, &proof, &root))
        return NULL;
    count = (size_t)proof.len / KEST_HASH_LEN;
    if (first.len == KEST_HASH_LEN && root.len == KEST_HASH_LEN && proof.len % KEST_HASH_LEN == 0 &&
        count <= (size_t)2 * KEST_TLOG_MAX_PROOF)
        st = inclusion ? kest_tlog_verify_inclusion(a, b, first.buf, proof.buf, count, root.buf)
                       : kest_tlog_verify_consistency(a, b, first.buf, proof.buf, count, root.buf);
    PyBuffer_Release(&first);
    PyBuffer_Release(&proof);
    PyBuffer_Release(&root);
    if (st != KEST_OK && st != KEST_E_SIGNATURE)
        return kest_tlog_raise(state_of_module(module), st);
    return PyBool_FromLong(st == KEST_OK);
}

static PyObject *tlog_verify_inclusion(PyObject *module, PyObject *args)
{
    return verify_proof(module, args, true);
}

static PyObject *tlog_verify_consistency(PyObject *module, PyObject *args)
{
    return verify_proof(module, args, false);
}

static PyObject *tlog_records(PyObject *module, PyObject *arg)
{
    PyObject *records = NULL;
    Py_buffer view;
    kest_str record;
    size_t at = 0;

    (void)module;
    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    records = PyList_New(0);
    while (records && kest_bundle_next(view.buf, (size_t)view.len, &at, &record)) {
        PyObject *item = PyBytes_FromStringAndSize((const char *)record.data, (Py_ssize_t)record.len);

        if (!item || PyList_Append(records, item) < 0)
            Py_CLEAR(records);
        Py_XDECREF(item);
    }
    if (records && at != (size_t)view.len) {
        PyErr_SetString(PyExc_ValueError, "the bundle is cut off within a record");
        Py_CLEAR(records);
    }
    PyBuffer_Release(&view);
    return records;
}

static PyObject *tlog_find(PyObject *module, PyObject *args)
{
    PyObject *found = NULL;
    Py_buffer index, tag;
    int where = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*p:tlog_find", &index, &tag, &where))
        return NULL;
    if (tag.len != 8) {
        PyErr_SetString(PyExc_ValueError, "half a tag is 8 bytes");
    } else if ((found = PyList_New(0))) {
        const uint8_t *at = (const uint8_t *)index.buf + (where ? 8 : 0);
        uint64_t wanted, here;

        memcpy(&wanted, tag.buf, 8);
        for (Py_ssize_t i = 0; found && i < index.len / KEST_TAG_LEN; i++, at += KEST_TAG_LEN) {
            memcpy(&here, at, 8);
            if (here == wanted) {
                PyObject *number = PyLong_FromSsize_t(i);

                if (!number || PyList_Append(found, number) < 0)
                    Py_CLEAR(found);
                Py_XDECREF(number);
            }
        }
    }
    PyBuffer_Release(&index);
    PyBuffer_Release(&tag);
    return found;
}

PyMethodDef kest_tlog_methods[] = {
    {"tlog_root", tlog_root, METH_O, "tlog_root(hashes, /)\n--\n\nRFC 9162's tree hash over leaf hashes, 32 bytes each."},
    {"tlog_fold", tlog_fold, METH_O,
     "tlog_fold(hashes, /)\n--\n\nOne hash of the perfect subtrees, the largest first, that make up a tree; at least one."},
    {"tlog_leaf", tlog_leaf, METH_O, "tlog_leaf(record, /)\n--\n\nRFC 9162's leaf hash: SHA-256(0x00 || record)."},
    {"tlog_inclusion_path", tlog_inclusion_path, METH_VARARGS,
     "tlog_inclusion_path(index, size, /)\n--\n\nThe elements of an inclusion proof, each a list of (level, index): the nodes whose "
     "fold it is. Node (l, i) is the hash of leaves [i << l, (i + 1) << l)."},
    {"tlog_consistency_path", tlog_consistency_path, METH_VARARGS,
     "tlog_consistency_path(old, size, /)\n--\n\nThe same for the consistency proof between two sizes; 0 < old <= size."},
    {"tlog_verify_inclusion", tlog_verify_inclusion, METH_VARARGS,
     "tlog_verify_inclusion(index, size, leaf, proof, root, /)\n--\n\nWhether the proof (hashes side by side) leads from the leaf's "
     "hash to the root (RFC 9162, section 2.1.3.2)."},
    {"tlog_verify_consistency", tlog_verify_consistency, METH_VARARGS,
     "tlog_verify_consistency(old, size, old_root, proof, root, /)\n--\n\nWhether the tree of `size` extends the one of `old` "
     "(section 2.1.4.2)."},
    {"tlog_records", tlog_records, METH_O, "tlog_records(bundle, /)\n--\n\nThe records of an entry bundle. ValueError: cut off."},
    {"tlog_find", tlog_find, METH_VARARGS,
     "tlog_find(index, tag, by_id, /)\n--\n\nThe records of which the index holds this half of a tag: of the leaf hash, or of the "
     "entry id."},
    {"tlog_frame", kest_tlog_frame, METH_VARARGS,
     "tlog_frame(items, first, before, threads=1, /)\n--\n\nOne frame of the journal. items: str or bytes as they are, or (Signer, "
     "typ, payload) to be signed; first: index of the first; before: digest of the frame before. Returns (frame, leaf hashes, tags, "
     "offsets in the frame of the records that begin a bundle)."},
    {"tlog_frames", kest_tlog_frames, METH_VARARGS,
     "tlog_frames(data, /)\n--\n\nThe frames at the beginning of data as (first, count, offset of body, length of body, before, digest), "
     "the offset behind the last of them, and why there is no other there: None at the end of data."},
    {"tlog_leaves", kest_tlog_leaves, METH_VARARGS,
     "tlog_leaves(bundle, first, /)\n--\n\n(leaf hashes, tags, offsets of the records that begin a bundle) of the records in a piece "
     "of bundle, of which the first has this index. ValueError: cut off."},
    {"tlog_check", kest_tlog_check, METH_VARARGS,
     "tlog_check(bundles, keys, threads=0, /)\n--\n\nReads and verifies every record of some bundles on all processors (threads=0). "
     "Returns (leaf hashes, facts): for each record 48 bytes in native order, as in struct.Struct('=BBhIq32s'): kind, status, key, "
     "length, timestamp_ms, link. ValueError: a bundle is cut off."},
    {"record_check", kest_py_record_check, METH_VARARGS, "record_check(record, keys, /)\n--\n\nThe facts of one record, of any length."},
    {"status_text", kest_py_status_text, METH_O, "status_text(status, /)\n--\n\nA status of the core in words."},
    {NULL, NULL, 0, NULL},
};
