/* SPDX-License-Identifier: Apache-2.0 */

/* Until when the uplink may stay away. */

#include "gatewayd/operator/horizon.h"

#define DAY_SEC 86400.0
/* Beyond this the measured rate says nothing any more. */
#define LONGEST_SEC (100 * 365.25 * DAY_SEC)

const char *horizon_limit_name(enum horizon_limit limit) {
        static const char *const names[] = { "none", "records", "bytes", "disk" };

        return (size_t)limit < ELEMENTS(names) ? names[limit] : "unknown";
}

static int64_t seconds_until(uint64_t used, uint64_t limit, double per_day) {
        double seconds;

        if (used >= limit)
                return 0;
        if (!(per_day > 0))
                return HORIZON_NEVER;
        seconds = (double)(limit - used) / per_day * DAY_SEC;
        return seconds > LONGEST_SEC ? HORIZON_NEVER : (int64_t)seconds;
}

static void take_nearer(struct horizon *horizon, enum horizon_limit limit, int64_t seconds) {
        if (seconds >= horizon->seconds)
                return;
        horizon->seconds = seconds;
        horizon->first = limit;
}

struct horizon horizon_compute(const struct horizon_view *view) {
        struct horizon horizon = { .first = HORIZON_NONE, .seconds = HORIZON_NEVER };

        horizon.records_sec = seconds_until(view->records, view->records_max, view->records_per_day);
        horizon.bytes_sec = seconds_until(view->bytes, view->bytes_max, view->records_per_day * view->bytes_per_record);
        horizon.disk_sec = seconds_until(0, view->disk_free_bytes, view->disk_bytes_per_day);
        take_nearer(&horizon, HORIZON_RECORDS, horizon.records_sec);
        take_nearer(&horizon, HORIZON_BYTES, horizon.bytes_sec);
        take_nearer(&horizon, HORIZON_DISK, horizon.disk_sec);
        return horizon;
}
