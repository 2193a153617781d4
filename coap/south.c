/* SPDX-License-Identifier: Apache-2.0 */

/* South: where the UDP socket, DTLS, libcoap and core's links meet in one event loop. Each dispatch
 * ends its turn by letting libcoap work, sending datagrams and frames together, and freeing what
 * died on the way. */

#include "coap/south_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "coap/monotonic.h"

/* Frames waiting for core: some thousand requests. */
#define EXCHANGE_QUEUE_BYTES (4 * 1024 * 1024)
#define FRAMES_PER_TURN      64
/* How soon timers are looked at while something half done waits. */
#define BUSY_USEC       (100 * UINT64_C(1000))
#define STATISTICS_USEC UINT64_C(1000000)
/* With sessions that say nothing: whatever has no timer of its own is looked at this often. */
#define QUIET_USEC (10 * UINT64_C(1000000))

const struct south_settings south_settings_default = {
        .engines = 64,
        .max_sessions = 20000,
        .max_half_open = 1000,
        .max_half_open_prefix = 100,
        .mtu = 1200,
        .idle_sec = 24 * 3600,
        .half_open_sec = 60,
        .max_body_bytes = 16 * 1024,
        .block_size = 512,
        .max_bodies = 256,
};

static void wake_at(struct south *south, uint64_t usec) {
        if (usec >= south->wake_usec)
                return;
        south->wake_usec = usec;
        (void)sd_event_source_set_time(south->timer, usec);
        (void)sd_event_source_set_enabled(south->timer, SD_EVENT_ONESHOT);
}

void south_end(struct south *south, int error) {
        south->is_ending = true;
        (void)sd_event_exit(south->event, error);
}

void south_send_surely(struct south *south, uint8_t type) {
        int r = link_send(south->exchange, type, buffer_bytes(&south->frame), LINK_NEVER_DROP);

        if (r < 0 && !south->is_ending)
                south_end(south, r);
}

static void tell_statistics(struct south *south) {
        if (memcmp(south->counters, south->counters_told, sizeof south->counters) == 0)
                return;
        south->frame.size = 0;
        field_put_u32(&south->frame, SOUTH_COUNTERS);
        for (size_t i = 0; i < SOUTH_COUNTERS; i++)
                field_put_u64(&south->frame, south->counters[i]);
        (void)link_send(south->exchange, FRAME_SOUTH_STATISTICS, buffer_bytes(&south->frame),
                        LINK_MAY_REFUSE); /* the next one says the same and more */
        memcpy(south->counters_told, south->counters, sizeof south->counters);
        south->statistics_usec = south->now_usec;
}

static void end_turn(struct south *south) {
        engines_run(south->engines);
        dtls_reap(south->dtls);
        datagrams_flush(south->datagrams);
        if (memcmp(south->counters, south->counters_told, sizeof south->counters) != 0)
                wake_at(south, south->statistics_usec + STATISTICS_USEC);
        if (south->counters[SOUTH_HALF_OPEN] > 0 || requests_are_waiting(south->requests))
                wake_at(south, south->now_usec + BUSY_USEC);
        if (south->wake_usec == UINT64_MAX && south->counters[SOUTH_SESSIONS] > 0)
                wake_at(south, south->now_usec + QUIET_USEC);
        if (!south->is_ending)
                link_watch_flush(south->watch);
}

static void failure_told(void *userdata, const struct message_handshake_failed *message) {
        struct south *south = userdata;

        south->frame.size = 0;
        message_write_handshake_failed(message, &south->frame);
        (void)link_send(south->exchange, FRAME_HANDSHAKE_FAILED, buffer_bytes(&south->frame), LINK_MAY_REFUSE);
}

/* ---- what libcoap asks and tells ---- */

static enum request_verdict request(void *userdata, struct session *session, const struct request *asked,
                                    struct answer *answer) {
        struct south *south = userdata;

        return requests_take(south->requests, session, asked, south->now_usec, answer);
}

static void acknowledged(void *userdata, struct session *session, uint16_t message_id) {
        struct south *south = userdata;

        requests_acknowledged(south->requests, session, message_id, south->now_usec);
}

