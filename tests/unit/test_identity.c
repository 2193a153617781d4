/* SPDX-License-Identifier: Apache-2.0 */

/* Handshakes: whose key it is, who is refused and why, what a completed one proves. */

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

/* What the handshake's question gets; the reason in `reason`. */
static int question(struct fixture *f, struct bytes identity, bool has_forward_secrecy, struct secret *key,
                    char *reason) {
        struct credential credential;

        reason[0] = '\0';
        return identity_key(&f->turn, identity, has_forward_secrecy, &credential, key, reason);
}

/* ---- the question ---- */

static void an_identity_is_a_kid_a_device_id_or_a_kid_in_rfc_9202_form(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE], reason[160];
        struct buffer cbor = { 0 };
        struct credential found;
        struct secret key;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        assert_int_equal(question(f, TEXT("sensor-1"), true, &key, reason), 0);
        assert_true(bytes_equal(secret_bytes(&key), TEXT("factory key of sensor-1")));
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(question(f, bytes_of(kid), true, &key, reason), 0);
        assert_int_equal(key.size, 32);

        cbor_put_map(&cbor, 1);
        cbor_put_uint(&cbor, 8);
        cbor_put_map(&cbor, 1);
        cbor_put_uint(&cbor, 1);
        cbor_put_map(&cbor, 2);
        cbor_put_uint(&cbor, 1);
        cbor_put_uint(&cbor, 4);
        cbor_put_uint(&cbor, 2);
        cbor_put_bytes(&cbor, bytes_of(kid));
        assert_int_equal(question(f, buffer_bytes(&cbor), true, &key, reason), 0);
        assert_int_equal(identity_find(&f->turn, buffer_bytes(&cbor), &found), 0);
        assert_string_equal(found.identity, kid);
        /* The form carries a kid: it is no other way to write a device id. */
        cbor.size -= KID_BYTES + 1;
        cbor_put_bytes(&cbor, TEXT("sensor-1"));
        assert_int_equal(question(f, buffer_bytes(&cbor), true, &key, reason), -ENOENT);
        buffer_free(&cbor);
}

static void identities_are_compared_to_the_byte(void **state) {
        struct fixture *f = *state;
        static const struct {
                const char *bytes;
                size_t size;
        } wrong[] = {
                { "", 0 },
                { "Sensor-1", 8 },
                { "sensor-1\0", 9 },
                { "sensor-", 7 },
                { "sensor-1 ", 9 },
                { "\xa1", 1 },
                { "\xa0", 1 },
                { "\xa1\x08\xa1\x01\xa1\x01\x04", 7 },
                { "\xff\xfe\x00", 3 },
        };
        struct secret key;
        char reason[160];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        for (size_t i = 0; i < ELEMENTS(wrong); i++) {
                assert_int_equal(question(f, BYTES(wrong[i].bytes, wrong[i].size), true, &key, reason), -ENOENT);
                assert_string_equal(reason, "unknown identity");
        }
}

static void an_ended_key_is_refused_with_its_reason(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE], before[ID_SIZE], reason[160];
        struct secret key;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", before);
        memcpy(kid, before, sizeof kid);
        fixture_rotate(f, kid);
        fixture_pass_ticking(f, 8 * FIXTURE_DAY);
        assert_int_equal(question(f, bytes_of(before), true, &key, reason), -EACCES);
        assert_non_null(strstr(reason, "has ended"));
        assert_int_equal(question(f, bytes_of(kid), true, &key, reason), 0);
}

static void a_revoked_device_is_refused_with_every_key(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE], reason[160];
        struct secret key;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(registry_revoke(&f->turn, "sensor-1", "stolen", &f->problem), 1);
        assert_int_equal(fixture_effects(f, EFFECT_EVICT_DEVICE, "sensor-1"), 1);
        assert_int_equal(question(f, bytes_of(kid), true, &key, reason), -EACCES);
        assert_non_null(strstr(reason, "revoked"));
        assert_int_equal(question(f, TEXT("sensor-1"), true, &key, reason), -EACCES);
        assert_int_equal(credential_secret(f->store, kid, &key), -ENOENT);
        assert_int_equal(credential_secret(f->store, "sensor-1", &key), -ENOENT);
}

