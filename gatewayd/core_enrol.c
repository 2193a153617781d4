/* SPDX-License-Identifier: Apache-2.0 */

/* Enrolments between the store and north: what waits for the owner's EST server goes out a window at a
 * time, what became of it comes back in a turn; and whether that server can be reached is known here.
 * What an answer is worth, the registrar decides. */

#include <errno.h>

#include "gatewayd/core.h"
#include "gatewayd/keys/registrar.h"
#include "gatewayd/keys/x509.h"

/* ---- to north ---- */

static uint64_t *place_of(struct core *core, uint64_t number) {
        for (size_t i = 0; i < NORTH_ENROL_WINDOW; i++)
                if (core->enrolling.sent[i] == number)
                        return &core->enrolling.sent[i];
        return NULL;
}

static int send_enrolment(struct core *core, const struct enrolment *enrolment) {
        _cleanup_(buffer_free) struct buffer csr = { 0 }, body = { 0 };
        int r = enrolment_csr(core->store, enrolment->number, &csr);

        if (r < 0)
                return r;
        message_write_enrol(&(struct message_enrol){ .number = enrolment->number,
                                                     .is_renewal = enrolment->is_renewal,
                                                     .csr = buffer_bytes(&csr) },
                            &body);
        return link_send(core->north.link, FRAME_ENROL, buffer_bytes(&body), LINK_MAY_REFUSE);
}

/* Sends what is due as far as the window allows. Those under way are among the oldest that are due. */
static int send_due(struct core *core) {
        struct enrolment due[2 * NORTH_ENROL_WINDOW];
        ssize_t n = enrolment_due(core->store, core->turn.now.powered_sec, due, ELEMENTS(due));

        for (ssize_t i = 0; i < n; i++) {
                uint64_t *place = place_of(core, 0);
                int r;

                if (!place)
                        break;
                if (place_of(core, due[i].number))
                        continue;
                r = send_enrolment(core, &due[i]);
                if (r < 0)
                        return r;
                *place = due[i].number;
        }
        return n < 0 ? (int)n : 0;
}

void core_enrol_feed(struct core *core) {
        struct core_enrolling *enrolling = &core->enrolling;
        int64_t now = core->turn.now.powered_sec;
        int r;

        /* While the server is away nothing is tried in vain: north asks for its anchors now and then, and that
         * tells when it is back. */
        if (!core->north.link || !core->config->north.est_url[0] || core->turn.is_upstream_away ||
            (!enrolling->is_due && enrolling->fed_powered == now))
                return;
        /* What an open turn has written may still be dropped, and a full disk would lose the answer. */
        if (core->is_turn_open || core->is_degraded || store_barrier_passed(core->store) < core->last_turn)
                return;
        enrolling->is_due = false;
        enrolling->fed_powered = now;
        r = send_due(core);
        if (r < 0)
                journal_line(3, "core: waiting enrolments could not be sent: %s", strerror(-r));
        link_watch_flush(core->north.watch);
}

/* ---- from north ---- */

static void tell(struct core *core, enum event_kind kind, const char *what, struct bytes reason) {
        struct event event = { .kind = kind };

        snprintf(event.reason, sizeof event.reason, "%s%s%.*s", what, reason.size > 0 ? ": " : "", (int)reason.size,
                 reason.size > 0 ? (const char *)reason.data : "");
        core_event(core, &event);
}

/* The server can be reached, or cannot: both are news once. */
static void set_reachable(struct core *core, bool is_reachable, struct bytes reason) {
        struct core_enrolling *enrolling = &core->enrolling;
        bool is_news = !enrolling->is_known || core->turn.is_upstream_away == is_reachable;

        enrolling->is_known = true;
        core->turn.is_upstream_away = !is_reachable;
        snprintf(enrolling->reason, sizeof enrolling->reason, "%.*s", (int)reason.size,
                 reason.size > 0 ? (const char *)reason.data : "");
        if (is_news)
                tell(core, is_reachable ? EVENT_UPLINK_UP : EVENT_UPLINK_DOWN, "the EST server", reason);
        enrolling->is_due |= is_reachable;
}

