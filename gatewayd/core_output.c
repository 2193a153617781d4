/* SPDX-License-Identifier: Apache-2.0 */

/* What turns want to say, in a ring, in the order in which they decided it; and how an effect is
 * carried out once its turn has passed the barrier. */

#include <stdlib.h>

#include "gatewayd/core.h"

struct output *output_at(struct output_queue *queue, size_t index) {
        return &queue->items[(queue->first + index) % queue->capacity];
}

struct output *output_push(struct output_queue *queue) {
        struct output *output;

        if (queue->count == queue->capacity) {
                size_t capacity = queue->capacity ? queue->capacity * 2 : 256;
                struct output *items = xcalloc(capacity, sizeof *items);

                for (size_t i = 0; i < queue->count; i++)
                        items[i] = *output_at(queue, i);
                free(queue->items);
                *queue = (struct output_queue){ .items = items, .count = queue->count, .capacity = capacity };
        }
        queue->count++;
        output = output_at(queue, queue->count - 1);
        *output = (struct output){ .turn = TURN_OPEN };
        return output;
}

void output_pop(struct output_queue *queue) {
        buffer_free(&queue->items[queue->first].body);
        queue->first = (queue->first + 1) % queue->capacity;
        queue->count--;
}

void output_drop_open(struct output_queue *queue, int error) {
        while (queue->count > 0) {
                struct output *last = output_at(queue, queue->count - 1);
                struct output dropped = *last;

                if (last->turn != TURN_OPEN)
                        return;
                queue->count--;
                buffer_free(&dropped.body);
                if (dropped.kind == OUTPUT_DONE)
                        dropped.done(dropped.arg, error);
        }
}

#ifdef GATEWAYD_TESTCLOCK
/* What a careless core would do: answers leave before anything is committed. A test shows that the harness of
 * crash points finds it. */
static bool leaves_early(struct core *core, uint8_t type, enum link_refusal refusal, const struct buffer *body) {
        if (type != FRAME_REPLY || !core->exchange.link || !getenv("GATEWAYD_TEST_EARLY"))
                return false;
        (void)link_send(core->exchange.link, type, buffer_bytes(body), refusal);
        (void)link_flush(core->exchange.link);
        return true;
}
#endif

void output_frame(struct core *core, uint8_t type, enum link_refusal refusal, struct buffer *body) {
        struct output *output;

#ifdef GATEWAYD_TESTCLOCK
        if (leaves_early(core, type, refusal, body)) {
                buffer_free(body);
                return;
        }
#endif
        output = output_push(&core->outputs);
        output->kind = OUTPUT_FRAME;
        output->frame_type = type;
        output->refusal = refusal;
        output->body = *body;
        *body = (struct buffer){ 0 };
}

struct eviction {
        struct core *core;
        const char *identity; /* NULL: whichever */
};

static void evict_matching(void *userdata, struct session *session) {
        struct eviction *what = userdata;

        if (!what->identity || strcmp(what->identity, session->identity) == 0)
                core_evict(what->core, session);
}

void core_effect(struct core *core, const struct effect *effect) {
        const char *device = effect->event.device[0] ? effect->event.device : NULL;
        struct eviction eviction = { .core = core };

        switch (effect->kind) {
        case EFFECT_EVENT:
                core_event(core, &effect->event);
                break;
        case EFFECT_EVICT_KEY:
                eviction.identity = effect->event.kid;
                session_each(core->sessions, device, evict_matching, &eviction);
                break;
        case EFFECT_EVICT_DEVICE:
                if (device)
                        session_each(core->sessions, device, evict_matching, &eviction);
                break;
        case EFFECT_NOTIFY_ME:
                core_notify(core, effect->event.device, OBSERVES_ME);
                break;
        case EFFECT_NOTIFY_RESULT:
                core_notify(core, effect->event.device, OBSERVES_RESULT);
                break;
        case EFFECT_RELAY:
                break; /* north is fed after every flush */
        case EFFECT_ENROL:
                core->enrolling.is_due = true;
                break;
        case EFFECT_SERVER:
                core_south_credentials(core);
                break;
        case EFFECT_CRL:
                core_authority_publish(core);
                break;
        case EFFECT_CLIENT:
                core_client_send(core);
                break;
        case EFFECT_RESCHEDULE:
                core_tick_all(core);
                break;
        }
}