static void undelivered(void *userdata, struct session *session, uint16_t message_id) {
        struct south *south = userdata;

        requests_undelivered(south->requests, session, message_id);
}

static void encrypt(void *userdata, struct session *session, struct bytes data) {
        struct south *south = userdata;

        if (dtls_write(session, data) < 0)
                south->counters[SOUTH_DATAGRAMS_DROPPED]++;
}

static void timers_ran(void *userdata) {
        struct south *south = userdata;

        south->now_usec = monotonic_usec();
        end_turn(south);
}

/* ---- core ---- */

static int tell_core(void *userdata, const struct message_request *message) {
        struct south *south = userdata;

        south->frame.size = 0;
        message_write_request(message, &south->frame);
        return link_send(south->exchange, FRAME_REQUEST, buffer_bytes(&south->frame), LINK_MAY_REFUSE);
}

static void evict(struct south *south, session_handle handle) {
        struct session *session = handle >> 32 == south->generation
                                          ? sessions_by_number(dtls_sessions(south->dtls), (uint32_t)handle)
                                          : NULL;

        /* At once: no reply leaves for it any more. */
        if (session)
                dtls_end(session, CLOSE_EVICTED);
}

static int frame_from_core(void *userdata, struct frame *frame) {
        struct south *south = userdata;
        struct message_reply reply;
        struct message_evict eviction;
        int r;

        south->now_usec = monotonic_usec();
        switch (frame->type) {
        case FRAME_REPLY:
        case FRAME_NOTIFY:
                r = message_read_reply(frame->body, &reply);
                if (r < 0)
                        return r;
                if (frame->type == FRAME_REPLY)
                        requests_reply(south->requests, &reply, south->now_usec);
                else
                        requests_notify(south->requests, &reply, south->now_usec);
                return 0;
        case FRAME_EVICT:
                r = message_read_evict(frame->body, &eviction);
                if (r < 0)
                        return r;
                evict(south, eviction.session);
                return 0;
        case FRAME_SERVER_CREDENTIALS:
                return south_take_credentials(south, frame->body);
        default:
                return -EBADMSG;
        }
}

static void after_frames(void *userdata) {
        end_turn(userdata);
}

/* Core has ended: the sessions mean nothing without it. */
static void core_gone(void *userdata, int error) {
        struct south *south = userdata;

        south->is_ending = true;
        south_stop(south);
        south_end(south, error == -EPIPE ? 0 : error); /* its end is the supervisor's to tell of */
}

/* ---- the loop ---- */

static void datagram(void *userdata, const struct peer *from, struct bytes data) {
        struct south *south = userdata;

        dtls_datagram(south->dtls, from, data, south->now_usec);
}

static int on_udp(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        struct south *south = userdata;

        (void)source;
        (void)fd;
        (void)events;
        south->now_usec = monotonic_usec();
        (void)datagrams_receive(south->datagrams, datagram, south);
        end_turn(south);
        return 0;
}

static uint64_t earlier(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        struct south *south = userdata;
        uint64_t next;

        (void)source;
        (void)usec;
        south->wake_usec = UINT64_MAX;
        south->now_usec = monotonic_usec();
        next = dtls_tick(south->dtls, south->now_usec);
        next = earlier(next, requests_tick(south->requests, south->now_usec));
        next = earlier(next, failures_tick(south->failures, south->now_usec));
        if (south->now_usec - south->statistics_usec >= STATISTICS_USEC)
                tell_statistics(south);
        if (next != UINT64_MAX)
                wake_at(south, next);
        end_turn(south);
        return 0;
}

static int make_engines(struct south *south, struct problem *problem) {
        const struct engine_handlers handlers = {
                .request = request,
                .acknowledged = acknowledged,
                .undelivered = undelivered,
                .send = encrypt,
                .timers_ran = timers_ran,
                .userdata = south,
        };
        const struct requests_options options = {
                .settings = &south->settings,
                .generation = south->generation,
                .sessions = dtls_sessions(south->dtls),
                .counters = south->counters,
                .tell_core = tell_core,
                .room = dtls_room,
                .userdata = south,
        };
        int r;

        south->requests = requests_new(&options);
        r = engines_new(south->event, south->settings.engines, dtls_sessions(south->dtls), &handlers, &south->engines,
                        problem);
        if (r >= 0)
                requests_use_engines(south->requests, south->engines);
        return r;
}

