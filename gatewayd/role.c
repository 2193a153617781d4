/* SPDX-License-Identifier: Apache-2.0 */

/* The frame around a role: its link to the supervisor and its event loop. */

#include "gatewayd/role.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "gatewayd/sandbox.h"
#include "systemd/journal.h"

/* How long a role waits for its set-up: the supervisor sends it right after the start. */
#define SETUP_MSEC 10000

static int take_setup(void *userdata, struct frame *frame) {
        struct role_process *process = userdata;
        struct config_problems problems = { 0 };
        struct message_setup setup;
        int r;

        if (frame->type != FRAME_SETUP || message_read_setup(frame->body, &setup) < 0 || setup.role != process->role)
                return -EBADMSG;
        process->generation = setup.generation;
        process->descriptor_count = frame->descriptor_count;
        memcpy(process->descriptors, frame->descriptors, sizeof process->descriptors);
        if (process->descriptor_count == 0)
                return -EBADMSG;
        /* The last one is the configuration in force: whatever has become of the file since. */
        process->descriptor_count--;
        r = config_load_descriptor(process->descriptors[process->descriptor_count], &process->config, &problems);
        close(process->descriptors[process->descriptor_count]);
        config_problems_free(&problems);
        return r;
}

static void tell_violations(void) {
        struct event event = { .kind = EVENT_SANDBOX_VIOLATION };
        char name[64];

        while (sandbox_violation_take(name, sizeof name) > 0) {
                snprintf(event.reason, sizeof event.reason, "tried %s", name);
                journal_event(&event);
        }
}

static int on_frame(void *userdata, struct frame *frame) {
        struct role_process *process = userdata;

        switch (frame->type) {
        case FRAME_PING:
                tell_violations();
                return link_send(process->supervisor, FRAME_PONG, BYTES(NULL, 0), LINK_NEVER_DROP);
        case FRAME_STOP:
                process->stop(process->userdata);
                return 0;
        default:
                return process->frame ? process->frame(process->userdata, frame) : -EBADMSG;
        }
}

static void on_gone(void *userdata, int error) {
        struct role_process *process = userdata;

        /* Without its supervisor a role has no one to answer to: it ends in order, as if told to. */
        (void)error;
        process->stop(process->userdata);
}

int role_start(struct role_process *process, enum role role) {
        struct pollfd poller = { .fd = ROLE_LINK_DESCRIPTOR, .events = POLLIN };
        int r;

        process->role = role;
        /* The terminal's ^C and the service manager's SIGTERM concern the supervisor alone; a role must
         * not outlive it, not even one that cannot be told. */
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        signal(SIGPIPE, SIG_IGN);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                return -errno;
        r = link_new(ROLE_LINK_DESCRIPTOR, 1 << 20, &process->supervisor);
        if (r < 0)
                return r;
        do
                r = poll(&poller, 1, SETUP_MSEC);
        while (r < 0 && errno == EINTR);
        if (r <= 0)
                return r < 0 ? -errno : -ETIMEDOUT;
        r = link_receive(process->supervisor, 1, take_setup, process);
        if (r <= 0)
                return r < 0 ? r : -EBADMSG;
        return sd_event_new(&process->event);
}

void role_tell(struct role_process *process, uint8_t type, struct bytes body) {
        (void)link_send(process->supervisor, type, body, LINK_NEVER_DROP); /* a break shows in the flush */
        if (process->watch)
                link_watch_flush(process->watch);
        else
                (void)link_flush(process->supervisor);
}

void role_ready(struct role_process *process) {
        role_tell(process, FRAME_READY, BYTES(NULL, 0));
}

int role_run(struct role_process *process) {
        const struct link_watch_options options = {
                .priority = SD_EVENT_PRIORITY_IMPORTANT,
                .burst = 16,
                .handle = on_frame,
                .gone = on_gone,
                .userdata = process,
        };
        int r;

        r = link_watch_new(process->event, process->supervisor, &options, &process->watch);
        if (r >= 0) {
                if (!process->is_ready_later)
                        role_ready(process);
                r = sd_event_loop(process->event);
        }
        if (r < 0) {
                journal_line(3, "%s: event loop: %s", role_name(process->role), strerror(-r));
                return EXIT_FAILURE;
        }
        return r;
}

void role_end(struct role_process *process) {
        for (size_t i = 0; i < process->descriptor_count; i++)
                if (process->descriptors[i] >= 0)
                        close(process->descriptors[i]);
        process->watch = link_watch_free(process->watch);
        process->supervisor = link_free(process->supervisor);
        process->event = sd_event_unref(process->event);
        process->config = config_free(process->config);
}
