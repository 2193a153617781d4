/* SPDX-License-Identifier: Apache-2.0 */

/* POST /cred: who gets which key, as which bytes, and what becomes of it. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/cbor.h"
#include "tests/unit/devices_fixture.h"

#define ID_SIZE (DEVICE_ID_MAX + 1)

static struct identity connected(struct fixture *f, const char *identity) {
        struct identity ret;

        assert_int_equal(fixture_connect(f, identity, &ret), 0);
        return ret;
}

static uint8_t ask(struct fixture *f, struct identity *from, int32_t accept, struct bytes body, struct reply *reply) {
        return fixture_request(f, from, CODE_POST, "cred", accept, body, reply);
}

/* ---- the way of a key ---- */

static void a_factory_key_gets_an_operational_key_that_its_first_handshake_activates(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
        assert_int_equal(fixture_cred(f, &identity, kid, NULL), CODE_CHANGED);
        assert_int_equal(fixture_state(f, kid), KEY_PRE_ACTIVE);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_REGISTERED);
        identity = connected(f, kid);
        assert_int_equal(fixture_state(f, kid), KEY_ACTIVE);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_RETIRING);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_due(f, &identity), 0);
}

static void a_rotation_retires_the_predecessor_and_ends_it_after_the_grace(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE], before[ID_SIZE];
        struct secret secret;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        memcpy(before, kid, sizeof kid);
        fixture_rotate(f, kid);
        assert_string_not_equal(before, kid);
        assert_int_equal(fixture_state(f, before), KEY_RETIRING);
        fixture_pass_ticking(f, 6 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, before), KEY_RETIRING);
        fixture_pass(f, 2 * FIXTURE_DAY);
        assert_int_equal(schedule_tick(&f->turn, 16), 1);
        assert_int_equal(fixture_effects(f, EFFECT_EVICT_KEY, "sensor-1"), 2); /* and the factory key */
        assert_int_equal(fixture_state(f, before), KEY_DEACTIVATED);
        assert_int_equal(credential_secret(f->store, before, &secret), -ENOENT);
        fixture_pass_ticking(f, 91 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, before), KEY_DESTROYED);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_ISSUED), 2);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_ACTIVATED), 2);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_CONFIRMED), 2);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_DEACTIVATED), 2);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_DESTROYED), 1);
}

/* ---- who shares a key with whom ---- */

static void asking_again_in_one_session_gets_the_same_grant_to_the_byte(void **state) {
        struct fixture *f = *state;
        struct reply first, again;
        struct identity identity;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_int_equal(ask(f, &identity, FORMAT_NONE, BYTES(NULL, 0), &first), CODE_CHANGED);
        fixture_pass(f, 100);
        assert_int_equal(ask(f, &identity, FORMAT_NONE, BYTES(NULL, 0), &again), CODE_CHANGED);
        assert_int_equal(first.payload.size, again.payload.size);
        assert_memory_equal(first.payload.data, again.payload.data, first.payload.size);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_ISSUED), 1);
        buffer_free(&first.payload);
        buffer_free(&again.payload);
}

static void another_session_gets_a_key_of_its_own_and_the_first_proven_ends_the_other(void **state) {
        struct fixture *f = *state;
        struct identity device, thief, ignored;
        char kid[ID_SIZE], stolen[ID_SIZE], old[ID_SIZE];
        struct secret key, stolen_key;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", old);
        device = connected(f, old);
        thief = connected(f, old);
        assert_int_equal(fixture_cred(f, &thief, stolen, &stolen_key), CODE_CHANGED);
        assert_int_equal(fixture_cred(f, &device, kid, &key), CODE_CHANGED);
        assert_string_not_equal(kid, stolen);
        assert_false(secret_equal(&key, &stolen_key));
        (void)connected(f, kid);
        assert_int_equal(fixture_state(f, stolen), KEY_DESTROYED);
        assert_int_equal(fixture_connect(f, stolen, &ignored), -ENOENT);
}

