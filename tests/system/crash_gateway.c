/* SPDX-License-Identifier: Apache-2.0 */

/* Core's other ends: see crash_gateway.h. Everything is in step: one question, then its answer, so that the
 * points of two runs are the same ones. */

#include "tests/system/crash_gateway.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/format.h"
#include "gatewayd/role.h"

#define PATIENCE_USEC (30 * INT64_C(1000000))
#define QUEUE_BYTES   (4u << 20)

static uint64_t monotonic_usec(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int64_t gateway_now(const struct gateway *g) {
        return (int64_t)time(NULL) + g->clock[0];
}

static void path_in(const struct gateway *g, const char *name, char to[320]) {
        snprintf(to, 320, "%s/%s", g->folder, name);
}

_Noreturn void gateway_fail(const struct gateway *g, const char *format, ...) {
        char path[320], tail[3000];
        va_list arguments;
        ssize_t n;
        int fd;

        path_in(g, "log", path);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && lseek(fd, -(off_t)sizeof tail, SEEK_END) < 0)
                (void)lseek(fd, 0, SEEK_SET);
        n = fd >= 0 ? read(fd, tail, sizeof tail) : 0;
        fprintf(stderr, "%.*s\n", (int)(n > 0 ? n : 0), tail);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputs("\n", stderr);
        if (g->pid > 0)
                kill(g->pid, SIGKILL);
        fflush(NULL);
        _exit(EXIT_FAILURE); /* as it stands: nothing is put away */
}

/* ---- set-up ---- */

static int64_t *map_pair(const struct gateway *g, const char *name) {
        char path[320];
        int fd;
        void *map;

        path_in(g, name, path);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, 2 * sizeof(int64_t)) < 0)
                gateway_fail(g, "%s: %s", path, strerror(errno));
        map = mmap(NULL, 2 * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (map == MAP_FAILED)
                gateway_fail(g, "%s cannot be mapped", path);
        return map;
}

void gateway_prepare(struct gateway *g, const char *settings, const char *profiles) {
        char path[320];
        FILE *file;

        g->points = map_pair(g, "points");
        g->clock = map_pair(g, "clock");
        path_in(g, "gatewayd.conf", path);
        file = fopen(path, "we");
        if (!file)
                gateway_fail(g, "%s: %s", path, strerror(errno));
        fprintf(file,
                "gateway_id = \"crashing\"; listen = \"127.0.0.1:1\";\nstore = \"%s/store.db\"; control = "
                "\"%s/control\";\n"
                "north = { verifier = \"collector\"; url = \"https://127.0.0.1:1/\"; };\n"
                "%s\nprofiles = ( %s );\n",
                g->folder, g->folder, settings ? settings : "", profiles);
        fclose(file);
}

static _Noreturn void become_core(const struct gateway *g, int link) {
        char program[320], path[320];
        int log;

        path_in(g, "log", path);
        log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        path_in(g, "clock", path);
        setenv("GATEWAYD_TEST_CLOCK", path, 1);
        setenv("GATEWAYD_TEST_CLOCK_SYNCHRONIZED", "1", 1);
        setenv("GATEWAYD_TEST_CRASH_TELL", "1", 1);
        path_in(g, "points", path);
        setenv("GATEWAYD_TEST_CRASH", path, 1);
        snprintf(program, sizeof program, "%s/gatewayd", g->build);
        if (dup2(link, ROLE_LINK_DESCRIPTOR) < 0 ||
            close_range(ROLE_LINK_DESCRIPTOR + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0 ||
            fcntl(ROLE_LINK_DESCRIPTOR, F_SETFD, 0) < 0)
                _exit(EXIT_FAILURE);
        execl(program, "gatewayd", "--role", "core", (char *)NULL);
        _exit(EXIT_FAILURE);
}

static struct link *new_link(struct gateway *g, int fd) {
        struct link *link;

        if (link_new(fd, QUEUE_BYTES, &link) < 0)
                gateway_fail(g, "no link");
        return link;
}

static void new_pair(struct gateway *g, int pair[2]) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                gateway_fail(g, "socketpair: %s", strerror(errno));
}

