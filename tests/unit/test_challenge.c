/* SPDX-License-Identifier: Apache-2.0 */

/* Challenges: how they are given, to whom, how many, for how long, and that each is good for one piece of
 * evidence. */

#include "tests/unit/evidence_fixture.h"

static struct bytes nonce_bytes(const uint8_t nonce[NONCE_BYTES]) {
        return BYTES(nonce, NONCE_BYTES);
}

/* Posts evidence that answers `nonce`. */
static uint8_t answer(struct evidence_fixture *e, struct identity *from, const uint8_t *nonce, const char *swversion) {
        _cleanup_(buffer_free) struct buffer evidence = {};

        evidence_make(e, &(struct evidence_options){ .nonce = nonce_bytes(nonce), .swversion = swversion }, &evidence);
        return evidence_post(e, from, buffer_bytes(&evidence), NULL, NULL);
}

static void a_challenge_comes_as_cbor_with_its_life_and_the_formats_taken(void **state) {
        struct evidence_fixture *e = *state;
        struct reply reply;
        struct bytes payload, nonce, format;
        struct cbor_cursor cursor;
        int64_t value;

        assert_int_equal(evidence_request(e, &e->identity, CODE_POST, "rats/nonce", FORMAT_NONE, FORMAT_NONE,
                                          (struct bytes){}, &reply),
                         CODE_CREATED);
        assert_int_equal(reply.content_format, FORMAT_CBOR);
        payload = buffer_bytes(&reply.payload);
        assert_int_equal(cbor_check(payload, NULL), 0);
        assert_true(cbor_view_bytes(cbor_view_member(payload, 10), &nonce) && nonce.size == NONCE_BYTES);
        assert_true(cbor_view_int(cbor_view_member(payload, 1), &value) && value == 300);
        assert_true(cbor_view_enter(cbor_view_member(payload, 2), &cursor) && cursor.left == 5);
        assert_true(cbor_view_next(&cursor, &format) && cbor_view_int(format, &value) && value == FORMAT_EAT_CWT);
        /* Deterministic: keys 1, 2, 10 in the order of their encodings. */
        assert_memory_equal(payload.data,
                            "\xa3\x01\x19\x01\x2c\x02\x85\x19\x01\x07\x19\x27\x13\x19\x27\x14\x18\x3d\x12\x0a\x58\x20",
                            22);
        buffer_free(&reply.payload);
}

static void a_challenge_comes_as_32_raw_bytes_where_asked_for(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t nonce[NONCE_BYTES];
        struct challenge challenge;

        evidence_nonce(e, &e->identity, nonce);
        assert_int_equal(challenge_get(e->f->store, nonce_bytes(nonce), &challenge), 0);
        assert_string_equal(challenge.device, "sensor-1");
        assert_false(challenge.is_spent);
}

static void another_accept_or_a_body_is_refused(void **state) {
        struct evidence_fixture *e = *state;
        struct reply reply;

        assert_int_equal(evidence_request(e, &e->identity, CODE_POST, "rats/nonce", FORMAT_NONE, FORMAT_TEXT,
                                          (struct bytes){}, &reply),
                         CODE_NOT_ACCEPTABLE);
        assert_int_equal(reply.content_format, FORMAT_PROBLEM);
        buffer_free(&reply.payload);
        assert_int_equal(
                evidence_request(e, &e->identity, CODE_POST, "rats/nonce", FORMAT_NONE, FORMAT_NONE, TEXT("x"), &reply),
                CODE_BAD_REQUEST);
        buffer_free(&reply.payload);
}

static void each_request_gets_a_nonce_of_its_own(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t one[NONCE_BYTES], other[NONCE_BYTES];

        evidence_nonce(e, &e->identity, one);
        evidence_nonce(e, &e->identity, other);
        assert_memory_not_equal(one, other, NONCE_BYTES);
        assert_int_equal(answer(e, &e->identity, one, NULL), CODE_CREATED);
        assert_int_equal(answer(e, &e->identity, other, NULL), CODE_CREATED);
}

static void a_device_has_four_open_challenges_at_most_and_the_oldest_goes(void **state) {
        struct evidence_fixture *e = *state;
        struct identity another = evidence_another(e, "sensor-2");
        uint8_t nonces[5][NONCE_BYTES], of_another[NONCE_BYTES];

        evidence_nonce(e, &another, of_another);
        for (size_t i = 0; i < ELEMENTS(nonces); i++)
                evidence_nonce(e, &e->identity, nonces[i]);
        assert_int_equal(answer(e, &e->identity, nonces[0], NULL), CODE_UNPROCESSABLE);
        for (size_t i = 1; i < ELEMENTS(nonces); i++)
                assert_int_equal(answer(e, &e->identity, nonces[i], NULL), CODE_CREATED);
        assert_int_equal(answer(e, &another, of_another, NULL), CODE_CREATED);
}

