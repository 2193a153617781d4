/* SPDX-License-Identifier: Apache-2.0 */

/* Which session a record belongs to, and how sessions begin and end. Anybody can forge what is not
 * encrypted, so nothing unencrypted may end an established session, and nothing keeps state before
 * the cookie has shown that the peer lives at its address. */

#include "coap/dtls_parts.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "coap/engine_io.h"

#define SEC UINT64_C(1000000)
/* How often flights of half-open sessions are looked at; OpenSSL's own timers start at 1 s. */
#define FLIGHT_USEC (SEC / 10)
/* An established session gives libssl's record buffers back after this silence. */
#define BUFFERS_USEC (5 * SEC)

/* RFC 6347 §4.1, §4.2.2: what stands where in the first record of a datagram. */
#define RECORD_HEADER_BYTES 13
#define TYPE_ALERT          21
#define TYPE_HANDSHAKE      22
#define TYPE_APPLICATION    23
#define HELLO_TYPE_AT       RECORD_HEADER_BYTES
#define HELLO_RANDOM_AT     (RECORD_HEADER_BYTES + 12 + 2)

/* What a plain CCM or GCM record adds to its content: header, explicit nonce, tag. */
#define RECORD_OVERHEAD_BYTES (RECORD_HEADER_BYTES + 8 + 16)

struct record {
        uint8_t type;
        uint16_t epoch;
        const uint8_t *random; /* of a ClientHello, else NULL */
};

static bool record_parse(struct bytes data, struct record *ret) {
        if (data.size <= RECORD_HEADER_BYTES)
                return false;
        ret->type = data.data[0];
        ret->epoch = (uint16_t)(data.data[3] << 8 | data.data[4]);
        ret->random = NULL;
        if (ret->type == TYPE_HANDSHAKE && ret->epoch == 0 && data.data[HELLO_TYPE_AT] == SSL3_MT_CLIENT_HELLO) {
                if (data.size < HELLO_RANDOM_AT + SESSION_RANDOM_BYTES)
                        return false;
                ret->random = data.data + HELLO_RANDOM_AT;
        }
        return true;
}

int dtls_new(const struct south_settings *settings, const struct dtls_handlers *handlers, struct datagrams *datagrams,
             uint64_t *counters, uint64_t now_usec, struct dtls **ret, struct problem *problem) {
        struct session_limits limits = { settings->max_sessions, settings->max_half_open,
                                         settings->max_half_open_prefix };
        struct dtls *dtls = xcalloc(1, sizeof *dtls);
        int r;

        dtls->settings = *settings;
        dtls->handlers = *handlers;
        dtls->datagrams = datagrams;
        dtls->counters = counters;
        dtls->now_usec = now_usec;
        TAILQ_INIT(&dtls->buffered);
        r = cookie_keys_make(&dtls->cookies, now_usec);
        if (r >= 0)
                r = sessions_new(&limits, &dtls->sessions);
        if (r >= 0)
                r = marks_new(&dtls->marks);
        if (r < 0)
                r = problem_set(problem, CODE_INTERNAL, EIO, "DTLS", "no randomness from OpenSSL");
        else
                r = dtls_context_new(dtls, problem);
        if (r < 0) {
                dtls_free(dtls);
                return r;
        }
        dtls->listener = dtls_session_new(dtls);
        *ret = dtls;
        return 0;
}

struct dtls *dtls_free(struct dtls *dtls) {
        if (!dtls)
                return NULL;
        dtls_session_free(dtls->listener);
        dtls_context_free(dtls);
        sessions_free(dtls->sessions);
        marks_free(dtls->marks);
        OPENSSL_cleanse(&dtls->cookies, sizeof dtls->cookies);
        free(dtls);
        return NULL;
}

struct sessions *dtls_sessions(const struct dtls *dtls) {
        return dtls->sessions;
}

static void count_sessions(struct dtls *dtls) {
        dtls->counters[SOUTH_SESSIONS] = sessions_established(dtls->sessions);
        dtls->counters[SOUTH_HALF_OPEN] = sessions_half_open(dtls->sessions);
}

