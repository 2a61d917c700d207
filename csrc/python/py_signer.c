/* py_signer.c: Signer, an Ed25519 secret key and the name that signs with it. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/b64url.h"
#include "../core/jws.h"

static PyObject *signer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"principal", "seed", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *principal, *given = Py_None;
    Py_buffer seed = {0};
    SignerObject *self = NULL;
    kest_str name;
    kest_status st = KEST_OK;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|O:Signer", names, &principal, &given) ||
        (given != Py_None && PyObject_GetBuffer(given, &seed, PyBUF_SIMPLE) < 0))
        return NULL;
    if (kest_str_view(state, principal, "principal", &name) < 0)
        goto done;
    if (name.len == 0) {
        PyErr_SetString(state->key_error, "a signer needs a principal: an empty name cannot be told from another");
        goto done;
    }
    if (seed.obj && seed.len != KEST_SEED_LEN) {
        PyErr_Format(state->key_error, "an Ed25519 seed is 32 bytes, not %zd", seed.len);
        goto done;
    }
    self = (SignerObject *)type->tp_alloc(type, 0);
    if (!self)
        goto done;
    kest_buf_init(&self->header);
    if ((st = kest_seckey_new(seed.obj ? seed.buf : NULL, &self->key)) != KEST_OK ||
        (st = kest_text_new(name.data, name.len, &self->principal)) != KEST_OK ||
        (st = kest_jws_header_write(&self->header, KEST_ALG_EDDSA, name.data, name.len, "JWS")) != KEST_OK) {
        kest_raise(state, st);
        Py_CLEAR(self);
    }
done:
    if (seed.obj)
        PyBuffer_Release(&seed);
    return (PyObject *)self;
}

static void signer_dealloc(SignerObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_seckey_free(self->key);
    kest_text_unref(self->principal);
    if (self->header.data)
        kest_buf_free(&self->header);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *text_object(const kest_text *text)
{
    return PyUnicode_DecodeUTF8((const char *)text->data, (Py_ssize_t)text->len, NULL);
}

static PyObject *signer_repr(SignerObject *self)
{
    PyObject *principal = text_object(self->principal), *repr;

    repr = principal ? PyUnicode_FromFormat("<Signer %R>", principal) : NULL;
    Py_XDECREF(principal);
    return repr;
}

static PyObject *signer_principal(SignerObject *self, void *unused)
{
    (void)unused;
    return text_object(self->principal);
}

static PyObject *signer_public(SignerObject *self, void *unused)
{
    uint8_t raw[KEST_PK_LEN];

    (void)unused;
    kest_seckey_public(self->key, raw);
    return PyBytes_FromStringAndSize((const char *)raw, sizeof raw);
}

/* A private copy of `len` bytes: the owner of a buffer may change it while it is being signed. */
static uint8_t *copy_of(const void *src, size_t len)
{
    uint8_t *copy = kest_malloc(len);

    if (copy && len)
        memcpy(copy, src, len);
    return copy;
}

