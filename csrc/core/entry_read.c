#include "alloc.h"
#include "b64url.h"
#include "entry.h"
#include "jcs.h"
#include "uuid7.h"

#include <string.h>

/* A value of one character takes 64 bytes in the tree: bound it by count, not by the length of the text. */
enum { MAX_HEADER_NODES = 64, MAX_NODES = 65536 };

static bool is_string(const kest_json *v)
{
    return v && v->type == KEST_JSON_STRING;
}

static bool is_empty_object(const kest_json *v)
{
    return v && v->type == KEST_JSON_OBJECT && v->count == 0;
}

static bool all_strings(const kest_json *list)
{
    if (!list || list->type != KEST_JSON_ARRAY)
        return false;
    for (const kest_json *v = list->u.child; v; v = v->next)
        if (v->type != KEST_JSON_STRING)
            return false;
    return true;
}

static kest_str view(const kest_json *v)
{
    return (kest_str){v->u.str.data, v->u.str.len};
}

static bool runtime_well_formed(const kest_json *v)
{
    return v && v->type == KEST_JSON_OBJECT && v->count == 2 && is_string(kest_json_get(v, "name")) &&
           is_string(kest_json_get(v, "version"));
}

static bool deviation_well_formed(const kest_json *v)
{
    return v->type == KEST_JSON_OBJECT && v->count == 4 && is_string(kest_json_get(v, "policy")) &&
           is_string(kest_json_get(v, "tier")) && is_string(kest_json_get(v, "reason")) &&
           is_string(kest_json_get(v, "approver"));
}

static bool policy_context_well_formed(const kest_json *v)
{
    const kest_json *deviations;

    if (!v || v->type != KEST_JSON_OBJECT || v->count != 5 || !all_strings(kest_json_get(v, "enterprise_policies")) ||
        !all_strings(kest_json_get(v, "platform_policies")) || !all_strings(kest_json_get(v, "app_policies")) ||
        !all_strings(kest_json_get(v, "function_policies")))
        return false;
    deviations = kest_json_get(v, "deviations");
    if (!deviations || deviations->type != KEST_JSON_ARRAY)
        return false;
    for (const kest_json *d = deviations->u.child; d; d = d->next)
        if (!deviation_well_formed(d))
            return false;
    return true;
}

/* "" or 64 lower-case hexadecimal digits. */
static bool hash_text(const kest_json *v)
{
    uint8_t raw[KEST_HASH_LEN];

    return is_string(v) && (v->u.str.len == 0 || (v->u.str.len == KEST_HASH_HEX &&
                                                  kest_unhex(v->u.str.data, KEST_HASH_LEN, raw) == KEST_OK));
}

static bool fixed_members_right(const kest_json *root)
{
    const kest_json *metadata = kest_json_get(root, "metadata"), *class = kest_json_get(root, "classification");

    return kest_json_is(kest_json_get(root, "schema_version"), KEST_SCHEMA_VERSION) &&
           runtime_well_formed(kest_json_get(root, "runtime")) && is_empty_object(kest_json_get(root, "environment")) &&
           is_empty_object(kest_json_get(root, "otel_context")) && metadata && metadata->type == KEST_JSON_NULL &&
           kest_json_is(kest_json_get(root, "content_hash"), "") && hash_text(kest_json_get(root, "input_hash")) &&
           is_string(class) && kest_classification_known(class->u.str.data, class->u.str.len) &&
           policy_context_well_formed(kest_json_get(root, "policy_context"));
}

static kest_status read_labels(const kest_json *labels, kest_parsed *out, kest_str *override)
{
    if (!labels || labels->type != KEST_JSON_OBJECT)
        return KEST_E_SCHEMA;
    for (const kest_json *v = labels->u.child; v; v = v->next)
        if (v->type != KEST_JSON_STRING)
            return KEST_E_SCHEMA;
    {
        const kest_json *principal = kest_json_get(labels, KEST_LABEL_PRINCIPAL);
        const kest_json *text = kest_json_get(labels, KEST_LABEL_OVERRIDE);

        if (!principal || principal->u.str.len == 0)
            return KEST_E_SCHEMA;
        out->principal = view(principal);
        out->has_override = text != NULL;
        if (text)
            *override = view(text);
    }
    return KEST_OK;
}

