/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The offline horizon: until when the uplink may stay away, and what gives out first. Pure.
 *
 * Keys and devices need no uplink. What fills up is the evidence kept for it: by the configured number
 * of records, by the configured bytes, or by the disk, whichever is nearest at the measured rate. */

#include "gatewayd/bytes.h"

enum horizon_limit {
        HORIZON_NONE,    /* nothing fills up: no evidence comes in */
        HORIZON_RECORDS, /* backlog_records of the configuration */
        HORIZON_BYTES,   /* backlog_size of the configuration */
        HORIZON_DISK,    /* free space on the store's file system */
};
const char *horizon_limit_name(enum horizon_limit limit);

struct horizon_view {
        uint64_t records, records_max;
        uint64_t bytes, bytes_max;
        uint64_t disk_free_bytes;
        double records_per_day;
        double bytes_per_record;   /* of evidence and receipt, as the backlog counts them */
        double disk_bytes_per_day; /* by which the store's file grows, all in all */
};

#define HORIZON_NEVER INT64_MAX
struct horizon {
        enum horizon_limit first;
        int64_t seconds; /* until then; 0: now; HORIZON_NEVER */
        int64_t records_sec, bytes_sec, disk_sec;
};

struct horizon horizon_compute(const struct horizon_view *view);
