/* SPDX-License-Identifier: Apache-2.0 */

/* What operators do to devices. */

#include "tests/unit/support.h"

#include <errno.h>

#include "tests/unit/devices_fixture.h"

#define ID_SIZE (DEVICE_ID_MAX + 1)

static struct identity connected(struct fixture *f, const char *identity) {
        struct identity ret;

        assert_int_equal(fixture_connect(f, identity, &ret), 0);
        return ret;
}

static struct registration registration(const char *id, const char *profile, const char *psk) {
        struct registration ret = { 0 };

        snprintf(ret.id, sizeof ret.id, "%s", id);
        snprintf(ret.profile, sizeof ret.profile, "%s", profile);
        assert_int_equal(secret_set(&ret.factory_psk, bytes_of(psk)), 0);
        return ret;
}

/* Adds it, expecting `expected`; the warning in `warning`. */
static void add(struct fixture *f, const struct registration *row, int expected, char warning[256]) {
        f->problem = (struct problem){ 0 };
        assert_int_equal(registry_add(&f->turn, row, warning, &f->problem), expected);
        assert_true((expected < 0) == (f->problem.detail[0] != '\0'));
}

/* ---- adding ---- */

static void a_device_is_registered_once_with_its_event(void **state) {
        struct fixture *f = *state;
        struct registration row = registration("sensor-1", "plain", "0123456789abcdef");
        char warning[256];
        struct device device;

        add(f, &row, 0, warning);
        assert_string_equal(warning, "");
        device = fixture_device(f, "sensor-1");
        assert_int_equal(device.standing, STANDING_REGISTERED);
        assert_string_equal(device.profile, "plain");
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_DEVICE_REGISTERED), 1);
        add(f, &row, -EEXIST, warning);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_DEVICE_REGISTERED), 1);
}

static void what_a_registration_may_not_be_is_refused_with_the_rule(void **state) {
        struct fixture *f = *state;
        static const char *const ids[] = {
                "", "a b", "a/b", "ü", "a\nb", "12345678901234567890123456789012345678901234567890123456789012345"
        };
        struct registration row;
        char warning[256];

        for (size_t i = 0; i < ELEMENTS(ids) - 1; i++) {
                row = registration(ids[i], "plain", "0123456789abcdef");
                add(f, &row, -EINVAL, warning);
        }
        row = registration("sensor-1", "no-such", "0123456789abcdef");
        add(f, &row, -EINVAL, warning);
        row = registration("sensor-1", "plain", "0123456789abcde");
        add(f, &row, -EINVAL, warning);
        row = registration("sensor-1", "plain", "0123456789abcdef");
        row.attestation_key_size = 12;
        add(f, &row, -EINVAL, warning);
        row = registration("A.b_c:d-64", "plain", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        add(f, &row, 0, warning);
}

static void an_id_that_equals_a_kid_is_refused(void **state) {
        struct fixture *f = *state;
        struct registration row;
        char kid[ID_SIZE], warning[256];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        row = registration(kid, "plain", "0123456789abcdef");
        add(f, &row, -EEXIST, warning);
        assert_non_null(strstr(f->problem.detail, "kid"));
}

static void keys_and_ids_that_a_stack_cannot_hold_are_warned_about(void **state) {
        struct fixture *f = *state;
        static const struct {
                enum device_stack stack;
                const char *id, *psk, *warning;
        } cases[] = {
                { STACK_TINYDTLS, "a", "0123456789abcdef", "" },
                { STACK_TINYDTLS, "b", "0123456789abcdef0", "17 bytes" },
                { STACK_TINYDTLS, "identity-with-more-than-thirty-two", "0123456789abcdef", "at most 32" },
                { STACK_MBEDTLS, "c", "0123456789abcdef0123456789abcdef", "" },
                { STACK_MBEDTLS, "d", "0123456789abcdef0123456789abcdef0", "33 bytes" },
                { STACK_WOLFSSL, "e", "0123456789abcdef0123456789abcdef0123456789abcdef", "" },
                { STACK_ANY, "f", "0123456789abcdef0123456789abcdef0123456789abcdef", "" },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct registration row = registration(cases[i].id, "plain", cases[i].psk);
                char warning[256];

                f->profiles[FIXTURE_PLAIN].stack = cases[i].stack;
                add(f, &row, 0, warning);
                assert_true(cases[i].warning[0] ? strstr(warning, cases[i].warning) != NULL : warning[0] == '\0');
        }
}

static void a_device_that_should_attest_and_has_no_key_is_warned_about(void **state) {
        struct fixture *f = *state;
        struct registration row = registration("sensor-1", "attest", "0123456789abcdef");
        char warning[256];

        add(f, &row, 0, warning);
        assert_non_null(strstr(warning, "no attestation key"));
}

static void a_removed_device_leaves_its_audit_rows_and_may_be_registered_anew(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(registry_remove(&f->turn, "sensor-1", &f->problem), 0);
        assert_int_equal(fixture_effects(f, EFFECT_EVICT_DEVICE, "sensor-1"), 1);
        assert_int_equal(fixture_connect(f, kid, &identity), -ENOENT);
        assert_int_equal(fixture_connect(f, "sensor-1", &identity), -ENOENT);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_DEVICE_REMOVED), 1);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_ACTIVATED), 1);
        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        assert_int_equal(fixture_connect(f, "sensor-1", &identity), 0);
        assert_int_equal(registry_remove(&f->turn, "sensor-2", &f->problem), -ENOENT);
        assert_int_equal(f->problem.code, CODE_NOT_FOUND);
}

