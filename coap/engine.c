/* SPDX-License-Identifier: Apache-2.0 */

/* What goes into the contexts of libcoap and what comes out of them. */

#include "coap/engine_parts.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <sys/epoll.h>

#include "coap/engine_io.h"
#include "gatewayd/format.h"

/* Numbers travel as 10.0.x.y:port. */
static struct sockaddr_in address_of(uint32_t number) {
        return (struct sockaddr_in){
                .sin_family = AF_INET,
                .sin_port = htons((uint16_t)number),
                .sin_addr.s_addr = htonl(0x0a000000 | number >> 16),
        };
}

static uint32_t number_of(const struct sockaddr_in *address) {
        return (ntohl(address->sin_addr.s_addr) & 0xffff) << 16 | ntohs(address->sin_port);
}

static struct engine *engine_of(struct engines *engines, uint32_t number) {
        return &engines->each[number % engines->count];
}

ssize_t engine_receive(void *userdata, struct sockaddr_in *from, void *to, size_t size) {
        static const uint8_t empty_acknowledgement[HEADER_BYTES] = { 0x60, 0, 0, 0 };
        struct engine *engine = userdata;
        struct inbox_entry *entry;

        engine->engines->is_answered_here = false;
        engine->engines->muted = -1;
        if (engine->knock) {
                *from = address_of(*engine->knock);
                memcpy(to, empty_acknowledgement, sizeof empty_acknowledgement);
                return sizeof empty_acknowledgement;
        }
        entry = TAILQ_FIRST(&engine->inbox);
        if (!entry)
                return -1;
        TAILQ_REMOVE(&engine->inbox, entry, entries);
        TAILQ_INSERT_TAIL(&engine->done, entry, entries);
        engine->waiting--;
        /* Its session may have ended since; the self-test has none. */
        if (entry->number != SELF_TEST_NUMBER && !sessions_by_number(engine->engines->sessions, entry->number))
                return -1;
        *from = address_of(entry->number);
        if (size > entry->size)
                size = entry->size;
        memcpy(to, entry->data, size);
        return (ssize_t)size;
}

static const char *title_of(uint8_t code) {
        switch (code) {
        case CODE_BAD_OPTION:
                return "critical option not understood";
        case CODE_METHOD_NOT_ALLOWED:
                return "method not allowed";
        case 165:
                return "no proxy here";
        default:
                return "request refused";
        }
}

/* What libcoap refuses by itself carries a phrase as text; here every error is problem details. */
static void send_problem(struct engines *engines, struct session *session, struct bytes theirs) {
        static const uint8_t format_option[] = { 0xc2, FORMAT_PROBLEM >> 8, FORMAT_PROBLEM & 0xff, 0xff };
        size_t head = HEADER_BYTES + (theirs.data[0] & 0x0f);
        uint8_t code = theirs.data[1];
        struct problem problem = { 0 };
        struct buffer ours = { 0 };

        if (head > theirs.size)
                return;
        /* Every path is ours, so what it did not find is a handler for the method (RFC 7252 §5.8). */
        if (code == CODE_NOT_FOUND)
                code = CODE_METHOD_NOT_ALLOWED;
        (void)problem_set(&problem, code, EPROTO, title_of(code),
                          "the CoAP layer refused it before anybody looked at the path");
        buffer_append(&ours, BYTES(theirs.data, head));
        ours.data[1] = code;
        buffer_append(&ours, BYTES(format_option, sizeof format_option));
        problem_to_cbor(&problem, &ours);
        engines->handlers.send(engines->handlers.userdata, session, buffer_bytes(&ours));
        buffer_free(&ours);
}

void engine_send_out(void *userdata, const struct sockaddr_in *to, struct bytes data) {
        struct engines *engines = ((struct engine *)userdata)->engines;
        uint32_t number = number_of(to);
        struct session *session;
        uint8_t code;

        if (data.size < HEADER_BYTES)
                return;
        code = data.data[1];
        if (number == SELF_TEST_NUMBER) {
                engines->self_tests += code == CODE_CONTENT;
                return;
        }
        if (code == CODE_EMPTY && engines->muted == (data.data[2] << 8 | data.data[3])) {
                engines->muted = -1;
                return;
        }
        session = sessions_by_number(engines->sessions, number);
        if (!session)
                return;
        if (code >= CODE_BAD_REQUEST && !engines->is_answered_here)
                send_problem(engines, session, data);
        else
                engines->handlers.send(engines->handlers.userdata, session, data);
}

