/* A disk that is full from the k-th write on, one without inodes, a clock that jumps: in one process and its children.
 *
 * Preloaded (LD_PRELOAD) by bench/limits.py; programs that do not use the C library's calls are not held to it.
 *   LIMIT_COUNTER  a file of 16 bytes that all processes of a run share: events so far; when the first process began
 *   LIMIT_KIND     "writes": writing to a regular file; "inodes": making a file, folder or link
 *   LIMIT_FROM     the number of the first such event that fails, with ENOSPC, as all after it do
 *   LIMIT_CLOCK_S  seconds that CLOCK_REALTIME jumps by, LIMIT_CLOCK_AFTER_MS after the run began
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct shared {
    _Atomic long events;
    _Atomic long began_ms;
} *shared;
static int writes, inodes;
static long from, jump, after_ms;

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static long now_ms(void) {
    struct timespec t;
    REAL(clock_gettime)(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

__attribute__((constructor)) static void begin(void) {
    const char *counter = getenv("LIMIT_COUNTER"), *kind = getenv("LIMIT_KIND");
    const char *first = getenv("LIMIT_FROM"), *clock = getenv("LIMIT_CLOCK_S"), *after = getenv("LIMIT_CLOCK_AFTER_MS");
    if (!counter)
        return;
    int fd = REAL(open)(counter, O_RDWR | O_CLOEXEC);
    void *place = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (place == MAP_FAILED)
        return;
    shared = place;
    long none = 0;
    atomic_compare_exchange_strong(&shared->began_ms, &none, now_ms());
    writes = kind && !strcmp(kind, "writes");
    inodes = kind && !strcmp(kind, "inodes");
    from = first ? atol(first) : 0;
    jump = clock ? atol(clock) : 0;
    after_ms = after ? atol(after) : 0;
}

static int full(void) {
    if (atomic_fetch_add(&shared->events, 1) + 1 < from)
        return 0;
    errno = ENOSPC;
    return 1;
}

static int no_room(int fd) {
    struct stat about;
    return shared && writes && !fstat(fd, &about) && S_ISREG(about.st_mode) && full();
}

static int no_inode(int folder, const char *path) {
    struct stat about;
    return shared && inodes && fstatat(folder, path, &about, AT_SYMLINK_NOFOLLOW) && errno == ENOENT && full();
}

ssize_t write(int fd, const void *data, size_t size) { return no_room(fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return no_room(fd) ? -1 : REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return no_room(fd) ? -1 : REAL(pwrite64)(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return no_room(fd) ? -1 : REAL(writev)(fd, parts, count); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return no_room(fd) ? -1 : REAL(pwritev)(fd, parts, count, at); }
ssize_t sendfile(int out, int in, off_t *at, size_t size) { return no_room(out) ? -1 : REAL(sendfile)(out, in, at, size); }
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { return no_room(out) ? -1 : REAL(sendfile64)(out, in, at, size); }
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t size, unsigned flags) {
    return no_room(out) ? -1 : REAL(copy_file_range)(in, a, out, b, size, flags);
}
int posix_fallocate(int fd, off_t at, off_t size) { return no_room(fd) ? ENOSPC : REAL(posix_fallocate)(fd, at, size); }
int fallocate(int fd, int mode, off_t at, off_t size) { return no_room(fd) ? -1 : REAL(fallocate)(fd, mode, at, size); }
int fsync(int fd) { return no_room(fd) ? -1 : REAL(fsync)(fd); }

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) {
    MODE
    return (flags & O_CREAT) && no_inode(AT_FDCWD, path) ? -1 : REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE
    return (flags & O_CREAT) && no_inode(AT_FDCWD, path) ? -1 : REAL(open64)(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    MODE
    return (flags & O_CREAT) && no_inode(folder, path) ? -1 : REAL(openat)(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE
    return (flags & O_CREAT) && no_inode(folder, path) ? -1 : REAL(openat64)(folder, path, flags, mode);
}
int mkdir(const char *path, mode_t mode) { return no_inode(AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return no_inode(folder, path) ? -1 : REAL(mkdirat)(folder, path, mode); }
int symlink(const char *to, const char *path) { return no_inode(AT_FDCWD, path) ? -1 : REAL(symlink)(to, path); }
int symlinkat(const char *to, int folder, const char *path) { return no_inode(folder, path) ? -1 : REAL(symlinkat)(to, folder, path); }

static long shift(void) { return shared && jump && now_ms() - shared->began_ms >= after_ms ? jump : 0; }

int clock_gettime(clockid_t which, struct timespec *t) {
    int failed = REAL(clock_gettime)(which, t);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        t->tv_sec += shift();
    return failed;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    int failed = REAL(gettimeofday)(t, zone);
    if (!failed)
        t->tv_sec += shift();
    return failed;
}
time_t time(time_t *place) {
    struct timespec t;
    REAL(clock_gettime)(CLOCK_REALTIME, &t);
    t.tv_sec += shift();
    return place ? (*place = t.tv_sec) : t.tv_sec;
}
