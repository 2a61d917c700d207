/* py_keys.c: PublicKey, and KeyRing: whose keys are believed. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/b64url.h"

/* --- PublicKey --- */

static PyObject *wrap_pubkey(PyTypeObject *type, kest_status st, kest_pubkey *key)
{
    PubkeyObject *self;

    if (st != KEST_OK)
        return kest_raise(PyType_GetModuleState(type), st);
    self = (PubkeyObject *)type->tp_alloc(type, 0);
    if (self)
        self->key = key;
    else
        kest_pubkey_unref(key);
    return (PyObject *)self;
}

static void pubkey_dealloc(PubkeyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_pubkey_unref(self->key);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *pubkey_from_raw(PyTypeObject *type, PyObject *arg)
{
    kest_pubkey *key = NULL;
    Py_buffer view;
    kest_status st;

    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    st = kest_pubkey_ed25519(view.buf, (size_t)view.len, &key);
    PyBuffer_Release(&view);
    return wrap_pubkey(type, st, key);
}

static PyObject *pubkey_from_spki(PyTypeObject *type, PyObject *arg)
{
    kest_pubkey *key = NULL;
    Py_buffer view;
    kest_status st;

    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    st = kest_pubkey_spki(view.buf, (size_t)view.len, &key);
    PyBuffer_Release(&view);
    return wrap_pubkey(type, st, key);
}

enum { MAX_JWK_FIELD = 2048 };

/* Member `name` of a JWK, base64url-decoded into out; its length, or -1 with an exception set. */
static Py_ssize_t jwk_bytes(kest_state *state, PyObject *jwk, const char *name, uint8_t out[MAX_JWK_FIELD])
{
    PyObject *text = PyDict_GetItemString(jwk, name);
    kest_str view;

    if (!text || !PyUnicode_Check(text) || kest_str_view(state, text, name, &view) < 0)
        goto bad;
    if (kest_b64_decoded_len(view.len) > MAX_JWK_FIELD || kest_b64_decode(view.data, view.len, out) != KEST_OK)
        goto bad;
    return (Py_ssize_t)kest_b64_decoded_len(view.len);
bad:
    PyErr_Clear();
    PyErr_Format(state->key_error, "JWK member '%s' is missing or not base64url of a reasonable length", name);
    return -1;
}

static bool jwk_says(PyObject *jwk, const char *name, const char *value)
{
    PyObject *text = PyDict_GetItemString(jwk, name);

    return text && PyUnicode_Check(text) && PyUnicode_CompareWithASCIIString(text, value) == 0;
}

/* False for a key whose owner says that it is not for verifying signatures (RFC 7517, sections 4.2 and 4.3). */
static bool meant_for_verifying(PyObject *jwk)
{
    PyObject *ops = PyDict_GetItemString(jwk, "key_ops"), *verify;
    int found;

    if (PyDict_GetItemString(jwk, "use") && !jwk_says(jwk, "use", "sig"))
        return false;
    if (!ops)
        return true;
    verify = PyUnicode_FromString("verify");
    found = verify && (PyList_Check(ops) || PyTuple_Check(ops)) ? PySequence_Contains(ops, verify) : 0;
    Py_XDECREF(verify);
    PyErr_Clear();
    return found == 1;
}

/* RFC 7517, RFC 7518 section 6, RFC 8037 section 2. A member "alg" must agree with the kind of key. */
static PyObject *pubkey_from_jwk(PyTypeObject *type, PyObject *jwk)
{
    kest_state *state = PyType_GetModuleState(type);
    uint8_t a[MAX_JWK_FIELD], b[MAX_JWK_FIELD];
    Py_ssize_t na, nb;
    kest_pubkey *key = NULL;
    kest_status st;

    if (!PyDict_Check(jwk)) {
        PyErr_SetString(PyExc_TypeError, "a JWK is a dict");
        return NULL;
    }
    if (!meant_for_verifying(jwk))
        return kest_raise(state, KEST_E_KEY);
    if (jwk_says(jwk, "kty", "OKP") && jwk_says(jwk, "crv", "Ed25519")) {
        if ((na = jwk_bytes(state, jwk, "x", a)) < 0)
            return NULL;
        st = kest_pubkey_ed25519(a, (size_t)na, &key);
    } else if (jwk_says(jwk, "kty", "EC") && jwk_says(jwk, "crv", "P-256")) {
        if ((na = jwk_bytes(state, jwk, "x", a)) < 0 || (nb = jwk_bytes(state, jwk, "y", b)) < 0)
            return NULL;
        st = na == 32 && nb == 32 ? kest_pubkey_p256(a, b, &key) : KEST_E_KEY;
    } else if (jwk_says(jwk, "kty", "RSA")) {
        if ((na = jwk_bytes(state, jwk, "n", a)) < 0 || (nb = jwk_bytes(state, jwk, "e", b)) < 0)
            return NULL;
        st = kest_pubkey_rsa(a, (size_t)na, b, (size_t)nb, &key);
    } else {
        st = KEST_E_KEY;
    }
    if (st == KEST_OK && PyDict_GetItemString(jwk, "alg") &&
        !jwk_says(jwk, "alg", kest_alg_name(kest_pubkey_alg(key))) &&
        !(kest_pubkey_alg(key) == KEST_ALG_EDDSA && jwk_says(jwk, "alg", "Ed25519"))) {
        kest_pubkey_unref(key);
        st = KEST_E_KEY;
    }
    return wrap_pubkey(type, st, key);
}

/* "-----BEGIN PUBLIC KEY-----" (RFC 7468, section 13). */
static PyObject *pubkey_from_pem(PyTypeObject *type, PyObject *arg)
{
    static const char begin[] = "-----BEGIN PUBLIC KEY-----", end[] = "-----END PUBLIC KEY-----";
    kest_state *state = PyType_GetModuleState(type);
    PyObject *bytes, *body = NULL, *der = NULL, *result = NULL;
    const char *text, *from, *to;

    bytes = PyUnicode_Check(arg) ? PyUnicode_AsUTF8String(arg) : PyBytes_FromObject(arg);
    if (!bytes)
        return NULL;
    text = PyBytes_AS_STRING(bytes);
    from = strstr(text, begin);
    to = from ? strstr(from, end) : NULL;
    if (!to) {
        PyErr_SetString(state->key_error, "not a PEM public key: a block '-----BEGIN PUBLIC KEY-----' is expected");
        goto done;
    }
    from += sizeof begin - 1;
    body = PyBytes_FromStringAndSize(from, to - from);
    der = body ? PyObject_CallOneArg(state->binascii_decode, body) : NULL;
    if (der)
        result = pubkey_from_spki(type, der);
    else if (PyErr_ExceptionMatches(PyExc_ValueError))
        PyErr_SetString(state->key_error, "not a PEM public key: its body is not base64");
done:
    Py_XDECREF(der);
    Py_XDECREF(body);
    Py_DECREF(bytes);
    return result;
}

enum { SHORT_MESSAGE = 8192 };

static PyObject *pubkey_verify(PubkeyObject *self, PyObject *args)
{
    Py_buffer msg, sig;
    uint8_t *copy;
    kest_status st = KEST_E_NOMEM;

    if (!PyArg_ParseTuple(args, "y*y*:verify", &msg, &sig))
        return NULL;
    copy = kest_malloc((size_t)msg.len + (size_t)sig.len);
    if (copy) {
        if (msg.len)
            memcpy(copy, msg.buf, (size_t)msg.len);
        if (sig.len)
            memcpy(copy + msg.len, sig.buf, (size_t)sig.len);
        if (msg.len < SHORT_MESSAGE && kest_pubkey_alg(self->key) == KEST_ALG_EDDSA) {
            /* 45 us: handing the lock over and back costs two threads more than they gain. */
            st = kest_pubkey_verify(self->key, copy, (size_t)msg.len, copy + msg.len, (size_t)sig.len);
        } else {
            KEST_GIL_RELEASE
            st = kest_pubkey_verify(self->key, copy, (size_t)msg.len, copy + msg.len, (size_t)sig.len);
            KEST_GIL_RELEASE_END
        }
        kest_free(copy);
    }
    PyBuffer_Release(&msg);
    PyBuffer_Release(&sig);
    if (st == KEST_E_NOMEM)
        return PyErr_NoMemory();
    return PyBool_FromLong(st == KEST_OK);
}

static PyObject *pubkey_alg(PubkeyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(kest_alg_name(kest_pubkey_alg(self->key)));
}

static PyObject *pubkey_raw(PubkeyObject *self, void *unused)
{
    const uint8_t *raw = kest_pubkey_raw(self->key);

    (void)unused;
    if (!raw)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)raw, KEST_PK_LEN);
}

