/* SPDX-License-Identifier: Apache-2.0 */

/* Core's side of the link to north: waiting records go out in order, a window of them at a time, and
 * what became of each comes back. */

#include <errno.h>

#include "gatewayd/core.h"
#include "gatewayd/north/north.h"

#define NORTH_QUEUE_BYTES (32u << 20)
/* How many receipts of parked records one north is given. */
#define PARKED_MAX 64

static int send_record(void *userdata, const struct custody *custody) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct core *core = userdata;
        struct message_record m = {
                .sequence = custody->sequence,
                .device = bytes_of(custody->device),
                .content_format = custody->content_format,
                .nonce = BYTES(custody->nonce, sizeof custody->nonce),
                .receipt = custody->receipt,
                .evidence = custody->evidence,
        };
        bool is_parked = custody->delivery == DELIVERY_PARKED;
        int r;

        /* A parked record is acknowledged already: only its receipt goes. Receipts that the upstream refuses
         * as well would come back to every north; a few at a time, so that they cannot fill its window. */
        if (is_parked && core->north_parked >= PARKED_MAX) {
                core->north_sent = custody->sequence;
                return 0;
        }
        message_write_record(&m, &body);
        r = link_send(core->north.link, FRAME_RECORD, buffer_bytes(&body), LINK_MAY_REFUSE);
        if (r < 0)
                return r; /* a full queue ends the walk; the next acknowledgement goes on from here */
        core->north_sent = custody->sequence;
        if (is_parked)
                core->north_parked++;
        else
                core->north_open++;
        return 0;
}

void core_north_feed(struct core *core) {
        int r;

        core_enrol_feed(core);
        if (!core->north.link || core->north_open >= NORTH_WINDOW || core->config->north.verifier == VERIFIER_NONE ||
            store_barrier_passed(core->store) < core->last_turn)
                return;
        r = custody_waiting(core->store, core->north_sent, NORTH_WINDOW - core->north_open, send_record, core);
        if (r < 0 && r != -ENOBUFS)
                journal_line(3, "core: waiting records could not be read: %s", strerror(-r));
        link_watch_flush(core->north.watch);
}

static int take_delivery(void *userdata, const struct custody *custody) {
        *(enum delivery *)userdata = custody->delivery;
        return 0;
}

/* A record is acknowledged once, by the first word about it: a parked one is told of again when its
 * receipt has arrived. Called before the store learns of it. */
static void acknowledged(struct core *core, uint64_t sequence) {
        enum delivery before = DELIVERY_WAITING;

        (void)custody_get(core->store, sequence, take_delivery, &before); /* unknown: it was not open either */
        if (before == DELIVERY_WAITING && core->north_open > 0)
                core->north_open--;
}

static int on_delivered(struct core *core, struct frame *frame) {
        struct message_delivered m;

        if (message_read_delivered(frame->body, &m) < 0)
                return -EBADMSG;
        acknowledged(core, m.sequence);
        return relay_delivered(&core->turn, m.sequence);
}

static int on_parked(struct core *core, struct frame *frame) {
        struct message_parked m;

        if (message_read_parked(frame->body, &m) < 0)
                return -EBADMSG;
        acknowledged(core, m.sequence);
        return relay_parked(&core->turn, m.sequence, m.http_status, m.reason);
}

static int on_result(struct core *core, struct frame *frame) {
        struct message_result m;

        if (message_read_result(frame->body, &m) < 0)
                return -EBADMSG;
        return relay_result(&core->turn, m.sequence, m.tier, m.ear_jwt);
}

static int on_uplink(struct core *core, struct frame *frame) {
        struct message_uplink m;
        struct event event = { 0 };
        bool is_news;

        if (message_read_uplink(frame->body, &m) < 0)
                return -EBADMSG;
        is_news = !core->is_uplink_known || core->uplink.is_up != m.is_up;
        core->is_uplink_known = true;
        core->uplink = (struct message_uplink){ .is_up = m.is_up, .retry_sec = m.retry_sec };
        snprintf(core->uplink_reason, sizeof core->uplink_reason, "%.*s", (int)m.reason.size,
                 m.reason.size > 0 ? (const char *)m.reason.data : "");
        if (!is_news)
                return 0;
        event.kind = m.is_up ? EVENT_UPLINK_UP : EVENT_UPLINK_DOWN;
        snprintf(event.reason, sizeof event.reason, "%s", core->uplink_reason);
        core_event(core, &event);
        return 0;
}

static int on_north(void *userdata, struct frame *frame) {
        struct core *core = userdata;
        int r;

        if (frame_refuse_descriptors(frame) < 0)
                return -EBADMSG;
        if (!core->is_turn_open)
                core_begin(core, "upstream");
        switch (frame->type) {
        case FRAME_DELIVERED:
                r = on_delivered(core, frame);
                break;
        case FRAME_PARKED:
                r = on_parked(core, frame);
                break;
        case FRAME_RESULT:
                r = on_result(core, frame);
                break;
        case FRAME_UPLINK:
                r = on_uplink(core, frame);
                break;
        case FRAME_ENROLLED:
        case FRAME_ANCHORS:
        case FRAME_CLIENT_CERTIFICATE:
                r = core_enrol_frame(core, frame);
                break;
        default:
                r = -EBADMSG;
        }
        /* A record that is not there any more was acknowledged twice: nothing is lost by that. */
        return r == -ENOENT ? 0 : r;
}

static void after_north(void *userdata) {
        struct core *core = userdata;

        if (core_end(core) < 0) /* dealt with there; its records stay waiting */
                core->is_north_unheard = true;
        core_north_feed(core);
}

void core_north_again(struct core *core) {
        if (!core->is_north_unheard)
                return;
        /* All that waits is sent once more: north knows those it still has by their sequence, and the upstream
         * those it was given twice. */
        core->is_north_unheard = false;
        core->north_sent = 0;
        core->north_open = 0;
        core->north_parked = 0;
}

static void on_gone(void *userdata, int error) {
        struct core *core = userdata;

        journal_line(error == -EPIPE ? 5 : 3, "core: north's link ended: %s", strerror(-error));
        core_north_detach(core);
}

void core_north_detach(struct core *core) {
        core->north.watch = link_watch_free(core->north.watch);
        core->north.link = link_free(core->north.link);
        core->north_sent = 0;
        core->north_open = 0;
        core->north_parked = 0;
        core->is_north_unheard = false;
        core->is_uplink_known = false;
        core_enrol_detach(core);
}

int core_north_attach(struct core *core, int fd) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        const struct link_watch_options options = {
                .priority = 10, /* devices come first */
                .burst = 256,
                .handle = on_north,
                .after = after_north,
                .gone = on_gone,
                .userdata = core,
        };
        struct store_meta meta;
        int r;

        core_north_detach(core);
        r = store_meta_get(core->store, &meta);
        if (r >= 0)
                r = link_new(fd, NORTH_QUEUE_BYTES, &core->north.link);
        if (r >= 0)
                r = link_watch_new(core->process.event, core->north.link, &options, &core->north.watch);
        if (r < 0)
                return r;
        message_write_north_hello(
                &(struct message_north_hello){
                        .gateway_id = bytes_of(core->config->gateway_id),
                        .incarnation = BYTES(meta.incarnation, sizeof meta.incarnation),
                },
                &body);
        r = link_send(core->north.link, FRAME_NORTH_HELLO, buffer_bytes(&body), LINK_NEVER_DROP);
        if (r >= 0) {
                core_client_send(core);
                core_north_feed(core);
        }
        return r;
}