static void whoever_comes_second_with_the_old_key_is_a_conflict_that_shows(void **state) {
        struct fixture *f = *state;
        struct identity device, thief;
        char kid[ID_SIZE], stolen[ID_SIZE], old[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", old);
        thief = connected(f, old);
        assert_int_equal(fixture_cred(f, &thief, stolen, NULL), CODE_CHANGED);
        (void)connected(f, stolen);
        fixture_pass(f, 10);
        device = connected(f, old);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_CONFLICT), 1);
        assert_int_equal(fixture_cred(f, &device, kid, NULL), CODE_FORBIDDEN);
        assert_int_equal(fixture_due(f, &device), DUE_ROTATE | DUE_ATTEST);
        fixture_attest(f, &device);
        assert_int_equal(fixture_due(f, &device), DUE_ROTATE);
        assert_int_equal(fixture_cred(f, &device, kid, NULL), CODE_CHANGED);
        (void)connected(f, kid);
        /* Evidence decided: the thief's key ends at once, not after a grace. */
        assert_int_equal(fixture_state(f, stolen), KEY_DEACTIVATED);
        assert_int_equal(fixture_state(f, old), KEY_RETIRING);
        /* The evidence has served: one more key over the old one takes new evidence. */
        assert_int_equal(fixture_cred(f, &device, kid, NULL), CODE_FORBIDDEN);
}

static void evidence_opens_cred_in_the_session_in_which_it_came_and_in_no_other(void **state) {
        struct fixture *f = *state;
        struct identity device, thief;
        char old[ID_SIZE], kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", old);
        memcpy(kid, old, sizeof kid);
        fixture_rotate(f, kid);
        fixture_pass(f, 10);
        thief = connected(f, old);
        device = connected(f, old);
        fixture_attest(f, &device);
        assert_int_equal(fixture_cred(f, &thief, kid, NULL), CODE_FORBIDDEN);
        assert_int_equal(fixture_cred(f, &device, kid, NULL), CODE_CHANGED);
}

static void evidence_over_the_newest_key_opens_nothing_to_an_old_one(void **state) {
        struct fixture *f = *state;
        struct identity device, thief;
        char old[ID_SIZE], kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", old);
        memcpy(kid, old, sizeof kid);
        fixture_rotate(f, kid);
        fixture_pass(f, 10);
        thief = connected(f, old);
        device = connected(f, kid);
        fixture_attest(f, &device);
        assert_false(fixture_device(f, "sensor-1").is_conflicted);
        assert_int_equal(fixture_cred(f, &thief, kid, NULL), CODE_FORBIDDEN);
}

static void evidence_over_a_key_in_good_standing_leaves_no_mark_on_it(void **state) {
        struct fixture *f = *state;
        struct credential credential;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        identity = connected(f, "sensor-1");
        fixture_attest(f, &identity);
        fixture_provision(f, "sensor-1", kid);
        identity = connected(f, kid);
        fixture_attest(f, &identity);
        assert_int_equal(credential_get(f->store, bytes_of(kid), &credential), 0);
        assert_int_equal(credential.session, 0);
        assert_int_equal(credential_get(f->store, TEXT("sensor-1"), &credential), 0);
        assert_int_equal(credential.session, 0);
}

static void at_most_four_unproven_keys_and_the_oldest_is_dropped_and_counted(void **state) {
        struct fixture *f = *state;
        char kids[6][ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        for (size_t i = 0; i < 6; i++) {
                struct identity identity = connected(f, "sensor-1");

                assert_int_equal(fixture_cred(f, &identity, kids[i], NULL), CODE_CHANGED);
        }
        for (size_t i = 0; i < 6; i++)
                assert_int_equal(fixture_state(f, kids[i]), i < 2 ? KEY_DESTROYED : KEY_PRE_ACTIVE);
        assert_int_equal(fixture_device(f, "sensor-1").dropped_grants, 2);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_DESTROYED), 2);
}

static void a_device_never_has_more_rows_than_allowed_however_often_it_rotates(void **state) {
        struct fixture *f = *state;
        struct credential list[CREDENTIALS_MAX + 4];
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        for (int i = 0; i < 40; i++) { /* all within one grace: predecessors pile up */
                fixture_rotate(f, kid);
                assert_in_range(credential_list(f->store, "sensor-1", list, ELEMENTS(list)), 1, CREDENTIALS_MAX);
                assert_int_equal(fixture_state(f, kid), KEY_ACTIVE);
                assert_int_equal(fixture_state(f, "sensor-1"), KEY_RETIRING);
        }
        fixture_pass_ticking(f, 10 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, kid), KEY_ACTIVE);
}

