/* raw.c: the primitives themselves, without an interpreter around them. Compiled when the benchmark runs. */
#include <sodium.h>
#include <stdint.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Nanoseconds for `times` signatures over the same message; 0 on failure. */
uint64_t raw_sign(const unsigned char *seed, const unsigned char *message, uint64_t length, uint64_t times,
                  unsigned char *signature)
{
    unsigned char public_key[crypto_sign_PUBLICKEYBYTES], secret_key[crypto_sign_SECRETKEYBYTES];
    uint64_t start;

    if (sodium_init() < 0 || crypto_sign_seed_keypair(public_key, secret_key, seed) != 0)
        return 0;
    start = now_ns();
    for (uint64_t i = 0; i < times; i++)
        if (crypto_sign_detached(signature, NULL, message, length, secret_key) != 0)
            return 0;
    return now_ns() - start;
}

/* Nanoseconds for `times` verifications of the same signature; 0 when it does not hold. */
uint64_t raw_verify(const unsigned char *public_key, const unsigned char *message, uint64_t length,
                    const unsigned char *signature, uint64_t times)
{
    uint64_t start;

    if (sodium_init() < 0)
        return 0;
    start = now_ns();
    for (uint64_t i = 0; i < times; i++)
        if (crypto_sign_verify_detached(signature, message, length, public_key) != 0)
            return 0;
    return now_ns() - start;
}

const char *raw_version(void)
{
    return sodium_version_string();
}