void engine_handle_request(coap_resource_t *resource, coap_session_t *peer, const coap_pdu_t *pdu,
                           const coap_string_t *query, coap_pdu_t *response) {
        struct engines *engines = coap_get_app_data(coap_session_get_context(peer));
        struct session *session = coap_session_get_app_data(peer);
        struct answer answer = ANSWER_NONE;
        struct request request;

        (void)resource;
        (void)query;
        engines->is_answered_here = true;
        if (!session) { /* the self-test */
                coap_pdu_set_code(response, COAP_RESPONSE_CODE_CONTENT);
                return;
        }
        request_of_pdu(pdu, &engines->scratch, &request);
        switch (engines->handlers.request(engines->handlers.userdata, session, &request, &answer)) {
        case REQUEST_ANSWERED:
                (void)answer_to_pdu(&answer, response); /* it was cut to fit */
                break;
        case REQUEST_PENDING:
                engines->muted = request.message_id;
                break;
        case REQUEST_ACKNOWLEDGED:
                break;
        }
        answer_clear(&answer);
}

int engine_peer_event(coap_session_t *peer, coap_event_t event) {
        struct engines *engines = coap_get_app_data(coap_session_get_context(peer));
        const coap_address_t *address = coap_session_get_addr_remote(peer);
        struct session *session;

        if (event != COAP_EVENT_SERVER_SESSION_NEW)
                return 0;
        /* Ours to end, not libcoap's: its idle drop would lose what is open. */
        coap_session_reference(peer);
        session = sessions_by_number(engines->sessions, number_of(&address->addr.sin));
        coap_session_set_app_data(peer, session);
        if (session)
                session->engine_peer = peer;
        else
                engines->self_test_peer = peer;
        return 0;
}

static bool unacknowledged_remove(struct session *session, uint16_t message_id) {
        for (unsigned i = 0; i < session->unacknowledged_count; i++) {
                if (session->unacknowledged[i] != message_id)
                        continue;
                session->unacknowledged[i] = session->unacknowledged[--session->unacknowledged_count];
                return true;
        }
        return false;
}

void engine_not_delivered(coap_session_t *peer, const coap_pdu_t *sent, coap_nack_reason_t reason,
                          coap_mid_t message_id) {
        struct engines *engines = coap_get_app_data(coap_session_get_context(peer));
        struct session *session = coap_session_get_app_data(peer);

        (void)reason;
        /* libcoap 4.3.5 calls this at every disconnect, without a PDU. */
        if (!sent || !session || engines->is_releasing)
                return;
        if (!unacknowledged_remove(session, (uint16_t)message_id))
                return;
        buffer_append(&engines->loose, BYTES(&session->number, sizeof session->number));
        engines->handlers.undelivered(engines->handlers.userdata, session, (uint16_t)message_id);
}

/* Through public functions alone, also in a state in which libcoap would rather keep it: as a client's
 * session it is freed with its last reference. */
void engine_peer_free(struct engines *engines, coap_session_t *peer) {
        engines->is_releasing = true;
        coap_session_disconnected(peer, COAP_NACK_NOT_DELIVERABLE);
        coap_session_set_type_client(peer);
        coap_session_release(peer);
        coap_session_release(peer);
        engines->is_releasing = false;
}

void engines_forget(struct engines *engines, struct session *session) {
        if (!session->engine_peer)
                return;
        engine_io_enter();
        engine_peer_free(engines, session->engine_peer);
        engine_io_leave();
        session->engine_peer = NULL;
        session->unacknowledged_count = 0;
}

void engines_release(struct engines *engines, struct session *session) {
        if (session->holds == 0 && session->unacknowledged_count == 0)
                engines_forget(engines, session);
}

void engine_run(struct engine *engine, unsigned count) {
        struct epoll_event events[INBOX_MAX];

        if (engine_io_event(engine->fd, &events[0]) < 0)
                return;
        events[0].events = EPOLLIN;
        for (unsigned i = 1; i < count; i++)
                events[i] = events[0];
        engine_io_enter();
        coap_io_do_epoll(engine->context, events, count);
        engine_io_leave();
}

/* The session's virtual peer, made by a message that asks for nothing where there is none. */
static coap_session_t *peer_of(struct engines *engines, struct session *session) {
        struct engine *engine = engine_of(engines, session->number);

        if (!session->engine_peer) {
                engine->knock = &session->number;
                engine_run(engine, 1);
                engine->knock = NULL;
        }
        return session->engine_peer;
}

