#include "kest.h"

static const char *const phrases[KEST_E_STATUS_COUNT] = {
    [KEST_OK] = "success",
    [KEST_E_NOMEM] = "out of memory",
    [KEST_E_OVERFLOW] = "a size is too large to be represented",
    [KEST_E_LIMIT] = "a configured limit was reached",
    [KEST_E_CRYPTO] = "the cryptographic library reported a failure",
    [KEST_E_UTF8] = "text is not valid UTF-8",
    [KEST_E_SURROGATE] = "text holds a lone surrogate, which has no UTF-8 form",
    [KEST_E_B64] = "not strict base64url (unpadded, no white space, unused trailing bits zero)",
    [KEST_E_PERCENT] = "not percent-encoded as W3C Baggage asks (section 3.3.1)",
    [KEST_E_JSON] = "JSON syntax error",
    [KEST_E_JSON_DUP] = "a JSON object has the same key twice",
    [KEST_E_JSON_DEPTH] = "JSON is nested too deeply (more than 64 levels)",
    [KEST_E_JSON_TRAIL] = "unexpected data after the JSON value",
    [KEST_E_JSON_NUMBER] = "a JSON number is out of range (integers up to 2^53 - 1 in magnitude, else a finite double)",
    [KEST_E_NAN] = "NaN and infinities have no JSON form",
    [KEST_E_NOT_CANONICAL] = "JSON is not in canonical form (RFC 8785)",
    [KEST_E_JWS_PARTS] = "a compact JWS must have exactly three non-empty parts",
    [KEST_E_JWS_HEADER] = "the JWS header is malformed or has members that are not understood",
    [KEST_E_JWS_ALG] = "the JWS algorithm is not allowed for this key",
    [KEST_E_JWS_CRIT] = "the JWS demands critical extensions, and none are supported",
    [KEST_E_SIGNATURE] = "the signature does not match",
    [KEST_E_KEY] = "no key of the principal is of the kind that the signature is of",
    [KEST_E_KEY_TIME] = "no key of the principal was valid when the entry was made",
    [KEST_E_PRINCIPAL] = "no key is known for the principal",
    [KEST_E_KID] = "the header's kid is not the principal the payload names",
    [KEST_E_SCHEMA] = "the entry does not follow the schema",
    [KEST_E_TRUST_RANGE] = "a trust score is not an integer from 0 to 100",
    [KEST_E_TRUST_RISE] = "trust rises above what the parents allow",
    [KEST_E_TRUST_LABEL] = "the trust label does not agree with the trust score",
    [KEST_E_TRUST_MAX] = "trust is above the maximum of the principal or source",
    [KEST_E_MAY_NOT_SANITISE] = "the principal may not remove taints",
    [KEST_E_TAINTS] = "taints of the parents are missing without having been removed",
    [KEST_E_TAINT_ORDER] = "taints are not sorted or not unique",
    [KEST_E_PARENT_MISSING] = "a parent entry is missing or comes later in the passport",
    [KEST_E_PARENT_DUP] = "an entry names the same parent twice",
    [KEST_E_DUPLICATE] = "the passport holds the same entry twice",
    [KEST_E_TIP] = "the passport's tip is not the one it is bound to",
    [KEST_E_BROKEN] = "the passport holds an entry that could not be read",
    [KEST_E_INFLATE] = "compressed data is damaged or expands beyond the limit",
    [KEST_E_PACK_FORM] = "this passport has no dense form",
};

const char *kest_strerror(kest_status status)
{
    /* Through unsigned, so that a negative value from a careless caller is out of range too. */
    unsigned index = (unsigned)status;

    if (index >= KEST_E_STATUS_COUNT || !phrases[index])
        return "unknown status";
    return phrases[index];
}
