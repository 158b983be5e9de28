/* test.h - the whole test framework: G4_EXPECT counts, g4_test_end prints the closing line. Tests run in tests/..
 * (the repository root). */
#ifndef G4_TEST_H
#define G4_TEST_H

#include <stdio.h>

static int g4_passed, g4_failed, g4_skipped;

/* One check; on failure prints where, and what the format says. */
#define G4_EXPECT(cond, ...)                                                                                           \
    do {                                                                                                               \
        if (cond) {                                                                                                    \
            g4_passed++;                                                                                               \
        } else {                                                                                                       \
            g4_failed++;                                                                                               \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #cond);                                                          \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

#define G4_SKIP(why) (g4_skipped++, printf("skipped: %s\n", (why)))

static int g4_test_end(void)
{
    printf("%d passed, %d failed", g4_passed, g4_failed);
    if (g4_skipped > 0) printf(", %d skipped", g4_skipped);
    printf("\n");
    return g4_failed > 0;
}

#endif
