/* py_vault.c: encryption under keys and passphrases, and SecretStream. Long work runs without the interpreter's lock, on
 * memory that nobody else can change: bytes objects, of which the arguments hold references. */
#include "state.h"

#include "../core/vault.h"

enum { LONG_WORK = 16384 }; /* bytes; about 20 us */

static kest_bytes bytes_of(PyObject *object)
{
    return (kest_bytes){(const uint8_t *)PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object)};
}

static int wrong_length(PyObject *object, Py_ssize_t length, const char *what)
{
    if (PyBytes_GET_SIZE(object) == length)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s is %zd bytes, not %zd", what, length, PyBytes_GET_SIZE(object));
    return -1;
}

/* What a call that seals or opens gives back: `out`, None where it does not open, or an exception. Takes over `out`. */
static PyObject *outcome(kest_state *state, kest_status st, PyObject *out)
{
    if (st == KEST_OK)
        return out;
    Py_DECREF(out);
    if (st == KEST_E_SIGNATURE)
        Py_RETURN_NONE;
    if (st == KEST_E_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "a size or cost is beyond what is supported");
        return NULL;
    }
    return kest_raise(state, st);
}

/* Room for `length` bytes and `more`; NULL with an exception set. */
static PyObject *room(Py_ssize_t length, Py_ssize_t more)
{
    if (length + more < 0 || length > PY_SSIZE_T_MAX - 64)
        return PyErr_Format(PyExc_ValueError, "too short, or too long");
    return PyBytes_FromStringAndSize(NULL, length + more);
}

typedef kest_status (*aead)(const uint8_t *, const uint8_t *, kest_bytes, kest_bytes, uint8_t *);

static PyObject *run_aead(PyObject *module, PyObject *args, const char *format, aead function, Py_ssize_t more)
{
    PyObject *key, *nonce, *text, *ad, *out;
    kest_status st;

    if (!PyArg_ParseTuple(args, format, &key, &nonce, &text, &ad) || wrong_length(key, KEST_VAULT_KEY, "a key") < 0 ||
        wrong_length(nonce, KEST_VAULT_NONCE, "a nonce") < 0)
        return NULL;
    if (PyBytes_GET_SIZE(text) + more < 0)
        Py_RETURN_NONE; /* too short to be sealed */
    if (!(out = room(PyBytes_GET_SIZE(text), more)))
        return NULL;
    const kest_bytes k = bytes_of(key), n = bytes_of(nonce), t = bytes_of(text), a = bytes_of(ad);
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(out);

    if (t.len + a.len >= LONG_WORK) {
        KEST_GIL_RELEASE
        st = function(k.data, n.data, a, t, to);
        KEST_GIL_RELEASE_END
    } else {
        st = function(k.data, n.data, a, t, to);
    }
    return outcome(state_of_module(module), st, out);
}

static PyObject *py_aead_seal(PyObject *module, PyObject *args)
{
    return run_aead(module, args, "SSSS:aead_seal", kest_aead_seal, KEST_VAULT_TAG);
}

static PyObject *py_aead_open(PyObject *module, PyObject *args)
{
    return run_aead(module, args, "SSSS:aead_open", kest_aead_open, -KEST_VAULT_TAG);
}

typedef kest_status (*vault)(kest_bytes, const uint8_t *, kest_vault_cost, const uint8_t *, kest_bytes, kest_bytes, uint8_t *);

static PyObject *run_vault(PyObject *module, PyObject *args, const char *format, vault function, Py_ssize_t more)
{
    PyObject *passphrase, *salt, *nonce, *text, *ad, *out;
    unsigned long long passes, memory;
    kest_status st;

    if (!PyArg_ParseTuple(args, format, &passphrase, &salt, &passes, &memory, &nonce, &text, &ad) ||
        wrong_length(salt, KEST_VAULT_SALT, "a salt") < 0 || wrong_length(nonce, KEST_VAULT_NONCE, "a nonce") < 0)
        return NULL;
    if (PyBytes_GET_SIZE(text) + more < 0)
        Py_RETURN_NONE;
    if (!(out = room(PyBytes_GET_SIZE(text), more)))
        return NULL;
    const kest_vault_cost cost = {passes, (size_t)memory};
    const kest_bytes p = bytes_of(passphrase), s = bytes_of(salt), n = bytes_of(nonce), t = bytes_of(text), a = bytes_of(ad);
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(out);

    KEST_GIL_RELEASE
    st = function(p, s.data, cost, n.data, a, t, to);
    KEST_GIL_RELEASE_END
    return outcome(state_of_module(module), st, out);
}

static PyObject *py_vault_seal(PyObject *module, PyObject *args)
{
    return run_vault(module, args, "SSKKSSS:vault_seal", kest_vault_seal, KEST_VAULT_TAG);
}

static PyObject *py_vault_open(PyObject *module, PyObject *args)
{
    return run_vault(module, args, "SSKKSSS:vault_open", kest_vault_open, -KEST_VAULT_TAG);
}

