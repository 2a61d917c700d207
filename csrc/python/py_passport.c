/* py_passport.c: Passport, an immutable view of a flow or a list built by hand. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/pack.h"
#include "../core/trust.h"

PyObject *kest_node_text(const kest_node *node)
{
    return PyUnicode_DecodeUTF8((const char *)node->jws, (Py_ssize_t)node->jws_len, NULL);
}

PyObject *kest_taints_tuple(const kest_taints *taints)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)taints->count);

    for (uint32_t i = 0; tuple && i < taints->count; i++) {
        PyObject *item = PyUnicode_DecodeUTF8((const char *)taints->items[i].data, (Py_ssize_t)taints->items[i].len, NULL);

        if (item)
            PyTuple_SET_ITEM(tuple, i, item);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* --- life --- */

PassportObject *kest_passport_blank(PyTypeObject *type)
{
    PassportObject *self = (PassportObject *)type->tp_alloc(type, 0);
    kest_status st;

    if (!self)
        return NULL;
    self->ceiling = KEST_MAX_TRUST;
    if ((st = kest_taints_new(NULL, 0, &self->carried)) != KEST_OK) {
        kest_raise(PyType_GetModuleState(type), st);
        Py_CLEAR(self);
    }
    return self;
}

void kest_passport_drop_tips(PassportObject *self)
{
    /* Behind a builder the tips are borrowed from it. */
    if (!self->builder)
        for (size_t i = 0; i < self->ntips; i++)
            kest_node_unref(self->tips[i]);
    if (self->tips != &self->one)
        kest_free(self->tips);
    self->tips = NULL;
    self->ntips = 0;
}

static void passport_dealloc(PassportObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_passport_drop_tips(self);
    if (self->builder) {
        kest_builder_free(self->builder);
        kest_free(self->builder);
    }
    kest_taints_unref(self->carried);
    kest_text_unref(self->continues);
    Py_XDECREF(self->json);
    Py_XDECREF(self->z);
    Py_XDECREF(self->dense);
    kest_dense_free(self->arrived);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *kest_passport_new(kest_state *state, kest_node *const *tips, size_t ntips)
{
    PassportObject *self = kest_passport_blank(state->passport_type);

    if (!self)
        return NULL;
    self->tips = &self->one;
    if (ntips > 1 && !(self->tips = kest_calloc(ntips, sizeof *self->tips))) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (; self->ntips < ntips; self->ntips++)
        self->tips[self->ntips] = kest_node_ref(tips[self->ntips]);
    return (PyObject *)self;
}

PyObject *kest_passport_from_builder(kest_state *state, kest_builder *builder)
{
    PassportObject *self = kest_passport_blank(state->passport_type);

    if (self && !(self->builder = kest_malloc(sizeof *builder))) {
        Py_CLEAR(self);
        PyErr_NoMemory();
    }
    if (!self) {
        kest_builder_free(builder);
        return NULL;
    }
    *self->builder = *builder;
    return (PyObject *)self;
}

int kest_passport_add_text(kest_state *state, kest_builder *builder, PyObject *item)
{
    kest_str jws;
    kest_status st;

    if (kest_str_view(state, item, "an entry", &jws) < 0)
        return -1;
    if ((st = kest_builder_add(builder, jws.data, jws.len)) != KEST_OK) {
        kest_raise(state, st);
        return -1;
    }
    return 0;
}

static PyObject *passport_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"entries", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *entries = NULL, *items;
    kest_builder builder;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Passport", names, &entries))
        return NULL;
    if (entries && PyUnicode_Check(entries)) {
        PyErr_SetString(PyExc_TypeError, "entries is a sequence of JWS strings; for JSON text use Passport.deserialize()");
        return NULL;
    }
    kest_builder_init(&builder);
    if (entries) {
        if (!(items = PySequence_Tuple(entries)))
            return NULL;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++)
            if (kest_passport_add_text(state, &builder, PyTuple_GET_ITEM(items, i)) < 0) {
                Py_DECREF(items);
                kest_builder_free(&builder);
                return NULL;
            }
        Py_DECREF(items);
    }
    return kest_passport_from_builder(state, &builder);
}

