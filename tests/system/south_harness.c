/* SPDX-License-Identifier: Apache-2.0 */

/* The real south in one process and, at the other end of its links, a core that does as a test says:
 * keys from a table, answers by path, and on commands from stdin evictions, notifications, silence.
 * What reaches core is printed, one JSON object a line, so that tests wait for lines instead of time.
 *
 *   south_harness [--bind ADDRESS] [--port N] [--wait] [SETTING=NUMBER ...]
 *
 * With --wait the first "credentials" command decides what the server shows to clients, and south is not
 * ready before; without, it shows nothing.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/sha.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coap/monotonic.h"
#include "coap/south.h"
#include "gatewayd/format.h"
#include "gatewayd/link.h"

#define KEYS_MAX    4096
#define WAITING_MAX 16384
#define QUEUE_BYTES (64 * 1024 * 1024)

struct key {
        char identity[129];
        struct secret secret;
};

/* A reply that leaves later, or when replies are released. */
struct waiting {
        bool is_used;
        uint64_t due_usec;
        struct buffer body;
};

struct script {
        struct link *lookup, *exchange;
        struct key keys[KEYS_MAX];
        size_t key_count;
        struct waiting waiting[WAITING_MAX];
        bool is_silent;  /* lookups get no answer */
        bool is_holding; /* replies wait for "release" */
        bool is_deaf;    /* the exchange link is not read */
        bool is_quiet;   /* nothing is printed */
        uint64_t lookup_delay_usec;
        enum certificate_verdict verdict; /* on every client's certificate */
        uint64_t sequence;                /* of replies */
        uint16_t block_size;
        struct buffer input;
};

static void print_text(const char *name, struct bytes text) {
        printf(",\"%s\":\"", name);
        for (size_t i = 0; i < text.size; i++)
                if (text.data[i] < 0x20 || text.data[i] >= 0x7f || text.data[i] == '"' || text.data[i] == '\\')
                        printf("\\u%04x", text.data[i]);
                else
                        putchar(text.data[i]);
        putchar('"');
}

static void print_hex(const char *name, struct bytes data) {
        printf(",\"%s\":\"", name);
        for (size_t i = 0; i < data.size; i++)
                printf("%02x", data.data[i]);
        putchar('"');
}

/* ---- lookups ---- */

static const struct secret *key_of(const struct script *script, struct bytes identity) {
        for (size_t i = 0; i < script->key_count; i++)
                if (bytes_equal(bytes_of(script->keys[i].identity), identity))
                        return &script->keys[i].secret;
        return NULL;
}

static void on_certificate(struct script *script, struct bytes body_in) {
        struct message_certificate_answer answer = { .verdict = script->verdict };
        struct message_certificate question;
        struct buffer body = { 0 };

        if (message_read_certificate(body_in, &question) < 0)
                return;
        if (!script->is_quiet) {
                printf("{\"event\":\"certificate\"");
                print_hex("chain", question.chain);
                print_text("peer", question.peer);
                printf("}\n");
        }
        if (script->is_silent)
                return;
        answer.question = question.question;
        message_write_certificate_answer(&answer, &body);
        link_send(script->lookup, FRAME_CERTIFICATE_ANSWER, buffer_bytes(&body), LINK_MAY_REFUSE);
        buffer_free(&body);
}

static int on_lookup(void *userdata, struct frame *frame) {
        struct script *script = userdata;
        struct message_psk_answer answer = { 0 };
        struct buffer body = { 0 };
        const struct secret *secret;
        struct message_psk question;

        if (frame->type == FRAME_CERTIFICATE) {
                on_certificate(script, frame->body);
                return 0;
        }
        if (message_read_psk(frame->body, &question) < 0)
                return -EBADMSG;
        if (!script->is_quiet) {
                printf("{\"event\":\"lookup\"");
                print_text("identity", question.identity);
                print_text("peer", question.peer);
                printf(",\"forward_secrecy\":%d}\n", question.has_forward_secrecy);
        }
        if (script->is_silent)
                return 0;
        if (script->lookup_delay_usec)
                usleep((useconds_t)script->lookup_delay_usec);
        secret = key_of(script, question.identity);
        answer.question = question.question;
        answer.is_found = secret != NULL;
        if (secret)
                answer.key = *secret;
        message_write_psk_answer(&answer, &body);
        link_send(script->lookup, FRAME_PSK_ANSWER, buffer_bytes(&body), LINK_MAY_REFUSE);
        buffer_free(&body);
        return 0;
}