static void buffers_used(struct dtls *dtls, struct session *session) {
        if (session->has_buffers)
                TAILQ_REMOVE(&dtls->buffered, session, in_buffered);
        session->has_buffers = true;
        TAILQ_INSERT_TAIL(&dtls->buffered, session, in_buffered);
}

/* libssl writes through a pointer that only reading sets up again once its buffers were given back:
 * every write, shutdown and alert of ours comes through here. */
static void ready_to_write(struct session *session) {
        uint8_t unused;

        if (session->has_buffers)
                return;
        ERR_clear_error();
        (void)SSL_peek(session->ssl, &unused, sizeof unused);
        buffers_used(session->dtls, session);
}

static void bury(struct session *session, enum close_reason reason) {
        struct dtls *dtls = session->dtls;

        if (session->has_buffers) {
                TAILQ_REMOVE(&dtls->buffered, session, in_buffered);
                session->has_buffers = false;
        }
        session->reason = reason;
        sessions_bury(dtls->sessions, session);
        count_sessions(dtls);
}

void dtls_end(struct session *session, enum close_reason reason) {
        if (session->state != SESSION_ESTABLISHED)
                return;
        /* A session that was replaced has nobody left to read a close_notify. */
        if (reason != CLOSE_REPLACED && !session->is_broken) {
                ready_to_write(session);
                ERR_clear_error();
                (void)SSL_shutdown(session->ssl);
        }
        bury(session, reason);
}

/* Ends a handshake that did not succeed. Reported unless it was merely overtaken by another: one whose
 * identity came, but no Finished that fits, had the wrong key. */
static void give_up(struct session *session, bool is_overtaken) {
        struct dtls *dtls = session->dtls;

        if (!session->has_failure) {
                session->has_failure = !is_overtaken || session->is_identity_known;
                session->failure = session->is_identity_known ? FAILED_WRONG_KEY : FAILED_TIMEOUT;
        }
        if (session->has_failure) {
                dtls->counters[SOUTH_HANDSHAKES_FAILED]++;
                dtls->handlers.failed(dtls->handlers.userdata, session);
        }
        bury(session, CLOSE_ERROR);
}

void dtls_end_all(struct dtls *dtls, enum close_reason reason) {
        struct session *session;

        while ((session = sessions_oldest_half_open(dtls->sessions)))
                bury(session, reason);
        while ((session = sessions_longest_idle(dtls->sessions))) {
                dtls_end(session, reason);
                dtls_reap(dtls);
        }
        dtls_reap(dtls);
}

void dtls_reap(struct dtls *dtls) {
        struct session *session;

        while ((session = sessions_next_dead(dtls->sessions))) {
                if (session->was_established)
                        dtls->handlers.closed(dtls->handlers.userdata, session);
                dtls_session_free(session);
        }
}

static void failed(struct session *session) {
        enum handshake_failure failure = FAILED_PROTOCOL;
        unsigned long error;

        while ((error = ERR_get_error())) {
                if (ERR_GET_LIB(error) != ERR_LIB_SSL)
                        continue;
                if (ERR_GET_REASON(error) == SSL_R_NO_SHARED_CIPHER)
                        failure = FAILED_NO_SUITE;
                dtls_certificate_failed(session, (unsigned long)ERR_GET_REASON(error));
        }
        if (!session->has_failure)
                session->failure = failure;
        session->has_failure = true;
}

/* Its Finished was verified: now, and not before, it may take the place of the session that its
 * address had. */
static void established(struct session *session) {
        struct dtls *dtls = session->dtls;
        struct session *other = sessions_find(dtls->sessions, &session->peer, SESSION_ESTABLISHED);

        if (other)
                dtls_end(other, CLOSE_REPLACED);
        other = sessions_overflow(dtls->sessions);
        if (other)
                dtls_end(other, CLOSE_IDLE);
        sessions_establish(dtls->sessions, session);
        session->was_established = true;
        session->last_usec = dtls->now_usec;
        buffers_used(dtls, session);
        dtls_certificates_done(session);
        dtls->counters[SOUTH_HANDSHAKES]++;
        count_sessions(dtls);
        dtls->handlers.connected(dtls->handlers.userdata, session, SSL_get_cipher_name(session->ssl));
}

