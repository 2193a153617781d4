/* SPDX-License-Identifier: Apache-2.0 */

/* North without the rest: a core that a test plays over standard input and output.
 *
 *   north_harness URL CA CERTIFICATE KEY RETRY-MIN RETRY-MAX BATCH TIMEOUT [none] [est=URL]
 *
 * Reads one command a line, fields apart by one space, bytes in hex ("-": none):
 *   hello GATEWAY-ID INCARNATION        record SEQUENCE DEVICE FORMAT NONCE RECEIPT EVIDENCE
 *   ping            try (now)           stop (north_stop)   raw TYPE BODY           break (core's end is closed)
 *   enrol NUMBER CSR        renew NUMBER CSR
 * Writes one line for each frame of north's: delivered, parked, result, uplink, enrolled, anchors, pong; "refused TEXT"
 * where north would not start; "exit CODE" when north asked its loop to end. End of input ends it. */

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/link_event.h"
#include "gatewayd/messages.h"
#include "gatewayd/north/north.h"
#include "systemd/journal.h"

#define LINE_MAX_BYTES (512 * 1024)
#define QUEUE_BYTES    (64u << 20)

struct harness {
        sd_event *event;
        struct link *core; /* our end: we are core */
        struct link_watch *watch;
        struct north *north;
        struct buffer input;
        bool is_ended; /* by the test */
};

static void print_bytes(const char *before, struct bytes bytes, const char *after) {
        _cleanup_(freep) char *text = xcalloc(1, 2 * bytes.size + 1);

        bytes_to_hex(bytes, text);
        printf("%s%s%s", before, text, after);
}

static void print_enrolled(const struct message_enrolled *m) {
        static const char *const outcomes[] = { "issued", "later", "refused", "failed" };

        printf("enrolled %lu %s %u %lu ", m->number, outcomes[m->outcome], m->http_status, m->retry_sec);
        print_bytes("", m->certificates, m->certificates.size > 0 ? " " : "- ");
        printf("%.*s\n", (int)m->reason.size, m->reason.size > 0 ? (const char *)m->reason.data : "");
}

static int print_frame(void *userdata, struct frame *frame) {
        struct message_delivered delivered;
        struct message_parked parked;
        struct message_result result;
        struct message_uplink uplink;
        struct message_enrolled enrolled;

        (void)userdata;
        if (frame->type == FRAME_DELIVERED && message_read_delivered(frame->body, &delivered) == 0)
                printf("delivered %lu\n", delivered.sequence);
        else if (frame->type == FRAME_PARKED && message_read_parked(frame->body, &parked) == 0)
                printf("parked %lu %u %.*s\n", parked.sequence, parked.http_status, (int)parked.reason.size,
                       (const char *)parked.reason.data);
        else if (frame->type == FRAME_RESULT && message_read_result(frame->body, &result) == 0)
                printf("result %lu %u\n", result.sequence, result.tier);
        else if (frame->type == FRAME_UPLINK && message_read_uplink(frame->body, &uplink) == 0)
                printf("uplink %s %lu %.*s\n", uplink.is_up ? "up" : "down", uplink.retry_sec, (int)uplink.reason.size,
                       (const char *)uplink.reason.data);
        else if (frame->type == FRAME_ENROLLED && message_read_enrolled(frame->body, &enrolled) == 0)
                print_enrolled(&enrolled);
        else if (frame->type == FRAME_ANCHORS)
                print_bytes("anchors ", frame->body, "\n");
        else if (frame->type == FRAME_PONG)
                printf("pong\n");
        else
                printf("odd frame %u\n", frame->type);
        fflush(stdout);
        return 0;
}

static void on_gone(void *userdata, int error) {
        (void)userdata;
        printf("link ended %d\n", -error);
        fflush(stdout);
}

/* The next field, in place; empty when there is none. */
static char *field(char **line) {
        char *start = *line, *space = strchr(start, ' ');

        if (space)
                *space = 0;
        *line = space ? space + 1 : start + strlen(start);
        return start;
}

static struct bytes hex_field(char **line, struct buffer *room) {
        char *text = field(line);
        size_t start = room->size;
        ssize_t n;

        if (strcmp(text, "-") == 0)
                return BYTES(NULL, 0);
        n = hex_decode(bytes_of(text), buffer_reserve(room, strlen(text) / 2 + 1), strlen(text) / 2 + 1);
        if (n < 0) {
                fprintf(stderr, "not hex: %s\n", text);
                exit(EXIT_FAILURE);
        }
        room->size += (size_t)n;
        return BYTES(room->data + start, (size_t)n);
}

static void send_frame(struct harness *h, uint8_t type, const struct buffer *body) {
        if (link_send(h->core, type, buffer_bytes(body), LINK_NEVER_DROP) < 0)
                printf("link refused\n");
}

static void send_record(struct harness *h, char *line) {
        _cleanup_(buffer_free) struct buffer body = { 0 }, nonce = { 0 }, receipt = { 0 }, evidence = { 0 };
        struct message_record m = { .sequence = strtoull(field(&line), NULL, 10) };

        m.device = bytes_of(field(&line));
        m.content_format = atoi(field(&line));
        m.nonce = hex_field(&line, &nonce);
        m.receipt = hex_field(&line, &receipt);
        m.evidence = hex_field(&line, &evidence);
        message_write_record(&m, &body);
        send_frame(h, FRAME_RECORD, &body);
}