/* ---- requests ---- */

static struct message_reply reply_to(const struct message_request *request) {
        return (struct message_reply){
                .session = request->session,
                .exchange = request->exchange,
                .code = CODE_CONTENT,
                .content_format = FORMAT_TEXT,
                .max_age_sec = -1,
        };
}

static bool begins_with(struct bytes path, const char *prefix, unsigned long *number) {
        size_t size = strlen(prefix);
        char rest[16];

        if (path.size <= size || memcmp(path.data, prefix, size) != 0 ||
            bytes_to_text(BYTES(path.data + size, path.size - size), rest, sizeof rest) < 0)
                return false;
        *number = strtoul(rest, NULL, 10);
        return true;
}

static void pattern(struct buffer *to, size_t size) {
        uint8_t *data = buffer_reserve(to, size);

        for (size_t i = 0; i < size; i++)
                data[i] = (uint8_t) "0123456789abcdefghijklmnopqrstuvwxyz"[i % 36];
        /* Each 16-byte block begins with its number, so that a block out of place shows. */
        for (size_t i = 0; i + 8 <= size; i += 16) {
                char number[24];

                snprintf(number, sizeof number, "%07zu:", i / 16);
                memcpy(data + i, number, 8);
        }
        to->size += size;
}

/* Fills the reply by the request's path; returns in how many milliseconds it leaves, or -1: never. */
static long answer(struct script *script, const struct message_request *request, struct message_reply *reply,
                   struct buffer *payload) {
        unsigned long number;

        if (begins_with(request->path, "size/", &number)) {
                pattern(payload, number);
                reply->max_age_sec = 30;
                reply->block_size = script->block_size;
        } else if (begins_with(request->path, "slow/", &number)) {
                buffer_printf(payload, "slow");
                return (long)number;
        } else if (bytes_equal(request->path, TEXT("digest"))) {
                uint8_t digest[SHA256_DIGEST_LENGTH];
                char hex[2 * sizeof digest + 1];

                SHA256(request->payload.data, request->payload.size, digest);
                bytes_to_hex(BYTES(digest, sizeof digest), hex);
                buffer_printf(payload, "%zu %s", request->payload.size, hex);
                reply->code = CODE_CHANGED;
        } else if (bytes_equal(request->path, TEXT("echo"))) {
                buffer_append(payload, request->payload);
                reply->code = request->method == CODE_POST ? CODE_CHANGED : CODE_CONTENT;
                reply->content_format = request->content_format;
        } else if (bytes_equal(request->path, TEXT("time"))) {
                buffer_printf(payload, "01234567");
        } else if (bytes_equal(request->path, TEXT("me")) || bytes_equal(request->path, TEXT("other"))) {
                buffer_printf(payload, "state %lu", (unsigned long)script->sequence);
                reply->is_observed = request->observe == 0;
                reply->max_age_sec = 86400;
        } else if (bytes_equal(request->path, TEXT(".well-known/core"))) {
                buffer_printf(payload, "</me>;obs");
                reply->content_format = FORMAT_LINK;
        } else if (bytes_equal(request->path, TEXT("never"))) {
                return -1;
        } else {
                struct problem problem = { 0 };

                (void)problem_set(&problem, CODE_NOT_FOUND, ENOENT, "not found", "nothing here");
                problem_to_cbor(&problem, payload);
                reply->code = CODE_NOT_FOUND;
                reply->content_format = FORMAT_PROBLEM;
        }
        return 0;
}

