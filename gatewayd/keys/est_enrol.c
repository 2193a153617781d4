/* SPDX-License-Identifier: Apache-2.0 */

/* EST-coaps enrolment (RFC 9148): from a CSR to a certificate. Who may ask at all is lifecycle.c's, what a CSR
 * is csr.c's, who signs authority.c's or upstream's; here is the order of it, and what a CSR must not do in the
 * session that brought it. */

#include "gatewayd/keys/est.h"

#include <errno.h>

#include <openssl/crypto.h>
#include <openssl/err.h>

#include "gatewayd/devices/devices.h"
#include "gatewayd/keys/authority.h"
#include "gatewayd/keys/registrar.h"
#include "store/audit.h"

/* More than this within a minute is a fault of the device, or worse: each leaves a row that stays until its
 * certificate runs out. */
#define RATE_PERIOD_SEC   60
#define RATE_MAX          12
#define RATE_UNPROVEN_MAX 4
#define RATE_LOOK_BACK    32

void est_enrolment_free(struct est_enrolment *enrolment) {
        if (enrolment->has_csr)
                csr_free(&enrolment->csr);
        X509_free(enrolment->before);
        EVP_PKEY_free(enrolment->key);
        buffer_free(&enrolment->der);
}

int est_formats(const struct request *request, const int32_t formats[2], int32_t *ret, struct problem *problem) {
        if (request->content_format != FORMAT_PKCS10)
                return problem_set(problem, CODE_UNSUPPORTED_FORMAT, EPROTONOSUPPORT, "unsupported content format",
                                   "the body is a PKCS#10 request as pkcs10 (%d)", FORMAT_PKCS10);
        if (request->accept == FORMAT_NONE || request->accept == formats[0]) {
                *ret = formats[0];
                return 0;
        }
        if (request->accept == formats[1]) {
                *ret = formats[1];
                return 0;
        }
        if (formats[1] == FORMAT_NONE)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "this resource answers in %d", formats[0]);
        return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                           "this resource answers in %d or %d", formats[0], formats[1]);
}

static int forbidden(struct problem *problem, const char *format, const char *detail) {
        return problem_set(problem, CODE_FORBIDDEN, EACCES, "not allowed", format, detail);
}

/* ---- what speaks against it ---- */

static int check_session(struct turn *turn, const struct est_enrolment *e, struct problem *problem) {
        const struct identity *from = e->request->from;

        if (e->is_keygen && !from->profile->server_keygen)
                return forbidden(problem, "profile %s makes no keys for devices: bring your own (sen)",
                                 from->profile->name);
        if (e->is_keygen && from->profile->ca == CA_UPSTREAM)
                return forbidden(problem,
                                 "profile %s enrols upstream, which signs only keys of the devices' own making",
                                 from->profile->name);
        if (e->is_renewal && from->credential.kind != CREDENTIAL_LDEVID)
                return forbidden(problem, "%s", "renewal takes a session with the certificate that is to be renewed");
        return grant_terms_check(turn, from, problem);
}

/* RFC 7030 §3.5: the CSR was made for this very handshake, so that nobody passes on somebody else's. */
static int check_linking(const struct est_enrolment *e, struct problem *problem) {
        enum tls_unique_demand demand = e->request->from->profile->tls_unique;
        struct bytes ours = e->request->from->tls_unique, theirs = e->csr.tls_unique;

        /* Where the key is made here, the CSR proves the possession of nothing. */
        if (demand == TLS_UNIQUE_OFF || e->is_keygen)
                return 0;
        if (!e->csr.has_challenge)
                return demand == TLS_UNIQUE_VERIFY
                               ? 0
                               : problem_set(problem, CODE_BAD_REQUEST, EINVAL, "tls-unique missing",
                                             "profile %s demands tls-unique as challengePassword in the CSR",
                                             e->request->from->profile->name);
        if (ours.size == 0)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "tls-unique not known",
                                   "the CSR has a challengePassword, but this session has no tls-unique: it was made "
                                   "without extended master secret (RFC 7627)");
        if (theirs.size != ours.size || CRYPTO_memcmp(theirs.data, ours.data, ours.size) != 0)
                return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "tls-unique does not match",
                                   "the challengePassword is not the base64 text of this session's tls-unique");
        return 0;
}

