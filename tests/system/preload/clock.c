/* SPDX-License-Identifier: Apache-2.0 */

/* Clocks that a test moves, for LD_PRELOAD: the calendar is off by the seconds that stand as text in
 * the file $TEST_CLOCK_OFFSET (looked up each time), and CLOCK_MONOTONIC runs $TEST_CLOCK_RATE times
 * as fast. Timers of the kernel keep their own time. */

#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset_sec(void) {
        const char *path = getenv("TEST_CLOCK_OFFSET");
        char text[32] = "";
        int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

        if (fd < 0)
                return 0;
        if (read(fd, text, sizeof text - 1) < 0)
                text[0] = 0;
        close(fd);
        return atol(text);
}

static void hurry(struct timespec *now) {
        static struct timespec start;
        const char *rate = getenv("TEST_CLOCK_RATE");
        long long passed;

        if (!rate)
                return;
        if (start.tv_sec == 0)
                start = *now;
        passed = (now->tv_sec - start.tv_sec) * 1000000000LL + now->tv_nsec - start.tv_nsec;
        passed = passed * atoi(rate) + start.tv_nsec;
        now->tv_sec = start.tv_sec + (time_t)(passed / 1000000000LL);
        now->tv_nsec = (long)(passed % 1000000000LL);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
        int r = (int)syscall(SYS_clock_gettime, clock, now);

        if (r == 0 && clock == CLOCK_REALTIME)
                now->tv_sec += offset_sec();
        if (r == 0 && clock == CLOCK_MONOTONIC)
                hurry(now);
        return r;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
        struct timespec precise;

        (void)zone;
        clock_gettime(CLOCK_REALTIME, &precise);
        now->tv_sec = precise.tv_sec;
        now->tv_usec = precise.tv_nsec / 1000;
        return 0;
}

time_t time(time_t *ret) {
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        if (ret)
                *ret = now.tv_sec;
        return now.tv_sec;
}
