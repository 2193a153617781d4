/* SPDX-License-Identifier: Apache-2.0 */

/* lifecycle.c: PROTOCOL.md's table "Who is talking", row by row. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/devices/lifecycle.h"

#define DAY INT64_C(86400)

static const struct moment now = { 1790000000, 5000, CLOCK_SYNCHRONIZED, true };

/* One case: a device, its profile and a credential, changed by the tests. */
struct scene {
        struct device device;
        struct credential credential;
        struct profile profile;
        bool factory_spent;
};

static struct scene scene_psk(enum key_state state) {
        return (struct scene){
                .device = { .id = "sensor-1", .standing = STANDING_OPERATIONAL, .attestation_key_size = 91 },
                .credential = { .identity = "k7m2k7m2k7m2k7m2", .kind = CREDENTIAL_PSK, .state = state },
                .profile = { .name = "p",
                             .attestation = ATTESTATION_EAT,
                             .on_conflict = CONFLICT_ATTEST,
                             .on_factory_key = FACTORY_ATTEST },
        };
}

static struct scene scene_factory(bool is_spent) {
        struct scene scene = scene_psk(is_spent ? KEY_DEACTIVATED : KEY_ACTIVE);

        scene.credential.kind = CREDENTIAL_FACTORY;
        scene.factory_spent = is_spent;
        return scene;
}

/* What it may use, as letters: c /.well-known/core, m /me, t /time, p /cred (provision), r /rats. */
static const char *may(const struct scene *scene) {
        static const struct {
                char letter;
                enum resource resource;
        } resources[] = {
                { 'c', RESOURCE_CORE }, { 'm', RESOURCE_ME },   { 't', RESOURCE_TIME },
                { 'p', RESOURCE_CRED }, { 'r', RESOURCE_RATS },
        };
        static char letters[8];
        const struct lifecycle_view view = { &scene->device, &scene->credential, &scene->profile, scene->factory_spent,
                                             false };
        size_t count = 0;

        for (size_t i = 0; i < ELEMENTS(resources); i++) {
                struct problem problem = { 0 };
                int r = lifecycle_allows(&view, resources[i].resource, CODE_GET, &now, &problem);

                if (r == 0)
                        letters[count++] = resources[i].letter;
                else {
                        assert_int_equal(r, -EACCES);
                        assert_int_equal(problem.code, CODE_FORBIDDEN);
                        assert_true(problem.detail[0] != '\0');
                }
        }
        letters[count] = '\0';
        return letters;
}

static void an_active_and_a_pre_active_key_open_everything(void **state) {
        struct scene scene = scene_psk(KEY_ACTIVE);

        (void)state;
        assert_string_equal(may(&scene), "cmtpr");
        scene.credential.state = KEY_PRE_ACTIVE;
        assert_string_equal(may(&scene), "cmtpr");
}

static void a_factory_key_opens_everything_until_the_device_is_operational(void **state) {
        struct scene scene = scene_factory(false);

        (void)state;
        scene.device.standing = STANDING_REGISTERED;
        assert_string_equal(may(&scene), "cmtpr");
}

static void a_retiring_key_opens_cred_as_on_conflict_says(void **state) {
        struct scene scene = scene_psk(KEY_RETIRING);

        (void)state;
        assert_string_equal(may(&scene), "cmtr");
        scene.credential.session = 42; /* affirming evidence came in a session made with it */
        assert_string_equal(may(&scene), "cmtpr");
        scene.profile.on_conflict = CONFLICT_QUARANTINE;
        assert_string_equal(may(&scene), "cmtr");
        scene.credential.session = 0;
        scene.profile.on_conflict = CONFLICT_ALLOW;
        assert_string_equal(may(&scene), "cmtpr");
}

static void the_factory_key_follows_on_conflict_until_it_is_spent(void **state) {
        struct scene scene = scene_factory(false);

        (void)state;
        scene.credential.state = KEY_RETIRING;
        assert_string_equal(may(&scene), "cmtr");
        scene.profile.on_conflict = CONFLICT_ALLOW;
        assert_string_equal(may(&scene), "cmtpr");
}

