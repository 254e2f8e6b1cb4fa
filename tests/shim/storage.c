/* Below the program: every storage operation under one directory, counted, recorded, and cut on cue.
 *
 * Preloaded into an unmodified program (LD_PRELOAD), it stands in for the C library's calls that change files:
 *
 *   SHIM_DIR     the directory, absolute and without symbolic links; what happens elsewhere is let through
 *   SHIM_RECORD  a file outside of it that gets one record for each operation, in the order in which they happened
 *   SHIM_DATA    set: the records hold what was written, too
 *   SHIM_AT      K:before, K:half or K:after: the process kills itself with SIGKILL there
 *
 * A record is a line `KIND OK OFFSET LENGTH DATA FIRST SECOND`, all but the first numbers: OK is 1 if the system did it,
 * DATA, FIRST and SECOND are the lengths of what follows the line: two paths, relative to the directory, and the bytes.
 * A write of nothing but zeros has no bytes: LENGTH says how many.
 *
 * Operations are made one after the other, under one lock: so the record's order is the true one, and nothing of the
 * process gets any further once it is being killed. Calls that do not go through the C library are not seen; of this
 * program that is one, the allocation of the ballast.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum side { NOWHERE, BEFORE, HALF, AFTER };

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static char dir[PATH_MAX];
static size_t dir_length;
static int record = -1;
static int with_data;
static long cut_at;
static enum side cut_side;
static long operations;

__attribute__((constructor)) static void begin(void) {
    const char *watched = getenv("SHIM_DIR");
    if (!watched || !*watched || strlen(watched) + 2 > sizeof dir) return;
    const char *file = getenv("SHIM_RECORD");
    /* Opened by the system directly: below, these calls are ours. */
    if (file && *file)
        record = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    with_data = getenv("SHIM_DATA") != NULL;
    const char *cut = getenv("SHIM_AT");
    if (cut) {
        char *end;
        cut_at = strtol(cut, &end, 10);
        cut_side = !strcmp(end, ":before") ? BEFORE : !strcmp(end, ":half") ? HALF : !strcmp(end, ":after") ? AFTER : NOWHERE;
        if (cut_at < 1 || cut_side == NOWHERE) {
            fprintf(stderr, "SHIM_AT=%s is none of K:before, K:half and K:after\n", cut);
            _exit(2);
        }
    }
    strcpy(dir, watched);
    dir_length = strlen(dir);
}

/* ---- Which paths are watched ---- */

/* The path within the directory; NULL if it lies elsewhere, as one that goes up may. */
static const char *within(const char *path) {
    if (!dir_length || strncmp(path, dir, dir_length) || strstr(path + dir_length, "/../")) return NULL;
    if (!path[dir_length]) return ".";
    return path[dir_length] == '/' && path[dir_length + 1] ? path + dir_length + 1 : NULL;
}

static int name_of(int fd, char *name) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, name, PATH_MAX - 1);
    if (length < 0) return -1;
    name[length] = 0;
    return 0;
}

/* The file behind a descriptor. One that was unlinked is nobody's any more. */
static const char *watched_fd(int fd, char *buffer) {
    if (!dir_length) return NULL;
    int before = errno;
    const char *found = name_of(fd, buffer) == 0 ? within(buffer) : NULL;
    errno = before;
    if (!found) return NULL;
    size_t length = strlen(found), mark = strlen(" (deleted)");
    return length > mark && !strcmp(found + length - mark, " (deleted)") ? NULL : found;
}

