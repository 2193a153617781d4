/* SPDX-License-Identifier: Apache-2.0 */

/* The tick, and what /me says about what it finds. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/cbor.h"
#include "store/internal.h"
#include "tests/unit/devices_fixture.h"

#define ID_SIZE (DEVICE_ID_MAX + 1)

static struct identity connected(struct fixture *f, const char *identity) {
        struct identity ret;

        assert_int_equal(fixture_connect(f, identity, &ret), 0);
        return ret;
}

/* One member of /me; -1 where it is absent. */
static int64_t member(struct bytes payload, int64_t key) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        int64_t value = -1;
        cbor_item_t *found;

        assert_int_equal(cbor_read(payload, &item, NULL), 0);
        found = cbor_map_int(item, key);
        if (found)
                assert_true(cbor_value_int(found, &value));
        return value;
}

static void get_me(struct fixture *f, struct identity *from, struct reply *reply) {
        assert_int_equal(fixture_request(f, from, CODE_GET, "me", FORMAT_NONE, BYTES(NULL, 0), reply), CODE_CONTENT);
}

/* ---- /me ---- */

static void me_is_a_small_deterministic_map_of_durations(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        struct reply reply;
        char kid[ID_SIZE];
        static const char head[] = "\xa6\x00\x68sensor-1\x01\x01\x02\x50", rotate[] = "\x03\x1a\x00\x27\x8c\xf6",
                          late[] = "\x04\x1a\x00\x76\xa6\xf6", due[] = "\x06\x00";

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass(f, 10);
        identity = connected(f, kid);
        get_me(f, &identity, &reply);
        assert_int_equal(reply.content_format, FORMAT_CBOR);
        assert_int_equal(reply.payload.size,
                         sizeof head - 1 + KID_BYTES + sizeof rotate - 1 + sizeof late - 1 + sizeof due - 1 - 0);
        assert_memory_equal(reply.payload.data, head, sizeof head - 1);
        assert_memory_equal(reply.payload.data + 15, kid, KID_BYTES);
        assert_memory_equal(reply.payload.data + 31, rotate, 6);
        assert_memory_equal(reply.payload.data + 37, late, 6);
        assert_memory_equal(reply.payload.data + 43, due, 2);
        assert_true(reply.payload.size < 50);
        buffer_free(&reply.payload);
}

static void max_age_is_the_least_duration_and_at_most_a_day(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        struct reply reply;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        identity = connected(f, kid);
        get_me(f, &identity, &reply);
        assert_int_equal(reply.max_age_sec, 86400);
        buffer_free(&reply.payload);
        fixture_pass(f, 30 * FIXTURE_DAY - 5000);
        get_me(f, &identity, &reply);
        assert_int_equal(member(buffer_bytes(&reply.payload), 3), 5000);
        assert_int_equal(reply.max_age_sec, 5000);
        buffer_free(&reply.payload);
        fixture_pass(f, 6000);
        get_me(f, &identity, &reply);
        assert_int_equal(member(buffer_bytes(&reply.payload), 3), 0);
        assert_int_equal(member(buffer_bytes(&reply.payload), 6), DUE_ROTATE);
        assert_int_equal(reply.max_age_sec, 60);
        buffer_free(&reply.payload);
}

static void durations_that_do_not_apply_are_left_out(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        struct reply reply;
        char kid[ID_SIZE];

        fixture_add(f, "keep-1", FIXTURE_KEEP);
        fixture_provision(f, "keep-1", kid);
        identity = connected(f, kid);
        get_me(f, &identity, &reply);
        assert_int_equal(member(buffer_bytes(&reply.payload), 3), 30 * FIXTURE_DAY);
        assert_int_equal(member(buffer_bytes(&reply.payload), 4), -1);
        assert_int_equal(member(buffer_bytes(&reply.payload), 5), -1);
        buffer_free(&reply.payload);
        fixture_add(f, "attest-1", FIXTURE_ATTEST);
        identity = connected(f, "attest-1");
        get_me(f, &identity, &reply);
        assert_int_equal(member(buffer_bytes(&reply.payload), 3), 0);
        assert_int_equal(member(buffer_bytes(&reply.payload), 4), -1);
        assert_int_equal(member(buffer_bytes(&reply.payload), 5), 0);
        assert_int_equal(member(buffer_bytes(&reply.payload), 6), DUE_ROTATE | DUE_ATTEST);
        buffer_free(&reply.payload);
}

