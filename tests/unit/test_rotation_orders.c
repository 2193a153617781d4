/* SPDX-License-Identifier: Apache-2.0 */

/* What operators order about rotation, the pace at which devices are called, and what is said before a key is too
 * old. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/devices/orders.h"
#include "gatewayd/devices/steps.h"
#include "store/orders.h"
#include "tests/unit/devices_fixture.h"

#define ID_SIZE (DEVICE_ID_MAX + 1)
#define FLEET   50

static void name_of(int i, char to[ID_SIZE]) {
        snprintf(to, ID_SIZE, "sensor-%03d", i);
}

static void make_fleet(struct fixture *f) {
        for (int i = 0; i < FLEET; i++) {
                char id[ID_SIZE], kid[ID_SIZE];

                name_of(i, id);
                fixture_add(f, id, i % 2 ? FIXTURE_PLAIN : FIXTURE_KEEP);
                fixture_provision(f, id, kid);
        }
}

/* What core does after an order: every device is looked at. */
static int look(void *userdata, const struct device *device) {
        struct fixture *f = userdata;
        struct device copy = *device;

        return schedule_device(&f->turn, &copy);
}

static void look_at_all(struct fixture *f) {
        assert_true(device_each(f->store, NULL, SIZE_MAX, look, f) >= 0);
        fixture_commit(f);
}

static unsigned called(struct fixture *f, int parity) {
        unsigned count = 0;

        for (int i = 0; i < FLEET; i++) {
                char id[ID_SIZE];

                name_of(i, id);
                count += (parity < 0 || i % 2 == parity) && fixture_device(f, id).due & DUE_ROTATE;
        }
        return count;
}

static void an_order_for_a_profile_calls_its_devices_alone(void **state) {
        struct fixture *f = *state;

        make_fleet(f);
        fixture_pass(f, FIXTURE_DAY);
        assert_int_equal(orders_rotate(&f->turn, "plain", 0, &f->problem), 1);
        assert_int_equal(fixture_effects(f, EFFECT_RESCHEDULE, NULL), 1);
        look_at_all(f);
        assert_int_equal(called(f, 1), FLEET / 2);
        assert_int_equal(called(f, 0), 0);
        assert_int_equal(orders_rotate(&f->turn, "plainer", 0, &f->problem), -ENOENT);
        assert_non_null(strstr(f->problem.detail, "plainer"));
}

static void an_order_for_all_is_spread_over_its_span(void **state) {
        struct fixture *f = *state;
        unsigned before;

        make_fleet(f);
        fixture_pass(f, FIXTURE_DAY);
        assert_int_equal(orders_rotate(&f->turn, "", 2 * 3600, &f->problem), 1);
        look_at_all(f);
        before = called(f, -1);
        assert_true(before < FLEET / 4);
        fixture_pass(f, 3600);
        fixture_tick(f);
        assert_true(called(f, -1) > FLEET / 4 && called(f, -1) < FLEET * 3 / 4);
        fixture_pass(f, 3600);
        fixture_tick(f);
        assert_int_equal(called(f, -1), FLEET);
}

static void a_key_issued_after_the_order_is_left_alone(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "early", FIXTURE_PLAIN);
        fixture_provision(f, "early", kid);
        fixture_pass(f, 100);
        assert_int_equal(orders_rotate(&f->turn, "", 0, &f->problem), 1);
        fixture_pass(f, 100);
        fixture_add(f, "late", FIXTURE_PLAIN);
        fixture_provision(f, "late", kid);
        look_at_all(f);
        assert_true(fixture_device(f, "early").due & DUE_ROTATE);
        assert_false(fixture_device(f, "late").due & DUE_ROTATE);
}

static void a_paused_profile_is_neither_called_nor_restricted_until_the_pause_is_over(void **state) {
        struct fixture *f = *state;
        struct rotation_order order;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(orders_pause(&f->turn, "plain", 91 * FIXTURE_DAY, &f->problem), -ERANGE);
        assert_int_equal(orders_pause(&f->turn, "plain", 90 * FIXTURE_DAY, &f->problem), 1);
        look_at_all(f);
        fixture_pass_ticking(f, 89 * FIXTURE_DAY);
        assert_false(fixture_device(f, "sensor-1").due & DUE_ROTATE);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_audited(f, "sensor-1", EVENT_ROTATION_WARNING), 0);
        fixture_pass_ticking(f, 2 * FIXTURE_DAY);
        assert_int_equal(order_get(f->store, "plain", &order), -ENOENT); /* it is over, and nobody need remember */
        assert_true(fixture_device(f, "sensor-1").due & DUE_ROTATE);
}

/* It looks at all devices when it starts: the one before may have died in the middle of that. */
static void a_core_that_starts_sees_whether_anything_is_ordered(void **state) {
        struct fixture *f = *state;

        assert_int_equal(orders_standing(&f->turn), 0);
        assert_int_equal(orders_pause(&f->turn, "plain", 60, &f->problem), 1);
        assert_int_equal(orders_standing(&f->turn), 1);
        assert_int_equal(orders_resume(&f->turn, "plain", &f->problem), 1);
        assert_int_equal(orders_standing(&f->turn), 0);
        assert_int_equal(orders_rotate(&f->turn, "", 0, &f->problem), 1);
        assert_int_equal(orders_standing(&f->turn), 1);
}

