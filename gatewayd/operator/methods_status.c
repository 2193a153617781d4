/* SPDX-License-Identifier: Apache-2.0 */

/* Status: how the gateway is, in sections of named figures. */

#include <errno.h>

#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/operator/methods.h"
#include "store/enrolments.h"

static const char *const south_counter_names[SOUTH_COUNTERS] = {
        [SOUTH_SESSIONS] = "sessions",
        [SOUTH_HALF_OPEN] = "half_open",
        [SOUTH_HANDSHAKES] = "handshakes",
        [SOUTH_HANDSHAKES_FAILED] = "handshakes_failed",
        [SOUTH_HELLOS] = "hellos_without_cookie",
        [SOUTH_DATAGRAMS_IN] = "datagrams_in",
        [SOUTH_DATAGRAMS_OUT] = "datagrams_out",
        [SOUTH_DATAGRAMS_DROPPED] = "datagrams_dropped",
        [SOUTH_REQUESTS] = "requests",
        [SOUTH_REQUESTS_REFUSED] = "requests_refused",
        [SOUTH_REPLIES_LATE] = "replies_late",
        [SOUTH_OBSERVERS] = "observers",
        [SOUTH_NOTIFICATIONS] = "notifications",
        [SOUTH_BLOCK_BODIES] = "bodies_open",
};

static void show_gateway(struct method_call *call, const struct control_status *status, const struct store_meta *meta,
                         bool has_recovery_key) {
        struct answer *answer = &call->answer;
        char incarnation[2 * INCARNATION_BYTES + 1];

        bytes_to_hex(BYTES(meta->incarnation, sizeof meta->incarnation), incarnation);
        answer_section_open(answer, "gateway");
        answer_text(answer, "id", call->turn->config->gateway_id);
        answer_text(answer, "version", GATEWAYD_VERSION);
        answer_text(answer, "incarnation", incarnation);
        answer_number(answer, "uptime", status->uptime_sec);
        answer_text(answer, "sandbox", status->is_sandbox_weak ? "weak" : "full");
        answer_number(answer, "sandbox_violations", status->sandbox_violations);
        answer_text(answer, "sealing_key", status->is_sealing_key_file ? "file" : "credential");
        answer_bool(answer, "has_recovery_key", has_recovery_key);
        answer_section_close(answer);
}

static void show_clock(struct method_call *call) {
        static const char *const names[] = { "unknown", "held", "synchronized" };
        const struct moment *now = &call->turn->now;

        answer_section_open(&call->answer, "clock");
        answer_signed(&call->answer, "time", now->wall);
        answer_signed(&call->answer, "powered", now->powered_sec);
        answer_text(&call->answer, "quality", names[now->quality]);
        answer_bool(&call->answer, "is_trusted", now->wall_trusted);
        answer_section_close(&call->answer);
}

static void show_devices(struct method_call *call, const struct device_counts *counts) {
        static const char *const tiers[] = { "unappraised", "affirming", "warning", "contraindicated" };
        struct answer *answer = &call->answer;

        answer_section_open(answer, "devices");
        answer_number(answer, "total", counts->total);
        for (size_t i = 0; i < ELEMENTS(counts->by_standing); i++)
                answer_number(answer, standing_name((enum standing)i), counts->by_standing[i]);
        for (size_t i = 0; i < ELEMENTS(tiers); i++)
                answer_number(answer, tiers[i], counts->by_tier[i]);
        answer_number(answer, "rotation_due", counts->rotation_due);
        answer_number(answer, "attestation_due", counts->attestation_due);
        answer_section_close(answer);
}

static void show_south(struct method_call *call, const struct control_status *status) {
        answer_section_open(&call->answer, "south");
        answer_bool(&call->answer, "is_attached", status->has_south);
        for (size_t i = 0; i < SOUTH_COUNTERS; i++)
                answer_number(&call->answer, south_counter_names[i], status->south[i]);
        answer_section_close(&call->answer);
}

static void show_est(struct method_call *call, const struct control_status *status) {
        const struct north_config *config = &call->turn->config->north;
        struct answer *answer = &call->answer;
        int64_t waiting = enrolment_count(call->turn->store, ENROLMENT_WAITING);

        answer_text(answer, "est",
                    !config->est_url[0]     ? "none"
                    : !status->is_est_known ? "unknown"
                    : status->is_est_up     ? "up"
                                            : "down");
        if (config->est_url[0])
                answer_text(answer, "est_url", config->est_url);
        if (status->est_reason[0])
                answer_text(answer, "est_reason", status->est_reason);
        answer_number(answer, "enrolments_waiting", waiting > 0 ? (uint64_t)waiting : 0);
}

