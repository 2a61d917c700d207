/* stores.c: sliding windows and sessions against lists. Up to 31 events in a window are counted exactly; beyond that never too
 * few, and an event at most a 32nd of its window too long. Tables give their memory back. The input: a tape of operations. */
#include "fuzz.h"

#include "crypto.h"
#include "gate_rate.h"
#include "gate_session.h"
#include "gate_text.h"

enum { KEYS = 6, MAX_EVENTS = 4096, SESSIONS = 3 };
#define NS INT64_C(1000000000)

typedef struct event {
    int key, window;
    int64_t at;
} event;

static const int64_t windows[] = {320, 3200, 32000};
static event events[MAX_EVENTS];
static int nevents;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    REQUIRE(kest_crypto_init() == KEST_OK);
    return 0;
}

static uint32_t listed(int key, int window, int64_t now, int64_t length)
{
    uint32_t count = 0;

    for (int i = 0; i < nevents; i++)
        count += events[i].key == key && events[i].window == window && events[i].at + length > now;
    return count;
}

static void forget_latest(int key, int window)
{
    for (int i = nevents - 1; i >= 0; i--)
        if (events[i].key == key && events[i].window == window) {
            memmove(&events[i], &events[i + 1], (size_t)(--nevents - i) * sizeof *events);
            return;
        }
}

static void rates(tape *t)
{
    uint8_t keys[KEYS][KEST_GATE_KEY_LEN];
    kest_gate_rates *r = NULL;
    int64_t now = 1000000, latest;

    nevents = 0;
    for (int i = 0; i < KEYS; i++) {
        const uint8_t name = (uint8_t)i;

        kest_gate_name((kest_str){&name, 1}, keys[i]);
    }
    REQUIRE(kest_gate_rates_new(KEYS, &r) == KEST_OK);
    latest = INT64_MIN;
    while (t->at < t->end && nevents < MAX_EVENTS) {
        const uint8_t op = tape_byte(t);
        const int key = (int)tape_below(t, KEYS), window = (int)tape_below(t, 3);

        now += (int64_t)tape_byte(t) * (op & 64 ? -3 : op & 128 ? 300 : 1);
        latest = now > latest ? now : latest; /* an earlier time counts as the latest one seen */
        if (op % 4 < 3) {
            for (int n = op % 4 == 2 ? 40 : 1; n && nevents < MAX_EVENTS; n--) {
                REQUIRE(kest_gate_rates_record(r, keys[key], windows[window], now) == KEST_OK);
                events[nevents++] = (event){key, window, latest};
            }
        } else if (op & 4) {
            kest_gate_rates_undo(r, keys[key], windows[window]);
            forget_latest(key, window);
        } else {
            kest_gate_rates_sweep(r, now, tape_byte(t));
        }
        for (int k = 0; k < KEYS; k++) {
            const int64_t length = windows[window];
            const uint32_t exactly = listed(k, window, latest, length), atmost = listed(k, window, latest, length + length / 32 + 1);
            const uint32_t got = kest_gate_rates_count(r, keys[k], length, now, NULL);

            REQUIRE(got >= exactly && got <= atmost);
            if (exactly == atmost || listed(k, window, latest, INT64_MAX / 4) < 32)
                REQUIRE(got == exactly);
        }
        REQUIRE(kest_gate_rates_keys(r) <= (size_t)KEYS * 3);
    }
    while (kest_gate_rates_sweep(r, latest + 100000, 100))
        ;
    REQUIRE(kest_gate_rates_keys(r) == 0);
    kest_gate_rates_free(r);
}

/* What the store is to know of one session. */
typedef struct model {
    bool open;
    uint64_t actions;
    int64_t seen;
} model;

static void sessions(tape *t)
{
    static const char *const names[] = {"s0", "s1", "s2", "s3", "s4"};
    const int64_t ttl = 100 * NS;
    kest_gate_sessions *s = NULL;
    kest_gate_time now = {1000 * NS, 500 * NS};
    model models[5] = {{0}};

    REQUIRE(kest_gate_sessions_new(SESSIONS, ttl, &s) == KEST_OK);
    for (int step = 0; t->at < t->end && step < 300; step++) {
        const uint8_t op = tape_byte(t);
        const uint32_t which = tape_below(t, 5);
        kest_gate_context ctx = {.principal = fuzz_str("p"), .session = fuzz_str(names[which]), .has_session = true, .trust = -1};
        model *m = &models[which];
        kest_gate_session seen;
        size_t open = 0;

        now.steady_ns += (int64_t)tape_byte(t) * NS / 4;
        for (int i = 0; i < 5; i++) {
            models[i].open = models[i].open && now.steady_ns - models[i].seen < ttl;
            open += models[i].open;
        }
        kest_gate_sessions_look(s, &ctx, now, &seen);
        REQUIRE(seen.known == m->open && !seen.revoked);
        if (m->open)
            REQUIRE(seen.actions == m->actions);
        else
            REQUIRE(seen.full == (open >= SESSIONS));
        if (op % 4 < 2 && !seen.full) {
            REQUIRE(kest_gate_sessions_permitted(s, &ctx, now, op % 4 == 0) == KEST_OK);
            if (!m->open)
                m->actions = 0;
            m->open = true;
            m->actions += op % 4 == 0;
            m->seen = now.steady_ns;
        } else if (op % 4 == 2) {
            kest_gate_sessions_undo(s, &ctx);
            if (m->open && m->actions)
                m->actions--;
        } else {
            kest_gate_sessions_sweep(s, now, tape_byte(t));
        }
        REQUIRE(kest_gate_sessions_count(s) <= SESSIONS);
    }
    kest_gate_sessions_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tape t = {data, data + size};

    if (tape_byte(&t) % 2)
        sessions(&t);
    else
        rates(&t);
    return 0;
}