static kest_status read_parents(const kest_json *list, kest_parsed *out)
{
    size_t n = 0;

    if (!all_strings(list) || list->count == 0 || list->count > KEST_MAX_PARENTS)
        return KEST_E_SCHEMA;
    if (list->count == 1 && kest_json_is(list->u.child, "0"))
        return KEST_OK;
    out->parents = out->parents_room;
    if (list->count > KEST_CLAIMS_PARENTS && !(out->parents = kest_calloc(list->count, KEST_HASH_LEN)))
        return KEST_E_NOMEM;
    for (const kest_json *v = list->u.child; v; v = v->next) {
        uint8_t *hash = out->parents + n * KEST_HASH_LEN;

        if (v->u.str.len != KEST_HASH_HEX || kest_unhex(v->u.str.data, KEST_HASH_LEN, hash) != KEST_OK)
            return KEST_E_SCHEMA;
        for (size_t i = 0; i < n; i++)
            if (memcmp(out->parents + i * KEST_HASH_LEN, hash, KEST_HASH_LEN) == 0)
                return KEST_E_PARENT_DUP;
        n++;
    }
    out->nparents = n;
    return KEST_OK;
}

/* The three taint lists side by side in one array. */
static kest_status read_taints(const kest_json *root, kest_parsed *out)
{
    const kest_json *lists[3] = {kest_json_get(root, "added_taints"), kest_json_get(root, "removed_taints"),
                                 kest_json_get(root, "taints")};
    kest_str **starts[3] = {&out->added, &out->removed, &out->taints}, *at = out->room;
    size_t *counts[3] = {&out->nadded, &out->nremoved, &out->ntaints}, total = 0;

    for (int i = 0; i < 3; i++) {
        if (!all_strings(lists[i]))
            return KEST_E_SCHEMA;
        total += lists[i]->count;
    }
    if (total > KEST_CLAIMS_ROOM && !(at = kest_calloc(total, sizeof *at)))
        return KEST_E_NOMEM;
    out->added = at; /* before any error: it is what kest_parsed_free releases */
    for (int i = 0; i < 3; i++) {
        *starts[i] = at;
        for (const kest_json *v = lists[i]->u.child; v; v = v->next)
            *at++ = view(v);
        *counts[i] = lists[i]->count;
    }
    for (int i = 0; i < 3; i++)
        if (kest_taints_check(*starts[i], *counts[i]) != KEST_OK)
            return KEST_E_TAINT_ORDER;
    return KEST_OK;
}

static kest_status read_scalars(const kest_json *root, kest_parsed *out, kest_str override)
{
    const kest_json *trust = kest_json_get(root, "trust_score"), *time = kest_json_get(root, "timestamp_ms");
    const kest_json *id = kest_json_get(root, "entry_id"), *operation = kest_json_get(root, "operation");
    kest_uuid7_parts parts;

    if (!time || time->type != KEST_JSON_INT || time->u.i < 0 || !is_string(id) ||
        !kest_uuid7_split(id->u.str.data, id->u.str.len, &parts) || !is_string(operation) || !operation->u.str.len)
        return KEST_E_SCHEMA;
    if (!trust || trust->type != KEST_JSON_INT || trust->u.i < 0 || trust->u.i > KEST_MAX_TRUST)
        return KEST_E_TRUST_RANGE;
    out->timestamp_ms = time->u.i;
    out->entry_id = view(id);
    out->trust = (uint8_t)trust->u.i;
    /* Canonical text: the token of trust_score is the only spelling of its value. */
    out->override_exact = override.data && override.len == trust->end - trust->start &&
                          memcmp(override.data, out->payload.data + trust->start, override.len) == 0;
    return KEST_OK;
}

