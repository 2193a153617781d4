/* SPDX-License-Identifier: Apache-2.0 */

/* Handshakes and GETs a second through south, and through Debian's coap-server-openssl on the same
 * machine in the same run, so that the ratios mean something where the figures do not.
 *
 *   bench_south [SESSIONS ...]      default: 100 1000 4000
 */

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coap/monotonic.h"
#include "coap/south.h"
#include "gatewayd/format.h"
#include "gatewayd/link.h"

#define KEY           "0123456789abcdef"
#define MEASURE_USEC  (3 * UINT64_C(1000000))
#define SHAKING_MAX   32 /* handshakes under way at once */
#define ASKING_MAX    64 /* requests under way at once */
#define PATIENCE_USEC UINT64_C(1000000)
#define FILL_USEC     (40 * UINT64_C(1000000)) /* what is not connected by then stays out */

/* ---- a core that gives the key and answers */

struct core {
        struct link *lookup, *exchange;
};

static int answer_lookup(void *userdata, struct frame *frame) {
        struct core *core = userdata;
        struct message_psk_answer answer = { .is_found = true };
        struct buffer body = { 0 };
        struct message_psk question;

        if (message_read_psk(frame->body, &question) < 0)
                return -EBADMSG;
        answer.question = question.question;
        secret_set(&answer.key, TEXT(KEY));
        message_write_psk_answer(&answer, &body);
        link_send(core->lookup, FRAME_PSK_ANSWER, buffer_bytes(&body), LINK_MAY_REFUSE);
        buffer_free(&body);
        return 0;
}

static int answer_request(void *userdata, struct frame *frame) {
        static struct buffer body;
        struct core *core = userdata;
        struct message_request request;
        struct message_reply reply = { .code = CODE_CONTENT,
                                       .content_format = FORMAT_TEXT,
                                       .max_age_sec = -1,
                                       .payload = TEXT("Nov 23 20:00:00") };

        if (frame->type != FRAME_REQUEST || message_read_request(frame->body, &request) < 0)
                return 0;
        reply.session = request.session;
        reply.exchange = request.exchange;
        body.size = 0;
        message_write_reply(&reply, &body);
        link_send(core->exchange, FRAME_REPLY, buffer_bytes(&body), LINK_MAY_REFUSE);
        return 0;
}

/* South takes nobody in before; nothing to show, so PSK alone. */
static void tell_credentials(struct core *core) {
        struct message_server_credentials none = { 0 };
        struct buffer body = { 0 };

        message_write_server_credentials(&none, &body);
        link_send(core->exchange, FRAME_SERVER_CREDENTIALS, buffer_bytes(&body), LINK_NEVER_DROP);
        buffer_free(&body);
}

static int play_core(int lookup, int exchange) {
        struct core core = { 0 };

        if (link_new(lookup, 1 << 20, &core.lookup) < 0 || link_new(exchange, 8 << 20, &core.exchange) < 0)
                return 1;
        tell_credentials(&core);
        for (;;) {
                struct pollfd polls[] = {
                        { .fd = link_fd(core.lookup), .events = (short)link_events(core.lookup) },
                        { .fd = link_fd(core.exchange), .events = (short)link_events(core.exchange) },
                };

                poll(polls, 2, -1);
                if (link_receive(core.lookup, 64, answer_lookup, &core) < 0 || link_flush(core.lookup) < 0 ||
                    link_receive(core.exchange, 64, answer_request, &core) < 0 || link_flush(core.exchange) < 0)
                        return 0;
        }
}

/* ---- the two servers */

static int udp_socket(uint16_t *port) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), size = 8 << 20;
        socklen_t length = sizeof address;

        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
            getsockname(fd, (struct sockaddr *)&address, &length) < 0)
                return -1;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
        *port = ntohs(address.sin_port);
        return fd;
}

static int run_south(int udp, int lookup, int exchange) {
        struct south_settings settings = south_settings_default;
        struct problem problem = { 0 };
        struct south *south;
        sd_event *event;

        settings.max_half_open_prefix = settings.max_half_open;
        if (sd_event_new(&event) < 0 || south_new(event, udp, lookup, exchange, 1, &settings, &south, &problem) < 0) {
                fprintf(stderr, "south: %s: %s\n", problem.title, problem.detail);
                return 1;
        }
        return sd_event_loop(event);
}

static pid_t start_south(uint16_t *port, pid_t *core) {
        int lookup[2], exchange[2], udp = udp_socket(port);
        pid_t south;

        if (udp < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, lookup) < 0 ||
            socketpair(AF_UNIX, SOCK_SEQPACKET, 0, exchange) < 0)
                return -1;
        *core = fork();
        if (*core == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(lookup[1]);
                close(exchange[1]);
                _exit(play_core(lookup[0], exchange[0]));
        }
        south = fork();
        if (south == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(lookup[0]);
                close(exchange[0]);
                _exit(run_south(udp, lookup[1], exchange[1]));
        }
        close(udp);
        for (int i = 0; i < 2; i++) {
                close(lookup[i]);
                close(exchange[i]);
        }
        return south;
}

