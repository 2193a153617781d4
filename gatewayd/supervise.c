/* SPDX-License-Identifier: Apache-2.0 */

/* The supervisor's loop: which role runs, which is due for a start, who missed its heartbeats. */

#include "gatewayd/supervise_parts.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gatewayd/listen.h"
#include "gatewayd/role.h"
#include "gatewayd/sandbox.h"
#include "gatewayd/spawn.h"
#include "systemd/journal.h"
#include "systemd/service.h"

/* Each beat wakes every role; a gateway may live on a battery. */
#define HEARTBEAT_USEC        (10 * UINT64_C(1000000))
#define HEARTBEATS_MISSED_MAX 2
#define BACKOFF_MIN_USEC      (50 * UINT64_C(1000))
#define BACKOFF_MAX_USEC      (30 * UINT64_C(1000000))
/* A role that has run so long is sound: its next end starts the back-off anew. */
#define SOUND_USEC (60 * UINT64_C(1000000))
/* What is left of a second after the roles were told to end. */
#define STOP_USEC (800 * UINT64_C(1000))
/* How long a start may last before it counts as hung: opening a large store takes a while. */
#define START_USEC (60 * UINT64_C(1000000))

/* How long core or south may be away before the watchdog is no longer fed. */
#define RESPAWN_USEC (90 * UINT64_C(1000000))

static uint64_t now_usec(struct supervisor *s) {
        uint64_t now = 0;

        (void)sd_event_now(s->event, CLOCK_MONOTONIC, &now);
        return now;
}

void supervisor_tell(enum event_kind kind, uint64_t count, const char *format, ...) {
        struct event event = { .kind = kind, .count = count };
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(event.reason, sizeof event.reason, format, arguments);
        va_end(arguments);
        journal_event(&event);
}

static void finish(struct supervisor *s, int status) {
        s->status = status;
        (void)sd_event_exit(s->event, status);
}

static bool is_running(const struct supervisor *s, enum role role) {
        return s->roles[role].pid > 0;
}

void supervisor_send(struct supervised *r, uint8_t type, struct bytes body, const int *fds, size_t count) {
        int error;

        if (!r->link)
                return;
        error = count > 0 ? link_send_descriptors(r->link, type, body, fds, count)
                          : link_send(r->link, type, body, LINK_NEVER_DROP);
        if (error < 0)
                journal_line(3, "supervisor: %s cannot be told: %s", role_name(r->role), strerror(-error));
        link_watch_flush(r->watch);
}

static void send_setup(struct supervised *to, uint8_t type, enum role role, uint32_t generation, const int *fds,
                       size_t count) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        message_write_setup(&(struct message_setup){ .role = role, .generation = generation }, &body);
        supervisor_send(to, type, buffer_bytes(&body), fds, count);
}

/* ---- the links between roles ---- */

static int connect_south(struct supervisor *s) {
        struct supervised *core = &s->roles[ROLE_CORE], *south = &s->roles[ROLE_SOUTH];
        int lookup[2], exchange[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, lookup) < 0)
                return -errno;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, exchange) < 0) {
                close(lookup[0]);
                close(lookup[1]);
                return -errno;
        }
        send_setup(core, FRAME_PEER, ROLE_SOUTH, south->generation, (int[]){ lookup[0], exchange[0] }, 2);
        send_setup(south, FRAME_SETUP, ROLE_SOUTH, south->generation,
                   (int[]){ lookup[1], exchange[1], s->udp, s->config_fd }, 4);
        close(lookup[0]);
        close(lookup[1]);
        close(exchange[0]);
        close(exchange[1]);
        return 0;
}

static int connect_north(struct supervisor *s) {
        struct supervised *core = &s->roles[ROLE_CORE], *north = &s->roles[ROLE_NORTH];
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        send_setup(core, FRAME_PEER, ROLE_NORTH, north->generation, pair, 1);
        send_setup(north, FRAME_SETUP, ROLE_NORTH, north->generation, (int[]){ pair[1], s->config_fd }, 2);
        close(pair[0]);
        close(pair[1]);
        return 0;
}

/* ---- starting ---- */

static int on_frame(void *userdata, struct frame *frame);
static void on_link_gone(void *userdata, int error);
static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata);

static int watch_role(struct supervised *r, int link) {
        const struct link_watch_options options = {
                .burst = 16,
                .handle = on_frame,
                .gone = on_link_gone,
                .userdata = r,
        };
        sd_event *event = r->supervisor->event;
        int error;

        error = link_new(link, 1 << 20, &r->link);
        if (error < 0)
                close(link);
        if (error >= 0)
                error = link_watch_new(event, r->link, &options, &r->watch);
        if (error >= 0)
                error = sd_event_add_child(event, &r->child, r->pid, WEXITED, on_child, r);
        return error;
}

