/* SPDX-License-Identifier: Apache-2.0 */

/* /rats/evidence and /rats/result: what is taken, what is refused and why, and what it does to a device. */

#include "tests/unit/evidence_fixture.h"

#include <errno.h>

/* A request to /rats/evidence; the answer's tier and reason. */
static uint8_t post(struct evidence_fixture *e, int32_t content_format, int32_t accept, struct bytes payload,
                    int64_t *ret_tier, char reason[160]) {
        struct reply reply;
        struct bytes text;
        uint8_t code =
                evidence_request(e, &e->identity, CODE_POST, "rats/evidence", content_format, accept, payload, &reply);
        struct bytes body = buffer_bytes(&reply.payload);

        assert_int_equal(cbor_check(body, NULL), 0);
        assert_int_equal(reply.content_format, code == CODE_CREATED ? FORMAT_CBOR : FORMAT_PROBLEM);
        assert_true(cbor_view_text(cbor_view_member(body, code == CODE_CREATED ? 2 : -2), &text));
        if (reason)
                assert_int_equal(bytes_to_text(text, reason, 160), 0);
        if (ret_tier && code == CODE_CREATED)
                assert_true(cbor_view_int(cbor_view_member(body, 1), ret_tier));
        buffer_free(&reply.payload);
        return code;
}

static void make(struct evidence_fixture *e, struct evidence_options options, struct buffer *to) {
        uint8_t nonce[NONCE_BYTES];

        evidence_nonce(e, &e->identity, nonce);
        options.nonce = BYTES(nonce, sizeof nonce);
        evidence_make(e, &options, to);
}

static void change_device(struct evidence_fixture *e, void (*change)(struct evidence_fixture *, struct device *)) {
        struct device device = fixture_device(e->f, "sensor-1");

        change(e, &device);
        assert_int_equal(device_update(e->f->store, &device), 0);
}

static uint64_t sequence_next(struct evidence_fixture *e) {
        struct store_meta meta;

        assert_int_equal(store_meta_get(e->f->store, &meta), 0);
        return meta.next_sequence;
}

static size_t events(struct evidence_fixture *e, enum event_kind kind) {
        size_t count = 0;

        for (size_t i = 0; i < e->turn->effect_count; i++)
                count += e->turn->effects[i].kind == EFFECT_EVENT && e->turn->effects[i].event.kind == kind;
        return count;
}

/* ---- what is taken ---- */

static void evidence_that_matches_the_references_is_affirming(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};
        struct device device;
        char reason[160];
        int64_t tier;

        make(e, (struct evidence_options){ 0 }, &evidence);
        fixture_commit(e->f);
        assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_CBOR, buffer_bytes(&evidence), &tier, reason), CODE_CREATED);
        assert_int_equal(tier, TIER_AFFIRMING);
        assert_string_equal(reason, "a reference value matches");
        device = fixture_device(e->f, "sensor-1");
        assert_int_equal(device.tier, TIER_AFFIRMING);
        assert_int_equal(device.affirmed.powered_sec, e->turn->now.powered_sec);
        assert_int_equal(device.evidence_last.powered_sec, e->turn->now.powered_sec);
        assert_int_equal(fixture_effects(e->f, EFFECT_RELAY, "sensor-1"), 1);
        assert_int_equal(fixture_effects(e->f, EFFECT_NOTIFY_RESULT, "sensor-1"), 1);
        assert_int_equal(events(e, EVENT_EVIDENCE_ACCEPTED), 1);
        assert_int_equal(fixture_audited(e->f, "sensor-1", EVENT_EVIDENCE_ACCEPTED), 1);
        assert_int_equal(fixture_audited(e->f, "sensor-1", EVENT_APPRAISAL_CHANGED), 1);
}

static void every_format_of_signed_evidence_is_appraised(void **state) {
        static const int32_t formats[] = { FORMAT_EAT_CWT, FORMAT_PSA_2023, FORMAT_PSA_LEGACY, FORMAT_CWT,
                                           FORMAT_COSE_SIGN1 };
        struct evidence_fixture *e = *state;

        for (size_t i = 0; i < ELEMENTS(formats); i++) {
                _cleanup_(buffer_free) struct buffer evidence = {};
                int64_t tier;

                make(e, (struct evidence_options){ 0 }, &evidence);
                assert_int_equal(post(e, formats[i], FORMAT_NONE, buffer_bytes(&evidence), &tier, NULL), CODE_CREATED);
                assert_int_equal(tier, TIER_AFFIRMING);
        }
}

