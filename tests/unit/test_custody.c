/* SPDX-License-Identifier: Apache-2.0 */

/* Receipts and their chain, the room for evidence, and what upstream reports of it. */

#include "tests/unit/evidence_fixture.h"

#include <errno.h>
#include <openssl/sha.h>

/* A copy of what the store has of one record. */
struct record {
        struct custody custody;
        uint8_t receipt[1024], evidence[1024];
};

static int copy(void *userdata, const struct custody *custody) {
        struct record *record = userdata;

        record->custody = *custody;
        assert_true(custody->receipt.size <= sizeof record->receipt &&
                    custody->evidence.size <= sizeof record->evidence);
        if (custody->receipt.size > 0)
                memcpy(record->receipt, custody->receipt.data, custody->receipt.size);
        if (custody->evidence.size > 0)
                memcpy(record->evidence, custody->evidence.data, custody->evidence.size);
        record->custody.receipt.data = record->receipt;
        record->custody.evidence.data = record->evidence;
        return 0;
}

static struct record *record_get(struct evidence_fixture *e, uint64_t sequence) {
        static struct record records[8];
        struct record *record = &records[sequence % 8];

        assert_int_equal(custody_get(e->f->store, sequence, copy, record), 0);
        return record;
}

/* The claims of a receipt whose signature is good. */
static struct bytes claims_of(struct evidence_fixture *e, const struct record *record) {
        struct cose_sign1 sign1;

        assert_int_equal(cose_sign1_parse(record->custody.receipt, &sign1, NULL), 0);
        assert_int_equal(cose_sign1_verify(&sign1, e->custodian.key, NULL), 0);
        assert_true(bytes_equal(sign1.kid, BYTES(e->custodian.kid, sizeof e->custodian.kid)));
        assert_int_equal(sign1.algorithm, COSE_ES256);
        assert_int_equal(cbor_check(sign1.payload, NULL), 0);
        return sign1.payload;
}

static int64_t claim_int(struct bytes claims, enum receipt_claim claim) {
        int64_t value;

        assert_true(cbor_view_int(cbor_view_member(claims, claim), &value));
        return value;
}

static struct bytes claim_bytes(struct bytes claims, enum receipt_claim claim) {
        struct bytes value;

        if (!cbor_view_bytes(cbor_view_member(claims, claim), &value))
                assert_true(cbor_view_text(cbor_view_member(claims, claim), &value));
        return value;
}

static void a_receipt_says_what_was_received_when_and_from_whom(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);
        struct record *record = record_get(e, sequence);
        struct bytes claims = claims_of(e, record), appraisal;
        uint8_t digest[32];
        struct store_meta meta;
        int64_t value;

        assert_int_equal(store_meta_get(e->f->store, &meta), 0);
        assert_true(bytes_equal(claim_bytes(claims, RECEIPT_GATEWAY), TEXT("gateway-1")));
        assert_true(bytes_equal(claim_bytes(claims, RECEIPT_INCARNATION), BYTES(meta.incarnation, 8)));
        assert_int_equal(claim_int(claims, RECEIPT_SEQUENCE), 1);
        assert_true(bytes_equal(claim_bytes(claims, RECEIPT_DEVICE), TEXT("sensor-1")));
        assert_int_equal(claim_int(claims, RECEIPT_RECEIVED), e->turn->now.wall);
        assert_int_equal(claim_int(claims, RECEIPT_QUALITY), CLOCK_SYNCHRONIZED);
        assert_true(bytes_equal(claim_bytes(claims, RECEIPT_NONCE), BYTES(record->custody.nonce, 32)));
        assert_int_equal(claim_int(claims, RECEIPT_FORMAT), FORMAT_EAT_CWT);
        SHA256(record->custody.evidence.data, record->custody.evidence.size, digest);
        assert_true(bytes_equal(claim_bytes(claims, RECEIPT_DIGEST), BYTES(digest, 32)));
        assert_int_equal(claim_int(claims, RECEIPT_POWERED), e->turn->now.powered_sec);
        appraisal = cbor_view_member(claims, RECEIPT_APPRAISAL);
        assert_true(cbor_view_int(cbor_view_member(appraisal, 0), &value) && value == TIER_AFFIRMING);
        assert_true(bytes_equal(cbor_view_member(appraisal, 1), hex("a200020202")));
}