/* ---- revoking, resetting, releasing ---- */

static void revoking_is_for_good_and_said_once(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];
        struct due_time due;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(registry_revoke(&f->turn, "sensor-1", "stolen", &f->problem), 1);
        assert_int_equal(registry_revoke(&f->turn, "sensor-1", "stolen", &f->problem), 0);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_REVOKED), 2); /* kid and factory key */
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 60, &f->problem), -EPERM);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", false, 0, &f->problem), -EPERM);
        assert_int_equal(registry_release(&f->turn, "sensor-1", &f->problem), -EPERM);
        assert_int_equal(schedule_get(f->store, "sensor-1", &due), 0);
        assert_true(due.wall == INT64_MAX && due.powered_sec == INT64_MAX);
}

static void a_reset_window_has_bounds_and_a_profile_may_refuse_it(void **state) {
        struct fixture *f = *state;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_add(f, "sensor-2", FIXTURE_STRICT);
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 0, &f->problem), -EINVAL);
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 8 * FIXTURE_DAY, &f->problem), -EINVAL);
        assert_int_equal(registry_reset(&f->turn, "sensor-2", 60, &f->problem), -EPERM);
        assert_int_equal(registry_reset(&f->turn, "sensor-3", 60, &f->problem), -ENOENT);
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 60, &f->problem), 0);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_DEVICE_RESET_WINDOW), 1);
}

static void releasing_an_overdue_device_holds_until_its_next_key(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass_ticking(f, 91 * FIXTURE_DAY);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_RESTRICTED);
        assert_int_equal(registry_release(&f->turn, "sensor-1", &f->problem), 1);
        fixture_pass_ticking(f, 10 * FIXTURE_DAY);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        fixture_rotate(f, kid);
        fixture_pass_ticking(f, 91 * FIXTURE_DAY);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_RESTRICTED);
}

/* ---- rotation on demand ---- */

static void an_operator_may_ask_for_a_rotation_before_it_is_due(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        identity = connected(f, kid);
        assert_int_equal(fixture_due(f, &identity), 0);
        fixture_commit(f);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", false, 0, &f->problem), 0);
        assert_true(fixture_effects(f, EFFECT_NOTIFY_ME, "sensor-1") > 0);
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
        fixture_tick(f);
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
        fixture_rotate(f, kid);
        identity = connected(f, kid);
        assert_int_equal(fixture_due(f, &identity), 0);
}

static void after_a_compromise_the_old_key_opens_me_and_rats_and_cred_only_after_evidence(void **state) {
        struct fixture *f = *state;
        struct identity device, thief;
        char kid[ID_SIZE], fresh[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", true, 0, &f->problem), 0);
        assert_int_equal(fixture_effects(f, EFFECT_EVICT_DEVICE, "sensor-1"), 1);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_COMPROMISED), 1);
        assert_int_equal(fixture_state(f, kid), KEY_COMPROMISED);
        thief = connected(f, kid);
        device = connected(f, kid);
        assert_int_equal(fixture_due(f, &device), DUE_ROTATE | DUE_ATTEST);
        assert_int_equal(fixture_cred(f, &device, fresh, NULL), CODE_FORBIDDEN);
        fixture_attest(f, &device);
        assert_int_equal(fixture_cred(f, &thief, fresh, NULL), CODE_FORBIDDEN);
        assert_int_equal(fixture_cred(f, &device, fresh, NULL), CODE_CHANGED);
        device = connected(f, fresh);
        assert_false(fixture_device(f, "sensor-1").is_compromised);
        assert_int_equal(fixture_due(f, &device), 0);
        /* Should the device lose its new key at once, evidence over the old one still brings it back. */
        assert_int_equal(fixture_state(f, kid), KEY_COMPROMISED);
        (void)connected(f, fresh);
        fixture_pass(f, 10);
        (void)connected(f, kid); /* the thief once more: it shows, and changes nothing */
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_CREDENTIAL_CONFLICT), 1);
        assert_false(fixture_device(f, "sensor-1").is_conflicted);
        fixture_pass_ticking(f, 8 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, kid), KEY_DEACTIVATED);
}