static PyObject *signer_sign(SignerObject *self, PyObject *message)
{
    kest_state *state = kest_state_of((PyObject *)self);
    uint8_t sig[KEST_SIG_LEN], *copy;
    kest_status st = KEST_E_NOMEM;
    Py_buffer view;

    if (PyObject_GetBuffer(message, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    copy = copy_of(view.buf, (size_t)view.len);
    if (copy) {
        KEST_GIL_ADAPT(&state->gil)
        st = kest_sign(self->key, copy, (size_t)view.len, sig);
        KEST_GIL_ADAPT_END(&state->gil)
        kest_free(copy);
    }
    PyBuffer_Release(&view);
    return st == KEST_OK ? PyBytes_FromStringAndSize((const char *)sig, sizeof sig) : kest_raise(state, st);
}

/* base64url of a header whose typ is not "JWS": records that are not entries. */
static int other_header(kest_state *state, const SignerObject *self, PyObject *typ, kest_buf *out)
{
    kest_str text;

    if (kest_str_view(state, typ, "typ", &text) < 0)
        return -1;
    kest_jws_header_write(out, KEST_ALG_EDDSA, self->principal->data, self->principal->len, (const char *)text.data);
    if (out->status != KEST_OK)
        kest_raise(state, out->status);
    return out->status == KEST_OK ? 0 : -1;
}

/* The result string is allocated first, then filled without the lock: it is not yet anybody else's. */
static PyObject *signed_text(kest_state *state, const SignerObject *self, const kest_buf *header, const uint8_t *payload,
                             size_t len)
{
    const size_t body = kest_b64_encoded_len(len), sig_at = header->len + body + 2;
    uint8_t sig[KEST_SIG_LEN], *jws;
    PyObject *result;
    kest_status st;

    if (!kest_jws_fits(header->len, len, KEST_SIG_LEN))
        return kest_raise(state, KEST_E_LIMIT);
    result = PyUnicode_New((Py_ssize_t)(sig_at + kest_b64_encoded_len(KEST_SIG_LEN)), 127);
    if (!result)
        return NULL;
    jws = PyUnicode_1BYTE_DATA(result);
    KEST_GIL_ADAPT(&state->gil)
    memcpy(jws, header->data, header->len);
    jws[header->len] = '.';
    kest_b64_encode(payload, len, jws + header->len + 1);
    st = kest_sign(self->key, jws, sig_at - 1, sig);
    jws[sig_at - 1] = '.';
    kest_b64_encode(sig, sizeof sig, jws + sig_at);
    KEST_GIL_ADAPT_END(&state->gil)
    if (st != KEST_OK) {
        Py_DECREF(result);
        return kest_raise(state, st);
    }
    return result;
}

static PyObject *signer_sign_jws(SignerObject *self, PyObject *args)
{
    kest_state *state = kest_state_of((PyObject *)self);
    PyObject *typ = NULL, *result = NULL;
    uint8_t *copy = NULL;
    kest_buf header;
    Py_buffer view;

    if (!PyArg_ParseTuple(args, "y*|U:sign_jws", &view, &typ))
        return NULL;
    kest_buf_init(&header);
    if (!kest_jws_fits(self->header.len, (size_t)view.len, KEST_SIG_LEN)) /* before it is copied */
        kest_raise(state, KEST_E_LIMIT);
    else if (!(copy = copy_of(view.buf, (size_t)view.len)))
        PyErr_NoMemory();
    else if (!typ || other_header(state, self, typ, &header) == 0)
        result = signed_text(state, self, typ ? &header : &self->header, copy, (size_t)view.len);
    kest_free(copy);
    kest_buf_free(&header);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *signer_export_seed(SignerObject *self, PyObject *unused)
{
    uint8_t seed[KEST_SEED_LEN];
    PyObject *result;

    (void)unused;
    kest_seckey_seed(self->key, seed);
    result = PyBytes_FromStringAndSize((const char *)seed, sizeof seed);
    kest_wipe(seed, sizeof seed);
    return result;
}

/* The same key under another name; the secret stays in C. */
static PyObject *signer_renamed(SignerObject *self, PyObject *principal)
{
    kest_state *state = kest_state_of((PyObject *)self);
    uint8_t seed[KEST_SEED_LEN];
    PyObject *view, *result = NULL;

    if (!PyUnicode_Check(principal)) {
        PyErr_SetString(PyExc_TypeError, "a principal is str");
        return NULL;
    }
    kest_seckey_seed(self->key, seed);
    view = PyMemoryView_FromMemory((char *)seed, sizeof seed, PyBUF_READ);
    if (view)
        result = PyObject_CallFunctionObjArgs((PyObject *)state->signer_type, principal, view, NULL);
    Py_XDECREF(view);
    kest_wipe(seed, sizeof seed);
    return result;
}

static PyObject *refuse_pickle(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyErr_Format(PyExc_TypeError, "a %s holds a secret key and is never pickled or copied; save the key with "
                 "`kest keygen` and load it where it is needed", Py_TYPE(self)->tp_name);
    return NULL;
}

static PyMethodDef signer_methods[] = {
    {"sign", (PyCFunction)signer_sign, METH_O, "sign(message, /)\n--\n\nEd25519 signature (RFC 8032), 64 bytes."},
    {"sign_jws", (PyCFunction)signer_sign_jws, METH_VARARGS,
     "sign_jws(payload, typ='JWS', /)\n--\n\nCompact JWS (RFC 7515) over the payload bytes: header alg EdDSA, kid the principal."},
    {"export_seed", (PyCFunction)signer_export_seed, METH_NOARGS,
     "export_seed()\n--\n\nThe 32-byte secret seed, for writing a key file. Handle with care."},
    {"renamed", (PyCFunction)signer_renamed, METH_O, "renamed(principal, /)\n--\n\nA signer with the same key and another name."},
    {"__reduce__", refuse_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef signer_getset[] = {
    {"principal", (getter)signer_principal, NULL, "The name that entries are signed under.", NULL},
    {"public_key", (getter)signer_public, NULL, "Raw Ed25519 public key, 32 bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot signer_slots[] = {
    {Py_tp_new, signer_new},
    {Py_tp_dealloc, signer_dealloc},
    {Py_tp_repr, signer_repr},
    {Py_tp_methods, signer_methods},
    {Py_tp_getset, signer_getset},
    {Py_tp_doc, "Signer(principal, seed=None)\n--\n\nAn Ed25519 key (RFC 8032) in locked, read-only memory that is wiped "
                "when the object dies.\n\nseed: 32 bytes, or None for a new random key."},
    {0, NULL},
};

PyType_Spec kest_signer_spec = {"kest._kestcore.Signer", sizeof(SignerObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, signer_slots};
