/* SPDX-License-Identifier: Apache-2.0 */

/* Until when the uplink may stay away. */

#include "gatewayd/operator/horizon.h"

#define DAY_SEC 86400.0
/* Beyond this the measured rate says nothing any more, and a date is as good as none. */
#define LONGEST_SEC (100 * 365.25 * DAY_SEC)

static const struct {
        const char *name;
        bool stops;
        const char *effect;
} limits[HORIZON_LIMITS] = { [HORIZON_NONE] = { "none", false, "" },
#define HORIZON_ENTRY(constant, limit_name, does_stop, text) [HORIZON_##constant] = { limit_name, does_stop, text },
                             HORIZON_LIST(HORIZON_ENTRY)
#undef HORIZON_ENTRY
};

const char *horizon_limit_name(enum horizon_limit limit) {
        return (unsigned)limit < HORIZON_LIMITS ? limits[limit].name : "unknown";
}

const char *horizon_effect(enum horizon_limit limit) {
        return (unsigned)limit < HORIZON_LIMITS ? limits[limit].effect : "";
}

static int64_t seconds_until_full(uint64_t used, uint64_t limit, double per_day) {
        double seconds;

        if (used >= limit)
                return 0;
        if (!(per_day > 0))
                return HORIZON_NEVER;
        seconds = (double)(limit - used) / per_day * DAY_SEC;
        return seconds > LONGEST_SEC ? HORIZON_NEVER : (int64_t)seconds;
}

static int64_t seconds_until(unix_sec end, unix_sec now) {
        if (end == 0 || end > now + (int64_t)LONGEST_SEC)
                return HORIZON_NEVER;
        return end > now ? end - now : 0;
}

/* Keeps the list in order, the nearest first; of two at once the one that stops something. */
static void add(struct horizon *horizon, enum horizon_limit limit, int64_t seconds) {
        size_t at = horizon->count;

        if (seconds == HORIZON_NEVER)
                return;
        for (; at > 0 && horizon->ends[at - 1].seconds > seconds; at--)
                horizon->ends[at] = horizon->ends[at - 1];
        horizon->ends[at] = (struct horizon_end){ limit, seconds };
        horizon->count++;
        if (limits[limit].stops && seconds < horizon->seconds) {
                horizon->seconds = seconds;
                horizon->first = limit;
        }
}

struct horizon horizon_compute(const struct horizon_view *view) {
        struct horizon horizon = { .first = HORIZON_NONE, .seconds = HORIZON_NEVER };
        unix_sec now = view->now.wall;

        add(&horizon, HORIZON_RECORDS, seconds_until_full(view->records, view->records_max, view->records_per_day));
        add(&horizon, HORIZON_BYTES,
            seconds_until_full(view->bytes, view->bytes_max, view->records_per_day * view->bytes_per_record));
        add(&horizon, HORIZON_DISK, seconds_until_full(0, view->disk_free_bytes, view->disk_bytes_per_day));
        add(&horizon, HORIZON_CA, seconds_until(view->ca_end, now));
        add(&horizon, HORIZON_CHAIN, seconds_until(view->chain_end, now));
        add(&horizon, HORIZON_CLIENT, seconds_until(view->client_end, now));
        add(&horizon, HORIZON_CRL, seconds_until(view->crl_end, now));
        if (view->now.quality == CLOCK_UNKNOWN)
                add(&horizon, HORIZON_CLOCK, 0);
        return horizon;
}
