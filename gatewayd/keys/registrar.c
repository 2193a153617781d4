/* SPDX-License-Identifier: Apache-2.0 */

/* What waits for the owner's CA, and what its answers are worth. Devices do not wait for an answer on their
 * session: they are told when to come again, and the same key finds its row (RFC 9148 §4.7). */

#include "gatewayd/keys/registrar_parts.h"

#include <errno.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/authority.h"

#define ANCHORS_NAME "est-anchors" /* among the store's own secrets: nobody else may change them */

/* Until a device, or we, come again. */
#define WAIT_LEAST_SEC   30
#define WAIT_MOST_SEC    3600
#define WAIT_OFFLINE_SEC 600
/* How long a refusal is remembered, and a row with its answer kept: powered-on seconds. */
#define REFUSAL_SEC 600
#define ANSWER_SEC  (7 * INT64_C(86400))

/* ---- when to come again ---- */

static int64_t clamp(int64_t value, int64_t least, int64_t most) {
        return value < least ? least : value > most ? most : value;
}

/* Up to a quarter, by key and time: a fleet that was told to come again together does not. */
static int64_t spread(const struct enrolment *enrolment, const struct moment *now, int64_t sec) {
        unsigned share = (enrolment->public_key[0] + 31u * (unsigned)(now->powered_sec & 0xff)) & 0xff;

        return sec / 4 * share / 0xff;
}

static int64_t wait_sec(const struct enrolment *enrolment, const struct turn *turn) {
        int64_t sec = turn->is_upstream_away ? WAIT_OFFLINE_SEC : enrolment->retry_powered_sec - turn->now.powered_sec;

        sec = clamp(sec, WAIT_LEAST_SEC, WAIT_MOST_SEC / 4 * 3);
        return sec + spread(enrolment, &turn->now, sec);
}

/* The longer it has been tried in vain, the longer the pause: half as long again each time. A way that is gone
 * is watched by north, so that the pause after it need not be long. */
static int64_t retry_sec(const struct enrolment *enrolment, const struct turn *turn) {
        int64_t most = enrolment->http_status != 0 ? WAIT_MOST_SEC : turn->config->north.retry_max_sec;
        int64_t sec = moment_powered_age(&turn->now, &enrolment->asked) / 2;

        sec = clamp(sec, WAIT_LEAST_SEC, most > WAIT_LEAST_SEC ? most : WAIT_LEAST_SEC);
        return clamp(sec - spread(enrolment, &turn->now, sec), WAIT_LEAST_SEC, most);
}

/* ---- what a device is told ---- */

/* RFC 9148 §5 and RFC 8075 §7, but that a 401 is about this gateway, not about the device. */
static uint8_t code_of(uint16_t http_status) {
        switch (http_status) {
        case 403:
                return CODE_FORBIDDEN;
        case 404:
                return CODE_NOT_FOUND;
        case 405:
                return CODE_METHOD_NOT_ALLOWED;
        case 406:
                return CODE_NOT_ACCEPTABLE;
        case 409:
                return CODE_CONFLICT;
        case 413:
                return CODE_TOO_LARGE;
        case 415:
                return CODE_UNSUPPORTED_FORMAT;
        case 422:
                return CODE_UNPROCESSABLE;
        default:
                return CODE_BAD_REQUEST;
        }
}

static int tell_refusal(const struct enrolment *enrolment, struct problem *problem) {
        return problem_set(problem, code_of(enrolment->http_status), EACCES, "refused upstream",
                           "the owner's CA refuses this request: %s", enrolment->reason);
}

/* The row waits. What keeps it waiting may be worth an error, though the row stays: 5.02 and 5.04 say that
 * the trouble is behind this gateway. */
static int tell_waiting(const struct turn *turn, const struct enrolment *enrolment, struct reply *reply,
                        struct problem *problem) {
        struct problem later = { 0 };

        switch (enrolment->http_status) {
        case 0: /* not asked yet, or no way there */
        case 202:
        case 408:
        case 425:
        case 429:
        case 503:
                problem_set(&later, CODE_UNAVAILABLE, EAGAIN, "enrolment waits",
                            turn->is_upstream_away ? "the owner's CA cannot be reached now; ask again"
                                                   : "the owner's CA has been asked; ask again");
                later.max_age_sec = wait_sec(enrolment, turn);
                reply_problem(reply, &later);
                return 0;
        case 504:
                problem_set(problem, CODE_GATEWAY_TIMEOUT, ETIMEDOUT, "owner's CA is silent",
                            "the owner's CA does not answer; it will be asked again");
                break;
        default:
                problem_set(problem, CODE_BAD_GATEWAY, EPROTO, "trouble with the owner's CA",
                            "the owner's CA could not be used; it will be asked again");
        }
        problem->max_age_sec = wait_sec(enrolment, turn);
        return problem->code == CODE_GATEWAY_TIMEOUT ? -ETIMEDOUT : -EPROTO;
}