static void
a_suite_without_forward_secrecy_is_refused_where_the_profile_demands_it_and_counted_elsewhere(void **state) {
        struct fixture *f = *state;
        struct identity identity = { .session = 1 };
        char reason[160];
        struct secret key;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        assert_int_equal(question(f, TEXT("sensor-1"), false, &key, reason), 0);
        assert_int_equal(identity_connected(&f->turn, TEXT("sensor-1"), false, false, &identity), 0);
        assert_int_equal(fixture_device(f, "sensor-1").handshakes_without_fs, 1);
        f->profiles[FIXTURE_PLAIN].forward_secrecy = FORWARD_SECRECY_REQUIRE;
        assert_int_equal(question(f, TEXT("sensor-1"), false, &key, reason), -EACCES);
        assert_non_null(strstr(reason, "(EC)DHE"));
        assert_int_equal(question(f, TEXT("sensor-1"), true, &key, reason), 0);
        assert_int_equal(identity_connected(&f->turn, TEXT("sensor-1"), false, false, &identity), -EACCES);
}

static void a_device_whose_profile_left_the_configuration_is_refused_with_that_reason(void **state) {
        struct fixture *f = *state;
        char reason[160];
        struct secret key;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        f->config.profiles = f->profiles + 1;
        f->config.profile_count--;
        assert_int_equal(question(f, TEXT("sensor-1"), true, &key, reason), -EACCES);
        assert_non_null(strstr(reason, "profile plain"));
}

/* ---- the completion ---- */

static void the_question_alone_proves_nothing(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], reason[160];
        struct secret key;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, kid, NULL), CODE_CHANGED);
        for (int i = 0; i < 3; i++)
                assert_int_equal(question(f, bytes_of(kid), true, &key, reason), 0);
        assert_int_equal(fixture_state(f, kid), KEY_PRE_ACTIVE);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_ACTIVE);
}

static void the_second_handshake_confirms_and_later_ones_change_no_state(void **state) {
        struct fixture *f = *state;
        struct credential credential;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, kid, NULL), CODE_CHANGED);
        (void)connected(f, kid);
        assert_int_equal(credential_get(f->store, bytes_of(kid), &credential), 0);
        assert_true(moment_is_set(&credential.proven) && !moment_is_set(&credential.confirmed));
        fixture_pass(f, 60);
        (void)connected(f, kid);
        assert_int_equal(credential_get(f->store, bytes_of(kid), &credential), 0);
        assert_int_equal(credential.confirmed.wall, f->turn.now.wall);
        fixture_commit(f);
        (void)connected(f, kid);
        assert_int_equal(f->turn.effect_count, 0);
        assert_int_equal(credential_get(f->store, bytes_of(kid), &credential), 0);
        assert_int_equal(credential.handshakes, 3);
        assert_int_equal(fixture_device(f, "sensor-1").handshakes, 4);
}

static void a_key_that_ended_between_question_and_finished_is_turned_away(void **state) {
        struct fixture *f = *state;
        struct identity identity = { .session = 1 };
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(registry_revoke(&f->turn, "sensor-1", NULL, &f->problem), 1);
        assert_int_equal(identity_connected(&f->turn, bytes_of(kid), true, false, &identity), -EACCES);
        assert_int_equal(registry_remove(&f->turn, "sensor-1", &f->problem), 0);
        assert_int_equal(identity_connected(&f->turn, bytes_of(kid), true, false, &identity), -EACCES);
}

/* ---- conflicts ---- */

/* A device with a predecessor and a newest key, ten seconds after the proof. */
static void two_keys(struct fixture *f, enum fixture_profile profile, char old[ID_SIZE], char kid[ID_SIZE]) {
        fixture_add(f, "sensor-1", profile);
        fixture_provision(f, "sensor-1", old);
        memcpy(kid, old, ID_SIZE);
        fixture_rotate(f, kid);
        fixture_pass(f, 10);
}

