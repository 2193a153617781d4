/* SPDX-License-Identifier: Apache-2.0 */

/* Joins the parts of north: frames from core go into the relay, what the relay wants posted goes to
 * upstream, what came of it goes back to core as frames. Nothing is decided here. */

#include "gatewayd/north/north.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "gatewayd/link_event.h"
#include "gatewayd/messages.h"
#include "gatewayd/north/batch.h"
#include "gatewayd/north/est.h"
#include "gatewayd/north/network.h"
#include "gatewayd/north/relay.h"
#include "gatewayd/north/upstream.h"
#include "systemd/journal.h"

#define BATCH_BYTES (512u << 10)
/* Acknowledgements are a few bytes each, and at most a window of them is under way. */
#define QUEUE_BYTES         (1u << 20)
#define FRAMES_PER_DISPATCH 64
#define INCARNATION_BYTES   8
#define GATEWAY_ID_MAX      64
#define USEC_PER_SEC        UINT64_C(1000000)

struct north {
        sd_event *event;
        struct link *core;
        struct link_watch *watch;
        char cannot[sizeof((struct problem *)0)->detail]; /* why no POST can be made in this life; else empty */
        bool has_collector, has_est;                      /* by configuration */
        struct https *https;                              /* NULL where there is nobody to talk to */
        struct relay *relay;                              /* this and the next two: NULL with VERIFIER_NONE */
        struct upstream *upstream;
        sd_event_source *retry;
        struct est_client *est;  /* NULL without an EST server */
        struct network *network; /* also NULL where the kernel has no news for us */
        uint8_t gateway_id[GATEWAY_ID_MAX], incarnation[INCARNATION_BYTES];
        size_t gateway_id_size; /* 0: core has not said yet */
        bool is_stopped;
        bool is_reply_odd; /* said once, until a reply reads well again */
};

static uint64_t now_usec(const struct north *north) {
        uint64_t now = 0;

        (void)sd_event_now(north->event, CLOCK_MONOTONIC, &now); /* fails only for clocks it does not know */
        return now;
}

static uint32_t chance(void) {
        uint32_t value = 0;

        if (getrandom(&value, sizeof value, GRND_NONBLOCK) != sizeof value)
                value = UINT32_MAX / 2; /* before the pool is ready: no jitter, but no wait either */
        return value;
}

/* ---- to core ---- */

static void tell_core(struct north *north, enum frame_type type, const struct buffer *body) {
        /* A queue that is full breaks the link, which the watch tells of: on_core_gone(). */
        (void)link_send(north->core, (uint8_t)type, buffer_bytes(body), LINK_NEVER_DROP);
}

static void tell_delivered(void *userdata, uint64_t sequence) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        message_write_delivered(&(struct message_delivered){ .sequence = sequence }, &body);
        tell_core(userdata, FRAME_DELIVERED, &body);
}

static void tell_parked(void *userdata, uint64_t sequence, uint16_t status, const char *reason) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        message_write_parked(
                &(struct message_parked){ .sequence = sequence, .http_status = status, .reason = bytes_of(reason) },
                &body);
        tell_core(userdata, FRAME_PARKED, &body);
}

static void tell_uplink(void *userdata, bool is_up, const char *reason, uint64_t retry_usec) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct message_uplink m = {
                .is_up = is_up,
                .reason = bytes_of(reason),
                .retry_sec = (retry_usec + USEC_PER_SEC - 1) / USEC_PER_SEC,
        };

        message_write_uplink(&m, &body);
        tell_core(userdata, FRAME_UPLINK, &body);
}

static void tell_results(struct north *north, struct bytes reply) {
        struct batch_result results[BATCH_RESULTS_MAX];
        struct problem problem = { 0 };
        int n = batch_read_results(reply, results, &problem);

        if (n < 0 && !north->is_reply_odd)
                journal_line(4, "north: a reply of the collector is passed over: %s", problem.detail);
        north->is_reply_odd = n < 0;
        for (int i = 0; i < n; i++) {
                _cleanup_(buffer_free) struct buffer body = { 0 };

                message_write_result(
                        &(struct message_result){ .sequence = results[i].sequence, .tier = results[i].tier }, &body);
                tell_core(north, FRAME_RESULT, &body);
        }
}

