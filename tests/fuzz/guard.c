/* Preloaded: puts a page that nobody may touch before and behind every mapped file, so that reading outside one ends the
   process instead of finding whatever lies there. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const size_t PAGE = 4096;
/* Maps that have guards; a map that finds no place here has none. */
enum { PLACES = 64 };
static struct { char *start; size_t pages; } guarded[PLACES];

void *mmap(void *at, size_t length, int protection, int flags, int file, off_t offset) {
    size_t bytes = (length + PAGE - 1) / PAGE * PAGE;
    if (at == NULL && file >= 0 && protection == PROT_READ && flags == MAP_SHARED && length != 0) {
        for (int i = 0; i < PLACES; i++) {
            if (__atomic_load_n(&guarded[i].start, __ATOMIC_ACQUIRE) != NULL) continue;
            char *room = (char *)syscall(SYS_mmap, NULL, bytes + 2 * PAGE, PROT_NONE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (room == MAP_FAILED) return MAP_FAILED;
            char *map = (char *)syscall(SYS_mmap, room + PAGE, length, protection,
                                        flags | MAP_FIXED, file, offset);
            if (map == MAP_FAILED) {
                syscall(SYS_munmap, room, bytes + 2 * PAGE);
                return MAP_FAILED;
            }
            guarded[i].pages = bytes + 2 * PAGE;
            __atomic_store_n(&guarded[i].start, map, __ATOMIC_RELEASE);
            return map;
        }
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, file, offset);
}

int munmap(void *at, size_t length) {
    for (int i = 0; i < PLACES; i++) {
        if (at != NULL && __atomic_load_n(&guarded[i].start, __ATOMIC_ACQUIRE) == at) {
            char *room = (char *)at - PAGE;
            size_t bytes = guarded[i].pages;
            __atomic_store_n(&guarded[i].start, NULL, __ATOMIC_RELEASE);
            return (int)syscall(SYS_munmap, room, bytes);
        }
    }
    return (int)syscall(SYS_munmap, at, length);
}
