/* py_passport_make.c: passports from text and from other passports. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/pack.h"
#include "../core/trust.h"

PyObject *kest_raise_passport_text(kest_state *state, kest_status status, size_t error_at)
{
    if (status == KEST_E_JSON)
        return PyErr_Format(state->baggage_error, "a passport is a JSON array of strings; at byte %zu it is not", error_at);
    return kest_raise_json(state, status, error_at);
}

PyObject *kest_passport_deserialize(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"text", "max_entries", NULL};
    kest_state *state = PyType_GetModuleState(type);
    Py_ssize_t max_entries = 1000000;
    PyObject *arg, *bytes = NULL, *result = NULL;
    size_t error_at = 0;
    kest_builder builder;
    kest_str text;
    kest_status st;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|n:deserialize", names, &arg, &max_entries))
        return NULL;
    if (PyUnicode_Check(arg)) {
        if (kest_str_view(state, arg, "text", &text) < 0)
            return NULL;
        bytes = Py_NewRef(arg);
    } else {
        if (!(bytes = PyBytes_FromObject(arg))) /* a copy, unless it is bytes already */
            return NULL;
        text = (kest_str){(const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    }
    kest_builder_init(&builder);
    KEST_GIL_RELEASE
    st = kest_unpack_json(text.data, text.len, max_entries > 0 ? (size_t)max_entries : 0, &builder, &error_at);
    KEST_GIL_RELEASE_END
    if (st == KEST_OK) {
        result = kest_passport_from_builder(state, &builder);
    } else {
        kest_builder_free(&builder);
        if (st == KEST_E_LIMIT)
            PyErr_Format(state->baggage_error, "a passport of more than %zd entries, or an entry above 16 MiB", max_entries);
        else
            kest_raise_passport_text(state, st, error_at);
    }
    Py_DECREF(bytes);
    return result;
}

PyObject *kest_passport_add(PassportObject *self, PyObject *jws)
{
    kest_state *state = kest_state_of((PyObject *)self);

    if (!self->builder || self->frozen) {
        PyErr_SetString(state->passport_error, "this passport is a view of a running flow, or verified, and cannot be changed; "
                        "build one by hand with Passport(passport.entries)");
        return NULL;
    }
    if (kest_passport_add_text(state, self->builder, jws) < 0)
        return NULL;
    kest_passport_drop_tips(self);
    Py_CLEAR(self->json);
    Py_CLEAR(self->z);
    Py_CLEAR(self->dense);
    kest_dense_free(self->arrived);
    self->arrived = NULL;
    return Py_NewRef((PyObject *)self);
}

static int join_carried(kest_state *state, PassportObject *into, const PassportObject *from)
{
    kest_taints *both[2] = {into->carried, from->carried}, *joined;
    const kest_status st = kest_taints_combine(both, 2, NULL, 0, NULL, 0, &joined, NULL);

    if (st != KEST_OK) {
        kest_raise(state, st);
        return -1;
    }
    kest_taints_unref(into->carried);
    into->carried = joined;
    if (from->ceiling < into->ceiling)
        into->ceiling = from->ceiling;
    if (from->continues && !into->continues)
        into->continues = kest_text_ref(from->continues);
    return 0;
}

PyObject *kest_passport_merge(PyTypeObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    kest_state *state = PyType_GetModuleState(type);
    kest_node **all = NULL, **merged = NULL;
    size_t total = 0, count = 0;
    PyObject *result = NULL;
    kest_status st;

    for (Py_ssize_t i = 0; i < nargs; i++) {
        if (Py_TYPE(args[i]) != type) {
            PyErr_Format(PyExc_TypeError, "merge() takes passports, not %s", Py_TYPE(args[i])->tp_name);
            return NULL;
        }
        if (kest_passport_tips(state, (PassportObject *)args[i]) < 0)
            return NULL;
        total += ((PassportObject *)args[i])->ntips;
    }
    if (!(all = kest_calloc(total ? total : 1, sizeof *all)))
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PassportObject *p = (PassportObject *)args[i];

        for (size_t t = 0; t < p->ntips; t++)
            all[count++] = p->tips[t];
    }
    if ((st = kest_chain_merge(all, total, &merged, &count)) != KEST_OK) {
        kest_raise(state, st);
        goto done;
    }
    result = kest_passport_new(state, merged, count);
    for (Py_ssize_t i = 0; result && i < nargs; i++)
        if (join_carried(state, (PassportObject *)result, (PassportObject *)args[i]) < 0)
            Py_CLEAR(result);
    if (result && count && ((PassportObject *)result)->continues) { /* the entries themselves carry the thread on */
        kest_text_unref(((PassportObject *)result)->continues);
        ((PassportObject *)result)->continues = NULL;
    }
done:
    kest_free(all);
    kest_free(merged);
    return result;
}