/* ---- asking ---- */

/* 1 with the certificate, 0 where it is of no use to this request. A certificate that the device renews with the
 * same key is not the answer to its own renewal. */
static int take_issued(struct turn *turn, const struct enrolment *enrolment, const char *in_use,
                       struct certificate *ret, struct buffer *ret_der) {
        int r;

        if (strcmp(enrolment->fingerprint, in_use) == 0)
                return 0;
        r = certificate_get(turn->store, enrolment->fingerprint, ret);
        if (r >= 0 && (ret->revoked != REVOKED_NOT || ret->not_after <= turn->now.wall))
                return 0;
        if (r >= 0)
                r = certificate_der(turn->store, enrolment->fingerprint, ret_der);
        return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

/* A new row. Another key of the same device takes the place of what it asked before: a device that begins
 * anew has lost the old one, and nobody fills the store with requests. */
static int ask_anew(struct turn *turn, const struct identity *from, const struct csr *csr, struct bytes csr_der,
                    bool is_renewal, struct enrolment *ret) {
        int r;

        *ret = (struct enrolment){ .is_renewal = is_renewal, .state = ENROLMENT_WAITING, .asked = turn->now };
        snprintf(ret->device, sizeof ret->device, "%s", from->device.id);
        snprintf(ret->predecessor, sizeof ret->predecessor, "%s", from->credential.identity);
        memcpy(ret->csr, csr->digest, sizeof ret->csr);
        memcpy(ret->public_key, csr->public_key, sizeof ret->public_key);
        r = enrolment_remove_device(turn->store, ret->device);
        if (r >= 0)
                r = enrolment_insert(turn->store, ret, csr_der);
        if (r >= 0)
                r = turn_event(turn, EVENT_ENROLMENT_WAITING, ret->device, NULL,
                               "enrolment %llu waits for the owner's CA", (unsigned long long)ret->number);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_ENROL, ret->device, NULL);
        return 0;
}

/* The profile lets this gateway issue while upstream cannot be reached: what waits is given up, so that there are
 * not two certificates in the end. */
static int leave_to_local(struct turn *turn, struct enrolment *waiting) {
        int r = 0;

        if (waiting) {
                waiting->state = ENROLMENT_REFUSED;
                waiting->http_status = 0;
                waiting->answered = turn->now;
                snprintf(waiting->reason, sizeof waiting->reason, "given up: issued here while upstream was away");
                r = enrolment_update(turn->store, waiting);
        }
        return r < 0 ? r : REGISTRAR_LOCAL;
}

/* A refusal that is fresh. http_status 0: it was given up here. */
static bool is_refused(const struct turn *turn, const struct enrolment *enrolment) {
        return enrolment->state == ENROLMENT_REFUSED && enrolment->http_status != 0 &&
               moment_powered_age(&turn->now, &enrolment->answered) < REFUSAL_SEC;
}

int registrar_ask(struct turn *turn, const struct identity *from, const struct csr *csr, struct bytes csr_der,
                  bool is_renewal, struct certificate *ret, struct buffer *ret_der, struct reply *reply,
                  struct problem *problem) {
        bool is_away = turn->is_upstream_away || !turn->config->north.est_url[0];
        struct enrolment enrolment;
        bool is_waiting;
        int r;

        r = enrolment_find(turn->store, from->device.id, csr->public_key, &enrolment);
        if (r < 0 && r != -ENOENT)
                return r;
        is_waiting = r >= 0 && enrolment.state == ENROLMENT_WAITING;
        if (r >= 0 && enrolment.state == ENROLMENT_ISSUED) {
                r = take_issued(turn, &enrolment, from->credential.identity, ret, ret_der);
                if (r != 0)
                        return r;
        }
        if (r >= 0 && is_refused(turn, &enrolment))
                return tell_refusal(&enrolment, problem);
        if (is_away && from->profile->upstream_offline == OFFLINE_LOCAL)
                return leave_to_local(turn, is_waiting ? &enrolment : NULL);
        if (!is_waiting) {
                r = ask_anew(turn, from, csr, csr_der, is_renewal, &enrolment);
                if (r < 0)
                        return r;
        }
        return tell_waiting(turn, &enrolment, reply, problem);
}

/* ---- answers ---- */

/* Whether the certificate is for the key that was asked for. */
static bool is_for_key(X509 *certificate, const struct enrolment *enrolment) {
        uint8_t digest[CERTIFICATE_DIGEST_BYTES];
        EVP_PKEY *key = X509_get0_pubkey(certificate);

        return key && x509_key_digest(key, digest) >= 0 && memcmp(digest, enrolment->public_key, sizeof digest) == 0;
}