static void a_kid_is_sixteen_letters_and_digits_and_new_each_time(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE], before[ID_SIZE] = "";

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        for (int i = 0; i < 10; i++) {
                assert_int_equal(strlen(kid), KID_BYTES);
                assert_int_equal(strspn(kid, "abcdefghijklmnopqrstuvwxyz0123456789"), KID_BYTES);
                assert_string_not_equal(kid, before);
                memcpy(before, kid, sizeof kid);
                fixture_rotate(f, kid);
        }
}

/* ---- the grant's bytes ---- */

static void read_claims(struct bytes payload, cbor_item_t **ret) {
        assert_int_equal(cbor_read(payload, ret, NULL), 0);
        assert_true(cbor_isa_tag(*ret));
        assert_int_equal(cbor_tag_value(*ret), 601);
}

static bool claim(cbor_item_t *grant, int64_t key, int64_t *ret) {
        cbor_item_t *value = cbor_map_int(cbor_move(cbor_tag_item(grant)), key);

        return value && cbor_value_int(value, ret);
}

static void the_grant_is_a_small_deterministic_uccs_that_is_not_cached(void **state) {
        struct fixture *f = *state;
        _cleanup_(cbor_itemp) cbor_item_t *grant = NULL;
        struct identity identity;
        struct reply reply;
        int64_t value;
        /* 601({2: "sensor-17", 4: exp, 6: iat, 8: {1: {1: 4, 2: h'16', -1: h'32'}}}) */
        static const char head[] = "\xd9\x02\x59\xa4\x02\x69sensor-17\x04\x1a", tail[] = "\x06\x1a",
                          cnf[] = "\x08\xa1\x01\xa3\x01\x04\x02\x50", k[] = "\x20\x58\x20";

        fixture_add(f, "sensor-17", FIXTURE_PLAIN);
        identity = connected(f, "sensor-17");
        assert_int_equal(ask(f, &identity, FORMAT_NONE, BYTES(NULL, 0), &reply), CODE_CHANGED);
        assert_int_equal(reply.content_format, FORMAT_UCCS);
        assert_int_equal(reply.max_age_sec, 0);
        assert_true(reply.payload.size < 100);
        assert_memory_equal(reply.payload.data, head, sizeof head - 1);
        assert_memory_equal(reply.payload.data + 21, tail, 2);
        assert_memory_equal(reply.payload.data + 27, cnf, 8);
        assert_memory_equal(reply.payload.data + 51, k, 3);
        assert_int_equal(reply.payload.size, 86);
        read_claims(buffer_bytes(&reply.payload), &grant);
        assert_true(claim(grant, 6, &value));
        assert_int_equal(value, f->turn.now.wall);
        assert_true(claim(grant, 4, &value));
        assert_int_equal(value, f->turn.now.wall + 90 * FIXTURE_DAY);
        buffer_free(&reply.payload);
}

static void dates_are_left_out_while_the_clock_is_not_to_be_trusted(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        int64_t value;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        for (int i = 0; i < 2; i++) {
                _cleanup_(cbor_itemp) cbor_item_t *grant = NULL;
                struct reply reply;

                f->turn.now.wall_trusted = false;
                f->turn.now.quality = i == 0 ? CLOCK_UNKNOWN : CLOCK_SYNCHRONIZED; /* the second: a jump is held */
                identity = connected(f, "sensor-1");
                assert_int_equal(ask(f, &identity, FORMAT_NONE, BYTES(NULL, 0), &reply), CODE_CHANGED);
                read_claims(buffer_bytes(&reply.payload), &grant);
                assert_false(claim(grant, 6, &value));
                assert_false(claim(grant, 4, &value));
                buffer_free(&reply.payload);
        }
}

