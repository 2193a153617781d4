/* SPDX-License-Identifier: Apache-2.0 */

/* For LD_PRELOAD before libfaketime, so that it can run inside gatewayd's roles as they are, walled in:
 *
 *   - its shared memory and semaphore would be files in /dev/shm, which the wall forbids: each process gets its own;
 *   - south and north may open no files at all, and need no calendar: for them the time is not faked;
 *   - it takes its offset off timers on CLOCK_MONOTONIC too, though told to leave that clock alone: timers are set by
 *     the system call itself. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

int timerfd_settime(int fd, int flags, const struct itimerspec *new_value, struct itimerspec *old_value) {
        return (int)syscall(SYS_timerfd_settime, fd, flags, new_value, old_value);
}

sem_t *sem_open(const char *name, int flags, ...) {
        static sem_t semaphore; /* it opens one */

        (void)name;
        (void)flags;
        return sem_init(&semaphore, 0, 1) < 0 ? SEM_FAILED : &semaphore;
}

int sem_close(sem_t *semaphore) {
        (void)semaphore;
        return 0;
}

int sem_unlink(const char *name) {
        (void)name;
        return 0;
}

/* The size that libfaketime maps is set by whoever makes it; a page is more than enough. */
int shm_open(const char *name, int flags, mode_t mode) {
        int fd = (int)syscall(SYS_memfd_create, name, 0u);

        (void)flags;
        (void)mode;
        if (fd >= 0 && ftruncate(fd, sysconf(_SC_PAGESIZE)) < 0) {
                close(fd);
                return -1;
        }
        return fd;
}

int shm_unlink(const char *name) {
        (void)name;
        return 0;
}

/* Asked for the first time before the role locks itself in. */
static int opens_no_files(void) {
        static int answer = -1;
        char line[256] = "";
        ssize_t n;
        int fd;

        if (answer >= 0)
                return answer;
        answer = 0;
        fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
        if (fd >= 0)
                close(fd);
        for (ssize_t i = 0; i < n; i += (ssize_t)strlen(line + i) + 1)
                answer |= strcmp(line + i, "south") == 0 || strcmp(line + i, "north") == 0;
        return answer;
}

char *getenv(const char *name) {
        static char *(*real)(const char *);
        static char none[] = "+0";

        if (!real)
                real = (char *(*)(const char *))dlsym(RTLD_NEXT, "getenv");
        if (strncmp(name, "FAKETIME", 8) == 0 && opens_no_files()) {
                if (strcmp(name, "FAKETIME") == 0)
                        return none;
                if (strcmp(name, "FAKETIME_TIMESTAMP_FILE") == 0)
                        return NULL;
        }
        return real(name);
}
