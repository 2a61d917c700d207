/* state.h: what one instance of the module holds, and what its files share. */
#ifndef KEST_STATE_H
#define KEST_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/chain.h"
#include "../core/crypto.h"
#include "../core/pack.h"
#include "../core/verify.h"
#include "gil.h"

typedef struct kest_record_class kest_record_class;

typedef struct kest_state {
    /* exception classes, from kest.errors */
    PyObject *canonicalization_error, *json_error, *key_error, *passport_error, *verification_error, *baggage_error, *gate_input_error;
    PyTypeObject *signer_type, *pubkey_type, *keyring_type, *known_type, *entry_type, *passport_type;
    PyTypeObject *stream_type;
    PyTypeObject *tree_type, *record_keys_type;
    PyTypeObject *context_type, *set_type, *rates_type, *sessions_type, *verdict_type, *gate_type;
    PyObject *gate_args[17]; /* names of ActionContext's arguments, interned */
    /* from kest.gate, once it is imported: what contexts hold, what verdicts make */
    PyObject *gate_geo_type, *gate_device_type, *gate_permit_type, *gate_reason;
    PyObject *binascii_decode; /* binascii.a2b_base64, for PEM */
    kest_record_class *records; /* py_record.c; NULL until there is one */
    PyObject *name_dict, *name_extra, *name_fields; /* "__dict__", "__pydantic_extra__", "fields", interned */
    kest_gil_policy gil;
} kest_state;

static inline kest_state *state_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

/* Our types are final, so an object's own type knows its module. */
static inline kest_state *kest_state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* --- errors.c: the one place where a status becomes an exception; always returns NULL --- */
PyObject *kest_raise(kest_state *state, kest_status status);
/* PassportVerifier's error: index (SIZE_MAX: none) and reason. */
PyObject *kest_raise_verification(kest_state *state, kest_status status, size_t index);
PyObject *kest_raise_json(kest_state *state, kest_status status, size_t position);

/* --- from_python.c, py_hash.c --- */
/* Appends the canonical form of `value`. With `fallback` (a callable) anything that is not JSON is handed to it, and it
 * returns (replacement, opaque); without, it is an error. Returns 0, or -1 with an exception set. */
