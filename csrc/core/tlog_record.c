#include "tlog_record.h"

#include "alloc.h"
#include "b64url.h"
#include "entry.h"
#include "jcs.h"
#include "json_read.h"
#include "jws.h"
#include "scan.h"

#include <stdlib.h>
#include <string.h>

/* --- keys --- */

typedef struct numbered {
    kest_record_key key;
    uint16_t number;
} numbered;

static int by_principal(const void *a, const void *b)
{
    const numbered *x = a, *y = b;
    const int order = kest_str_compare((kest_str){x->key.principal->data, x->key.principal->len},
                                       (kest_str){y->key.principal->data, y->key.principal->len});

    return order ? order : (x->number > y->number) - (x->number < y->number);
}

kest_status kest_record_keys_set(kest_record_keys *out, kest_text *const *principals, kest_pubkey *const *keys, size_t count)
{
    numbered *sorted = NULL;

    memset(out, 0, sizeof *out);
    if (count > KEST_MOST_RECORD_KEYS)
        return KEST_E_LIMIT;
    sorted = kest_calloc(count, sizeof *sorted);
    out->keys = kest_calloc(count, sizeof *out->keys);
    out->number = kest_calloc(count, sizeof *out->number);
    if (!sorted || !out->keys || !out->number) {
        kest_free(sorted);
        return KEST_E_NOMEM;
    }
    for (size_t i = 0; i < count; i++)
        sorted[i] = (numbered){{principals[i], keys[i]}, (uint16_t)i};
    if (count)
        qsort(sorted, count, sizeof *sorted, by_principal);
    for (size_t i = 0; i < count; i++) {
        out->keys[i] = (kest_record_key){kest_text_ref(sorted[i].key.principal), kest_pubkey_ref(sorted[i].key.key)};
        out->number[i] = sorted[i].number;
    }
    out->count = count;
    kest_free(sorted);
    return KEST_OK;
}

void kest_record_keys_clear(kest_record_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++) {
        kest_text_unref(keys->keys[i].principal);
        kest_pubkey_unref(keys->keys[i].key);
    }
    kest_free(keys->keys);
    kest_free(keys->number);
    memset(keys, 0, sizeof *keys);
}