static void send_hello(struct harness *h, char *line) {
        _cleanup_(buffer_free) struct buffer body = { 0 }, incarnation = { 0 };
        struct message_north_hello m = { .gateway_id = bytes_of(field(&line)) };

        m.incarnation = hex_field(&line, &incarnation);
        message_write_north_hello(&m, &body);
        send_frame(h, FRAME_NORTH_HELLO, &body);
}

static void send_enrol(struct harness *h, char *line, bool is_renewal) {
        _cleanup_(buffer_free) struct buffer body = { 0 }, csr = { 0 };
        struct message_enrol m = { .number = strtoull(field(&line), NULL, 10), .is_renewal = is_renewal };

        m.csr = hex_field(&line, &csr);
        message_write_enrol(&m, &body);
        send_frame(h, FRAME_ENROL, &body);
}

static void obey(struct harness *h, char *line) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        char *verb = field(&line);

        if (strcmp(verb, "record") == 0)
                send_record(h, line);
        else if (strcmp(verb, "hello") == 0)
                send_hello(h, line);
        else if (strcmp(verb, "enrol") == 0 || strcmp(verb, "renew") == 0)
                send_enrol(h, line, verb[0] == 'r');
        else if (strcmp(verb, "ping") == 0)
                send_frame(h, FRAME_PING, &body);
        else if (strcmp(verb, "try") == 0)
                send_frame(h, FRAME_TRY_NOW, &body);
        else if (strcmp(verb, "raw") == 0) {
                uint8_t type = (uint8_t)atoi(field(&line));

                (void)hex_field(&line, &body);
                send_frame(h, type, &body);
        } else if (strcmp(verb, "stop") == 0) {
                north_stop(h->north);
                printf("stopped\n");
                fflush(stdout);
        } else if (strcmp(verb, "break") == 0) {
                h->watch = link_watch_free(h->watch);
                h->core = link_free(h->core);
        } else {
                fprintf(stderr, "unknown command: %s\n", verb);
                exit(EXIT_FAILURE);
        }
}

static int on_input(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        struct harness *h = userdata;
        ssize_t n = read(fd, buffer_reserve(&h->input, LINE_MAX_BYTES), LINE_MAX_BYTES);
        uint8_t *end;

        (void)source;
        (void)revents;
        if (n <= 0) {
                h->is_ended = true;
                return sd_event_exit(h->event, 0);
        }
        h->input.size += (size_t)n;
        while ((end = memchr(h->input.data, '\n', h->input.size))) {
                size_t used = (size_t)(end - h->input.data) + 1;

                *end = 0;
                obey(h, (char *)h->input.data);
                memmove(h->input.data, h->input.data + used, h->input.size - used);
                h->input.size -= used;
        }
        if (h->watch)
                link_watch_flush(h->watch);
        return 0;
}

static int open_north(struct harness *h, char **arguments, char **more) {
        struct north_config config = {
                .verifier = VERIFIER_COLLECTOR,
                .retry_min_sec = atoi(arguments[4]),
                .retry_max_sec = atoi(arguments[5]),
                .batch_records = (size_t)atoi(arguments[6]),
                .timeout_sec = atoi(arguments[7]),
        };
        const struct link_watch_options options = {
                .burst = 64, .handle = print_frame, .gone = on_gone, .userdata = h
        };
        struct problem problem = { 0 };
        int ends[2], r;

        for (; *more; more++)
                if (strncmp(*more, "est=", 4) == 0)
                        snprintf(config.est_url, sizeof config.est_url, "%s", *more + 4);
                else
                        config.verifier = VERIFIER_NONE;
        snprintf(config.url, sizeof config.url, "%s", arguments[0]);
        snprintf(config.ca_file, sizeof config.ca_file, "%s", arguments[1]);
        snprintf(config.client_certificate, sizeof config.client_certificate, "%s", arguments[2]);
        snprintf(config.client_key, sizeof config.client_key, "%s", arguments[3]);
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
                return -errno;
        r = link_new(ends[0], QUEUE_BYTES, &h->core);
        if (r >= 0)
                r = link_watch_new(h->event, h->core, &options, &h->watch);
        if (r >= 0)
                r = north_new(h->event, ends[1], &config, &h->north, &problem);
        if (r < 0)
                printf("refused %s\n", problem.detail);
        return r;
}

int main(int argc, char **argv) {
        struct harness h = { 0 };
        int r;

        if (argc < 9) {
                fprintf(stderr, "see the head of north_harness.c\n");
                return 2;
        }
        journal_open("north");
        r = sd_event_new(&h.event);
        if (r >= 0)
                r = open_north(&h, argv + 1, argv + 9);
        if (r >= 0)
                r = sd_event_add_io(h.event, NULL, STDIN_FILENO, EPOLLIN, on_input, &h);
        if (r >= 0) {
                printf("ready\n");
                fflush(stdout);
                r = sd_event_loop(h.event);
                if (!h.is_ended)
                        printf("exit %d\n", -r);
        }
        h.north = north_free(h.north);
        h.watch = link_watch_free(h.watch);
        h.core = link_free(h.core);
        buffer_free(&h.input);
        sd_event_unref(h.event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