static void a_spent_factory_key_opens_what_on_factory_key_says(void **state) {
        struct scene scene = scene_factory(true);

        (void)state;
        assert_string_equal(may(&scene), "cmr");
        scene.credential.session = 42;
        assert_string_equal(may(&scene), "cmpr");
        scene.credential.session = 0;
        scene.profile.on_factory_key = FACTORY_WINDOW;
        assert_string_equal(may(&scene), "c");
        scene.profile.on_factory_key = FACTORY_REFUSE;
        assert_string_equal(may(&scene), "c");
}

static void a_reset_window_opens_everything_to_a_spent_factory_key_unless_it_is_refused(void **state) {
        struct scene scene = scene_factory(true);

        (void)state;
        scene.device.window_until_powered = now.powered_sec + 60;
        scene.device.window_until_wall = now.wall + 60;
        assert_string_equal(may(&scene), "cmtpr");
        scene.profile.on_factory_key = FACTORY_WINDOW;
        assert_string_equal(may(&scene), "cmtpr");
        scene.profile.on_factory_key = FACTORY_REFUSE;
        assert_string_equal(may(&scene), "c");
}

static void a_reset_window_closes_by_whichever_clock_comes_first(void **state) {
        struct scene scene = scene_factory(true);
        struct moment distrusted = now;

        (void)state;
        distrusted.wall_trusted = false;
        scene.device.window_until_powered = now.powered_sec;
        scene.device.window_until_wall = now.wall + 60;
        assert_false(lifecycle_window_is_open(&scene.device, &now));
        scene.device.window_until_powered = now.powered_sec + 60;
        scene.device.window_until_wall = now.wall;
        assert_false(lifecycle_window_is_open(&scene.device, &now));
        assert_true(lifecycle_window_is_open(&scene.device, &distrusted));
        scene.device.window_until_wall = 0; /* was opened at a time that nobody knew */
        assert_true(lifecycle_window_is_open(&scene.device, &now));
}

static void a_compromised_key_opens_me_and_rats_and_cred_after_evidence(void **state) {
        struct scene scene = scene_psk(KEY_COMPROMISED);

        (void)state;
        assert_string_equal(may(&scene), "cmr");
        scene.credential.session = 42;
        assert_string_equal(may(&scene), "cmpr");
        scene.device.attestation_key_size = 0; /* it has no other way to prove itself */
        assert_string_equal(may(&scene), "cmr");
}

static void where_evidence_decides_a_device_that_cannot_attest_waits_for_an_operator(void **state) {
        struct scene retiring = scene_psk(KEY_RETIRING), factory = scene_factory(true);
        const struct lifecycle_view view = { &retiring.device, &retiring.credential, &retiring.profile, false, false };
        char reason[160];

        (void)state;
        retiring.device.attestation_key_size = factory.device.attestation_key_size = 0;
        retiring.credential.session = factory.credential.session = 42;
        assert_string_equal(may(&retiring), "cmtr");
        assert_string_equal(may(&factory), "cmr");
        assert_int_equal(lifecycle_cred_terms(&view, &now, reason), CRED_CLOSED);
        assert_non_null(strstr(reason, "operator"));
        factory.device.window_until_powered = now.powered_sec + 60;
        assert_string_equal(may(&factory), "cmtpr");
}

static void a_quarantined_device_has_me_and_rats_whatever_its_key(void **state) {
        struct scene psk = scene_psk(KEY_ACTIVE), factory = scene_factory(true);

        (void)state;
        psk.device.standing = factory.device.standing = STANDING_QUARANTINED;
        assert_string_equal(may(&psk), "cmr");
        factory.device.window_until_powered = now.powered_sec + 60;
        assert_string_equal(may(&factory), "cmr");
}

static void a_restricted_device_may_renew(void **state) {
        struct scene scene = scene_psk(KEY_ACTIVE);

        (void)state;
        scene.device.standing = STANDING_RESTRICTED;
        assert_string_equal(may(&scene), "cmtpr");
}

