/* gate_rate.h: how often something happened within the last window, for any number of keys and windows.
 *
 * An event at time t counts in (t, t + window). Each key holds its latest events exactly while there are fewer than 32 in the
 * window; beyond that, events of one 32nd of the window count until the last of them expires: never too short, and a 32nd
 * too long at most. So a call costs the same however hot its key, and a key takes 64 bytes for up to two events and half a kilobyte
 * at most. Keys without an event in the window are forgotten. Not thread-safe. Time never goes back here: an earlier time counts
 * as the latest one seen.
 */
#ifndef KEST_GATE_RATE_H
#define KEST_GATE_RATE_H

#include "gate_table.h"

typedef struct kest_gate_rates kest_gate_rates;

enum { KEST_RATES_MAX_WINDOWS = 1024 };

/* At most `limit` keys for each length of window. */
kest_status kest_gate_rates_new(uint32_t limit, kest_gate_rates **out);
void kest_gate_rates_free(kest_gate_rates *rates);
/* Events of the key in the window that ends at `now`; *full (may be NULL): there would be no room to record another. */
uint32_t kest_gate_rates_count(kest_gate_rates *rates, const uint8_t key[KEST_GATE_KEY_LEN], int64_t window_ns, int64_t now, bool *full);
/* KEST_E_LIMIT when there are too many keys, KEST_E_NOMEM; then nothing was recorded. */
kest_status kest_gate_rates_record(kest_gate_rates *rates, const uint8_t key[KEST_GATE_KEY_LEN], int64_t window_ns, int64_t now);
/* Takes back the latest event of the key, if there is one: what it stood for was refused after all. */
void kest_gate_rates_undo(kest_gate_rates *rates, const uint8_t key[KEST_GATE_KEY_LEN], int64_t window_ns);
/* Forgets up to `budget` expired keys; returns how many. Recording forgets a few at each call as well. */
size_t kest_gate_rates_sweep(kest_gate_rates *rates, int64_t now, size_t budget);
size_t kest_gate_rates_keys(const kest_gate_rates *rates);
size_t kest_gate_rates_bytes(const kest_gate_rates *rates);

#endif
