#include "tlog_journal.h"

#include "alloc.h"
#include "b64url.h"
#include "crypto.h"
#include "scan.h"

#include <string.h>

static const uint8_t MAGIC[] = {'K', 'J', 'F', '1'};

static void put_be(uint8_t *out, uint64_t value, unsigned bytes)
{
    while (bytes--) {
        out[bytes] = (uint8_t)value;
        value >>= 8;
    }
}

static uint64_t get_be(const uint8_t *in, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | in[i];
    return value;
}

enum { AT_FIRST = 4, AT_COUNT = 12, AT_LEN = 16, AT_BEFORE = 20, AT_DIGEST = 52 };

/* SHA-256(head up to the digest || SHA-256(body)): one pass, no copy of the body. */
static kest_status frame_digest(const uint8_t *head, const uint8_t *body, size_t len, uint8_t out[KEST_HASH_LEN])
{
    uint8_t both[AT_DIGEST + KEST_HASH_LEN];
    kest_status st;

    memcpy(both, head, AT_DIGEST);
    st = kest_sha256(body, len, both + AT_DIGEST);
    return st == KEST_OK ? kest_sha256(both, sizeof both, out) : st;
}

kest_status kest_frame_seal(uint8_t *frame, uint64_t first, uint32_t count, uint32_t body_len,
                            const uint8_t before[KEST_HASH_LEN])
{
    memcpy(frame, MAGIC, sizeof MAGIC);
    put_be(frame + AT_FIRST, first, 8);
    put_be(frame + AT_COUNT, count, 4);
    put_be(frame + AT_LEN, body_len, 4);
    memcpy(frame + AT_BEFORE, before, KEST_HASH_LEN);
    return frame_digest(frame, frame + KEST_FRAME_HEAD, body_len, frame + AT_DIGEST);
}

kest_status kest_frame_read(const uint8_t *data, size_t len, kest_frame *out)
{
    uint8_t digest[KEST_HASH_LEN];
    kest_status st;

    if (len < KEST_FRAME_HEAD)
        return len < sizeof MAGIC || memcmp(data, MAGIC, sizeof MAGIC) == 0 ? KEST_E_LIMIT : KEST_E_SCHEMA;
    if (memcmp(data, MAGIC, sizeof MAGIC) != 0)
        return KEST_E_SCHEMA;
    out->first = get_be(data + AT_FIRST, 8);
    out->count = (uint32_t)get_be(data + AT_COUNT, 4);
    out->body_len = (uint32_t)get_be(data + AT_LEN, 4);
    out->before = data + AT_BEFORE;
    out->digest = data + AT_DIGEST;
    out->body = data + KEST_FRAME_HEAD;
    if (out->body_len > len - KEST_FRAME_HEAD)
        return KEST_E_LIMIT;
    st = frame_digest(data, out->body, out->body_len, digest);
    if (st != KEST_OK)
        return st;
    return memcmp(digest, out->digest, sizeof digest) == 0 ? KEST_OK : KEST_E_SIGNATURE;
}

bool kest_bundle_next(const uint8_t *bundle, size_t len, size_t *at, kest_str *record)
{
    size_t size;

    if (len - *at < 2)
        return false;
    size = (size_t)bundle[*at] << 8 | bundle[*at + 1];
    if (len - *at - 2 < size)
        return false;
    *record = (kest_str){bundle + *at + 2, size};
    *at += 2 + size;
    return true;
}

/* What stands in the string that is the value of `name` (with its quotes and colon) in canonical JSON: as it is written, escapes
 * and all. Inside another string the quotes of the name would be escaped. False when there is none. */
static bool text_in(kest_str json, const char *name, kest_str *out)
{
    const uint8_t *at = kest_find(json.data, json.len, name, strlen(name)), *const end = json.data + json.len;

    if (!at)
        return false;
    at += strlen(name);
    out->data = at;
    while (at < end && *at != '"')
        at += *at == '\\' ? 2 : 1;
    out->len = (size_t)(at - out->data);
    return at < end;
}

kest_status kest_record_tag(kest_str record, const uint8_t leaf[KEST_HASH_LEN], uint8_t *scratch, uint8_t out[KEST_TAG_LEN])
{
    const uint8_t *dot = record.len ? memchr(record.data, '.', record.len) : NULL, *end;
    kest_str name = {NULL, 0};
    uint8_t hash[KEST_HASH_LEN];
    kest_status st = KEST_OK;

    memcpy(out, leaf, 8);
    memset(out + 8, 0, 8);
    end = dot ? memchr(dot + 1, '.', (size_t)(record.data + record.len - dot - 1)) : NULL;
    if (end) {
        const size_t text = (size_t)(end - dot - 1);

        if (kest_b64_decode(dot + 1, text, scratch) == KEST_OK) {
            const kest_str json = {scratch, kest_b64_decoded_len(text)};

            if (!text_in(json, "\"entry_id\":\"", &name) && !(kest_find(json.data, json.len, "\"record\":\"key\"", 14) && text_in(json, "\"principal\":\"", &name)))
                name.data = NULL;
        }
    }
    if (name.data) {
        st = kest_sha256(name.data, name.len, hash);
        memcpy(out + 8, hash, 8);
    }
    return st;
}
