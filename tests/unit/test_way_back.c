/* SPDX-License-Identifier: Apache-2.0 */

/* Who comes back how to a restored gateway, and when a backup is old: pure functions of rows, profile and moments. */

#include "tests/unit/support.h"

#include "gatewayd/backup/due.h"
#include "gatewayd/backup/way_back.h"

#define DAY   INT64_C(86400)
#define START INT64_C(1800000000)

struct scene {
        struct device device;
        struct profile profile;
        struct credential list[3];
        struct way_back_view view;
};

static struct moment at(int64_t days) {
        return (struct moment){ START + days * DAY, days * DAY, CLOCK_SYNCHRONIZED, true };
}

/* A device with a confirmed PSK of day 0, rotating every 30 days; the backup of day 10, restored on day 15. */
static struct scene scene_new(void) {
        return (struct scene){
                .device = { .id = "d", .standing = STANDING_OPERATIONAL, .attestation_key_size = 91 },
                .profile = { .name = "p", .rotate_every_sec = 30 * DAY, .on_factory_key = FACTORY_WINDOW },
                .list = { { .kind = CREDENTIAL_PSK, .state = KEY_ACTIVE, .issued = at(0) },
                          { .kind = CREDENTIAL_FACTORY, .state = KEY_DEACTIVATED } },
                .view = { .count = 2, .backup_of = at(10), .restored = at(15) },
        };
}

static struct way_back ask(struct scene *scene) {
        scene->view.device = &scene->device;
        scene->view.profile = &scene->profile;
        scene->view.credentials = scene->list;
        return way_back(&scene->view);
}

static void a_device_that_was_not_due_since_comes_with_its_key(void **state) {
        struct scene scene = scene_new();
        struct way_back way = ask(&scene);

        (void)state;
        assert_int_equal(way.first, WAY_KEY);
        assert_int_equal(way.otherwise, WAY_KEY);
        assert_int_equal(way.rotations, 0);
}

static void a_device_that_was_due_once_comes_by_its_second_slot(void **state) {
        struct scene scene = scene_new();
        struct way_back way;

        (void)state;
        scene.view.restored = at(31);
        way = ask(&scene);
        assert_int_equal(way.first, WAY_SECOND_SLOT);
        assert_int_equal(way.otherwise, WAY_SECOND_SLOT);
        assert_int_equal(way.rotations, 1);
}

static void jitter_brings_the_rotation_forward(void **state) {
        struct scene scene = scene_new();

        (void)state;
        scene.view.restored = at(25);
        assert_int_equal(ask(&scene).rotations, 0);
        scene.profile.jitter = 0.2;
        assert_int_equal(ask(&scene).rotations, 1);
}

static void a_key_that_was_on_its_way_is_known_too(void **state) {
        struct scene scene = scene_new();

        (void)state;
        scene.view.restored = at(31);
        scene.list[2] = scene.list[1];
        scene.list[1] = scene.list[0];
        scene.list[0] = (struct credential){ .kind = CREDENTIAL_PSK, .state = KEY_PRE_ACTIVE, .issued = at(9) };
        scene.view.count = 3;
        assert_int_equal(ask(&scene).first, WAY_KEY);
}

static void a_device_that_was_due_twice_may_need_help_as_its_profile_says(void **state) {
        struct scene scene = scene_new();

        (void)state;
        scene.view.restored = at(75);
        assert_int_equal(ask(&scene).rotations, 2);
        assert_int_equal(ask(&scene).first, WAY_SECOND_SLOT);
        assert_int_equal(ask(&scene).otherwise, WAY_WINDOW);
        scene.profile.on_factory_key = FACTORY_ATTEST; /* without a verifier of its evidence that opens nothing */
        assert_int_equal(ask(&scene).otherwise, WAY_WINDOW);
        scene.profile.attestation = ATTESTATION_EAT;
        assert_int_equal(ask(&scene).otherwise, WAY_EVIDENCE);
        scene.profile.on_factory_key = FACTORY_REFUSE;
        assert_int_equal(ask(&scene).otherwise, WAY_VISIT);
}

static void without_a_clock_anything_may_have_happened(void **state) {
        struct scene scene = scene_new();

        (void)state;
        scene.view.restored.wall_trusted = false;
        assert_int_equal(ask(&scene).rotations, 2);
        scene.view.restored.wall_trusted = true;
        scene.view.backup_of.quality = CLOCK_UNKNOWN;
        assert_int_equal(ask(&scene).rotations, 2);
}

static void a_calendar_makes_keys_due_before_the_interval(void **state) {
        struct scene scene = scene_new();
        char why[128];

        (void)state;
        assert_int_equal(calendar_parse("*-*-* 03:00 UTC", &scene.profile.rotate_at, why), 0);
        assert_int_equal(ask(&scene).rotations, 2);
        scene.profile.rotate_at = calendar_free(scene.profile.rotate_at);
}