/* --- the two forms behind one face --- */

int kest_passport_tips(kest_state *state, PassportObject *self)
{
    kest_node **tips = NULL;
    size_t count = 0, bad;
    kest_status st;

    if (self->tips || !self->builder)
        return 0;
    if ((bad = kest_builder_broken(self->builder)) != SIZE_MAX) {
        kest_raise_verification(state, (kest_status)self->builder->nodes[bad]->broken, bad);
        return -1;
    }
    if ((st = kest_builder_tips(self->builder, &tips, &count)) != KEST_OK) {
        kest_raise(state, st);
        return -1;
    }
    self->tips = tips;
    self->ntips = count;
    return 0;
}

static int pin(kest_node *const *nodes, size_t count, kest_pinned *out)
{
    *out = (kest_pinned){kest_calloc(count ? count : 1, sizeof(kest_node *)), count};
    if (!out->nodes) {
        out->count = 0;
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++)
        out->nodes[i] = kest_node_ref(nodes[i]);
    return 0;
}

int kest_passport_pin(kest_state *state, PassportObject *self, kest_pinned *out)
{
    kest_node **all;
    size_t count;
    kest_status st;
    int rc;

    if (self->builder)
        return pin(self->builder->nodes, self->builder->count, out);
    if (!self->ntips)
        return pin(NULL, 0, out);
    *out = (kest_pinned){NULL, 0};
    if ((st = kest_chain_collect(self->tips, self->ntips, &all, &count)) != KEST_OK) {
        kest_raise(state, st);
        return -1;
    }
    rc = pin(all, count, out);
    kest_free(all);
    return rc;
}

int kest_passport_pin_tips(kest_state *state, PassportObject *self, kest_pinned *out)
{
    *out = (kest_pinned){NULL, 0};
    return kest_passport_tips(state, self) < 0 ? -1 : pin(self->tips, self->ntips, out);
}

void kest_pinned_drop(kest_pinned *pinned)
{
    while (pinned->count)
        kest_node_unref(pinned->nodes[--pinned->count]);
    kest_free(pinned->nodes);
    pinned->nodes = NULL;
}

static PyObject *node_list(kest_state *state, PassportObject *self, PyObject *(*make)(const kest_node *))
{
    kest_pinned all;
    PyObject *list = NULL;

    if (kest_passport_pin(state, self, &all) == 0)
        list = PyList_New((Py_ssize_t)all.count);
    for (size_t i = 0; list && i < all.count; i++) {
        PyObject *item = make(all.nodes[i]);

        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            Py_CLEAR(list);
    }
    kest_pinned_drop(&all);
    return list;
}

static Py_ssize_t passport_length(PassportObject *self)
{
    size_t count;
    kest_status st;

    if (self->builder)
        return (Py_ssize_t)self->builder->count;
    if ((st = kest_chain_count(self->tips, self->ntips, &count)) != KEST_OK) {
        kest_raise(kest_state_of((PyObject *)self), st);
        return -1;
    }
    return (Py_ssize_t)count;
}

bool kest_passport_empty(const PassportObject *self)
{
    return self->builder ? self->builder->count == 0 : self->ntips == 0;
}

static int passport_bool(PassportObject *self)
{
    return !kest_passport_empty(self);
}

/* --- reading --- */

static PyObject *get_entries(PassportObject *self, void *unused)
{
    (void)unused;
    return node_list(kest_state_of((PyObject *)self), self, kest_node_text);
}

PyObject *kest_passport_trust(PassportObject *self, void *unused)
{
    uint8_t trust = self->ceiling;

    (void)unused;
    if (kest_passport_tips(kest_state_of((PyObject *)self), self) < 0)
        return NULL;
    for (size_t i = 0; i < self->ntips; i++)
        if (self->tips[i]->trust < trust)
            trust = self->tips[i]->trust;
    return PyLong_FromLong(trust);
}