X509 *registrar_find_for_key(STACK_OF(X509) * certificates, const struct enrolment *enrolment) {
        for (int i = 0; i < sk_X509_num(certificates); i++)
                if (is_for_key(sk_X509_value(certificates, i), enrolment))
                        return sk_X509_value(certificates, i);
        return NULL;
}

/* Whether it carries the subject that was asked for; an empty one names nobody. */
static bool has_subject_asked(struct turn *turn, X509 *certificate, uint64_t number) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        const X509_NAME *subject;
        const uint8_t *at;
        X509_REQ *request;
        bool is_equal = false;

        if (enrolment_csr(turn->store, number, &der) < 0)
                return false;
        at = der.data;
        request = d2i_X509_REQ(NULL, &at, (long)der.size);
        if (request) {
                subject = X509_REQ_get_subject_name(request);
                is_equal = X509_NAME_entry_count(subject) > 0 &&
                           X509_NAME_cmp(subject, X509_get_subject_name(certificate)) == 0;
        }
        X509_REQ_free(request);
        ERR_clear_error();
        return is_equal;
}

/* Upstream's CA may do as it likes; what it gave must still be this device's and of use. 0, or -EBADMSG and why
 * in `reason` (160 bytes). */
static int check_certificate(struct turn *turn, X509 *certificate, const struct enrolment *enrolment,
                             const struct device *device, char *reason) {
        const struct profile *profile = config_profile(turn->config, device->profile);
        char name[DEVICE_ID_MAX + 1] = "", owner[DEVICE_ID_MAX + 1];
        struct x509_validity validity;
        const char *what = NULL;
        int r;

        if (!profile)
                what = "the device's profile is gone";
        else if (x509_validity_of(certificate, &validity) < 0)
                what = "the certificate's validity cannot be read";
        else if (validity.not_after <= turn->now.wall)
                what = "the certificate has run out already";
        else if ((x509_device_id(certificate, profile->idevid_identity, name) < 0 || strcmp(name, device->id) != 0) &&
                 !has_subject_asked(turn, certificate, enrolment->number))
                what = "the certificate names another device";
        if (what) {
                snprintf(reason, 160, "%s", what);
                return -EBADMSG;
        }
        r = certificate_key_owner(turn->store, enrolment->public_key, device->id, owner);
        if (r == -ENOENT)
                return 0;
        if (r >= 0)
                snprintf(reason, 160, "the key is already that of device %s", owner);
        return r < 0 ? r : -EBADMSG;
}

/* The row of the certificate. Upstream may give the same one twice. */
static int insert_certificate(struct turn *turn, X509 *certificate, const struct enrolment *enrolment,
                              char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1]) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        struct certificate row = { 0 }, before;
        int r;

        r = x509_describe(certificate, &row);
        if (r >= 0)
                r = x509_write(certificate, &der);
        if (r < 0)
                return r;
        snprintf(row.device, sizeof row.device, "%s", enrolment->device);
        row.issuer = GENERATION_UPSTREAM;
        row.revoked = REVOKED_NOT;
        memcpy(row.csr, enrolment->csr, sizeof row.csr);
        memcpy(fingerprint, row.fingerprint, sizeof row.fingerprint);
        r = certificate_insert(turn->store, &row, buffer_bytes(&der));
        if (r != -EEXIST)
                return r;
        r = certificate_get(turn->store, row.fingerprint, &before);
        if (r < 0)
                return r;
        return strcmp(before.device, row.device) == 0 && before.revoked == REVOKED_NOT ? 0 : -EBADMSG;
}

/* To be sent again, after what upstream or the back-off says. */
static int try_later(struct turn *turn, struct enrolment *enrolment, uint16_t http_status, uint64_t asked_sec,
                     const char *reason) {
        int64_t sec;

        enrolment->http_status = http_status;
        snprintf(enrolment->reason, sizeof enrolment->reason, "%s", reason);
        sec = asked_sec == 0                    ? retry_sec(enrolment, turn)
              : asked_sec < RETRY_AFTER_MAX_SEC ? (int64_t)asked_sec
                                                : RETRY_AFTER_MAX_SEC;
        enrolment->retry_powered_sec = turn->now.powered_sec + sec;
        return enrolment_update(turn->store, enrolment);
}

int registrar_settle(struct turn *turn, struct enrolment *enrolment, enum enrolment_state state, uint16_t http_status,
                     const char *reason) {
        int r;

        enrolment->state = state;
        enrolment->http_status = http_status;
        enrolment->answered = turn->now;
        snprintf(enrolment->reason, sizeof enrolment->reason, "%s", reason);
        r = enrolment_update(turn->store, enrolment);
        if (r < 0 || state != ENROLMENT_REFUSED)
                return r;
        if (registrar_is_for_client(enrolment) || !enrolment->device[0])
                return turn_event(turn, EVENT_ENROLMENT_REFUSED, NULL, NULL,
                                  "enrolment %llu, of the gateway itself: %.100s",
                                  (unsigned long long)enrolment->number, reason);
        return turn_event(turn, EVENT_ENROLMENT_REFUSED, enrolment->device, NULL, "enrolment %llu: %.100s",
                          (unsigned long long)enrolment->number, reason);
}