static void adopt_psa_key(struct evidence_fixture *e, struct device *device) {
        EVP_PKEY_free(e->key);
        e->key = key_from_file("tests/vectors/psa-tfm-es-iak.pem");
        device->attestation_key_size = key_public_der(e->key, device->attestation_key, sizeof device->attestation_key);
}

static void the_published_psa_token_is_taken_from_the_device_whose_key_it_is(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer token = {};
        struct challenge challenge = { .device = "sensor-1", .issued = e->turn->now, .lives_sec = 300 };
        struct reference_value prot = { .swname = "PRoT", .digest_size = 32 };
        int64_t tier;

        memset(prot.digest, 3, 32);
        e->reference = prot;
        e->f->profiles[FIXTURE_ATTEST].attestation = ATTESTATION_PSA;
        memset(challenge.nonce, 1, sizeof challenge.nonce);
        assert_int_equal(challenge_insert(e->f->store, &challenge), 0);
        file_read("tests/vectors/psa-sign1.cbor", &token);
        /* Not this device's key: refused. */
        assert_int_equal(post(e, FORMAT_PSA_2023, FORMAT_NONE, buffer_bytes(&token), NULL, NULL), CODE_FORBIDDEN);
        change_device(e, adopt_psa_key);
        assert_int_equal(post(e, FORMAT_PSA_2023, FORMAT_NONE, buffer_bytes(&token), &tier, NULL), CODE_CREATED);
        assert_int_equal(tier, TIER_AFFIRMING);
}

static void without_references_evidence_is_a_warning_and_the_device_stays_operational(void **state) {
        struct evidence_fixture *e = *state;

        e->f->profiles[FIXTURE_ATTEST].reference_count = 0;
        evidence_give(e, &e->identity, NULL);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_WARNING);
        assert_int_equal(fixture_device(e->f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_device(e->f, "sensor-1").affirmed.powered_sec, 0);
}

static void drop_key(struct evidence_fixture *e, struct device *device) {
        (void)e;
        device->attestation_key_size = 0;
}

static void without_a_registered_key_evidence_is_kept_not_appraised_and_spends_its_challenge(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};
        struct device device;
        char reason[160];
        int64_t tier;

        change_device(e, drop_key);
        make(e, (struct evidence_options){ 0 }, &evidence);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), &tier, reason),
                                 CODE_CREATED);
                assert_int_equal(tier, TIER_NONE);
                assert_string_equal(reason, "not appraised here: no attestation key is registered for this device");
        }
        assert_int_equal(sequence_next(e), 2);
        device = fixture_device(e->f, "sensor-1");
        assert_false(moment_is_set(&device.appraised));
        assert_true(moment_is_set(&device.evidence_last));
}

static void a_profile_that_does_not_attest_keeps_evidence_not_appraised(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};
        int64_t tier;

        make(e, (struct evidence_options){ 0 }, &evidence);
        e->f->profiles[FIXTURE_ATTEST].attestation = ATTESTATION_NONE;
        assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), &tier, NULL), CODE_CREATED);
        assert_int_equal(tier, TIER_NONE);
}

static void other_formats_are_kept_not_appraised_and_change_no_verdict(void **state) {
        struct evidence_fixture *e = *state;
        char reason[160];
        int64_t tier;

        evidence_give(e, &e->identity, NULL);
        fixture_pass(e->f, 60);
        assert_int_equal(post(e, FORMAT_CMW_CBOR, FORMAT_NONE, TEXT("anything"), &tier, reason), CODE_CREATED);
        assert_int_equal(tier, TIER_NONE);
        assert_non_null(strstr(reason, "not appraised here"));
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_AFFIRMING);
        fixture_pass(e->f, 60);
        assert_int_equal(post(e, 64999, FORMAT_NONE, TEXT("anything"), &tier, NULL), CODE_CREATED);
        assert_int_equal(sequence_next(e), 4);
}