static void a_handshake_begun_before_the_proof_is_no_conflict(void **state) {
        struct fixture *f = *state;
        char old[ID_SIZE], kid[ID_SIZE];
        struct identity identity;

        two_keys(f, FIXTURE_ATTEST, old, kid);
        assert_int_equal(fixture_connect_early(f, old, &identity), 0);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_CONFLICT), 0);
        assert_false(fixture_device(f, "sensor-1").is_conflicted);
}

static void under_allow_a_predecessor_gets_a_new_key_loudly(void **state) {
        struct fixture *f = *state;
        char old[ID_SIZE], kid[ID_SIZE], fresh[ID_SIZE];
        struct identity identity;

        two_keys(f, FIXTURE_PLAIN, old, kid);
        identity = connected(f, old);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_CONFLICT), 1);
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_CHANGED);
        (void)connected(f, fresh);
        assert_int_equal(fixture_state(f, fresh), KEY_ACTIVE);
        /* Nobody knows whose the other one is: it retires like any predecessor. */
        assert_int_equal(fixture_state(f, kid), KEY_RETIRING);
}

static void under_quarantine_a_conflict_leaves_me_and_rats_until_evidence_or_an_operator(void **state) {
        struct fixture *f = *state;
        char old[ID_SIZE], kid[ID_SIZE], ignored[ID_SIZE];
        struct identity identity;

        two_keys(f, FIXTURE_STRICT, old, kid);
        (void)connected(f, old);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_QUARANTINED);
        identity = connected(f, kid);
        assert_int_equal(fixture_due(f, &identity), DUE_ATTEST);
        assert_int_equal(fixture_cred(f, &identity, ignored, NULL), CODE_FORBIDDEN);
        fixture_attest(f, &identity);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_cred(f, &identity, ignored, NULL), CODE_CHANGED);
        identity = connected(f, old);
        assert_int_equal(fixture_cred(f, &identity, ignored, NULL), CODE_FORBIDDEN);
        assert_int_equal(registry_release(&f->turn, "sensor-1", &f->problem), 1);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(registry_release(&f->turn, "sensor-1", &f->problem), 0);
}

static void a_conflict_that_goes_on_is_told_once_an_hour(void **state) {
        struct fixture *f = *state;
        char old[ID_SIZE], kid[ID_SIZE];

        two_keys(f, FIXTURE_ATTEST, old, kid);
        for (int i = 0; i < 240; i++) { /* every 30 seconds for two hours */
                (void)connected(f, old);
                fixture_pass(f, 30);
        }
        assert_in_range(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_CONFLICT), 2, 4);
}

static void the_session_that_asked_is_not_told_to_rotate_again_after_the_proof(void **state) {
        struct fixture *f = *state;
        struct identity asking;
        char old[ID_SIZE], kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", old);
        asking = connected(f, old);
        fixture_attest(f, &asking);
        assert_int_equal(fixture_cred(f, &asking, kid, NULL), CODE_CHANGED);
        fixture_pass(f, 5);
        (void)connected(f, kid);
        assert_int_equal(fixture_due(f, &asking), 0);
}

/* ---- the factory key ---- */

/* Operational, confirmed, and the grace of the factory key is over. */
static void spent(struct fixture *f, enum fixture_profile profile, char kid[ID_SIZE]) {
        fixture_add(f, "sensor-1", profile);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass_ticking(f, 8 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_DEACTIVATED);
}

static void a_spent_factory_key_shakes_hands_and_is_refused_with_a_reason_and_an_event(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], ignored[ID_SIZE];

        spent(f, FIXTURE_PLAIN, kid);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_FACTORY_KEY_USED), 1);
        assert_int_equal(fixture_cred(f, &identity, ignored, NULL), CODE_FORBIDDEN);
        assert_int_equal(fixture_due(f, &identity), -1);
        (void)connected(f, "sensor-1");
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_FACTORY_KEY_USED), 1); /* told once an hour */
        assert_int_equal(fixture_state(f, kid), KEY_ACTIVE);
}

