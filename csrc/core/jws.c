#include "jws.h"

#include "b64url.h"
#include "jcs.h"

#include <string.h>

kest_status kest_jws_split(const uint8_t *jws, size_t len, kest_jws_view *out)
{
    const uint8_t *first, *second;

    if (len > KEST_MAX_JWS)
        return KEST_E_LIMIT;
    first = len ? memchr(jws, '.', len) : NULL;
    if (!first)
        return KEST_E_JWS_PARTS;
    second = memchr(first + 1, '.', (size_t)(jws + len - first - 1));
    if (!second || memchr(second + 1, '.', (size_t)(jws + len - second - 1)))
        return KEST_E_JWS_PARTS;
    out->header_len = (size_t)(first - jws);
    out->payload_at = out->header_len + 1;
    out->payload_len = (size_t)(second - first - 1);
    out->sig_at = (size_t)(second - jws) + 1;
    out->sig_len = len - out->sig_at;
    return out->header_len && out->payload_len && out->sig_len ? KEST_OK : KEST_E_JWS_PARTS;
}

static bool x5c_well_formed(const kest_json *x5c)
{
    if (x5c->type != KEST_JSON_ARRAY || x5c->count == 0)
        return false;
    for (const kest_json *cert = x5c->u.child; cert; cert = cert->next)
        if (cert->type != KEST_JSON_STRING || cert->u.str.len == 0)
            return false;
    return true;
}

kest_status kest_jws_header_read(const uint8_t *text, size_t len, const kest_json *root, kest_jws_header *out)
{
    const kest_json *alg, *kid, *x5c;
    kest_status st;

    if (root->type != KEST_JSON_OBJECT)
        return KEST_E_JWS_HEADER;
    if (kest_json_get(root, "crit"))
        return KEST_E_JWS_CRIT;
    alg = kest_json_get(root, "alg");
    kid = kest_json_get(root, "kid");
    x5c = kest_json_get(root, "x5c");
    if (!alg || alg->type != KEST_JSON_STRING)
        return KEST_E_JWS_ALG;
    st = kest_alg_from_name(alg->u.str.data, alg->u.str.len, &out->alg);
    if (st != KEST_OK)
        return st;
    if (!kid || kid->type != KEST_JSON_STRING || kid->u.str.len == 0 || !kest_json_is(kest_json_get(root, "typ"), "JWS"))
        return KEST_E_JWS_HEADER;
    if (root->count != (x5c ? 4U : 3U) || (x5c && (out->alg == KEST_ALG_EDDSA || !x5c_well_formed(x5c))))
        return KEST_E_JWS_HEADER;
    out->kid = (kest_str){kid->u.str.data, kid->u.str.len};
    return kest_jcs_check(text, len, root);
}

kest_status kest_jws_header_write(kest_buf *out, kest_alg alg, const uint8_t *principal, size_t len, const char *typ)
{
    const char *name = kest_alg_name(alg);
    kest_buf json;
    size_t room;

    kest_buf_init(&json);
    kest_buf_lit(&json, "{\"alg\":\"");
    kest_buf_put(&json, name, strlen(name));
    kest_buf_lit(&json, "\",\"kid\":");
    kest_jcs_string(&json, principal, len);
    kest_buf_lit(&json, ",\"typ\":");
    kest_jcs_string(&json, (const uint8_t *)typ, strlen(typ));
    kest_buf_byte(&json, '}');
    room = kest_b64_encoded_len(json.len);
    if (json.status == KEST_OK && kest_buf_room(out, room)) {
        kest_b64_encode(json.data, json.len, out->data + out->len);
        out->len += room;
    }
    if (out->status == KEST_OK)
        out->status = json.status;
    kest_buf_free(&json);
    return out->status;
}