static void the_same_evidence_again_gets_the_same_answer_and_changes_nothing(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};
        uint8_t nonce[NONCE_BYTES];
        struct reply first, again;
        struct store_meta before, after;

        evidence_nonce(e, &e->identity, nonce);
        evidence_make(e, &(struct evidence_options){ .nonce = nonce_bytes(nonce) }, &evidence);
        evidence_request(e, &e->identity, CODE_POST, "rats/evidence", FORMAT_EAT_CWT, FORMAT_NONE,
                         buffer_bytes(&evidence), &first);
        assert_int_equal(store_meta_get(e->f->store, &before), 0);
        fixture_commit(e->f);
        /* Also long after the challenge would have expired. */
        fixture_pass(e->f, 3600);
        evidence_request(e, &e->identity, CODE_POST, "rats/evidence", FORMAT_EAT_CWT, FORMAT_NONE,
                         buffer_bytes(&evidence), &again);
        assert_int_equal(first.code, CODE_CREATED);
        assert_int_equal(again.code, CODE_CREATED);
        assert_true(bytes_equal(buffer_bytes(&first.payload), buffer_bytes(&again.payload)));
        assert_int_equal(store_meta_get(e->f->store, &after), 0);
        assert_int_equal(after.next_sequence, before.next_sequence);
        assert_false(store_is_changed(e->f->store));
        assert_int_equal(fixture_effects(e->f, EFFECT_RELAY, NULL), 0);
        buffer_free(&first.payload);
        buffer_free(&again.payload);
}

static void other_evidence_for_a_spent_challenge_is_a_conflict(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t nonce[NONCE_BYTES];

        evidence_nonce(e, &e->identity, nonce);
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_CREATED);
        assert_int_equal(answer(e, &e->identity, nonce, "1.3"), CODE_CONFLICT);
        assert_int_equal(fixture_device(e->f, "sensor-1").tier, TIER_AFFIRMING);
}

static void a_nonce_that_was_never_given_is_unprocessable(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t nonce[NONCE_BYTES] = { 1, 2, 3 };

        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_UNPROCESSABLE);
}

static void evidence_whose_nonce_is_shorter_than_ours_is_unprocessable(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer evidence = {};
        uint8_t nonce[NONCE_BYTES];

        evidence_nonce(e, &e->identity, nonce);
        evidence_make(e, &(struct evidence_options){ .nonce = BYTES(nonce, 8) }, &evidence);
        assert_int_equal(evidence_post(e, &e->identity, buffer_bytes(&evidence), NULL, NULL), CODE_UNPROCESSABLE);
}

static void a_challenge_of_another_device_is_forbidden(void **state) {
        struct evidence_fixture *e = *state;
        struct identity another = evidence_another(e, "sensor-2");
        uint8_t nonce[NONCE_BYTES];

        evidence_nonce(e, &another, nonce);
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_FORBIDDEN);
        assert_int_equal(answer(e, &another, nonce, NULL), CODE_CREATED);
        /* Nor does somebody else's evidence get its answer by being repeated. */
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_FORBIDDEN);
}

static void a_challenge_expires_by_powered_on_time(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t nonce[NONCE_BYTES];

        evidence_nonce(e, &e->identity, nonce);
        e->turn->now.powered_sec += 300;
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_CREATED);
        evidence_nonce(e, &e->identity, nonce);
        e->turn->now.powered_sec += 301;
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_UNPROCESSABLE);
}

static void a_challenge_expires_by_wall_time_where_that_is_trusted(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t nonce[NONCE_BYTES];

        evidence_nonce(e, &e->identity, nonce);
        e->turn->now.wall += 301;
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_UNPROCESSABLE);
        e->turn->now.wall_trusted = false;
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_CREATED);
}

static void a_refused_answer_does_not_spend_the_challenge(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(key_freep) EVP_PKEY *other = EVP_EC_gen("P-256");
        _cleanup_(buffer_free) struct buffer evidence = {};
        uint8_t nonce[NONCE_BYTES];

        evidence_nonce(e, &e->identity, nonce);
        evidence_make(e, &(struct evidence_options){ .nonce = nonce_bytes(nonce), .key = other }, &evidence);
        assert_int_equal(evidence_post(e, &e->identity, buffer_bytes(&evidence), NULL, NULL), CODE_FORBIDDEN);
        assert_int_equal(answer(e, &e->identity, nonce, NULL), CODE_CREATED);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, evidence_setup, evidence_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(a_challenge_comes_as_cbor_with_its_life_and_the_formats_taken),
                TEST(a_challenge_comes_as_32_raw_bytes_where_asked_for),
                TEST(another_accept_or_a_body_is_refused),
                TEST(each_request_gets_a_nonce_of_its_own),
                TEST(a_device_has_four_open_challenges_at_most_and_the_oldest_goes),
                TEST(the_same_evidence_again_gets_the_same_answer_and_changes_nothing),
                TEST(other_evidence_for_a_spent_challenge_is_a_conflict),
                TEST(a_nonce_that_was_never_given_is_unprocessable),
                TEST(evidence_whose_nonce_is_shorter_than_ours_is_unprocessable),
                TEST(a_challenge_of_another_device_is_forbidden),
                TEST(a_challenge_expires_by_powered_on_time),
                TEST(a_challenge_expires_by_wall_time_where_that_is_trusted),
                TEST(a_refused_answer_does_not_spend_the_challenge),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
