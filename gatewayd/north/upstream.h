/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One HTTPS POST at a time to the collector: libcurl driven by sd-event. It knows nothing of records;
 * what an answer means, relay.h decides. */

#include <systemd/sd-event.h>

#include "config/config.h"
#include "gatewayd/problem.h"

/* A reply longer than this is cut off: nothing that a collector has to say needs more. */
#define UPSTREAM_REPLY_MAX (64u << 10)

struct upstream_answer {
        uint16_t status;         /* of HTTP; 0: no answer, or none that can be trusted */
        int64_t retry_after_sec; /* 0: not said */
        char reason[160];        /* for a person, without control characters; empty with 2xx */
        struct bytes results;    /* the body of a 2xx that is application/cbor; valid during the call */
};

typedef void (*upstream_handler)(void *userdata, const struct upstream_answer *answer);

struct upstream;

/* Reads certificate, key and anchors into memory; no file is opened later but by the resolver.
 * `handler` is called once for each upstream_post(), from the loop.
 * Returns 0, -EINVAL for a URL that is not https://…, or -errno, with `problem`. */
int upstream_new(sd_event *event, const struct north_config *config, upstream_handler handler, void *userdata,
                 struct upstream **ret, struct problem *problem);
/* Gives up what is under way without calling the handler. Does not wait for the resolver. */
struct upstream *upstream_free(struct upstream *upstream);

/* Header fields of every POST: whose records these are. Texts are made safe by the caller. */
void upstream_identify(struct upstream *upstream, const char *gateway_id, const char *incarnation);

/* Begins a POST of `body`, which is taken over. `key`: the Idempotency-Key, or NULL for none.
 * Returns 0, -EBUSY while another is under way, or -errno. */
int upstream_post(struct upstream *upstream, const char *key, struct buffer *body);

/* The next POST opens a connection of its own: the network has changed, and one kept open may lead
 * nowhere without anybody having said so. */
void upstream_reconnect(struct upstream *upstream);

/* The TCP port of an https:// URL, or -EINVAL. */
int upstream_port(const char *url);
