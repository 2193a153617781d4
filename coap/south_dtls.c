/* SPDX-License-Identifier: Apache-2.0 */

/* What DTLS asks core and tells it: keys, verdicts, sessions that come and go, and what this gateway
 * shows to clients. */

#include "coap/south_parts.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "systemd/journal.h"

static session_handle handle_of(const struct south *south, const struct session *session) {
        return (uint64_t)south->generation << 32 | session->number;
}

static int key_wanted(void *userdata, struct session *session, struct bytes identity, struct secret *ret) {
        struct south *south = userdata;
        char peer[PEER_TEXT_MAX];
        struct message_psk question = {
                .identity = identity,
                .has_forward_secrecy = session->has_forward_secrecy,
        };

        peer_text(&session->peer, peer);
        question.peer = bytes_of(peer);
        return lookup_psk(south->lookup, &question, ret);
}

static int certificate_came(void *userdata, struct session *session, struct bytes chain,
                            enum certificate_verdict *ret) {
        struct south *south = userdata;
        char peer[PEER_TEXT_MAX];
        struct message_certificate question = { .chain = chain };

        peer_text(&session->peer, peer);
        question.peer = bytes_of(peer);
        return lookup_certificate(south->lookup, &question, ret);
}

static void connected(void *userdata, struct session *session, const char *suite) {
        struct south *south = userdata;
        char peer[PEER_TEXT_MAX];
        struct message_connected message = {
                .session = handle_of(south, session),
                .identity = buffer_bytes(&session->identity),
                .chain = buffer_bytes(&session->chain),
                .tls_unique = BYTES(session->tls_unique, session->tls_unique_size),
                .suite = bytes_of(suite),
                .has_forward_secrecy = session->has_forward_secrecy,
                .begun_usec = session->begun_usec,
                .finished_usec = south->now_usec,
        };

        if (RAND_bytes((unsigned char *)&session->next_message_id, sizeof session->next_message_id) != 1)
                session->next_message_id = (uint16_t)session->number;
        peer_text(&session->peer, peer);
        message.peer = bytes_of(peer);
        south->frame.size = 0;
        message_write_connected(&message, &south->frame);
        south_send_surely(south, FRAME_CONNECTED);
        buffer_free(&session->identity);
        buffer_free(&session->chain);
}

static void handshake_failed(void *userdata, struct session *session) {
        struct south *south = userdata;

        failures_add(south->failures, session->failure, buffer_bytes(&session->identity), &session->peer,
                     south->now_usec);
}

static void plaintext(void *userdata, struct session *session, struct bytes data) {
        struct south *south = userdata;

        if (engines_deliver(south->engines, session, data) < 0)
                south->counters[SOUTH_DATAGRAMS_DROPPED]++;
}

static void closed(void *userdata, struct session *session) {
        struct south *south = userdata;
        struct message_closed message = { handle_of(south, session), session->reason };

        requests_forget(south->requests, session);
        engines_forget(south->engines, session);
        south->frame.size = 0;
        message_write_closed(&message, &south->frame);
        south_send_surely(south, FRAME_CLOSED);
}

static void exhausted(void *userdata) {
        south_end(userdata, -EOVERFLOW);
}

/* What cannot be used changes nothing: devices with a PSK are not to lose their gateway over it. */
int south_take_credentials(struct south *south, struct bytes body) {
        struct message_server_credentials credentials;
        int r = message_read_server_credentials(body, &credentials);

        if (r < 0)
                return r;
        if (dtls_use_credentials(south->dtls, credentials.key, credentials.chain) < 0)
                journal_line(3, "south: the server's key and certificates cannot be used; what there was stays");
        /* The frame is the link's until its next one: the key is not to stay in it. */
        OPENSSL_cleanse((uint8_t *)body.data, body.size);
        if (south->is_ready)
                return 0;
        south->is_ready = true;
        r = sd_event_source_set_enabled(south->udp, SD_EVENT_ON);
        if (r >= 0 && south->ready)
                south->ready(south->ready_userdata);
        return r;
}

int south_dtls_new(struct south *south, struct problem *problem) {
        const struct dtls_handlers handlers = {
                .key = key_wanted,
                .certificate = certificate_came,
                .connected = connected,
                .failed = handshake_failed,
                .plaintext = plaintext,
                .closed = closed,
                .exhausted = exhausted,
                .userdata = south,
        };

        return dtls_new(&south->settings, &handlers, south->datagrams, south->counters, south->now_usec, &south->dtls,
                        problem);
}
