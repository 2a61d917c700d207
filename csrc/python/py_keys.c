/* py_keys.c: Signer (a secret key), PublicKey and KeyRing. */
#include "state.h"

#include "../core/alloc.h"
#include "../core/b64url.h"
#include "../core/jws.h"

#include <structmember.h>

/* --- Signer --- */

static PyObject *signer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"principal", "seed", NULL};
    kest_state *state = PyType_GetModuleState(type);
    PyObject *principal;
    Py_buffer seed = {0};
    SignerObject *self = NULL;
    kest_str name;
    kest_status st = KEST_OK;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|z*:Signer", names, &principal, &seed))
        return NULL;
    if (kest_str_view(state, principal, "principal", &name) < 0)
        goto done;
    if (name.len == 0) {
        PyErr_SetString(state->key_error, "a signer needs a principal: an empty name cannot be told from another");
        goto done;
    }
    if (seed.buf && seed.len != KEST_SEED_LEN) {
        PyErr_Format(state->key_error, "an Ed25519 seed is 32 bytes, not %zd", seed.len);
        goto done;
    }
    self = (SignerObject *)type->tp_alloc(type, 0);
    if (!self)
        goto done;
    kest_buf_init(&self->header);
    if ((st = kest_seckey_new(seed.buf, &self->key)) != KEST_OK ||
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
    PyObject *result = PyUnicode_New((Py_ssize_t)(sig_at + kest_b64_encoded_len(KEST_SIG_LEN)), 127);
    kest_status st;

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
    if ((size_t)view.len > KEST_MAX_JWS / 2)
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
        KEST_GIL_RELEASE
        st = kest_pubkey_verify(self->key, copy, (size_t)msg.len, copy + msg.len, (size_t)sig.len);
        KEST_GIL_RELEASE_END
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

static PyMethodDef pubkey_methods[] = {
    {"from_raw", (PyCFunction)pubkey_from_raw, METH_O | METH_CLASS,
     "from_raw(raw, /)\n--\n\nAn Ed25519 key from its 32 bytes."},
    {"from_jwk", (PyCFunction)pubkey_from_jwk, METH_O | METH_CLASS,
     "from_jwk(jwk, /)\n--\n\nFrom a JWK dict: OKP Ed25519 (RFC 8037), EC P-256, or RSA of 2,048 bits or more."},
    {"from_pem", (PyCFunction)pubkey_from_pem, METH_O | METH_CLASS,
     "from_pem(pem, /)\n--\n\nFrom a PEM SubjectPublicKeyInfo (str or bytes)."},
    {"from_spki", (PyCFunction)pubkey_from_spki, METH_O | METH_CLASS,
     "from_spki(der, /)\n--\n\nFrom a DER SubjectPublicKeyInfo."},
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
