/* Records what a process does to the files below one directory, in the order in
 * which it happens, and can play a full or failing disk. It decides nothing:
 * disk.rs knows what a crash leaves of it.
 *
 *   MT_SHIM_DIR    absolute path of the directory
 *   MT_SHIM_TRACE  file that the record is appended to
 *   MT_SHIM_FAULT  while this file exists its text says what fails: "full" any
 *                  write, "full:PART" writes to paths that hold PART, "sync"
 *                  syncs of data
 *
 * One lock is held over each operation and its record, so the record's order is
 * the order on the disk.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FD_MAX 4096

enum { OPEN = 1, WRITE, TRUNCATE, SYNC, RANGE_SYNC, RENAME, UNLINK, MAKE_DIR, CLOSE, PRINT };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *dir, *fault_path;
static int trace = -1;
static char *paths[FD_MAX]; /* of the descriptors that are followed */
static int cut_short;       /* the last write was cut short: the next one fails */

__attribute__((constructor)) static void start(void) {
    dir = getenv("MT_SHIM_DIR");
    fault_path = getenv("MT_SHIM_FAULT");
    const char *path = getenv("MT_SHIM_TRACE");
    if (path) trace = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int below(const char *path) {
    return dir && path && strncmp(path, dir, strlen(dir)) == 0;
}

static int followed(int fd) { return fd >= 0 && fd < FD_MAX && paths[fd]; }

static void put(uint32_t op, int fd, uint64_t at, const void *a, uint32_t a_len, const void *b, uint32_t b_len) {
    if (trace < 0) return;
    struct { uint32_t op, fd; uint64_t at; uint32_t a_len, b_len; } head = {op, (uint32_t)fd, at, a_len, b_len};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)a, a_len}, {(void *)b, b_len}};
    size_t want = sizeof head + a_len + b_len;
    if (syscall(SYS_writev, trace, parts, 3) != (ssize_t)want) abort();
}

static int faulty(const char *kind, const char *path) {
    char text[128];
    if (!fault_path) return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, fault_path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length < 0) return 0;
    text[length] = 0;
    char *part = strchr(text, ':');
    if (part) *part++ = 0;
    return strcmp(text, kind) == 0 && (!part || strstr(path, part));
}

static int open_at(const char *path, int flags, mode_t mode) {
    if (!below(path)) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&lock);
    int created = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < FD_MAX) {
        int error = errno;
        free(paths[fd]);
        paths[fd] = strdup(path);
        put(OPEN, fd, (created ? 1 : 0) | (flags & O_TRUNC ? 2 : 0), path, strlen(path), NULL, 0);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list list) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, int) : 0;
}

#define OPENER(name)                                   \
    int name(const char *path, int flags, ...) {       \
        va_list list;                                  \
        va_start(list, flags);                         \
        mode_t mode = mode_of(flags, list);            \
        va_end(list);                                  \
        return open_at(path, flags, mode);             \
    }
OPENER(open)
OPENER(open64)

int close(int fd) {
    if (!followed(fd)) return syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    put(CLOSE, fd, 0, NULL, 0, NULL, 0);
    free(paths[fd]);
    paths[fd] = NULL;
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t write_at(int fd, const void *data, size_t length, off_t at, int moves) {
    pthread_mutex_lock(&lock);
    ssize_t done;
    if (length && faulty("full", paths[fd])) {
        cut_short = !cut_short;
        if (!cut_short || length < 2) {
            pthread_mutex_unlock(&lock);
            errno = ENOSPC;
            return -1;
        }
        length /= 2;
    }
    if (moves) {
        at = syscall(SYS_lseek, fd, 0, SEEK_CUR);
        done = syscall(SYS_write, fd, data, length);
    } else {
        done = syscall(SYS_pwrite64, fd, data, length, at);
    }
    int error = errno;
    if (done > 0) put(WRITE, fd, at, data, done, NULL, 0);
    errno = error;
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    if (fd == STDOUT_FILENO) {
        pthread_mutex_lock(&lock);
        ssize_t done = syscall(SYS_write, fd, data, length);
        if (done > 0) put(PRINT, fd, 0, data, done, NULL, 0);
        pthread_mutex_unlock(&lock);
        return done;
    }
    if (!followed(fd)) return syscall(SYS_write, fd, data, length);
    return write_at(fd, data, length, 0, 1);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    if (!followed(fd)) return syscall(SYS_pwrite64, fd, data, length, at);
    return write_at(fd, data, length, at, 0);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) { return pwrite(fd, data, length, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!followed(fd) || count == 0) return syscall(SYS_writev, fd, parts, count);
    return write(fd, parts[0].iov_base, parts[0].iov_len); /* a short write is a write */
}

int ftruncate(int fd, off_t length) {
    if (!followed(fd)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0) put(TRUNCATE, fd, length, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

static int sync_with(long call, int fd) {
    if (!followed(fd)) return syscall(call, fd);
    pthread_mutex_lock(&lock);
    if (faulty("sync", paths[fd])) {
        pthread_mutex_unlock(&lock);
        errno = EIO;
        return -1;
    }
    int result = syscall(call, fd);
    if (result == 0) put(SYNC, fd, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int fd) { return sync_with(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }

int sync_file_range(int fd, off64_t at, off64_t length, unsigned int flags) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_sync_file_range, fd, at, length, flags);
    if (result == 0 && followed(fd)) put(RANGE_SYNC, fd, at, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0 && below(from)) put(RENAME, -1, 0, from, strlen(from), to, strlen(to));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0 && below(path)) put(UNLINK, -1, 0, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (result == 0 && below(path)) put(MAKE_DIR, -1, 0, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
