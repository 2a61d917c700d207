/* entry.h: the payload of an entry (Kest 0.3.0): written in canonical form, and read back strictly. */
#ifndef KEST_ENTRY_H
#define KEST_ENTRY_H

#include "buf.h"
#include "json_read.h"
#include "jws.h"
#include "shared.h"

#define KEST_LABEL_PRINCIPAL "principal"
#define KEST_LABEL_OVERRIDE "kest.trust_override"
#define KEST_LABEL_CONTINUES "kest.continues"

typedef struct kest_label {
    kest_str key, value;
} kest_label;

/* What an entry says. Every string is well-formed UTF-8; taints are checked lists (kest_taints_check). */
typedef struct kest_entry {
    kest_str operation, classification, input_hash;
    kest_str entry_id; /* 36 characters */
    int64_t timestamp_ms;
    uint8_t trust;
    const uint8_t *parents; /* nparents hashes of KEST_HASH_LEN bytes; none: a root */
    size_t nparents;
    kest_label *labels; /* any order, the principal among them; sorted in place by kest_entry_write */
    size_t nlabels;
    const kest_str *added, *removed, *taints;
    size_t nadded, nremoved, ntaints;
    kest_str policy_context; /* canonical JSON */
} kest_entry;

/* Appends the canonical payload. Labels must have distinct keys. Check out->status. */
void kest_entry_write(kest_buf *out, kest_entry *entry);

/* True for one of system, data, critic, snapshot, sanitizer. */
bool kest_classification_known(const uint8_t *text, size_t len);

enum { KEST_CLAIMS_ROOM = 24, KEST_CLAIMS_PARENTS = 2 };

/* An entry as it was received, checked as far as it can be on its own: everything but signature and links.
 * Views point into `bytes` and the trees; free with kest_parsed_free. Not movable (it may point into itself). */
typedef struct kest_parsed {
    kest_jws_view view;
    kest_jws_header header;
    uint8_t *bytes; /* decoded header, payload and signature */
    kest_str payload, signature;
    kest_json_doc header_doc, doc;
    kest_str principal, entry_id;
    int64_t timestamp_ms;
    uint8_t trust;
    bool has_override;   /* the label stands there */
    bool override_exact; /* and says what trust_score says */
    kest_str *added, *removed, *taints;
    size_t nadded, nremoved, ntaints;
    uint8_t *parents; /* nparents * KEST_HASH_LEN */
    size_t nparents;
    kest_str room[KEST_CLAIMS_ROOM];
    uint8_t parents_room[KEST_CLAIMS_PARENTS * KEST_HASH_LEN];
} kest_parsed;

/* On failure nothing needs freeing. */
kest_status kest_parsed_read(const uint8_t *jws, size_t len, kest_parsed *out);
void kest_parsed_free(kest_parsed *parsed);
/* Whether kest_parsed_read would accept an entry with this payload, which kest_entry_write has just written. */
kest_status kest_payload_check(const uint8_t *payload, size_t len);

#endif