static void a_token_under_a_shared_key_is_kept_not_appraised(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer token = {};
        int64_t tier;

        file_read("tests/vectors/psa-mac0.cbor", &token);
        assert_int_equal(post(e, FORMAT_PSA_2023, FORMAT_NONE, buffer_bytes(&token), &tier, NULL), CODE_CREATED);
        assert_int_equal(tier, TIER_NONE);
}

static void evidence_without_a_challenge_is_taken_only_so_often(void **state) {
        struct evidence_fixture *e = *state;
        struct reply reply;

        assert_int_equal(post(e, FORMAT_CMW_CBOR, FORMAT_NONE, TEXT("one"), NULL, NULL), CODE_CREATED);
        fixture_pass(e->f, 3);
        assert_int_equal(evidence_request(e, &e->identity, CODE_POST, "rats/evidence", FORMAT_CMW_CBOR, FORMAT_NONE,
                                          TEXT("two"), &reply),
                         CODE_TOO_MANY_REQUESTS);
        assert_int_equal(reply.max_age_sec, 7);
        buffer_free(&reply.payload);
        fixture_pass(e->f, 7);
        assert_int_equal(post(e, FORMAT_CMW_CBOR, FORMAT_NONE, TEXT("two"), NULL, NULL), CODE_CREATED);
}

/* ---- what is refused ---- */

static void evidence_under_another_key_is_forbidden_and_an_event_says_so(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(key_freep) EVP_PKEY *other = EVP_EC_gen("P-256"), *longer = EVP_EC_gen("P-384");
        EVP_PKEY *keys[] = { other, longer };

        for (size_t i = 0; i < ELEMENTS(keys); i++) {
                _cleanup_(buffer_free) struct buffer evidence = {};

                make(e, (struct evidence_options){ .key = keys[i] }, &evidence);
                fixture_commit(e->f);
                assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), NULL, NULL),
                                 CODE_FORBIDDEN);
                assert_int_equal(events(e, EVENT_EVIDENCE_REFUSED), 1);
                assert_false(store_is_changed(e->f->store));
        }
        assert_int_equal(sequence_next(e), 1);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_NONE);
}

static void any_changed_byte_is_refused_and_changes_nothing(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};
        const uint8_t *kid;

        make(e, (struct evidence_options){ 0 }, &evidence);
        kid = memmem(evidence.data, evidence.size, "sensor-1", 8);
        assert_non_null(kid);
        fixture_commit(e->f);
        for (size_t i = 0; i < evidence.size; i++) {
                uint8_t code;

                /* The kid in the unprotected header, 4: "sensor-1", is a hint that nobody has signed. */
                if (&evidence.data[i] >= kid - 2 && &evidence.data[i] < kid + 8)
                        continue;
                evidence.data[i] ^= 0x04;
                code = post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), NULL, NULL);
                evidence.data[i] ^= 0x04;
                if (code == CODE_CREATED)
                        fail_msg("byte %zu of %zu", i, evidence.size);
                assert_true(code == CODE_BAD_REQUEST || code == CODE_FORBIDDEN || code == CODE_UNPROCESSABLE);
                assert_false(store_is_changed(e->f->store));
        }
        assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), NULL, NULL), CODE_CREATED);
}

static void malformed_requests_get_the_code_of_their_kind(void **state) {
        static const struct {
                int32_t content_format, accept;
                const char *payload;
                uint8_t code;
        } cases[] = {
                { FORMAT_NONE, FORMAT_NONE, "x", CODE_UNSUPPORTED_FORMAT },
                { FORMAT_EAT_CWT, FORMAT_NONE, "", CODE_BAD_REQUEST },
                { FORMAT_CMW_CBOR, FORMAT_NONE, "", CODE_BAD_REQUEST },
                { FORMAT_EAT_CWT, FORMAT_NONE, "not CBOR", CODE_BAD_REQUEST },
                { FORMAT_EAT_CWT, FORMAT_TEXT, "x", CODE_NOT_ACCEPTABLE },
        };
        struct evidence_fixture *e = *state;

        fixture_commit(e->f);
        for (size_t i = 0; i < ELEMENTS(cases); i++)
                assert_int_equal(
                        post(e, cases[i].content_format, cases[i].accept, bytes_of(cases[i].payload), NULL, NULL),
                        cases[i].code);
        assert_false(store_is_changed(e->f->store));
}