/* ---- frames ---- */

static int on_supervisor(void *userdata, struct frame *frame) {
        struct gateway *g = userdata;

        g->is_ready |= frame->type == FRAME_READY;
        g->has_pong |= frame->type == FRAME_PONG;
        return 0;
}

static int on_lookup(void *userdata, struct frame *frame) {
        struct message_certificate_answer certificate;
        struct message_psk_answer answer;
        struct gateway *g = userdata;

        if (frame->type == FRAME_PSK_ANSWER && message_read_psk_answer(frame->body, &answer) == 0) {
                g->is_found = answer.is_found;
                g->psk = answer.key;
        } else if (frame->type == FRAME_CERTIFICATE_ANSWER &&
                   message_read_certificate_answer(frame->body, &certificate) == 0)
                g->verdict = certificate.verdict;
        else
                return -EBADMSG;
        g->has_answer = true;
        return 0;
}

static int on_exchange(void *userdata, struct frame *frame) {
        struct gateway *g = userdata;
        struct message_reply reply;
        struct message_evict evict;

        if (frame->type == FRAME_EVICT && message_read_evict(frame->body, &evict) == 0) {
                g->is_evicted |= evict.session == g->asking;
                return 0;
        }
        if (frame->type != FRAME_REPLY)
                return 0;
        if (message_read_reply(frame->body, &reply) < 0)
                return -EBADMSG;
        if (reply.exchange != g->exchange_number)
                return 0;
        g->code = reply.code;
        buffer_free(&g->payload);
        buffer_append(&g->payload, reply.payload);
        g->has_answer = true;
        return 0;
}

static int on_north(void *userdata, struct frame *frame) {
        struct message_record record;
        struct gateway *g = userdata;

        if (frame->type != FRAME_RECORD || !g->record)
                return 0;
        if (message_read_record(frame->body, &record) < 0)
                return -EBADMSG;
        g->record(g->userdata, &record);
        return 0;
}

static void mourn(struct gateway *g) {
        if (g->is_gone)
                return;
        g->is_gone = true;
        if (waitpid(g->pid, &g->status, 0) != g->pid)
                gateway_fail(g, "core cannot be waited for");
        g->pid = 0;
        g->supervisor = link_free(g->supervisor);
        g->lookup = link_free(g->lookup);
        g->exchange = link_free(g->exchange);
        g->north = link_free(g->north);
}

static void take(struct gateway *g, struct link *link, link_handler handler) {
        int r = link ? link_receive(link, 64, handler, g) : 0;

        if (r < 0 && r != -EPIPE)
                gateway_fail(g, "core says what nobody understands");
}

/* Takes frames until `*flag`, or the asking session's eviction. 0, -EACCES or GONE. */
static int wait_for(struct gateway *g, const bool *flag, const char *what) {
        uint64_t deadline = monotonic_usec() + PATIENCE_USEC;
        bool has_ended[4] = { false }; /* core closes one link after another */

        while (!g->is_gone && !*flag && !g->is_evicted) {
                struct link *links[] = { g->supervisor, g->lookup, g->exchange, g->north };
                const link_handler handlers[] = { on_supervisor, on_lookup, on_exchange, on_north };
                struct pollfd pollers[ELEMENTS(links)];

                for (size_t i = 0; i < ELEMENTS(links); i++) {
                        if (links[i])
                                (void)link_flush(links[i]); /* its end shows in the reading */
                        pollers[i] = (struct pollfd){ .fd = links[i] && !has_ended[i] ? link_fd(links[i]) : -1,
                                                      .events = POLLIN };
                }
                if (poll(pollers, ELEMENTS(pollers), 1000) < 0 && errno != EINTR)
                        gateway_fail(g, "poll: %s", strerror(errno));
                /* What it said before it died counts: the device has it. */
                for (size_t i = ELEMENTS(links); i > 0; i--)
                        if (pollers[i - 1].revents) {
                                take(g, links[i - 1], handlers[i - 1]);
                                has_ended[i - 1] = (pollers[i - 1].revents & POLLHUP) != 0;
                        }
                if (pollers[0].revents & POLLHUP) {
                        for (size_t i = ELEMENTS(links); i > 0; i--)
                                take(g, links[i - 1], handlers[i - 1]);
                        mourn(g);
                }
                if (monotonic_usec() > deadline)
                        gateway_fail(g, "core gives no %s", what);
        }
        if (*flag)
                return 0;
        return g->is_gone ? GONE : -EACCES;
}

