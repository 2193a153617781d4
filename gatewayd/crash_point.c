/* SPDX-License-Identifier: Apache-2.0 */

/* Ends the process before a chosen one of the places that change the store or pass a frame on. Nothing of it is
 * in the build that is installed. */

#include "gatewayd/crash_point.h"

#ifdef GATEWAYD_TESTCLOCK

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int64_t *points; /* passed; the fatal one. The first is counted by the barrier thread too. */
static bool is_told;

/* At the first point, before the process is locked in: no file is opened after that. */
static void map_points(void) {
        const char *path = getenv("GATEWAYD_TEST_CRASH");
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        void *map;

        if (fd < 0)
                return;
        map = mmap(NULL, 2 * sizeof *points, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        points = map == MAP_FAILED ? NULL : map;
        is_told = getenv("GATEWAYD_TEST_CRASH_TELL") != NULL;
        close(fd);
}

void crash_point(const char *what) {
        int64_t number;

        (void)pthread_once(&once, map_points); /* cannot fail with these arguments */
        if (!points)
                return;
        number = __atomic_add_fetch(&points[0], 1, __ATOMIC_ACQ_REL);
        if (is_told)
                dprintf(STDERR_FILENO, "point %lld: %.100s\n", (long long)number, what);
        if (number == __atomic_load_n(&points[1], __ATOMIC_ACQUIRE)) {
                (void)raise(SIGKILL); /* tgkill(2): the wall lets a role signal itself */
                _exit(EXIT_FAILURE);
        }
}

#endif
