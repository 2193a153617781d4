/* SPDX-License-Identifier: Apache-2.0 */

/* How operators' requests are carried: the socket, its connections, the system bus, and the way of one
 * call from its message through core's turn and the barrier to its answer. Which methods there are: interface.c.
 * What they do: methods_*.c. */

#include "gatewayd/operator/control.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gatewayd/crash_point.h"
#include "gatewayd/operator/methods.h"

#define BUS_NAME      "org.gatewayd"
#define BUS_PATH      "/org/gatewayd"
#define BUS_INTERFACE "org.gatewayd.Manager1"
/* Operators, not devices: a handful. */
#define CONNECTIONS_MAX 32

struct connection {
        struct control *control;
        sd_bus *bus;
        bool is_system_bus;
        uid_t uid; /* of the peer; on the system bus each message has its own sender */
        struct connection *next;
};

/* One method call, from its arrival until it was answered. */
struct call {
        struct control *control;
        const struct method *method;
        sd_bus_message *request, *reply;
        char actor[32];
        struct call *previous, *next;
};

struct control {
        struct control_backend backend;
        sd_event *event;
        struct monitor *monitor;
        int listener;
        sd_event_source *source;
        struct connection *connections;
        unsigned connection_count;
        struct call *calls;
};

/* ---- one call ---- */

static void call_release(struct call *call) {
        sd_bus_message_unref(call->request);
        sd_bus_message_unref(call->reply);
        free(call);
}

static void call_free(struct call *call) {
        if (call->previous)
                call->previous->next = call->next;
        else
                call->control->calls = call->next;
        if (call->next)
                call->next->previous = call->previous;
        call_release(call);
}

static struct call *call_new(struct control *control, const struct method *method, sd_bus_message *request) {
        struct call *call = xcalloc(1, sizeof *call);

        call->control = control;
        call->method = method;
        call->request = sd_bus_message_ref(request);
        call->next = control->calls;
        if (call->next)
                call->next->previous = call;
        control->calls = call;
        return call;
}

static const char *error_name(int error) {
        switch (error) {
        case -ENOENT:
                return "org.gatewayd.Error.NotFound";
        case -EEXIST:
                return "org.gatewayd.Error.Exists";
        case -EINVAL:
        case -ERANGE:
        case -EBADMSG:
        case -ENXIO: /* sd-bus: an argument is missing or of another type */
                return "org.gatewayd.Error.Invalid";
        case -EPERM:
        case -EACCES:
        case -ENOTCONN:
                return "org.gatewayd.Error.Refused";
        case -ENOSPC:
                return "org.gatewayd.Error.Full";
        default:
                return "org.gatewayd.Error.Failed";
        }
}

/* A reply that cannot be sent has nobody to go to: the connection has ended. */
static void reply_error(struct call *call, int error, const char *text) {
        (void)sd_bus_reply_method_errorf(call->request, error_name(error), "%s", text);
}

static void on_barrier(void *arg, int error) {
        struct call *call = arg;
        char text[160];

        crash_point("answer");
        if (error < 0) {
                snprintf(text, sizeof text, "nothing was changed: the store could not take it (%s)", strerror(-error));
                reply_error(call, error, text);
        } else
                (void)sd_bus_send(NULL, call->reply, NULL);
        call_free(call);
}

sd_bus_message *method_later_reply(struct call *later) {
        return later->reply;
}

void method_answer_later(struct call *later, int error, const char *text) {
        if (error < 0)
                reply_error(later, error, text);
        else
                (void)sd_bus_send(NULL, later->reply, NULL);
        call_free(later);
}

static void call_run(struct call *call) {
        struct control *control = call->control;
        const struct control_backend *backend = &control->backend;
        struct problem problem = { 0 };
        struct buffer complaint = { 0 };
        struct method_call run = {
                .backend = backend,
                .monitor = control->monitor,
                .request = call->request,
                .problem = &problem,
                .complaint = &complaint,
        };
        int r;

        crash_point("call");
        r = sd_bus_message_new_method_return(call->request, &call->reply);
        if (r < 0) {
                call_free(call);
                return;
        }
        run.answer.message = call->reply;
        run.later = call;
        run.turn = backend->turn(backend->userdata, call->actor);
        r = run.turn ? call->method->run(&run) : -EBUSY;
        if (r >= 0 && run.answer.error < 0)
                r = problem_set(&problem, CODE_INTERNAL, -run.answer.error, "answer",
                                "the answer could not be written: %s", strerror(-run.answer.error));
        if (r >= 0 && run.is_later) {
                backend->rollback(backend->userdata); /* it has changed nothing */
                return;
        }
        if (r >= 0) {
                backend->commit_then(backend->userdata, on_barrier, call);
                return;
        }
        if (run.turn)
                backend->rollback(backend->userdata);
        if (complaint.size > 0) {
                buffer_append(&complaint, BYTES("", 1));
                reply_error(call, r, (const char *)complaint.data);
        } else
                reply_error(call, r, problem.detail[0] ? problem.detail : strerror(-r));
        buffer_free(&complaint);
        call_free(call);
}