static void send_to(struct link *link, uint8_t type, struct bytes body) {
        if (link && link_send(link, type, body, LINK_NEVER_DROP) >= 0)
                (void)link_flush(link); /* its end shows in the reading */
}

static void send_setup(struct gateway *g, uint8_t type, enum role role, const int *fds, size_t count) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        if (g->is_gone)
                return;
        message_write_setup(&(struct message_setup){ .role = role, .generation = g->generation }, &body);
        if (link_send_descriptors(g->supervisor, type, buffer_bytes(&body), fds, count) >= 0)
                (void)link_flush(g->supervisor);
}

/* ---- start and stop ---- */

int gateway_reconnect(struct gateway *g) {
        int north[2];

        if (g->is_gone)
                return GONE;
        g->north = link_free(g->north);
        new_pair(g, north);
        send_setup(g, FRAME_PEER, ROLE_NORTH, north, 1);
        close(north[0]);
        g->north = new_link(g, north[1]);
        return 0;
}

static void connect_peers(struct gateway *g) {
        int lookup[2], exchange[2];

        new_pair(g, lookup);
        new_pair(g, exchange);
        send_setup(g, FRAME_PEER, ROLE_SOUTH, (int[]){ lookup[0], exchange[0] }, 2);
        close(lookup[0]);
        close(exchange[0]);
        g->lookup = new_link(g, lookup[1]);
        g->exchange = new_link(g, exchange[1]);
        (void)gateway_reconnect(g); /* it is there */
}

int gateway_start(struct gateway *g) {
        struct config_problems problems = { 0 };
        struct config *config = NULL;
        char path[320];
        int pair[2], descriptor, r;

        new_pair(g, pair);
        g->pid = fork();
        if (g->pid == 0)
                become_core(g, pair[1]);
        if (g->pid < 0)
                gateway_fail(g, "fork: %s", strerror(errno));
        close(pair[1]);
        g->supervisor = new_link(g, pair[0]);
        g->is_gone = g->is_ready = g->is_evicted = false;
        g->generation++;
        path_in(g, "gatewayd.conf", path);
        r = config_load_snapshot(path, &descriptor, &config, &problems);
        if (r < 0)
                gateway_fail(g, "the configuration: %s", problems.count > 0 ? problems.lines[0] : strerror(-r));
        send_setup(g, FRAME_SETUP, ROLE_CORE, &descriptor, 1);
        config_free(config);
        config_problems_free(&problems);
        close(descriptor);
        r = wait_for(g, &g->is_ready, "READY");
        if (r < 0 || g->is_gone)
                return GONE;
        connect_peers(g);
        return 0;
}

int gateway_stop(struct gateway *g) {
        static const bool never = false;

        send_to(g->supervisor, FRAME_STOP, BYTES(NULL, 0));
        g->is_evicted = false;
        g->asking = 0;
        while (!g->is_gone)
                (void)wait_for(g, &never, "end");
        return WIFEXITED(g->status) && WEXITSTATUS(g->status) == 0 ? 0 : GONE;
}

int gateway_settle(struct gateway *g) {
        g->is_evicted = g->has_pong = false;
        g->asking = 0;
        send_to(g->supervisor, FRAME_PING, BYTES(NULL, 0));
        return wait_for(g, &g->has_pong, "PONG");
}

void gateway_pause(struct gateway *g) {
        (void)gateway_settle(g); /* its end shows in is_gone */
        usleep(2000);
}

/* ---- south ---- */

