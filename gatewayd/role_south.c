/* SPDX-License-Identifier: Apache-2.0 */

/* south's main: takes its three descriptors, sets up, locks in, runs. */

#include <errno.h>
#include <stdlib.h>

#include "coap/south.h"
#include "gatewayd/role.h"
#include "gatewayd/sandbox.h"
#include "systemd/journal.h"

struct south_role {
        struct role_process process;
        struct south *south;
};

static void on_stop(void *userdata) {
        struct south_role *role = userdata;

        south_stop(role->south);
        (void)sd_event_exit(role->process.event, EXIT_SUCCESS);
}

static void on_ready(void *userdata) {
        struct south_role *role = userdata;

        role_ready(&role->process);
}

static int set_up(struct south_role *role, struct problem *problem) {
        const struct config *config = role->process.config;
        struct south_settings settings = south_settings_default;
        struct role_process *process = &role->process;
        const struct sandbox_paths paths = { 0 };
        int *fds = process->descriptors;
        int r;

        if (process->descriptor_count != 3)
                return problem_set(problem, CODE_INTERNAL, EBADMSG, "set-up", "three descriptors were expected");
        settings.max_sessions = config->max_sessions;
        settings.max_body_bytes = config->max_body_bytes;
        r = south_new(process->event, fds[2], fds[0], fds[1], process->generation, &settings, &role->south, problem);
        fds[0] = fds[1] = fds[2] = -1;
        if (r < 0)
                return r;
        r = sandbox_enter(ROLE_SOUTH, &paths, config->sandbox, problem);
        if (r >= 0)
                south_on_ready(role->south, on_ready, role); /* from the loop: core's credentials come through it */
        return r;
}

int south_main(void) {
        struct south_role role = { .process = { .stop = on_stop, .is_ready_later = true } };
        struct problem problem = { 0 };
        int r;

        journal_open("south");
        role.process.userdata = &role;
        r = role_start(&role.process, ROLE_SOUTH);
        if (r >= 0)
                r = set_up(&role, &problem);
        if (r < 0) {
                journal_line(3, "south: %s: %s", problem.title, problem.code ? problem.detail : strerror(-r));
                r = EXIT_FAILURE;
        } else
                r = role_run(&role.process);
        role.south = south_free(role.south);
        role_end(&role.process);
        return r;
}
