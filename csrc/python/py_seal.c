/* py_seal.c: the signing path: one entry written, signed, hashed and linked in one pass. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/jws.h"
#include "../core/trust.h"
#include "../core/utf8.h"

enum { MAX_LABELS = 32, LIST_ROOM = 16, PARENT_ROOM = 8 };

/* The arguments of seal() and draft() after the first. */
enum { A_OPERATION, A_CLASS, A_TRUST, A_RAISED, A_LABELS, A_ADDED, A_REMOVED, A_CONTEXT, A_INPUT, A_ID, A_TIME, A_COUNT };

int kest_taint_list(kest_state *state, PyObject *list, kest_str *room, size_t nroom, kest_str **out, size_t *count)
{
    PyObject **items;
    size_t n;

    if (!PyTuple_CheckExact(list) && !PyList_CheckExact(list)) {
        PyErr_Format(PyExc_TypeError, "taints are a tuple or list of str, not %s", Py_TYPE(list)->tp_name);
        return -1;
    }
    items = PySequence_Fast_ITEMS(list);
    n = (size_t)PySequence_Fast_GET_SIZE(list);
    *out = room;
    *count = n;
    if (n > nroom && !(*out = kest_calloc(n, sizeof **out))) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < n; i++)
        if (kest_str_view(state, items[i], "a taint", &(*out)[i]) < 0)
            goto fail;
    if (kest_taints_check(*out, n) != KEST_OK) {
        PyErr_SetString(PyExc_ValueError, "taints must be non-empty, distinct and in ascending order");
        goto fail;
    }
    return 0;
fail:
    if (*out != room)
        kest_free(*out);
    return -1;
}

PyObject *kest_passport_taints_after(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    PassportObject *self = (PassportObject *)object;
    kest_state *state = kest_state_of(object);
    kest_str added_room[LIST_ROOM], removed_room[LIST_ROOM], *added = added_room, *removed = removed_room;
    size_t nadded = 0, nremoved = 0;
    kest_taints *room[PARENT_ROOM], **sets = room, *joined = NULL;
    PyObject *result = NULL;
    kest_status st;

    if (nargs != 0 && nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "taints_after(added, removed)");
        return NULL;
    }
    if (kest_passport_tips(state, self) < 0)
        return NULL;
    if (nargs && kest_taint_list(state, args[0], added_room, LIST_ROOM, &added, &nadded) < 0)
        return NULL;
    if (nargs && kest_taint_list(state, args[1], removed_room, LIST_ROOM, &removed, &nremoved) < 0) {
        removed = removed_room;
        goto done;
    }
    if (self->ntips + 1 > PARENT_ROOM && !(sets = kest_calloc(self->ntips + 1, sizeof *sets))) {
        sets = room;
        PyErr_NoMemory();
        goto done;
    }
    for (size_t i = 0; i < self->ntips; i++)
        sets[i] = self->tips[i]->taints;
    sets[self->ntips] = self->carried;
    st = kest_taints_combine(sets, self->ntips + (self->carried->count || !self->ntips), added, nadded, removed, nremoved,
                             &joined, NULL);
    result = st == KEST_OK ? kest_taints_tuple(joined) : kest_raise(state, st);
    kest_taints_unref(joined);
done:
    if (sets != room)
        kest_free(sets);
    if (added != added_room)
        kest_free(added);
    if (removed != removed_room)
        kest_free(removed);
    return result;
}

/* Everything that one entry is made of; views into Python objects that the caller's arguments keep alive. */
typedef struct draft {
    kest_entry entry;
    kest_label labels[MAX_LABELS];
    char trust_text[4];
    kest_str added_room[LIST_ROOM], removed_room[LIST_ROOM], *added, *removed;
    kest_taints *new_added; /* added taints with what the passport carries, when it carries any */
    kest_taints *taints;
    uint8_t parent_room[PARENT_ROOM * KEST_HASH_LEN], *parents;
    uint8_t flags;
} draft;

static void draft_free(draft *d)
{
    if (d->added && d->added != d->added_room)
        kest_free(d->added);
    if (d->removed && d->removed != d->removed_room)
        kest_free(d->removed);
    if (d->parents && d->parents != d->parent_room)
        kest_free(d->parents);
    kest_taints_unref(d->new_added);
    kest_taints_unref(d->taints);
}

static int draft_labels(kest_state *state, draft *d, PyObject *labels)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;

    if (!PyDict_CheckExact(labels) || PyDict_GET_SIZE(labels) > MAX_LABELS - 3) {
        PyErr_Format(PyExc_TypeError, "labels are a dict of at most %d str to str", MAX_LABELS - 3);
        return -1;
    }
    while (PyDict_Next(labels, &pos, &key, &value)) {
        kest_label *label = &d->labels[d->entry.nlabels++];

        if (kest_str_view(state, key, "a label's name", &label->key) < 0 ||
            kest_str_view(state, value, "a label's value", &label->value) < 0)
            return -1;
    }
    return 0;
}

