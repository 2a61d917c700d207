/* tlog_record.h: what a record of an audit log says, and whose signature it carries. */
#ifndef KEST_TLOG_RECORD_H
#define KEST_TLOG_RECORD_H

#include "crypto.h"
#include "shared.h"
#include "tlog.h"

typedef enum kest_record_kind {
    KEST_RECORD_UNREADABLE = 0,
    KEST_RECORD_ENTRY,    /* an entry as it stands in passports: typ JWS */
    KEST_RECORD_INTENT,   /* an entry whose personal fields are commitments: typ kest-intent+jws */
    KEST_RECORD_OUTCOME,
    KEST_RECORD_DENIAL,
    KEST_RECORD_VERDICT,
    KEST_RECORD_KEY,
    KEST_RECORD_LOG,      /* of the log itself: opened, closed, erased */
    KEST_RECORD_LARGE,    /* not signed: names a record kept beside the log by its hash */
    KEST_RECORD_KINDS
} kest_record_kind;

/* Principals and their keys, in the order in which they were given. */
typedef struct kest_record_key {
    kest_text *principal;
    kest_pubkey *key;
} kest_record_key;
typedef struct kest_record_keys {
    kest_record_key *keys; /* ascending by principal */
    uint16_t *number;      /* of keys[i], as given */
    size_t count;
} kest_record_keys;

enum { KEST_MOST_RECORD_KEYS = 32767 };

/* Gives references; *out is to be cleared with kest_record_keys_clear, after a failure too. */
kest_status kest_record_keys_set(kest_record_keys *out, kest_text *const *principals, kest_pubkey *const *keys, size_t count);
void kest_record_keys_clear(kest_record_keys *keys);

/* Plain bytes, for arrays that other languages read. `status`: KEST_OK, KEST_E_PRINCIPAL (no key is known),
 * KEST_E_SIGNATURE (none of the known ones fits), or why it cannot be read. */
typedef struct kest_record_facts {
    uint8_t kind;
    uint8_t status;
    int16_t key; /* which of the keys signed it; -1: none */
    uint32_t length;
    int64_t timestamp_ms;
    uint8_t link[KEST_HASH_LEN]; /* SHA-256 of an entry; what an intent or outcome says of it; of a large record */
} kest_record_facts;

/* Never fails but for want of memory, which it notes as the status. */
void kest_record_check(kest_str record, const kest_record_keys *keys, kest_record_facts *out);

#endif
