/* SPDX-License-Identifier: Apache-2.0 */

/* Watching the gateway from inside. */

#include "gatewayd/operator/monitor.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "store/store.h"

#define WATCH_USEC        (10 * UINT64_C(1000000))
#define LOOKS_PER_TELLING 6
#define SAMPLE_SEC        3600
/* Evidence and receipt where none has been stored yet: a PSA token of usual size and its receipt. */
#define USUAL_RECORD_BYTES 800.0
/* What a record costs on disk beside its own bytes: its row, indexes, challenge and audit rows. */
#define RECORD_OVERHEAD_BYTES 700.0

struct monitor {
        struct control_backend backend;
        struct monitor_samples samples;
        sd_event_source *timer;
        unsigned looks;
        uint64_t south_refused, south_dropped; /* as last told */
        bool is_horizon_told;
        char line[256]; /* as last said */
        /* Devices by profile, counted a page at each look: what the schedule promises. */
        double scheduled_per_day, scheduled_so_far;
        char walked[DEVICE_ID_MAX + 1];
};

void monitor_samples_take(struct monitor_samples *samples, const struct monitor_sample *sample) {
        size_t last = (samples->first + samples->count + MONITOR_SAMPLES - 1) % MONITOR_SAMPLES;

        if (samples->count > 0 && sample->powered_sec - samples->list[last].powered_sec < SAMPLE_SEC)
                return;
        if (samples->count == MONITOR_SAMPLES) {
                samples->first = (samples->first + 1) % MONITOR_SAMPLES;
                samples->count--;
        }
        samples->list[(samples->first + samples->count) % MONITOR_SAMPLES] = *sample;
        samples->count++;
}

static double per_day(uint64_t from, uint64_t to, int64_t seconds) {
        return to > from ? (double)(to - from) * 86400.0 / (double)seconds : 0;
}

void monitor_view(const struct monitor_samples *samples, const struct monitor_facts *facts, const struct config *config,
                  struct horizon_view *ret) {
        const struct monitor_sample *oldest = &samples->list[samples->first];
        int64_t seconds = samples->count > 0 ? facts->sample.powered_sec - oldest->powered_sec : 0;
        double per_record = facts->backlog.records > 0 ? (double)facts->backlog.bytes / (double)facts->backlog.records
                                                       : USUAL_RECORD_BYTES;

        *ret = (struct horizon_view){
                .now = facts->now,
                .records = facts->backlog.records,
                .records_max = (uint64_t)config->backlog_records,
                .bytes = facts->backlog.bytes,
                .bytes_max = (uint64_t)config->backlog_bytes,
                .disk_free_bytes = facts->disk_free_bytes,
                .records_per_day = facts->scheduled_per_day,
                .bytes_per_record = per_record,
        };
        if (seconds >= SAMPLE_SEC) {
                ret->records_per_day = per_day(oldest->sequence, facts->sample.sequence, seconds);
                ret->disk_bytes_per_day = per_day(oldest->store_bytes, facts->sample.store_bytes, seconds);
        } else
                ret->disk_bytes_per_day = ret->records_per_day * (per_record + RECORD_OVERHEAD_BYTES);
}

static const char *uplink_word(const struct control_status *status) {
        if (!status->is_uplink_known)
                return "uplink unknown";
        return status->is_uplink_up ? "uplink up" : "uplink down";
}

void monitor_line(const struct control_status *status, const struct monitor_facts *facts, const struct horizon *horizon,
                  char *to, size_t to_size) {
        unsigned long long records = facts->backlog.records;
        int size;

        size = snprintf(to, to_size, "%llu %s (%llu operational), %llu sessions",
                        (unsigned long long)facts->counts.total, facts->counts.total == 1 ? "device" : "devices",
                        (unsigned long long)facts->counts.by_standing[STANDING_OPERATIONAL],
                        (unsigned long long)status->sessions);
        if (status->has_north && size >= 0 && (size_t)size < to_size)
                size += snprintf(to + size, to_size - (size_t)size, ", %s, backlog %llu", uplink_word(status), records);
        if (status->has_north && !status->is_uplink_up && horizon->seconds != HORIZON_NEVER && size >= 0 &&
            (size_t)size < to_size)
                size += snprintf(to + size, to_size - (size_t)size, " (full in %lld days)",
                                 (long long)(horizon->seconds / 86400));
        if (status->is_degraded && size >= 0 && (size_t)size < to_size)
                snprintf(to + size, to_size - (size_t)size, ", store degraded");
}

/* ---- measuring ---- */

static uint64_t file_bytes(const char *path) {
        struct stat status;

        return stat(path, &status) == 0 && status.st_size > 0 ? (uint64_t)status.st_size : 0;
}

static uint64_t disk_free(const char *path) {
        char folder[CONFIG_TEXT_MAX];
        struct statvfs status;
        char *end;

        snprintf(folder, sizeof folder, "%s", path);
        end = strrchr(folder, '/');
        if (end)
                end[end == folder] = 0;
        if (statvfs(end ? folder : ".", &status) < 0)
                return UINT64_MAX; /* not known is not full */
        return (uint64_t)status.f_bavail * status.f_frsize;
}