static void under_attest_a_reset_device_comes_back_by_evidence(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], fresh[ID_SIZE];

        spent(f, FIXTURE_ATTEST, kid);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE | DUE_ATTEST);
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_FORBIDDEN);
        fixture_attest(f, &identity);
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_CHANGED);
        (void)connected(f, fresh);
        assert_int_equal(fixture_state(f, fresh), KEY_ACTIVE);
        /* Its old key is somebody else's now, if anybody's. */
        assert_int_equal(fixture_state(f, kid), KEY_DEACTIVATED);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_RETIRING);
        (void)connected(f, fresh);
        fixture_pass_ticking(f, 8 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_DEACTIVATED);
}

static void a_technicians_window_lets_a_reset_device_in_and_closes_behind_it(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], fresh[ID_SIZE];

        spent(f, FIXTURE_PLAIN, kid);
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 3600, &f->problem), 0);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_CHANGED);
        (void)connected(f, fresh);
        assert_int_equal(fixture_device(f, "sensor-1").window_until_powered, 0);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_RETIRING);
        assert_int_equal(fixture_state(f, kid), KEY_RETIRING);
}

static void a_window_that_has_closed_lets_nobody_in(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE];

        spent(f, FIXTURE_PLAIN, kid);
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 3600, &f->problem), 0);
        fixture_pass(f, 3600);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, kid, NULL), CODE_FORBIDDEN);
}

/* ---- open sessions ---- */

static void a_session_ends_with_its_key_its_device_and_its_time(void **state) {
        struct fixture *f = *state;
        struct moment connected_at = f->turn.now;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        identity = connected(f, kid);
        assert_int_equal(identity_refresh(&f->turn, &identity, &connected_at), 0);
        fixture_pass(f, FIXTURE_DAY);
        assert_int_equal(identity_refresh(&f->turn, &identity, &connected_at), -EACCES);
        connected_at = f->turn.now;
        assert_int_equal(identity_refresh(&f->turn, &identity, &connected_at), 0);
        assert_int_equal(registry_revoke(&f->turn, "sensor-1", NULL, &f->problem), 1);
        assert_int_equal(identity_refresh(&f->turn, &identity, &connected_at), -EACCES);
        assert_int_equal(registry_remove(&f->turn, "sensor-1", &f->problem), 0);
        assert_int_equal(identity_refresh(&f->turn, &identity, &connected_at), -EACCES);
}

static void a_jump_of_the_calendar_ends_no_session(void **state) {
        struct fixture *f = *state;
        const struct moment connected_at = f->turn.now;
        struct identity identity;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        f->turn.now.wall += 400 * FIXTURE_DAY;
        assert_int_equal(identity_refresh(&f->turn, &identity, &connected_at), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(an_identity_is_a_kid_a_device_id_or_a_kid_in_rfc_9202_form),
                TEST(identities_are_compared_to_the_byte),
                TEST(an_ended_key_is_refused_with_its_reason),
                TEST(a_revoked_device_is_refused_with_every_key),
                TEST(a_suite_without_forward_secrecy_is_refused_where_the_profile_demands_it_and_counted_elsewhere),
                TEST(a_device_whose_profile_left_the_configuration_is_refused_with_that_reason),
                TEST(the_question_alone_proves_nothing),
                TEST(the_second_handshake_confirms_and_later_ones_change_no_state),
                TEST(a_key_that_ended_between_question_and_finished_is_turned_away),
                TEST(a_handshake_begun_before_the_proof_is_no_conflict),
                TEST(under_allow_a_predecessor_gets_a_new_key_loudly),
                TEST(under_quarantine_a_conflict_leaves_me_and_rats_until_evidence_or_an_operator),
                TEST(a_conflict_that_goes_on_is_told_once_an_hour),
                TEST(the_session_that_asked_is_not_told_to_rotate_again_after_the_proof),
                TEST(a_spent_factory_key_shakes_hands_and_is_refused_with_a_reason_and_an_event),
                TEST(under_attest_a_reset_device_comes_back_by_evidence),
                TEST(a_technicians_window_lets_a_reset_device_in_and_closes_behind_it),
                TEST(a_window_that_has_closed_lets_nobody_in),
                TEST(a_session_ends_with_its_key_its_device_and_its_time),
                TEST(a_jump_of_the_calendar_ends_no_session),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
