/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The operator's way in: org.gatewayd.Manager1 on /org/gatewayd, spoken peer-to-peer over the unix
 * socket of the configuration, and on the system bus where there is one. It owns no state of the
 * gateway: everything goes through the backend, and every answer, also one that only reads, leaves
 * after the barrier of what it shows. */

#include <systemd/sd-event.h>

#include "gatewayd/messages.h"
#include "gatewayd/turn.h"

/* What core knows beside the store. */
struct control_status {
        uint64_t uptime_sec; /* of this core */
        bool is_sandbox_weak;
        bool is_sealing_key_file;    /* not a credential of the service manager */
        bool is_degraded;            /* the last turn could not be committed */
        uint64_t sandbox_violations; /* of core */
        bool has_south, has_north;   /* attached now */
        uint64_t sessions;
        uint64_t south[SOUTH_COUNTERS]; /* as south last reported them */
        bool is_uplink_known, is_uplink_up;
        char uplink_reason[160]; /* why it is down */
        uint64_t uplink_retry_sec;
        uint64_t relay_in_flight;     /* sent to north, not yet acknowledged */
        bool is_est_known, is_est_up; /* the owner's EST server can be reached */
        char est_reason[160];         /* why it cannot, or is of no use */
        unix_sec client_end;          /* notAfter of the certificate shown upstream; 0: none, or not known yet */
};

/* A backup that has gone into its pipe whole. */
struct backup_made {
        struct moment made;
        char recipient[64];   /* "age1…" */
        uint64_t bytes;       /* as encrypted */
        uint64_t plain_bytes; /* of the store */
};
/* error 0 and `made`, or -errno and `reason`. */
typedef void (*backup_done)(void *arg, int error, const char *reason, const struct backup_made *made);

/* What core does for its operators. A turn is open from turn() to commit_then() or rollback(); control
 * ends every turn before it returns to the event loop. */
struct control_backend {
        void *userdata;
        /* Opens a turn in the name of `actor` (borrowed until the turn ends). */
        struct turn *(*turn)(void *userdata, const char *actor);
        /* Ends the turn. Calls done(arg, 0) once everything committed so far has passed the barrier, or
         * done(arg, -errno) when the turn was dropped; perhaps before it returns, at most once, and not
         * after control_free(). */
        void (*commit_then)(void *userdata, void (*done)(void *arg, int error), void *arg);
        /* Drops the turn and what it wanted to say. */
        void (*rollback)(void *userdata);
        void (*status)(void *userdata, struct control_status *ret);
        /* A long method says that it is alive, or core would be taken for hung. NULL: nobody asks. */
        void (*pulse)(void *userdata);
        /* North tries now, without waiting for its back-off. 0, or -ENOTCONN where there is no north. */
        int (*relay_now)(void *userdata);
        /* A line for the service manager, now and then. NULL: nobody wants it. */
        void (*status_line)(void *userdata, const char *line);
        /* An event that claims no state of the store. NULL: nobody wants it. */
        void (*event)(void *userdata, const struct event *event);
        /* Makes a backup of the store into the pipe `fd`, which it takes over, between turns; `recipient` empty: as
         * configured. Calls done() once, later, and not after control_free(). -errno with problem: nothing was begun
         * and done() is not called. NULL: cannot. */
        int (*backup)(void *userdata, int fd, const char *recipient, backup_done done, void *arg,
                      struct problem *problem);
        /* The backup made then is kept where it belongs: in the open turn. -ENOENT: there was none. */
        int (*backup_kept)(void *userdata, unix_sec made, struct problem *problem);
};

struct control;

/* Makes the socket (mode 0660: root, the service's own user, and its group) in place of a stale one,
 * and tries the system bus. Call it before the sandbox closes; nothing is served before the event
 * loop runs, so the store may be opened afterwards. `backend` is copied.
 * Returns 0 or -errno with the reason in `problem`. */
int control_new(sd_event *event, const char *path, const struct control_backend *backend, struct control **ret,
                struct problem *problem);
/* Ends all connections; answers that still wait for their barrier are never given. */
struct control *control_free(struct control *control);
