/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The sessions of south and how they are found: by the peer's address, by number, the longest idle
 * first, and the half-open ones of an address prefix. No DTLS and no CoAP here. */

#include <openssl/types.h>
#include <sys/queue.h>

#include "coap/peer.h"
#include "gatewayd/messages.h"

enum session_state {
        SESSION_LISTENING, /* takes ClientHellos from anybody; in no table */
        SESSION_HALF_OPEN, /* its cookie was right; Finished not verified yet */
        SESSION_ESTABLISHED,
        SESSION_DEAD, /* in no table; freed when nobody can be inside it */
};

#define SESSION_RANDOM_BYTES 32
/* Confirmable messages of ours that one session may leave unacknowledged. */
#define SESSION_UNACKNOWLEDGED_MAX 16

struct dtls;
struct exchange;
struct body;
struct kept;
struct observer;
struct prefix;
LIST_HEAD(exchange_list, exchange);
LIST_HEAD(body_list, body);
LIST_HEAD(kept_list, kept);
LIST_HEAD(observer_list, observer);

struct session {
        struct dtls *dtls;
        enum session_state state;
        uint32_t number; /* the lower half of the handle; 0 while listening */
        struct peer peer;
        SSL *ssl;
        uint8_t random[SESSION_RANDOM_BYTES]; /* of its ClientHello */
        uint64_t begun_usec, last_usec;       /* CLOCK_MONOTONIC */
        bool has_buffers;                     /* libssl holds its record buffers */
        bool is_broken;                       /* libssl gave it up: not a byte more may be written */

        /* The handshake */
        struct buffer identity;
        size_t identity_size; /* as the ClientKeyExchange says; SIZE_MAX: not seen */
        bool has_forward_secrecy;
        bool is_identity_known; /* core gave a key for it */
        bool offers_psk;        /* its ClientHello has one of our PSK suites */
        uint8_t alert;          /* goes out in the place of OpenSSL's; 0: OpenSSL's */
        struct buffer chain;    /* of the client, as struct message_certificate has it */
        uint8_t tls_unique[TLS_UNIQUE_MAX];
        size_t tls_unique_size; /* 0: there is none that proves anything */
        bool has_failure;
        enum handshake_failure failure;
        enum close_reason reason; /* once dead */
        bool was_established;

        LIST_ENTRY(session) same_peer, same_number;
        TAILQ_ENTRY(session) in_order;    /* half-open: by age; established: by last use; dead */
        TAILQ_ENTRY(session) in_buffered; /* while has_buffers, by last use */
        LIST_ENTRY(session) same_prefix;
        struct prefix *prefix;

        /* What CoAP keeps for it: coap/engine.c, requests.c, blocks.c, observers.c */
        void *engine_peer;
        uint16_t unacknowledged[SESSION_UNACKNOWLEDGED_MAX];
        unsigned unacknowledged_count;
        unsigned holds; /* exchanges that want the virtual peer to stay */
        uint16_t next_message_id;
        struct exchange_list exchanges;
        unsigned exchange_count;
        struct body_list bodies;
        unsigned body_count;
        struct kept_list kept;
        unsigned kept_count;
        struct observer_list observers;
        unsigned observer_count;
};

TAILQ_HEAD(session_queue, session);

struct session_limits {
        unsigned max_established;
        unsigned max_half_open;
        unsigned max_half_open_prefix;
};

struct sessions;

/* Returns 0 or -errno. */
int sessions_new(const struct session_limits *limits, struct sessions **ret);
/* Frees the tables; the sessions must have gone. */
struct sessions *sessions_free(struct sessions *sessions);

/* Of one address at most one is half open and one established; NULL when there is none. */
struct session *sessions_find(const struct sessions *sessions, const struct peer *peer, enum session_state state);
struct session *sessions_by_number(const struct sessions *sessions, uint32_t number);

/* The half-open session that must end before another of `peer`'s prefix may begin: the oldest of
 * its prefix, else the oldest of all; NULL while there is room. */
struct session *sessions_crowded_by(const struct sessions *sessions, const struct peer *peer);
/* The established session that must end before another one: the longest idle; NULL while there is
 * room. */
struct session *sessions_overflow(const struct sessions *sessions);

/* Gives the session its number and enters it as half open. -EOVERFLOW once the numbers are used up:
 * south must then start anew with another generation. */
int sessions_add(struct sessions *sessions, struct session *session);
void sessions_establish(struct sessions *sessions, struct session *session);
/* Out of every table, into the queue of the dead. */
void sessions_bury(struct sessions *sessions, struct session *session);
/* Takes the next dead one out; NULL: none. */
struct session *sessions_next_dead(struct sessions *sessions);
/* It was heard of now: to the end of the queue of the idle. */
void sessions_touch(struct sessions *sessions, struct session *session, uint64_t now_usec);

struct session *sessions_oldest_half_open(const struct sessions *sessions);
struct session *sessions_next_half_open(const struct session *session);
struct session *sessions_longest_idle(const struct sessions *sessions);
struct session *sessions_next_idle(const struct session *session);
unsigned sessions_half_open(const struct sessions *sessions);
unsigned sessions_established(const struct sessions *sessions);