/* Adds one of our own labels; the caller's dict must not claim it. */
static int own_label(draft *d, const char *name, kest_str value)
{
    const kest_str key = {(const uint8_t *)name, strlen(name)};

    for (size_t i = 0; i < d->entry.nlabels; i++)
        if (kest_str_compare(d->labels[i].key, key) == 0) {
            PyErr_Format(PyExc_ValueError, "label '%s' is set by Kest itself", name);
            return -1;
        }
    d->labels[d->entry.nlabels++] = (kest_label){key, value};
    return 0;
}

static int draft_scalars(kest_state *state, draft *d, PyObject *const *args)
{
    kest_entry *e = &d->entry;
    const long trust = PyLong_Check(args[A_TRUST]) ? PyLong_AsLong(args[A_TRUST]) : -1;

    if (trust == -1 && PyErr_Occurred())
        return -1;
    if (trust < 0 || trust > KEST_MAX_TRUST || PyBool_Check(args[A_TRUST])) {
        PyErr_SetString(PyExc_ValueError, "trust is an int from 0 to 100");
        return -1;
    }
    e->trust = (uint8_t)trust;
    e->timestamp_ms = PyLong_AsLongLong(args[A_TIME]);
    if (e->timestamp_ms == -1 && PyErr_Occurred())
        return -1;
    if (!PyBytes_CheckExact(args[A_CONTEXT])) {
        PyErr_SetString(PyExc_TypeError, "policy_context is canonical JSON as bytes");
        return -1;
    }
    e->policy_context = (kest_str){(const uint8_t *)PyBytes_AS_STRING(args[A_CONTEXT]),
                                   (size_t)PyBytes_GET_SIZE(args[A_CONTEXT])};
    return kest_str_view(state, args[A_OPERATION], "operation", &e->operation) < 0 ||
           kest_str_view(state, args[A_CLASS], "classification", &e->classification) < 0 ||
           kest_str_view(state, args[A_INPUT], "input_hash", &e->input_hash) < 0 ||
           kest_str_view(state, args[A_ID], "entry_id", &e->entry_id) < 0 ? -1 : 0;
}

static int draft_taints(kest_state *state, draft *d, const PassportObject *self, PyObject *const *args)
{
    kest_entry *e = &d->entry;
    kest_taints *room[PARENT_ROOM], **sets = room;
    bool removed = false;
    kest_status st;

    if (kest_taint_list(state, args[A_ADDED], d->added_room, LIST_ROOM, &d->added, &e->nadded) < 0) {
        d->added = NULL;
        return -1;
    }
    if (kest_taint_list(state, args[A_REMOVED], d->removed_room, LIST_ROOM, &d->removed, &e->nremoved) < 0) {
        d->removed = NULL;
        return -1;
    }
    e->added = d->added;
    e->removed = d->removed;
    if (self->carried->count) {
        if ((st = kest_taints_combine(&(kest_taints *){self->carried}, 1, e->added, e->nadded, NULL, 0, &d->new_added,
                                      NULL)) != KEST_OK)
            return kest_raise(state, st), -1;
        e->added = d->new_added->items;
        e->nadded = d->new_added->count;
    }
    if (self->ntips > PARENT_ROOM && !(sets = kest_calloc(self->ntips, sizeof *sets)))
        return PyErr_NoMemory(), -1;
    for (size_t i = 0; i < self->ntips; i++)
        sets[i] = self->tips[i]->taints;
    st = kest_taints_combine(sets, self->ntips, e->added, e->nadded, e->removed, e->nremoved, &d->taints, &removed);
    if (sets != room)
        kest_free(sets);
    if (st != KEST_OK)
        return kest_raise(state, st), -1;
    e->taints = d->taints->items;
    e->ntaints = d->taints->count;
    if (removed)
        d->flags |= KEST_NODE_REMOVES;
    return 0;
}

static int draft_parents(draft *d, const PassportObject *self)
{
    d->parents = d->parent_room;
    if (self->ntips > PARENT_ROOM && !(d->parents = kest_calloc(self->ntips, KEST_HASH_LEN))) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < self->ntips; i++)
        memcpy(d->parents + i * KEST_HASH_LEN, self->tips[i]->hash, KEST_HASH_LEN);
    d->entry.parents = d->parents;
    d->entry.nparents = self->ntips;
    return 0;
}

/* A rise over the weakest parent, or over a root's origin (`raised`), is said in a label that verifiers look for. */
static int draft_rise(draft *d, const PassportObject *self, PyObject *raised)
{
    bool rises = raised == Py_True;

    for (size_t i = 0; i < self->ntips; i++)
        rises |= d->entry.trust > self->tips[i]->trust;
    if (!rises)
        return 0;
    d->flags |= KEST_NODE_LABELLED;
    return own_label(d, KEST_LABEL_OVERRIDE,
                     (kest_str){(const uint8_t *)d->trust_text,
                                (size_t)snprintf(d->trust_text, sizeof d->trust_text, "%u", d->entry.trust)});
}

