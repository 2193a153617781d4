/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* North as the client of the owner's EST server (RFC 7030, RFC 8951): CSRs go up, certificates come back,
 * and the server's trust anchors are fetched at the start and once a day. Which enrolment is sent when, and
 * what a certificate is worth, core decides.
 *
 * What an answer means:
 * - 200 with a certs-only message in base64: ENROL_ISSUED.
 * - 202, 408, 425, 429, 503: ENROL_LATER, with Retry-After.
 * - 401: this gateway's own credential is not taken: ENROL_FAILED. 403 may be the same: /cacerts is asked
 *   first; where that is refused as well it is our credential, else this one CSR.
 * - any other 4xx: ENROL_REFUSED.
 * - anything else, and no answer: ENROL_FAILED. Its http_status is what a proxy would say of it: 0 where
 *   there is no way to the server, 504 where it stays silent, 502 for trouble with TLS; otherwise its own. */

#include "gatewayd/messages.h"
#include "gatewayd/north/https.h"

/* What it tells. In both, what is pointed to is valid during the call. */
struct est_sink {
        void *userdata;
        /* What became of an enrolment. With number 0 of the question for /cacerts, when it was not
         * answered with certificates: ENROL_FAILED: the server is out of reach; ENROL_REFUSED: it is there. */
        void (*enrolled)(void *userdata, const struct message_enrolled *answer);
        /* The server is there, and these are its anchors (certs-only CMS, DER). */
        void (*anchors)(void *userdata, struct bytes pkcs7);
};

struct est_client;

/* `https` is borrowed; `config` is read now. Asks nothing before est_client_start().
 * Returns 0, -EINVAL for a URL that is not https://…, or -errno, with `problem`. */
int est_client_new(sd_event *event, struct https *https, const struct north_config *config, const struct est_sink *sink,
                   struct est_client **ret, struct problem *problem);
/* Gives up what is under way: core sends it again. */
struct est_client *est_client_free(struct est_client *client);

/* Fetches /cacerts now. */
void est_client_start(struct est_client *client);

/* Sends one CSR; the answer comes by the sink. 0, -EALREADY while that number is under way, -ENOBUFS when
 * NORTH_ENROL_WINDOW are. */
int est_client_enrol(struct est_client *client, const struct message_enrol *enrol);

/* The network has changed, or a person wants it tried: where the server is out of reach it is tried soon,
 * and connections are opened anew. */
void est_client_network_changed(struct est_client *client);
void est_client_try_now(struct est_client *client);

/* Takes the base64 body of an EST answer: white space anywhere (RFC 8951 §3.2), else strict, and in it a
 * certs-only CMS with at least one certificate. Appends the DER. -EBADMSG. */
int est_decode(struct bytes body, struct buffer *ret);
