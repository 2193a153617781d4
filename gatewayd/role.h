/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What every role but the supervisor does alike: take its set-up from the supervisor, answer its
 * heartbeats, end when told or when the supervisor is gone. */

#include <systemd/sd-event.h>

#include "config/config.h"
#include "gatewayd/link_event.h"
#include "gatewayd/messages.h"

/* Where a started role finds its link to the supervisor. */
#define ROLE_LINK_DESCRIPTOR 3
/* Exit status of a role that will not run until a person has changed something (sysexits EX_CONFIG):
 * the supervisor does not try again. */
#define ROLE_EXIT_REFUSED 78

struct role_process {
        enum role role;
        uint32_t generation;
        sd_event *event;
        struct link *supervisor;
        struct link_watch *watch;
        struct config *config; /* in force when the role was started */
        /* Descriptors of FRAME_SETUP but the configuration's; the role takes what it uses by setting it to -1
         * here. */
        int descriptors[LINK_DESCRIPTORS_MAX];
        size_t descriptor_count;

        bool is_ready_later; /* role_run() leaves READY to role_ready() */

        void *userdata;
        void (*stop)(void *userdata);                      /* end in order: closes, then sd_event_exit() */
        int (*frame)(void *userdata, struct frame *frame); /* any other frame; NULL: none expected */
};

/* Opens the link, waits for FRAME_SETUP, takes the configuration, makes the event loop. 0 or -errno. */
int role_start(struct role_process *process, enum role role);
/* Says READY, unless that is left to role_ready(), and runs the loop. Returns the exit status. */
int role_run(struct role_process *process);
void role_ready(struct role_process *process);
void role_end(struct role_process *process);
/* Queues and sends a frame to the supervisor. */
void role_tell(struct role_process *process, uint8_t type, struct bytes body);

/* The roles' main functions: set up, lock in, run. They return the exit status. */
int core_main(void);  /* core.c */
int south_main(void); /* role_south.c */
int north_main(void); /* role_north.c */