static void each_receipt_holds_the_hash_of_the_one_before(void **state) {
        static const uint8_t zeros[32];
        struct evidence_fixture *e = *state;
        struct identity another = evidence_another(e, "sensor-2");
        uint8_t hash[32];
        struct store_meta meta;

        for (uint64_t i = 1; i <= 6; i++)
                assert_int_equal(evidence_give(e, i % 2 ? &e->identity : &another, NULL), i);
        for (uint64_t i = 1; i <= 6; i++) {
                struct record *record = record_get(e, i);
                struct bytes previous = claim_bytes(claims_of(e, record), RECEIPT_PREVIOUS);

                assert_true(bytes_equal(previous, BYTES(i == 1 ? zeros : hash, 32)));
                assert_int_equal(claim_int(claims_of(e, record), RECEIPT_SEQUENCE), (int64_t)i);
                SHA256(record->custody.receipt.data, record->custody.receipt.size, hash);
        }
        assert_int_equal(store_meta_get(e->f->store, &meta), 0);
        assert_memory_equal(meta.last_receipt_hash, hash, 32);
}

static void a_request_that_is_rolled_back_leaves_no_gap_in_the_chain(void **state) {
        struct evidence_fixture *e = *state;
        const struct appraisal none = { .reason = "x" };
        uint64_t sequence;

        evidence_give(e, &e->identity, NULL);
        assert_int_equal(store_savepoint(e->f->store), 0);
        assert_int_equal(
                custody_record(e->turn, &e->custodian, "sensor-1", 60, NULL, TEXT("lost"), &none, &sequence, NULL), 0);
        assert_int_equal(sequence, 2);
        assert_int_equal(store_savepoint_rollback(e->f->store), 0);
        assert_int_equal(evidence_give(e, &e->identity, NULL), 2);
        claims_of(e, record_get(e, 2));
}

static void a_receipt_of_evidence_not_appraised_says_so(void **state) {
        struct evidence_fixture *e = *state;
        const struct appraisal none = { .reason = "not appraised here: x" };
        uint64_t sequence;
        struct bytes claims, appraisal, reason;

        e->turn->now.quality = CLOCK_UNKNOWN;
        assert_int_equal(
                custody_record(e->turn, &e->custodian, "sensor-1", 273, NULL, TEXT("?"), &none, &sequence, NULL), 0);
        claims = claims_of(e, record_get(e, sequence));
        appraisal = cbor_view_member(claims, RECEIPT_APPRAISAL);
        assert_true(cbor_view_is_null(cbor_view_member(appraisal, 1)));
        assert_true(cbor_view_text(cbor_view_member(appraisal, 2), &reason) &&
                    bytes_equal(reason, bytes_of(none.reason)));
        assert_int_equal(claim_bytes(claims, RECEIPT_NONCE).size, 0);
        assert_int_equal(claim_int(claims, RECEIPT_QUALITY), CLOCK_UNKNOWN);
        assert_int_equal(claim_int(claims, RECEIPT_FORMAT), 273);
}

static void the_receipt_key_is_made_once_and_kept(void **state) {
        struct evidence_fixture *e = *state;
        struct custodian again;

        assert_int_equal(custodian_open(e->turn, "gateway-1", &again), 0);
        assert_int_equal(EVP_PKEY_eq(again.key, e->custodian.key), 1);
        assert_memory_equal(again.kid, e->custodian.kid, sizeof again.kid);
        custodian_close(&again);
        assert_null(again.key);
}

static void a_receipt_key_that_cannot_be_read_is_an_error(void **state) {
        struct evidence_fixture *e = *state;
        struct custodian again = { 0 };

        assert_int_equal(store_own_secret_put(e->f->store, "receipt-key", TEXT("no key")), 0);
        assert_int_equal(custodian_open(e->turn, "gateway-1", &again), -EBADMSG);
        assert_null(again.key);
}

/* ---- room ---- */

static void evidence_beyond_the_backlog_is_refused_by_count_and_by_size(void **state) {
        struct evidence_fixture *e = *state;
        const struct appraisal none = { .reason = "x" };
        struct problem problem;
        uint64_t sequence = 0;

        e->f->config.backlog_records = 1;
        assert_int_equal(
                custody_record(e->turn, &e->custodian, "sensor-1", 60, NULL, TEXT("1"), &none, &sequence, &problem), 0);
        assert_int_equal(
                custody_record(e->turn, &e->custodian, "sensor-1", 60, NULL, TEXT("2"), &none, &sequence, &problem),
                -ENOSPC);
        assert_int_equal(problem.code, CODE_UNAVAILABLE);
        assert_int_equal(problem.max_age_sec, 600);
        e->f->config.backlog_records = 100;
        e->f->config.backlog_bytes = 10;
        assert_int_equal(custody_record(e->turn, &e->custodian, "sensor-1", 60, NULL, TEXT("0123456789a"), &none,
                                        &sequence, &problem),
                         -ENOSPC);
        assert_int_equal(sequence, 1);
}

