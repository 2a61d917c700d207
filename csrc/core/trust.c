#include "trust.h"

#include "alloc.h"

#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    return kest_str_compare(*(const kest_str *)a, *(const kest_str *)b);
}

kest_status kest_taints_combine(kest_taints *const *parents, size_t nparents, const kest_str *added, size_t nadded,
                                const kest_str *removed, size_t nremoved, kest_taints **out, bool *really_removed)
{
    enum { INLINE = 32 };
    kest_str room[INLINE], *all = room;
    size_t total = nadded, n = 0, kept = 0;
    kest_status st;

    if (really_removed)
        *really_removed = false;
    if (nparents == 1 && nadded == 0 && nremoved == 0) {
        *out = kest_taints_ref(parents[0]);
        return KEST_OK;
    }
    for (size_t p = 0; p < nparents; p++)
        if (!kest_add(total, parents[p]->count, &total))
            return KEST_E_OVERFLOW;
    if (total > INLINE && !(all = kest_calloc(total, sizeof *all)))
        return KEST_E_NOMEM;
    for (size_t i = 0; i < nadded; i++)
        all[n++] = added[i];
    for (size_t p = 0; p < nparents; p++)
        for (size_t i = 0; i < parents[p]->count; i++)
            all[n++] = parents[p]->items[i];
    qsort(all, n, sizeof *all, compare);
    for (size_t i = 0; i < n; i++) {
        if (kept && kest_str_compare(all[kept - 1], all[i]) == 0)
            continue;
        if (kest_taints_has(removed, nremoved, all[i])) {
            if (really_removed)
                *really_removed = true;
            continue;
        }
        all[kept++] = all[i];
    }
    if (nparents && kest_taints_equal(parents[0], all, kept)) {
        *out = kest_taints_ref(parents[0]);
        st = KEST_OK;
    } else {
        st = kest_taints_new(all, kept, out);
    }
    if (all != room)
        kest_free(all);
    return st;
}