static int read_request(struct est_enrolment *e, struct problem *problem) {
        int r;

        r = csr_read(e->request->payload, e->request->from->profile, e->is_keygen, &e->csr, problem);
        if (r < 0)
                return r;
        e->has_csr = true;
        if (e->is_keygen && e->csr.wants_protected_key)
                return problem_set(problem, CODE_BAD_REQUEST, EOPNOTSUPP, "no protected keys",
                                   "the CSR asks for the key in CMS (280), which is not given here, and never "
                                   "unprotected (284) in its place");
        return check_linking(e, problem);
}

/* The certificate that this session was made with. */
static int load_before(struct turn *turn, struct est_enrolment *e) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        int r;

        r = certificate_der(turn->store, e->request->from->certificate.fingerprint, &der);
        if (r < 0)
                return r;
        e->before = x509_read(buffer_bytes(&der));
        return e->before ? 0 : -EBADMSG;
}

/* A commonName is often a model's and no device's, but never another device's: upstream's CA may take it as it is. */
static int check_common_names(struct turn *turn, const struct est_enrolment *e, struct problem *problem) {
        const X509_NAME *subject = X509_REQ_get_subject_name(e->csr.request);

        if (e->before && X509_NAME_cmp(subject, X509_get_subject_name(e->before)) == 0)
                return 0; /* its issuer has vouched for it */
        for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
                unsigned char *text = NULL;
                int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
                struct device named;
                int r = -ENOENT;

                if (size > 0 && size <= DEVICE_ID_MAX)
                        r = device_get(turn->store, BYTES(text, (size_t)size), &named);
                OPENSSL_free(text);
                if (r >= 0 && strcmp(named.id, e->request->from->device.id) != 0)
                        return forbidden(problem, "the subject's commonName is another device's: %s", named.id);
                if (r < 0 && r != -ENOENT)
                        return r;
        }
        ERR_clear_error();
        return 0;
}

/* A renewal keeps the names of its certificate; another certificate may have those that the session's one has, a
 * hardware module name of the factory's for one. */
static int check_names(struct turn *turn, struct est_enrolment *e, struct problem *problem) {
        const char *device = e->request->from->device.id;
        int r;

        if (credential_is_certificate(e->request->from->credential.kind)) {
                r = load_before(turn, e);
                if (r < 0)
                        return r;
        }
        if (e->is_renewal)
                return csr_check_names(&e->csr, device, e->before, problem);
        r = csr_check_first_names(&e->csr, device, e->before, problem);
        return r < 0 ? r : check_common_names(turn, e, problem);
}

static int check_key_owner(struct turn *turn, struct est_enrolment *e, struct problem *problem) {
        int r;

        if (e->is_keygen)
                return 0;
        r = certificate_key_owner(turn->store, e->csr.public_key, e->request->from->device.id, e->owner);
        if (r < 0)
                e->owner[0] = 0;
        if (r == -ENOENT)
                return 0;
        return r < 0 ? r : forbidden(problem, "%s", "this public key is already in use by another device");
}

/* A key in other hands stays there, whatever is signed over it. */
static int check_key_is_sound(struct turn *turn, const struct est_enrolment *e, struct problem *problem) {
        int r;

        if (e->is_keygen)
                return 0;
        r = certificate_key_is_compromised(turn->store, e->csr.public_key);
        if (r <= 0)
                return r;
        return forbidden(problem, "%s", "this public key is compromised: a new certificate takes a new key");
}

/* Is this key in one of the device's certificates already? Where the profile wants a new one each time. */
static int check_rekey(struct turn *turn, const struct est_enrolment *e, const struct credential *list, size_t count,
                       struct problem *problem) {
        if (e->is_keygen || e->request->from->profile->rekey != REKEY_REQUIRED)
                return 0;
        for (size_t i = 0; i < count; i++) {
                struct certificate certificate;
                int r;

                if (list[i].kind != CREDENTIAL_LDEVID)
                        continue;
                r = certificate_get(turn->store, list[i].identity, &certificate);
                if (r < 0 && r != -ENOENT)
                        return r;
                if (r >= 0 && memcmp(certificate.public_key, e->csr.public_key, sizeof certificate.public_key) == 0)
                        return forbidden(problem, "profile %s demands a new key for each certificate",
                                         e->request->from->profile->name);
        }
        return 0;
}