static void when_the_backlog_is_half_full_a_talkative_device_waits_and_others_do_not(void **state) {
        struct evidence_fixture *e = *state;
        const struct profile *profile = &e->f->profiles[FIXTURE_ATTEST];
        struct device talkative = { .evidence_last = e->turn->now }, quiet = { 0 };
        const struct appraisal none = { .reason = "x" };
        struct problem problem = { 0 };
        uint64_t sequence;

        e->f->config.backlog_records = 4;
        for (int i = 0; i < 2; i++) {
                assert_int_equal(custody_admit(e->turn, &talkative, profile, 1, &problem), 0);
                assert_int_equal(
                        custody_record(e->turn, &e->custodian, "sensor-1", 60, NULL, TEXT("1"), &none, &sequence, NULL),
                        0);
        }
        assert_int_equal(custody_admit(e->turn, &talkative, profile, 1, &problem), -EBUSY);
        assert_int_equal(problem.code, CODE_TOO_MANY_REQUESTS);
        assert_int_equal(problem.max_age_sec, 7 * FIXTURE_DAY / 4);
        assert_int_equal(custody_admit(e->turn, &quiet, profile, 1, &problem), 0);
        fixture_pass(e->f, 7 * FIXTURE_DAY / 4);
        assert_int_equal(custody_admit(e->turn, &talkative, profile, 1, &problem), 0);
}

/* ---- what north reports ---- */

static size_t relayed(struct evidence_fixture *e, uint64_t *ret_count) {
        size_t events = 0;

        for (size_t i = 0; i < e->turn->effect_count; i++)
                if (e->turn->effects[i].kind == EFFECT_EVENT &&
                    e->turn->effects[i].event.kind == EVENT_EVIDENCE_RELAYED) {
                        events++;
                        *ret_count = e->turn->effects[i].event.count;
                }
        return events;
}

static struct backlog backlog_get(struct evidence_fixture *e) {
        struct backlog backlog;

        assert_int_equal(custody_backlog(e->f->store, &backlog), 0);
        return backlog;
}

static void a_delivered_record_leaves_the_backlog_once_and_one_event_counts_them(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t count = 0;

        for (int i = 0; i < 5; i++)
                evidence_give(e, &e->identity, NULL);
        fixture_commit(e->f);
        for (uint64_t i = 1; i <= 4; i++)
                assert_int_equal(relay_delivered(e->turn, i), 0);
        assert_int_equal(relay_delivered(e->turn, 2), 0);
        assert_int_equal(relay_delivered(e->turn, 77), 0);
        assert_int_equal(backlog_get(e).records, 1);
        assert_int_equal(backlog_get(e).delivered, 4);
        assert_int_equal(relayed(e, &count), 1);
        assert_int_equal(count, 4);
}

static void a_parked_record_is_told_once_and_its_receipt_still_goes(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t count = 0;
        struct record *record;

        evidence_give(e, &e->identity, NULL);
        evidence_give(e, &e->identity, NULL);
        fixture_commit(e->f);
        for (int i = 0; i < 2; i++)
                assert_int_equal(relay_parked(e->turn, 1, 400, TEXT("bad nonce")), 0);
        assert_int_equal(fixture_audited(e->f, "sensor-1", EVENT_EVIDENCE_PARKED), 1);
        assert_int_equal(backlog_get(e).records, 2);
        assert_int_equal(backlog_get(e).parked, 1);
        for (int i = 0; i < 2; i++)
                assert_int_equal(relay_delivered(e->turn, 1), 0);
        assert_int_equal(relayed(e, &count), 1);
        assert_int_equal(count, 1);
        assert_int_equal(backlog_get(e).records, 1);
        record = record_get(e, 1);
        assert_int_equal(record->custody.receipt.size, 0);
        assert_true(record->custody.evidence.size > 0); /* kept for the operator */
        assert_int_equal(relay_parked(e->turn, 77, 400, TEXT("x")), 0);
        assert_int_equal(relay_parked(e->turn, 1, 400, TEXT("x")), 0);
        assert_int_equal(fixture_audited(e->f, "sensor-1", EVENT_EVIDENCE_PARKED), 1);
}

static void a_long_reason_for_parking_is_cut(void **state) {
        struct evidence_fixture *e = *state;
        char reason[1000];

        memset(reason, 'x', sizeof reason);
        evidence_give(e, &e->identity, NULL);
        assert_int_equal(relay_parked(e->turn, 1, 413, BYTES(reason, sizeof reason)), 0);
        assert_int_equal(backlog_get(e).parked, 1);
}

