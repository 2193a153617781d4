/* SPDX-License-Identifier: Apache-2.0 */

/* What core does for its operators: turns in their name, and what it knows beside the store. */

#include <errno.h>

#include "gatewayd/core.h"
#include "gatewayd/sandbox.h"

static struct turn *backend_turn(void *userdata, const char *actor) {
        return core_begin(userdata, actor);
}

static void backend_commit_then(void *userdata, void (*done)(void *arg, int error), void *arg) {
        struct core *core = userdata;
        struct output *output = output_push(&core->outputs);

        output->kind = OUTPUT_DONE;
        output->done = done;
        output->arg = arg;
        (void)core_end(core); /* a turn that was dropped has told done() so */
}

static void backend_rollback(void *userdata) {
        core_drop(userdata);
}

static void backend_status(void *userdata, struct control_status *ret) {
        struct core *core = userdata;

        *ret = (struct control_status){
                .uptime_sec = (core_monotonic_usec() - core->started_usec) / 1000000,
                .is_sandbox_weak = core->is_sandbox_weak,
                .is_sealing_key_file = core->is_sealing_key_file,
                .is_degraded = core->is_degraded,
                .sandbox_violations = sandbox_violations(),
                .has_south = core->exchange.link != NULL,
                .has_north = core->north.link != NULL,
                .sessions = session_table_count(core->sessions),
                .is_uplink_known = core->is_uplink_known,
                .is_uplink_up = core->uplink.is_up,
                .uplink_retry_sec = core->uplink.retry_sec,
                .relay_in_flight = core->north_open,
                .client_end = core->client.end,
                .is_est_known = core->enrolling.is_known,
                .is_est_up = core->enrolling.is_known && !core->turn.is_upstream_away,
        };
        memcpy(ret->south, core->south_statistics, sizeof ret->south);
        memcpy(ret->est_reason, core->enrolling.reason, sizeof ret->est_reason);
        memcpy(ret->uplink_reason, core->uplink_reason, sizeof ret->uplink_reason);
}

static void backend_pulse(void *userdata) {
        struct core *core = userdata;

        role_tell(&core->process, FRAME_PONG, BYTES(NULL, 0));
}

static int backend_relay_now(void *userdata) {
        struct core *core = userdata;
        int r;

        if (!core->north.link)
                return -ENOTCONN;
        r = link_send(core->north.link, FRAME_TRY_NOW, BYTES(NULL, 0), LINK_MAY_REFUSE);
        link_watch_flush(core->north.watch);
        return r;
}

static void backend_status_line(void *userdata, const char *line) {
        struct core *core = userdata;

        role_tell(&core->process, FRAME_STATUS_LINE, bytes_of(line));
}

static void backend_event(void *userdata, const struct event *event) {
        core_event(userdata, event);
}

static int backend_backup(void *userdata, int fd, const char *recipient, backup_done done, void *arg,
                          struct problem *problem) {
        return core_backup_start(userdata, fd, recipient, done, arg, problem);
}

static int backend_backup_kept(void *userdata, unix_sec made, struct problem *problem) {
        return core_backup_kept(userdata, made, problem);
}

int core_control_attach(struct core *core, struct problem *problem) {
        const struct control_backend backend = {
                .userdata = core,
                .turn = backend_turn,
                .commit_then = backend_commit_then,
                .rollback = backend_rollback,
                .status = backend_status,
                .pulse = backend_pulse,
                .relay_now = backend_relay_now,
                .status_line = backend_status_line,
                .event = backend_event,
                .backup = backend_backup,
                .backup_kept = backend_backup_kept,
        };

        return control_new(core->process.event, core->config->control_path, &backend, &core->control, problem);
}
