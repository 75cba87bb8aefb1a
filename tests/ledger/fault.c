/* Faults of a disk for one process: while the file named by FAULT_FILE holds "fsync", nothing can be synced; while it holds
   "readonly", nothing can be written or opened for writing. Only files whose name holds "ledger.db" are meant. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int faulty(const char *kind) {
    char text[16] = "";
    const char *name = getenv("FAULT_FILE");
    FILE *file = name ? fopen(name, "r") : NULL;
    if (!file) return 0;
    if (!fgets(text, sizeof text, file)) text[0] = 0;
    fclose(file);
    return strcmp(text, kind) == 0;
}

static int is_ledger(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "ledger.db") != NULL;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(condition, error) if (condition) { errno = error; return -1; }

int fsync(int fd) { FAIL(is_ledger(fd) && faulty("fsync"), EIO) return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL(is_ledger(fd) && faulty("fsync"), EIO) return REAL(fdatasync)(fd); }
int ftruncate64(int fd, off64_t to) { FAIL(is_ledger(fd) && faulty("readonly"), EROFS) return REAL(ftruncate64)(fd, to); }
ssize_t write(int fd, const void *bytes, size_t count) {
    FAIL(is_ledger(fd) && faulty("readonly"), EROFS) return REAL(write)(fd, bytes, count);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    FAIL(is_ledger(fd) && faulty("readonly"), EROFS) return REAL(pwrite64)(fd, bytes, count, at);
}
int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    FAIL((flags & O_ACCMODE) != O_RDONLY && strstr(path, "ledger.db") && faulty("readonly"), EROFS)
    return REAL(open64)(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    return open64(path, flags, mode);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }
int ftruncate(int fd, off_t to) { return ftruncate64(fd, to); }