static pid_t start_stock(uint16_t *port) {
        char text[8];
        pid_t pid;
        int udp = udp_socket(port);

        close(udp);
        snprintf(text, sizeof text, "%u", *port - 1u); /* it takes the next one for DTLS */
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                execlp("coap-server-openssl", "coap-server-openssl", "-A", "127.0.0.1", "-p", text, "-k", KEY, "-v",
                       "0", (char *)NULL);
                _exit(127);
        }
        return pid;
}

/* Until somebody listens: before that the kernel says so to whoever sends. */
static void wait_for(uint16_t port) {
        struct sockaddr_in to = { .sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        uint64_t deadline = monotonic_usec() + 10 * UINT64_C(1000000);
        bool is_there = false;

        while (!is_there && monotonic_usec() < deadline) {
                int fd = socket(AF_INET, SOCK_DGRAM, 0);
                struct pollfd error = { .fd = fd, .events = POLLIN };

                is_there = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && send(fd, "", 1, 0) == 1 &&
                           poll(&error, 1, 20) == 0;
                close(fd);
        }
}

static void stop(pid_t pid) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

/* ---- devices */

struct device {
        SSL *ssl;
        int fd;
        bool is_connected;
        uint64_t asked_usec; /* 0: nothing asked */
        uint64_t retry_usec; /* of its handshake */
};

struct load {
        SSL_CTX *context;
        struct device *devices;
        unsigned count, shaking, connected;
        int epoll;
        uint16_t port;
};

static unsigned give_key(SSL *ssl, const char *hint, char *identity, unsigned identity_size, unsigned char *key,
                         unsigned key_size) {
        (void)ssl;
        (void)hint;
        if (identity_size < 6 || key_size < sizeof KEY)
                return 0;
        memcpy(identity, "dev-1", 6);
        memcpy(key, KEY, sizeof KEY - 1);
        return sizeof KEY - 1;
}

static void device_begin(struct load *load, struct device *device) {
        struct sockaddr_in to = { .sin_family = AF_INET,
                                  .sin_port = htons(load->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = device };
        BIO *bio;

        device->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (device->fd < 0 || connect(device->fd, (struct sockaddr *)&to, sizeof to) < 0) {
                perror("device");
                exit(1);
        }
        device->ssl = SSL_new(load->context);
        SSL_set_mtu(device->ssl, 1200);
        bio = BIO_new_dgram(device->fd, BIO_NOCLOSE);
        (void)BIO_ctrl_set_connected(bio, &to);
        SSL_set_bio(device->ssl, bio, bio);
        SSL_set_connect_state(device->ssl);
        epoll_ctl(load->epoll, EPOLL_CTL_ADD, device->fd, &event);
        device->retry_usec = monotonic_usec() + PATIENCE_USEC;
}

static void device_end(struct device *device) {
        SSL_free(device->ssl);
        close(device->fd);
}

/* A handshake that failed begins anew. */
static void device_shake(struct load *load, struct device *device) {
        int r, error;

        ERR_clear_error();
        r = SSL_do_handshake(device->ssl);
        error = SSL_get_error(device->ssl, r);
        device->is_connected = r == 1;
        if (r == 1) {
                load->shaking--;
                load->connected++;
        } else if (error != SSL_ERROR_WANT_READ) {
                device_end(device);
                device_begin(load, device);
        }
}

static void retransmit_late(struct load *load, unsigned started) {
        uint64_t now = monotonic_usec();

        for (unsigned i = 0; i < started; i++) {
                struct device *device = &load->devices[i];

                if (device->is_connected || now < device->retry_usec)
                        continue;
                device->retry_usec = now + PATIENCE_USEC;
                if (DTLSv1_handle_timeout(device->ssl) < 1)
                        device_shake(load, device);
        }
}

/* Leaves out the devices that did not get in. */
static void keep_connected(struct load *load) {
        unsigned kept = 0;

        for (unsigned i = 0; i < load->count; i++)
                if (load->devices[i].is_connected)
                        load->devices[kept++] = load->devices[i];
                else if (load->devices[i].ssl)
                        device_end(&load->devices[i]);
        for (unsigned i = 0; i < kept; i++) {
                struct epoll_event event = { .events = EPOLLIN, .data.ptr = &load->devices[i] };

                epoll_ctl(load->epoll, EPOLL_CTL_MOD, load->devices[i].fd, &event);
        }
        load->count = kept;
}

/* Returns handshakes a second; fills all sessions, or as many as get in. */
static double fill(struct load *load) {
        uint64_t begun = monotonic_usec();
        unsigned started = 0;

        while (load->connected < load->count && monotonic_usec() - begun < FILL_USEC) {
                struct epoll_event events[64];
                int n;

                while (started < load->count && load->shaking < SHAKING_MAX) {
                        device_begin(load, &load->devices[started]);
                        load->shaking++;
                        device_shake(load, &load->devices[started++]);
                }
                n = epoll_wait(load->epoll, events, 64, 100);
                for (int i = 0; i < n; i++) {
                        struct device *device = events[i].data.ptr;
                        uint8_t data[2048];

                        if (device->is_connected) {
                                (void)SSL_read(device->ssl, data, sizeof data);
                        } else {
                                device_shake(load, device);
                        }
                }
                if (n == 0)
                        retransmit_late(load, started);
        }
        begun = monotonic_usec() - begun;
        keep_connected(load);
        return load->connected / ((double)begun / 1e6);
}

static void ask(struct device *device, uint16_t message_id, uint64_t now) {
        uint8_t get[] = { 0x42,
                          CODE_GET,
                          (uint8_t)(message_id >> 8),
                          (uint8_t)message_id,
                          (uint8_t)(message_id >> 8),
                          (uint8_t)message_id,
                          0xb4,
                          't',
                          'i',
                          'm',
                          'e' };

        (void)SSL_write(device->ssl, get, sizeof get);
        device->asked_usec = now;
}

/* Returns GETs a second over all sessions, each asked in its turn. */
static double get(struct load *load) {
        uint64_t begun = monotonic_usec(), now = begun;
        unsigned long done = 0;
        unsigned at = 0, asking = 0;
        uint16_t message_id = 1;

        while ((now = monotonic_usec()) - begun < MEASURE_USEC) {
                struct epoll_event events[64];
                int n;

                while (asking < ASKING_MAX && asking < load->count) {
                        struct device *device = &load->devices[at++ % load->count];

                        if (device->asked_usec && now - device->asked_usec < PATIENCE_USEC)
                                break;
                        asking += device->asked_usec == 0;
                        ask(device, message_id++, now);
                }
                n = epoll_wait(load->epoll, events, 64, 100);
                for (int i = 0; i < n; i++) {
                        struct device *device = events[i].data.ptr;
                        uint8_t data[2048];

                        while (SSL_read(device->ssl, data, sizeof data) > 0)
                                if (device->asked_usec) {
                                        device->asked_usec = 0;
                                        asking--;
                                        done++;
                                }
                }
        }
        return (double)done / ((double)(now - begun) / 1e6);
}

/* Returns how many sessions it came to. */
static unsigned measure(uint16_t port, unsigned count, double *handshakes, double *gets) {
        struct load load = { .count = count, .port = port };

        load.epoll = epoll_create1(0);
        load.devices = xcalloc(count, sizeof *load.devices);
        load.context = SSL_CTX_new(DTLS_client_method());
        SSL_CTX_set_cipher_list(load.context, "PSK-AES128-CCM8:@SECLEVEL=0");
        SSL_CTX_set_psk_client_callback(load.context, give_key);
        SSL_CTX_set_options(load.context, SSL_OP_NO_QUERY_MTU | SSL_OP_NO_TICKET);
        *handshakes = fill(&load);
        *gets = get(&load);
        count = load.count;
        for (unsigned i = 0; i < count; i++)
                device_end(&load.devices[i]);
        SSL_CTX_free(load.context);
        close(load.epoll);
        free(load.devices);
        return count;
}

static void compare(unsigned count) {
        double ours_handshakes, ours_gets, theirs_handshakes, theirs_gets;
        unsigned ours, theirs;
        uint16_t port;
        pid_t server, core = -1;

        server = start_south(&port, &core);
        if (server < 0 || core < 0) {
                perror("south");
                exit(1);
        }
        ours = measure(port, count, &ours_handshakes, &ours_gets);
        stop(server);
        stop(core);
        server = start_stock(&port);
        wait_for(port);
        theirs = measure(port, count, &theirs_handshakes, &theirs_gets);
        stop(server);
        printf("%6u sessions: handshakes/s %6.0f to %6.0f (x%.1f), GET/s %7.0f to %7.0f (x%.1f)", count,
               ours_handshakes, theirs_handshakes, ours_handshakes / theirs_handshakes, ours_gets, theirs_gets,
               ours_gets / theirs_gets);
        if (ours < count || theirs < count)
                printf("; got in within 40 s: %u to %u", ours, theirs);
        putchar('\n');
        fflush(stdout);
}

int main(int argc, char **argv) {
        static const unsigned usual[] = { 100, 1000, 4000 };
        struct rlimit files = { 1 << 17, 1 << 17 };

        setrlimit(RLIMIT_NOFILE, &files);
        printf("south to coap-server-openssl, PSK-AES128-CCM8:\n");
        fflush(stdout);
        if (argc > 1)
                for (int i = 1; i < argc; i++)
                        compare((unsigned)atoi(argv[i]));
        else
                for (size_t i = 0; i < ELEMENTS(usual); i++)
                        compare(usual[i]);
        return 0;
}