static void tell_enrolled(void *userdata, const struct message_enrolled *answer) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct north *north = userdata;

        message_write_enrolled(answer, &body);
        tell_core(north, FRAME_ENROLLED, &body);
        link_watch_flush(north->watch);
}

static void tell_anchors(void *userdata, struct bytes pkcs7) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct north *north = userdata;

        buffer_append(&body, pkcs7);
        tell_core(north, FRAME_ANCHORS, &body);
        link_watch_flush(north->watch);
}

/* There is no EST server, or no way to ask it in this life. */
static void tell_cannot_enrol(struct north *north, uint64_t number) {
        tell_enrolled(north,
                      &(struct message_enrolled){
                              .number = number,
                              .outcome = ENROL_FAILED,
                              .reason = bytes_of(north->cannot[0] ? north->cannot : "no EST server is configured"),
                      });
}

/* ---- the next step ---- */

static int start_post(struct north *north, const struct relay_post *post) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        char key[BATCH_KEY_SIZE];

        batch_encode(post, &body);
        batch_key(BYTES(north->gateway_id, north->gateway_id_size), BYTES(north->incarnation, INCARNATION_BYTES), post,
                  buffer_bytes(&body), key);
        /* The empty batch is a question: its answer must never come out of somebody's memory. */
        return upstream_post(north->upstream, post->count > 0 ? key : NULL, &body);
}

static void wait_until(struct north *north, uint64_t usec) {
        int r = sd_event_source_set_time(north->retry, usec);

        if (r >= 0)
                r = sd_event_source_set_enabled(north->retry, SD_EVENT_ONESHOT);
        if (r < 0)
                sd_event_exit(north->event, r); /* without its timer north would wait for ever */
}

static void step(struct north *north) {
        struct relay_post post;
        uint64_t until = 0;
        int r;

        if (!north->relay || north->is_stopped || north->gateway_id_size == 0)
                return;
        switch (relay_next(north->relay, now_usec(north), &post, &until)) {
        case RELAY_IDLE:
        case RELAY_BUSY:
                return;
        case RELAY_WAIT:
                wait_until(north, until);
                return;
        case RELAY_POST:
                r = start_post(north, &post);
                if (r >= 0)
                        return;
                relay_answered(north->relay, &(struct relay_answer){ .reason = strerror(-r) }, now_usec(north),
                               chance());
                step(north); /* once more, to the wait that follows from the failure */
                return;
        }
}

static void on_answer(void *userdata, const struct upstream_answer *answer) {
        struct north *north = userdata;
        const struct relay_answer simple = {
                .status = answer->status,
                .retry_after_sec = answer->retry_after_sec,
                .reason = answer->reason,
        };

        /* Results first: core may let go of a record once it is delivered. */
        if (answer->results.size > 0)
                tell_results(north, answer->results);
        relay_answered(north->relay, &simple, now_usec(north), chance());
        step(north);
        link_watch_flush(north->watch);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        (void)source;
        (void)usec;
        step(userdata);
        return 0;
}

static void on_network(void *userdata) {
        struct north *north = userdata;

        if (north->est)
                est_client_network_changed(north->est);
        if (!north->relay)
                return;
        relay_network_changed(north->relay);
        upstream_reconnect(north->upstream);
        step(north);
}

/* ---- from core ---- */

static void tell_client_certificate(struct north *north) {
        _cleanup_(buffer_free) struct buffer leaf = { 0 };

        if (north->https && https_client_leaf(north->https, &leaf) >= 0)
                (void)link_send(north->core, FRAME_CLIENT_CERTIFICATE, buffer_bytes(&leaf), LINK_NEVER_DROP);
}