/* Fills `d` from seal()'s arguments after the first; -1 with an exception set. Free with draft_free either way. */
static int draft_fill(kest_state *state, draft *d, PassportObject *self, kest_str principal, PyObject *const *args)
{
    memset(d, 0, sizeof *d);
    d->entry.labels = d->labels;
    if (kest_passport_tips(state, self) < 0)
        return -1;
    if (self->ntips > KEST_MAX_PARENTS) {
        PyErr_Format(state->passport_error, "an entry has at most %d parents; join fewer passports at once", KEST_MAX_PARENTS);
        return -1;
    }
    if (draft_labels(state, d, args[A_LABELS]) < 0 || draft_scalars(state, d, args) < 0 ||
        draft_taints(state, d, self, args) < 0 || draft_parents(d, self) < 0 ||
        own_label(d, KEST_LABEL_PRINCIPAL, principal) < 0 || draft_rise(d, self, args[A_RAISED]) < 0)
        return -1;
    if (self->continues && !self->ntips)
        return own_label(d, KEST_LABEL_CONTINUES, (kest_str){self->continues->data, self->continues->len});
    return 0;
}

PyObject *kest_passport_seal(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    PassportObject *self = (PassportObject *)object;
    kest_state *state = kest_state_of(object);
    SignerObject *signer;
    kest_node *node = NULL;
    PyObject *result = NULL;
    kest_status st;
    kest_buf payload;
    draft d;

    if (nargs != A_COUNT + 1 || Py_TYPE(args[0]) != state->signer_type) {
        PyErr_Format(PyExc_TypeError, "seal() takes a Signer and %d more arguments", A_COUNT);
        return NULL;
    }
    signer = (SignerObject *)args[0];
    kest_buf_init(&payload);
    if (draft_fill(state, &d, self, (kest_str){signer->principal->data, signer->principal->len}, args + 1) < 0)
        goto done;
    kest_entry_write(&payload, &d.entry);
    st = payload.status;
    if (st == KEST_OK) {
        const kest_node_facts facts = {{signer->header.data, signer->header.len}, signer->principal, d.taints, self->tips,
                                       self->ntips, d.entry.timestamp_ms, d.entry.trust, d.flags, KEST_ALG_EDDSA};

        st = kest_node_layout(&facts, (kest_str){payload.data, payload.len}, &node);
    }
    if (st == KEST_OK) {
        KEST_GIL_ADAPT(&state->gil)
        st = kest_node_sign(node, (kest_str){payload.data, payload.len}, signer->key);
        KEST_GIL_ADAPT_END(&state->gil)
    }
    result = st == KEST_OK ? kest_passport_new(state, &node, 1) : kest_raise(state, st);
done:
    kest_node_unref(node);
    draft_free(&d);
    kest_buf_free(&payload);
    return result;
}

PyObject *kest_passport_draft(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    kest_state *state = kest_state_of(object);
    PyObject *result = NULL;
    kest_str principal;
    kest_buf payload;
    draft d;

    if (nargs != A_COUNT + 1) {
        PyErr_Format(PyExc_TypeError, "draft() takes a principal and %d more arguments", A_COUNT);
        return NULL;
    }
    if (kest_str_view(state, args[0], "principal", &principal) < 0)
        return NULL;
    kest_buf_init(&payload);
    if (draft_fill(state, &d, (PassportObject *)object, principal, args + 1) == 0) {
        kest_entry_write(&payload, &d.entry);
        result = payload.status == KEST_OK ? PyBytes_FromStringAndSize((const char *)payload.data, (Py_ssize_t)payload.len)
                                           : kest_raise(state, payload.status);
    }
    draft_free(&d);
    kest_buf_free(&payload);
    return result;
}

/* True when the parents of `node` are exactly the tips. */
static bool continues_from(const kest_node *node, const PassportObject *self)
{
    size_t found = 0;

    for (size_t i = 0; i < node->nparents; i++)
        for (size_t t = 0; t < self->ntips; t++)
            found += kest_node_parent(node, i) == self->tips[t];
    return node->nparents == self->ntips && found == self->ntips;
}

PyObject *kest_passport_adopt(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    PassportObject *self = (PassportObject *)object;
    kest_state *state = kest_state_of(object);
    PyObject *result = NULL;
    kest_builder builder;
    kest_status st = KEST_OK;
    kest_node *node;
    kest_str text;

    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "adopt() takes 1 or 2 arguments, not %zd", nargs);
        return NULL;
    }
    if (kest_passport_tips(state, self) < 0 || kest_str_view(state, args[0], "an entry", &text) < 0)
        return NULL;
    kest_builder_init(&builder);
    for (size_t i = 0; i < self->ntips && st == KEST_OK; i++)
        st = kest_builder_share(&builder, self->tips[i]);
    if (st == KEST_OK)
        st = kest_builder_add(&builder, text.data, text.len);
    if (st == KEST_OK) {
        node = builder.nodes[builder.count - 1];
        if (node->broken)
            kest_raise_verification(state, (kest_status)node->broken, SIZE_MAX);
        else if (!continues_from(node, self))
            PyErr_SetString(state->passport_error, "the entry does not continue from the tips of this passport");
        else if ((result = kest_passport_new(state, &node, 1)) && nargs == 2 && args[1] == Py_True)
            kest_node_vouch(node, KEST_SIGNED_HERE);
    } else {
        kest_raise(state, st);
    }
    kest_builder_free(&builder);
    return result;
}