static void a_result_of_the_latest_evidence_is_applied_also_after_delivery(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);

        assert_int_equal(relay_delivered(e->turn, sequence), 0);
        assert_int_equal(relay_result(e->turn, sequence, TIER_CONTRAINDICATED, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_CONTRAINDICATED);
        assert_int_equal(fixture_device(e->f, "sensor-1").standing, STANDING_QUARANTINED);
        assert_int_equal(relay_result(e->turn, sequence, TIER_AFFIRMING, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").standing, STANDING_OPERATIONAL);
}

static void a_result_of_older_evidence_says_nothing_about_the_device_now(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t older = evidence_give(e, &e->identity, NULL);

        fixture_pass(e->f, 7 * FIXTURE_DAY);
        evidence_give(e, &e->identity, NULL);
        assert_int_equal(relay_result(e->turn, older, TIER_CONTRAINDICATED, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_AFFIRMING);
}

static void evidence_that_nobody_judged_keeps_no_verdict_away(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);
        struct reply reply;

        fixture_pass(e->f, 60);
        assert_int_equal(evidence_request(e, &e->identity, CODE_POST, "rats/evidence", FORMAT_CMW_CBOR, FORMAT_NONE,
                                          TEXT("junk"), &reply),
                         CODE_CREATED);
        buffer_free(&reply.payload);
        assert_int_equal(relay_result(e->turn, sequence, TIER_CONTRAINDICATED, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_CONTRAINDICATED);
}

static void a_verdict_that_comes_late_is_as_old_as_its_evidence(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);
        int64_t given = e->turn->now.powered_sec;

        fixture_pass(e->f, 5 * FIXTURE_DAY);
        assert_int_equal(relay_result(e->turn, sequence, TIER_AFFIRMING, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").appraised.powered_sec, given);
        assert_int_equal(fixture_device(e->f, "sensor-1").affirmed.powered_sec, given);
}

static void a_result_without_a_verdict_changes_nothing(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);

        assert_int_equal(relay_result(e->turn, sequence, TIER_NONE, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_AFFIRMING);
        assert_int_equal(relay_result(e->turn, sequence, 7, (struct bytes){}), -EBADMSG);
        assert_int_equal(relay_result(e->turn, 77, TIER_AFFIRMING, (struct bytes){}), 0);
}

static void a_verdict_upstream_on_evidence_not_verified_here_answers_no_conflict(void **state) {
        struct evidence_fixture *e = *state;
        struct device device = fixture_device(e->f, "sensor-1");
        const struct appraisal none = { .reason = "x" };
        uint64_t sequence;

        device.is_conflicted = true;
        device.conflicted = e->turn->now;
        assert_int_equal(device_update(e->f->store, &device), 0);
        assert_int_equal(
                custody_record(e->turn, &e->custodian, "sensor-1", 273, NULL, TEXT("?"), &none, &sequence, NULL), 0);
        assert_int_equal(relay_result(e->turn, sequence, TIER_AFFIRMING, (struct bytes){}), 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_AFFIRMING);
        assert_true(fixture_device(e->f, "sensor-1").is_conflicted);
}

static void results_for_a_device_that_was_removed_are_passed_over(void **state) {
        struct evidence_fixture *e = *state;
        uint64_t sequence = evidence_give(e, &e->identity, NULL);

        assert_int_equal(device_remove(e->f->store, "sensor-1"), 0);
        assert_int_equal(relay_result(e->turn, sequence, TIER_AFFIRMING, (struct bytes){}), 0);
        assert_int_equal(relay_delivered(e->turn, sequence), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, evidence_setup, evidence_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(a_receipt_says_what_was_received_when_and_from_whom),
                TEST(each_receipt_holds_the_hash_of_the_one_before),
                TEST(a_request_that_is_rolled_back_leaves_no_gap_in_the_chain),
                TEST(a_receipt_of_evidence_not_appraised_says_so),
                TEST(the_receipt_key_is_made_once_and_kept),
                TEST(a_receipt_key_that_cannot_be_read_is_an_error),
                TEST(evidence_beyond_the_backlog_is_refused_by_count_and_by_size),
                TEST(when_the_backlog_is_half_full_a_talkative_device_waits_and_others_do_not),
                TEST(a_delivered_record_leaves_the_backlog_once_and_one_event_counts_them),
                TEST(a_parked_record_is_told_once_and_its_receipt_still_goes),
                TEST(a_long_reason_for_parking_is_cut),
                TEST(a_result_of_the_latest_evidence_is_applied_also_after_delivery),
                TEST(a_result_of_older_evidence_says_nothing_about_the_device_now),
                TEST(evidence_that_nobody_judged_keeps_no_verdict_away),
                TEST(a_verdict_that_comes_late_is_as_old_as_its_evidence),
                TEST(a_result_without_a_verdict_changes_nothing),
                TEST(a_verdict_upstream_on_evidence_not_verified_here_answers_no_conflict),
                TEST(results_for_a_device_that_was_removed_are_passed_over),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
