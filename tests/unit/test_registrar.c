/* SPDX-License-Identifier: Apache-2.0 */

/* What waits for the owner's CA on a real store, with a clock that the test moves: when it is asked again, what an
 * answer is worth, and what a device is told meanwhile. */

#include "support.h"

#include <errno.h>

#include "gatewayd/keys/registrar.h"
#include "gatewayd/keys/x509.h"
#include "tests/unit/pki_fixture.h"

#define DEVICE "sensor-1"

struct bed {
        struct fixture *f;
        struct identity from;
        EVP_PKEY *key;
        struct csr csr;
        struct buffer csr_der;
        /* What the latest registrar_ask() gave. */
        struct certificate certificate;
        struct buffer der;
        struct reply reply;
        struct problem problem;
};

/* The device's next request, with the key given. */
static void new_request(struct bed *bed, EVP_PKEY *key) {
        X509_REQ *request = X509_REQ_new();
        uint8_t *der = NULL;
        int size;

        buffer_free(&bed->csr_der);
        EVP_PKEY_free(bed->key);
        bed->key = key;
        assert_int_equal(X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(request), NID_serialNumber, MBSTRING_ASC,
                                                    (const uint8_t *)DEVICE, -1, -1, 0),
                         1);
        assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
        assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
        size = i2d_X509_REQ(request, &der);
        assert_true(size > 0);
        buffer_append(&bed->csr_der, BYTES(der, (size_t)size));
        bed->csr = (struct csr){ .key = key };
        assert_int_equal(EVP_Q_digest(NULL, "SHA256", NULL, der, (size_t)size, bed->csr.digest, NULL), 1);
        assert_int_equal(x509_key_digest(key, bed->csr.public_key), 0);
        OPENSSL_free(der);
        X509_REQ_free(request);
}

static int bed_new(void **state) {
        struct bed *bed = xcalloc(1, sizeof *bed);

        bed->f = fixture_new();
        snprintf(bed->f->config.north.est_url, sizeof bed->f->config.north.est_url, "https://owner/.well-known/est");
        bed->f->config.north.retry_max_sec = 300;
        pki_add(bed->f, DEVICE, FIXTURE_CERTIFIED);
        bed->from.device = fixture_device(bed->f, DEVICE);
        bed->from.profile = config_profile(&bed->f->config, bed->from.device.profile);
        snprintf(bed->from.credential.identity, sizeof bed->from.credential.identity, DEVICE);
        new_request(bed, x509_key_new(X509_KEY_P256));
        fixture_commit(bed->f);
        *state = bed;
        return 0;
}

static int bed_free(void **state) {
        struct bed *bed = *state;

        buffer_free(&bed->reply.payload);
        buffer_free(&bed->csr_der);
        buffer_free(&bed->der);
        EVP_PKEY_free(bed->key);
        fixture_free(bed->f);
        free(bed);
        return 0;
}

static int ask(struct bed *bed) {
        int r;

        buffer_free(&bed->reply.payload);
        buffer_free(&bed->der);
        bed->reply = (struct reply){ .max_age_sec = -1 };
        bed->problem = (struct problem){ 0 };
        r = registrar_ask(&bed->f->turn, &bed->from, &bed->csr, buffer_bytes(&bed->csr_der), false, &bed->certificate,
                          &bed->der, &bed->reply, &bed->problem);
        fixture_commit(bed->f);
        return r;
}

/* What is to be sent now; -ENOENT where nothing is. */
static int due(struct bed *bed, struct enrolment *ret) {
        return enrolment_due(bed->f->store, bed->f->turn.now.powered_sec, ret, 1) == 1 ? 0 : -ENOENT;
}

static struct enrolment must_be_due(struct bed *bed) {
        struct enrolment enrolment;

        assert_int_equal(due(bed, &enrolment), 0);
        return enrolment;
}

static void answer(struct bed *bed, uint64_t number, enum enrol_outcome outcome, uint16_t status, uint64_t retry_sec) {
        const struct message_enrolled m = { .number = number,
                                            .outcome = outcome,
                                            .http_status = status,
                                            .retry_sec = retry_sec,
                                            .reason = TEXT("the owner's words") };

        assert_int_equal(registrar_answer(&bed->f->turn, &m), 0);
        fixture_commit(bed->f);
}

