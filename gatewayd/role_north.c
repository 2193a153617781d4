/* SPDX-License-Identifier: Apache-2.0 */

/* north's main: takes its link to core, sets up, locks in, runs. */

#include <errno.h>
#include <stdlib.h>

#include "gatewayd/north/north.h"
#include "gatewayd/role.h"
#include "gatewayd/sandbox.h"
#include "systemd/journal.h"

struct north_role {
        struct role_process process;
        struct north *north;
};

static void on_stop(void *userdata) {
        struct north_role *role = userdata;

        north_stop(role->north);
        (void)sd_event_exit(role->process.event, EXIT_SUCCESS);
}

static int set_up(struct north_role *role, struct problem *problem) {
        const struct config *config = role->process.config;
        const struct sandbox_paths paths = { .upstream_port = north_port(&config->north),
                                             .est_port = north_est_port(&config->north) };
        struct role_process *process = &role->process;
        int link = process->descriptors[0];
        int r;

        if (process->descriptor_count != 1)
                return problem_set(problem, CODE_INTERNAL, EBADMSG, "set-up", "one descriptor was expected");
        process->descriptors[0] = -1;
        r = north_new(process->event, link, &config->north, &role->north, problem);
        return r < 0 ? r : sandbox_enter(ROLE_NORTH, &paths, config->sandbox, problem);
}

int north_main(void) {
        struct north_role role = { .process = { .stop = on_stop } };
        struct problem problem = { 0 };
        int r;

        journal_open("north");
        role.process.userdata = &role;
        r = role_start(&role.process, ROLE_NORTH);
        if (r >= 0)
                r = set_up(&role, &problem);
        if (r < 0) {
                journal_line(3, "north: %s: %s", problem.title, problem.code ? problem.detail : strerror(-r));
                r = EXIT_FAILURE;
        } else
                r = role_run(&role.process);
        role.north = north_free(role.north);
        role_end(&role.process);
        return r;
}