static int check_rate(struct turn *turn, const struct credential *list, size_t count, struct problem *problem) {
        size_t recent = 0, unproven = 0;
        int64_t oldest = 0;

        for (size_t i = 0; i < count; i++) {
                int64_t age = turn->now.powered_sec - list[i].issued.powered_sec;

                if (list[i].kind != CREDENTIAL_LDEVID || age >= RATE_PERIOD_SEC)
                        continue;
                recent++;
                unproven += list[i].state == KEY_PRE_ACTIVE;
                oldest = age > oldest ? age : oldest;
        }
        if (recent < RATE_MAX && unproven < RATE_UNPROVEN_MAX)
                return 0;
        problem_set(problem, CODE_TOO_MANY_REQUESTS, EBUSY, "too often",
                    "%zu certificates were issued to this device within a minute, %zu of them not used yet", recent,
                    unproven);
        if (problem)
                problem->max_age_sec = RATE_PERIOD_SEC - oldest;
        return -EBUSY;
}

struct asked {
        int64_t since; /* powered-on seconds */
        size_t count;
        int64_t first; /* of those counted */
};

static int count_asked(void *userdata, const struct audit_row *row) {
        struct asked *asked = userdata;

        if (row->kind != EVENT_ENROLMENT_WAITING || row->at.powered_sec <= asked->since)
                return 0;
        if (asked->count++ == 0)
                asked->first = row->at.powered_sec;
        return 0;
}

/* What goes upstream leaves no credential to count before the answer. */
static int check_rate_upstream(struct turn *turn, const struct est_enrolment *e, struct problem *problem) {
        struct asked asked = { .since = turn->now.powered_sec - RATE_PERIOD_SEC };
        int r;

        if (e->request->from->profile->ca != CA_UPSTREAM)
                return 0;
        r = audit_last(turn->store, e->request->from->device.id, RATE_LOOK_BACK, count_asked, &asked);
        if (r < 0 || asked.count < RATE_UNPROVEN_MAX)
                return r;
        problem_set(problem, CODE_TOO_MANY_REQUESTS, EBUSY, "too often",
                    "%zu certificates were asked for upstream for this device within a minute", asked.count);
        if (problem)
                problem->max_age_sec = asked.first - asked.since;
        return -EBUSY;
}

/* ---- asked again ---- */

/* Is the credential of a certificate that answered this CSR before still the answer? Unproven, or proven and not
 * due yet, and asked for over the same predecessor. */
static int is_still_the_answer(struct turn *turn, const struct est_enrolment *e, const struct credential *credential) {
        struct outlook outlook;
        int r;

        if (strcmp(credential->predecessor, e->request->from->credential.identity) != 0)
                return 0;
        if (credential->state == KEY_PRE_ACTIVE)
                return 1;
        if (credential->state != KEY_ACTIVE)
                return 0;
        r = schedule_outlook(turn, &e->request->from->device, &outlook);
        return r < 0 ? r : !(outlook.due & DUE_ROTATE);
}

/* A lost reply costs a retry, not a second certificate. Keys made here are not kept, so those cannot be told again. */
static int find_before(struct turn *turn, struct est_enrolment *e) {
        struct credential credential;
        int r;

        if (e->is_keygen)
                return 0;
        r = certificate_by_csr(turn->store, e->request->from->device.id, e->csr.digest, &e->certificate);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        /* Server-side generation ignores the CSR's key: the same CSR may have brought another one. */
        if (e->certificate.revoked != REVOKED_NOT ||
            memcmp(e->certificate.public_key, e->csr.public_key, sizeof e->csr.public_key) != 0)
                return 0;
        r = credential_get(turn->store, bytes_of(e->certificate.fingerprint), &credential);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        r = is_still_the_answer(turn, e, &credential);
        if (r > 0 && credential.state == KEY_PRE_ACTIVE && credential.session != e->request->from->session) {
                credential.session = e->request->from->session; /* whose evidence now counts for it (proof.c) */
                r = credential_update(turn->store, &credential);
                r = r < 0 ? r : 1;
        }
        if (r <= 0)
                return r;
        r = certificate_der(turn->store, e->certificate.fingerprint, &e->der);
        return r < 0 ? r : 1;
}

int est_examine(struct turn *turn, struct est_enrolment *e, struct problem *problem) {
        struct credential list[CREDENTIALS_MAX];
        ssize_t count;
        int r;

        r = check_session(turn, e, problem);
        if (r >= 0)
                r = read_request(e, problem);
        if (r >= 0)
                r = check_names(turn, e, problem);
        if (r >= 0)
                r = check_key_owner(turn, e, problem);
        if (r >= 0)
                r = check_key_is_sound(turn, e, problem);
        if (r >= 0)
                r = find_before(turn, e);
        if (r != 0)
                return r;
        count = credential_list(turn->store, e->request->from->device.id, list, ELEMENTS(list));
        if (count < 0)
                return (int)count;
        r = check_rekey(turn, e, list, (size_t)count, problem);
        if (r >= 0)
                r = check_rate(turn, list, (size_t)count, problem);
        return r < 0 ? r : check_rate_upstream(turn, e, problem);
}