int monitor_measure(const struct monitor *monitor, struct turn *turn, const struct control_status *status,
                    struct monitor_facts *ret_facts, struct horizon_view *ret_view) {
        struct store_meta meta;
        int r;

        *ret_facts = (struct monitor_facts){ .now = turn->now, .scheduled_per_day = monitor->scheduled_per_day };
        r = store_meta_get(turn->store, &meta);
        if (r >= 0)
                r = custody_backlog(turn->store, &ret_facts->backlog);
        if (r >= 0)
                r = device_count(turn->store, &ret_facts->counts);
        if (r < 0)
                return r;
        ret_facts->sample = (struct monitor_sample){
                .powered_sec = turn->now.powered_sec,
                .sequence = meta.next_sequence,
                .store_bytes = file_bytes(turn->config->store_path),
        };
        ret_facts->disk_free_bytes = disk_free(turn->config->store_path);
        monitor_view(&monitor->samples, ret_facts, turn->config, ret_view);
        ret_view->client_end = status->client_end;
        return monitor_ends(turn, ret_view);
}

/* ---- the look now and then ---- */

struct walk {
        struct monitor *monitor;
        const struct config *config;
        size_t count;
};

static int add_device(void *userdata, const struct device *device) {
        struct walk *walk = userdata;
        const struct profile *profile = config_profile(walk->config, device->profile);

        walk->count++;
        memcpy(walk->monitor->walked, device->id, sizeof walk->monitor->walked);
        if (profile && profile->attestation != ATTESTATION_NONE && profile->attest_every_sec > 0 &&
            device->standing != STANDING_REVOKED)
                walk->monitor->scheduled_so_far += 86400.0 / (double)profile->attest_every_sec;
        return 0;
}

/* A page of the registry at each look, so that a large fleet never holds a turn. */
#define WALK_DEVICES 500
static void walk_on(struct monitor *monitor, struct turn *turn) {
        struct walk walk = { monitor, turn->config, 0 };
        char from[DEVICE_ID_MAX + 1];
        int r;

        memcpy(from, monitor->walked, sizeof from);
        r = device_each(turn->store, from[0] ? from : NULL, WALK_DEVICES, add_device, &walk);
        if (r >= 0 && walk.count == WALK_DEVICES)
                return;
        if (r >= 0)
                monitor->scheduled_per_day = monitor->scheduled_so_far;
        monitor->scheduled_so_far = 0;
        monitor->walked[0] = 0;
}

static void tell_growth(struct monitor *monitor, uint64_t *told, uint64_t now, const char *what) {
        struct event event = { .kind = EVENT_EVENTS_COUNTED };

        if (now > *told && monitor->backend.event) {
                event.count = now - *told;
                snprintf(event.reason, sizeof event.reason, "%s", what);
                monitor->backend.event(monitor->backend.userdata, &event);
        }
        *told = now; /* also where a new south begins at 0 again */
}

bool monitor_horizon_is_near(bool *told, const struct horizon *horizon, int64_t warn_sec) {
        bool is_near = horizon->seconds < warn_sec, is_news = is_near && !*told;

        if (is_near)
                *told = true;
        else if (horizon->seconds - warn_sec > warn_sec / 10)
                *told = false;
        return is_news;
}

static void tell_horizon(struct monitor *monitor, const struct horizon *horizon) {
        struct event event = { .kind = EVENT_HORIZON_NEAR };

        snprintf(event.reason, sizeof event.reason, "in %lld days: %s; then %s", (long long)(horizon->seconds / 86400),
                 horizon_limit_name(horizon->first), horizon_effect(horizon->first));
        if (monitor->backend.event)
                monitor->backend.event(monitor->backend.userdata, &event);
}

static void look(struct monitor *monitor) {
        const struct control_backend *backend = &monitor->backend;
        struct control_status status = { 0 };
        struct monitor_facts facts;
        struct horizon_view view;
        struct horizon horizon;
        struct turn *turn;
        int64_t warn_sec;
        char line[256];
        int r;

        turn = backend->turn(backend->userdata, "monitor");
        if (!turn)
                return;
        walk_on(monitor, turn);
        backend->status(backend->userdata, &status);
        r = monitor_measure(monitor, turn, &status, &facts, &view);
        warn_sec = turn->config->horizon_warn_sec;
        backend->rollback(backend->userdata);
        if (r < 0)
                return; /* a store that cannot be read says so where it is needed */
        monitor_samples_take(&monitor->samples, &facts.sample);
        if (++monitor->looks % LOOKS_PER_TELLING == 0) {
                tell_growth(monitor, &monitor->south_refused, status.south[SOUTH_REQUESTS_REFUSED],
                            "requests answered 5.03 because core was busy");
                tell_growth(monitor, &monitor->south_dropped, status.south[SOUTH_DATAGRAMS_DROPPED],
                            "datagrams dropped by south");
        }
        horizon = horizon_compute(&view);
        if (monitor_horizon_is_near(&monitor->is_horizon_told, &horizon, warn_sec))
                tell_horizon(monitor, &horizon);
        if (backend->status_line) {
                monitor_line(&status, &facts, &horizon, line, sizeof line);
                if (strcmp(line, monitor->line) != 0)
                        backend->status_line(backend->userdata, line);
                memcpy(monitor->line, line, sizeof line);
        }
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        look(userdata);
        (void)sd_event_source_set_time(source, usec + WATCH_USEC);
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

int monitor_new(sd_event *event, const struct control_backend *backend, struct monitor **ret) {
        struct monitor *monitor = xcalloc(1, sizeof *monitor);
        int r;

        monitor->backend = *backend;
        r = sd_event_add_time_relative(event, &monitor->timer, CLOCK_MONOTONIC, 0, 0, on_timer, monitor);
        if (r >= 0)
                r = sd_event_source_set_priority(monitor->timer, SD_EVENT_PRIORITY_IDLE);
        if (r < 0) {
                monitor_free(monitor);
                return r;
        }
        *ret = monitor;
        return 0;
}

struct monitor *monitor_free(struct monitor *monitor) {
        if (!monitor)
                return NULL;
        sd_event_source_disable_unref(monitor->timer);
        free(monitor);
        return NULL;
}