static void observing_me_is_accepted_and_another_format_is_not(void **state) {
        struct fixture *f = *state;
        struct problem problem = { 0 };
        struct reply reply = { 0 };
        struct identity identity;
        struct request request = {
                .from = &identity,
                .method = CODE_GET,
                .path = TEXT("me"),
                .content_format = FORMAT_NONE,
                .accept = FORMAT_CBOR,
                .observe = 0,
        };

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        identity = connected(f, "sensor-1");
        assert_int_equal(handle_me(&f->turn, &request, &reply, &problem), 0);
        assert_true(reply.is_observed);
        buffer_free(&reply.payload);
        request.observe = 1;
        assert_int_equal(handle_me(&f->turn, &request, &reply, &problem), 0);
        assert_false(reply.is_observed);
        buffer_free(&reply.payload);
        request.accept = FORMAT_TEXT;
        assert_true(handle_me(&f->turn, &request, &reply, &problem) < 0);
        assert_int_equal(problem.code, CODE_NOT_ACCEPTABLE);
}

/* ---- the tick ---- */

static void what_falls_due_is_announced_once_and_observers_are_notified(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass_ticking(f, 29 * FIXTURE_DAY);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_ROTATION_DUE), 0);
        fixture_pass(f, FIXTURE_DAY);
        assert_int_equal(schedule_tick(&f->turn, 16), 1);
        assert_int_equal(fixture_effects(f, EFFECT_NOTIFY_ME, "sensor-1"), 1);
        fixture_commit(f);
        assert_int_equal(fixture_device(f, "sensor-1").due, DUE_ROTATE);
        fixture_pass_ticking(f, 20 * FIXTURE_DAY);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_ROTATION_DUE), 1);
}

static void a_grant_that_nobody_takes_up_stays_until_another_is_proven(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], unproven[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        identity = connected(f, kid);
        assert_int_equal(fixture_cred(f, &identity, unproven, NULL), CODE_CHANGED);
        fixture_pass_ticking(f, 400 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, unproven), KEY_PRE_ACTIVE);
        fixture_rotate(f, kid);
        assert_int_equal(fixture_state(f, unproven), KEY_DESTROYED);
        assert_int_equal(fixture_state(f, kid), KEY_ACTIVE);
}

static void overdue_devices_stand_as_the_profile_says(void **state) {
        static const struct {
                enum fixture_profile profile;
                enum standing standing;
        } cases[] = {
                { FIXTURE_PLAIN, STANDING_RESTRICTED },
                { FIXTURE_STRICT, STANDING_QUARANTINED },
                { FIXTURE_KEEP, STANDING_OPERATIONAL },
        };
        struct fixture *f = *state;

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                char id[ID_SIZE], kid[ID_SIZE];

                snprintf(id, sizeof id, "sensor-%zu", i);
                fixture_add(f, id, cases[i].profile);
                fixture_provision(f, id, kid);
        }
        fixture_pass_ticking(f, 100 * FIXTURE_DAY);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                char id[ID_SIZE];

                snprintf(id, sizeof id, "sensor-%zu", i);
                assert_int_equal(fixture_device(f, id).standing, cases[i].standing);
                assert_int_equal(fixture_audited(f, id, EVENT_ROTATION_OVERDUE), 1);
        }
}

static void an_overdue_device_renews_and_is_operational_again(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass_ticking(f, 1000 * FIXTURE_DAY);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_RESTRICTED);
        fixture_rotate(f, kid);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_device(f, "sensor-1").due, 0);
}

static void a_quarantined_overdue_device_that_attests_may_only_renew(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_STRICT);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass_ticking(f, 91 * FIXTURE_DAY);
        identity = connected(f, kid);
        fixture_attest(f, &identity);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_RESTRICTED);
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
        fixture_rotate(f, kid);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
}