static PyObject *get_taints(PassportObject *self, void *unused)
{
    (void)unused;
    return kest_passport_taints_after((PyObject *)self, NULL, 0);
}

static PyObject *get_continues(PassportObject *self, void *unused)
{
    (void)unused;
    if (!self->continues)
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8((const char *)self->continues->data, (Py_ssize_t)self->continues->len, NULL);
}

static PyObject *decoded(const kest_node *node)
{
    kest_parsed parsed;
    PyObject *payload;

    if (kest_parsed_read(node->jws, node->jws_len, &parsed) != KEST_OK)
        return PyErr_NoMemory(); /* it was readable before */
    payload = kest_json_to_python(parsed.doc.root);
    kest_parsed_free(&parsed);
    return payload;
}

static PyObject *passport_decode(PassportObject *self, PyObject *unused)
{
    kest_state *state = kest_state_of((PyObject *)self);

    (void)unused;
    if (kest_passport_tips(state, self) < 0) /* names a broken entry */
        return NULL;
    return node_list(state, self, decoded);
}

static PyObject *passport_serialize(PassportObject *self, PyObject *unused)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *json;
    kest_pinned all;
    kest_buf out;

    (void)unused;
    if (self->json)
        return Py_NewRef(self->json);
    if (kest_passport_pin(state, self, &all) < 0)
        return NULL;
    kest_buf_init(&out);
    kest_pack_json(&out, all.nodes, all.count);
    json = out.status == KEST_OK ? PyUnicode_DecodeUTF8((const char *)out.data, (Py_ssize_t)out.len, NULL)
                                 : kest_raise(state, out.status);
    /* A finalizer may have added an entry meanwhile: then this is the text of what was, and not to be kept. */
    if (json && !self->json && (!self->builder || self->builder->count == all.count))
        self->json = Py_NewRef(json);
    kest_buf_free(&out);
    kest_pinned_drop(&all);
    return json;
}

static PyObject *passport_reduce(PassportObject *self, PyObject *unused)
{
    PyObject *make = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "_restore"), *text = NULL, *taints = NULL;
    PyObject *continues = NULL, *result = NULL;

    (void)unused;
    if (make && (text = passport_serialize(self, NULL)) && (taints = kest_taints_tuple(self->carried)) &&
        (continues = get_continues(self, NULL)))
        result = Py_BuildValue("O(OiOO)", make, text, (int)self->ceiling, taints, continues);
    Py_XDECREF(continues);
    Py_XDECREF(taints);
    Py_XDECREF(text);
    Py_XDECREF(make);
    return result;
}

static PyObject *passport_repr(PassportObject *self)
{
    const Py_ssize_t n = passport_length(self);

    return n < 0 ? NULL : PyUnicode_FromFormat("<Passport of %zd entr%s>", n, n == 1 ? "y" : "ies");
}

