/* SPDX-License-Identifier: Apache-2.0 */

/* /rats/evidence and /rats/result: what a device gives is checked, appraised, taken into custody, and
 * answered once it is safe. */

#include <errno.h>

#include <openssl/sha.h>
#include <openssl/x509.h>

#include "gatewayd/cbor.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/evidence/evidence.h"
#include "gatewayd/keys/cose.h"

/* Keys of the answers; the sequence names the receipt. */
enum { ANSWER_SEQUENCE = 0, ANSWER_TIER = 1, ANSWER_REASON = 2, ANSWER_AGE = 3 };

/* Evidence that answers no challenge can be sent at will: this far apart at least. */
#define UNCHALLENGED_EVERY_SEC 10
/* When to ask again for a result that is not there yet. */
#define PENDING_SEC        60
#define RESULT_MAX_AGE_SEC 86400

/* One piece of evidence on its way through. */
struct submission {
        const struct request *request;
        uint8_t digest[SHA256_DIGEST_LENGTH];
        struct claims claims;
        struct challenge challenge;
        bool is_challenged; /* it answers `challenge` */
        struct appraisal appraisal;
};

static bool is_signed_format(int32_t format) {
        return format == FORMAT_EAT_CWT || format == FORMAT_PSA_2023 || format == FORMAT_PSA_LEGACY ||
               format == FORMAT_CWT || format == FORMAT_COSE_SIGN1;
}

enum { TAG_ENCRYPT0 = 16, TAG_MAC0 = 17, TAG_CWT = 61, TAG_ENCRYPT = 96, TAG_MAC = 97, TAG_SIGN = 98 };

/* A COSE message of another kind, a PSA token under a shared key (COSE_Mac0) say: well-formed, but nothing
 * here can verify it. */
static bool is_other_cose(struct bytes message) {
        struct bytes content;
        uint64_t tag;

        if (cbor_check(message, NULL) < 0)
                return false;
        if (cbor_view_tag(message, &tag, &content) && tag == TAG_CWT)
                message = content;
        return cbor_view_tag(message, &tag, &content) &&
               (tag == TAG_ENCRYPT0 || tag == TAG_MAC0 || tag == TAG_ENCRYPT || tag == TAG_MAC || tag == TAG_SIGN);
}

static void public_key_freep(EVP_PKEY **key) {
        EVP_PKEY_free(*key);
}

static int verify(const struct device *device, const struct cose_sign1 *sign1, struct problem *problem) {
        const unsigned char *at = device->attestation_key;
        _cleanup_(public_key_freep) EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)device->attestation_key_size);

        if (!key)
                return problem_set(problem, CODE_INTERNAL, EBADMSG, "bad attestation key",
                                   "the attestation key registered for this device cannot be read");
        return cose_sign1_verify(sign1, key, problem) < 0 ? -EKEYREJECTED : 0;
}

static void leave_unappraised(struct submission *s, const char *reason) {
        s->appraisal = (struct appraisal){ .tier = TIER_NONE };
        snprintf(s->appraisal.reason, sizeof s->appraisal.reason, "not appraised here: %s", reason);
}

/* 1: this very evidence was answered before. */
static int examine_signed(struct turn *turn, struct submission *s, struct problem *problem) {
        const struct identity *from = s->request->from;
        struct cose_sign1 sign1;
        int r;

        r = cose_sign1_parse(s->request->payload, &sign1, problem);
        if (r < 0)
                return r;
        r = eat_parse(sign1.payload, &s->claims, problem);
        if (r < 0)
                return r;
        r = challenge_find(turn, from->device.id, &s->claims, s->digest, &s->challenge, problem);
        if (r < 0)
                return r;
        s->is_challenged = true;
        if (from->device.attestation_key_size == 0) {
                leave_unappraised(s, "no attestation key is registered for this device");
                return r;
        }
        if (r == 0 && verify(&from->device, &sign1, problem) < 0)
                return -EKEYREJECTED;
        if (from->profile->attestation == ATTESTATION_NONE)
                leave_unappraised(s, "the profile does not attest");
        else
                appraise_eat(&s->claims, from->profile, &s->appraisal);
        return r;
}

static int examine_other(struct turn *turn, struct submission *s, struct problem *problem) {
        const struct moment *last = &s->request->from->device.evidence_last;
        int64_t age = moment_is_set(last) ? moment_age(&turn->now, last) : INT64_MAX;
        int r;

        leave_unappraised(s, "this gateway cannot verify such evidence");
        if (age >= UNCHALLENGED_EVERY_SEC)
                return 0;
        r = problem_set(problem, CODE_TOO_MANY_REQUESTS, EBUSY, "too often",
                        "evidence that answers no challenge is taken every %d seconds", UNCHALLENGED_EVERY_SEC);
        if (problem)
                problem->max_age_sec = UNCHALLENGED_EVERY_SEC - age;
        return r;
}

static int examine(struct turn *turn, struct submission *s, struct problem *problem) {
        const struct request *request = s->request;

        if (request->accept != FORMAT_NONE && request->accept != FORMAT_CBOR)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "the answer comes as application/cbor (60)");
        if (request->content_format == FORMAT_NONE)
                return problem_set(problem, CODE_UNSUPPORTED_FORMAT, EPROTONOSUPPORT, "content-format missing",
                                   "say what the evidence is, for an EAT 263");
        if (request->payload.size == 0)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "no evidence", "the body is empty");
        SHA256(request->payload.data, request->payload.size, s->digest);
        if (is_signed_format(request->content_format) && !is_other_cose(request->payload))
                return examine_signed(turn, s, problem);
        return examine_other(turn, s, problem);
}

