/* Counts the file calls of a process below a folder, and lets one of them fail, write half, or kill the process.
 *
 * Loaded by LD_PRELOAD, so that it sees the calls of SQLite, which no layer in Python does. file_faults.py arms it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum category { WRITE = 1, CREATE = 2, OTHER = 4 };
enum kind { NONE, FAIL_ENOSPC, FULL, FAIL_EIO, SHORT, KILL };
enum verdict { PASS, FAIL, HALF };

#define PATH_SIZE 4096
#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static char folder[PATH_SIZE], part[PATH_SIZE];
static char hit[PATH_SIZE + 64];
static volatile int armed, kind, categories;
static volatile long number, taken, counts[5];

void fault_set_folder(const char *path) { snprintf(folder, sizeof folder, "%s", path); }

void fault_arm(int new_kind, int new_categories, long new_number, const char *new_part) {
    snprintf(part, sizeof part, "%s", new_part);
    kind = new_kind;
    categories = new_categories;
    number = new_number;
    taken = 0;
    memset((void *)counts, 0, sizeof counts);
    hit[0] = 0;
    armed = 1;
}

void fault_disarm(long *result) {
    armed = 0;
    for (int i = 0; i < 5; i++) result[i] = counts[i];
}

const char *fault_hit(void) { return hit; }

static void descriptor_path(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_SIZE - 1);
    path[length < 0 ? 0 : length] = 0;
}

static enum verdict judge(const char *call, int category, const char *path) {
    if (strncmp(path, folder, strlen(folder)) != 0 || !strstr(path, part)) return PASS;
    __sync_fetch_and_add(&counts[category], 1);
    if (!(category & categories) || number == 0) return PASS;
    long own = __sync_add_and_fetch(&taken, 1);
    if (own < number || (own > number && kind != FULL)) return PASS;
    if (!hit[0]) snprintf(hit, sizeof hit, "%s %s", call, path);
    if (kind == KILL) kill(getpid(), SIGKILL);
    if (kind == SHORT) return HALF;
    errno = kind == FAIL_EIO ? EIO : ENOSPC;
    return FAIL;
}

static enum verdict judge_path(const char *call, int category, int directory, const char *name) {
    if (!armed) return PASS;
    if (name[0] == '/') return judge(call, category, name);
    char path[PATH_SIZE], whole[2 * PATH_SIZE];
    if (directory != AT_FDCWD) descriptor_path(directory, path);
    else if (!getcwd(path, sizeof path)) return PASS;
    snprintf(whole, sizeof whole, "%s/%s", path, name);
    return judge(call, category, whole);
}

static enum verdict judge_descriptor(const char *call, int category, int descriptor) {
    if (!armed) return PASS;
    char path[PATH_SIZE];
    int before = errno;
    descriptor_path(descriptor, path);
    errno = before;
    return judge(call, category, path);
}

static size_t half(size_t count) { return count > 1 ? count / 2 : count; }

#define OPEN(name, directory, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list list; \
            va_start(list, flags); \
            mode = va_arg(list, mode_t); \
            va_end(list); \
        } \
        if (judge_path("open", flags & O_CREAT ? CREATE : OTHER, directory, path) == FAIL) return -1; \
        return real arguments; \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, directory, (int directory, const char *path, int flags, ...), (directory, path, flags, mode))
OPEN(openat64, directory, (int directory, const char *path, int flags, ...), (directory, path, flags, mode))

ssize_t write(int descriptor, const void *data, size_t count) {
    REAL(write);
    enum verdict verdict = judge_descriptor("write", WRITE, descriptor);
    return verdict == FAIL ? -1 : real(descriptor, data, verdict == HALF ? half(count) : count);
}

ssize_t pwrite(int descriptor, const void *data, size_t count, off_t offset) {
    REAL(pwrite);
    enum verdict verdict = judge_descriptor("pwrite", WRITE, descriptor);
    return verdict == FAIL ? -1 : real(descriptor, data, verdict == HALF ? half(count) : count, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t offset) {
    REAL(pwrite64);
    enum verdict verdict = judge_descriptor("pwrite", WRITE, descriptor);
    return verdict == FAIL ? -1 : real(descriptor, data, verdict == HALF ? half(count) : count, offset);
}

ssize_t sendfile(int target, int source, off_t *offset, size_t count) {
    REAL(sendfile);
    enum verdict verdict = judge_descriptor("sendfile", WRITE, target);
    return verdict == FAIL ? -1 : real(target, source, offset, verdict == HALF ? 1 : count);
}

ssize_t sendfile64(int target, int source, off64_t *offset, size_t count) {
    REAL(sendfile64);
    enum verdict verdict = judge_descriptor("sendfile", WRITE, target);
    return verdict == FAIL ? -1 : real(target, source, offset, verdict == HALF ? 1 : count);
}

#define ON_DESCRIPTOR(name, category, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        return judge_descriptor(#name, category, descriptor) == FAIL ? -1 : real arguments; \
    }

ON_DESCRIPTOR(fsync, CREATE, (int descriptor), (descriptor))
ON_DESCRIPTOR(fdatasync, CREATE, (int descriptor), (descriptor))
ON_DESCRIPTOR(syncfs, CREATE, (int descriptor), (descriptor))
ON_DESCRIPTOR(ftruncate, CREATE, (int descriptor, off_t length), (descriptor, length))
ON_DESCRIPTOR(ftruncate64, CREATE, (int descriptor, off64_t length), (descriptor, length))
ON_DESCRIPTOR(fchmod, OTHER, (int descriptor, mode_t mode), (descriptor, mode))

#define ON_PATH(name, category, parameters, directory, path, arguments) \
    int name parameters { \
        REAL(name); \
        return judge_path(#name, category, directory, path) == FAIL ? -1 : real arguments; \
    }

ON_PATH(mkdir, CREATE, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
ON_PATH(mkdirat, CREATE, (int directory, const char *path, mode_t mode), directory, path, (directory, path, mode))
ON_PATH(unlink, OTHER, (const char *path), AT_FDCWD, path, (path))
ON_PATH(unlinkat, OTHER, (int directory, const char *path, int flags), directory, path, (directory, path, flags))
ON_PATH(rmdir, OTHER, (const char *path), AT_FDCWD, path, (path))
ON_PATH(chmod, OTHER, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
ON_PATH(rename, CREATE, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(renameat, CREATE, (int one, const char *from, int other, const char *to), other, to, (one, from, other, to))
ON_PATH(link, CREATE, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(linkat, CREATE, (int one, const char *from, int other, const char *to, int flags), other, to,
        (one, from, other, to, flags))
ON_PATH(symlink, CREATE, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(symlinkat, CREATE, (const char *from, int directory, const char *to), directory, to, (from, directory, to))