static void a_full_backlog_leaves_the_evidence_with_the_device(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};
        struct reply reply;

        e->f->config.backlog_records = 2;
        evidence_give(e, &e->identity, NULL);
        fixture_pass(e->f, 7 * FIXTURE_DAY);
        evidence_give(e, &e->identity, NULL);
        fixture_commit(e->f);
        make(e, (struct evidence_options){ 0 }, &evidence);
        fixture_commit(e->f);
        assert_int_equal(evidence_request(e, &e->identity, CODE_POST, "rats/evidence", FORMAT_EAT_CWT, FORMAT_NONE,
                                          buffer_bytes(&evidence), &reply),
                         CODE_UNAVAILABLE);
        assert_int_equal(reply.max_age_sec, 600);
        assert_int_equal(events(e, EVENT_BACKLOG_FULL), 1);
        buffer_free(&reply.payload);
        /* There is room again: the same evidence, the same challenge. */
        assert_int_equal(relay_delivered(e->turn, 1), 0);
        assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), NULL, NULL),
                         CODE_TOO_MANY_REQUESTS);
        assert_int_equal(relay_delivered(e->turn, 2), 0);
        assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), NULL, NULL), CODE_CREATED);
}

/* ---- what it does to a device ---- */

static void contraindicated_evidence_quarantines_and_affirming_evidence_lifts_it(void **state) {
        struct evidence_fixture *e = *state;
        char kid[DEVICE_ID_MAX + 1];
        struct device device;

        evidence_give(e, &e->identity, "6.6.6");
        device = fixture_device(e->f, "sensor-1");
        assert_int_equal(device.tier, TIER_CONTRAINDICATED);
        assert_int_equal(device.standing, STANDING_QUARANTINED);
        assert_int_equal(fixture_cred(e->f, &e->identity, kid, NULL), CODE_FORBIDDEN);
        assert_true(fixture_effects(e->f, EFFECT_NOTIFY_ME, "sensor-1") > 0);

        evidence_give(e, &e->identity, NULL);
        device = fixture_device(e->f, "sensor-1");
        assert_int_equal(device.tier, TIER_AFFIRMING);
        assert_int_equal(device.standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_cred(e->f, &e->identity, kid, NULL), CODE_CHANGED);
        assert_int_equal(fixture_audited(e->f, "sensor-1", EVENT_DEVICE_STANDING), 3); /* and operational, at first */
}

static void a_warning_neither_quarantines_nor_lifts(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};

        evidence_give(e, &e->identity, "6.6.6");
        make(e, (struct evidence_options){ .dbgstat = 1 }, &evidence);
        assert_int_equal(post(e, FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(&evidence), NULL, NULL), CODE_CREATED);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_WARNING);
        assert_int_equal(fixture_device(e->f, "sensor-1").standing, STANDING_QUARANTINED);
}

static void a_device_quarantined_before_it_was_operational_goes_back_to_registered(void **state) {
        struct evidence_fixture *e = *state;
        struct device device;
        const struct appraisal bad = { .tier = TIER_CONTRAINDICATED, .is_appraised = true, .reason = "x" };
        const struct appraisal good = { .tier = TIER_AFFIRMING, .is_appraised = true, .reason = "x" };

        fixture_add(e->f, "sensor-3", FIXTURE_ATTEST);
        device = fixture_device(e->f, "sensor-3");
        assert_int_equal(appraisal_apply(e->turn, &device, &bad), 0);
        assert_int_equal(fixture_device(e->f, "sensor-3").standing, STANDING_QUARANTINED);
        assert_int_equal(appraisal_apply(e->turn, &device, &good), 0);
        assert_int_equal(fixture_device(e->f, "sensor-3").standing, STANDING_REGISTERED);
}

