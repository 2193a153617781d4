/* SPDX-License-Identifier: Apache-2.0 */

/* The ratchet. clock_advance() is pure; only clock_read() looks at the machine. */

#include "gatewayd/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

int64_t moment_powered_age(const struct moment *now, const struct moment *then) {
        return now->powered_sec > then->powered_sec ? now->powered_sec - then->powered_sec : 0;
}

int64_t moment_wall_age(const struct moment *now, const struct moment *then) {
        if (!now->wall_trusted || then->quality == CLOCK_UNKNOWN)
                return -1;
        return now->wall > then->wall ? now->wall - then->wall : 0;
}

int64_t moment_age(const struct moment *now, const struct moment *then) {
        int64_t powered = moment_powered_age(now, then), wall = moment_wall_age(now, then);

        return wall > powered ? wall : powered;
}

/* Powered-on time since the last reading: within one boot the difference, after another boot all of
 * its uptime so far (time since the last record of the boot before is lost, never invented). */
static int64_t powered_since(const struct clock *clock, const struct clock_reading *reading) {
        int64_t passed = reading->boottime_sec;

        if (strcmp(clock->boot_id, reading->boot_id) == 0)
                passed -= clock->boottime_sec;
        return passed > 0 ? passed : 0;
}

struct moment clock_advance(struct clock *clock, const struct clock_reading *reading) {
        bool is_first = clock->boot_id[0] == 0;
        bool same_boot = strcmp(clock->boot_id, reading->boot_id) == 0;
        int64_t passed = powered_since(clock, reading);
        int64_t outran;
        struct moment now;
        bool is_behind;

        clock->powered_sec += passed;
        clock->boottime_sec = reading->boottime_sec;
        memcpy(clock->boot_id, reading->boot_id, sizeof clock->boot_id);
        if (!same_boot)
                clock->was_synchronized = false;
        if (reading->is_synchronized)
                clock->was_synchronized = true;

        /* The floor moves with time that certainly passed; a reading beyond it lifts it at once. */
        clock->floor += passed;
        outran = reading->wall - clock->floor;
        if (outran > 0)
                clock->floor = reading->wall;
        if (outran > CLOCK_JUMP_SEC && !is_first)
                clock->hold_until_powered = clock->powered_sec + CLOCK_HOLD_SEC;
        else if (clock->hold_until_powered != 0 && clock->powered_sec >= clock->hold_until_powered)
                clock->hold_until_powered = 0;

        /* A floor that a wrong clock once lifted far above is not what the machine is synchronized to. */
        is_behind = reading->wall + CLOCK_JUMP_SEC < clock->floor;
        now = (struct moment){
                .wall = clock->floor,
                .powered_sec = clock->powered_sec,
                .quality = is_behind                  ? CLOCK_UNKNOWN
                           : reading->is_synchronized ? CLOCK_SYNCHRONIZED
                           : clock->was_synchronized  ? CLOCK_HELD
                                                      : CLOCK_UNKNOWN,
        };
        now.wall_trusted = now.quality != CLOCK_UNKNOWN && clock->hold_until_powered == 0;
        return now;
}

#ifdef GATEWAYD_TESTCLOCK
/* Two offsets that a test moves while the daemon runs: the first is added to both clocks, the second
 * to the wall clock alone. */
static const int64_t *test_offsets(void) {
        static const int64_t *offsets;
        static bool is_tried;
        const char *path;
        int fd;

        if (is_tried)
                return offsets;
        is_tried = true;
        path = getenv("GATEWAYD_TEST_CLOCK");
        fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (fd >= 0) {
                void *map = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

                offsets = map == MAP_FAILED ? NULL : map;
                close(fd);
        }
        return offsets;
}
#endif

static void read_boot_id(char boot_id[37]) {
        static char kept[37]; /* read once, before the process is locked in */
        int fd;

        if (kept[0] == 0) {
                fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
                if (fd < 0 || read(fd, kept, 36) != 36)
                        strcpy(kept, "unknown");
                if (fd >= 0)
                        close(fd);
        }
        memcpy(boot_id, kept, sizeof kept);
}

void clock_read(struct clock_reading *ret) {
        struct timespec wall, boottime;
        struct timex timex = { 0 };

        clock_gettime(CLOCK_REALTIME, &wall);
        clock_gettime(CLOCK_BOOTTIME, &boottime);
        *ret = (struct clock_reading){
                .wall = wall.tv_sec,
                .boottime_sec = boottime.tv_sec,
                .is_synchronized = adjtimex(&timex) >= 0 && !(timex.status & STA_UNSYNC),
        };
        read_boot_id(ret->boot_id);
#ifdef GATEWAYD_TESTCLOCK
        const int64_t *offsets = test_offsets();
        const char *boot;
        long long began;

        if (offsets) {
                int64_t both = __atomic_load_n(&offsets[0], __ATOMIC_ACQUIRE);

                int64_t wall_alone = __atomic_load_n(&offsets[1], __ATOMIC_ACQUIRE);

                /* A wall clock that was moved alone is one that nothing synchronizes. */
                ret->wall += both + wall_alone;
                ret->boottime_sec += both;
                ret->is_synchronized = wall_alone == 0 && getenv("GATEWAYD_TEST_CLOCK_SYNCHRONIZED") != NULL;
                /* "ID SECONDS": another boot, which began when CLOCK_BOOTTIME (with its offset) was at SECONDS. */
                boot = getenv("GATEWAYD_TEST_BOOT");
                if (boot && sscanf(boot, "%36s %lld", ret->boot_id, &began) == 2)
                        ret->boottime_sec -= began;
        }
#endif
}