/* ---- who asks ---- */

static int on_uid(sd_bus_message *answer, void *userdata, sd_bus_error *error) {
        struct call *call = userdata;
        uint32_t uid;

        (void)error;
        if (sd_bus_message_is_method_error(answer, NULL) || sd_bus_message_read(answer, "u", &uid) < 0) {
                reply_error(call, -EACCES, "the bus does not say who asks");
                call_free(call);
                return 1;
        }
        /* Who may speak to us there is the bus's policy (org.gatewayd.conf): root alone. Seen to here too,
         * so that a forgotten policy opens nothing. */
        if (uid != 0 && uid != geteuid()) {
                reply_error(call, -EACCES, "only root may do that over the system bus");
                call_free(call);
                return 1;
        }
        snprintf(call->actor, sizeof call->actor, "uid %u", uid);
        call_run(call);
        return 1;
}

/* Asked without waiting: a bus that hangs must not hold core. The answer comes, or the call stays. */
static int ask_uid(struct connection *connection, struct call *call) {
        return sd_bus_call_method_async(connection->bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                        "org.freedesktop.DBus", "GetConnectionUnixUser", on_uid, call, "s",
                                        sd_bus_message_get_sender(call->request));
}

int control_on_method(sd_bus_message *request, void *userdata, sd_bus_error *error) {
        struct connection *connection = userdata;
        const struct method *method = method_find(sd_bus_message_get_member(request));
        struct call *call;
        int r;

        (void)error;
        if (!method)
                return 0;
        call = call_new(connection->control, method, request);
        if (connection->is_system_bus) {
                r = ask_uid(connection, call);
                if (r < 0)
                        call_free(call);
                return r < 0 ? r : 1;
        }
        snprintf(call->actor, sizeof call->actor, "uid %u", (unsigned)connection->uid);
        call_run(call);
        return 1;
}

/* ---- connections ---- */

static void connection_release(struct connection *connection) {
        sd_bus_close_unref(connection->bus);
        free(connection);
}

static void connection_free(struct connection *connection) {
        struct control *control = connection->control;

        for (struct connection **p = &control->connections; *p; p = &(*p)->next)
                if (*p == connection) {
                        *p = connection->next;
                        control->connection_count--;
                        break;
                }
        connection_release(connection);
}

static int on_disconnected(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        (void)message;
        (void)error;
        connection_free(userdata);
        return 1;
}

static struct connection *connection_new(struct control *control, sd_bus *bus) {
        struct connection *connection = xcalloc(1, sizeof *connection);

        connection->control = control;
        connection->bus = bus;
        connection->next = control->connections;
        control->connections = connection;
        control->connection_count++;
        return connection;
}

/* What both kinds of connection have in common. */
static int connection_serve(struct connection *connection) {
        int r;

        r = sd_bus_match_signal_async(connection->bus, NULL, NULL, "/org/freedesktop/DBus/Local",
                                      "org.freedesktop.DBus.Local", "Disconnected", on_disconnected, NULL, connection);
        if (r >= 0)
                r = sd_bus_add_object_vtable(connection->bus, NULL, BUS_PATH, BUS_INTERFACE, control_vtable,
                                             connection);
        if (r >= 0)
                r = sd_bus_attach_event(connection->bus, connection->control->event, SD_EVENT_PRIORITY_NORMAL + 10);
        return r;
}