static void schedule_start(struct supervised *r);
static void forget_role(struct supervised *r);

static int start_role(struct supervised *r) {
        struct supervisor *s = r->supervisor;
        int link = -1, error = 0;
        pid_t pid;

        pid = spawn_role(r->role, &link);
        if (pid < 0)
                return pid;
        r->pid = pid;
        r->generation++;
        r->is_ready = r->is_unlinked = false;
        r->missed = 0;
        r->started_usec = now_usec(s);
        error = watch_role(r, link);
        if (error < 0)
                return error;
        if (r->role == ROLE_CORE)
                send_setup(r, FRAME_SETUP, ROLE_CORE, r->generation, &s->config_fd, 1);
        else
                error = r->role == ROLE_SOUTH ? connect_south(s) : connect_north(s);
        return error;
}

static void start_or_retry(struct supervised *r) {
        int error = start_role(r);

        if (error >= 0)
                return;
        journal_line(3, "supervisor: %s cannot be started: %s", role_name(r->role), strerror(-error));
        if (r->pid > 0)
                kill(r->pid, SIGKILL);
        if (r->pid > 0 && !r->child) { /* nobody will tell of its end */
                (void)waitpid(r->pid, NULL, 0);
                forget_role(r);
        }
        if (r->pid == 0)
                schedule_start(r);
}

static int on_restart(sd_event_source *source, uint64_t usec, void *userdata) {
        struct supervised *r = userdata;

        (void)source;
        (void)usec;
        /* South and north want a core that is ready; its READY starts them. */
        if (!r->supervisor->is_stopping && r->pid == 0 &&
            (r->role == ROLE_CORE || r->supervisor->roles[ROLE_CORE].is_ready))
                start_or_retry(r);
        return 0;
}

static void schedule_start(struct supervised *r) {
        struct supervisor *s = r->supervisor;
        uint64_t now = now_usec(s);
        int error;

        if (now - r->started_usec >= SOUND_USEC)
                r->backoff_usec = 0;
        r->backoff_usec = r->backoff_usec == 0 ? BACKOFF_MIN_USEC : r->backoff_usec * 2;
        if (r->backoff_usec > BACKOFF_MAX_USEC)
                r->backoff_usec = BACKOFF_MAX_USEC;
        r->restart = sd_event_source_disable_unref(r->restart);
        error = sd_event_add_time(s->event, &r->restart, CLOCK_MONOTONIC, now + r->backoff_usec, 0, on_restart, r);
        if (error < 0) {
                journal_line(2, "supervisor: no timer: %s", strerror(-error));
                finish(s, EXIT_FAILURE);
        }
}

/* ---- ends ---- */

static void forget_role(struct supervised *r) {
        r->watch = link_watch_free(r->watch);
        r->link = link_free(r->link);
        r->child = sd_event_source_disable_unref(r->child);
        r->pid = 0;
        r->is_ready = false;
}

static void end_when_all_ended(struct supervisor *s) {
        for (enum role role = ROLE_CORE; role <= ROLE_NORTH; role++)
                if (is_running(s, role))
                        return;
        finish(s, s->status);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        struct supervisor *s = userdata;

        (void)source;
        (void)usec;
        for (enum role role = ROLE_CORE; role <= ROLE_NORTH; role++)
                if (is_running(s, role)) {
                        journal_line(4, "supervisor: %s did not end in time and is killed", role_name(role));
                        kill(s->roles[role].pid, SIGKILL);
                }
        return 0;
}

/* Core first, so that what it has decided still goes out through south; south when core has ended. */
static void stop_all(struct supervisor *s, int status) {
        if (s->is_stopping)
                return;
        s->is_stopping = true;
        s->status = status;
        (void)service_stopping();
        (void)sd_event_add_time_relative(s->event, &s->deadline, CLOCK_MONOTONIC, STOP_USEC, 0, on_deadline, s);
        if (is_running(s, ROLE_CORE))
                supervisor_send(&s->roles[ROLE_CORE], FRAME_STOP, BYTES(NULL, 0), NULL, 0);
        else
                supervisor_send(&s->roles[ROLE_SOUTH], FRAME_STOP, BYTES(NULL, 0), NULL, 0);
        supervisor_send(&s->roles[ROLE_NORTH], FRAME_STOP, BYTES(NULL, 0), NULL, 0);
        end_when_all_ended(s);
}