static void a_year_that_the_calendar_jumps_restricts_nobody_while_it_is_held(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        f->turn.now.wall += 365 * FIXTURE_DAY;
        f->turn.now.wall_trusted = false;
        fixture_tick(f);
        assert_int_equal(fixture_device(f, "sensor-1").due, DUE_ROTATE);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_RETIRING);
        fixture_rotate(f, kid); /* it comes while the jump is held */
        fixture_pass_ticking(f, 8 * FIXTURE_DAY);
        f->turn.now.wall_trusted = true;
        fixture_tick(f);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_device(f, "sensor-1").due, 0);
}

static void a_conflict_and_a_compromise_make_evidence_due_at_once(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE], old[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", old);
        memcpy(kid, old, sizeof kid);
        fixture_rotate(f, kid);
        identity = connected(f, kid);
        fixture_attest(f, &identity);
        fixture_pass(f, 10);
        assert_int_equal(fixture_due(f, &identity), 0);
        (void)connected(f, old);
        assert_int_equal(fixture_due(f, &identity), DUE_ATTEST); /* the device itself is asked, on its good key */
        fixture_pass(f, 10);
        fixture_attest(f, &identity);
        assert_int_equal(fixture_due(f, &identity), 0);
        fixture_pass(f, 10);
        assert_int_equal(registry_rotate(&f->turn, "sensor-1", true, 0, &f->problem), 0);
        assert_int_equal(fixture_device(f, "sensor-1").due, DUE_ROTATE | DUE_ATTEST);
}

static void evidence_falls_due_by_its_own_interval_and_its_absence_is_told_once(void **state) {
        struct fixture *f = *state;
        struct device device;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_ATTEST);
        fixture_provision(f, "sensor-1", kid);
        identity = connected(f, kid);
        assert_int_equal(fixture_due(f, &identity), DUE_ATTEST);
        fixture_attest(f, &identity);
        assert_int_equal(fixture_due(f, &identity), 0);
        fixture_commit(f);
        fixture_pass(f, 7 * FIXTURE_DAY);
        assert_int_equal(schedule_tick(&f->turn, 16), 1);
        assert_int_equal(fixture_effects(f, EFFECT_NOTIFY_ME, "sensor-1"), 1);
        fixture_commit(f);
        assert_int_equal(fixture_device(f, "sensor-1").due & DUE_ATTEST, DUE_ATTEST);
        fixture_pass_ticking(f, 10 * FIXTURE_DAY);
        device = fixture_device(f, "sensor-1");
        assert_int_equal(schedule_device(&f->turn, &device), 0); /* looked at for another reason */
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_ATTESTATION_OVERDUE), 1);
        assert_int_equal(device.standing, STANDING_OPERATIONAL);
        identity = connected(f, kid);
        fixture_attest(f, &identity);
        fixture_pass_ticking(f, 15 * FIXTURE_DAY);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_ATTESTATION_OVERDUE), 2);
}

static void due_times_of_a_fleet_are_spread(void **state) {
        struct fixture *f = *state;
        int64_t first = INT64_MAX, last = 0;

        f->profiles[FIXTURE_PLAIN].jitter = 0.5;
        for (int i = 0; i < 50; i++) {
                char id[ID_SIZE], kid[ID_SIZE];
                struct due_time due;

                snprintf(id, sizeof id, "sensor-%d", i);
                fixture_add(f, id, FIXTURE_PLAIN);
                fixture_provision(f, id, kid);
                fixture_pass_ticking(f, 8 * FIXTURE_DAY); /* the factory key ends */
                f->turn.now.wall -= 8 * FIXTURE_DAY;
                f->turn.now.powered_sec -= 8 * FIXTURE_DAY;
                assert_int_equal(schedule_get(f->store, id, &due), 0);
                first = due.wall < first ? due.wall : first;
                last = due.wall > last ? due.wall : last;
        }
        assert_true(first >= FIXTURE_START + 15 * FIXTURE_DAY && last <= FIXTURE_START + 30 * FIXTURE_DAY);
        assert_true(last - first > 12 * FIXTURE_DAY);
}

