#include "shared.h"

#include "alloc.h"

#include <string.h>

kest_status kest_text_new(const uint8_t *data, size_t len, kest_text **out)
{
    kest_text *text;

    if (len > UINT32_MAX)
        return KEST_E_OVERFLOW;
    text = kest_malloc(sizeof *text + len);
    if (!text)
        return KEST_E_NOMEM;
    atomic_init(&text->refs, 1);
    text->len = (uint32_t)len;
    if (len)
        memcpy(text->data, data, len);
    *out = text;
    return KEST_OK;
}

kest_text *kest_text_ref(kest_text *text)
{
    atomic_fetch_add_explicit(&text->refs, 1, memory_order_relaxed);
    return text;
}

void kest_text_unref(kest_text *text)
{
    if (text && atomic_fetch_sub_explicit(&text->refs, 1, memory_order_acq_rel) == 1)
        kest_free(text);
}

bool kest_text_is(const kest_text *text, const uint8_t *data, size_t len)
{
    return text->len == len && (len == 0 || memcmp(text->data, data, len) == 0);
}

int kest_str_compare(kest_str a, kest_str b)
{
    const size_t common = a.len < b.len ? a.len : b.len;
    const int order = common ? memcmp(a.data, b.data, common) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

kest_taints *kest_taints_ref(kest_taints *taints)
{
    atomic_fetch_add_explicit(&taints->refs, 1, memory_order_relaxed);
    return taints;
}

void kest_taints_unref(kest_taints *taints)
{
    if (taints && atomic_fetch_sub_explicit(&taints->refs, 1, memory_order_acq_rel) == 1)
        kest_free(taints);
}

kest_status kest_taints_check(const kest_str *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (items[i].len == 0 || (i && kest_str_compare(items[i - 1], items[i]) >= 0))
            return KEST_E_TAINT_ORDER;
    return KEST_OK;
}

kest_status kest_taints_new(const kest_str *items, size_t count, kest_taints **out)
{
    kest_taints *taints;
    uint8_t *bytes;
    size_t total;

    if (count > UINT32_MAX || !kest_mul(count, sizeof *items, &total) || !kest_add(total, sizeof *taints, &total))
        return KEST_E_OVERFLOW;
    for (size_t i = 0; i < count; i++)
        if (!kest_add(total, items[i].len, &total))
            return KEST_E_OVERFLOW;
    taints = kest_malloc(total);
    if (!taints)
        return KEST_E_NOMEM;
    atomic_init(&taints->refs, 1);
    taints->count = (uint32_t)count;
    bytes = (uint8_t *)(taints->items + count);
    for (size_t i = 0; i < count; i++) {
        memcpy(bytes, items[i].data, items[i].len);
        taints->items[i] = (kest_str){bytes, items[i].len};
        bytes += items[i].len;
    }
    *out = taints;
    return KEST_OK;
}

bool kest_taints_equal(const kest_taints *a, const kest_str *items, size_t count)
{
    if (a->count != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (kest_str_compare(a->items[i], items[i]) != 0)
            return false;
    return true;
}

bool kest_taints_has(const kest_str *items, size_t count, kest_str item)
{
    size_t lo = 0, hi = count;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const int order = kest_str_compare(items[mid], item);

        if (order == 0)
            return true;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}