/* The first key of the principal, or count. */
static size_t first_of(const kest_record_keys *keys, kest_str principal)
{
    size_t lo = 0, hi = keys->count;

    while (lo < hi) {
        const size_t middle = lo + (hi - lo) / 2;
        const kest_text *name = keys->keys[middle].principal;

        if (kest_str_compare((kest_str){name->data, name->len}, principal) < 0)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

static kest_status find_key(const kest_record_keys *keys, kest_str principal, kest_alg alg, kest_str signed_text, kest_str sig,
                            int16_t *key)
{
    kest_status st = KEST_E_PRINCIPAL;

    for (size_t i = first_of(keys, principal); i < keys->count; i++) {
        if (!kest_text_is(keys->keys[i].principal, principal.data, principal.len))
            break;
        st = KEST_E_SIGNATURE;
        /* The algorithm is the key's, never the header's choice. */
        if (kest_pubkey_alg(keys->keys[i].key) != alg)
            continue;
        st = kest_pubkey_verify(keys->keys[i].key, signed_text.data, signed_text.len, sig.data, sig.len);
        if (st != KEST_E_SIGNATURE) {
            *key = (int16_t)(st == KEST_OK ? keys->number[i] : -1);
            break;
        }
    }
    return st;
}

/* --- records --- */

static const struct {
    const char *typ, *record;
    kest_record_kind kind;
} kinds[] = {
    {"kest-intent+jws", "intent", KEST_RECORD_INTENT},    {"kest-outcome+jws", "outcome", KEST_RECORD_OUTCOME},
    {"kest-denial+jws", "denial", KEST_RECORD_DENIAL},    {"kest-verdict+jws", "verdict", KEST_RECORD_VERDICT},
    {"kest-key+jws", "key", KEST_RECORD_KEY},             {"kest-log+jws", "log", KEST_RECORD_LOG},
};

static kest_status read_large(kest_str record, kest_record_facts *out)
{
    kest_json_doc doc = {0};
    const kest_json *hash, *size;
    kest_status st = kest_json_parse(record.data, record.len, 16, &doc);

    if (st != KEST_OK)
        return st;
    hash = doc.root->type == KEST_JSON_OBJECT ? kest_json_get(doc.root, "sha256") : NULL;
    size = hash ? kest_json_get(doc.root, "size") : NULL;
    st = KEST_E_SCHEMA;
    if (size && doc.root->count == 3 && kest_json_is(kest_json_get(doc.root, "kest"), "large") && hash->type == KEST_JSON_STRING &&
        hash->u.str.len == KEST_HASH_HEX && size->type == KEST_JSON_INT && size->u.i > KEST_TLOG_MAX_RECORD &&
        kest_unhex(hash->u.str.data, KEST_HASH_LEN, out->link) == KEST_OK && kest_jcs_check(record.data, record.len, doc.root) == KEST_OK) {
        out->kind = KEST_RECORD_LARGE;
        st = KEST_OK;
    }
    kest_json_free(&doc);
    return st;
}

/* An entry, which has a reader of its own. */
static kest_status read_entry(kest_str record, const kest_record_keys *keys, kest_record_facts *out)
{
    kest_parsed parsed;
    kest_status st = kest_parsed_read(record.data, record.len, &parsed);

    if (st != KEST_OK)
        return st;
    out->kind = KEST_RECORD_ENTRY;
    out->timestamp_ms = parsed.timestamp_ms;
    st = kest_sha256(record.data, record.len, out->link);
    if (st == KEST_OK)
        st = find_key(keys, parsed.principal, parsed.header.alg, (kest_str){record.data, parsed.view.sig_at - 1}, parsed.signature,
                      &out->key);
    kest_parsed_free(&parsed);
    return st;
}

enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* {"alg", "kid", "typ"}, with x5c where the key comes with a chain, and nothing else; canonical. A signer elsewhere that
 * writes headers of its own says "JWS" of everything (*kind is KINDS then): the payload tells. */
static kest_status read_header(kest_str text, const kest_json *root, kest_alg *alg, kest_str *kid, size_t *kind)
{
    const kest_json *a, *k, *t;
    kest_status st;

    if (root->type != KEST_JSON_OBJECT)
        return KEST_E_JWS_HEADER;
    a = kest_json_get(root, "alg");
    k = kest_json_get(root, "kid");
    t = kest_json_get(root, "typ");
    if (!a || !k || !t || a->type != KEST_JSON_STRING || k->type != KEST_JSON_STRING || !k->u.str.len)
        return KEST_E_JWS_HEADER;
    if ((st = kest_alg_from_name(a->u.str.data, a->u.str.len, alg)) != KEST_OK)
        return st;
    if (root->count != (kest_json_get(root, "x5c") && *alg != KEST_ALG_EDDSA ? 4U : 3U))
        return KEST_E_JWS_HEADER;
    for (*kind = 0; *kind < KINDS; ++*kind)
        if (kest_json_is(t, kinds[*kind].typ))
            break;
    if (*kind == KINDS && !kest_json_is(t, "JWS"))
        return KEST_E_JWS_HEADER;
    *kid = (kest_str){k->u.str.data, k->u.str.len};
    return kest_jcs_check(text.data, text.len, root);
}

static kest_status read_payload(kest_str text, const kest_json *root, size_t *kind, kest_str kid, kest_record_facts *out)
{
    const kest_json *time, *link, *principal, *record;

    record = root->type == KEST_JSON_OBJECT ? kest_json_get(root, "record") : NULL;
    for (size_t i = 0; *kind == KINDS && i < KINDS; i++)
        if (kest_json_is(record, kinds[i].record))
            *kind = i;
    if (*kind == KINDS || !kest_json_is(record, kinds[*kind].record))
        return KEST_E_SCHEMA;
    time = kest_json_get(root, "timestamp_ms");
    link = kest_json_get(root, "entry_hash");
    /* Of a key event, the member names whose key it is about, not who says so. */
    principal = kinds[*kind].kind == KEST_RECORD_KEY ? NULL : kest_json_get(root, "principal");
    if (!time || time->type != KEST_JSON_INT)
        return KEST_E_SCHEMA;
    if (principal && (principal->type != KEST_JSON_STRING || principal->u.str.len != kid.len ||
                      memcmp(principal->u.str.data, kid.data, kid.len) != 0))
        return KEST_E_KID;
    if ((kinds[*kind].kind == KEST_RECORD_OUTCOME || kinds[*kind].kind == KEST_RECORD_INTENT) &&
        (!link || link->type != KEST_JSON_STRING || link->u.str.len != KEST_HASH_HEX ||
         kest_unhex(link->u.str.data, KEST_HASH_LEN, out->link) != KEST_OK))
        return KEST_E_SCHEMA;
    out->timestamp_ms = time->u.i;
    return kest_jcs_check(text.data, text.len, root);
}

/* The three parts decoded, one after the other. */
typedef struct parts {
    kest_str header, payload, sig;
    kest_json_doc header_doc, payload_doc;
} parts;

static kest_status decode(kest_str record, const kest_jws_view *view, uint8_t *room, parts *out)
{
    kest_status st;

    out->header = (kest_str){room, kest_b64_decoded_len(view->header_len)};
    out->payload = (kest_str){room + out->header.len, kest_b64_decoded_len(view->payload_len)};
    out->sig = (kest_str){room + out->header.len + out->payload.len, kest_b64_decoded_len(view->sig_len)};
    if ((st = kest_b64_decode(record.data, view->header_len, room)) != KEST_OK ||
        (st = kest_b64_decode(record.data + view->payload_at, view->payload_len, room + out->header.len)) != KEST_OK ||
        (st = kest_b64_decode(record.data + view->sig_at, view->sig_len, room + out->header.len + out->payload.len)) != KEST_OK)
        return st;
    st = kest_json_parse(out->header.data, out->header.len, 64, &out->header_doc);
    return st == KEST_OK ? kest_json_parse(out->payload.data, out->payload.len, 0, &out->payload_doc) : st;
}

static kest_status read_other(kest_str record, const kest_jws_view *view, const kest_record_keys *keys, kest_record_facts *out)
{
    uint8_t *room = kest_malloc(record.len);
    parts p = {0};
    kest_alg alg = KEST_ALG_EDDSA;
    kest_str kid = {NULL, 0};
    size_t kind = 0;
    kest_status st = room ? decode(record, view, room, &p) : KEST_E_NOMEM;

    if (st == KEST_OK)
        st = read_header(p.header, p.header_doc.root, &alg, &kid, &kind);
    if (st == KEST_OK)
        st = read_payload(p.payload, p.payload_doc.root, &kind, kid, out);
    if (st == KEST_OK) {
        out->kind = (uint8_t)kinds[kind].kind;
        st = find_key(keys, kid, alg, (kest_str){record.data, view->sig_at - 1}, p.sig, &out->key);
    }
    kest_json_free(&p.header_doc);
    kest_json_free(&p.payload_doc);
    kest_free(room);
    return st;
}

/* Entries are told by their header, which ends in "typ":"JWS"} or has x5c, without decoding the rest twice. */
static bool is_entry(kest_str record, const kest_jws_view *view)
{
    static const char typ[] = "\"typ\":\"JWS\"";
    uint8_t head[4096];
    const size_t len = kest_b64_decoded_len(view->header_len);

    if (len > sizeof head) /* only a chain of certificates makes a header so long */
        return true;
    return kest_b64_decode(record.data, view->header_len, head) == KEST_OK && kest_find(head, len, typ, sizeof typ - 1) != NULL;
}

void kest_record_check(kest_str record, const kest_record_keys *keys, kest_record_facts *out)
{
    kest_jws_view view;
    kest_status st;

    memset(out, 0, sizeof *out);
    out->key = -1;
    out->length = (uint32_t)record.len;
    if (record.len && record.data[0] == '{') {
        st = read_large(record, out);
    } else if ((st = kest_jws_split(record.data, record.len, &view)) == KEST_OK) {
        const bool entry = is_entry(record, &view);

        st = entry ? read_entry(record, keys, out) : KEST_E_SCHEMA;
        if (st == KEST_E_SCHEMA)
            st = read_other(record, &view, keys, out);
    }
    out->status = (uint8_t)st;
}
