/* module.c: the module kest._kestcore: types, functions, state. Multi-phase initialisation (PEP 489), one state per
 * interpreter. */
#include "py_gate.h"
#include "py_tlog.h"

static int load_error(PyObject *errors, const char *name, PyObject **out)
{
    *out = PyObject_GetAttrString(errors, name);
    return *out ? 0 : -1;
}

static int load_errors(kest_state *state)
{
    PyObject *errors = PyImport_ImportModule("kest.errors"), *binascii;
    int rc;

    if (!errors)
        return -1;
    rc = load_error(errors, "CanonicalizationError", &state->canonicalization_error) ||
         load_error(errors, "JSONSyntaxError", &state->json_error) ||
         load_error(errors, "KeyFormatError", &state->key_error) ||
         load_error(errors, "PassportError", &state->passport_error) ||
         load_error(errors, "VerificationError", &state->verification_error) ||
         load_error(errors, "BaggageError", &state->baggage_error) ||
         load_error(errors, "GateInputError", &state->gate_input_error);
    Py_DECREF(errors);
    if (rc || !(binascii = PyImport_ImportModule("binascii")))
        return -1;
    state->binascii_decode = PyObject_GetAttrString(binascii, "a2b_base64");
    Py_DECREF(binascii);
    return state->binascii_decode ? 0 : -1;
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out)
{
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (!*out && !PyErr_Occurred())
        PyErr_NoMemory(); /* which CPython 3.11 leaves unsaid in one place */
    return *out ? PyModule_AddType(module, *out) : -1;
}

static int add_gate(PyObject *module, kest_state *state)
{
    return add_type(module, &kest_context_spec, &state->context_type) < 0 ||
                   add_type(module, &kest_set_spec, &state->set_type) < 0 ||
                   add_type(module, &kest_rates_spec, &state->rates_type) < 0 ||
                   add_type(module, &kest_sessions_spec, &state->sessions_type) < 0 ||
                   add_type(module, &kest_verdict_spec, &state->verdict_type) < 0 ||
                   add_type(module, &kest_gate_spec, &state->gate_type) < 0 || kest_gate_context_ready(state->context_type) < 0
               ? -1 : PyModule_AddFunctions(module, kest_gate_methods);
}

static int add_tlog(PyObject *module, kest_state *state)
{
    return add_type(module, &kest_tree_spec, &state->tree_type) < 0 ||
                   add_type(module, &kest_record_keys_spec, &state->record_keys_type) < 0
                   || PyModule_AddIntConstant(module, "STATUS_PRINCIPAL", KEST_E_PRINCIPAL) < 0
                   || PyModule_AddIntConstant(module, "STATUS_SIGNATURE", KEST_E_SIGNATURE) < 0
               ? -1 : PyModule_AddFunctions(module, kest_tlog_methods);
}

static int module_exec(PyObject *module)
{
    kest_state *state = state_of_module(module);

    if (kest_crypto_init() != KEST_OK) {
        PyErr_SetString(PyExc_ImportError, "libsodium could not be initialised: no source of randomness");
        return -1;
    }
    if (load_errors(state) < 0 || kest_records_ready(state) < 0 || add_type(module, &kest_signer_spec, &state->signer_type) < 0 ||
        add_type(module, &kest_pubkey_spec, &state->pubkey_type) < 0 ||
        add_type(module, &kest_keyring_spec, &state->keyring_type) < 0 ||
        add_type(module, &kest_known_spec, &state->known_type) < 0 ||
        add_type(module, &kest_entry_spec, &state->entry_type) < 0 ||
        add_type(module, &kest_passport_spec, &state->passport_type) < 0 ||
        add_type(module, &kest_stream_spec, &state->stream_type) < 0 || PyModule_AddFunctions(module, kest_vault_methods) < 0 ||
        add_gate(module, state) < 0 || add_tlog(module, state) < 0 || PyModule_AddFunctions(module, kest_pack_methods) < 0 ||
        PyModule_AddFunctions(module, kest_verify_methods) < 0)
        return -1;
#ifdef KEST_FAULTS
    if (PyModule_AddFunctions(module, kest_fault_methods) < 0)
        return -1;
#endif
    return PyModule_AddStringConstant(module, "__version__", KEST_RUNTIME_VERSION);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    kest_state *state = state_of_module(module);

    Py_VISIT(state->canonicalization_error);
    Py_VISIT(state->json_error);
    Py_VISIT(state->key_error);
    Py_VISIT(state->passport_error);
    Py_VISIT(state->verification_error);
    Py_VISIT(state->baggage_error);
    Py_VISIT(state->signer_type);
    Py_VISIT(state->pubkey_type);
    Py_VISIT(state->keyring_type);
    Py_VISIT(state->known_type);
    Py_VISIT(state->entry_type);
    Py_VISIT(state->passport_type);
    Py_VISIT(state->stream_type);
    Py_VISIT(state->tree_type);
    Py_VISIT(state->record_keys_type);
    Py_VISIT(state->gate_input_error);
    Py_VISIT(state->context_type);
    Py_VISIT(state->set_type);
    Py_VISIT(state->rates_type);
    Py_VISIT(state->sessions_type);
    Py_VISIT(state->verdict_type);
    Py_VISIT(state->gate_type);
    Py_VISIT(state->gate_geo_type);
    Py_VISIT(state->gate_device_type);
    Py_VISIT(state->gate_permit_type);
    Py_VISIT(state->gate_reason);
    for (int i = 0; i < KEST_GATE_ARGS; i++)
        Py_VISIT(state->gate_args[i]);
    Py_VISIT(state->binascii_decode);
    return 0;
}

static int module_clear(PyObject *module)
{
    kest_state *state = state_of_module(module);

    Py_CLEAR(state->canonicalization_error);
    Py_CLEAR(state->json_error);
    Py_CLEAR(state->key_error);
    Py_CLEAR(state->passport_error);
    Py_CLEAR(state->verification_error);
    Py_CLEAR(state->baggage_error);
    Py_CLEAR(state->signer_type);
    Py_CLEAR(state->pubkey_type);
    Py_CLEAR(state->keyring_type);
    Py_CLEAR(state->known_type);
    Py_CLEAR(state->entry_type);
    Py_CLEAR(state->passport_type);
    Py_CLEAR(state->stream_type);
    Py_CLEAR(state->tree_type);
    Py_CLEAR(state->record_keys_type);
    Py_CLEAR(state->gate_input_error);
    Py_CLEAR(state->context_type);
    Py_CLEAR(state->set_type);
    Py_CLEAR(state->rates_type);
    Py_CLEAR(state->sessions_type);
    Py_CLEAR(state->verdict_type);
    Py_CLEAR(state->gate_type);
    Py_CLEAR(state->gate_geo_type);
    Py_CLEAR(state->gate_device_type);
    Py_CLEAR(state->gate_permit_type);
    Py_CLEAR(state->gate_reason);
    for (int i = 0; i < KEST_GATE_ARGS; i++)
        Py_CLEAR(state->gate_args[i]);
    Py_CLEAR(state->binascii_decode);
    kest_records_free(state);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef kest_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kest._kestcore",
    .m_doc = "The C core of Kest: canonical JSON, hashing, signing, passports, verification, packing.",
    .m_size = sizeof(kest_state),
    .m_methods = kest_text_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__kestcore(void); /* -Wmissing-prototypes */

PyMODINIT_FUNC PyInit__kestcore(void)
{
    return PyModuleDef_Init(&kest_module);
}