/* The owner's CA issues for that key and name. */
static void issue(struct bed *bed, uint64_t number, EVP_PKEY *key, const char *name, unix_sec not_after) {
        _cleanup_(buffer_free) struct buffer cms = { 0 };
        const struct pki_names names = { .serial_number = name,
                                         .not_before = bed->f->turn.now.wall - 3600,
                                         .not_after = not_after };
        X509 *certificate = pki_make(&pki_manufacturer(0)->issuing, key, &names);
        STACK_OF(X509) *chain = sk_X509_new_null();

        sk_X509_push(chain, pki_manufacturer(0)->issuing.certificate);
        sk_X509_push(chain, certificate);
        assert_int_equal(x509_pkcs7_write(chain, &cms), 0);
        assert_int_equal(
                registrar_answer(&bed->f->turn, &(struct message_enrolled){ .number = number,
                                                                            .outcome = ENROL_ISSUED,
                                                                            .http_status = 200,
                                                                            .certificates = buffer_bytes(&cms) }),
                0);
        fixture_commit(bed->f);
        sk_X509_free(chain);
        X509_free(certificate);
}

static unix_sec in_a_year(const struct bed *bed) {
        return bed->f->turn.now.wall + 365 * FIXTURE_DAY;
}

static void assert_waits(struct bed *bed, int64_t least, int64_t most) {
        assert_int_equal(ask(bed), 0);
        assert_int_equal(bed->reply.code, CODE_UNAVAILABLE);
        assert_int_equal(bed->reply.content_format, FORMAT_PROBLEM);
        assert_in_range(bed->reply.max_age_sec, least, most);
}

/* ---- tests ---- */

static void a_request_waits_once_however_often_it_is_asked(void **state) {
        struct bed *bed = *state;
        struct enrolment first;

        assert_waits(bed, 30, 60);
        first = must_be_due(bed);
        assert_string_equal(first.device, DEVICE);
        assert_string_equal(first.predecessor, DEVICE);
        assert_waits(bed, 30, 60);
        assert_int_equal(must_be_due(bed).number, first.number);
        assert_int_equal(enrolment_count(bed->f->store, ENROLMENT_WAITING), 1);
        assert_int_equal(fixture_audited(bed->f, DEVICE, EVENT_ENROLMENT_WAITING), 1);
}

static void the_certificate_is_given_to_whoever_has_the_key_again_and_again(void **state) {
        struct bed *bed = *state;
        _cleanup_(buffer_free) struct buffer first = { 0 };

        assert_waits(bed, 30, 60);
        issue(bed, must_be_due(bed).number, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), 1);
        assert_string_equal(bed->certificate.device, DEVICE);
        assert_int_equal(bed->certificate.issuer, GENERATION_UPSTREAM);
        assert_memory_equal(bed->certificate.csr, bed->csr.digest, sizeof bed->csr.digest);
        buffer_append(&first, buffer_bytes(&bed->der));
        /* The CSR changes with tls-unique, the key does not. */
        bed->csr.digest[0] ^= 1;
        assert_int_equal(ask(bed), 1);
        assert_true(bytes_equal(buffer_bytes(&bed->der), buffer_bytes(&first)));
}

static void a_certificate_in_use_is_no_answer_to_its_own_renewal(void **state) {
        struct bed *bed = *state;

        assert_waits(bed, 30, 60);
        issue(bed, must_be_due(bed).number, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), 1);
        memcpy(bed->from.credential.identity, bed->certificate.fingerprint, DEVICE_ID_MAX + 1);
        assert_waits(bed, 30, 60);
        assert_string_equal(must_be_due(bed).predecessor, bed->certificate.fingerprint);
}

static void a_revoked_or_ended_certificate_is_asked_for_anew(void **state) {
        struct bed *bed = *state;
        struct moment now;

        assert_waits(bed, 30, 60);
        issue(bed, must_be_due(bed).number, bed->key, DEVICE, bed->f->turn.now.wall + FIXTURE_DAY);
        assert_int_equal(ask(bed), 1);
        fixture_pass(bed->f, 2 * FIXTURE_DAY);
        assert_waits(bed, 30, 60);
        issue(bed, must_be_due(bed).number, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), 1);
        now = bed->f->turn.now;
        assert_int_equal(certificate_revoke(bed->f->store, bed->certificate.fingerprint, REVOKED_KEY_COMPROMISE, &now),
                         1);
        assert_waits(bed, 30, 60);
}

