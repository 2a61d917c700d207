/* tlog_journal.h: frames of the journal in which records become durable before they are in tiles, and the records in them.
 *
 * A frame is one group commit: "KJF1", first index (8 bytes), count (4), length of the body (4), digest of the frame before
 * (32), digest of this one (32), body; integers are big-endian. The digest is SHA-256 over all that stands before it and SHA-256 of the body, so
 * that a frame counts as a whole or not at all, and none can be left out. The body is a piece of an entry bundle
 * (c2sp.org/tlog-tiles): for each record its length (2 bytes) and the record.
 */
#ifndef KEST_TLOG_JOURNAL_H
#define KEST_TLOG_JOURNAL_H

#include "shared.h"
#include "tlog.h"

enum {
    KEST_FRAME_HEAD = 4 + 8 + 4 + 4 + 2 * KEST_HASH_LEN,
    KEST_TAG_LEN = 16 /* of a record in the index: the beginnings of its leaf hash and of the hash of what it is about */
};

typedef struct kest_frame {
    uint64_t first;
    uint32_t count, body_len;
    const uint8_t *before, *digest, *body;
} kest_frame;

/* Writes the head of a frame around a body that already stands at frame + KEST_FRAME_HEAD. */
kest_status kest_frame_seal(uint8_t *frame, uint64_t first, uint32_t count, uint32_t body_len,
                            const uint8_t before[KEST_HASH_LEN]);
/* Reads a frame. KEST_E_LIMIT: it goes beyond `len`; KEST_E_SCHEMA: no frame; KEST_E_SIGNATURE: its digest is wrong. */
kest_status kest_frame_read(const uint8_t *data, size_t len, kest_frame *out);

/* The record at *at of a bundle, which moves on; false at the end and where the bundle is cut off (then *at < len). */
bool kest_bundle_next(const uint8_t *bundle, size_t len, size_t *at, kest_str *record);

/* What the index says of a record: 8 bytes of its leaf hash, 8 of SHA-256 of what it is about (an entry's id, for a key event the
 * principal as JSON writes it), or zeros. `scratch` has KEST_TLOG_MAX_RECORD bytes. The index is a help in finding, never evidence. */
kest_status kest_record_tag(kest_str record, const uint8_t leaf[KEST_HASH_LEN], uint8_t *scratch, uint8_t out[KEST_TAG_LEN]);

#endif