int kest_write_python(kest_state *state, kest_buf *out, PyObject *value, PyObject *fallback, bool *opaque);
/* A view of a str as UTF-8, valid as long as the str; -1 and CanonicalizationError for lone surrogates. */
int kest_str_view(kest_state *state, PyObject *text, const char *what, kest_str *out);
PyObject *kest_py_canonicalize(PyObject *module, PyObject *value);
PyObject *kest_py_digest(PyObject *module, PyObject *value);
PyObject *kest_py_hash_arguments(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *kest_py_hash_value(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* --- py_record.c --- */
PyObject *kest_py_know_record(PyObject *module, PyObject *args);
int kest_records_ready(kest_state *state);
void kest_records_free(kest_state *state);

/* --- to_python.c --- */
PyObject *kest_py_parse(PyObject *module, PyObject *data);
PyObject *kest_json_to_python(const kest_json *value);

/* --- py_text.c: small functions on bytes --- */
extern PyMethodDef kest_text_methods[];

/* --- types --- */
typedef struct SignerObject {
    PyObject_HEAD
    kest_seckey *key;
    kest_text *principal;
    kest_buf header; /* base64url of the JWS header */
} SignerObject;

typedef struct PubkeyObject {
    PyObject_HEAD
    kest_pubkey *key;
} PubkeyObject;

typedef struct KeyringObject {
    PyObject_HEAD
    kest_keyring *ring;
} KeyringObject;

typedef struct PassportObject {
    PyObject_HEAD
    /* A view of a flow: tips alone. Made by hand or read from text: a builder, from which tips follow. */
    kest_node **tips; /* &one, or heap; NULL until worked out from the builder */
    size_t ntips;
    kest_node *one;
    kest_builder *builder;
    bool frozen; /* a snapshot: nothing is added any more */
    /* What the next entry starts from beside the tips: after a roll-over, or behind an unverified edge. */
    uint8_t ceiling;
    kest_taints *carried;
    kest_text *continues; /* NULL or the tips that an empty passport continues */
    PyObject *json, *z, *dense; /* serialised forms, once asked for */
    kest_dense *arrived; /* the dense form that it was read from, until KnownEntries.verify takes it; otherwise NULL */
} PassportObject;

extern PyType_Spec kest_signer_spec, kest_pubkey_spec, kest_keyring_spec, kest_known_spec, kest_entry_spec, kest_passport_spec;

/* py_passport.c, for the files that work on passports */
bool kest_passport_empty(const PassportObject *self);
/* Works the tips out if need be; -1 with an exception set. A passport with a broken entry has none to give: error.
 * What self->tips then points to is good until the next Python object is made. */
int kest_passport_tips(kest_state *state, PassportObject *self);
/* Nodes with a reference each, in an array of its own: making Python objects can run finalizers, which can add to a
 * passport that is being read. Drop what you get. */
typedef struct kest_pinned {
    kest_node **nodes;
    size_t count;
} kest_pinned;
int kest_passport_pin(kest_state *state, PassportObject *self, kest_pinned *out);      /* all entries, in order */
int kest_passport_pin_tips(kest_state *state, PassportObject *self, kest_pinned *out); /* the tips, by hash */
void kest_pinned_drop(kest_pinned *pinned);
PyObject *kest_passport_new(kest_state *state, kest_node *const *tips, size_t ntips);
/* Takes over the builder. */
PyObject *kest_passport_from_builder(kest_state *state, kest_builder *builder);
PyObject *kest_node_text(const kest_node *node);
PassportObject *kest_passport_blank(PyTypeObject *type);
void kest_passport_drop_tips(PassportObject *self);
int kest_passport_add_text(kest_state *state, kest_builder *builder, PyObject *item);
PyObject *kest_passport_chain_tip(PassportObject *self, void *unused);
PyObject *kest_passport_trust(PassportObject *self, void *unused);

/* py_tips.c */
PyObject *kest_tip_hashes(PassportObject *self, void *unused);
PyObject *kest_tip_scores(PassportObject *self, void *unused);
PyObject *kest_tip_principals(PassportObject *self, void *unused);
PyObject *kest_tip_labels(PassportObject *self, void *unused);
PyObject *kest_tip_entry(PassportObject *self, void *unused);

/* py_passport_make.c */
/* What is wrong with the text of a passport, at this byte, as an exception (always NULL). */
PyObject *kest_raise_passport_text(kest_state *state, kest_status status, size_t error_at);
PyObject *kest_passport_deserialize(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *kest_passport_add(PassportObject *self, PyObject *jws);
PyObject *kest_passport_merge(PyTypeObject *type, PyObject *const *args, Py_ssize_t nargs);
PyObject *kest_passport_restrict(PassportObject *self, PyObject *args);
PyObject *kest_passport_snapshot(PassportObject *self, PyObject *unused);
PyObject *kest_passport_restore(PyTypeObject *type, PyObject *args);
PyObject *kest_passport_roll_over(PassportObject *self, PyObject *unused);

/* py_seal.c */
PyObject *kest_passport_seal(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *kest_passport_draft(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *kest_passport_adopt(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *kest_passport_taints_after(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
/* Reads a tuple or list of str, ascending and distinct, into *out (kest_free unless *out == room). */
int kest_taint_list(kest_state *state, PyObject *list, kest_str *room, size_t nroom, kest_str **out, size_t *count);
PyObject *kest_taints_tuple(const kest_taints *taints);

/* py_verify.c: verifies with as many threads as are worth it (asked > 0: that many), without the lock where that pays. */
void kest_verify_run(kest_state *state, kest_node *const *nodes, size_t count, const kest_keyring *ring, long asked,
                     kest_verdict *verdict);

/* py_pack.c */
/* A status of unpacking as an exception (always NULL). */
PyObject *kest_raise_unpacking(kest_state *state, kest_status status);
extern PyMethodDef kest_pack_methods[], kest_verify_methods[];
#ifdef KEST_FAULTS
extern PyMethodDef kest_fault_methods[];
#endif

/* py_vault.c */
extern PyMethodDef kest_vault_methods[];
extern PyType_Spec kest_stream_spec;

#endif
