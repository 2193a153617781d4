/* SPDX-License-Identifier: Apache-2.0 */

/* Challenges: nonces that are fresh, made for one device and good for one piece of evidence. */

#include <errno.h>

#include <openssl/rand.h>

#include "gatewayd/cbor.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/evidence/evidence.h"

/* More at once only help somebody who collects them. */
#define CHALLENGES_OPEN_MAX 4

/* Keys of the CBOR answer: 10 is EAT's own eat_nonce. Deterministic order is that of the encoded keys. */
enum { ANSWER_LIVES = 1, ANSWER_FORMATS = 2, ANSWER_NONCE = 10 };

/* What /rats/evidence appraises here, the preferred one first. */
static const uint16_t formats[] = { FORMAT_EAT_CWT, FORMAT_PSA_2023, FORMAT_PSA_LEGACY, FORMAT_CWT, FORMAT_COSE_SIGN1 };

static void put_answer(const struct challenge *challenge, uint32_t called, struct buffer *to) {
        cbor_put_map(to, 3 + schedule_called_members(called));
        cbor_put_int(to, ANSWER_LIVES);
        cbor_put_int(to, challenge->lives_sec);
        cbor_put_int(to, ANSWER_FORMATS);
        cbor_put_array(to, ELEMENTS(formats));
        for (size_t i = 0; i < ELEMENTS(formats); i++)
                cbor_put_uint(to, formats[i]);
        schedule_called_put(called, to);
        cbor_put_int(to, ANSWER_NONCE);
        cbor_put_bytes(to, BYTES(challenge->nonce, sizeof challenge->nonce));
}

int handle_nonce(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        const struct identity *from = request->from;
        struct challenge challenge = { .issued = turn->now, .lives_sec = from->profile->challenge_sec };
        int r;

        if (request->accept != FORMAT_NONE && request->accept != FORMAT_CBOR && request->accept != FORMAT_OCTETS)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "a challenge comes as application/cbor (60) or application/octet-stream (42)");
        if (request->payload.size > 0)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad request",
                                   "a challenge is asked for without a body");

        if (RAND_bytes(challenge.nonce, sizeof challenge.nonce) != 1)
                return -EIO;
        snprintf(challenge.device, sizeof challenge.device, "%s", from->device.id);
        r = challenge_insert(turn->store, &challenge);
        if (r < 0)
                return r;
        r = challenge_trim(turn->store, from->device.id, CHALLENGES_OPEN_MAX);
        if (r < 0)
                return r;

        reply->code = CODE_CREATED;
        if (request->accept == FORMAT_OCTETS) {
                reply->content_format = FORMAT_OCTETS;
                buffer_append(&reply->payload, BYTES(challenge.nonce, sizeof challenge.nonce));
                return 0;
        }
        reply->content_format = FORMAT_CBOR;
        /* That evidence is due need not be told: it is being made. */
        put_answer(&challenge, schedule_called(&from->device) & ~(uint32_t)DUE_ATTEST, &reply->payload);
        return 0;
}

/* One of the nonces is a challenge of ours. */
static int look_up(struct turn *turn, const struct claims *claims, struct challenge *ret) {
        int r = -ENOENT;

        for (size_t i = 0; i < claims->nonce_count && r == -ENOENT; i++)
                if (claims->nonces[i].size == NONCE_BYTES)
                        r = challenge_get(turn->store, claims->nonces[i], ret);
        return r;
}

int challenge_find(struct turn *turn, const char *device, const struct claims *claims, const uint8_t digest[32],
                   struct challenge *ret, struct problem *problem) {
        int r;

        r = look_up(turn, claims, ret);
        if (r == -ENOENT)
                return problem_set(problem, CODE_UNPROCESSABLE, ENOENT, "unknown challenge",
                                   "eat_nonce (10) is no challenge of this gateway; ask /rats/nonce for one");
        if (r < 0)
                return r;
        if (strcmp(ret->device, device) != 0)
                return problem_set(problem, CODE_FORBIDDEN, EACCES, "not your challenge",
                                   "the challenge was given to another device");
        if (ret->is_spent && memcmp(ret->spent_digest, digest, sizeof ret->spent_digest) == 0)
                return 1;
        if (ret->is_spent)
                return problem_set(problem, CODE_CONFLICT, EEXIST, "challenge spent",
                                   "other evidence has answered this challenge; ask /rats/nonce for a new one");
        if (moment_age(&turn->now, &ret->issued) > ret->lives_sec)
                return problem_set(problem, CODE_UNPROCESSABLE, ENOENT, "challenge expired",
                                   "the challenge lived for %lld seconds; ask /rats/nonce for a new one",
                                   (long long)ret->lives_sec);
        return 0;
}
