/* py_tlog.h: what the files about transparency logs share. */
#ifndef KEST_PY_TLOG_H
#define KEST_PY_TLOG_H

#include "state.h"

#include "../core/tlog.h"
#include "../core/tlog_journal.h"
#include "../core/tlog_record.h"

extern PyMethodDef kest_tlog_methods[];
extern PyType_Spec kest_tree_spec, kest_record_keys_spec;

typedef struct RecordKeysObject {
    PyObject_HEAD
    kest_record_keys keys;
} RecordKeysObject;

/* What is wrong with a log, as ValueError; NULL. */
PyObject *kest_tlog_raise(kest_state *state, kest_status st);

PyObject *kest_tlog_frame(PyObject *module, PyObject *args);
PyObject *kest_tlog_frames(PyObject *module, PyObject *args);
PyObject *kest_tlog_leaves(PyObject *module, PyObject *args);
PyObject *kest_tlog_check(PyObject *module, PyObject *args);
PyObject *kest_py_record_check(PyObject *module, PyObject *args);
PyObject *kest_py_status_text(PyObject *module, PyObject *arg);

#endif
