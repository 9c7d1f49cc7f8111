/* Lets the k-th call of one function fail. FAULT_CALL names the function, FAULT_AT counts from 0, FAULT_ERRNO is what it says; 0 makes
   a write or read that does half of what it was asked. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static long left = -1;
static int error;
static const char *call;

__attribute__((constructor)) static void begin(void) {
    call = getenv("FAULT_CALL");
    if (call == NULL) return;
    error = atoi(getenv("FAULT_ERRNO"));
    left = atol(getenv("FAULT_AT"));
}

static int hit(const char *name) {
    if (call == NULL || strcmp(call, name) != 0) return 0;
    return __sync_fetch_and_sub(&left, 1) == 0;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (fd > 2 && hit("write")) {
        if (error == 0) return real(fd, data, (size + 1) / 2);
        errno = error;
        return -1;
    }
    return real(fd, data, size);
}

ssize_t read(int fd, void *data, size_t size) {
    REAL(read);
    if (fd > 2 && hit("read")) {
        if (error == 0) return real(fd, data, (size + 1) / 2);
        errno = error;
        return -1;
    }
    return real(fd, data, size);
}

#define FAILS(name) if (hit(name)) { errno = error; return -1; }

int fsync(int fd) {
    REAL(fsync);
    FAILS("fsync");
    return real(fd);
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    FAILS("ftruncate64");
    return real(fd, size);
}

off64_t lseek64(int fd, off64_t offset, int from) {
    REAL(lseek64);
    FAILS("lseek64");
    return real(fd, offset, from);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    FAILS("open64");
    return real(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    FAILS("mkdir");
    return real(path, mode);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    FAILS("rename");
    return real(from, to);
}

/* Sockets: half of what was asked is done where the error is 0. */
ssize_t recv(int fd, void *data, size_t size, int flags) {
    REAL(recv);
    if (hit("recv")) {
        if (error == 0) return real(fd, data, (size + 1) / 2, flags);
        errno = error;
        return -1;
    }
    return real(fd, data, size, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(send);
    if (hit("send")) {
        if (error == 0) return real(fd, data, (size + 1) / 2, flags);
        errno = error;
        return -1;
    }
    return real(fd, data, size, flags);
}

int symlink(const char *target, const char *path) {
    REAL(symlink);
    FAILS("symlink");
    return real(target, path);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    FAILS("fdatasync");
    return real(fd);
}

int flock(int fd, int operation) {
    REAL(flock);
    FAILS("flock");
    return real(fd, operation);
}
