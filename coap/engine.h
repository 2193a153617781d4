/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* libcoap as an engine without sockets: several contexts, each with one endpoint whose descriptor is
 * a placeholder (engine_io.h). To libcoap a session is a virtual peer whose address carries our
 * session's number, so a new DTLS session is a new peer and no state survives a reboot by mistake.
 *
 * A virtual peer lives only while libcoap has something to do for it: during a datagram, while a
 * request waits for its answer, while a confirmable message of ours is unacknowledged. So libcoap's
 * walk over its peers costs what is in flight, never what is connected. */

#include <systemd/sd-event.h>

#include "coap/pdu.h"
#include "coap/sessions.h"

enum request_verdict {
        REQUEST_ANSWERED,     /* with what stands in the answer */
        REQUEST_PENDING,      /* nothing goes out now, not even an acknowledgement */
        REQUEST_ACKNOWLEDGED, /* an empty acknowledgement: the answer will come by itself */
};

struct engine_handlers {
        enum request_verdict (*request)(void *userdata, struct session *session, const struct request *request,
                                        struct answer *answer);
        /* The peer has acknowledged a confirmable message of ours. */
        void (*acknowledged)(void *userdata, struct session *session, uint16_t message_id);
        /* It answered with a Reset, or not at all after four retransmissions. Called inside libcoap:
         * nothing may be sent from here. */
        void (*undelivered)(void *userdata, struct session *session, uint16_t message_id);
        /* A datagram of libcoap's for this session. */
        void (*send)(void *userdata, struct session *session, struct bytes data);
        /* libcoap's timers have run: what they sent waits to go out. */
        void (*timers_ran)(void *userdata);
        void *userdata;
};

struct engines;

/* `sessions` is borrowed. Returns 0, or -errno with a reason; -ENOTSUP when the self-test finds that
 * this libcoap does not behave as engine_io.c needs it. */
int engines_new(sd_event *event, unsigned count, struct sessions *sessions, const struct engine_handlers *handlers,
                struct engines **ret, struct problem *problem);
struct engines *engines_free(struct engines *engines);

/* Queues a decrypted datagram; engines_run() lets libcoap have all that are queued. Whatever is no
 * CoAP message is dropped: -EBADMSG. */
int engines_deliver(struct engines *engines, struct session *session, struct bytes data);
void engines_run(struct engines *engines);

enum message_type {
        MESSAGE_CONFIRMABLE,
        MESSAGE_NON_CONFIRMABLE,
        MESSAGE_ACKNOWLEDGEMENT,
};
/* Sends an answer, or with code 0 an empty acknowledgement. Not from inside libcoap. Returns 0,
 * -EMSGSIZE, -ENOBUFS (too many unacknowledged), or -ENOMEM. */
int engines_send(struct engines *engines, struct session *session, enum message_type type, uint16_t message_id,
                 struct bytes token, const struct answer *answer);

/* Lets the virtual peer go when nothing is open. */
void engines_release(struct engines *engines, struct session *session);
/* The session goes: so does its virtual peer, whatever is open. */
void engines_forget(struct engines *engines, struct session *session);
