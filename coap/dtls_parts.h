/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by dtls.c (which session a record belongs to, timers, ends) and dtls_context.c (the
 * SSL_CTX, its callbacks, and the BIO). Nobody else includes it. */

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "coap/cookie.h"
#include "coap/dtls.h"

struct dtls {
        struct south_settings settings;
        struct dtls_handlers handlers;
        struct datagrams *datagrams;
        uint64_t *counters;
        struct sessions *sessions;
        struct session_queue buffered; /* established sessions whose SSL holds record buffers */
        SSL_CTX *context;
        BIO_METHOD *bio_method;
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

/* A session with its SSL, accepting, its BIO on the socket. */
struct session *dtls_session_new(struct dtls *dtls);
void dtls_session_free(struct session *session);