/* Everything that changes the store: from here on nothing is refused any more, except for want of room. What else the
 * device was called for goes to `ret_called`. */
static int keep(struct turn *turn, struct submission *s, uint64_t *ret_sequence, uint32_t *ret_called,
                struct problem *problem) {
        const struct identity *from = s->request->from;
        struct device device = from->device;
        int r;

        r = custody_admit(turn, &device, from->profile, s->request->payload.size, problem);
        if (r < 0)
                return r;
        r = custody_record(turn, turn->custodian, device.id, s->request->content_format,
                           s->is_challenged ? &s->challenge : NULL, s->request->payload, &s->appraisal, ret_sequence,
                           problem);
        if (r < 0)
                return r;
        if (s->is_challenged) {
                s->challenge.is_spent = true;
                memcpy(s->challenge.spent_digest, s->digest, sizeof s->challenge.spent_digest);
                s->challenge.sequence = *ret_sequence;
                s->challenge.tier = (uint8_t)s->appraisal.tier;
                r = challenge_update(turn->store, &s->challenge);
                if (r < 0)
                        return r;
        }
        r = turn_event(turn, EVENT_EVIDENCE_ACCEPTED, device.id, from->credential.identity, "receipt %llu, %s: %s",
                       (unsigned long long)*ret_sequence, tier_name(s->appraisal.tier), s->appraisal.reason);
        if (r < 0)
                return r;
        device.evidence_last = turn->now;
        r = appraisal_apply(turn, &device, &s->appraisal);
        *ret_called = schedule_called(&device);
        if (r >= 0 && s->appraisal.tier == TIER_AFFIRMING)
                r = identity_attested(turn, from);
        return r;
}

static void put_answer(uint64_t sequence, enum tier tier, const char *reason, uint32_t called, struct reply *reply) {
        reply->code = CODE_CREATED;
        reply->content_format = FORMAT_CBOR;
        cbor_put_map(&reply->payload, 3 + schedule_called_members(called));
        cbor_put_int(&reply->payload, ANSWER_SEQUENCE);
        cbor_put_uint(&reply->payload, sequence);
        cbor_put_int(&reply->payload, ANSWER_TIER);
        cbor_put_int(&reply->payload, tier);
        cbor_put_int(&reply->payload, ANSWER_REASON);
        cbor_put_text(&reply->payload, bytes_of(reason));
        schedule_called_put(called, &reply->payload);
}

/* The answer stands even where the profile's reference values have changed since. */
static void answer_again(const struct submission *s, struct reply *reply) {
        enum tier tier = (enum tier)s->challenge.tier;

        put_answer(s->challenge.sequence, tier,
                   tier == s->appraisal.tier ? s->appraisal.reason : "as it was appraised when it came",
                   schedule_called(&s->request->from->device), reply);
}

static int submit(struct turn *turn, struct submission *s, struct reply *reply, struct problem *problem) {
        uint64_t sequence = 0;
        uint32_t called = 0;
        int r;

        r = examine(turn, s, problem);
        if (r == 1) {
                answer_again(s, reply);
                return 0;
        }
        if (r >= 0)
                r = keep(turn, s, &sequence, &called, problem);
        if (r < 0)
                return r;
        put_answer(sequence, s->appraisal.tier, s->appraisal.reason, called, reply);
        return 0;
}

int handle_evidence(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        struct submission s = { .request = request };
        struct problem refused = { 0 };
        int r, told;

        r = submit(turn, &s, reply, &refused);
        if (r >= 0)
                return 0;
        if (problem)
                *problem = refused;
        if (refused.code == CODE_EMPTY || refused.code == CODE_INTERNAL)
                return r;
        /* A refusal with its reason comes before any change, so there is nothing to roll back; and returned as
         * an error it would take the event with it. */
        told = turn_event(turn, r == -ENOSPC ? EVENT_BACKLOG_FULL : EVENT_EVIDENCE_REFUSED, request->from->device.id,
                          request->from->credential.identity, "%.140s", refused.detail);
        if (told < 0)
                return told;
        reply_problem(reply, &refused);
        return 0;
}

/* ---- /rats/result ---- */

static int no_result(const struct device *device, struct problem *problem) {
        bool is_pending = moment_is_set(&device->evidence_last);
        int r = problem_set(problem, CODE_UNAVAILABLE, EAGAIN, "no result yet", "%s",
                            is_pending ? "the evidence waits for the verifier upstream"
                                       : "no evidence of this device was appraised");

        if (problem)
                problem->max_age_sec = PENDING_SEC;
        return r;
}

int handle_result(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        const struct device *device = &request->from->device;
        struct outlook outlook;
        int r;

        if (request->accept != FORMAT_NONE && request->accept != FORMAT_CBOR)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "the result comes as application/cbor (60)");
        if (!moment_is_set(&device->appraised))
                return no_result(device, problem);
        r = schedule_outlook(turn, device, &outlook);
        if (r < 0)
                return r;

        reply->code = CODE_CONTENT;
        reply->content_format = FORMAT_CBOR;
        reply->is_observed = request->observe == 0;
        reply->max_age_sec = outlook.attest_in_sec < PENDING_SEC          ? PENDING_SEC
                             : outlook.attest_in_sec > RESULT_MAX_AGE_SEC ? RESULT_MAX_AGE_SEC
                                                                          : outlook.attest_in_sec;
        cbor_put_map(&reply->payload, 2);
        cbor_put_int(&reply->payload, ANSWER_TIER);
        cbor_put_int(&reply->payload, device->tier);
        cbor_put_int(&reply->payload, ANSWER_AGE);
        cbor_put_int(&reply->payload, moment_age(&turn->now, &device->appraised));
        return 0;
}
