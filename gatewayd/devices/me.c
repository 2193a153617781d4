/* SPDX-License-Identifier: Apache-2.0 */

/* GET /me: what a device should know and do next, in durations, for neither side may have a clock. A
 * device that polls or observes it and acts on `due` takes part in everything gatewayd does. */

#include <errno.h>

#include "gatewayd/cbor.h"
#include "gatewayd/devices/lifecycle.h"

/* Max-Age: a sleepy device that only polls knows by it when to come back. */
#define POLL_MIN_SEC 60
#define POLL_MAX_SEC 86400

/* Keys of the map, PROTOCOL.md. */
enum { ME_ID, ME_STATE, ME_KEY, ME_ROTATE_IN, ME_LATE_IN, ME_ATTEST_IN, ME_DUE };

/* What this session's key adds to what is due for the device: a key in doubt should be replaced, and
 * where that takes evidence, the evidence must come in this session. */
static uint32_t due_for_key(struct turn *turn, const struct identity *from) {
        const struct credential *credential = &from->credential;
        const struct lifecycle_view view = lifecycle_view_of(from);

        switch (from->device.standing) {
        case STANDING_REGISTERED:
        case STANDING_OPERATIONAL:
        case STANDING_RESTRICTED:
        case STANDING_NEEDS_VISIT:
                break;
        case STANDING_QUARANTINED:
        case STANDING_REVOKED:
                return 0;
        }
        if (credential->state == KEY_ACTIVE || credential->state == KEY_PRE_ACTIVE)
                return 0;
        /* The session in which the device asked outlives the proof for a while: no handshake since, no hurry. */
        if (credential->state == KEY_RETIRING &&
            credential->last_used.powered_sec <= credential->superseded.powered_sec)
                return 0;
        switch (lifecycle_cred_terms(&view, &turn->now, NULL)) {
        case CRED_OPEN:
                return DUE_ROTATE;
        case CRED_ATTESTED:
                return credential->session == from->session ? DUE_ROTATE : DUE_ROTATE | DUE_ATTEST;
        case CRED_CLOSED:
                break;
        }
        return 0;
}

/* Which of its keys the device is talking with: a kid, or a certificate's subject key identifier. */
static struct bytes key_in_use(const struct identity *from) {
        if (credential_is_certificate(from->credential.kind))
                return BYTES(from->certificate.ski, sizeof from->certificate.ski);
        return bytes_of(from->credential.identity);
}

static size_t put_duration(struct buffer *to, uint64_t key, int64_t seconds, int64_t *least) {
        if (seconds == INT64_MAX)
                return 0;
        if (seconds < 0)
                seconds = 0;
        if (seconds < *least)
                *least = seconds;
        if (to) {
                cbor_put_uint(to, key);
                cbor_put_uint(to, (uint64_t)seconds);
        }
        return 1;
}

static size_t put_durations(struct buffer *to, const struct outlook *outlook, int64_t *least) {
        return put_duration(to, ME_ROTATE_IN, outlook->rotate_in_sec, least) +
               put_duration(to, ME_LATE_IN, outlook->late_in_sec, least) +
               put_duration(to, ME_ATTEST_IN, outlook->attest_in_sec, least);
}

int handle_me(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        const struct identity *from = request->from;
        int64_t least = POLL_MAX_SEC;
        struct outlook outlook;
        int r;

        if (request->accept != FORMAT_NONE && request->accept != FORMAT_CBOR)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "/me comes as application/cbor (60)");
        r = schedule_outlook(turn, &from->device, &outlook);
        if (r < 0)
                return r;
        outlook.due |= due_for_key(turn, from);
        if (outlook.due & DUE_ROTATE)
                outlook.rotate_in_sec = 0;
        if (outlook.due & DUE_ATTEST)
                outlook.attest_in_sec = 0;

        cbor_put_map(&reply->payload, 4 + put_durations(NULL, &outlook, &least));
        cbor_put_uint(&reply->payload, ME_ID);
        cbor_put_text(&reply->payload, bytes_of(from->device.id));
        cbor_put_uint(&reply->payload, ME_STATE);
        cbor_put_uint(&reply->payload, (uint64_t)from->device.standing);
        cbor_put_uint(&reply->payload, ME_KEY);
        cbor_put_bytes(&reply->payload, key_in_use(from));
        (void)put_durations(&reply->payload, &outlook, &least);
        cbor_put_uint(&reply->payload, ME_DUE);
        cbor_put_uint(&reply->payload, outlook.due);

        reply->code = CODE_CONTENT;
        reply->content_format = FORMAT_CBOR;
        /* What is due now is told by `due`; asking again at once would not make it truer. */
        reply->max_age_sec = least < POLL_MIN_SEC ? POLL_MIN_SEC : least;
        reply->is_observed = request->observe == 0;
        return 0;
}
