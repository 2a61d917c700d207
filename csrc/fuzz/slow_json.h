/* slow_json.h: which texts the strict reader accepts, said a second time, slowly and without its code: RFC 8259, no duplicate
 * keys, at most KEST_MAX_DEPTH containers, no lone surrogates, integers within 2^53 - 1, no number beyond a double. */
#ifndef KEST_SLOW_JSON_H
#define KEST_SLOW_JSON_H

#include "fuzz.h"

#include <ctype.h>
#include <math.h>

typedef struct slow {
    const uint8_t *text;
    size_t len, at;
} slow;

/* Unescaped text of one key. */
typedef struct slow_key {
    uint8_t *data;
    size_t len;
} slow_key;

static inline int slow_peek(const slow *s)
{
    return s->at < s->len ? s->text[s->at] : -1;
}

static inline void slow_space(slow *s)
{
    while (slow_peek(s) == ' ' || slow_peek(s) == '\t' || slow_peek(s) == '\n' || slow_peek(s) == '\r')
        s->at++;
}

static inline bool slow_word(slow *s, const char *word)
{
    const size_t n = strlen(word);

    if (s->len - s->at < n || memcmp(s->text + s->at, word, n) != 0)
        return false;
    s->at += n;
    return true;
}

static inline bool slow_hex4(slow *s, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        const int c = slow_peek(s);

        if (c < 0 || !isxdigit(c))
            return false;
        *out = *out * 16 + (unsigned)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
        s->at++;
    }
    return true;
}

static inline void slow_put(slow_key *key, unsigned cp)
{
    if (cp < 0x80) {
        key->data[key->len++] = (uint8_t)cp;
    } else if (cp < 0x800) {
        key->data[key->len++] = (uint8_t)(0xc0 | cp >> 6);
        key->data[key->len++] = (uint8_t)(0x80 | (cp & 63));
    } else if (cp < 0x10000) {
        key->data[key->len++] = (uint8_t)(0xe0 | cp >> 12);
        key->data[key->len++] = (uint8_t)(0x80 | (cp >> 6 & 63));
        key->data[key->len++] = (uint8_t)(0x80 | (cp & 63));
    } else {
        key->data[key->len++] = (uint8_t)(0xf0 | cp >> 18);
        key->data[key->len++] = (uint8_t)(0x80 | (cp >> 12 & 63));
        key->data[key->len++] = (uint8_t)(0x80 | (cp >> 6 & 63));
        key->data[key->len++] = (uint8_t)(0x80 | (cp & 63));
    }
}

