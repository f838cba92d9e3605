/* Loaded before everything else (LD_PRELOAD): refuses the n-th request for memory, or all from the n-th on,
 * that the native module makes, and no request of anybody else. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static uintptr_t low, high;          /* where the module's code lies */
static atomic_long left, seen;       /* requests until one is refused; requests since `refuse_arm` */
static atomic_int armed, lasting;

void refuse_watch(uintptr_t begin, uintptr_t end) { low = begin, high = end; }

void refuse_arm(long n, int from_then_on) {
    seen = 0, left = n, lasting = from_then_on;
    armed = 1;
}

/* Returns how many requests there were. */
long refuse_disarm(void) {
    armed = 0;
    return seen;
}

static int refused(void *caller) {
    if (!armed || (uintptr_t)caller < low || (uintptr_t)caller >= high) return 0;
    atomic_fetch_add(&seen, 1);
    long n = atomic_fetch_sub(&left, 1);
    if (n != 1 && !(lasting && n < 1)) return 0;
    errno = ENOMEM;
    return 1;
}

#define REFUSED refused(__builtin_return_address(0))

void *malloc(size_t size) { return REFUSED ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return REFUSED ? NULL : __libc_calloc(count, size); }
void *realloc(void *p, size_t size) { return REFUSED ? NULL : __libc_realloc(p, size); }
void *aligned_alloc(size_t boundary, size_t size) { return REFUSED ? NULL : __libc_memalign(boundary, size); }

void *mmap(void *address, size_t bytes, int access, int flags, int file, long offset) {
    if (REFUSED) return (void *)-1;
    return (void *)syscall(SYS_mmap, address, bytes, access, flags, file, offset);
}

int mprotect(void *address, size_t bytes, int access) {
    if (REFUSED) return -1;
    return (int)syscall(SYS_mprotect, address, bytes, access);
}

char *strdup(const char *text) {
    if (REFUSED) return NULL;
    size_t bytes = strlen(text) + 1;
    char *copy = __libc_malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*start)(void *), void *with) {
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (REFUSED) return EAGAIN;
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    return next(thread, how, start, with);
}
