/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Requests of devices as frames to core, core's replies as answers back. No decision is taken here
 * but on what CoAP itself demands: blocks, retransmissions, observers, and how many at once.
 *
 * A request waits as an exchange. Its answer goes piggy-backed on the acknowledgement where core is
 * quick; after EXCHANGE_LATE_USEC the request is acknowledged and the answer follows as a separate
 * response. A request that is sent again while its exchange waits is not told to core a second time;
 * one that comes again later is, and core knows it by session, message id and token. */

#include "coap/blocks.h"
#include "coap/engine.h"
#include "coap/kept.h"
#include "coap/observers.h"
#include "coap/south.h"

#define EXCHANGE_LATE_USEC (500 * UINT64_C(1000))
/* Core owes an answer by then; the device gets 5.03. */
#define EXCHANGE_LOST_USEC    (20 * UINT64_C(1000000))
#define EXCHANGES_PER_SESSION 8
#define EXCHANGES_MAX         4096

struct requests;

struct requests_options {
        const struct south_settings *settings; /* borrowed, like all here */
        uint32_t generation;
        struct sessions *sessions;
        uint64_t *counters;
        /* Queues a REQUEST frame: 0, or -errno where core's link does not take it. */
        int (*tell_core)(void *userdata, const struct message_request *request);
        /* The most bytes of a CoAP message that this session takes at once. */
        size_t (*room)(const struct session *session);
        void *userdata;
};

struct requests *requests_new(const struct requests_options *options);
struct requests *requests_free(struct requests *requests);
/* The engines come later than their handlers. */
void requests_use_engines(struct requests *requests, struct engines *engines);

/* What engine.h asks for; `userdata` is the struct requests. */
enum request_verdict requests_take(struct requests *requests, struct session *session, const struct request *request,
                                   uint64_t now_usec, struct answer *answer);
void requests_acknowledged(struct requests *requests, struct session *session, uint16_t message_id, uint64_t now_usec);
void requests_undelivered(struct requests *requests, struct session *session, uint16_t message_id);

/* What core says. A reply for an exchange or a session that is gone is dropped. */
void requests_reply(struct requests *requests, const struct message_reply *reply, uint64_t now_usec);
void requests_notify(struct requests *requests, const struct message_reply *reply, uint64_t now_usec);

/* The session goes, and all that it has open. */
void requests_forget(struct requests *requests, struct session *session);
bool requests_are_waiting(const struct requests *requests);
/* Acknowledges what is late, gives up what is lost; returns when to call again. */
uint64_t requests_tick(struct requests *requests, uint64_t now_usec);