int est_refuse(struct turn *turn, const struct est_enrolment *e, int error, const struct problem *refused,
               struct reply *reply) {
        const struct identity *from = e->request->from;
        int r;

        if (refused->code == CODE_EMPTY || refused->code == CODE_INTERNAL)
                return error; /* not the device's doing */
        if (e->owner[0])
                r = turn_event(turn, EVENT_ENROLMENT_REFUSED, from->device.id, from->credential.identity, "%.80s: %s",
                               refused->detail, e->owner);
        else
                r = turn_event(turn, EVENT_ENROLMENT_REFUSED, from->device.id, from->credential.identity, "%.150s",
                               refused->detail);
        if (r < 0)
                return r;
        reply_problem(reply, refused);
        return 0;
}

/* ---- issuing ---- */

static int sign(struct turn *turn, struct est_enrolment *e, struct problem *problem) {
        const struct identity *from = e->request->from;

        return authority_issue(turn, &e->csr, e->key ? e->key : e->csr.key, from->device.id, from->profile, e->before,
                               &e->certificate, &e->der, problem);
}

/* The credential of a certificate. One from upstream may have it already: the same key, asked for by another CSR. */
static int admit(struct turn *turn, const struct est_enrolment *e) {
        struct device device = e->request->from->device;
        struct credential credential;
        int r;

        r = credential_get(turn->store, bytes_of(e->certificate.fingerprint), &credential);
        if (r != -ENOENT)
                return r < 0 ? r : 0;
        r = grant_make_room(turn, e->request->from, &device);
        return r < 0 ? r : grant_certificate(turn, e->request->from, &e->certificate);
}

int est_issue(struct turn *turn, struct est_enrolment *e, struct reply *reply, struct problem *problem) {
        const struct identity *from = e->request->from;
        int r = REGISTRAR_LOCAL;

        if (from->profile->ca == CA_UPSTREAM)
                r = registrar_ask(turn, from, &e->csr, e->request->payload, e->is_renewal, &e->certificate, &e->der,
                                  reply, problem);
        if (r == REGISTRAR_LOCAL) {
                r = sign(turn, e, problem);
                r = r < 0 ? r : 1;
        }
        if (r <= 0)
                return r;
        r = admit(turn, e);
        return r < 0 ? r : 1;
}

int est_put_certificate(const struct est_enrolment *e, int32_t format, struct buffer *to) {
        STACK_OF(X509) * certificates;
        X509 *certificate;
        int r;

        if (format == FORMAT_PKIX_CERT) {
                buffer_append(to, buffer_bytes(&e->der));
                return 0;
        }
        certificate = x509_read(buffer_bytes(&e->der));
        if (!certificate)
                return -EBADMSG;
        certificates = sk_X509_new_null();
        if (!certificates || sk_X509_push(certificates, certificate) <= 0)
                oom();
        r = x509_pkcs7_write(certificates, to);
        sk_X509_pop_free(certificates, X509_free);
        return r;
}

static int enrol(struct turn *turn, const struct request *request, bool is_renewal, struct reply *reply,
                 struct problem *problem) {
        _cleanup_(est_enrolment_free) struct est_enrolment e = { .request = request, .is_renewal = is_renewal };
        static const int32_t formats[2] = { FORMAT_PKCS7_CERTS, FORMAT_PKIX_CERT };
        struct problem refused = { 0 };
        int32_t format = FORMAT_NONE;
        int r;

        r = est_formats(request, formats, &format, problem);
        if (r < 0)
                return r;
        r = est_examine(turn, &e, &refused);
        if (r < 0)
                return est_refuse(turn, &e, r, &refused, reply);
        if (r == 0)
                r = est_issue(turn, &e, reply, problem);
        if (r <= 0)
                return r;
        r = est_put_certificate(&e, format, &reply->payload);
        if (r < 0)
                return r;
        reply->code = CODE_CHANGED;
        reply->content_format = format;
        return 0;
}

int handle_est_sen(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        return enrol(turn, request, false, reply, problem);
}

int handle_est_sren(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        return enrol(turn, request, true, reply, problem);
}
