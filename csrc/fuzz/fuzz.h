/* fuzz.h: what the libFuzzer harnesses share. Each harness states properties, and aborts where one does not hold. */
#ifndef KEST_FUZZ_H
#define KEST_FUZZ_H

#include "kest.h"
#include "shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define REQUIRE(property)                                                                                     \
    do {                                                                                                      \
        if (!(property)) {                                                                                    \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #property);                     \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)

/* Input as a tape of choices; an exhausted tape gives zeros. */
typedef struct tape {
    const uint8_t *at, *end;
} tape;

static inline uint8_t tape_byte(tape *t)
{
    return t->at < t->end ? *t->at++ : 0;
}

static inline uint32_t tape_below(tape *t, uint32_t bound)
{
    return tape_byte(t) % bound;
}

static inline kest_str fuzz_str(const char *text)
{
    return (kest_str){(const uint8_t *)text, strlen(text)};
}

/* A heap copy of exactly this length, so that the address sanitizer sees any access beyond it. */
static inline uint8_t *exact(const void *src, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        abort();
    if (len)
        memcpy(copy, src, len);
    return copy;
}

#endif
