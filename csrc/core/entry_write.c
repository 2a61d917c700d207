#include "entry.h"
#include "jcs.h"
#include "utf8.h"

#include <string.h>

static void put_list(kest_buf *out, const kest_str *items, size_t count)
{
    kest_buf_byte(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i)
            kest_buf_byte(out, ',');
        kest_jcs_string(out, items[i].data, items[i].len);
    }
    kest_buf_byte(out, ']');
}

/* Insertion sort: an entry has a handful of labels, in nearly the right order already. */
static void sort_labels(kest_label *labels, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const kest_label moved = labels[i];
        size_t at = i;

        while (at && kest_utf16_compare(moved.key.data, moved.key.len, labels[at - 1].key.data,
                                        labels[at - 1].key.len) < 0) {
            labels[at] = labels[at - 1];
            at--;
        }
        labels[at] = moved;
    }
}

static void put_labels(kest_buf *out, kest_label *labels, size_t count)
{
    sort_labels(labels, count);
    kest_buf_byte(out, '{');
    for (size_t i = 0; i < count; i++) {
        if (i)
            kest_buf_byte(out, ',');
        kest_jcs_string(out, labels[i].key.data, labels[i].key.len);
        kest_buf_byte(out, ':');
        kest_jcs_string(out, labels[i].value.data, labels[i].value.len);
    }
    kest_buf_byte(out, '}');
}

static void put_parents(kest_buf *out, const uint8_t *parents, size_t count)
{
    if (!count) {
        kest_buf_lit(out, "[\"0\"]");
        return;
    }
    kest_buf_byte(out, '[');
    for (size_t i = 0; i < count; i++) {
        uint8_t hex[KEST_HASH_HEX];

        kest_hex(parents + i * KEST_HASH_LEN, KEST_HASH_LEN, hex);
        if (i)
            kest_buf_byte(out, ',');
        kest_buf_byte(out, '"');
        kest_buf_put(out, hex, sizeof hex);
        kest_buf_byte(out, '"');
    }
    kest_buf_byte(out, ']');
}

void kest_entry_write(kest_buf *out, kest_entry *e)
{
    kest_buf_lit(out, "{\"added_taints\":");
    put_list(out, e->added, e->nadded);
    kest_buf_lit(out, ",\"classification\":");
    kest_jcs_string(out, e->classification.data, e->classification.len);
    kest_buf_lit(out, ",\"content_hash\":\"\",\"entry_id\":");
    kest_jcs_string(out, e->entry_id.data, e->entry_id.len);
    kest_buf_lit(out, ",\"environment\":{},\"input_hash\":");
    kest_jcs_string(out, e->input_hash.data, e->input_hash.len);
    kest_buf_lit(out, ",\"labels\":");
    put_labels(out, e->labels, e->nlabels);
    kest_buf_lit(out, ",\"metadata\":null,\"operation\":");
    kest_jcs_string(out, e->operation.data, e->operation.len);
    kest_buf_lit(out, ",\"otel_context\":{},\"parent_ids\":");
    put_parents(out, e->parents, e->nparents);
    kest_buf_lit(out, ",\"policy_context\":");
    kest_buf_put(out, e->policy_context.data, e->policy_context.len);
    kest_buf_lit(out, ",\"removed_taints\":");
    put_list(out, e->removed, e->nremoved);
    kest_buf_lit(out, ",\"runtime\":{\"name\":\"" KEST_RUNTIME_NAME "\",\"version\":\"" KEST_RUNTIME_VERSION
                      "\"},\"schema_version\":\"" KEST_SCHEMA_VERSION "\",\"taints\":");
    put_list(out, e->taints, e->ntaints);
    kest_buf_lit(out, ",\"timestamp_ms\":");
    kest_jcs_int(out, e->timestamp_ms);
    kest_buf_lit(out, ",\"trust_score\":");
    kest_jcs_int(out, e->trust);
    kest_buf_byte(out, '}');
}

bool kest_classification_known(const uint8_t *text, size_t len)
{
    static const char *const known[] = {"system", "data", "critic", "snapshot", "sanitizer"};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == len && memcmp(known[i], text, len) == 0)
            return true;
    return false;
}