static kest_status read_payload(kest_parsed *out)
{
    const kest_json *root = out->doc.root;
    kest_str override = {NULL, 0};
    kest_status st;

    if (root->type != KEST_JSON_OBJECT || root->count != 18 || !fixed_members_right(root))
        return KEST_E_SCHEMA;
    if ((st = read_labels(kest_json_get(root, "labels"), out, &override)) != KEST_OK ||
        (st = read_parents(kest_json_get(root, "parent_ids"), out)) != KEST_OK ||
        (st = read_taints(root, out)) != KEST_OK)
        return st;
    return read_scalars(root, out, override);
}

static kest_status decode_parts(const uint8_t *jws, kest_parsed *out, kest_str *header)
{
    const kest_jws_view *v = &out->view;
    const size_t hlen = kest_b64_decoded_len(v->header_len), plen = kest_b64_decoded_len(v->payload_len);
    kest_status st;

    out->bytes = kest_malloc(hlen + plen + kest_b64_decoded_len(v->sig_len)); /* sums below the JWS's own length */
    if (!out->bytes)
        return KEST_E_NOMEM;
    *header = (kest_str){out->bytes, hlen};
    out->payload = (kest_str){out->bytes + hlen, plen};
    out->signature = (kest_str){out->bytes + hlen + plen, kest_b64_decoded_len(v->sig_len)};
    if ((st = kest_b64_decode(jws, v->header_len, out->bytes)) != KEST_OK ||
        (st = kest_b64_decode(jws + v->payload_at, v->payload_len, out->bytes + hlen)) != KEST_OK)
        return st;
    return kest_b64_decode(jws + v->sig_at, v->sig_len, out->bytes + hlen + plen);
}

kest_status kest_parsed_read(const uint8_t *jws, size_t len, kest_parsed *out)
{
    kest_str header;
    kest_status st;

    memset(out, 0, offsetof(kest_parsed, room));
    if ((st = kest_jws_split(jws, len, &out->view)) != KEST_OK || (st = decode_parts(jws, out, &header)) != KEST_OK ||
        (st = kest_json_parse(header.data, header.len, MAX_HEADER_NODES, &out->header_doc)) != KEST_OK ||
        (st = kest_jws_header_read(header.data, header.len, out->header_doc.root, &out->header)) != KEST_OK ||
        (st = kest_json_parse(out->payload.data, out->payload.len, MAX_NODES, &out->doc)) != KEST_OK ||
        (st = kest_jcs_check(out->payload.data, out->payload.len, out->doc.root)) != KEST_OK ||
        (st = read_payload(out)) != KEST_OK)
        goto done;
    if (kest_str_compare(out->header.kid, out->principal) != 0)
        st = KEST_E_KID;
done:
    if (st != KEST_OK)
        kest_parsed_free(out);
    return st;
}

void kest_parsed_free(kest_parsed *parsed)
{
    kest_json_free(&parsed->doc);
    kest_json_free(&parsed->header_doc);
    kest_free(parsed->bytes);
    if (parsed->added && parsed->added != parsed->room)
        kest_free(parsed->added);
    if (parsed->parents && parsed->parents != parsed->parents_room)
        kest_free(parsed->parents);
    memset(parsed, 0, offsetof(kest_parsed, room));
}

kest_status kest_payload_check(const uint8_t *payload, size_t len)
{
    kest_parsed parsed;
    kest_status st;

    memset(&parsed, 0, offsetof(kest_parsed, room));
    parsed.payload = (kest_str){payload, len};
    st = kest_json_parse(payload, len, MAX_NODES, &parsed.doc);
    if (st == KEST_OK)
        st = read_payload(&parsed);
    kest_parsed_free(&parsed);
    return st;
}
