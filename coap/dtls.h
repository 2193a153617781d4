/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* DTLS 1.2 on OpenSSL: one SSL_CTX, one listener that answers ClientHellos without state, and the
 * rules that say which session a record belongs to. It knows nothing of CoAP, of frames, or of who
 * may come in: keys and verdicts come from its owner's handlers. */

#include "coap/datagrams.h"
#include "coap/sessions.h"
#include "coap/south.h"
#include "gatewayd/secret.h"

struct dtls_handlers {
        /* The key of `identity` for this handshake. 0, -ENOENT (unknown), -ETIMEDOUT (nobody answered). */
        int (*key)(void *userdata, struct session *session, struct bytes identity, struct secret *ret);
        /* What core thinks of the client's certificates: DER, concatenated, the leaf first. 0 with the
         * verdict, or -ETIMEDOUT (nobody answered). */
        int (*certificate)(void *userdata, struct session *session, struct bytes chain, enum certificate_verdict *ret);
        /* Its Finished was verified. */
        void (*connected)(void *userdata, struct session *session, const char *suite);
        /* A handshake ended without success: session->failure says why. */
        void (*failed)(void *userdata, struct session *session);
        /* One decrypted datagram. */
        void (*plaintext)(void *userdata, struct session *session, struct bytes data);
        /* A dead session that was established is about to be freed: session->reason says why. */
        void (*closed)(void *userdata, struct session *session);
        /* The numbers are used up: south must start anew. */
        void (*exhausted)(void *userdata);
        void *userdata;
};

/* `settings`, `datagrams` and `counters` are borrowed. Returns 0 or -errno with a reason. */
int dtls_new(const struct south_settings *settings, const struct dtls_handlers *handlers, struct datagrams *datagrams,
             uint64_t *counters, uint64_t now_usec, struct dtls **ret, struct problem *problem);
/* Without a word to the peers: dtls_end_all() comes before. */
struct dtls *dtls_free(struct dtls *dtls);

/* What this gateway shows to clients from now on: PKCS#8 and DER certificates, concatenated, the leaf
 * first, without the root; both empty: none, so PSK alone. Handshakes under way end with what they began
 * with, sessions are not touched. Returns 0, or -EINVAL where they cannot be read, do not belong
 * together, or the key is not an EC one: then nothing has changed. */
int dtls_use_credentials(struct dtls *dtls, struct bytes key, struct bytes chain);

struct sessions *dtls_sessions(const struct dtls *dtls);

/* Takes one datagram from the socket. */
void dtls_datagram(struct dtls *dtls, const struct peer *from, struct bytes data, uint64_t now_usec);
/* Retransmits flights, ends what is half open or idle for too long. Returns when to call again
 * (CLOCK_MONOTONIC, UINT64_MAX: not before the next datagram). */
uint64_t dtls_tick(struct dtls *dtls, uint64_t now_usec);

/* Encrypts and queues one datagram. Returns 0, -EMSGSIZE, or -EPIPE for a session that has ended. */
int dtls_write(struct session *session, struct bytes data);
/* The most that dtls_write() takes: bounded by the MTU and by max_fragment_length (RFC 6066 §4). */
size_t dtls_room(const struct session *session);
/* Ends a session; with close_notify unless the peer ended it or its successor took the address. Safe
 * inside libcoap: it is only buried, and freed by dtls_reap(). */
void dtls_end(struct session *session, enum close_reason reason);
void dtls_end_all(struct dtls *dtls, enum close_reason reason);
/* Frees the dead; `closed` is called for those that were established. */
void dtls_reap(struct dtls *dtls);