static void the_same_certificate_again_after_its_revocation_is_not_taken(void **state) {
        struct bed *bed = *state;
        struct moment now = bed->f->turn.now;
        struct message_enrolled same = { .outcome = ENROL_ISSUED, .http_status = 200 };
        _cleanup_(buffer_free) struct buffer cms = { 0 };
        STACK_OF(X509) *certificates = sk_X509_new_null();
        X509 *certificate;

        assert_waits(bed, 30, 60);
        issue(bed, must_be_due(bed).number, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), 1);
        assert_int_equal(certificate_revoke(bed->f->store, bed->certificate.fingerprint, REVOKED_CESSATION, &now), 1);
        certificate = x509_read(buffer_bytes(&bed->der));
        sk_X509_push(certificates, certificate);
        assert_int_equal(x509_pkcs7_write(certificates, &cms), 0);
        sk_X509_pop_free(certificates, X509_free);
        assert_waits(bed, 30, 60);
        same.number = must_be_due(bed).number;
        same.certificates = buffer_bytes(&cms);
        assert_int_equal(registrar_answer(&bed->f->turn, &same), 0);
        /* Not asked anew at once, over and over: the device hears where the trouble is. */
        assert_int_equal(ask(bed), -EPROTO);
        assert_int_equal(bed->problem.code, CODE_BAD_GATEWAY);
}

static void a_certificate_for_another_key_name_or_time_is_not_taken(void **state) {
        struct bed *bed = *state;
        EVP_PKEY *other = x509_key_new(X509_KEY_P256);
        uint64_t number;

        assert_waits(bed, 30, 60);
        number = must_be_due(bed).number;
        issue(bed, number, other, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), -EPROTO);
        assert_int_equal(bed->problem.code, CODE_BAD_GATEWAY);
        issue(bed, number, bed->key, "sensor-2", in_a_year(bed));
        assert_int_equal(ask(bed), -EPROTO);
        issue(bed, number, bed->key, DEVICE, bed->f->turn.now.wall - 1);
        assert_int_equal(ask(bed), -EPROTO);
        issue(bed, number, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), 1);
        EVP_PKEY_free(other);
}

static void a_key_that_became_another_devices_meanwhile_is_not_taken(void **state) {
        struct bed *bed = *state;
        struct certificate row = { .device = "sensor-2", .revoked = REVOKED_NOT, .not_after = INT64_MAX };

        assert_waits(bed, 30, 60);
        pki_add(bed->f, "sensor-2", FIXTURE_CERTIFIED);
        memset(row.fingerprint, 'a', sizeof row.fingerprint - 1);
        row.serial_size = 1;
        memcpy(row.public_key, bed->csr.public_key, sizeof row.public_key);
        assert_int_equal(certificate_insert(bed->f->store, &row, TEXT("der")), 0);
        issue(bed, must_be_due(bed).number, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), -EPROTO);
}

static void the_owners_retry_after_is_kept_and_told_up_to_a_day(void **state) {
        struct bed *bed = *state;
        struct enrolment enrolment;
        uint64_t number;

        assert_waits(bed, 30, 60);
        number = must_be_due(bed).number;
        answer(bed, number, ENROL_LATER, 202, 400);
        assert_waits(bed, 400, 500);
        fixture_pass(bed->f, 399);
        assert_int_equal(due(bed, &enrolment), -ENOENT);
        fixture_pass(bed->f, 1);
        answer(bed, must_be_due(bed).number, ENROL_LATER, 503, UINT64_MAX);
        assert_waits(bed, 2700, 3600);
        fixture_pass(bed->f, FIXTURE_DAY - 1);
        assert_int_equal(due(bed, &enrolment), -ENOENT);
        fixture_pass(bed->f, 1);
        assert_int_equal(must_be_due(bed).number, number);
}