static void under_keep_a_grant_does_not_expire(void **state) {
        struct fixture *f = *state;
        _cleanup_(cbor_itemp) cbor_item_t *grant = NULL;
        struct identity identity;
        struct reply reply;
        int64_t value;

        fixture_add(f, "sensor-1", FIXTURE_KEEP);
        identity = connected(f, "sensor-1");
        assert_int_equal(ask(f, &identity, FORMAT_UCCS, BYTES(NULL, 0), &reply), CODE_CHANGED);
        read_claims(buffer_bytes(&reply.payload), &grant);
        assert_true(claim(grant, 6, &value));
        assert_false(claim(grant, 4, &value));
        buffer_free(&reply.payload);
}

static void a_cose_key_and_a_line_of_text_carry_the_same_key(void **state) {
        struct fixture *f = *state;
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        struct identity identity;
        struct reply cose, text;
        struct bytes kid, key;
        char line[128];

        fixture_add(f, "sensor-1", FIXTURE_KEEP);
        identity = connected(f, "sensor-1");
        assert_int_equal(ask(f, &identity, FORMAT_COSE_KEY, BYTES(NULL, 0), &cose), CODE_CHANGED);
        assert_int_equal(cose.content_format, FORMAT_COSE_KEY);
        assert_int_equal(ask(f, &identity, FORMAT_TEXT, BYTES(NULL, 0), &text), CODE_CHANGED);
        assert_int_equal(text.content_format, FORMAT_TEXT);
        assert_int_equal(cbor_read(buffer_bytes(&cose.payload), &item, NULL), 0);
        assert_true(cbor_value_bytes(cbor_map_int(item, 2), &kid) && cbor_value_bytes(cbor_map_int(item, -1), &key));
        assert_int_equal(key.size, 32);
        snprintf(line, sizeof line, "%.16s %.32s\n", (const char *)kid.data, (const char *)key.data);
        assert_int_equal(text.payload.size, strlen(line));
        assert_memory_equal(text.payload.data, line, strlen(line));
        buffer_free(&cose.payload);
        buffer_free(&text.payload);
}

static void what_a_client_accepts_and_the_gateway_does_not_give_is_refused(void **state) {
        struct fixture *f = *state;
        static const int32_t formats[] = { FORMAT_TEXT, FORMAT_CBOR, FORMAT_OCTETS };
        struct identity identity;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        for (size_t i = 0; i < ELEMENTS(formats); i++) {
                struct reply reply;

                assert_int_equal(ask(f, &identity, formats[i], BYTES(NULL, 0), &reply), CODE_NOT_ACCEPTABLE);
                assert_int_equal(reply.content_format, FORMAT_PROBLEM);
                buffer_free(&reply.payload);
        }
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_ISSUED), 0);
}

/* ---- key sizes ---- */

/* The key's size for a body, or minus the code. */
static int size_for(struct fixture *f, struct identity *identity, int32_t accept, struct bytes body) {
        struct secret key = { 0 };
        char kid[ID_SIZE];
        struct reply reply;
        int r;

        if (ask(f, identity, accept, body, &reply) == CODE_CHANGED) {
                fixture_grant(buffer_bytes(&reply.payload), kid, &key);
                r = (int)key.size;
        } else
                r = -reply.code;
        buffer_free(&reply.payload);
        return r;
}

static void the_request_may_ask_for_a_smaller_key_and_never_for_a_larger_one(void **state) {
        struct fixture *f = *state;
        struct identity identity;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_int_equal(size_for(f, &identity, FORMAT_NONE, TEXT("\xa0")), 32);
        assert_int_equal(size_for(f, &identity, FORMAT_NONE, TEXT("\xa1\x01\x18\x18")), 24);
        assert_int_equal(size_for(f, &identity, FORMAT_NONE, TEXT("\xa1\x01\x10")), 16);
        assert_int_equal(size_for(f, &identity, FORMAT_NONE, TEXT("\xa1\x01\x18\x21")), -CODE_BAD_REQUEST);
        assert_int_equal(size_for(f, &identity, FORMAT_NONE, TEXT("\xa1\x01\x0f")), -CODE_BAD_REQUEST);
        assert_int_equal(size_for(f, &identity, FORMAT_NONE, TEXT("\xa1\x01\x20")), -CODE_BAD_REQUEST);
        /* In one session there is one unproven key: another size replaces it. */
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_ISSUED), 3);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_DESTROYED), 2);
}