static void unproven_keys_and_the_factory_key_fall_with_the_compromised_one(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], unproven[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", kid);
        identity = connected(f, kid);
        assert_int_equal(fixture_cred(f, &identity, unproven, NULL), CODE_CHANGED);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", true, 0, &f->problem), 0);
        assert_int_equal(fixture_state(f, unproven), KEY_DESTROYED);
        assert_int_equal(fixture_connect(f, unproven, &identity), -ENOENT);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_DEACTIVATED);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, unproven, NULL), CODE_FORBIDDEN);
}

static void a_compromised_device_that_cannot_attest_needs_a_visit_and_recovers_in_a_window(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], fresh[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", true, 0, &f->problem), 0);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_NEEDS_VISIT);
        assert_int_equal(registry_release(&f->turn, "sensor-1", &f->problem), -EPERM);
        identity = connected(f, kid);
        assert_int_equal(fixture_due(f, &identity), 0);
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_FORBIDDEN);
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 3600, &f->problem), 0);
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_FORBIDDEN);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_CHANGED);
        (void)connected(f, fresh);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_false(fixture_device(f, "sensor-1").is_compromised);
}

static void a_compromise_since_a_time_spares_keys_that_do_not_descend_from_what_was_in_use_then(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char stolen[ID_SIZE], fresh[ID_SIZE], descendant[ID_SIZE];
        unix_sec since;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", stolen);
        fixture_pass_ticking(f, 10 * FIXTURE_DAY);
        since = f->turn.now.wall;
        fixture_pass(f, 3600);
        /* Reset in the field: the new key was granted over the factory key, not over the stolen one. */
        assert_int_equal(registry_reset(&f->turn, "sensor-1", 3600, &f->problem), 0);
        identity = connected(f, "sensor-1");
        assert_int_equal(fixture_cred(f, &identity, fresh, NULL), CODE_CHANGED);
        (void)connected(f, fresh);
        fixture_pass(f, 10);
        identity = connected(f, stolen);
        assert_int_equal(fixture_cred(f, &identity, descendant, NULL), CODE_CHANGED);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", true, since, &f->problem), 0);
        assert_int_equal(fixture_state(f, stolen), KEY_COMPROMISED);
        assert_int_equal(fixture_state(f, descendant), KEY_DESTROYED);
        assert_int_equal(fixture_state(f, fresh), KEY_ACTIVE);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", true, 0, &f->problem), 0);
        assert_int_equal(fixture_state(f, fresh), KEY_COMPROMISED);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_NEEDS_VISIT);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(a_device_is_registered_once_with_its_event),
                TEST(what_a_registration_may_not_be_is_refused_with_the_rule),
                TEST(an_id_that_equals_a_kid_is_refused),
                TEST(keys_and_ids_that_a_stack_cannot_hold_are_warned_about),
                TEST(a_device_that_should_attest_and_has_no_key_is_warned_about),
                TEST(a_removed_device_leaves_its_audit_rows_and_may_be_registered_anew),
                TEST(revoking_is_for_good_and_said_once),
                TEST(a_reset_window_has_bounds_and_a_profile_may_refuse_it),
                TEST(releasing_an_overdue_device_holds_until_its_next_key),
                TEST(an_operator_may_ask_for_a_rotation_before_it_is_due),
                TEST(after_a_compromise_the_old_key_opens_me_and_rats_and_cred_only_after_evidence),
                TEST(unproven_keys_and_the_factory_key_fall_with_the_compromised_one),
                TEST(a_compromised_device_that_cannot_attest_needs_a_visit_and_recovers_in_a_window),
                TEST(a_compromise_since_a_time_spares_keys_that_do_not_descend_from_what_was_in_use_then),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
