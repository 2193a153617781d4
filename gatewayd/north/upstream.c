/* SPDX-License-Identifier: Apache-2.0 */

/* What a POST to the collector looks like: header fields that say whose records these are, one
 * exchange at a time. */

#include "gatewayd/north/upstream.h"

#include <errno.h>
#include <stdlib.h>

struct upstream {
        struct https *https;
        upstream_handler handler;
        void *userdata;
        char *url;
        char *gateway_header, *incarnation_header;
        struct https_exchange *exchange; /* NULL: none is under way */
        bool wants_new_connection;
};

int upstream_new(struct https *https, const char *url, upstream_handler handler, void *userdata, struct upstream **ret,
                 struct problem *problem) {
        struct upstream *upstream;

        if (https_port(url) < 0)
                return problem_set(problem, CODE_INTERNAL, EINVAL, "upstream address",
                                   "north.url: \"%s\" is not a URL that begins with https:// and has no user in it",
                                   url);
        upstream = xcalloc(1, sizeof *upstream);
        upstream->https = https;
        upstream->url = xstrdup(url);
        upstream->handler = handler;
        upstream->userdata = userdata;
        *ret = upstream;
        return 0;
}

struct upstream *upstream_free(struct upstream *upstream) {
        if (!upstream)
                return NULL;
        https_give_up(upstream->exchange);
        free(upstream->url);
        free(upstream->gateway_header);
        free(upstream->incarnation_header);
        free(upstream);
        return NULL;
}

void upstream_identify(struct upstream *upstream, const char *gateway_id, const char *incarnation) {
        char *one = NULL, *two = NULL;

        if (asprintf(&one, "Gatewayd-Id: %s", gateway_id) < 0 ||
            asprintf(&two, "Gatewayd-Incarnation: %s", incarnation) < 0)
                oom();
        free(upstream->gateway_header);
        free(upstream->incarnation_header);
        upstream->gateway_header = one;
        upstream->incarnation_header = two;
}

static void on_answer(void *userdata, const struct https_answer *from) {
        struct upstream *upstream = userdata;
        struct upstream_answer answer = {
                .status = from->status,
                .retry_after_sec = from->retry_after_sec,
                .reason = from->reason,
        };

        upstream->exchange = NULL;
        upstream->wants_new_connection = answer.status == 0;
        if (answer.status >= 200 && answer.status < 300 && https_is_of_type(from->type, "application/cbor"))
                answer.results = from->body;
        upstream->handler(upstream->userdata, &answer);
}

int upstream_post(struct upstream *upstream, const char *key, struct buffer *body) {
        const char *headers[8];
        struct https_request request = {
                .url = upstream->url,
                .headers = headers,
                .is_post = true,
                .wants_new_connection = upstream->wants_new_connection,
                .body = body,
        };
        char idempotency[128];
        size_t n = 0;

        if (upstream->exchange)
                return -EBUSY;
        headers[n++] = "Content-Type: application/cbor";
        headers[n++] = "Accept: application/cbor";
        if (upstream->gateway_header) {
                headers[n++] = upstream->gateway_header;
                headers[n++] = upstream->incarnation_header;
        }
        if (key) {
                snprintf(idempotency, sizeof idempotency, "Idempotency-Key: %s", key);
                headers[n++] = idempotency;
        }
        headers[n] = NULL;
        return https_begin(upstream->https, &request, on_answer, upstream, &upstream->exchange);
}

void upstream_reconnect(struct upstream *upstream) {
        upstream->wants_new_connection = true;
}
