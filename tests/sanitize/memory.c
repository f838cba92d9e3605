/* Runs `lives` of memory.mojo, or with a second argument `overrun`; the first is a path to save under. */
#include <stdio.h>

long lives(const char *path), overrun(const char *path);

int main(int count, char **arguments) {
    if (count < 2) return 2;
    long wrong = count > 2 ? overrun(arguments[1]) : lives(arguments[1]);
    printf("lives: %s (%ld)\n", wrong == 0 ? "right" : "WRONG", wrong);
    return wrong != 0;
}
