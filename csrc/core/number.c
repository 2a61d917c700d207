#include "number.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* strtod and snprintf round correctly but write and expect the locale's decimal separator. Nothing here ever
 * hands them one: values are passed as "digits e exponent", and digits are taken from snprintf's output by their
 * place. So the locale does not matter, nor does another thread that changes it. */

enum {
    MAX_EXACT_POW10 = 22, /* 10^22 is the largest power of ten that is a double */
    MAX_DIGITS = 17,      /* enough for every double */
    /* No double, and no midpoint of two, has more than 767 significant digits: whatever follows can only decide
     * whether a value is above such a midpoint, so one further non-zero digit can stand for all of it. */
    MAX_SIGNIFICANT = 768
};

static const double pow10_exact[MAX_EXACT_POW10 + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                        1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                        1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

size_t kest_int_print(int64_t value, char out[KEST_NUMBER_ROOM])
{
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char digits[20];
    size_t at = sizeof digits, len = 0;

    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        out[len++] = '-';
    memcpy(out + len, digits + at, sizeof digits - at);
    return len + (sizeof digits - at);
}

/* Clinger's fast path: both operands are exact doubles, so the one operation rounds correctly. */
static bool read_exact(uint64_t mantissa, int64_t exponent, double *out)
{
    if (FLT_EVAL_METHOD != 0 || mantissa > UINT64_C(1) << 53 || exponent < -MAX_EXACT_POW10 ||
        exponent > MAX_EXACT_POW10)
        return false;
    if (exponent < 0)
        *out = (double)mantissa / pow10_exact[-exponent];
    else
        *out = (double)mantissa * pow10_exact[exponent];
    return true;
}

/* ---- printing ---- */

/* 0.d1d2d3... * 10^point */
typedef struct decimal {
    char digits[MAX_DIGITS];
    int count;
    int point;
} decimal;

/* The `count` digits nearest to a finite value > 0. */
static void round_to(double value, int count, decimal *d)
{
    char text[64]; /* 17 digits, a separator of any encoding, e+308 */
    const char *e;

    (void)snprintf(text, sizeof text, "%.*e", count - 1, value);
    e = strchr(text, 'e');
    d->digits[0] = text[0];
    memcpy(d->digits + 1, e - (count - 1), (size_t)(count - 1));
    d->count = count;
    d->point = (int)strtol(e + 1, NULL, 10) + 1;
}

static bool reads_back(const decimal *d, double value)
{
    char text[MAX_DIGITS + KEST_NUMBER_ROOM];
    uint64_t mantissa = 0;
    double got;
    int i, exponent = d->point - d->count;
    size_t len;

    for (i = 0; i < d->count; i++)
        mantissa = mantissa * 10 + (uint64_t)(d->digits[i] - '0');
    if (read_exact(mantissa, exponent, &got))
        return got == value;
    memcpy(text, d->digits, (size_t)d->count);
    text[d->count] = 'e';
    len = (size_t)d->count + 1;
    len += kest_int_print(exponent, text + len);
    text[len] = '\0';
    return strtod(text, NULL) == value;
}

/* The next larger decimal with the same number of digits. */
static void step_up(decimal *d)
{
    int i = d->count - 1;

    while (i >= 0 && d->digits[i] == '9')
        d->digits[i--] = '0';
    if (i >= 0) {
        d->digits[i]++;
    } else {
        d->digits[0] = '1';
        d->point++;
    }
}

/* Amounts of money, measurements, probabilities: a few digits after the point, at most 15 in all. No two decimals of at most
 * 15 digits are read as the same normal double, so the one that reads back is the shortest. */
static bool few_digits(double value, decimal *d)
{
    enum { MOST = 6 };
    char digits[KEST_NUMBER_ROOM];
    double back;

    for (int k = 1; k <= MOST && value * pow10_exact[k] < 1e15; k++) {
        const uint64_t scaled = (uint64_t)(value * pow10_exact[k] + 0.5);

        if (scaled && read_exact(scaled, -k, &back) && back == value) {
            d->count = (int)kest_int_print((int64_t)scaled, digits);
            d->point = d->count - k;
            memcpy(d->digits, digits, (size_t)d->count);
            return true;
        }
    }
    return false;
}

static void shortest(double value, decimal *d)
{
    bool normal = value >= DBL_MIN;
    int exponent, count = normal ? DBL_DIG : 1;

    /* A decimal of at most 15 digits survives a trip through a normal double, so if there is one that reads back,
     * rounding to 15 digits finds it, with zeros after it. Subnormals hold fewer digits: look for the fewest. */
    for (; count < MAX_DIGITS; count++) {
        round_to(value, count, d);
        if (reads_back(d, value))
            break;
        /* The doubles below a power of two lie twice as dense as those above: the nearest decimal may be too low
         * to read back although its upper neighbour, farther away, does. (2^-44 is 5.684341886080802e-14.) */
        if (normal && frexp(value, &exponent) == 0.5) {
            step_up(d);
            if (reads_back(d, value))
                break;
        }
    }
    if (count == MAX_DIGITS)
        round_to(value, MAX_DIGITS, d);
    while (d->count > 1 && d->digits[d->count - 1] == '0')
        d->count--;
}

static char *put(char *out, const char *src, int n)
{
    memcpy(out, src, (size_t)n);
    return out + n;
}

static char *put_zeros(char *out, int n)
{
    memset(out, '0', (size_t)n);
    return out + n;
}

/* ECMAScript Number::toString, steps 6 to 10; k and n are the names used there. */
static char *lay_out(const decimal *d, char *out)
{
    int k = d->count, n = d->point;

    if (k <= n && n <= 21)
        return put_zeros(put(out, d->digits, k), n - k);
    if (0 < n && n <= 21) {
        out = put(out, d->digits, n);
        *out++ = '.';
        return put(out, d->digits + n, k - n);
    }
    if (-6 < n && n <= 0) {
        out = put_zeros(put(out, "0.", 2), -n);
        return put(out, d->digits, k);
    }
    *out++ = d->digits[0];
    if (k > 1) {
        *out++ = '.';
        out = put(out, d->digits + 1, k - 1);
    }
    *out++ = 'e';
    if (n > 0)
        *out++ = '+';
    return out + kest_int_print(n - 1, out);
}

kest_status kest_double_print(double value, char out[KEST_NUMBER_ROOM], size_t *len)
{
    char room[KEST_NUMBER_ROOM * 2], *end = room;
    decimal d;

    if (!isfinite(value))
        return KEST_E_NAN;
    if (fabs(value) <= 0x1p53 && (double)(int64_t)value == value) {
        *len = kest_int_print((int64_t)value, out);
        return KEST_OK;
    }
    if (value < 0)
        *end++ = '-';
    if (!few_digits(fabs(value), &d))
        shortest(fabs(value), &d);
    end = lay_out(&d, end);
    *len = (size_t)(end - room);
    memcpy(out, room, *len);
    return KEST_OK;
}

/* ---- reading ---- */

typedef struct token {
    char text[MAX_SIGNIFICANT + 4 + KEST_NUMBER_ROOM]; /* significant digits; later followed by an exponent */
    size_t count;
    int64_t exponent; /* value = text * 10^exponent */
    bool negative;
} token;

/* One digit of the number; `fraction` when it stands after the point. */
static void take_digit(token *t, uint8_t digit, bool fraction)
{
    if (t->count == 0 && digit == '0') {
        t->exponent -= fraction;
        return;
    }
    if (t->count < MAX_SIGNIFICANT) {
        t->text[t->count++] = (char)digit;
        t->exponent -= fraction;
        return;
    }
    t->exponent += !fraction;
    if (digit != '0' && t->count == MAX_SIGNIFICANT) {
        t->text[t->count++] = '1';
        t->exponent--;
    }
}

static void take_token(token *t, const uint8_t *p, const uint8_t *end)
{
    bool fraction = false, minus = false;
    int64_t exponent = 0;

    t->count = 0;
    t->exponent = 0;
    t->negative = *p == '-';
    for (p += t->negative; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.')
            fraction = true;
        else
            take_digit(t, *p, fraction);
    }
    if (p == end)
        return;
    p++;
    minus = *p == '-';
    for (p += *p == '-' || *p == '+'; p < end; p++) {
        /* Saturates far beyond the length of any text, whose digits the exponent could make up for. */
        if (exponent < INT64_MAX / 100)
            exponent = exponent * 10 + (*p - '0');
    }
    t->exponent += minus ? -exponent : exponent;
}

static double read_digits(token *t)
{
    int64_t magnitude = (int64_t)t->count + t->exponent; /* 10^(magnitude - 1) <= value < 10^magnitude */
    uint64_t mantissa = 0;
    double value;
    size_t i;

    if (t->count == 0 || magnitude < -323)
        return 0.0;
    if (magnitude > DBL_MAX_10_EXP + 1)
        return HUGE_VAL;
    if (t->count <= 19) {
        for (i = 0; i < t->count; i++)
            mantissa = mantissa * 10 + (uint64_t)(t->text[i] - '0');
        if (read_exact(mantissa, t->exponent, &value))
            return value;
    }
    t->text[t->count] = 'e';
    i = t->count + 1 + kest_int_print(t->exponent, t->text + t->count + 1);
    t->text[i] = '\0';
    return strtod(t->text, NULL);
}

kest_status kest_double_read(const uint8_t *text, size_t len, double *out)
{
    token t;
    double value;

    take_token(&t, text, text + len);
    value = read_digits(&t);
    if (isinf(value))
        return KEST_E_JSON_NUMBER;
    *out = t.negative ? -value : value;
    return KEST_OK;
}