static int on_hello(struct north *north, struct bytes body) {
        struct message_north_hello m;
        char id[3 * GATEWAY_ID_MAX + 1], incarnation[2 * INCARNATION_BYTES + 1];

        if (message_read_north_hello(body, &m) < 0 || north->gateway_id_size > 0 || m.gateway_id.size == 0 ||
            m.gateway_id.size > GATEWAY_ID_MAX || m.incarnation.size != INCARNATION_BYTES)
                return -EBADMSG;
        memcpy(north->gateway_id, m.gateway_id.data, m.gateway_id.size);
        north->gateway_id_size = m.gateway_id.size;
        memcpy(north->incarnation, m.incarnation.data, INCARNATION_BYTES);
        if (north->cannot[0] && north->has_collector)
                tell_uplink(north, false, north->cannot, 0);
        if (north->cannot[0] && north->has_est)
                tell_cannot_enrol(north, 0);
        tell_client_certificate(north);
        if (north->est)
                est_client_start(north->est);
        if (north->upstream) {
                batch_percent_encode(m.gateway_id, id);
                bytes_to_hex(m.incarnation, incarnation);
                upstream_identify(north->upstream, id, incarnation);
        }
        return 0;
}

static int on_record(struct north *north, struct bytes body) {
        struct message_record m;
        int r;

        if (north->gateway_id_size == 0 || message_read_record(body, &m) < 0 || m.sequence == 0 || m.receipt.size == 0)
                return -EBADMSG;
        if (!north->relay)
                return 0; /* it stays where it is, in the store */
        r = relay_add(north->relay, &m);
        return r == -EEXIST ? 0 : r;
}

static int on_enrol(struct north *north, struct bytes body) {
        struct message_enrol m;
        int r;

        if (north->gateway_id_size == 0 || message_read_enrol(body, &m) < 0 || m.number == 0 || m.csr.size == 0)
                return -EBADMSG;
        if (north->is_stopped)
                return 0; /* core sends it to the next north */
        if (!north->est) {
                tell_cannot_enrol(north, m.number);
                return 0;
        }
        r = est_client_enrol(north->est, &m);
        return r == -EALREADY ? 0 : r;
}

/* The one that serves longer is shown: that of the files is the way back in when the other has run out. */
static int on_credentials(struct north *north, struct bytes body) {
        struct message_server_credentials m;
        int r;

        if (north->gateway_id_size == 0 || message_read_server_credentials(body, &m) < 0)
                return -EBADMSG;
        if (!north->https)
                return 0;
        r = https_take_client(north->https, m.key, m.chain);
        if (r < 0)
                journal_line(3, "north: the renewed client certificate cannot be used; the file's is");
        if (r > 0) {
                tell_client_certificate(north);
                on_network(north); /* connections are made anew with it */
        }
        return 0;
}

static int on_frame(void *userdata, struct frame *frame) {
        struct north *north = userdata;

        switch (frame->type) {
        case FRAME_NORTH_HELLO:
                return on_hello(north, frame->body);
        case FRAME_RECORD:
                return on_record(north, frame->body);
        case FRAME_ENROL:
                return on_enrol(north, frame->body);
        case FRAME_CLIENT_CREDENTIALS:
                return on_credentials(north, frame->body);
        case FRAME_TRY_NOW:
                if (north->est)
                        est_client_try_now(north->est);
                if (north->upstream) {
                        relay_try_now(north->relay);
                        upstream_reconnect(north->upstream);
                }
                return 0; /* after_frames() goes on from there */
        case FRAME_PING:
                return link_send(north->core, FRAME_PONG, BYTES(NULL, 0), LINK_NEVER_DROP);
        default:
                return -EBADMSG;
        }
}

static void after_frames(void *userdata) {
        step(userdata);
}

/* Core sends all that waits to the next north; this one has nobody left to answer to. */
static void on_core_gone(void *userdata, int error) {
        struct north *north = userdata;

        if (error != -EPIPE)
                journal_line(3, "north: core's link ended: %s", strerror(-error));
        north_stop(north);
        sd_event_exit(north->event, error == -EPIPE ? 0 : error);
}

/* ---- set-up ---- */

