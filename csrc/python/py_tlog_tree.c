/* py_tlog_tree.c: LogTree, a Merkle tree that grows by batches of leaf hashes and gives out tiles. */
#include "py_tlog.h"

#include "../core/alloc.h"

typedef struct TreeObject {
    PyObject_HEAD
    kest_tlog_tree *tree;
} TreeObject;

/* Rows as partial tiles have them: for each level the width that the size says. -1 with an exception set. */
static int fill_rows(kest_tlog_tree *tree, PyObject *rows)
{
    for (unsigned level = 0; level < KEST_TILE_LEVELS; level++) {
        const size_t bytes = kest_tlog_width(tree->size, level) * KEST_HASH_LEN;
        PyObject *row = (Py_ssize_t)level < PyTuple_GET_SIZE(rows) ? PyTuple_GET_ITEM(rows, level) : NULL;

        if (!bytes && (!row || (PyBytes_Check(row) && !PyBytes_GET_SIZE(row))))
            continue;
        if (!row || !PyBytes_Check(row) || (size_t)PyBytes_GET_SIZE(row) != bytes) {
            PyErr_Format(PyExc_ValueError, "a tree of this size has %zu bytes of hashes at tile level %u", bytes, level);
            return -1;
        }
        memcpy(tree->rows[level], PyBytes_AS_STRING(row), bytes);
    }
    return 0;
}

static PyObject *tree_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "rows", NULL};
    unsigned long long size = 0;
    PyObject *given = NULL, *rows;
    TreeObject *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|KO:LogTree", names, &size, &given))
        return NULL;
    if (size > UINT64_C(1) << 62) {
        PyErr_SetString(PyExc_ValueError, "no log has more than 2^62 records");
        return NULL;
    }
    rows = given ? PySequence_Tuple(given) : PyTuple_New(0);
    self = rows ? (TreeObject *)type->tp_alloc(type, 0) : NULL;
    if (self && !(self->tree = kest_calloc(1, sizeof *self->tree))) {
        PyErr_NoMemory();
        Py_CLEAR(self);
    }
    if (self) {
        self->tree->size = size;
        if (fill_rows(self->tree, rows) < 0)
            Py_CLEAR(self);
    }
    Py_XDECREF(rows);
    return (PyObject *)self;
}

static void tree_dealloc(TreeObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_free(self->tree);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Tiles that became complete, kept without Python objects while the lock is not held. */
typedef struct tiles {
    struct tile {
        unsigned level;
        uint64_t index;
        uint8_t hashes[KEST_TILE_BYTES];
    } *items;
    size_t count, cap;
} tiles;

static kest_status keep(void *context, unsigned level, uint64_t index, const uint8_t *hashes)
{
    tiles *t = context;

    if (t->count == t->cap) {
        const size_t cap = t->cap ? 2 * t->cap : 4;
        struct tile *grown = kest_realloc(t->items, cap * sizeof *grown);

        if (!grown)
            return KEST_E_NOMEM;
        t->items = grown;
        t->cap = cap;
    }
    t->items[t->count].level = level;
    t->items[t->count].index = index;
    memcpy(t->items[t->count++].hashes, hashes, KEST_TILE_BYTES);
    return KEST_OK;
}

static PyObject *tile_object(unsigned level, uint64_t index, const uint8_t *hashes, size_t width)
{
    return Py_BuildValue("(IKy#)", level, (unsigned long long)index, (const char *)hashes, (Py_ssize_t)(width * KEST_HASH_LEN));
}

static PyObject *tree_append(TreeObject *self, PyObject *arg)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *list = NULL;
    tiles done = {NULL, 0, 0};
    kest_tlog_tree *copy;
    kest_status st = KEST_E_NOMEM;
    Py_buffer view;

    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (view.len % KEST_HASH_LEN) {
        PyBuffer_Release(&view);
        return kest_tlog_raise(state, KEST_E_SCHEMA);
    }
    /* On a copy: a batch counts as a whole or not at all, and two threads cannot mix theirs. */
    copy = kest_malloc(sizeof *copy);
    if (copy) {
        memcpy(copy, self->tree, sizeof *copy);
        KEST_GIL_RELEASE
        st = kest_tlog_append(copy, view.buf, (size_t)view.len / KEST_HASH_LEN, keep, &done);
        KEST_GIL_RELEASE_END
    }
    PyBuffer_Release(&view);
    if (st == KEST_OK && (list = PyList_New(0))) {
        for (size_t i = 0; list && i < done.count; i++) {
            PyObject *tile = tile_object(done.items[i].level, done.items[i].index, done.items[i].hashes, KEST_TILE_WIDTH);

            if (!tile || PyList_Append(list, tile) < 0)
                Py_CLEAR(list);
            Py_XDECREF(tile);
        }
    } else if (st != KEST_OK) {
        kest_tlog_raise(state, st);
    }
    if (list) {
        memcpy(self->tree, copy, sizeof *copy);
    }
    kest_free(copy);
    kest_free(done.items);
    return list;
}

static PyObject *tree_partials(TreeObject *self, PyObject *unused)
{
    PyObject *list = PyList_New(0);

    (void)unused;
    for (unsigned level = 0; list && level < KEST_TILE_LEVELS; level++) {
        const size_t width = kest_tlog_width(self->tree->size, level);
        const unsigned shift = KEST_TILE_HEIGHT * (level + 1);
        PyObject *tile;

        if (!width)
            continue;
        tile = tile_object(level, shift < 64 ? self->tree->size >> shift : 0, self->tree->rows[level], width);
        if (!tile || PyList_Append(list, tile) < 0)
            Py_CLEAR(list);
        Py_XDECREF(tile);
    }
    return list;
}

static PyObject *tree_root(TreeObject *self, PyObject *unused)
{
    uint8_t out[KEST_HASH_LEN];
    const kest_status st = kest_tlog_tree_root(self->tree, out);

    (void)unused;
    return st == KEST_OK ? PyBytes_FromStringAndSize((const char *)out, sizeof out) : kest_tlog_raise(kest_state_of((PyObject *)self), st);
}

static PyObject *tree_size(TreeObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->tree->size);
}

static PyMethodDef tree_methods[] = {
    {"append", (PyCFunction)tree_append, METH_O,
     "append(hashes, /)\n--\n\nAdds leaf hashes, 32 bytes each. Returns the tiles that this completes, as (level, index, 8,192 bytes)."},
    {"partials", (PyCFunction)tree_partials, METH_NOARGS,
     "partials()\n--\n\nThe tiles on the right edge that are not complete, as (level, index, hashes)."},
    {"root", (PyCFunction)tree_root, METH_NOARGS, "root()\n--\n\nThe tree hash (RFC 9162, section 2.1.1), 32 bytes."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tree_getset[] = {
    {"size", (getter)tree_size, NULL, "Leaves so far.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tree_slots[] = {
    {Py_tp_new, tree_new},
    {Py_tp_dealloc, tree_dealloc},
    {Py_tp_methods, tree_methods},
    {Py_tp_getset, tree_getset},
    {Py_tp_doc, "LogTree(size=0, rows=())\n--\n\nA Merkle tree (RFC 9162) of which only the right edge is kept: for each tile level the "
                "hashes of its partial tile."},
    {0, NULL},
};

PyType_Spec kest_tree_spec = {"kest._kestcore.LogTree", sizeof(TreeObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                              tree_slots};