static void affirming_evidence_answers_a_conflict_noticed_before_it(void **state) {
        struct evidence_fixture *e = *state;
        struct device device = fixture_device(e->f, "sensor-1");

        device.is_conflicted = true;
        device.conflicted = e->turn->now;
        assert_int_equal(device_update(e->f->store, &device), 0);
        fixture_pass(e->f, 10);
        evidence_give(e, &e->identity, "6.6.6");
        assert_true(fixture_device(e->f, "sensor-1").is_conflicted);
        evidence_give(e, &e->identity, NULL);
        assert_false(fixture_device(e->f, "sensor-1").is_conflicted);
}

static void after_a_compromise_affirming_evidence_opens_cred_in_its_own_session_alone(void **state) {
        struct evidence_fixture *e = *state;
        struct identity thief;
        char kid[DEVICE_ID_MAX + 1];
        struct problem problem;

        fixture_pass(e->f, 100);
        assert_true(registry_rotate(e->turn, "sensor-1", true, 0, &problem) >= 0);
        assert_int_equal(fixture_connect(e->f, e->identity.credential.identity, &thief), 0);
        assert_int_equal(fixture_cred(e->f, &e->identity, kid, NULL), CODE_FORBIDDEN);
        fixture_pass(e->f, 10);
        evidence_give(e, &e->identity, NULL);
        assert_false(fixture_device(e->f, "sensor-1").is_compromised);
        assert_int_equal(fixture_cred(e->f, &thief, kid, NULL), CODE_FORBIDDEN);
        assert_int_equal(fixture_cred(e->f, &e->identity, kid, NULL), CODE_CHANGED);
}

static void evidence_of_before_a_compromise_does_not_answer_it(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);
        struct problem problem;

        fixture_pass(e->f, 100);
        assert_true(registry_rotate(e->turn, "sensor-1", true, 0, &problem) >= 0);
        e->turn->actor = "upstream";
        assert_int_equal(relay_result(e->turn, sequence, TIER_AFFIRMING, (struct bytes){}), 0);
        assert_true(fixture_device(e->f, "sensor-1").is_compromised);
}