static void failures_are_tried_again_after_longer_and_longer_up_to_an_hour(void **state) {
        struct bed *bed = *state;
        struct enrolment enrolment;
        int64_t longest = 0, tries = 0;

        assert_waits(bed, 30, 60);
        enrolment = must_be_due(bed);
        for (int64_t end = bed->f->turn.now.powered_sec + FIXTURE_DAY; bed->f->turn.now.powered_sec < end; tries++) {
                int64_t pause;

                answer(bed, enrolment.number, ENROL_FAILED, 500, 0);
                assert_int_equal(enrolment_get(bed->f->store, enrolment.number, &enrolment), 0);
                pause = enrolment.retry_powered_sec - bed->f->turn.now.powered_sec;
                assert_in_range(pause, 30, 3600);
                longest = pause > longest ? pause : longest;
                fixture_pass(bed->f, pause);
        }
        assert_true(longest > 2700);
        assert_in_range(tries, 20, 60);
        /* No way at all: north watches it, so the pause is short. */
        answer(bed, enrolment.number, ENROL_FAILED, 0, 0);
        assert_int_equal(enrolment_get(bed->f->store, enrolment.number, &enrolment), 0);
        assert_in_range(enrolment.retry_powered_sec - bed->f->turn.now.powered_sec, 30, 300);
}

static void statuses_become_codes_as_rfc_8075_has_it(void **state) {
        static const struct {
                enum enrol_outcome outcome;
                uint16_t status;
                uint8_t code;
        } cases[] = {
                { ENROL_REFUSED, 400, CODE_BAD_REQUEST },   { ENROL_REFUSED, 403, CODE_FORBIDDEN },
                { ENROL_REFUSED, 404, CODE_NOT_FOUND },     { ENROL_REFUSED, 409, CODE_CONFLICT },
                { ENROL_REFUSED, 413, CODE_TOO_LARGE },     { ENROL_REFUSED, 415, CODE_UNSUPPORTED_FORMAT },
                { ENROL_REFUSED, 422, CODE_UNPROCESSABLE }, { ENROL_REFUSED, 418, CODE_BAD_REQUEST },
                { ENROL_FAILED, 401, CODE_BAD_GATEWAY },    { ENROL_FAILED, 403, CODE_BAD_GATEWAY },
                { ENROL_FAILED, 500, CODE_BAD_GATEWAY },    { ENROL_FAILED, 200, CODE_BAD_GATEWAY },
                { ENROL_FAILED, 502, CODE_BAD_GATEWAY },    { ENROL_FAILED, 504, CODE_GATEWAY_TIMEOUT },
        };
        struct bed *bed = *state;

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                new_request(bed, x509_key_new(X509_KEY_P256));
                assert_waits(bed, 30, 60);
                answer(bed, must_be_due(bed).number, cases[i].outcome, cases[i].status, 0);
                assert_true(ask(bed) < 0);
                assert_int_equal(bed->problem.code, cases[i].code);
        }
}

static void a_refusal_is_remembered_for_ten_minutes_then_asked_anew(void **state) {
        struct bed *bed = *state;
        struct enrolment enrolment;
        uint64_t number;

        assert_waits(bed, 30, 60);
        number = must_be_due(bed).number;
        answer(bed, number, ENROL_REFUSED, 400, 0);
        assert_int_equal(fixture_audited(bed->f, DEVICE, EVENT_ENROLMENT_REFUSED), 1);
        fixture_pass(bed->f, 599);
        assert_int_equal(ask(bed), -EACCES);
        assert_non_null(strstr(bed->problem.detail, "the owner's words"));
        assert_int_equal(due(bed, &enrolment), -ENOENT);
        fixture_pass(bed->f, 1);
        assert_waits(bed, 30, 60);
        assert_true(must_be_due(bed).number > number);
}

static void another_key_takes_the_place_of_the_one_before_and_its_late_answer_counts_nothing(void **state) {
        struct bed *bed = *state;
        EVP_PKEY *before;
        uint64_t number;

        assert_waits(bed, 30, 60);
        number = must_be_due(bed).number;
        before = bed->key;
        EVP_PKEY_up_ref(before);
        new_request(bed, x509_key_new(X509_KEY_P256));
        assert_waits(bed, 30, 60);
        assert_int_equal(enrolment_count(bed->f->store, ENROLMENT_WAITING), 1);
        issue(bed, number, before, DEVICE, in_a_year(bed));
        assert_waits(bed, 30, 60);
        issue(bed, must_be_due(bed).number, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), 1);
        EVP_PKEY_free(before);
}