static void a_pause_can_be_ended_sooner(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(orders_resume(&f->turn, "", &f->problem), 0);
        assert_int_equal(orders_pause(&f->turn, "", 60 * FIXTURE_DAY, &f->problem), 1);
        look_at_all(f);
        fixture_pass_ticking(f, 40 * FIXTURE_DAY);
        assert_false(fixture_device(f, "sensor-1").due & DUE_ROTATE);
        assert_int_equal(orders_resume(&f->turn, "", &f->problem), 1);
        look_at_all(f);
        assert_true(fixture_device(f, "sensor-1").due & DUE_ROTATE);
}

static void a_device_that_asks_by_itself_gets_its_key_during_a_pause(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(orders_pause(&f->turn, "", FIXTURE_DAY, &f->problem), 1);
        fixture_rotate(f, kid);
}

/* ---- the pace ---- */

/* A fleet that fell due during an outage, device by device: the longest due is called first, never more a tick than
 * there are offers, and nobody is forgotten. */
static void a_fleet_that_is_overdue_is_called_at_the_pace_oldest_first(void **state) {
        struct fixture *f = *state;
        unsigned offers, before = 0;
        char(*order)[ID_SIZE] = xcalloc(FLEET, ID_SIZE);

        f->profiles[FIXTURE_PLAIN].jitter = f->profiles[FIXTURE_KEEP].jitter = 0;
        for (int i = 0; i < FLEET; i++) {
                char kid[ID_SIZE];

                name_of(FLEET - 1 - i, order[i]); /* not in the order of their names */
                fixture_add(f, order[i], FIXTURE_PLAIN);
                fixture_provision(f, order[i], kid);
                fixture_pass(f, 60);
        }
        fixture_pass(f, 40 * FIXTURE_DAY);
        f->turn.offers = &offers;
        for (int round = 0; round < FLEET / 5; round++) {
                offers = 5;
                assert_true(schedule_tick(&f->turn, 5) >= 0);
                fixture_commit(f);
                assert_int_equal(called(f, -1), before + 5);
                for (int i = 0; i < FLEET; i++)
                        assert_int_equal((fixture_device(f, order[i]).due & DUE_ROTATE) != 0, i < (int)before + 5);
                assert_int_equal(offers, 0);
                before += 5;
        }
        f->turn.offers = NULL;
        free(order);
}

static void a_device_that_polls_while_it_waits_takes_a_place_or_is_told_to_come_soon(void **state) {
        struct fixture *f = *state;
        unsigned offers = 0;
        struct identity identity;
        struct outlook outlook;
        struct device device;
        char kid[ID_SIZE];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        fixture_pass(f, 40 * FIXTURE_DAY);
        assert_int_equal(fixture_connect(f, kid, &identity), 0);
        f->turn.offers = &offers;
        device = fixture_device(f, "sensor-1");
        assert_int_equal(schedule_outlook(&f->turn, &device, &outlook), 0);
        assert_int_equal(outlook.due, 0);
        assert_in_range(outlook.rotate_in_sec, 10, 60);
        offers = 1;
        assert_int_equal(schedule_outlook(&f->turn, &device, &outlook), 0);
        assert_int_equal(outlook.due, DUE_ROTATE);
        assert_int_equal(offers, 0);
        f->turn.offers = NULL;
}

/* ---- warnings ---- */

static void before_a_device_is_restricted_it_is_said_three_times(void **state) {
        struct fixture *f = *state;
        char kid[ID_SIZE];

        fixture_add(f, "sleepy", FIXTURE_PLAIN);
        fixture_provision(f, "sleepy", kid);
        fixture_pass_ticking(f, 75 * FIXTURE_DAY);
        assert_int_equal(fixture_audited(f, "sleepy", EVENT_ROTATION_WARNING), 0);
        fixture_pass_ticking(f, 2 * FIXTURE_DAY);
        assert_int_equal(fixture_audited(f, "sleepy", EVENT_ROTATION_WARNING), 1);
        fixture_pass_ticking(f, 12 * FIXTURE_DAY + FIXTURE_DAY / 2);
        assert_int_equal(fixture_audited(f, "sleepy", EVENT_ROTATION_WARNING), 3);
        assert_int_equal(fixture_device(f, "sleepy").standing, STANDING_OPERATIONAL);
        fixture_pass_ticking(f, FIXTURE_DAY);
        assert_int_equal(fixture_device(f, "sleepy").standing, STANDING_RESTRICTED);
        /* It wakes after a quarter, renews, and all is as before: the next time begins anew. */
        fixture_rotate(f, kid);
        assert_int_equal(fixture_device(f, "sleepy").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_device(f, "sleepy").due & DUE_WARNED, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(an_order_for_a_profile_calls_its_devices_alone),
                TEST(an_order_for_all_is_spread_over_its_span),
                TEST(a_key_issued_after_the_order_is_left_alone),
                TEST(a_paused_profile_is_neither_called_nor_restricted_until_the_pause_is_over),
                TEST(a_core_that_starts_sees_whether_anything_is_ordered),
                TEST(a_pause_can_be_ended_sooner),
                TEST(a_device_that_asks_by_itself_gets_its_key_during_a_pause),
                TEST(a_fleet_that_is_overdue_is_called_at_the_pace_oldest_first),
                TEST(a_device_that_polls_while_it_waits_takes_a_place_or_is_told_to_come_soon),
                TEST(before_a_device_is_restricted_it_is_said_three_times),
        };

        return cmocka_run_group_tests_name("rotation orders", tests, NULL, NULL);
}