static void a_key_is_text_where_that_leaves_128_bits_and_raw_bytes_otherwise(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        struct secret key;
        char kid[ID_SIZE];
        bool all_text = true;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, kid, &key), CODE_CHANGED);
        for (size_t i = 0; i < key.size; i++)
                assert_non_null(
                        memchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", key.data[i], 64));
        f->profiles[FIXTURE_PLAIN].psk_format = PSK_RAW;
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, kid, &key), CODE_CHANGED);
        for (size_t i = 0; i < key.size; i++)
                all_text = all_text && key.data[i] >= ' ' && key.data[i] < 0x7f;
        assert_false(all_text); /* 32 random bytes: once in 10^13 runs they would be */
}

static void malformed_requests_get_a_clear_error_and_no_key(void **state) {
        struct fixture *f = *state;
        static const struct {
                const char *bytes;
                size_t size;
        } bodies[] = {
                { "\x01", 1 },                 /* no map */
                { "\xa1\x02\x10", 3 },         /* an unknown member */
                { "\xa2\x01\x10\x02\x10", 5 }, /* one known, one not */
                { "\xa1\x01\x61\x61", 4 },     /* a size that is text */
                { "\xa1\x01", 2 },             /* cut short */
                { "\xa1\x01\x10\x00", 4 },     /* something after it */
                { "hello", 5 },
        };
        struct identity identity;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        for (size_t i = 0; i < ELEMENTS(bodies); i++)
                assert_int_equal(size_for(f, &identity, FORMAT_NONE, BYTES(bodies[i].bytes, bodies[i].size)),
                                 -CODE_BAD_REQUEST);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_ISSUED), 0);
        assert_int_equal(fixture_device(f, "sensor-1").generation, 0);
}

static void a_body_of_another_content_format_is_refused(void **state) {
        struct fixture *f = *state;
        struct problem problem = { 0 };
        struct identity identity;
        struct reply reply = { 0 };
        struct request request = {
                .from = &identity,
                .method = CODE_POST,
                .path = TEXT("cred"),
                .content_format = FORMAT_TEXT,
                .accept = FORMAT_NONE,
                .observe = -1,
                .payload = TEXT("\xa0"),
        };

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_true(handle_cred(&f->turn, &request, &reply, &problem) < 0);
        assert_int_equal(problem.code, CODE_UNSUPPORTED_FORMAT);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(a_factory_key_gets_an_operational_key_that_its_first_handshake_activates),
                TEST(a_rotation_retires_the_predecessor_and_ends_it_after_the_grace),
                TEST(asking_again_in_one_session_gets_the_same_grant_to_the_byte),
                TEST(another_session_gets_a_key_of_its_own_and_the_first_proven_ends_the_other),
                TEST(whoever_comes_second_with_the_old_key_is_a_conflict_that_shows),
                TEST(evidence_opens_cred_in_the_session_in_which_it_came_and_in_no_other),
                TEST(evidence_over_the_newest_key_opens_nothing_to_an_old_one),
                TEST(evidence_over_a_key_in_good_standing_leaves_no_mark_on_it),
                TEST(at_most_four_unproven_keys_and_the_oldest_is_dropped_and_counted),
                TEST(a_device_never_has_more_rows_than_allowed_however_often_it_rotates),
                TEST(a_kid_is_sixteen_letters_and_digits_and_new_each_time),
                TEST(the_grant_is_a_small_deterministic_uccs_that_is_not_cached),
                TEST(dates_are_left_out_while_the_clock_is_not_to_be_trusted),
                TEST(under_keep_a_grant_does_not_expire),
                TEST(a_cose_key_and_a_line_of_text_carry_the_same_key),
                TEST(what_a_client_accepts_and_the_gateway_does_not_give_is_refused),
                TEST(the_request_may_ask_for_a_smaller_key_and_never_for_a_larger_one),
                TEST(a_key_is_text_where_that_leaves_128_bits_and_raw_bytes_otherwise),
                TEST(malformed_requests_get_a_clear_error_and_no_key),
                TEST(a_body_of_another_content_format_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
