/* SPDX-License-Identifier: Apache-2.0 */

/* gateway-sim: one epoll loop around a fleet of simulated devices. */

#include "sim.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Marks of descriptors that are not a device's. */
static char mark_signals, mark_control, mark_thief;

struct loop {
        struct sim *sim;
        struct control *control;
        int signals;
        bool control_added;        /* standard input is in the epoll set */
        bool control_is_file;      /* which epoll does not take: always readable */
        const struct thief *thief; /* whose socket is in the epoll set */
};

static int open_signals(struct loop *loop) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &mark_signals };
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        signal(SIGPIPE, SIG_IGN);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        loop->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (loop->signals < 0 || epoll_ctl(loop->sim->epoll, EPOLL_CTL_ADD, loop->signals, &event) < 0)
                return -errno;
        return 0;
}

/* Listens to standard input only while a command can be taken. */
static void tend_control(struct loop *loop) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &mark_control };
        bool listens = loop->control && control_listens(loop->control);

        if (listens == loop->control_added || loop->control_is_file)
                return;
        if (epoll_ctl(loop->sim->epoll, listens ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, STDIN_FILENO, &event) < 0)
                loop->control_is_file = errno == EPERM;
        else
                loop->control_added = listens;
}

/* A closed socket leaves the epoll set by itself. */
static void tend_thief(struct loop *loop) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &mark_thief };

        if (loop->sim->thief && loop->sim->thief != loop->thief)
                (void)epoll_ctl(loop->sim->epoll, EPOLL_CTL_ADD, thief_descriptor(loop->sim->thief), &event);
        loop->thief = loop->sim->thief;
}

static int sooner(int timeout, uint64_t at) {
        uint64_t now = real_ms();

        if (at <= now)
                return 0;
        return at - now < (uint64_t)timeout ? (int)(at - now) : timeout;
}

static void dispatch(struct loop *loop, const struct epoll_event *event) {
        if (event->data.ptr == &mark_signals)
                loop->sim->is_stopping = true;
        else if (event->data.ptr == &mark_control)
                control_readable(loop->control);
        else if (event->data.ptr != &mark_thief)
                fleet_readable(event->data.ptr);
        else if (loop->sim->thief)
                thief_readable(loop->sim);
}

static bool is_over(const struct sim *sim) {
        if (sim->is_stopping)
                return true;
        if (sim->options.until_settled && sim->settled == sim->count)
                return true;
        return sim->options.run_for_sec > 0 && real_ms() - sim->started_real >= sim->options.run_for_sec * 1000UL;
}

static int run(struct loop *loop) {
        struct sim *sim = loop->sim;
        struct epoll_event events[64];
        int timeout, n, i;

        for (;;) {
                timeout = fleet_run_timers(sim);
                if (sim->thief && thief_deadline(sim->thief) <= real_ms())
                        thief_timer(sim);
                if (loop->control)
                        control_check(loop->control);
                if (is_over(sim))
                        return 0;

                tend_thief(loop);
                tend_control(loop);
                if (loop->control_is_file && control_listens(loop->control)) {
                        control_readable(loop->control);
                        timeout = 0;
                }
                if (sim->thief)
                        timeout = sooner(timeout, thief_deadline(sim->thief));
                if (loop->control)
                        timeout = sooner(timeout, control_deadline(loop->control));
                if (sim->looks_at_all) /* a command wants it */
                        timeout = 0;
                n = epoll_wait(sim->epoll, events, 64, timeout);
                if (n < 0 && errno != EINTR)
                        return -errno;
                for (i = 0; i < n; i++)
                        dispatch(loop, &events[i]);
        }
}

static int write_books(const struct sim *sim) {
        const char *path = sim->options.json_out;
        FILE *file;
        int r = 0;

        if (path && strcmp(path, "-") == 0) {
                books_write_json(sim, stdout, true, true);
        } else if (path) {
                file = fopen(path, "w");
                if (!file)
                        return -errno;
                books_write_json(sim, file, true, true);
                if (fclose(file) != 0)
                        r = -errno;
        }
        if (!sim->options.control)
                books_write_table(sim, path && strcmp(path, "-") == 0 ? stderr : stdout);
        return r;
}

/* 0: all is well; 3: a device is locked out or, where that was asked for, not ready. */
static int verdict(const struct sim *sim) {
        unsigned i;

        for (i = 0; i < sim->count; i++) {
                if (device_is_locked_out(&sim->devices[i].device))
                        return 3;
                if (sim->options.until_settled && sim->devices[i].books.ready_ms == 0)
                        return 3;
        }
        return 0;
}

static int serve(struct sim *sim) {
        struct loop loop = { .sim = sim, .signals = -1 };
        int r;

        r = open_signals(&loop);
        if (r == 0 && sim->options.control)
                r = control_open(sim, &loop.control);
        if (r == 0) {
                fleet_start(sim);
                r = run(&loop);
        }
        if (r == 0)
                r = write_books(sim);
        control_close(loop.control);
        if (loop.signals >= 0)
                close(loop.signals);
        return r;
}

static int complain(const char *what, const char *about, int error) {
        fprintf(stderr, "gateway-sim: %s%s%s: %s\n", what, about ? " " : "", about ? about : "", strerror(-error));
        return 1;
}

int main(int argc, char **argv) {
        struct sim sim = { .state = -1, .epoll = -1 };
        int r, status = 1;

        options_parse(&sim.options, argc, argv);
        sim.epoll = epoll_create1(EPOLL_CLOEXEC);
        if (sim.epoll < 0)
                return complain("epoll", NULL, -errno);
        if ((r = test_clock_open(&sim.clock, sim.options.test_clock)) < 0)
                return complain("test clock", sim.options.test_clock, r);

        if (session_settings_init(&sim.session_settings, &sim.options) < 0) {
                status = 2; /* it has told why */
        } else if ((r = fleet_open(&sim)) < 0) {
                complain("cannot set up the fleet", sim.options.state, r);
        } else if (sim.options.import_out && (r = identity_export(&sim, sim.options.import_out)) < 0) {
                complain("cannot write", sim.options.import_out, r);
        } else if (sim.options.write_only) {
                status = 0;
        } else {
                r = serve(&sim);
                status = r < 0 ? complain("cannot go on", NULL, r) : verdict(&sim);
        }
        fleet_close(&sim);
        session_settings_free(&sim.session_settings);
        if (sim.state >= 0)
                close(sim.state);
        close(sim.epoll);
        return status;
}
