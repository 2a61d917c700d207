/* trust.h: how taints travel from the parents of an entry to the entry. */
#ifndef KEST_TRUST_H
#define KEST_TRUST_H

#include "shared.h"

/* (union of the parents' taints, plus added) minus removed, as a new set in *out; shares the parent's set when
 * nothing changes. `added` and `removed` are checked lists (kest_taints_check). *really_removed (may be NULL) says
 * whether any taint went away. */
kest_status kest_taints_combine(kest_taints *const *parents, size_t nparents, const kest_str *added, size_t nadded,
                                const kest_str *removed, size_t nremoved, kest_taints **out, bool *really_removed);

#endif
