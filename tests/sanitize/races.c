/* Runs the functions of races.mojo that are named on the command line. */
#include <stdio.h>
#include <string.h>

long beside_rows(void), beside_codes(void), scratches(void), epochs(void), race(void);

/* libtsan of gcc lacks these three names; the plain functions do the same and are watched, too. */
void *__tsan_memcpy(void *to, const void *from, size_t n) { return memcpy(to, from, n); }
void *__tsan_memset(void *to, int value, size_t n) { return memset(to, value, n); }
void *__tsan_memmove(void *to, const void *from, size_t n) { return memmove(to, from, n); }

int main(int count, char **names) {
    const struct { const char *name; long (*run)(void); } all[] = {
        {"beside_rows", beside_rows}, {"beside_codes", beside_codes}, {"scratches", scratches},
        {"epochs", epochs}, {"race", race}};
    int failed = 0;
    for (int i = 1; i < count; i++)
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            if (strcmp(names[i], all[j].name) == 0) {
                long wrong = all[j].run();
                printf("%s: %s (%ld)\n", names[i], wrong == 0 ? "right" : "WRONG", wrong);
                failed |= wrong != 0;
            }
    return failed;
}
