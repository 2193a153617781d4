/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Watches the gateway from inside: at what rate evidence comes in and the store grows (for the offline
 * horizon), one line for the service manager, and events for what went wrong in numbers. */

#include "gatewayd/operator/control.h"
#include "gatewayd/operator/horizon.h"
#include "store/devices.h"
#include "store/evidence.h"

struct monitor;

/* Starts watching: samples now and then through the backend, says the line, sends the events. */
int monitor_new(sd_event *event, const struct control_backend *backend, struct monitor **ret);
struct monitor *monitor_free(struct monitor *monitor);

/* ---- what is measured; pure, and open to tests ---- */

/* Samples over at most a week of powered-on time, an hour apart. */
#define MONITOR_SAMPLES 168
struct monitor_sample {
        int64_t powered_sec;
        uint64_t sequence; /* of receipts */
        uint64_t store_bytes;
};
struct monitor_samples {
        struct monitor_sample list[MONITOR_SAMPLES]; /* a ring */
        size_t first, count;
};
/* Takes a sample where the last one is an hour old (the first one always). */
void monitor_samples_take(struct monitor_samples *samples, const struct monitor_sample *sample);

/* What the horizon is computed from, at `now`. Before an hour has been measured the schedule of the
 * profiles stands in: so many devices that attest so often. */
struct monitor_facts {
        struct moment now;
        struct monitor_sample sample; /* of now */
        struct backlog backlog;
        struct device_counts counts;
        uint64_t disk_free_bytes;
        double scheduled_per_day; /* evidence by the profiles' schedules */
};
/* An event when the horizon comes nearer than `warn_sec`, once until it is a tenth farther away again. `told` keeps
 * that; returns whether to tell now. */
bool monitor_horizon_is_near(bool *told, const struct horizon *horizon, int64_t warn_sec);
void monitor_view(const struct monitor_samples *samples, const struct monitor_facts *facts, const struct config *config,
                  struct horizon_view *ret);

/* The dates of the issuing CA among the ends of the view (horizon_ends.c). */
int monitor_ends(struct turn *turn, struct horizon_view *view);

/* "50 devices (48 operational), 12 sessions, uplink down, backlog 1,204 (full in 41 days)". */
void monitor_line(const struct control_status *status, const struct monitor_facts *facts, const struct horizon *horizon,
                  char *to, size_t to_size);

/* ---- for Status ---- */
int monitor_measure(const struct monitor *monitor, struct turn *turn, const struct control_status *status,
                    struct monitor_facts *ret_facts, struct horizon_view *ret_view);