static void leave_later(struct script *script, const struct buffer *body, uint64_t due_usec) {
        for (size_t i = 0; i < WAITING_MAX; i++) {
                struct waiting *waiting = &script->waiting[i];

                if (waiting->is_used)
                        continue;
                waiting->is_used = true;
                waiting->due_usec = due_usec;
                waiting->body.size = 0;
                buffer_append(&waiting->body, buffer_bytes(body));
                return;
        }
}

static void print_request(const struct message_request *request) {
        uint8_t digest[SHA256_DIGEST_LENGTH];

        printf("{\"event\":\"request\",\"session\":%llu,\"exchange\":%llu,\"message_id\":%u,\"method\":%u",
               (unsigned long long)request->session, (unsigned long long)request->exchange, request->message_id,
               request->method);
        print_text("path", request->path);
        print_text("query", request->query);
        print_hex("token", request->token);
        printf(",\"content_format\":%d,\"accept\":%d,\"observe\":%d,\"size\":%zu", request->content_format,
               request->accept, request->observe, request->payload.size);
        SHA256(request->payload.data, request->payload.size, digest);
        print_hex("sha256", BYTES(digest, sizeof digest));
        printf("}\n");
}

static void on_request(struct script *script, const struct message_request *request) {
        struct message_reply reply = reply_to(request);
        struct buffer payload = { 0 }, body = { 0 };
        long delay_msec;

        if (!script->is_quiet)
                print_request(request);
        script->sequence++;
        delay_msec = answer(script, request, &reply, &payload);
        reply.payload = buffer_bytes(&payload);
        message_write_reply(&reply, &body);
        if (delay_msec == 0 && !script->is_holding)
                link_send(script->exchange, FRAME_REPLY, buffer_bytes(&body), LINK_MAY_REFUSE);
        else if (delay_msec >= 0)
                leave_later(script, &body,
                            script->is_holding ? UINT64_MAX : monotonic_usec() + (uint64_t)delay_msec * 1000);
        buffer_free(&payload);
        buffer_free(&body);
}

static const char *const reasons[] = { "by-peer", "replaced", "idle", "evicted", "shutdown", "error" };

static void print_connected(struct bytes body) {
        struct message_connected connected;

        if (message_read_connected(body, &connected) < 0)
                return;
        printf("{\"event\":\"connected\",\"session\":%llu", (unsigned long long)connected.session);
        print_text("identity", connected.identity);
        print_text("peer", connected.peer);
        print_text("suite", connected.suite);
        print_hex("chain", connected.chain);
        print_hex("tls_unique", connected.tls_unique);
        printf(",\"forward_secrecy\":%d,\"usec\":%llu}\n", connected.has_forward_secrecy,
               (unsigned long long)(connected.finished_usec - connected.begun_usec));
}

static void print_statistics(struct bytes body) {
        static const char *const names[SOUTH_COUNTERS] = {
                "sessions",      "half_open",        "handshakes",    "handshakes_failed",
                "hellos",        "datagrams_in",     "datagrams_out", "datagrams_dropped",
                "requests",      "requests_refused", "replies_late",  "observers",
                "notifications", "bodies",
        };
        struct field_reader reader = { .left = body };

        if (field_get_u32(&reader) != SOUTH_COUNTERS)
                return;
        printf("{\"event\":\"statistics\"");
        for (size_t i = 0; i < SOUTH_COUNTERS; i++)
                printf(",\"%s\":%llu", names[i], (unsigned long long)field_get_u64(&reader));
        printf("}\n");
}

static int on_exchange(void *userdata, struct frame *frame) {
        struct script *script = userdata;
        struct message_handshake_failed failed;
        struct message_request request;
        struct message_closed closed;

        switch (frame->type) {
        case FRAME_REQUEST:
                if (message_read_request(frame->body, &request) < 0)
                        return -EBADMSG;
                on_request(script, &request);
                return 0;
        case FRAME_CONNECTED:
                if (!script->is_quiet)
                        print_connected(frame->body);
                return 0;
        case FRAME_CLOSED:
                if (message_read_closed(frame->body, &closed) < 0)
                        return -EBADMSG;
                if (!script->is_quiet)
                        printf("{\"event\":\"closed\",\"session\":%llu,\"reason\":\"%s\"}\n",
                               (unsigned long long)closed.session, reasons[closed.reason]);
                return 0;
        case FRAME_HANDSHAKE_FAILED:
                if (message_read_handshake_failed(frame->body, &failed) < 0)
                        return -EBADMSG;
                printf("{\"event\":\"failed\",\"failure\":\"%s\",\"count\":%u", handshake_failure_name(failed.failure),
                       failed.count);
                print_text("identity", failed.identity);
                print_text("peer", failed.peer);
                printf("}\n");
                return 0;
        case FRAME_SOUTH_STATISTICS:
                print_statistics(frame->body);
                return 0;
        default:
                return -EBADMSG;
        }
}