static void a_tick_looks_at_what_is_due_and_says_when_more_is_waiting(void **state) {
        struct fixture *f = *state;

        for (int i = 0; i < 10; i++) {
                char id[ID_SIZE], kid[ID_SIZE];

                snprintf(id, sizeof id, "sensor-%d", i);
                fixture_add(f, id, FIXTURE_PLAIN);
                fixture_provision(f, id, kid);
        }
        fixture_tick(f);
        assert_int_equal(schedule_tick(&f->turn, 4), 0);
        fixture_pass(f, 7 * FIXTURE_DAY);
        assert_int_equal(schedule_tick(&f->turn, 4), 4);
        assert_int_equal(schedule_tick(&f->turn, 4), 4);
        assert_int_equal(schedule_tick(&f->turn, 4), 2);
        assert_int_equal(schedule_tick(&f->turn, 4), 0);
}

static void one_device_that_cannot_be_looked_at_holds_up_no_other(void **state) {
        struct fixture *f = *state;
        struct device device;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_add(f, "sensor-2", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-2", kid);
        device = fixture_device(f, "sensor-1");
        snprintf(device.profile, sizeof device.profile, "gone");
        assert_int_equal(device_update(f->store, &device), 0);
        fixture_pass(f, 30 * FIXTURE_DAY);
        assert_int_equal(schedule_tick(&f->turn, 16), 2);
        assert_int_equal(schedule_tick(&f->turn, 16), 0);
        assert_int_equal(fixture_device(f, "sensor-2").due, DUE_ROTATE);
        assert_int_equal(fixture_device(f, "sensor-1").due, 0);
        snprintf(device.profile, sizeof device.profile, "plain"); /* the configuration was mended */
        assert_int_equal(device_update(f->store, &device), 0);
        fixture_pass(f, 3600);
        fixture_tick(f);
        assert_int_equal(fixture_device(f, "sensor-1").due, DUE_ROTATE);
}

static void rows_that_cannot_be_read_hold_up_no_other_device_and_nothing_half_done_stays(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE], other[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_add(f, "sensor-2", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-2", other);
        assert_int_equal(connection_run(f->store->db, "UPDATE credential SET predecessor = printf('%.80c', 'x')"
                                                      " WHERE device = 'sensor-1'"),
                         0);
        fixture_pass(f, 30 * FIXTURE_DAY);
        assert_int_equal(schedule_tick(&f->turn, 16), 2);
        assert_int_equal(schedule_tick(&f->turn, 16), 0); /* it is tried again in an hour */
        assert_int_equal(fixture_effects(f, EFFECT_EVENT, "sensor-1"), 0);
        fixture_commit(f);
        assert_int_equal(fixture_device(f, "sensor-1").due, 0);
        assert_int_equal(fixture_device(f, "sensor-2").due, DUE_ROTATE);
        fixture_pass(f, 3600);
        assert_int_equal(schedule_tick(&f->turn, 16), 1);
}

static void a_profile_changed_by_a_reload_counts_from_the_next_look(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass_ticking(f, 10 * FIXTURE_DAY);
        f->profiles[FIXTURE_PLAIN].rotate_every_sec = 5 * FIXTURE_DAY;
        identity = connected(f, kid);
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(me_is_a_small_deterministic_map_of_durations),
                TEST(max_age_is_the_least_duration_and_at_most_a_day),
                TEST(durations_that_do_not_apply_are_left_out),
                TEST(observing_me_is_accepted_and_another_format_is_not),
                TEST(what_falls_due_is_announced_once_and_observers_are_notified),
                TEST(a_grant_that_nobody_takes_up_stays_until_another_is_proven),
                TEST(overdue_devices_stand_as_the_profile_says),
                TEST(an_overdue_device_renews_and_is_operational_again),
                TEST(a_quarantined_overdue_device_that_attests_may_only_renew),
                TEST(a_year_that_the_calendar_jumps_restricts_nobody_while_it_is_held),
                TEST(a_conflict_and_a_compromise_make_evidence_due_at_once),
                TEST(evidence_falls_due_by_its_own_interval_and_its_absence_is_told_once),
                TEST(due_times_of_a_fleet_are_spread),
                TEST(a_tick_looks_at_what_is_due_and_says_when_more_is_waiting),
                TEST(one_device_that_cannot_be_looked_at_holds_up_no_other),
                TEST(rows_that_cannot_be_read_hold_up_no_other_device_and_nothing_half_done_stays),
                TEST(a_profile_changed_by_a_reload_counts_from_the_next_look),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
