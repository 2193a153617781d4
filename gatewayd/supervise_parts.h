/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within the supervisor: its state, shared by supervise.c (roles come and go) and supervise_reload.c (a new
 * configuration). Nobody else includes it. */

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "gatewayd/event.h"
#include "gatewayd/link_event.h"
#include "gatewayd/messages.h"
#include "gatewayd/supervise.h"

struct supervised {
        struct supervisor *supervisor;
        enum role role;
        pid_t pid; /* 0: not running */
        uint32_t generation;
        bool is_ready;
        bool is_unlinked; /* its link has ended, it has not (yet) */
        unsigned missed;
        uint64_t started_usec, backoff_usec;
        struct link *link;
        struct link_watch *watch;
        sd_event_source *child, *restart;
};

struct supervisor {
        const char *config_path;
        struct config *config; /* in force */
        int config_fd;
        struct config *offered; /* core is asked whether it takes it; NULL: none */
        int offered_fd;
        bool is_core_asked;    /* about `offered` */
        bool is_reload_wanted; /* another SIGHUP came meanwhile */
        sd_event *event;
        int udp;
        struct supervised roles[ROLE_COUNT];
        sd_event_source *heartbeat, *watchdog, *deadline;
        uint64_t well_usec; /* when core and south were last both ready */
        bool is_told_ready, is_stopping;
        int status;
};

/* supervise.c */
void supervisor_tell(enum event_kind kind, uint64_t count, const char *format, ...) _printf_(3, 4);
/* Queues a frame; what cannot be queued is said in the journal. */
void supervisor_send(struct supervised *to, uint8_t type, struct bytes body, const int *fds, size_t count);

/* supervise_reload.c */
/* Reads the file anew and offers it to core, which knows whether it can be taken. */
void reload_begin(struct supervisor *s);
/* Core is ready: asks it where an offer waits. */
void reload_core_ready(struct supervisor *s);
/* Core has answered. */
void reload_answered(struct supervisor *s, bool is_taken);
/* Core has ended: an offer that it was asked about is refused, for it may be what ended it. */
void reload_core_ended(struct supervisor *s);
/* Forgets what is on offer. */
void reload_drop(struct supervisor *s);