static void offline_the_profile_waits_or_leaves_it_to_this_gateway(void **state) {
        struct bed *bed = *state;
        struct profile *profile = &bed->f->profiles[FIXTURE_CERTIFIED];
        struct enrolment enrolment;

        bed->f->turn.is_upstream_away = true;
        assert_waits(bed, 600, 750);
        assert_int_equal(enrolment_count(bed->f->store, ENROLMENT_WAITING), 1);
        profile->upstream_offline = OFFLINE_LOCAL;
        assert_int_equal(ask(bed), REGISTRAR_LOCAL);
        /* What waited is given up: no second certificate when the uplink is back. */
        assert_int_equal(due(bed, &enrolment), -ENOENT);
        bed->f->turn.is_upstream_away = false;
        assert_waits(bed, 30, 60);
        bed->f->config.north.est_url[0] = 0;
        assert_int_equal(ask(bed), REGISTRAR_LOCAL);
}

static void an_answer_for_nobody_changes_nothing(void **state) {
        struct bed *bed = *state;

        issue(bed, 77, bed->key, DEVICE, in_a_year(bed));
        assert_waits(bed, 30, 60);
        answer(bed, must_be_due(bed).number, ENROL_REFUSED, 400, 0);
        issue(bed, 1, bed->key, DEVICE, in_a_year(bed));
        assert_int_equal(ask(bed), -EACCES);
}

static void anchors_are_kept_as_last_read_well(void **state) {
        struct bed *bed = *state;
        _cleanup_(buffer_free) struct buffer cms = { 0 }, wanted = { 0 }, got = { 0 };
        STACK_OF(X509) *chain = sk_X509_new_null();

        assert_int_equal(registrar_anchors(&bed->f->turn, &got), -ENOENT);
        sk_X509_push(chain, pki_manufacturer(0)->issuing.certificate);
        sk_X509_push(chain, pki_manufacturer(0)->root.certificate);
        assert_int_equal(x509_pkcs7_write(chain, &cms), 0);
        for (int i = 0; i < sk_X509_num(chain); i++)
                pki_put(&wanted, sk_X509_value(chain, i));
        sk_X509_free(chain);
        assert_int_equal(registrar_anchors_put(&bed->f->turn, buffer_bytes(&cms)), 0);
        assert_int_equal(registrar_anchors_put(&bed->f->turn, TEXT("junk")), -EBADMSG);
        assert_int_equal(registrar_anchors_put(&bed->f->turn, BYTES(cms.data, cms.size - 1)), -EBADMSG);
        fixture_commit(bed->f);
        assert_int_equal(registrar_anchors_put(&bed->f->turn, buffer_bytes(&cms)), 0);
        assert_false(store_is_changed(bed->f->store));
        assert_int_equal(registrar_anchors(&bed->f->turn, &got), 0);
        /* A CMS SET orders its certificates by their bytes. */
        assert_int_equal(got.size, wanted.size);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, bed_new, bed_free)
        const struct CMUnitTest tests[] = {
                TEST(a_request_waits_once_however_often_it_is_asked),
                TEST(the_certificate_is_given_to_whoever_has_the_key_again_and_again),
                TEST(a_certificate_in_use_is_no_answer_to_its_own_renewal),
                TEST(a_revoked_or_ended_certificate_is_asked_for_anew),
                TEST(the_same_certificate_again_after_its_revocation_is_not_taken),
                TEST(a_certificate_for_another_key_name_or_time_is_not_taken),
                TEST(a_key_that_became_another_devices_meanwhile_is_not_taken),
                TEST(the_owners_retry_after_is_kept_and_told_up_to_a_day),
                TEST(failures_are_tried_again_after_longer_and_longer_up_to_an_hour),
                TEST(statuses_become_codes_as_rfc_8075_has_it),
                TEST(a_refusal_is_remembered_for_ten_minutes_then_asked_anew),
                TEST(another_key_takes_the_place_of_the_one_before_and_its_late_answer_counts_nothing),
                TEST(offline_the_profile_waits_or_leaves_it_to_this_gateway),
                TEST(an_answer_for_nobody_changes_nothing),
                TEST(anchors_are_kept_as_last_read_well),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