static void tell_end(const struct supervised *r, const siginfo_t *info) {
        if (info->si_code == CLD_EXITED && info->si_status == 0)
                journal_line(6, "supervisor: %s ended", role_name(r->role));
        else if (info->si_code == CLD_EXITED)
                supervisor_tell(EVENT_ROLE_DIED, 1, "%s exited with status %d", role_name(r->role), info->si_status);
        else
                supervisor_tell(EVENT_ROLE_DIED, 1, "%s was ended by signal %d (%s)", role_name(r->role),
                                info->si_status, strsignal(info->si_status));
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata) {
        struct supervised *r = userdata;
        struct supervisor *s = r->supervisor;

        (void)source;
        if (!s->is_stopping || info->si_code != CLD_EXITED || info->si_status != 0)
                tell_end(r, info);
        forget_role(r);
        if (s->is_stopping) {
                if (r->role == ROLE_CORE)
                        supervisor_send(&s->roles[ROLE_SOUTH], FRAME_STOP, BYTES(NULL, 0), NULL, 0);
                end_when_all_ended(s);
                return 0;
        }
        if (info->si_code == CLD_EXITED && info->si_status == ROLE_EXIT_REFUSED) {
                stop_all(s, ROLE_EXIT_REFUSED);
                return 0;
        }
        if (r->role == ROLE_CORE) {
                reload_core_ended(s);
                /* Sessions and records in flight mean nothing to the next core: both start anew. */
                supervisor_send(&s->roles[ROLE_SOUTH], FRAME_STOP, BYTES(NULL, 0), NULL, 0);
                supervisor_send(&s->roles[ROLE_NORTH], FRAME_STOP, BYTES(NULL, 0), NULL, 0);
        }
        schedule_start(r);
        return 0;
}

static void on_link_gone(void *userdata, int error) {
        struct supervised *r = userdata;

        /* One that is on its way out closes its link first and must be let go, or its exit status is lost:
         * the heartbeats end one that lives on. One that talks nonsense is ended at once. */
        r->is_unlinked = true;
        if (error == -EPIPE || r->supervisor->is_stopping)
                return;
        journal_line(3, "supervisor: %s broke its link: %s", role_name(r->role), strerror(-error));
        if (r->pid > 0)
                kill(r->pid, SIGKILL);
}

/* ---- heartbeats ---- */

static bool all_ready(const struct supervisor *s) {
        return s->roles[ROLE_CORE].is_ready && s->roles[ROLE_SOUTH].is_ready && s->roles[ROLE_NORTH].is_ready;
}

static void on_ready(struct supervised *r) {
        struct supervisor *s = r->supervisor;

        if (s->is_stopping)
                return; /* it was told to end while it set up: nobody is started for it any more */
        r->is_ready = true;
        supervisor_tell(EVENT_ROLE_STARTED, 1, "%s", role_name(r->role));
        if (r->role == ROLE_CORE) {
                reload_core_ready(s);
                for (enum role role = ROLE_SOUTH; role <= ROLE_NORTH; role++)
                        if (!is_running(s, role))
                                start_or_retry(&s->roles[role]);
        }
        if (!s->is_told_ready && all_ready(s)) {
                s->is_told_ready = true;
                supervisor_tell(EVENT_STARTED, 1, "serving %s", s->config->listen[0]);
                (void)service_ready("serving devices");
        }
}

static int on_frame(void *userdata, struct frame *frame) {
        struct supervised *r = userdata;
        char line[256];

        for (size_t i = 0; i < frame->descriptor_count; i++)
                close(frame->descriptors[i]);
        switch (frame->type) {
        case FRAME_READY:
                on_ready(r);
                return 0;
        case FRAME_PONG:
                r->missed = 0;
                return 0;
        case FRAME_STATUS_LINE:
                if (bytes_to_text(frame->body, line, sizeof line) == 0)
                        (void)service_status(line);
                return 0;
        case FRAME_RELOADED:
                reload_answered(r->supervisor, frame->body.size == 1 && frame->body.data[0] == 1);
                return 0;
        default:
                return -EBADMSG;
        }
}

static void beat(struct supervised *r, uint64_t now) {
        if (r->pid <= 0)
                return;
        if (!r->is_ready && !r->is_unlinked) {
                if (now - r->started_usec < START_USEC)
                        return;
        } else if (r->missed < HEARTBEATS_MISSED_MAX) {
                r->missed++;
                supervisor_send(r, FRAME_PING, BYTES(NULL, 0), NULL, 0);
                return;
        }
        supervisor_tell(EVENT_ROLE_HUNG, 1, "%s does not answer and is killed", role_name(r->role));
        kill(r->pid, SIGKILL);
}