int gateway_psk(struct gateway *g, const char *identity, struct secret *ret) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct message_psk question = {
                .identity = bytes_of(identity),
                .peer = TEXT("127.0.0.1:4000"),
                .has_forward_secrecy = true,
        };

        message_write_psk(&question, &body);
        g->has_answer = g->is_evicted = false;
        g->asking = 0;
        send_to(g->lookup, FRAME_PSK, buffer_bytes(&body));
        if (wait_for(g, &g->has_answer, "answer to a lookup") < 0)
                return GONE;
        if (ret)
                *ret = g->psk;
        return g->is_found;
}

int gateway_certificate(struct gateway *g, struct bytes chain) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        message_write_certificate(&(struct message_certificate){ .chain = chain, .peer = TEXT("127.0.0.1:4000") },
                                  &body);
        g->has_answer = g->is_evicted = false;
        g->asking = 0;
        send_to(g->lookup, FRAME_CERTIFICATE, buffer_bytes(&body));
        if (wait_for(g, &g->has_answer, "answer about a certificate") < 0)
                return GONE;
        return g->verdict == CERTIFICATE_ACCEPTED;
}

session_handle gateway_connected(struct gateway *g, const char *identity, struct bytes chain) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct message_connected m = {
                .session = (session_handle)g->generation << 32 | ++g->number,
                .identity = bytes_of(identity),
                .chain = chain,
                .peer = TEXT("127.0.0.1:4000"),
                .suite = TEXT("ECDHE-PSK-CHACHA20-POLY1305"),
                .has_forward_secrecy = true,
                .begun_usec = monotonic_usec(),
                .finished_usec = monotonic_usec(),
        };

        message_write_connected(&m, &body);
        send_to(g->exchange, FRAME_CONNECTED, buffer_bytes(&body));
        return g->is_gone ? 0 : m.session;
}

int gateway_request(struct gateway *g, session_handle session, uint8_t method, const char *path, int32_t content_format,
                    int32_t accept, struct bytes payload) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct message_request m = {
                .session = session,
                .exchange = ++g->number,
                .message_id = (uint16_t)g->number,
                .token = TEXT("crash"),
                .method = method,
                .path = bytes_of(path),
                .content_format = content_format,
                .accept = accept,
                .observe = -1,
                .payload = payload,
        };

        message_write_request(&m, &body);
        g->asking = session;
        g->exchange_number = m.exchange;
        g->has_answer = g->is_evicted = false;
        g->code = 0;
        send_to(g->exchange, FRAME_REQUEST, buffer_bytes(&body));
        return wait_for(g, &g->has_answer, "reply");
}

/* ---- north and operators ---- */

int gateway_north(struct gateway *g, uint8_t type, const struct buffer *body) {
        send_to(g->north, type, buffer_bytes(body));
        return g->is_gone ? GONE : 0;
}

static _Noreturn void become_gatewayctl(const struct gateway *g, const char *const words[], int out) {
        char program[320], control[320];
        const char *arguments[24] = { "gatewayctl", "--control", control };

        path_in(g, "control", control);
        snprintf(program, sizeof program, "%s/gatewayctl", g->build);
        for (size_t i = 0; words[i] && i < 20; i++)
                arguments[3 + i] = words[i];
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
        close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
        execv(program, (char *const *)arguments);
        _exit(127);
}

int gateway_ctl(struct gateway *g, const char *const words[]) {
        int out[2], status;
        ssize_t n;
        pid_t pid;

        if (pipe2(out, O_CLOEXEC) < 0)
                gateway_fail(g, "pipe: %s", strerror(errno));
        pid = fork();
        if (pid == 0)
                become_gatewayctl(g, words, out[1]);
        close(out[1]);
        buffer_free(&g->output);
        do {
                n = read(out[0], buffer_reserve(&g->output, 4096), 4096);
                if (n > 0)
                        g->output.size += (size_t)n;
        } while (n > 0);
        buffer_append(&g->output, BYTES("", 1));
        close(out[0]);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
                gateway_fail(g, "gatewayctl %s cannot be run", words[0]);
        /* Whether it failed because core died, or for another reason. No PING: core may have said PONG already,
         * unasked, while it was busy. */
        if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3 && gateway_psk(g, "nobody", NULL) < 0)
                return GONE;
        return WEXITSTATUS(status);
}
