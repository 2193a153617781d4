/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by dtls.c (which session a record belongs to, timers, ends), dtls_context.c (the SSL_CTX, its
 * callbacks, and the BIO) and dtls_certificates.c (ours and the client's). Nobody else includes it. */

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "coap/cookie.h"
#include "coap/dtls.h"
#include "coap/marks.h"

/* What this gateway shows to clients; all NULL: no certificate suite is offered. */
struct server_pair {
        EVP_PKEY *key;
        X509 *leaf;
        STACK_OF(X509) * intermediates; /* may be empty; without the root */
};

struct dtls {
        struct south_settings settings;
        struct dtls_handlers handlers;
        struct datagrams *datagrams;
        uint64_t *counters;
        struct sessions *sessions;
        struct session_queue buffered; /* established sessions whose SSL holds record buffers */
        SSL_CTX *context;
        BIO_METHOD *bio_method;
        struct server_pair pair;
        struct marks *marks;
        struct cookie_keys cookies;
        struct session *listener;
        BIO_ADDR *listener_peer; /* what DTLSv1_listen() wants to fill in; not used */
        uint64_t now_usec;

        /* The datagram on its way in, and the one session that may read it. */
        struct bytes current;
        const struct session *reader;
};

/* Makes the SSL_CTX with the suites, curves and callbacks of docs/PROTOCOL.md. 0 or -errno. */
int dtls_context_new(struct dtls *dtls, struct problem *problem);
void dtls_context_free(struct dtls *dtls);

/* Signature algorithms and the callbacks around certificates. False where OpenSSL refuses them. */
int dtls_certificates_configure(struct dtls *dtls);
void dtls_certificates_free(struct dtls *dtls);
/* A handshake died, with one of OpenSSL's reasons: was it for want of a certificate? */
void dtls_certificate_failed(struct session *session, unsigned long reason);
/* Its Finished was verified: takes what is told of it, lets go of what only the handshake needed. */
void dtls_certificates_done(struct session *session);

/* A session with its SSL, accepting, its BIO on the socket. */
struct session *dtls_session_new(struct dtls *dtls);
void dtls_session_free(struct session *session);