static int attach(struct south *south) {
        const struct link_watch_options options = {
                .burst = FRAMES_PER_TURN,
                .handle = frame_from_core,
                .after = after_frames,
                .gone = core_gone,
                .userdata = south,
        };
        int r;

        r = sd_event_add_io(south->event, &south->udp, datagrams_fd(south->datagrams), EPOLLIN, on_udp, south);
        if (r >= 0)
                r = sd_event_source_set_enabled(south->udp, SD_EVENT_OFF); /* until core tells its credentials */
        if (r >= 0)
                r = sd_event_add_time(south->event, &south->timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_timer, south);
        if (r >= 0)
                r = sd_event_source_set_enabled(south->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = link_watch_new(south->event, south->exchange, &options, &south->watch);
        return r;
}

/* Each descriptor belongs to south from the beginning, also where it fails. */
static int take_over(struct south *south, int udp, int lookup, int exchange) {
        int r = datagrams_new(udp, south->counters, &south->datagrams), r2, r3;

        if (r < 0)
                close(udp);
        r2 = lookup_new(lookup, &south->lookup);
        if (r2 < 0)
                close(lookup);
        r3 = link_new(exchange, EXCHANGE_QUEUE_BYTES, &south->exchange);
        if (r3 < 0)
                close(exchange);
        return r < 0 ? r : r2 < 0 ? r2 : r3;
}

int south_new(sd_event *event, int udp, int lookup, int exchange, uint32_t generation,
              const struct south_settings *settings, struct south **ret, struct problem *problem) {
        struct south *south = xcalloc(1, sizeof *south);
        sd_id128_t boot;
        int r;

        /* sd-event asks for it at its first timer; read now, it is remembered, and no file is opened then. */
        (void)sd_id128_get_boot(&boot);
        south->event = sd_event_ref(event);
        south->settings = *settings;
        south->generation = generation;
        south->wake_usec = UINT64_MAX;
        south->now_usec = monotonic_usec();
        south->failures = failures_new(failure_told, south);
        r = take_over(south, udp, lookup, exchange);
        if (r < 0)
                r = problem_set(problem, CODE_INTERNAL, -r, "south", "descriptors: %s", strerror(-r));
        else
                r = south_dtls_new(south, problem);
        if (r >= 0)
                r = make_engines(south, problem);
        if (r >= 0) {
                r = attach(south);
                if (r < 0)
                        r = problem_set(problem, CODE_INTERNAL, -r, "south", "event loop: %s", strerror(-r));
        }
        if (r < 0) {
                south_free(south);
                return r;
        }
        *ret = south;
        return 0;
}

void south_on_ready(struct south *south, void (*ready)(void *userdata), void *userdata) {
        south->ready = ready;
        south->ready_userdata = userdata;
        if (south->is_ready)
                ready(userdata);
}

void south_stop(struct south *south) {
        south->now_usec = monotonic_usec();
        dtls_end_all(south->dtls, CLOSE_SHUTDOWN);
        datagrams_flush(south->datagrams);
        (void)link_flush(south->exchange);
}

struct south *south_free(struct south *south) {
        if (!south)
                return NULL;
        if (south->dtls && south->requests && south->engines) {
                south->is_ending = true;
                south_stop(south);
        }
        sd_event_source_disable_unref(south->udp);
        sd_event_source_disable_unref(south->timer);
        link_watch_free(south->watch);
        engines_free(south->engines);
        requests_free(south->requests);
        dtls_free(south->dtls);
        failures_free(south->failures);
        lookup_free(south->lookup);
        link_free(south->exchange);
        datagrams_free(south->datagrams);
        buffer_free(&south->frame);
        sd_event_unref(south->event);
        free(south);
        return NULL;
}