/* One character that stands for itself: its value is decoded and its range checked, as RFC 3629 words it. */
static inline bool slow_plain(slow *s, slow_key *key)
{
    const uint8_t first = s->text[s->at++];
    const unsigned more = first < 0x80 ? 0 : first >> 5 == 6 ? 1 : first >> 4 == 14 ? 2 : first >> 3 == 30 ? 3 : 9;
    const unsigned least[4] = {0x20, 0x80, 0x800, 0x10000};
    unsigned cp;

    if (more > 3)
        return false;
    cp = more == 0 ? first : first & (0x3fu >> more);
    for (unsigned i = 0; i < more; i++) {
        if (slow_peek(s) < 0 || slow_peek(s) >> 6 != 2)
            return false;
        cp = cp << 6 | (s->text[s->at++] & 63u);
    }
    if (cp < least[more] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return false;
    slow_put(key, cp);
    return true;
}

static inline bool slow_escape(slow *s, slow_key *key)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const int c = slow_peek(s);
    const char *known;
    unsigned high, low;

    if (c < 0)
        return false;
    s->at++;
    if (c != 'u') {
        if (!c || !(known = strchr(names, c)))
            return false;
        slow_put(key, (unsigned char)values[known - names]);
        return true;
    }
    if (!slow_hex4(s, &high) || (high >= 0xdc00 && high <= 0xdfff))
        return false;
    if (high >= 0xd800 && high <= 0xdbff) {
        if (!slow_word(s, "\\u") || !slow_hex4(s, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    slow_put(key, high);
    return true;
}

/* key->data is to be freed whatever the answer. */
static inline bool slow_string(slow *s, slow_key *key)
{
    key->len = 0;
    key->data = malloc(s->len + 1); /* escapes only shrink */
    if (!key->data)
        abort();
    if (slow_peek(s) != '"')
        return false;
    s->at++;
    while (slow_peek(s) >= 0) {
        if (slow_peek(s) == '"') {
            s->at++;
            return true;
        }
        if (slow_peek(s) == '\\') {
            s->at++;
            if (!slow_escape(s, key))
                return false;
        } else if (!slow_plain(s, key)) {
            return false;
        }
    }
    return false;
}

static inline bool slow_digits(slow *s)
{
    const size_t from = s->at;

    while (slow_peek(s) >= '0' && slow_peek(s) <= '9')
        s->at++;
    return s->at > from;
}

static inline bool slow_number(slow *s)
{
    const size_t from = s->at;
    bool whole = true, ok;
    char *token, *end;
    double value;

    if (slow_peek(s) == '-')
        s->at++;
    if (slow_peek(s) == '0')
        s->at++;
    else if (!slow_digits(s))
        return false;
    if (slow_peek(s) == '.') {
        whole = false;
        s->at++;
        if (!slow_digits(s))
            return false;
    }
    if (slow_peek(s) == 'e' || slow_peek(s) == 'E') {
        whole = false;
        s->at++;
        if (slow_peek(s) == '+' || slow_peek(s) == '-')
            s->at++;
        if (!slow_digits(s))
            return false;
    }
    token = malloc(s->at - from + 1);
    if (!token)
        abort();
    memcpy(token, s->text + from, s->at - from);
    token[s->at - from] = 0;
    value = strtod(token, &end); /* the C locale */
    ok = !*end && isfinite(value) && (!whole || (s->at - from <= 17 && llabs(strtoll(token, NULL, 10)) <= KEST_MAX_SAFE_INT));
    free(token);
    return ok;
}

static inline bool slow_value(slow *s, unsigned depth);

static inline bool slow_array(slow *s, unsigned depth)
{
    if (depth > KEST_MAX_DEPTH)
        return false;
    s->at++;
    slow_space(s);
    if (slow_word(s, "]"))
        return true;
    for (;;) {
        if (!slow_value(s, depth))
            return false;
        if (slow_word(s, "]"))
            return true;
        if (!slow_word(s, ","))
            return false;
    }
}

static inline bool slow_object(slow *s, unsigned depth)
{
    slow_key *keys = NULL;
    size_t count = 0;
    bool ok = false, more;

    if (depth > KEST_MAX_DEPTH)
        return false;
    s->at++;
    slow_space(s);
    more = !slow_word(s, "}");
    ok = !more;
    while (more) {
        more = false;
        keys = realloc(keys, (count + 1) * sizeof *keys);
        if (!keys)
            abort();
        slow_space(s);
        ok = slow_string(s, &keys[count++]);
        for (size_t i = 0; ok && i + 1 < count; i++)
            ok = keys[i].len != keys[count - 1].len || memcmp(keys[i].data, keys[count - 1].data, keys[i].len) != 0;
        slow_space(s);
        ok = ok && slow_word(s, ":") && slow_value(s, depth);
        if (ok && slow_word(s, ","))
            more = true;
        else
            ok = ok && slow_word(s, "}");
    }
    while (count)
        free(keys[--count].data);
    free(keys);
    return ok;
}

/* `depth`: of the containers around it. White space on both sides belongs to it. */
static inline bool slow_value(slow *s, unsigned depth)
{
    slow_key text;
    bool ok;

    slow_space(s);
    switch (slow_peek(s)) {
    case '[': ok = slow_array(s, depth + 1); break;
    case '{': ok = slow_object(s, depth + 1); break;
    case '"':
        ok = slow_string(s, &text);
        free(text.data);
        break;
    case 't': ok = slow_word(s, "true"); break;
    case 'f': ok = slow_word(s, "false"); break;
    case 'n': ok = slow_word(s, "null"); break;
    default: ok = slow_number(s);
    }
    slow_space(s);
    return ok;
}

static inline bool slow_accepts(const uint8_t *text, size_t len)
{
    slow s = {text, len, 0};

    return slow_value(&s, 0) && s.at == len;
}

#endif