int engines_deliver(struct engines *engines, struct session *session, struct bytes data) {
        struct engine *engine = engine_of(engines, session->number);
        struct inbox_entry *entry;

        if (data.size < HEADER_BYTES || data.size > COAP_RXBUFFER_SIZE || data.data[0] >> 6 != 1 ||
            data.data[1] >> 5 == CLASS_SIGNALING)
                return -EBADMSG;
        if (TAILQ_EMPTY(&engines->spare))
                engines_run(engines);
        entry = TAILQ_FIRST(&engines->spare);
        TAILQ_REMOVE(&engines->spare, entry, entries);
        entry->number = session->number;
        entry->size = (uint16_t)data.size;
        memcpy(entry->data, data.data, data.size);
        TAILQ_INSERT_TAIL(&engine->inbox, entry, entries);
        if (engine->waiting++ == 0)
                TAILQ_INSERT_TAIL(&engines->busy, engine, busy);
        return 0;
}

/* After libcoap: acknowledgements are told on, and peers with nothing open go. */
static void finish(struct engines *engines, const struct inbox_entry *entry) {
        struct session *session = sessions_by_number(engines->sessions, entry->number);
        uint16_t message_id = (uint16_t)(entry->data[2] << 8 | entry->data[3]);

        if (!session)
                return;
        if ((entry->data[0] >> 4 & 3) == TYPE_ACK && unacknowledged_remove(session, message_id))
                engines->handlers.acknowledged(engines->handlers.userdata, session, message_id);
        engines_release(engines, session);
}

void engines_run(struct engines *engines) {
        struct inbox_entry *entry;
        struct engine *engine;

        while ((engine = TAILQ_FIRST(&engines->busy))) {
                TAILQ_REMOVE(&engines->busy, engine, busy);
                engine_run(engine, engine->waiting);
                while ((entry = TAILQ_FIRST(&engine->done))) {
                        TAILQ_REMOVE(&engine->done, entry, entries);
                        finish(engines, entry);
                        OPENSSL_cleanse(entry->data, entry->size);
                        TAILQ_INSERT_TAIL(&engines->spare, entry, entries);
                }
        }
}

static const coap_pdu_type_t pdu_types[] = {
        [MESSAGE_CONFIRMABLE] = COAP_MESSAGE_CON,
        [MESSAGE_NON_CONFIRMABLE] = COAP_MESSAGE_NON,
        [MESSAGE_ACKNOWLEDGEMENT] = COAP_MESSAGE_ACK,
};

static int send_to_peer(coap_session_t *peer, enum message_type type, uint16_t message_id, struct bytes token,
                        const struct answer *answer) {
        coap_pdu_t *pdu = coap_pdu_init(pdu_types[type], 0, message_id, COAP_RXBUFFER_SIZE);

        if (!pdu)
                return -ENOMEM;
        if (answer->code != CODE_EMPTY && token.size > 0 && !coap_add_token(pdu, token.size, token.data)) {
                coap_delete_pdu(pdu);
                return -EMSGSIZE;
        }
        if (answer_to_pdu(answer, pdu) < 0) {
                coap_delete_pdu(pdu);
                return -EMSGSIZE;
        }
        return coap_send(peer, pdu) == COAP_INVALID_MID ? -ENOMEM : 0;
}

int engines_send(struct engines *engines, struct session *session, enum message_type type, uint16_t message_id,
                 struct bytes token, const struct answer *answer) {
        coap_session_t *peer;
        int r;

        if (type == MESSAGE_CONFIRMABLE && session->unacknowledged_count == SESSION_UNACKNOWLEDGED_MAX)
                return -ENOBUFS;
        peer = peer_of(engines, session);
        if (!peer)
                return -ENOMEM;
        engines->is_answered_here = true;
        engines->muted = -1;
        engine_io_enter();
        r = send_to_peer(peer, type, message_id, token, answer);
        engine_io_leave();
        if (r >= 0 && type == MESSAGE_CONFIRMABLE)
                session->unacknowledged[session->unacknowledged_count++] = message_id;
        engines_release(engines, session);
        return r;
}

/* libcoap's timer descriptor is readable: something is to be sent again, or given up. */
int engine_on_timer(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        struct engine *engine = userdata;
        struct engines *engines = engine->engines;
        struct session *session;
        uint32_t number;

        (void)source;
        (void)fd;
        (void)events;
        engines->is_answered_here = true;
        engines->muted = -1;
        engine_io_enter();
        coap_io_process(engine->context, COAP_IO_NO_WAIT);
        engine_io_leave();
        for (size_t at = 0; at < engines->loose.size; at += sizeof number) {
                memcpy(&number, engines->loose.data + at, sizeof number);
                session = sessions_by_number(engines->sessions, number);
                if (session)
                        engines_release(engines, session);
        }
        engines->loose.size = 0;
        engines->handlers.timers_ran(engines->handlers.userdata);
        return 0;
}