/* ---- commands ---- */

static void set_key(struct script *script, const char *identity, const char *hex) {
        struct key *key = NULL;
        uint8_t value[SECRET_MAX];
        ssize_t size = hex_decode(bytes_of(hex), value, sizeof value);

        for (size_t i = 0; i < script->key_count; i++)
                if (strcmp(script->keys[i].identity, identity) == 0)
                        key = &script->keys[i];
        if (!key && script->key_count < KEYS_MAX)
                key = &script->keys[script->key_count++];
        if (!key || size < 0)
                return;
        snprintf(key->identity, sizeof key->identity, "%s", identity);
        secret_set(&key->secret, BYTES(value, (size_t)size));
}

static void forget_key(struct script *script, const char *identity) {
        for (size_t i = 0; i < script->key_count; i++)
                if (strcmp(script->keys[i].identity, identity) == 0)
                        script->keys[i] = script->keys[--script->key_count];
}

static void evict(struct script *script, const char *session) {
        struct message_evict message = { .session = strtoull(session, NULL, 10) };
        struct buffer body = { 0 };

        message_write_evict(&message, &body);
        link_send(script->exchange, FRAME_EVICT, buffer_bytes(&body), LINK_NEVER_DROP);
        buffer_free(&body);
}

/* Both as hex, or "-" for none. */
static void tell_credentials(struct script *script, const char *key, const char *chain) {
        uint8_t *data = malloc(2 * CERTIFICATES_MAX);
        struct message_server_credentials message = { 0 };
        struct buffer body = { 0 };
        ssize_t size;

        if (!data)
                oom();
        size = hex_decode(bytes_of(key), data, CERTIFICATES_MAX);
        message.key = BYTES(data, size > 0 ? (size_t)size : 0);
        size = hex_decode(bytes_of(chain), data + CERTIFICATES_MAX, CERTIFICATES_MAX);
        message.chain = BYTES(data + CERTIFICATES_MAX, size > 0 ? (size_t)size : 0);
        message_write_server_credentials(&message, &body);
        link_send(script->exchange, FRAME_SERVER_CREDENTIALS, buffer_bytes(&body), LINK_NEVER_DROP);
        buffer_free(&body);
        free(data);
}

static void notify(struct script *script, const char *session, const char *path, const char *text) {
        struct message_reply message = {
                .session = strtoull(session, NULL, 10),
                .code = strcmp(text, "gone") == 0 ? CODE_NOT_FOUND : CODE_CONTENT,
                .content_format = FORMAT_TEXT,
                .max_age_sec = 60,
                .path = bytes_of(path),
                .block_size = script->block_size,
        };
        struct buffer body = { 0 }, payload = { 0 };

        if (strncmp(text, "size/", 5) == 0)
                pattern(&payload, strtoul(text + 5, NULL, 10));
        else
                buffer_printf(&payload, "%s", text);
        message.payload = buffer_bytes(&payload);
        message_write_reply(&message, &body);
        link_send(script->exchange, FRAME_NOTIFY, buffer_bytes(&body), LINK_MAY_REFUSE);
        buffer_free(&body);
        buffer_free(&payload);
}

static void send_due(struct script *script, uint64_t now_usec) {
        for (size_t i = 0; i < WAITING_MAX; i++) {
                struct waiting *waiting = &script->waiting[i];

                if (!waiting->is_used || waiting->due_usec > now_usec)
                        continue;
                link_send(script->exchange, FRAME_REPLY, buffer_bytes(&waiting->body), LINK_MAY_REFUSE);
                waiting->is_used = false;
        }
}