static void a_revoked_device_stays_revoked_whatever_upstream_says(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);
        struct problem problem;

        assert_true(registry_revoke(e->turn, "sensor-1", "stolen", &problem) >= 0);
        assert_int_equal(relay_result(e->turn, sequence, TIER_AFFIRMING, (struct bytes){}), 0);
        assert_int_equal(relay_result(e->turn, sequence, TIER_CONTRAINDICATED, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").standing, STANDING_REVOKED);
}

static void the_attest_bit_of_me_is_set_when_due_and_cleared_by_evidence(void **state) {
        struct evidence_fixture *e = *state;

        assert_int_equal(fixture_due(e->f, &e->identity) & DUE_ATTEST, DUE_ATTEST);
        evidence_give(e, &e->identity, NULL);
        assert_int_equal(fixture_due(e->f, &e->identity) & DUE_ATTEST, 0);
        fixture_pass_ticking(e->f, 7 * FIXTURE_DAY - 10);
        assert_int_equal(fixture_device(e->f, "sensor-1").due & DUE_ATTEST, 0);
        fixture_pass(e->f, 20);
        fixture_tick(e->f);
        assert_int_equal(fixture_device(e->f, "sensor-1").due & DUE_ATTEST, DUE_ATTEST);
}

static void evidence_not_appraised_leaves_attestation_due(void **state) {
        struct evidence_fixture *e = *state;

        evidence_give(e, &e->identity, NULL);
        fixture_pass(e->f, 8 * FIXTURE_DAY);
        assert_int_equal(post(e, FORMAT_CMW_CBOR, FORMAT_NONE, TEXT("junk"), NULL, NULL), CODE_CREATED);
        assert_int_equal(fixture_due(e->f, &e->identity) & DUE_ATTEST, DUE_ATTEST);
        evidence_give(e, &e->identity, NULL);
        assert_int_equal(fixture_due(e->f, &e->identity) & DUE_ATTEST, 0);
}

/* ---- /rats/result ---- */

static uint8_t result(struct evidence_fixture *e, int32_t accept, struct reply *reply) {
        return evidence_request(e, &e->identity, CODE_GET, "rats/result", FORMAT_NONE, accept, (struct bytes){}, reply);
}

static void a_result_is_the_latest_tier_and_its_age(void **state) {
        struct evidence_fixture *e = *state;
        struct reply reply;

        evidence_give(e, &e->identity, NULL);
        fixture_pass(e->f, 1000);
        assert_int_equal(result(e, FORMAT_NONE, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_CBOR);
        assert_int_equal(reply.max_age_sec, 86400);
        assert_true(bytes_equal(buffer_bytes(&reply.payload), hex("a20102031903e8")));
        buffer_free(&reply.payload);
        fixture_pass(e->f, 7 * FIXTURE_DAY - 1500);
        assert_int_equal(result(e, FORMAT_CBOR, &reply), CODE_CONTENT);
        assert_int_equal(reply.max_age_sec, 500);
        buffer_free(&reply.payload);
}

static void a_result_that_is_not_there_yet_is_unavailable_for_a_while(void **state) {
        struct evidence_fixture *e = *state;
        struct reply reply;

        assert_int_equal(result(e, FORMAT_NONE, &reply), CODE_UNAVAILABLE);
        assert_int_equal(reply.max_age_sec, 60);
        buffer_free(&reply.payload);
        assert_int_equal(post(e, FORMAT_CMW_CBOR, FORMAT_NONE, TEXT("x"), NULL, NULL), CODE_CREATED);
        assert_int_equal(result(e, FORMAT_NONE, &reply), CODE_UNAVAILABLE);
        buffer_free(&reply.payload);
        assert_int_equal(result(e, FORMAT_EAT_JWT, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
}

static void a_result_can_be_observed(void **state) {
        struct evidence_fixture *e = *state;
        struct request request = { .from = &e->identity, .accept = FORMAT_NONE, .observe = 0 };
        struct reply reply = { 0 };

        evidence_give(e, &e->identity, NULL);
        e->identity.device = fixture_device(e->f, "sensor-1");
        assert_int_equal(handle_result(e->turn, &request, &reply, NULL), 0);
        assert_true(reply.is_observed);
        buffer_free(&reply.payload);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, evidence_setup, evidence_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(evidence_that_matches_the_references_is_affirming),
                TEST(every_format_of_signed_evidence_is_appraised),
                TEST(the_published_psa_token_is_taken_from_the_device_whose_key_it_is),
                TEST(without_references_evidence_is_a_warning_and_the_device_stays_operational),
                TEST(without_a_registered_key_evidence_is_kept_not_appraised_and_spends_its_challenge),
                TEST(a_profile_that_does_not_attest_keeps_evidence_not_appraised),
                TEST(other_formats_are_kept_not_appraised_and_change_no_verdict),
                TEST(a_token_under_a_shared_key_is_kept_not_appraised),
                TEST(evidence_without_a_challenge_is_taken_only_so_often),
                TEST(evidence_under_another_key_is_forbidden_and_an_event_says_so),
                TEST(any_changed_byte_is_refused_and_changes_nothing),
                TEST(malformed_requests_get_the_code_of_their_kind),
                TEST(a_full_backlog_leaves_the_evidence_with_the_device),
                TEST(contraindicated_evidence_quarantines_and_affirming_evidence_lifts_it),
                TEST(a_warning_neither_quarantines_nor_lifts),
                TEST(a_device_quarantined_before_it_was_operational_goes_back_to_registered),
                TEST(affirming_evidence_answers_a_conflict_noticed_before_it),
                TEST(after_a_compromise_affirming_evidence_opens_cred_in_its_own_session_alone),
                TEST(evidence_of_before_a_compromise_does_not_answer_it),
                TEST(a_revoked_device_stays_revoked_whatever_upstream_says),
                TEST(the_attest_bit_of_me_is_set_when_due_and_cleared_by_evidence),
                TEST(evidence_not_appraised_leaves_attestation_due),
                TEST(a_result_is_the_latest_tier_and_its_age),
                TEST(a_result_that_is_not_there_yet_is_unavailable_for_a_while),
                TEST(a_result_can_be_observed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