/* The same tips with a lower ceiling and more taints for what comes next. */
PyObject *kest_passport_restrict(PassportObject *self, PyObject *args)
{
    kest_state *state = kest_state_of((PyObject *)self);
    kest_str room[16], *items = room;
    kest_taints *parents[1], *carried;
    kest_pinned tips;
    PyObject *list, *result = NULL;
    size_t count;
    int ceiling;
    kest_status st;

    if (!PyArg_ParseTuple(args, "iO:restrict", &ceiling, &list))
        return NULL;
    if (ceiling < 0 || ceiling > KEST_MAX_TRUST) {
        PyErr_Format(PyExc_ValueError, "a trust ceiling is 0 to 100, not %d", ceiling);
        return NULL;
    }
    if (kest_taint_list(state, list, room, 16, &items, &count) < 0)
        return NULL;
    parents[0] = self->carried;
    st = kest_taints_combine(parents, 1, items, count, NULL, 0, &carried, NULL);
    if (items != room)
        kest_free(items);
    if (st != KEST_OK)
        return kest_raise(state, st);
    if (kest_passport_pin_tips(state, self, &tips) == 0)
        result = kest_passport_new(state, tips.nodes, tips.count);
    kest_pinned_drop(&tips);
    if (result) {
        PassportObject *p = (PassportObject *)result;

        kest_taints_unref(p->carried);
        p->carried = kest_taints_ref(carried);
        p->ceiling = ceiling < self->ceiling ? (uint8_t)ceiling : self->ceiling;
        p->continues = self->continues ? kest_text_ref(self->continues) : NULL;
    }
    kest_taints_unref(carried);
    return result;
}

/* What self starts its next entry from, for a passport with the same. */
static void share_carried(PassportObject *into, const PassportObject *from)
{
    kest_taints_unref(into->carried);
    into->carried = kest_taints_ref(from->carried);
    into->ceiling = from->ceiling;
    into->continues = from->continues ? kest_text_ref(from->continues) : NULL;
}

PyObject *kest_passport_snapshot(PassportObject *self, PyObject *unused)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *result;
    kest_builder copy;
    kest_status st;

    (void)unused;
    if (!self->builder || self->frozen)
        return Py_NewRef((PyObject *)self);
    if ((st = kest_builder_copy(self->builder, &copy)) != KEST_OK)
        return kest_raise(state, st);
    result = kest_passport_from_builder(state, &copy);
    if (result) {
        share_carried((PassportObject *)result, self);
        ((PassportObject *)result)->frozen = true;
    }
    return result;
}

/* Unpickling: (text, ceiling, taints, continues). */
PyObject *kest_passport_restore(PyTypeObject *type, PyObject *args)
{
    kest_state *state = PyType_GetModuleState(type);
    PyObject *text, *taints, *continues, *plain, *only = NULL, *rights = NULL, *result = NULL;
    kest_str view;
    kest_status st;
    int ceiling;

    if (!PyArg_ParseTuple(args, "UiOO:_restore", &text, &ceiling, &taints, &continues) || !(only = PyTuple_Pack(1, text)))
        return NULL;
    plain = kest_passport_deserialize(type, only, NULL);
    Py_DECREF(only);
    if (!plain || (ceiling == KEST_MAX_TRUST && continues == Py_None && PyTuple_Check(taints) && !PyTuple_GET_SIZE(taints)))
        return plain;
    rights = Py_BuildValue("(iO)", ceiling, taints);
    result = rights ? kest_passport_restrict((PassportObject *)plain, rights) : NULL;
    if (result && continues != Py_None) {
        if (kest_str_view(state, continues, "continues", &view) < 0)
            Py_CLEAR(result);
        else if ((st = kest_text_new(view.data, view.len, &((PassportObject *)result)->continues)) != KEST_OK) {
            kest_raise(state, st);
            Py_CLEAR(result);
        }
    }
    Py_XDECREF(rights);
    Py_DECREF(plain);
    return result;
}

/* An empty passport whose first entry will be a root under the same ceiling and taints that names our tips. */
PyObject *kest_passport_roll_over(PassportObject *self, PyObject *unused)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *tip, *taints = NULL, *trust = NULL, *args = NULL, *empty = NULL, *result = NULL;
    kest_str text;
    kest_status st;

    (void)unused;
    tip = kest_passport_chain_tip(self, NULL);
    if (!tip || kest_str_view(state, tip, "tip", &text) < 0 || !(taints = kest_passport_taints_after((PyObject *)self, NULL, 0)) ||
        !(trust = kest_passport_trust(self, NULL)) || !(args = PyTuple_Pack(2, trust, taints)) ||
        !(empty = kest_passport_new(state, NULL, 0)) || !(result = kest_passport_restrict((PassportObject *)empty, args)))
        goto done;
    if (text.len && (st = kest_text_new(text.data, text.len, &((PassportObject *)result)->continues)) != KEST_OK) {
        kest_raise(state, st);
        Py_CLEAR(result);
    }
done:
    Py_XDECREF(tip);
    Py_XDECREF(taints);
    Py_XDECREF(trust);
    Py_XDECREF(args);
    Py_XDECREF(empty);
    return result;
}