static int take_for_device(struct turn *turn, struct enrolment *enrolment, STACK_OF(X509) * certificates,
                           uint16_t http_status) {
        X509 *certificate = registrar_find_for_key(certificates, enrolment);
        char reason[160] = "no certificate in the answer is for the key asked for";
        struct device device;
        int r;

        r = device_get(turn->store, bytes_of(enrolment->device), &device);
        if (r == -ENOENT) /* removed meanwhile */
                return enrolment_remove_device(turn->store, enrolment->device);
        if (r >= 0)
                r = certificate ? check_certificate(turn, certificate, enrolment, &device, reason) : -EBADMSG;
        if (r >= 0) {
                snprintf(reason, sizeof reason, "the certificate is another device's already, or was revoked here");
                r = insert_certificate(turn, certificate, enrolment, enrolment->fingerprint);
        }
        if (r == -EBADMSG) {
                enrolment->fingerprint[0] = 0;
                return try_later(turn, enrolment, http_status, 0, reason);
        }
        return r < 0 ? r : registrar_settle(turn, enrolment, ENROLMENT_ISSUED, http_status, "");
}

/* ---- what came ---- */

static int take_issued_answer(struct turn *turn, struct enrolment *enrolment, const struct message_enrolled *answer) {
        STACK_OF(X509) *certificates = x509_pkcs7_read(answer->certificates);
        int r;

        if (!certificates)
                return try_later(turn, enrolment, answer->http_status, 0, "the answer is no certs-only message");
        if (registrar_is_for_client(enrolment))
                r = registrar_take_for_client(turn, enrolment, certificates, answer->http_status);
        else if (!enrolment->device[0])
                r = registrar_take_for_authority(turn, enrolment, certificates, answer->http_status);
        else
                r = take_for_device(turn, enrolment, certificates, answer->http_status);
        sk_X509_pop_free(certificates, X509_free);
        return r;
}

int registrar_answer(struct turn *turn, const struct message_enrolled *answer) {
        struct enrolment enrolment;
        char reason[160];
        int r;

        snprintf(reason, sizeof reason, "%.*s", answer->reason.size < sizeof reason ? (int)answer->reason.size : 159,
                 answer->reason.size > 0 ? (const char *)answer->reason.data : "");
        r = enrolment_get(turn->store, answer->number, &enrolment);
        if (r == -ENOENT || (r >= 0 && enrolment.state != ENROLMENT_WAITING))
                return 0; /* the device has asked with another key since, or the answer came twice */
        if (r < 0)
                return r;
        switch (answer->outcome) {
        case ENROL_ISSUED:
                r = take_issued_answer(turn, &enrolment, answer);
                break;
        case ENROL_LATER:
                r = try_later(turn, &enrolment, answer->http_status, answer->retry_sec, reason);
                break;
        case ENROL_REFUSED:
                r = registrar_settle(turn, &enrolment, ENROLMENT_REFUSED, answer->http_status, reason);
                break;
        case ENROL_FAILED:
                r = try_later(turn, &enrolment, answer->http_status, 0, reason);
                break;
        }
        return r < 0 ? r : enrolment_trim(turn->store, &turn->now, ANSWER_SEC);
}

/* ---- anchors ---- */

int registrar_anchors(struct turn *turn, struct buffer *ret) {
        return store_own_secret_get(turn->store, ANCHORS_NAME, ret);
}

int registrar_anchors_put(struct turn *turn, struct bytes pkcs7) {
        _cleanup_(buffer_free) struct buffer before = { 0 }, now = { 0 };
        STACK_OF(X509) *certificates = x509_pkcs7_read(pkcs7);
        int r = certificates && sk_X509_num(certificates) > 0 ? 0 : -EBADMSG;

        for (int i = 0; r >= 0 && i < sk_X509_num(certificates); i++)
                r = x509_write(sk_X509_value(certificates, i), &now);
        sk_X509_pop_free(certificates, X509_free);
        if (r >= 0)
                r = store_own_secret_get(turn->store, ANCHORS_NAME, &before);
        if (r < 0 && r != -ENOENT)
                return r;
        if (r >= 0 && bytes_equal(buffer_bytes(&before), buffer_bytes(&now)))
                return 0; /* as every day */
        return store_own_secret_put(turn->store, ANCHORS_NAME, buffer_bytes(&now));
}
