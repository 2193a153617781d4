/* SPDX-License-Identifier: Apache-2.0 */

/* What a device sends inside its DTLS session: any CoAP, from two sessions, in any order, with a core
 * that answers now, late or never. What comes out must be CoAP, must fit, and nothing may be left of a
 * session that has gone.
 *
 * The input is a row of steps: a byte that says what, and for a datagram two bytes of length and the
 * datagram. */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "coap/requests.h"
#include "gatewayd/format.h"

#define SESSIONS   2
#define ROOM       1163
#define GENERATION 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
        sd_event *event;
        struct south_settings settings;
        uint64_t counters[SOUTH_COUNTERS];
        struct sessions *sessions;
        struct engines *engines;
        struct requests *requests;
        struct session *each[SESSIONS];
        uint64_t now;
        struct bytes left; /* of the input */
        /* The newest request that core has not answered. */
        bool has_request;
        struct message_request request;
        uint8_t sent[16];
        unsigned acknowledged;
};

static uint8_t next(struct world *world) {
        uint8_t byte;

        if (world->left.size == 0)
                return 0;
        byte = world->left.data[0];
        world->left = BYTES(world->left.data + 1, world->left.size - 1);
        return byte;
}

static enum request_verdict request(void *userdata, struct session *session, const struct request *asked,
                                    struct answer *answer) {
        struct world *world = userdata;
        enum request_verdict verdict = requests_take(world->requests, session, asked, world->now, answer);

        assert(asked->token.size <= TOKEN_MAX);
        assert(verdict != REQUEST_ANSWERED || (answer->code != 0 && answer->payload.size <= 1024));
        return verdict;
}

static void acknowledged(void *userdata, struct session *session, uint16_t message_id) {
        struct world *world = userdata;

        requests_acknowledged(world->requests, session, message_id, world->now);
}

static void undelivered(void *userdata, struct session *session, uint16_t message_id) {
        struct world *world = userdata;

        requests_undelivered(world->requests, session, message_id);
}

static void send_out(void *userdata, struct session *session, struct bytes data) {
        (void)userdata;
        assert(session->state == SESSION_ESTABLISHED);
        assert(data.size >= 4 && data.size <= ROOM && data.data[0] >> 6 == 1);
}

static void timers_ran(void *userdata) {
        (void)userdata;
}

static int tell_core(void *userdata, const struct message_request *message) {
        struct world *world = userdata;
        struct buffer body = { 0 };
        struct message_request again;

        message_write_request(message, &body);
        assert(message_read_request(buffer_bytes(&body), &again) == 0);
        assert(message->payload.size <= world->settings.max_body_bytes || message->payload.size <= 1472);
        buffer_free(&body);
        world->has_request = true;
        world->request = *message;
        return next(world) == 0xff ? -ENOBUFS : 0;
}

static size_t room(const struct session *session) {
        (void)session;
        return ROOM;
}

static struct world *world_new(void) {
        struct world *world = xcalloc(1, sizeof *world);
        const struct session_limits limits = { 10, 10, 10 };
        const struct engine_handlers handlers = { request, acknowledged, undelivered, send_out, timers_ran, world };
        struct requests_options options = { .generation = GENERATION,
                                            .counters = world->counters,
                                            .tell_core = tell_core,
                                            .room = room,
                                            .userdata = world };
        struct problem problem = { 0 };

        world->settings = south_settings_default;
        world->settings.max_bodies = 3;
        world->settings.max_body_bytes = 4096;
        if (sd_event_new(&world->event) < 0 || sessions_new(&limits, &world->sessions) < 0)
                abort();
        options.settings = &world->settings;
        options.sessions = world->sessions;
        world->requests = requests_new(&options);
        if (engines_new(world->event, 1, world->sessions, &handlers, &world->engines, &problem) < 0)
                abort();
        requests_use_engines(world->requests, world->engines);
        world->now = UINT64_C(1000000000);
        return world;
}

static void connect_one(struct world *world, unsigned which) {
        struct session *session = xcalloc(1, sizeof *session);

        session->peer.address.v4.sin_family = AF_INET;
        session->peer.address.v4.sin_port = (uint16_t)which;
        session->peer.size = sizeof session->peer.address.v4;
        if (sessions_add(world->sessions, session) < 0)
                abort();
        sessions_establish(world->sessions, session);
        world->each[which] = session;
}

static void drop_one(struct world *world, unsigned which) {
        struct session *session = world->each[which];

        sessions_bury(world->sessions, session);
        sessions_next_dead(world->sessions);
        requests_forget(world->requests, session);
        engines_forget(world->engines, session);
        assert(session->holds == 0 && session->body_count == 0 && session->kept_count == 0 &&
               session->observer_count == 0 && session->exchange_count == 0);
        free(session);
        world->each[which] = NULL;
}

static void reply(struct world *world, bool is_notification) {
        static const uint8_t payload[3000] = "payload";
        struct message_reply message = {
                .session = world->request.session,
                .exchange = is_notification ? 0 : world->request.exchange,
                .code = next(world) & 1 ? CODE_CONTENT : CODE_NOT_FOUND,
                .content_format = next(world) & 1 ? FORMAT_CBOR : FORMAT_NONE,
                .max_age_sec = next(world) - 1,
                .block_size = (uint16_t)(16U << next(world) % 7),
                .is_observed = !is_notification,
                .path = is_notification ? TEXT("me") : BYTES(NULL, 0),
                .payload = BYTES(payload, (size_t)next(world) * 11),
        };

        if (is_notification)
                requests_notify(world->requests, &message, world->now);
        else
                requests_reply(world->requests, &message, world->now);
        world->has_request = is_notification && world->has_request;
}

static void step(struct world *world) {
        uint8_t what = next(world);
        unsigned which = what & 1;
        size_t size;

        switch (what >> 1 & 7) {
        case 0:
        case 1:
        case 2:
        case 3:
                size = (size_t)next(world) << 8 | next(world);
                if (size > world->left.size)
                        size = world->left.size;
                (void)engines_deliver(world->engines, world->each[which], BYTES(world->left.data, size));
                world->left = BYTES(world->left.data + size, world->left.size - size);
                if (what & 0x80)
                        return; /* together with the next one */
                break;
        case 4:
                if (world->has_request)
                        reply(world, false);
                break;
        case 5:
                reply(world, true);
                break;
        case 6:
                world->now += (uint64_t)next(world) * 200000;
                (void)requests_tick(world->requests, world->now);
                break;
        default:
                drop_one(world, which);
                connect_one(world, which);
                break;
        }
        engines_run(world->engines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct world *world;

        if (!world)
                world = world_new();
        world->left = BYTES(data, size);
        world->has_request = false;
        world->request = (struct message_request){ 0 };
        for (unsigned i = 0; i < SESSIONS; i++)
                connect_one(world, i);
        while (world->left.size > 0)
                step(world);
        engines_run(world->engines);
        for (unsigned i = 0; i < SESSIONS; i++)
                drop_one(world, i);
        assert(!requests_are_waiting(world->requests));
        assert(world->counters[SOUTH_OBSERVERS] == 0 && world->counters[SOUTH_BLOCK_BODIES] == 0);
        return 0;
}
