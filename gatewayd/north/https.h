/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* HTTPS exchanges with the upstream, several at a time: libcurl's multi interface in an sd-event loop, with
 * the gateway's client certificate. It knows nothing of what is carried: collector and EST server are
 * upstream.h's and est.h's. */

#include <systemd/sd-event.h>

#include "config/config.h"
#include "gatewayd/problem.h"

/* A reply longer than this is cut off: nothing that an upstream has to say needs more. */
#define HTTPS_REPLY_MAX (64u << 10)

/* Why there is no answer that can be trusted. */
enum https_failure {
        HTTPS_ANSWERED,
        HTTPS_NO_WAY,  /* no name, no route, no connection, or one that broke */
        HTTPS_SILENCE, /* connected, and then nothing in time */
        HTTPS_TLS,     /* the server or our certificate was not accepted */
        HTTPS_ODD,     /* too long, or no HTTP */
};

struct https_answer {
        uint16_t status; /* of HTTP; 0: no answer, or none that can be trusted */
        enum https_failure failure;
        int64_t retry_after_sec; /* 0: not said */
        char reason[160];        /* for a person, without control characters; empty with 2xx */
        const char *type;        /* Content-Type; NULL: none. This and the body are valid during the call */
        struct bytes body;
};

/* Whether a Content-Type is `wanted`, whatever parameters follow. */
bool https_is_of_type(const char *type, const char *wanted);

/* Called once for each exchange that ends by itself, from the loop. */
typedef void (*https_handler)(void *userdata, const struct https_answer *answer);

struct https;
struct https_exchange;

/* Reads certificate, key and anchors into memory; no file is opened later but by the resolver.
 * Returns 0 or -errno with `problem`. */
int https_new(sd_event *event, const struct north_config *config, struct https **ret, struct problem *problem);
/* All exchanges must have ended or been given up. Does not wait for the resolver. */
struct https *https_free(struct https *https);

/* A client certificate that was renewed: taken for exchanges that begin from now on where it is valid for longer than
 * the one in use. 1: it is; 0: the one in use stays; -EBADMSG. */
int https_take_client(struct https *https, struct bytes key, struct bytes chain);
/* The client certificate in use, DER. */
int https_client_leaf(const struct https *https, struct buffer *ret);

struct https_request {
        const char *url;            /* copied */
        const char *const *headers; /* "Name: value", ended by NULL; copied. NULL entries at the end only */
        bool is_post;
        bool wants_new_connection; /* one kept open may lead nowhere without anybody having said so */
        struct buffer *body;       /* of a POST; taken over, also on failure */
};

/* Begins. 0 and *ret, which stays the caller's until the handler is called or https_give_up(); or -errno. */
int https_begin(struct https *https, const struct https_request *request, https_handler handler, void *userdata,
                struct https_exchange **ret);
/* Ends it without calling the handler. NULL-safe; returns NULL. */
struct https_exchange *https_give_up(struct https_exchange *exchange);

/* The TCP port of an https:// URL, or -EINVAL. */
int https_port(const char *url);
