/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One POST at a time to the collector. It knows nothing of records; what an answer means, relay.h
 * decides. */

#include "gatewayd/north/https.h"

struct upstream_answer {
        uint16_t status;         /* of HTTP; 0: no answer, or none that can be trusted */
        int64_t retry_after_sec; /* 0: not said */
        const char *reason;      /* for a person, without control characters; empty with 2xx */
        struct bytes results;    /* the body of a 2xx that is application/cbor; valid during the call */
};

typedef void (*upstream_handler)(void *userdata, const struct upstream_answer *answer);

struct upstream;

/* `https` is borrowed. `handler` is called once for each upstream_post(), from the loop.
 * Returns 0, or -EINVAL with `problem` for a URL that is not https://…. */
int upstream_new(struct https *https, const char *url, upstream_handler handler, void *userdata, struct upstream **ret,
                 struct problem *problem);
/* Gives up what is under way without calling the handler. */
struct upstream *upstream_free(struct upstream *upstream);

/* Header fields of every POST: whose records these are. Texts are made safe by the caller. */
void upstream_identify(struct upstream *upstream, const char *gateway_id, const char *incarnation);

/* Begins a POST of `body`, which is taken over. `key`: the Idempotency-Key, or NULL for none.
 * Returns 0, -EBUSY while another is under way, or -errno. */
int upstream_post(struct upstream *upstream, const char *key, struct buffer *body);

/* The next POST opens a connection of its own: the network has changed, and one kept open may lead
 * nowhere without anybody having said so. */
void upstream_reconnect(struct upstream *upstream);