PyMethodDef kest_vault_methods[] = {
    {"aead_seal", py_aead_seal, METH_VARARGS,
     "aead_seal(key, nonce, message, ad, /)\n--\n\nXChaCha20-Poly1305: key of 32 bytes, nonce of 24 that is never used twice with it."},
    {"aead_open", py_aead_open, METH_VARARGS, "aead_open(key, nonce, sealed, ad, /)\n--\n\nThe message, or None when anything is another."},
    {"vault_seal", py_vault_seal, METH_VARARGS,
     "vault_seal(passphrase, salt, passes, memory, nonce, message, ad, /)\n--\n\nXChaCha20-Poly1305 under a key that Argon2id "
     "derives with so many passes over so many bytes."},
    {"vault_open", py_vault_open, METH_VARARGS,
     "vault_open(passphrase, salt, passes, memory, nonce, sealed, ad, /)\n--\n\nThe message, or None when anything is another."},
    {NULL, NULL, 0, NULL},
};

/* --- SecretStream --- */

typedef struct StreamObject {
    PyObject_HEAD
    kest_stream *stream;
    PyObject *header;
    bool sends, busy; /* busy: a thread works on it without the lock */
} StreamObject;

static PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "header", NULL};
    PyObject *key, *header = NULL;
    StreamObject *self;
    kest_status st;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "S|S:SecretStream", names, &key, &header) ||
        wrong_length(key, KEST_VAULT_KEY, "a key") < 0 || (header && wrong_length(header, KEST_STREAM_HEADER, "a header") < 0) ||
        !(self = (StreamObject *)type->tp_alloc(type, 0)))
        return NULL;
    self->sends = !header;
    self->header = header ? Py_NewRef(header) : PyBytes_FromStringAndSize(NULL, KEST_STREAM_HEADER);
    if (!self->header) {
        Py_DECREF(self);
        return NULL;
    }
    st = self->sends ? kest_stream_push_new(bytes_of(key).data, (uint8_t *)PyBytes_AS_STRING(self->header), &self->stream)
                     : kest_stream_pull_new(bytes_of(key).data, bytes_of(self->header).data, &self->stream);
    if (st != KEST_OK) {
        Py_DECREF(self);
        return kest_raise(PyType_GetModuleState(type), st);
    }
    return (PyObject *)self;
}

static void stream_dealloc(StreamObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_stream_free(self->stream);
    Py_XDECREF(self->header);
    type->tp_free(self);
    Py_DECREF(type);
}

static int stream_ready(const StreamObject *self, bool sends)
{
    if (self->sends == sends && !self->busy)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, self->busy ? "two threads use one stream" : "this stream goes the other way");
    return -1;
}

static PyObject *stream_push(StreamObject *self, PyObject *args)
{
    PyObject *text, *ad, *out;
    int last = 0;
    kest_status st;

    if (!PyArg_ParseTuple(args, "SS|p:push", &text, &ad, &last) || stream_ready(self, true) < 0 ||
        !(out = room(PyBytes_GET_SIZE(text), KEST_STREAM_ADDS)))
        return NULL;
    const kest_bytes t = bytes_of(text), a = bytes_of(ad);
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(out);

    if (t.len >= LONG_WORK) {
        self->busy = true;
        KEST_GIL_RELEASE
        st = kest_stream_push(self->stream, a, t, last != 0, to);
        KEST_GIL_RELEASE_END
        self->busy = false;
    } else {
        st = kest_stream_push(self->stream, a, t, last != 0, to);
    }
    return outcome(kest_state_of((PyObject *)self), st, out);
}

static PyObject *stream_pull(StreamObject *self, PyObject *args)
{
    PyObject *text, *ad, *out;
    bool last = false;
    kest_status st;

    if (!PyArg_ParseTuple(args, "SS:pull", &text, &ad) || stream_ready(self, false) < 0)
        return NULL;
    if (PyBytes_GET_SIZE(text) < KEST_STREAM_ADDS)
        Py_RETURN_NONE;
    if (!(out = room(PyBytes_GET_SIZE(text), -KEST_STREAM_ADDS)))
        return NULL;
    const kest_bytes t = bytes_of(text), a = bytes_of(ad);
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(out);

    if (t.len >= LONG_WORK) {
        self->busy = true;
        KEST_GIL_RELEASE
        st = kest_stream_pull(self->stream, a, t, to, &last);
        KEST_GIL_RELEASE_END
        self->busy = false;
    } else {
        st = kest_stream_pull(self->stream, a, t, to, &last);
    }
    out = outcome(kest_state_of((PyObject *)self), st, out);
    return !out || out == Py_None ? out : Py_BuildValue("NO", out, last ? Py_True : Py_False);
}

static PyObject *stream_header(StreamObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->header);
}

static PyMethodDef stream_methods[] = {
    {"push", (PyCFunction)stream_push, METH_VARARGS,
     "push(message, ad, last=False, /)\n--\n\nThe next message, sealed; 17 bytes longer. The key moves on."},
    {"pull", (PyCFunction)stream_pull, METH_VARARGS,
     "pull(sealed, ad, /)\n--\n\n(message, whether it is the last), or None when this is not the next message of the stream."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
    {"header", (getter)stream_header, NULL, "24 bytes that the receiver needs; not secret.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_new, stream_new},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
    {Py_tp_doc, "SecretStream(key, header=None)\n--\n\nOne direction of a conversation (libsodium's secretstream): without header the "
                "sending end, with the sender's header the receiving end. Each message moves the key on."},
    {0, NULL},
};

PyType_Spec kest_stream_spec = {"kest._kestcore.SecretStream", sizeof(StreamObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                                stream_slots};