/* Sets `name` of `jwk` to base64url of `n` bytes. */
static int jwk_set(PyObject *jwk, const char *name, const uint8_t *data, size_t n)
{
    PyObject *text = PyUnicode_New((Py_ssize_t)kest_b64_encoded_len(n), 127);
    int failed = -1;

    if (text) {
        kest_b64_encode(data, n, PyUnicode_1BYTE_DATA(text));
        failed = PyDict_SetItemString(jwk, name, text);
        Py_DECREF(text);
    }
    return failed;
}

static PyObject *pubkey_public_jwk(PubkeyObject *self, PyObject *unused)
{
    const kest_alg alg = kest_pubkey_alg(self->key);
    uint8_t a[KEST_RSA_N_MAX], b[32];
    size_t na, nb;
    kest_status st = kest_pubkey_numbers(self->key, a, &na, b, &nb);
    PyObject *jwk;

    (void)unused;
    if (st != KEST_OK)
        return kest_raise(kest_state_of((PyObject *)self), st);
    if (alg == KEST_ALG_RS256)
        jwk = Py_BuildValue("{ss}", "kty", "RSA");
    else
        jwk = Py_BuildValue("{ssss}", "crv", alg == KEST_ALG_EDDSA ? "Ed25519" : "P-256", "kty", alg == KEST_ALG_EDDSA ? "OKP" : "EC");
    if (jwk && (jwk_set(jwk, alg == KEST_ALG_RS256 ? "n" : "x", a, na) < 0 ||
                (nb && jwk_set(jwk, alg == KEST_ALG_RS256 ? "e" : "y", b, nb) < 0)))
        Py_CLEAR(jwk);
    return jwk;
}

