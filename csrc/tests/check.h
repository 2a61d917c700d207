/* check.h: all that the core's unit tests need of a framework. Include from one file of each program. */
#ifndef KEST_TESTS_CHECK_H
#define KEST_TESTS_CHECK_H

#include <stdio.h>

static unsigned checks_passed, checks_failed;

/* Counts; on failure says where, and for which row of a table (any string). The tests go on. */
#define CHECK_ROW(condition, row)                                                                             \
    do {                                                                                                      \
        if (condition) {                                                                                      \
            checks_passed++;                                                                                  \
        } else {                                                                                              \
            checks_failed++;                                                                                  \
            (void)fprintf(stderr, "%s:%d: %s [%s]\n", __FILE__, __LINE__, #condition, (row));                       \
        }                                                                                                     \
    } while (0)
#define CHECK(condition) CHECK_ROW(condition, "")

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

/* The exit code of main(). */
static inline int check_report(void)
{
    printf("%u passed, %u failed\n", checks_passed, checks_failed);
    return checks_failed ? 1 : 0;
}

#endif
