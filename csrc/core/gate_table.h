/* gate_table.h: records under 16-byte keys that are forgotten in the order in which they were last touched.
 *
 * Linear hashing, and records kept dense in pages: a table grows and shrinks by one bucket or record at a time, so no call
 * takes longer because the table is large, and what is removed gives its memory back. Not thread-safe.
 */
#ifndef KEST_GATE_TABLE_H
#define KEST_GATE_TABLE_H

#include "gate_types.h"

#define KEST_TABLE_NONE UINT32_MAX

/* The head of every record; keys are keyed hashes, so any bits of them are a good hash. */
typedef struct kest_gate_record {
    uint8_t key[KEST_GATE_KEY_LEN];
    uint32_t next;         /* in its bucket */
    uint32_t older, newer; /* by last touch */
    uint32_t total;        /* the user's */
} kest_gate_record;

typedef struct kest_gate_table {
    size_t record_size; /* head included */
    uint32_t count, limit;
    uint32_t oldest, newest;
    uint32_t nbuckets;
    uint8_t **pages;
    size_t npages, pages_room;
    uint32_t **segments; /* bucket heads */
    size_t nsegments, segments_room;
} kest_gate_table;

void kest_gate_table_init(kest_gate_table *table, size_t record_size, uint32_t limit);
void kest_gate_table_free(kest_gate_table *table);
/* Pointers to records are good until the next insertion or removal. */
void *kest_gate_table_find(const kest_gate_table *table, const uint8_t key[KEST_GATE_KEY_LEN]);
/* A zeroed record that is now the newest; the key must not be there. KEST_E_LIMIT when the table is full. */
kest_status kest_gate_table_insert(kest_gate_table *table, const uint8_t key[KEST_GATE_KEY_LEN], void *out_record);
void *kest_gate_table_oldest(const kest_gate_table *table); /* or NULL */
void kest_gate_table_touch(kest_gate_table *table, void *record);
void kest_gate_table_remove(kest_gate_table *table, void *record);
size_t kest_gate_table_bytes(const kest_gate_table *table);

#endif