static int open_relay(struct north *north, const struct north_config *config, struct problem *problem) {
        const struct relay_settings settings = {
                .batch_records = config->batch_records,
                .batch_bytes = BATCH_BYTES,
                .retry_min_usec = config->retry_min_sec > 0 ? (uint64_t)config->retry_min_sec * USEC_PER_SEC : 0,
                .retry_max_usec = config->retry_max_sec > 0 ? (uint64_t)config->retry_max_sec * USEC_PER_SEC : 0,
        };
        const struct relay_sink sink = {
                .userdata = north,
                .delivered = tell_delivered,
                .parked = tell_parked,
                .uplink = tell_uplink,
        };
        int r = sd_event_add_time_relative(north->event, &north->retry, CLOCK_MONOTONIC, 0, 1, on_retry, north);

        if (r >= 0)
                r = sd_event_source_set_enabled(north->retry, SD_EVENT_OFF);
        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "north", "no timer: %s", strerror(-r));
        r = upstream_new(north->https, config->url, on_answer, north, &north->upstream, problem);
        if (r >= 0)
                north->relay = relay_new(&settings, &sink);
        return r;
}

static int open_est(struct north *north, const struct north_config *config, struct problem *problem) {
        const struct est_sink sink = { .userdata = north, .enrolled = tell_enrolled, .anchors = tell_anchors };

        return est_client_new(north->event, north->https, config, &sink, &north->est, problem);
}

static void close_clients(struct north *north) {
        north->upstream = upstream_free(north->upstream);
        north->est = est_client_free(north->est);
        north->https = https_free(north->https);
        north->network = network_free(north->network);
        north->retry = sd_event_source_disable_unref(north->retry);
}

static void open_clients(struct north *north, const struct north_config *config) {
        struct problem problem = { 0 };
        int r = https_new(north->event, config, &north->https, &problem);

        if (r >= 0 && north->has_collector)
                r = open_relay(north, config, &problem);
        if (r >= 0 && north->has_est)
                r = open_est(north, config, &problem);
        /* Devices are served whatever the cloud's certificates are: without them north is ready, and says
         * why nothing goes up. A reload starts a north that reads them again. */
        if (r < 0) {
                journal_line(3, "north: nothing goes up until this is mended and the service reloaded: %s",
                             problem.detail);
                memcpy(north->cannot, problem.detail, sizeof north->cannot);
                close_clients(north);
                north->relay = relay_free(north->relay);
                return;
        }
        r = network_new(north->event, on_network, north, &north->network);
        if (r < 0)
                journal_line(5, "north: no news of the network (%s): the back-off alone decides when to try again",
                             strerror(-r));
}

int north_new(sd_event *event, int core_fd, const struct north_config *config, struct north **ret,
              struct problem *problem) {
        struct north *north = xcalloc(1, sizeof *north);
        const struct link_watch_options options = {
                .burst = FRAMES_PER_DISPATCH,
                .handle = on_frame,
                .after = after_frames,
                .gone = on_core_gone,
                .userdata = north,
        };
        int r;

        north->event = sd_event_ref(event);
        north->has_collector = config->verifier == VERIFIER_COLLECTOR;
        north->has_est = config->est_url[0] != 0;
        r = link_new(core_fd, QUEUE_BYTES, &north->core);
        if (r < 0)
                close(core_fd);
        else
                r = link_watch_new(event, north->core, &options, &north->watch);
        if (r < 0)
                problem_set(problem, CODE_INTERNAL, -r, "north", "the link to core: %s", strerror(-r));
        if (r < 0) {
                north_free(north);
                return r;
        }
        if (north->has_collector || north->has_est)
                open_clients(north, config);
        *ret = north;
        return 0;
}

void north_stop(struct north *north) {
        if (!north || north->is_stopped)
                return;
        north->is_stopped = true;
        close_clients(north);
        link_watch_flush(north->watch);
}

struct north *north_free(struct north *north) {
        if (!north)
                return NULL;
        close_clients(north);
        relay_free(north->relay);
        link_watch_free(north->watch);
        link_free(north->core);
        sd_event_unref(north->event);
        free(north);
        return NULL;
}

uint16_t north_port(const struct north_config *config) {
        int port = config->verifier == VERIFIER_COLLECTOR ? https_port(config->url) : 0;

        return port > 0 ? (uint16_t)port : 0;
}

uint16_t north_est_port(const struct north_config *config) {
        int port = config->est_url[0] ? https_port(config->est_url) : 0;

        return port > 0 ? (uint16_t)port : 0;
}