/* It answers, but not as it should: told of once for each kind of trouble. */
static void set_trouble(struct core *core, uint16_t status, struct bytes reason) {
        struct core_enrolling *enrolling = &core->enrolling;

        if (status != 0 && status != enrolling->trouble)
                tell(core, EVENT_ENROLMENT_WAITING, "the EST server is of no use", reason);
        enrolling->trouble = status;
}

static int on_enrolled(struct core *core, struct bytes body) {
        struct message_enrolled m;
        uint64_t *place;
        bool is_out_of_reach;

        if (message_read_enrolled(body, &m) < 0)
                return -EBADMSG;
        /* About the server itself, north has the last word by asking for its anchors; about a single
         * enrolment only that there was no way counts. */
        is_out_of_reach = m.outcome == ENROL_FAILED && (m.number == 0 || m.http_status == 0);
        set_reachable(core, !is_out_of_reach, m.outcome == ENROL_FAILED ? m.reason : BYTES(NULL, 0));
        if (!is_out_of_reach)
                set_trouble(core, m.number == 0 || m.outcome == ENROL_FAILED ? m.http_status : 0, m.reason);
        if (m.number == 0)
                return 0;
        place = place_of(core, m.number);
        if (place)
                *place = 0;
        core->enrolling.is_due = true;
        return registrar_answer(&core->turn, &m);
}

static int on_anchors(struct core *core, struct bytes body) {
        int r = registrar_anchors_put(&core->turn, body);

        set_reachable(core, true, BYTES(NULL, 0));
        if (r != -EBADMSG)
                return r;
        journal_line(4, "core: the EST server's anchors cannot be read; those before stay");
        return 0;
}

/* ---- the certificate shown upstream ---- */

static int on_client_certificate(struct core *core, struct bytes der) {
        struct x509_validity validity;
        X509 *leaf = x509_read(der);
        int r = leaf ? x509_validity_of(leaf, &validity) : -EBADMSG;

        X509_free(leaf);
        if (r < 0)
                return r;
        buffer_free(&core->client.leaf);
        buffer_append(&core->client.leaf, der);
        core->client.end = validity.not_after;
        core->client.next = INT64_MIN;
        return 0;
}

void core_client_send(struct core *core) {
        _cleanup_(buffer_free) struct buffer key = { 0 }, chain = { 0 }, body = { 0 };
        int r = core->north.link ? registrar_client_credentials(core->store, &key, &chain) : -ENOENT;

        if (r >= 0) {
                message_write_server_credentials(&(struct message_server_credentials){ .key = buffer_bytes(&key),
                                                                                       .chain = buffer_bytes(&chain) },
                                                 &body);
                r = link_send(core->north.link, FRAME_CLIENT_CREDENTIALS, buffer_bytes(&body), LINK_NEVER_DROP);
                link_watch_flush(core->north.watch);
        }
        if (r < 0 && r != -ENOENT)
                journal_line(3, "core: the renewed client certificate cannot be given to north: %s", strerror(-r));
}

void core_client_tick(struct core *core) {
        int r;

        if (core->client.leaf.size == 0 || core->turn.now.wall < core->client.next)
                return;
        r = registrar_ask_client(&core->turn, buffer_bytes(&core->client.leaf), &core->client.next);
        if (r < 0)
                journal_line(3, "core: the client certificate's renewal could not be asked for: %s", strerror(-r));
}

int core_enrol_frame(struct core *core, struct frame *frame) {
        switch (frame->type) {
        case FRAME_CLIENT_CERTIFICATE:
                return on_client_certificate(core, frame->body);
        case FRAME_ENROLLED:
                return on_enrolled(core, frame->body);
        case FRAME_ANCHORS:
                return on_anchors(core, frame->body);
        default:
                return -EBADMSG;
        }
}

void core_enrol_detach(struct core *core) {
        /* Whatever was under way is due as it was: the next north gets it. */
        core->enrolling = (struct core_enrolling){ .is_due = true };
        core->turn.is_upstream_away = false;
}