static int on_heartbeat(sd_event_source *source, uint64_t usec, void *userdata) {
        struct supervisor *s = userdata;
        uint64_t now = now_usec(s);

        for (enum role role = ROLE_CORE; role <= ROLE_NORTH; role++)
                beat(&s->roles[role], now);
        /* From now: beats that were missed while all stood still must not be made up for in a row, with no
         * time to answer between them. */
        (void)usec;
        (void)sd_event_source_set_time(source, now + HEARTBEAT_USEC);
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

/* The watchdog is fed while core and south answer or are just being respawned; a hung north never takes
 * the devices down. */
static int on_watchdog(sd_event_source *source, uint64_t usec, void *userdata) {
        struct supervisor *s = userdata;
        uint64_t now = now_usec(s);

        if (s->roles[ROLE_CORE].is_ready && s->roles[ROLE_SOUTH].is_ready)
                s->well_usec = now;
        if (now - s->well_usec < RESPAWN_USEC)
                (void)service_watchdog();
        (void)sd_event_source_set_time(source, usec + service_watchdog_usec());
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

/* ---- signals, set-up ---- */

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata) {
        struct supervisor *s = userdata;

        (void)source;
        if (info->ssi_signo != SIGHUP) {
                stop_all(s, EXIT_SUCCESS);
                return 0;
        }
        reload_begin(s);
        return 0;
}

static int add_signals(struct supervisor *s) {
        static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
        sigset_t set;
        int error = 0;

        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        for (size_t i = 0; i < ELEMENTS(signals); i++)
                sigaddset(&set, signals[i]);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        signal(SIGPIPE, SIG_IGN);
        for (size_t i = 0; error >= 0 && i < ELEMENTS(signals); i++)
                error = sd_event_add_signal(s->event, NULL, signals[i], on_signal, s);
        return error;
}

static int add_timers(struct supervisor *s) {
        uint64_t watchdog = service_watchdog_usec();
        int error;

        error = sd_event_add_time_relative(s->event, &s->heartbeat, CLOCK_MONOTONIC, HEARTBEAT_USEC, 0, on_heartbeat,
                                           s);
        if (error >= 0 && watchdog > 0)
                error = sd_event_add_time_relative(s->event, &s->watchdog, CLOCK_MONOTONIC, watchdog, 0, on_watchdog,
                                                   s);
        return error;
}

static int set_up(struct supervisor *s, struct problem *problem) {
        char store[PATH_MAX], configuration[PATH_MAX], runtime[PATH_MAX];
        const struct sandbox_paths paths = {
                .store = store,
                .configuration = configuration,
                .runtime = runtime,
                .keys = s->config->ca.paths,
                .key_count = s->config->ca.path_count,
        };
        int error;

        path_folder(s->config->store_path, store, sizeof store);
        path_folder(s->config_path, configuration, sizeof configuration);
        path_folder(s->config->control_path, runtime, sizeof runtime);
        s->udp = listen_take(s->config->listen[0], problem);
        if (s->udp < 0)
                return s->udp;
        error = spawn_prepare();
        if (error >= 0)
                error = sd_event_new(&s->event);
        if (error >= 0)
                error = add_signals(s);
        if (error >= 0)
                error = add_timers(s);
        if (error < 0)
                return problem_set(problem, CODE_INTERNAL, -error, "start", "the loop cannot be set up: %s",
                                   strerror(-error));
        s->well_usec = now_usec(s);
        return sandbox_enter(ROLE_SUPERVISOR, &paths, s->config->sandbox, problem);
}

int supervise(const char *config_path, struct config *config, int config_fd) {
        struct supervisor s = {
                .config_path = config_path, .config = config, .config_fd = config_fd, .offered_fd = -1, .udp = -1
        };
        struct problem problem = { 0 };

        journal_open("supervisor");
        for (enum role role = ROLE_SUPERVISOR; role <= ROLE_NORTH; role++)
                s.roles[role] = (struct supervised){ .supervisor = &s, .role = role };
        if (set_up(&s, &problem) < 0) {
                journal_line(2, "%s: %s", problem.title, problem.detail);
                /* A port that is taken may be free again; a kernel without Landlock stays one. */
                s.status = s.udp < 0 ? EXIT_FAILURE : ROLE_EXIT_REFUSED;
        } else {
                start_or_retry(&s.roles[ROLE_CORE]);
                (void)sd_event_loop(s.event);
        }
        supervisor_tell(EVENT_STOPPED, 1, "%s", s.status == 0 ? "in order" : "it must be looked at");
        for (enum role role = ROLE_CORE; role <= ROLE_NORTH; role++) {
                forget_role(&s.roles[role]);
                sd_event_source_disable_unref(s.roles[role].restart);
        }
        sd_event_source_disable_unref(s.heartbeat);
        sd_event_source_disable_unref(s.watchdog);
        sd_event_source_disable_unref(s.deadline);
        sd_event_unref(s.event);
        if (s.udp >= 0)
                close(s.udp);
        reload_drop(&s);
        close(s.config_fd);
        config_free(s.config);
        return s.status;
}