static void command(struct script *script, char *line) {
        char *save = NULL, *verb = strtok_r(line, " ", &save), *a = strtok_r(NULL, " ", &save),
             *b = strtok_r(NULL, " ", &save), *c = strtok_r(NULL, " ", &save);

        if (!verb)
                return;
        if (strcmp(verb, "key") == 0 && a && b)
                set_key(script, a, b);
        else if (strcmp(verb, "forget") == 0 && a)
                forget_key(script, a);
        else if (strcmp(verb, "evict") == 0 && a)
                evict(script, a);
        else if (strcmp(verb, "notify") == 0 && a && b && c)
                notify(script, a, b, c);
        else if (strcmp(verb, "credentials") == 0 && a && b)
                tell_credentials(script, a, b);
        else if (strcmp(verb, "verdict") == 0 && a)
                script->verdict = (enum certificate_verdict)atoi(a);
        else if (strcmp(verb, "silent") == 0 && a)
                script->is_silent = atoi(a);
        else if (strcmp(verb, "hold") == 0)
                script->is_holding = true;
        else if (strcmp(verb, "release") == 0) {
                script->is_holding = false;
                send_due(script, UINT64_MAX);
        } else if (strcmp(verb, "deaf") == 0 && a)
                script->is_deaf = atoi(a);
        else if (strcmp(verb, "quiet") == 0 && a)
                script->is_quiet = atoi(a);
        else if (strcmp(verb, "delay") == 0 && a)
                script->lookup_delay_usec = strtoul(a, NULL, 10) * 1000;
        else if (strcmp(verb, "clock") == 0)
                printf("{\"event\":\"clock\",\"seconds\":%lld}\n", (long long)time(NULL));
        else if (strcmp(verb, "block") == 0 && a)
                script->block_size = (uint16_t)atoi(a);
        printf("{\"event\":\"done\",\"verb\":\"%s\"}\n", verb);
}

/* Returns false at the end of the input. */
static bool read_commands(struct script *script) {
        uint8_t data[4096];
        ssize_t size = read(STDIN_FILENO, data, sizeof data);
        uint8_t *newline;

        if (size <= 0)
                return false;
        buffer_append(&script->input, BYTES(data, (size_t)size));
        while (script->input.size > 0 && (newline = memchr(script->input.data, '\n', script->input.size))) {
                size_t used = (size_t)(newline - script->input.data) + 1;

                *newline = 0;
                command(script, (char *)script->input.data);
                script->input.size -= used;
                memmove(script->input.data, script->input.data + used, script->input.size);
        }
        return true;
}

static int play_core(int lookup, int exchange, bool is_waiting) {
        struct script *script = xcalloc(1, sizeof *script);

        if (link_new(lookup, QUEUE_BYTES, &script->lookup) < 0 ||
            link_new(exchange, QUEUE_BYTES, &script->exchange) < 0)
                return 1;
        if (!is_waiting)
                tell_credentials(script, "-", "-");
        for (;;) {
                struct pollfd polls[] = {
                        { .fd = STDIN_FILENO, .events = POLLIN },
                        { .fd = link_fd(script->lookup), .events = (short)link_events(script->lookup) },
                        { .fd = script->is_deaf ? -1 : link_fd(script->exchange),
                          .events = (short)link_events(script->exchange) },
                };

                poll(polls, 3, 20);
                if (polls[0].revents && !read_commands(script))
                        return 0;
                if (link_receive(script->lookup, 64, on_lookup, script) < 0)
                        return 0;
                fflush(stdout);
                if (link_flush(script->lookup) < 0)
                        return 0;
                if (!script->is_deaf && link_receive(script->exchange, 64, on_exchange, script) < 0)
                        return 0;
                send_due(script, monotonic_usec());
                fflush(stdout); /* before anybody can have an answer */
                if (link_flush(script->exchange) < 0)
                        return 0;
        }
}

/* ---- south ---- */