static void certificates_of_our_own_ca_come_back_however_often_they_were_renewed(void **state) {
        struct scene scene = scene_new();

        (void)state;
        scene.view.restored = at(300);
        scene.list[0].kind = CREDENTIAL_LDEVID;
        scene.list[1].kind = CREDENTIAL_IDEVID;
        scene.view.is_tip_ours = true;
        assert_int_equal(ask(&scene).first, WAY_CERTIFICATE);
        assert_int_equal(ask(&scene).otherwise, WAY_CERTIFICATE);
        scene.view.is_tip_ours = false; /* the owner's CA issued it: what it issued since is not known here */
        assert_int_equal(ask(&scene).otherwise, WAY_WINDOW);
        assert_non_null(strstr(way_text(WAY_WINDOW, true), "IDevID"));
}

static void a_device_without_an_operational_key_comes_with_its_bootstrap_credential(void **state) {
        struct scene scene = scene_new();

        (void)state;
        scene.list[0] = (struct credential){ .kind = CREDENTIAL_FACTORY, .state = KEY_ACTIVE };
        scene.view.count = 1;
        assert_int_equal(ask(&scene).first, WAY_BOOTSTRAP);
        scene.view.count = 0;
        assert_int_equal(ask(&scene).first, WAY_VISIT);
}

static void revoked_devices_and_those_without_a_profile_are_told_apart(void **state) {
        struct scene scene = scene_new();

        (void)state;
        scene.device.standing = STANDING_NEEDS_VISIT;
        assert_int_equal(ask(&scene).first, WAY_WINDOW);
        scene.device.standing = STANDING_REVOKED;
        assert_int_equal(ask(&scene).first, WAY_NONE);
        scene.device.standing = STANDING_OPERATIONAL;
        (void)ask(&scene);
        scene.view.profile = NULL;
        assert_int_equal(way_back(&scene.view).first, WAY_VISIT);
}

/* ---- when a backup is old ---- */

static void a_backup_is_old_once_a_device_may_have_rotated_since(void **state) {
        struct profile profiles[] = { { .rotate_every_sec = 90 * DAY }, { .rotate_every_sec = 7 * DAY } };
        struct config config = { .profiles = profiles, .profile_count = 2 };
        struct store_meta meta = { .backed_up = at(10) };
        struct moment now = at(17);
        struct backup_age age = backup_age(&meta, &config, &now);

        (void)state;
        assert_int_equal(age.limit_sec, 7 * DAY);
        assert_true(age.has_one);
        assert_false(age.is_old);
        now.wall++;
        age = backup_age(&meta, &config, &now);
        assert_true(age.is_old);
        assert_string_equal(age.text, "the last one is 7 days old; a profile rotates every 7 days");
        now.wall_trusted = false; /* then powered-on time counts */
        assert_false(backup_age(&meta, &config, &now).is_old);
        now.powered_sec++;
        assert_true(backup_age(&meta, &config, &now).is_old);
}

static void a_store_without_a_backup_is_given_as_long(void **state) {
        struct profile profiles[] = { { .rotate_every_sec = 7 * DAY } };
        struct config config = { .profiles = profiles, .profile_count = 1 };
        struct store_meta meta = { 0 };
        struct moment now = at(7);

        (void)state;
        assert_false(backup_age(&meta, &config, &now).is_old);
        now = at(8);
        assert_true(backup_age(&meta, &config, &now).is_old);
        assert_int_equal(backup_age(&meta, &config, &now).seconds, -1);
        config.profile_count = 0;
        assert_false(backup_age(&meta, &config, &now).is_old);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_device_that_was_not_due_since_comes_with_its_key),
                cmocka_unit_test(a_device_that_was_due_once_comes_by_its_second_slot),
                cmocka_unit_test(jitter_brings_the_rotation_forward),
                cmocka_unit_test(a_key_that_was_on_its_way_is_known_too),
                cmocka_unit_test(a_device_that_was_due_twice_may_need_help_as_its_profile_says),
                cmocka_unit_test(without_a_clock_anything_may_have_happened),
                cmocka_unit_test(a_calendar_makes_keys_due_before_the_interval),
                cmocka_unit_test(certificates_of_our_own_ca_come_back_however_often_they_were_renewed),
                cmocka_unit_test(a_device_without_an_operational_key_comes_with_its_bootstrap_credential),
                cmocka_unit_test(revoked_devices_and_those_without_a_profile_are_told_apart),
                cmocka_unit_test(a_backup_is_old_once_a_device_may_have_rotated_since),
                cmocka_unit_test(a_store_without_a_backup_is_given_as_long),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
