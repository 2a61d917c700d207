#include "pack.h"
kest_status kest_pack_dense(kest_node *const *nodes, size_t count, kest_buf *out)
{ (void)nodes; (void)count; (void)out; return KEST_E_PACK_FORM; }
kest_status kest_unpack_dense(const uint8_t *text, size_t len, size_t max_bytes, size_t max_entries, kest_builder *builder)
{ (void)text; (void)len; (void)max_bytes; (void)max_entries; (void)builder; return KEST_E_INFLATE; }