static bool set(struct south_settings *settings, const char *argument) {
        static const struct {
                const char *name;
                size_t offset, size;
        } names[] = {
#define SETTING(name) { #name, offsetof(struct south_settings, name), sizeof settings->name }
                SETTING(engines),    SETTING(max_sessions), SETTING(max_half_open), SETTING(max_half_open_prefix),
                SETTING(mtu),        SETTING(idle_sec),     SETTING(half_open_sec), SETTING(max_body_bytes),
                SETTING(block_size), SETTING(max_bodies),
#undef SETTING
        };
        const char *equals = strchr(argument, '=');
        uint64_t value;

        if (!equals)
                return false;
        value = strtoull(equals + 1, NULL, 10);
        for (size_t i = 0; i < ELEMENTS(names); i++)
                if (strncmp(names[i].name, argument, (size_t)(equals - argument)) == 0 &&
                    names[i].name[equals - argument] == 0) {
                        memcpy((char *)settings + names[i].offset, &value, names[i].size);
                        return true;
                }
        return false;
}

static int udp_socket(const char *address, uint16_t port) {
        struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
        bool is_v6 = strchr(address, ':') != NULL;
        int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int no = 0, size = 8 << 20, r;

        if (is_v6) {
                inet_pton(AF_INET6, address, &v6.sin6_addr);
                setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
                r = bind(fd, (struct sockaddr *)&v6, sizeof v6);
        } else {
                inet_pton(AF_INET, address, &v4.sin_addr);
                r = bind(fd, (struct sockaddr *)&v4, sizeof v4);
        }
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
        return r < 0 ? -1 : fd;
}

static void on_ready(void *userdata) {
        struct sockaddr_in6 bound;
        socklen_t size = sizeof bound;

        getsockname(*(int *)userdata, (struct sockaddr *)&bound, &size);
        printf("{\"event\":\"ready\",\"port\":%u,\"pid\":%d}\n", ntohs(bound.sin6_port), getpid());
        fflush(stdout);
}

static int run_south(int udp, int lookup, int exchange, const struct south_settings *settings) {
        struct problem problem = { 0 };
        struct south *south;
        sd_event *event;
        int r;

        if (sd_event_new(&event) < 0)
                return 1;
        sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
        r = south_new(event, udp, lookup, exchange, 7, settings, &south, &problem);
        if (r < 0) {
                fprintf(stderr, "south: %s: %s\n", problem.title, problem.detail);
                return 2;
        }
        south_on_ready(south, on_ready, &udp);
        r = sd_event_loop(event);
        if (r != 0)
                fprintf(stderr, "south: the loop ended with %d\n", r);
        south_stop(south);
        south_free(south);
        sd_event_unref(event);
        return r != 0;
}

int main(int argc, char **argv) {
        struct south_settings settings = south_settings_default;
        const char *address = "127.0.0.1";
        int lookup[2], exchange[2], udp, status;
        bool is_waiting = false;
        uint16_t port = 0;
        sigset_t signals;
        pid_t core;

        for (int i = 1; i < argc; i++)
                if (strcmp(argv[i], "--bind") == 0 && i + 1 < argc)
                        address = argv[++i];
                else if (strcmp(argv[i], "--port") == 0 && i + 1 < argc)
                        port = (uint16_t)atoi(argv[++i]);
                else if (strcmp(argv[i], "--wait") == 0)
                        is_waiting = true;
                else if (!set(&settings, argv[i])) {
                        fprintf(stderr, "unknown setting %s\n", argv[i]);
                        return 2;
                }
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, lookup) < 0 ||
            socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, exchange) < 0)
                return 1;
        udp = udp_socket(address, port);
        if (udp < 0) {
                perror("bind");
                return 1;
        }
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        core = fork();
        if (core == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(udp);
                close(lookup[1]);
                close(exchange[1]);
                _exit(play_core(lookup[0], exchange[0], is_waiting));
        }
        close(lookup[0]);
        close(exchange[0]);
        close(STDIN_FILENO);
        status = run_south(udp, lookup[1], exchange[1], &settings);
        waitpid(core, NULL, 0);
        return status;
}
