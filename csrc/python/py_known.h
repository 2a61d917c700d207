/* py_known.h: reading passports that may begin with known entries. */
#ifndef KEST_PY_KNOWN_H
#define KEST_PY_KNOWN_H

#include "state.h"

/* How baggage carries a passport; a claim check is none of these. */
typedef enum kest_form { KEST_FORM_NONE, KEST_FORM_TEXT, KEST_FORM_Z, KEST_FORM_DENSE } kest_form;

/* What may come out, as BaggageManager states it. */
typedef struct kest_known_caps {
    size_t bytes, entries;
} kest_known_caps;

/* The form that a baggage key stands for. */
kest_form kest_form_of(const char *key, size_t len);
/* A passport from its decoded baggage value; BaggageError. `known` is a KnownEntries. */
PyObject *kest_known_unpack(PyObject *known, kest_form form, kest_str text, kest_known_caps limit);

/* py_arrive.c */
PyObject *kest_known_arrive(PyObject *self, PyObject *args);

#endif