static void show_north(struct method_call *call, const struct control_status *status, const struct backlog *backlog) {
        const struct config *config = call->turn->config;
        bool has_verifier = config->north.verifier != VERIFIER_NONE;
        struct answer *answer = &call->answer;

        answer_section_open(answer, "north");
        answer_text(answer, "verifier", has_verifier ? "collector" : "none");
        if (has_verifier)
                answer_text(answer, "url", config->north.url);
        answer_bool(answer, "is_attached", status->has_north);
        answer_text(answer, "uplink",
                    !has_verifier              ? "none"
                    : !status->is_uplink_known ? "unknown"
                    : status->is_uplink_up     ? "up"
                                               : "down");
        if (status->is_uplink_known && !status->is_uplink_up) {
                answer_text(answer, "reason", status->uplink_reason);
                answer_number(answer, "retry_in", status->uplink_retry_sec);
        }
        answer_number(answer, "in_flight", status->relay_in_flight);
        answer_number(answer, "delivered", backlog->delivered);
        answer_number(answer, "parked", backlog->parked);
        show_est(call, status);
        answer_section_close(answer);
}

static void show_backlog(struct method_call *call, const struct backlog *backlog, const struct horizon_view *view) {
        struct answer *answer = &call->answer;

        answer_section_open(answer, "backlog");
        answer_number(answer, "records", backlog->records);
        answer_number(answer, "records_max", view->records_max);
        answer_number(answer, "bytes", backlog->bytes);
        answer_number(answer, "bytes_max", view->bytes_max);
        answer_signed(answer, "oldest", backlog->oldest_wall);
        answer_section_close(answer);
}

static void show_horizon(struct method_call *call, const struct horizon_view *view) {
        struct horizon horizon = horizon_compute(view);
        struct answer *answer = &call->answer;

        answer_section_open(answer, "horizon");
        answer_text(answer, "first", horizon_limit_name(horizon.first));
        if (horizon.seconds != HORIZON_NEVER) {
                answer_signed(answer, "seconds", horizon.seconds);
                answer_signed(answer, "until", view->now.wall + horizon.seconds);
                answer_text(answer, "effect", horizon_effect(horizon.first));
        }
        for (size_t i = 0; i < horizon.count; i++) {
                char name[64];

                snprintf(name, sizeof name, "%s_in", horizon_limit_name(horizon.ends[i].limit));
                answer_signed(answer, name, horizon.ends[i].seconds);
        }
        answer_real(answer, "records_per_day", view->records_per_day);
        answer_real(answer, "disk_bytes_per_day", view->disk_bytes_per_day);
        if (view->disk_free_bytes != UINT64_MAX)
                answer_number(answer, "disk_free", view->disk_free_bytes);
        answer_section_close(answer);
}

static void show_store(struct method_call *call, const struct control_status *status,
                       const struct monitor_facts *facts) {
        struct store_statistics statistics;
        struct answer *answer = &call->answer;

        store_statistics(call->turn->store, &statistics);
        answer_section_open(answer, "store");
        answer_text(answer, "path", call->turn->config->store_path);
        answer_number(answer, "schema", STORE_SCHEMA_VERSION);
        answer_bool(answer, "is_degraded", status->is_degraded);
        answer_number(answer, "bytes", facts->sample.store_bytes);
        answer_number(answer, "wal_bytes", statistics.wal_bytes);
        answer_number(answer, "commits", statistics.commits);
        answer_number(answer, "flushes", statistics.flushes);
        answer_number(answer, "checkpoints", statistics.checkpoints);
        answer_number(answer, "longest_hold_usec", statistics.hold_usec_most);
        answer_section_close(answer);
}

int method_status(struct method_call *call) {
        struct control_status status = { 0 };
        struct monitor_facts facts;
        struct horizon_view view;
        struct store_meta meta;
        int has_recovery, r;

        call->backend->status(call->backend->userdata, &status);
        has_recovery = store_has_recovery(call->turn->store);
        r = has_recovery < 0 ? has_recovery : store_meta_get(call->turn->store, &meta);
        if (r >= 0)
                r = monitor_measure(call->monitor, call->turn, &status, &facts, &view);
        if (r < 0)
                return r;
        answer_open(&call->answer, SD_BUS_TYPE_ARRAY, "{sa{sv}}");
        show_gateway(call, &status, &meta, has_recovery == 1);
        show_clock(call);
        show_devices(call, &facts.counts);
        show_south(call, &status);
        show_north(call, &status, &facts.backlog);
        show_backlog(call, &facts.backlog, &view);
        show_horizon(call, &view);
        show_store(call, &status, &facts);
        r = show_backup(call, &meta);
        if (r >= 0)
                r = show_ca(call);
        if (r >= 0)
                r = show_keys(call);
        answer_close(&call->answer);
        return r;
}