static PyMethodDef passport_methods[] = {
    {"decode", (PyCFunction)passport_decode, METH_NOARGS,
     "decode()\n--\n\nThe payloads as dicts, parents before children. Nothing is verified by this."},
    {"serialize", (PyCFunction)passport_serialize, METH_NOARGS, "serialize()\n--\n\nA JSON array of JWS strings."},
    {"deserialize", (PyCFunction)(void (*)(void))kest_passport_deserialize, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "deserialize(text, max_entries=1000000)\n--\n\nA passport from serialize()'s text (str or bytes). Nothing is verified by this."},
    {"add_signature", (PyCFunction)kest_passport_add, METH_O,
     "add_signature(jws, /)\n--\n\nAppends an entry to a passport that is being built by hand; returns the passport itself."},
    {"merge", (PyCFunction)(void (*)(void))kest_passport_merge, METH_FASTCALL | METH_CLASS,
     "merge(*passports)\n--\n\nOne passport of all entries; its tips are those that no other tip descends from."},
    {"restrict", (PyCFunction)kest_passport_restrict, METH_VARARGS,
     "restrict(ceiling, taints, /)\n--\n\nThe same entries; what follows has at most this trust, and these taints too."},
    {"snapshot", (PyCFunction)kest_passport_snapshot, METH_NOARGS,
     "snapshot()\n--\n\nThe same entries in a passport that nobody can add to; itself when it is one already."},
    {"_restore", (PyCFunction)kest_passport_restore, METH_VARARGS | METH_CLASS, "For pickle."},
    {"roll_over", (PyCFunction)kest_passport_roll_over, METH_NOARGS,
     "roll_over()\n--\n\nAn empty passport whose next entry is a root that continues this flow: same trust ceiling, same taints."},
    {"seal", (PyCFunction)(void (*)(void))kest_passport_seal, METH_FASTCALL,
     "seal(signer, operation, classification, trust, raised, labels, added, removed, policy_context, input_hash, entry_id, "
     "timestamp_ms, /)\n--\n\nThe passport with one more signed entry, whose parents are the tips."},
    {"draft", (PyCFunction)(void (*)(void))kest_passport_draft, METH_FASTCALL,
     "draft(principal, ...seal's other arguments, /)\n--\n\nThe canonical payload that seal() would sign, for a signer elsewhere."},
    {"adopt", (PyCFunction)(void (*)(void))kest_passport_adopt, METH_FASTCALL,
     "adopt(jws, own=False, /)\n--\n\nThe passport with an entry that was signed elsewhere, whose parents must be the tips. own: signed "
     "for this process, by its own identity."},
    {"taints_after", (PyCFunction)(void (*)(void))kest_passport_taints_after, METH_FASTCALL,
     "taints_after(added, removed, /)\n--\n\nThe taints an entry with these changes would have, ascending."},
    {"__reduce__", (PyCFunction)passport_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef passport_getset[] = {
    {"tips", (getter)kest_tip_hashes, NULL, "Hashes (hex) of the entries that no other entry continues from, sorted.", NULL},
    {"chain_tip", (getter)kest_passport_chain_tip, NULL, "The tips, comma-joined: the value of kest.chain_tip.", NULL},
    {"tip_scores", (getter)kest_tip_scores, NULL, "The trust of each tip under the ceiling; of an empty passport the ceiling alone.", NULL},
    {"tip_principals", (getter)kest_tip_principals, NULL,
     "Who signed each tip; None for a tip that was neither signed by this process nor verified in it.", NULL},
    {"tip_labels", (getter)kest_tip_labels, NULL, "The labels of each tip, as a dict.", NULL},
    {"tip_entry", (getter)kest_tip_entry, NULL, "The JWS of the only tip; None when there are several or none.", NULL},
    {"entries", (getter)get_entries, NULL, "The JWS strings, parents before children.", NULL},
    {"trust_score", (getter)kest_passport_trust, NULL, "The lowest trust among the tips, 0..100; 100 when empty.", NULL},
    {"taints", (getter)get_taints, NULL, "The union of the tips' taints, ascending.", NULL},
    {"continues", (getter)get_continues, NULL, "The tips of an earlier passport that the next entry continues, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot passport_slots[] = {
    {Py_tp_new, passport_new},
    {Py_tp_dealloc, passport_dealloc},
    {Py_tp_repr, passport_repr},
    {Py_mp_length, passport_length},
    {Py_nb_bool, passport_bool},
    {Py_tp_methods, passport_methods},
    {Py_tp_getset, passport_getset},
    {Py_tp_doc,
     "Passport(entries=())\n--\n\nA Merkle DAG of signed entries (JWS compact strings), parents before children.\n\n"
     "Text that is not an acceptable entry is kept, so that a verifier can name it; .trust_score, .taints, .tips and "
     ".decode() then raise VerificationError."},
    {0, NULL},
};

PyType_Spec kest_passport_spec = {"kest._kestcore.Passport", sizeof(PassportObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, passport_slots};