static const char *watched_path(int at, const char *path, char *buffer) {
    if (!dir_length || !path) return NULL;
    if (*path == '/') {
        if (strlen(path) >= PATH_MAX) return NULL;
        strcpy(buffer, path);
    } else {
        int before = errno;
        char base[PATH_MAX];
        int found = at == AT_FDCWD ? (getcwd(base, sizeof base) ? 0 : -1) : name_of(at, base);
        errno = before;
        if (found != 0) return NULL;
        if (snprintf(buffer, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return NULL;
    }
    return within(buffer);
}

/* ---- Counting, cutting, recording ---- */

struct operation {
    const char *kind, *first, *second;
    long long offset, length;
    const void *data;
};

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* Takes the lock. Returns whether only half of the operation is to be done. */
static int enter(void) {
    pthread_mutex_lock(&one_at_a_time);
    operations++;
    if (cut_side == NOWHERE || operations != cut_at) return 0;
    if (cut_side == BEFORE) die();
    return cut_side == HALF;
}

static void put(const void *bytes, size_t length) {
    const char *next = bytes;
    while (length) {
        ssize_t put = syscall(SYS_write, record, next, length);
        if (put < 0) {
            if (errno == EINTR) continue;
            /* A record with a hole would tell lies. */
            abort();
        }
        next += put;
        length -= put;
    }
}

static int is_zero(const char *bytes, size_t length) {
    return length == 0 || (bytes[0] == 0 && !memcmp(bytes, bytes + 1, length - 1));
}

static void leave(struct operation op, int ok) {
    int before = errno;
    if (record >= 0) {
        int kept = ok && with_data && op.data && !is_zero(op.data, op.length);
        char head[160];
        size_t first = strlen(op.first), second = op.second ? strlen(op.second) : 0;
        int length = snprintf(head, sizeof head, "%s %d %lld %lld %lld %zu %zu\n", op.kind, ok, op.offset, op.length,
                              kept ? op.length : 0, first, second);
        put(head, length);
        put(op.first, first);
        if (second) put(op.second, second);
        if (kept) put(op.data, op.length);
    }
    if (cut_side != NOWHERE && operations == cut_at) die();
    errno = before;
    pthread_mutex_unlock(&one_at_a_time);
}

/* Half of what cannot be halved is nothing. */
#define WHOLE_OR_NOTHING() do { if (enter()) die(); } while (0)

/* ---- Opening ---- */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *file = flags & (O_CREAT | O_TRUNC) ? watched_path(at, path, buffer) : NULL;
    struct stat found;
    int there = file && syscall(SYS_newfstatat, at, path, &found, 0) == 0;
    /* What opens a file that is there changes nothing. */
    if (!file || (there && !(flags & O_TRUNC && found.st_size > 0))) return syscall(SYS_openat, at, path, flags, mode);
    WHOLE_OR_NOTHING();
    int fd = syscall(SYS_openat, at, path, flags, mode);
    leave((struct operation){there ? "truncate" : "create", file, NULL, 0, 0, NULL}, fd >= 0);
    return fd;
}

#define MODE(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & O_CREAT) {                                                                                           \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_at(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ---- Writing ---- */

static ssize_t do_write(int fd, const void *bytes, size_t length, off_t offset) {
    return offset < 0 ? syscall(SYS_write, fd, bytes, length) : syscall(SYS_pwrite64, fd, bytes, length, offset);
}

/* `offset` -1: where the descriptor stands. */
static ssize_t write_to(int fd, const char *file, const void *bytes, size_t length, off_t offset) {
    int half = enter();
    off_t at = offset;
    if (offset < 0) {
        struct stat found;
        int appends = (fcntl(fd, F_GETFL) & O_APPEND) != 0;
        at = appends && fstat(fd, &found) == 0 ? found.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t written = do_write(fd, bytes, half ? length / 2 : length, offset);
    leave((struct operation){"write", file, NULL, at, written < 0 ? 0 : written, bytes}, written >= 0);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    char buffer[PATH_MAX];
    const char *file = watched_fd(fd, buffer);
    return file ? write_to(fd, file, bytes, length, -1) : do_write(fd, bytes, length, -1);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    char buffer[PATH_MAX];
    const char *file = watched_fd(fd, buffer);
    return file ? write_to(fd, file, bytes, length, offset) : do_write(fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

static ssize_t write_parts(int fd, const struct iovec *parts, int count, off_t offset) {
    char buffer[PATH_MAX];
    const char *file = watched_fd(fd, buffer);
    if (!file) return offset < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
    size_t length = 0, at = 0;
    for (int part = 0; part < count; part++) length += parts[part].iov_len;
    char *bytes = malloc(length ? length : 1);
    if (!bytes) {
        errno = ENOMEM;
        return -1;
    }
    for (int part = 0; part < count; part++) {
        memcpy(bytes + at, parts[part].iov_base, parts[part].iov_len);
        at += parts[part].iov_len;
    }
    ssize_t written = write_to(fd, file, bytes, length, offset);
    free(bytes);
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int count) { return write_parts(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return write_parts(fd, parts, count, offset); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return write_parts(fd, parts, count, offset); }

/* What is copied within the system is not seen here: the program is told that it cannot be, and writes it itself. */
ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t length, unsigned flags) {
    char buffer[PATH_MAX];
    if (watched_fd(to, buffer)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, length, flags);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) {
    char buffer[PATH_MAX];
    if (watched_fd(to, buffer)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_sendfile, to, from, offset, length);
}

/* ---- Operations on a descriptor that are done or not ---- */

#define ON_FD(kind, offset, length, call)                                                                              \
    char buffer[PATH_MAX];                                                                                             \
    const char *file = watched_fd(fd, buffer);                                                                         \
    if (!file) return call;                                                                                            \
    WHOLE_OR_NOTHING();                                                                                                \
    int result = call;                                                                                                 \
    leave((struct operation){kind, file, NULL, offset, length, NULL}, result == 0);                                    \
    return result;

int fsync(int fd) { ON_FD("sync", 0, 0, syscall(SYS_fsync, fd)) }
int fdatasync(int fd) { ON_FD("sync_data", 0, 0, syscall(SYS_fdatasync, fd)) }
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    ON_FD("sync_range", offset, length, syscall(SYS_sync_file_range, fd, offset, length, flags))
}
int ftruncate64(int fd, off64_t length) { ON_FD("truncate", 0, length, syscall(SYS_ftruncate, fd, length)) }
int ftruncate(int fd, off_t length) { ON_FD("truncate", 0, length, syscall(SYS_ftruncate, fd, length)) }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    ON_FD("allocate", offset, length, syscall(SYS_fallocate, fd, mode, offset, length))
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
    ON_FD("allocate", offset, length, syscall(SYS_fallocate, fd, mode, offset, length))
}
int futimens(int fd, const struct timespec times[2]) { ON_FD("times", 0, 0, syscall(SYS_utimensat, fd, NULL, times, 0)) }

/* ---- Names ---- */

#define ON_PATH(kind, at, path, call)                                                                                  \
    char buffer[PATH_MAX];                                                                                             \
    const char *file = watched_path(at, path, buffer);                                                                 \
    if (!file) return call;                                                                                            \
    WHOLE_OR_NOTHING();                                                                                                \
    int result = call;                                                                                                 \
    leave((struct operation){kind, file, NULL, 0, 0, NULL}, result == 0);                                              \
    return result;

int unlinkat(int at, const char *path, int flags) {
    ON_PATH(flags & AT_REMOVEDIR ? "rmdir" : "unlink", at, path, syscall(SYS_unlinkat, at, path, flags))
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int at, const char *path, mode_t mode) { ON_PATH("mkdir", at, path, syscall(SYS_mkdirat, at, path, mode)) }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int to_name(const char *kind, int at, const char *from, int to_at, const char *to, int is_link, unsigned flags) {
    char buffers[2][PATH_MAX];
    const char *first = watched_path(at, from, buffers[0]), *second = watched_path(to_at, to, buffers[1]);
    if (first || second) WHOLE_OR_NOTHING();
    int result = is_link ? syscall(SYS_linkat, at, from, to_at, to, flags) : syscall(SYS_renameat2, at, from, to_at, to, flags);
    /* What comes from elsewhere, or goes there, has no name here. */
    if (first || second) leave((struct operation){kind, first ? first : "", second, 0, 0, NULL}, result == 0);
    return result;
}

int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) {
    return to_name("rename", at, from, to_at, to, 0, flags);
}
int renameat(int at, const char *from, int to_at, const char *to) { return renameat2(at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    return to_name("link", at, from, to_at, to, 1, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