static void handshake(struct session *session) {
        int r, error;

        ERR_clear_error();
        r = SSL_do_handshake(session->ssl);
        if (r == 1) {
                established(session);
                return;
        }
        error = SSL_get_error(session->ssl, r);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
                return;
        failed(session);
        session->is_broken = true;
        give_up(session, false);
}

static void read_all(struct session *session) {
        struct dtls *dtls = session->dtls;
        uint8_t plaintext[DATAGRAM_MAX];
        int r, error;

        for (;;) {
                ERR_clear_error();
                r = SSL_read(session->ssl, plaintext, sizeof plaintext);
                if (r <= 0)
                        break;
                sessions_touch(dtls->sessions, session, dtls->now_usec);
                dtls->handlers.plaintext(dtls->handlers.userdata, session, BYTES(plaintext, (size_t)r));
                if (session->state != SESSION_ESTABLISHED)
                        return;
        }
        error = SSL_get_error(session->ssl, r);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
                return;
        if (error == SSL_ERROR_ZERO_RETURN) {
                dtls_end(session, CLOSE_BY_PEER);
                return;
        }
        session->is_broken = true;
        dtls_end(session, SSL_get_shutdown(session->ssl) & SSL_RECEIVED_SHUTDOWN ? CLOSE_BY_PEER : CLOSE_ERROR);
}

static void feed(struct dtls *dtls, struct session *session, struct bytes data) {
        dtls->current = data;
        dtls->reader = session;
        if (session->state == SESSION_HALF_OPEN)
                handshake(session);
        if (session->state == SESSION_ESTABLISHED) {
                buffers_used(dtls, session);
                read_all(session);
        }
        dtls->current = BYTES(NULL, 0);
        dtls->reader = NULL;
}

/* The listener has become a session: its cookie was right. */
static void begin(struct dtls *dtls, const struct record *hello) {
        struct session *session = dtls->listener, *other;

        dtls->listener = dtls_session_new(dtls);
        other = sessions_find(dtls->sessions, &session->peer, SESSION_HALF_OPEN);
        if (other)
                give_up(other, true);
        while ((other = sessions_crowded_by(dtls->sessions, &session->peer)))
                give_up(other, true);
        memcpy(session->random, hello->random, SESSION_RANDOM_BYTES);
        session->begun_usec = dtls->now_usec;
        session->last_usec = dtls->now_usec;
        if (sessions_add(dtls->sessions, session) < 0) {
                dtls_session_free(session);
                dtls->handlers.exhausted(dtls->handlers.userdata);
                return;
        }
        count_sessions(dtls);
        feed(dtls, session, BYTES(NULL, 0)); /* DTLSv1_listen() kept the hello for it */
}

static void listen_to(struct dtls *dtls, const struct peer *from, struct bytes data, const struct record *hello) {
        struct session *listener = dtls->listener;
        int r;

        listener->peer = *from;
        dtls->current = data;
        dtls->reader = listener;
        ERR_clear_error();
        r = DTLSv1_listen(listener->ssl, dtls->listener_peer);
        dtls->current = BYTES(NULL, 0);
        dtls->reader = NULL;
        if (r > 0)
                begin(dtls, hello);
        else if (r == 0)
                dtls->counters[SOUTH_HELLOS]++;
        else
                dtls->counters[SOUTH_DATAGRAMS_DROPPED]++;
}

static void hello(struct dtls *dtls, const struct peer *from, struct bytes data, const struct record *record) {
        const struct session *half_open = sessions_find(dtls->sessions, from, SESSION_HALF_OPEN);

        /* The same random is a retransmission; our own timer repairs what got lost. Another is a
         * device that began anew. */
        if (half_open && CRYPTO_memcmp(half_open->random, record->random, SESSION_RANDOM_BYTES) == 0)
                return;
        listen_to(dtls, from, data, record);
}

/* Both sessions of an address exist while a new handshake runs beside an established session. */
static struct session *owner_of(const struct dtls *dtls, const struct peer *from, const struct record *record) {
        struct session *half_open = sessions_find(dtls->sessions, from, SESSION_HALF_OPEN);
        struct session *established_one = sessions_find(dtls->sessions, from, SESSION_ESTABLISHED);