static void a_device_that_needs_a_visit_recovers_by_its_factory_key_inside_a_window(void **state) {
        struct scene psk = scene_psk(KEY_COMPROMISED), factory = scene_factory(true);

        (void)state;
        psk.device.standing = factory.device.standing = STANDING_NEEDS_VISIT;
        factory.profile.on_factory_key = FACTORY_WINDOW;
        assert_string_equal(may(&psk), "cmr");
        assert_string_equal(may(&factory), "c");
        factory.device.window_until_powered = now.powered_sec + 60;
        assert_string_equal(may(&factory), "cmtpr");
}

static void an_ended_key_and_a_revoked_device_open_nothing(void **state) {
        struct scene ended = scene_psk(KEY_DEACTIVATED), revoked = scene_psk(KEY_ACTIVE);

        (void)state;
        assert_string_equal(may(&ended), "");
        ended.credential.state = KEY_DESTROYED;
        assert_string_equal(may(&ended), "");
        revoked.device.standing = STANDING_REVOKED;
        assert_string_equal(may(&revoked), "");
}

static void a_device_whose_profile_is_gone_from_the_configuration_is_told_so(void **state) {
        const struct scene scene = scene_psk(KEY_ACTIVE);
        const struct lifecycle_view view = { &scene.device, &scene.credential, NULL, false, false };
        struct problem problem = { 0 };

        (void)state;
        assert_int_equal(lifecycle_allows(&view, RESOURCE_ME, CODE_GET, &now, &problem), -EACCES);
        assert_non_null(strstr(problem.detail, "profile"));
}

/* Whatever the combination: /cred is never open to a key that has ended, to a compromised one without
 * evidence, in quarantine or after revocation; and more is never open than to an active key. */
static void no_combination_opens_cred_to_a_key_that_proves_nothing(void **state) {
        (void)state;
        for (int standing = STANDING_REGISTERED; standing <= STANDING_NEEDS_VISIT; standing++)
                for (int key = KEY_PRE_ACTIVE; key <= KEY_DESTROYED; key++)
                        for (int conflict = CONFLICT_ATTEST; conflict <= CONFLICT_QUARANTINE; conflict++)
                                for (int evidence = 0; evidence < 2; evidence++) {
                                        struct scene scene = scene_psk((enum key_state)key);
                                        bool opens;

                                        scene.device.standing = (enum standing)standing;
                                        scene.profile.on_conflict = (enum on_conflict)conflict;
                                        scene.credential.session = (uint64_t)evidence;
                                        opens = strchr(may(&scene), 'p') != NULL;
                                        if (key >= KEY_DEACTIVATED && !(key == KEY_COMPROMISED && evidence))
                                                assert_false(opens);
                                        if (standing == STANDING_QUARANTINED || standing == STANDING_REVOKED ||
                                            standing == STANDING_NEEDS_VISIT)
                                                assert_false(opens);
                                        if (key == KEY_RETIRING && conflict == CONFLICT_ATTEST && !evidence)
                                                assert_false(opens);
                                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_active_and_a_pre_active_key_open_everything),
                cmocka_unit_test(a_factory_key_opens_everything_until_the_device_is_operational),
                cmocka_unit_test(a_retiring_key_opens_cred_as_on_conflict_says),
                cmocka_unit_test(the_factory_key_follows_on_conflict_until_it_is_spent),
                cmocka_unit_test(a_spent_factory_key_opens_what_on_factory_key_says),
                cmocka_unit_test(a_reset_window_opens_everything_to_a_spent_factory_key_unless_it_is_refused),
                cmocka_unit_test(a_reset_window_closes_by_whichever_clock_comes_first),
                cmocka_unit_test(a_compromised_key_opens_me_and_rats_and_cred_after_evidence),
                cmocka_unit_test(where_evidence_decides_a_device_that_cannot_attest_waits_for_an_operator),
                cmocka_unit_test(a_quarantined_device_has_me_and_rats_whatever_its_key),
                cmocka_unit_test(a_restricted_device_may_renew),
                cmocka_unit_test(a_device_that_needs_a_visit_recovers_by_its_factory_key_inside_a_window),
                cmocka_unit_test(an_ended_key_and_a_revoked_device_open_nothing),
                cmocka_unit_test(a_device_whose_profile_is_gone_from_the_configuration_is_told_so),
                cmocka_unit_test(no_combination_opens_cred_to_a_key_that_proves_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
