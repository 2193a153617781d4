/* SPDX-License-Identifier: Apache-2.0 */

/* Time for the devices: CLOCK_BOOTTIME, plus what a test adds through a file that it shares with the
 * test build of gatewayd. Two native int64: seconds for both of gatewayd's clocks, and seconds for its
 * wall clock alone, which devices do not have. */

#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t real_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_BOOTTIME, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int test_clock_open(struct test_clock *clock, const char *path) {
        struct stat status;
        void *map;
        int fd, r = 0;

        clock->offsets = NULL;
        if (!path)
                return 0;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &status) < 0)
                r = -errno;
        else if (status.st_size < (off_t)(2 * sizeof(int64_t)) && ftruncate(fd, 2 * sizeof(int64_t)) < 0)
                r = -errno;
        if (r == 0) {
                map = mmap(NULL, 2 * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                if (map == MAP_FAILED)
                        r = -errno;
                else
                        clock->offsets = map;
        }
        close(fd);
        return r;
}

void test_clock_advance(struct test_clock *clock, int64_t seconds) {
        __atomic_fetch_add(&clock->offsets[0], seconds, __ATOMIC_SEQ_CST);
}

void test_clock_set_wall(struct test_clock *clock, int64_t seconds) {
        __atomic_store_n(&clock->offsets[1], seconds, __ATOMIC_SEQ_CST);
}

int64_t test_clock_offset(const struct test_clock *clock) {
        return clock->offsets ? __atomic_load_n(&clock->offsets[0], __ATOMIC_SEQ_CST) : 0;
}

uint64_t test_clock_device_ms(const struct test_clock *clock) {
        return real_ms() + (uint64_t)test_clock_offset(clock) * 1000;
}
