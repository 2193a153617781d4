/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The sessions that core knows of: south made them, core decides what they may do. In memory only;
 * they end with south and with core. */

#include "gatewayd/clock.h"
#include "gatewayd/exchange.h"
#include "gatewayd/messages.h"

enum { OBSERVES_ME = 1, OBSERVES_RESULT = 2 };

/* How many answers a session remembers for retransmitted requests (RFC 7252 §4.5), and for how long. */
#define REMEMBERED_MAX         16
#define EXCHANGE_LIFETIME_USEC (247 * UINT64_C(1000000))

struct remembered {
        uint16_t message_id;
        uint8_t token_size;
        uint8_t token[8];
        uint64_t at_usec; /* CLOCK_MONOTONIC */
        uint64_t attempt; /* of the turn that decided it: a turn that fails to commit is forgotten */
        struct reply reply;
};

struct session {
        session_handle handle;
        char identity[DEVICE_ID_MAX + 1]; /* of the credential it was made with */
        char device[DEVICE_ID_MAX + 1];
        char peer[64];
        bool has_forward_secrecy;
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1]; /* of the certificate shown; "" in a PSK session */
        uint8_t anchor[32];                                 /* as in struct identity */
        uint8_t tls_unique[TLS_UNIQUE_MAX];
        uint8_t tls_unique_size;
        struct moment connected;
        uint64_t attempt;  /* of the turn that took its proof */
        bool is_unwritten; /* its proof could not be stored: it may read, and ends once turns are written again */
        unsigned observes;
        struct remembered *remembered; /* a ring of REMEMBERED_MAX, made at the first POST */
        size_t remembered_next;
        struct session *next_by_handle, *next_by_device;
};

struct session_table;

struct session_table *session_table_new(void);
struct session_table *session_table_free(struct session_table *table);
size_t session_table_count(const struct session_table *table);

/* Adds a session for the device; the handle must be new (-EEXIST). */
int session_add(struct session_table *table, session_handle handle, const char *identity, const char *device,
                struct session **ret);
struct session *session_find(const struct session_table *table, session_handle handle);
void session_remove(struct session_table *table, session_handle handle);
/* All of them, when south has gone. */
void session_clear(struct session_table *table);

/* Calls `visit` for each session of the device (NULL: of all); it may remove the one it is given. */
typedef void (*session_visitor)(void *userdata, struct session *session);
void session_each(struct session_table *table, const char *device, session_visitor visit, void *userdata);
/* The same for one share of the table, for housekeeping spread over many ticks. */
#define SESSION_SHARES 64
void session_each_share(struct session_table *table, unsigned share, session_visitor visit, void *userdata);

/* The answer given before to this message id and token, or NULL. */
struct remembered *session_recall(struct session *session, uint16_t message_id, struct bytes token, uint64_t now_usec);
/* Remembers a copy of the answer in place of the oldest. */
void session_remember(struct session *session, uint16_t message_id, struct bytes token, uint64_t now_usec,
                      uint64_t attempt, const struct reply *reply);
/* Forgets what was answered in the turn that failed to commit, and the sessions whose proof it took: their
 * next request evicts them, and the next handshake proves the key again. */
void session_forget_attempt(struct session_table *table, uint64_t attempt);
