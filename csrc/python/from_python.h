/* from_python.h: the parts of the walk over Python values that the hashing of arguments needs as well. */
#ifndef KEST_FROM_PYTHON_H
#define KEST_FROM_PYTHON_H

#include "state.h"

enum { KEST_MEMBERS_ROOM = 24 };

/* Strong references: a fallback may run code that changes the dict. */
typedef struct kest_member {
    PyObject *key, *value;
} kest_member;

typedef struct kest_members {
    kest_member *items;
    size_t count;
    kest_member *room; /* the caller's, when it was large enough */
} kest_members;

/* The members of a dict whose keys are str, in canonical order. -1 with an exception set; drop in either case. */
int kest_members_take(PyObject *dict, kest_member *room, size_t nroom, kest_members *out);
void kest_members_drop(kest_members *members);
/* --- py_record.c: dataclasses and pydantic models --- */
typedef struct kest_record {
    PyObject *type_name;
    bool pydantic;
    kest_members fields;
    kest_member room[KEST_MEMBERS_ROOM];
} kest_record;

/* 1 and the fields of `value` (drop them) if its class is known for a record; 0: ask Python; -1 with an exception set. */
int kest_record_take(kest_state *state, PyObject *value, kest_record *record);
void kest_record_drop(kest_record *record);

/* Like kest_write_python, but different for values of different types; for digests only. */
int kest_write_typed(kest_state *state, kest_buf *out, PyObject *value);
/* A quoted str. */
int kest_write_name(kest_state *state, kest_buf *out, PyObject *name);

#endif
