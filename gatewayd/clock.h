/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Time on a gateway that may have no battery-backed clock and no NTP for weeks.
 *
 * A ratchet: calendar time never runs backwards past the latest time recorded in the store;
 * between records it advances with CLOCK_BOOTTIME. Beside it counts powered-on time, summed over
 * all boots, which no clock change can touch. Domain code never reads a clock: it is given a
 * `struct moment`. */

#include "gatewayd/bytes.h"

enum clock_quality {
        CLOCK_UNKNOWN = 0,      /* ratchet only: true time is later or equal, or a wrong clock lifted it */
        CLOCK_HELD = 1,         /* was synchronized since boot */
        CLOCK_SYNCHRONIZED = 2, /* the kernel says so (adjtimex) */
};

struct moment {
        unix_sec wall;       /* ratcheted calendar time */
        int64_t powered_sec; /* powered-on time summed over all boots */
        enum clock_quality quality;
        /* Calendar age may end things (keys, challenges, standing) at this moment: the quality is
         * not unknown, and no jump forward is being held. Due times may always use `wall`. */
        bool wall_trusted;
};

#define MOMENT_NONE ((struct moment){ 0 })

/* Whether a moment was ever set. */
static inline bool moment_is_set(const struct moment *m) {
        return m->wall != 0 || m->powered_sec != 0;
}

/* Age of `then` at `now`: powered-on seconds, never negative. */
int64_t moment_powered_age(const struct moment *now, const struct moment *then);
/* Age in calendar seconds, or -1 where `now` does not allow calendar ages to end things or `then`
 * was taken at unknown quality. */
int64_t moment_wall_age(const struct moment *now, const struct moment *then);
/* The larger of both ages: what a limit that ends something is compared with. */
int64_t moment_age(const struct moment *now, const struct moment *then);

/* What one look at the machine's clocks gave. */
struct clock_reading {
        unix_sec wall;        /* CLOCK_REALTIME */
        int64_t boottime_sec; /* CLOCK_BOOTTIME */
        bool is_synchronized; /* adjtimex: STA_UNSYNC is clear */
        char boot_id[37];
};

/* The ratchet's state; `recorded` members are what the store keeps (store/meta.h). */
struct clock {
        unix_sec floor;             /* the latest wall time seen; never decreases */
        int64_t powered_sec;        /* at `boottime_sec` */
        int64_t boottime_sec;       /* of the last reading */
        char boot_id[37];           /* of the last reading */
        bool was_synchronized;      /* since this boot */
        int64_t hold_until_powered; /* a jump forward is held until then; 0: none */
};

/* How far calendar time may outrun powered-on time between two readings of one boot before the
 * jump is held, and for how long (powered-on seconds) calendar ages then end nothing. */
#define CLOCK_JUMP_SEC (7 * 86400)
#define CLOCK_HOLD_SEC (7 * 86400)

/* Advances the ratchet by one reading and returns the moment. Pure. The first reading after a
 * boot (another boot_id) never subtracts; powered-off time is not added to powered_sec. */
struct moment clock_advance(struct clock *clock, const struct clock_reading *reading);

/* Reads the machine's clocks. In the test-clock build only, GATEWAYD_TEST_CLOCK names a mapped
 * file of two int64 that are added: to wall and boottime, and to wall alone. */
void clock_read(struct clock_reading *ret);
