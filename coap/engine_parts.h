/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by engine.c (datagrams in and out) and engine_start.c (making the contexts, the self-test).
 * Nobody else includes it. */

#include <coap3/coap.h>

#include "coap/engine.h"

#define HEADER_BYTES    4
#define TYPE_ACK        2
#define CLASS_SIGNALING 7
/* Datagrams that may wait for engines_run(). */
#define INBOX_MAX 64
/* The session number of the self-test, which no session ever has. */
#define SELF_TEST_NUMBER 0

struct inbox_entry {
        uint32_t number;
        uint16_t size;
        uint8_t data[COAP_RXBUFFER_SIZE];
        TAILQ_ENTRY(inbox_entry) entries;
};
TAILQ_HEAD(inbox, inbox_entry);

struct engine {
        struct engines *engines;
        coap_context_t *context;
        int fd;
        sd_event_source *source;
        struct inbox inbox, done;
        unsigned waiting;
        const uint32_t *knock; /* makes a virtual peer for this session: see peer_of() */
        TAILQ_ENTRY(engine) busy;
};
TAILQ_HEAD(engine_queue, engine);

struct engines {
        struct engine *each;
        unsigned count;
        struct sessions *sessions;
        struct engine_handlers handlers;
        struct request_scratch scratch;
        struct inbox_entry pool[INBOX_MAX];
        struct inbox spare;
        struct engine_queue busy; /* those with something in the inbox */
        struct buffer loose;      /* numbers of sessions whose peer may be let go after the timers */
        bool is_releasing;

        /* About the datagram that libcoap is working on */
        bool is_answered_here; /* our handler saw the request */
        int muted;             /* the message id whose empty response stays here; -1 none */

        unsigned self_tests; /* answers seen by the self-test */
        coap_session_t *self_test_peer;
};

ssize_t engine_receive(void *userdata, struct sockaddr_in *from, void *to, size_t size);
void engine_send_out(void *userdata, const struct sockaddr_in *to, struct bytes data);
void engine_handle_request(coap_resource_t *resource, coap_session_t *peer, const coap_pdu_t *pdu,
                           const coap_string_t *query, coap_pdu_t *response);
int engine_peer_event(coap_session_t *peer, coap_event_t event);
void engine_not_delivered(coap_session_t *peer, const coap_pdu_t *sent, coap_nack_reason_t reason,
                          coap_mid_t message_id);
int engine_on_timer(sd_event_source *source, int fd, uint32_t events, void *userdata);
/* Gives libcoap `count` datagrams in one call, which walks over the context's peers once. */
void engine_run(struct engine *engine, unsigned count);
void engine_peer_free(struct engines *engines, coap_session_t *peer);