static PyMethodDef pubkey_methods[] = {
    {"from_raw", (PyCFunction)pubkey_from_raw, METH_O | METH_CLASS,
     "from_raw(raw, /)\n--\n\nAn Ed25519 key from its 32 bytes."},
    {"from_jwk", (PyCFunction)pubkey_from_jwk, METH_O | METH_CLASS,
     "from_jwk(jwk, /)\n--\n\nFrom a JWK dict: OKP Ed25519 (RFC 8037), EC P-256, or RSA of 2,048 bits or more."},
    {"from_pem", (PyCFunction)pubkey_from_pem, METH_O | METH_CLASS,
     "from_pem(pem, /)\n--\n\nFrom a PEM SubjectPublicKeyInfo (str or bytes)."},
    {"from_spki", (PyCFunction)pubkey_from_spki, METH_O | METH_CLASS,
     "from_spki(der, /)\n--\n\nFrom a DER SubjectPublicKeyInfo."},
    {"public_jwk", (PyCFunction)pubkey_public_jwk, METH_NOARGS,
     "public_jwk()\n--\n\nThe required members of its JWK (RFC 7638, section 3.2)."},
    {"verify", (PyCFunction)pubkey_verify, METH_VARARGS,
     "verify(message, signature, /)\n--\n\nTrue when the signature is right. ES256 signatures are raw r||s (RFC 7518)."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pubkey_getset[] = {
    {"alg", (getter)pubkey_alg, NULL, "The JWS algorithm that this key verifies: EdDSA, ES256 or RS256.", NULL},
    {"raw", (getter)pubkey_raw, NULL, "The 32 bytes of an Ed25519 key, None for other kinds.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pubkey_slots[] = {
    {Py_tp_dealloc, pubkey_dealloc},
    {Py_tp_methods, pubkey_methods},
    {Py_tp_getset, pubkey_getset},
    {Py_tp_doc, "A public key for verification: Ed25519, ECDSA P-256 or RSA. Made by from_raw, from_jwk, from_pem, from_spki."},
    {0, NULL},
};

PyType_Spec kest_pubkey_spec = {"kest._kestcore.PublicKey", sizeof(PubkeyObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                pubkey_slots};

/* --- KeyRing --- */

static int add_grant(kest_state *state, kest_keyring *ring, PyObject *item)
{
    PyObject *principal, *key;
    kest_grant grant = {0};
    int max_trust, may_sanitise;
    long long not_before, not_after;
    kest_str name;
    kest_status st;

    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a grant is (principal, key, max_trust, may_sanitise, not_before, not_after)");
        return -1;
    }
    if (!PyArg_ParseTuple(item, "UO!ipLL", &principal, state->pubkey_type, &key, &max_trust, &may_sanitise, &not_before,
                          &not_after) ||
        kest_str_view(state, principal, "principal", &name) < 0)
        return -1;
    if (max_trust < 0 || max_trust > KEST_MAX_TRUST) {
        PyErr_Format(PyExc_ValueError, "max_trust is 0 to 100, not %d", max_trust);
        return -1;
    }
    grant = (kest_grant){not_before, not_after, (uint8_t)max_trust, may_sanitise != 0};
    st = kest_keyring_add(ring, name.data, name.len, ((PubkeyObject *)key)->key, &grant);
    if (st != KEST_OK)
        kest_raise(state, st);
    return st == KEST_OK ? 0 : -1;
}

static PyObject *keyring_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"grants", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *grants, *items = NULL;
    KeyringObject *self = NULL;
    kest_status st;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:KeyRing", names, &grants) ||
        !(items = PySequence_Tuple(grants)) || !(self = (KeyringObject *)type->tp_alloc(type, 0)))
        goto fail;
    if ((st = kest_keyring_new(&self->ring)) != KEST_OK) {
        kest_raise(state, st);
        goto fail;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++)
        if (add_grant(state, self->ring, PyTuple_GET_ITEM(items, i)) < 0)
            goto fail;
    Py_DECREF(items);
    return (PyObject *)self;
fail:
    Py_XDECREF(items);
    Py_XDECREF(self);
    return NULL;
}

static void keyring_dealloc(KeyringObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    kest_keyring_unref(self->ring);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t keyring_length(KeyringObject *self)
{
    return (Py_ssize_t)kest_keyring_count(self->ring);
}

static PyType_Slot keyring_slots[] = {
    {Py_tp_new, keyring_new},
    {Py_tp_dealloc, keyring_dealloc},
    {Py_mp_length, keyring_length},
    {Py_tp_doc, "KeyRing(grants)\n--\n\nAn immutable set of principals and their keys. grants: tuples of (principal, PublicKey, "
                "max_trust 0..100, may_sanitise, not_before, not_after), times in Unix milliseconds, inclusive."},
    {0, NULL},
};

PyType_Spec kest_keyring_spec = {"kest._kestcore.KeyRing", sizeof(KeyringObject), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, keyring_slots};