        if (!half_open || !established_one)
                return half_open ? half_open : established_one;
        if (record->epoch > 0 && (record->type == TYPE_ALERT || record->type == TYPE_APPLICATION))
                return established_one;
        return half_open;
}

void dtls_datagram(struct dtls *dtls, const struct peer *from, struct bytes data, uint64_t now_usec) {
        struct session *session;
        struct record record;

        dtls->now_usec = now_usec;
        if (!record_parse(data, &record)) {
                dtls->counters[SOUTH_DATAGRAMS_DROPPED]++;
                return;
        }
        engine_io_enter();
        if (record.random) {
                if (cookie_keys_rotate(&dtls->cookies, now_usec) >= 0)
                        hello(dtls, from, data, &record);
        } else if ((session = owner_of(dtls, from, &record))) {
                feed(dtls, session, data);
        } else {
                dtls->counters[SOUTH_DATAGRAMS_DROPPED]++;
        }
        engine_io_leave();
}

/* A flight that was lost is sent again; OpenSSL's timers count inside engine_io_enter(), so setting
 * the clock neither stops nor hurries them. */
static void retransmit(struct session *session) {
        struct timeval left;

        if (DTLSv1_get_timeout(session->ssl, &left) != 1 || left.tv_sec > 0 || left.tv_usec > 0)
                return;
        ERR_clear_error();
        if (DTLSv1_handle_timeout(session->ssl) < 0)
                give_up(session, false);
}

static void tick_half_open(struct dtls *dtls) {
        struct session *session, *next;

        for (session = sessions_oldest_half_open(dtls->sessions); session; session = next) {
                next = sessions_next_half_open(session);
                if (dtls->now_usec - session->begun_usec >= dtls->settings.half_open_sec * SEC)
                        give_up(session, false);
                else
                        retransmit(session);
        }
}

static void tick_buffers(struct dtls *dtls) {
        struct session *session;

        while ((session = TAILQ_FIRST(&dtls->buffered)) && dtls->now_usec - session->last_usec >= BUFFERS_USEC) {
                TAILQ_REMOVE(&dtls->buffered, session, in_buffered);
                session->has_buffers = false;
                if (!SSL_free_buffers(session->ssl)) {
                        /* Something is still in them; look again after the next use. */
                        session->has_buffers = true;
                        TAILQ_INSERT_TAIL(&dtls->buffered, session, in_buffered);
                        break;
                }
        }
}

static uint64_t earlier(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

uint64_t dtls_tick(struct dtls *dtls, uint64_t now_usec) {
        uint64_t idle_usec = dtls->settings.idle_sec * SEC, next = UINT64_MAX;
        struct session *session;

        dtls->now_usec = now_usec;
        engine_io_enter();
        tick_half_open(dtls);
        while ((session = sessions_longest_idle(dtls->sessions)) && now_usec - session->last_usec >= idle_usec)
                dtls_end(session, CLOSE_IDLE);
        tick_buffers(dtls);
        engine_io_leave();

        if (sessions_oldest_half_open(dtls->sessions))
                next = now_usec + FLIGHT_USEC;
        if (session)
                next = earlier(next, session->last_usec + idle_usec);
        if (!TAILQ_EMPTY(&dtls->buffered))
                next = earlier(next, now_usec + BUFFERS_USEC);
        return next;
}

size_t dtls_room(const struct session *session) {
        size_t room = session->dtls->settings.mtu - RECORD_OVERHEAD_BYTES;
        uint8_t mode = SSL_SESSION_get_max_fragment_length(SSL_get0_session(session->ssl));

        if (mode != TLSEXT_max_fragment_length_DISABLED && ((size_t)256 << mode) < room)
                room = (size_t)256 << mode;
        return room;
}

int dtls_write(struct session *session, struct bytes data) {
        if (session->state != SESSION_ESTABLISHED || session->is_broken)
                return -EPIPE;
        if (data.size > dtls_room(session))
                return -EMSGSIZE;
        ready_to_write(session);
        ERR_clear_error();
        if (SSL_write(session->ssl, data.data, (int)data.size) > 0)
                return 0;
        session->is_broken = true;
        dtls_end(session, CLOSE_ERROR);
        return -EPIPE;
}