/* Takes over `fd` in any case. */
static int connection_accept(struct control *control, int fd) {
        struct connection *connection;
        struct ucred peer;
        socklen_t size = sizeof peer;
        sd_id128_t id;
        sd_bus *bus = NULL;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                r = -errno;
        else
                r = sd_bus_new(&bus);
        if (r >= 0)
                r = sd_bus_set_fd(bus, fd, fd);
        if (r < 0) {
                sd_bus_unref(bus);
                close(fd);
                return r;
        }
        connection = connection_new(control, bus);
        connection->uid = peer.uid;
        r = sd_id128_randomize(&id);
        if (r >= 0)
                r = sd_bus_set_server(bus, 1, id);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r >= 0)
                r = connection_serve(connection);
        if (r < 0)
                connection_free(connection);
        return r;
}

static int on_connection(sd_event_source *source, int listener, uint32_t revents, void *userdata) {
        struct control *control = userdata;
        int fd;

        (void)source;
        (void)revents;
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
                return 0; /* the caller has gone again, or descriptors are short: it may try again */
        if (control->connection_count >= CONNECTIONS_MAX) {
                close(fd);
                return 0;
        }
        (void)connection_accept(control, fd); /* concerns that caller alone, who sees the end of it */
        return 0;
}

/* ---- the system bus ---- */

static int on_name(sd_bus_message *answer, void *userdata, sd_bus_error *error) {
        struct connection *connection = userdata;

        (void)error;
        /* Without a policy for us, or where another gatewayd has the name: the socket is enough. */
        if (sd_bus_message_is_method_error(answer, NULL))
                connection_free(connection);
        return 1;
}

static void join_system_bus(struct control *control) {
        struct connection *connection;
        sd_bus *bus = NULL;
        int r;

        r = sd_bus_open_system(&bus);
        if (r < 0)
                return; /* there is none */
        connection = connection_new(control, bus);
        connection->is_system_bus = true;
        r = connection_serve(connection);
        if (r >= 0)
                r = sd_bus_request_name_async(bus, NULL, BUS_NAME, 0, on_name, connection);
        if (r < 0)
                connection_free(connection);
}

/* ---- the socket ---- */

static int listen_at(const char *path, struct problem *problem) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct stat status;
        int fd, r = 0;

        if (strlen(path) >= sizeof address.sun_path)
                return problem_set(problem, 0, ENAMETOOLONG, "control socket",
                                   "%s is longer than the %zu characters of a socket's path", path,
                                   sizeof address.sun_path - 1);
        strcpy(address.sun_path, path);
        if (lstat(path, &status) == 0 && !S_ISSOCK(status.st_mode))
                return problem_set(problem, 0, EEXIST, "control socket", "%s is there and is no socket", path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return problem_set(problem, 0, errno, "control socket", "%s", strerror(errno));
        if (unlink(path) < 0 && errno != ENOENT)
                r = -errno;
        /* Made with no more rights than it will have: nobody slips in between. */
        if (r == 0) {
                mode_t mask = umask(0117);

                if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
                        r = -errno;
                umask(mask);
        }
        if (r == 0 && listen(fd, CONNECTIONS_MAX) < 0)
                r = -errno;
        if (r < 0) {
                close(fd);
                return problem_set(problem, 0, -r, "control socket", "%s: %s", path, strerror(-r));
        }
        return fd;
}

int control_new(sd_event *event, const char *path, const struct control_backend *backend, struct control **ret,
                struct problem *problem) {
        struct control *control = xcalloc(1, sizeof *control);
        int r;

        control->backend = *backend;
        control->event = sd_event_ref(event);
        r = control->listener = listen_at(path, problem);
        if (r < 0) {
                control_free(control);
                return r;
        }
        r = sd_event_add_io(event, &control->source, control->listener, EPOLLIN, on_connection, control);
        if (r >= 0)
                r = sd_event_source_set_priority(control->source, SD_EVENT_PRIORITY_NORMAL + 10);
        if (r >= 0)
                r = monitor_new(event, backend, &control->monitor);
        if (r < 0) {
                control_free(control);
                return problem_set(problem, 0, -r, "control socket", "%s: %s", path, strerror(-r));
        }
        join_system_bus(control);
        *ret = control;
        return 0;
}

struct control *control_free(struct control *control) {
        if (!control)
                return NULL;
        for (struct call *call = control->calls, *next; call; call = next) {
                next = call->next;
                call_release(call);
        }
        for (struct connection *connection = control->connections, *next; connection; connection = next) {
                next = connection->next;
                connection_release(connection);
        }
        monitor_free(control->monitor);
        sd_event_source_disable_unref(control->source);
        if (control->listener >= 0)
                close(control->listener);
        sd_event_unref(control->event);
        free(control);
        return NULL;
}
