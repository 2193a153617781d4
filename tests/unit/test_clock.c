/* SPDX-License-Identifier: Apache-2.0 */

/* The ratchet over simulated boots, jumps and losses of the clock. */

#include "tests/unit/support.h"

#include "gatewayd/clock.h"

#define YEAR  (365 * INT64_C(86400))
#define START INT64_C(1790000000)

static struct clock_reading reading(unix_sec wall, int64_t boottime, bool is_synchronized, const char *boot) {
        struct clock_reading r = { .wall = wall, .boottime_sec = boottime, .is_synchronized = is_synchronized };

        snprintf(r.boot_id, sizeof r.boot_id, "%s", boot);
        return r;
}

static struct moment advance(struct clock *clock, unix_sec wall, int64_t boottime, bool is_synchronized,
                             const char *boot) {
        const struct clock_reading r = reading(wall, boottime, is_synchronized, boot);

        return clock_advance(clock, &r);
}

static void time_never_runs_backwards(void **state) {
        struct clock clock = { 0 };
        unix_sec last = 0;
        unsigned seed = 7;
        int64_t boottime = 10;

        (void)state;
        for (int i = 0; i < 100000; i++) {
                struct moment now;

                boottime += rand_r(&seed) % 100;
                now = advance(&clock, START + rand_r(&seed) % YEAR - YEAR / 2, boottime, rand_r(&seed) % 2,
                              rand_r(&seed) % 50 ? "a" : "b");
                assert_true(now.wall >= last);
                last = now.wall;
        }
}

static void a_clock_lost_to_1970_goes_on_from_what_was_recorded(void **state) {
        struct clock clock = { 0 };
        struct moment now;

        (void)state;
        advance(&clock, START, 100, true, "first");
        now = advance(&clock, 5, 3, false, "second");
        assert_true(now.wall >= START);
        assert_int_equal(now.quality, CLOCK_UNKNOWN);
        assert_false(now.wall_trusted);
        now = advance(&clock, 5 + 3600, 3 + 3600, false, "second");
        assert_in_range(now.wall, START + 3600, START + 3700);
}

static void powered_on_time_sums_over_boots_and_ignores_the_wall(void **state) {
        struct clock clock = { 0 };
        struct moment now;

        (void)state;
        advance(&clock, START, 0, true, "a");
        now = advance(&clock, START + YEAR, 1000, true, "a");
        assert_int_equal(now.powered_sec, 1000);
        now = advance(&clock, START + 2 * YEAR, 50, true, "b");
        assert_int_equal(now.powered_sec, 1050);
        now = advance(&clock, 0, 80, false, "b");
        assert_int_equal(now.powered_sec, 1080);
}

static void quality_is_held_after_synchronization_until_the_next_boot(void **state) {
        struct clock clock = { 0 };

        (void)state;
        assert_int_equal(advance(&clock, START, 1, false, "a").quality, CLOCK_UNKNOWN);
        assert_int_equal(advance(&clock, START + 1, 2, true, "a").quality, CLOCK_SYNCHRONIZED);
        assert_int_equal(advance(&clock, START + 2, 3, false, "a").quality, CLOCK_HELD);
        assert_int_equal(advance(&clock, START + 3, 1, false, "b").quality, CLOCK_UNKNOWN);
}

static void a_jump_forward_is_held_and_ends_nothing_by_calendar_age(void **state) {
        struct clock clock = { 0 };
        struct moment issued, now;

        (void)state;
        issued = advance(&clock, START, 10, true, "a");
        assert_true(issued.wall_trusted);
        now = advance(&clock, START + YEAR, 20, true, "a");
        assert_false(now.wall_trusted);
        assert_int_equal(moment_wall_age(&now, &issued), -1);
        assert_int_equal(moment_age(&now, &issued), 10);
        now = advance(&clock, START + YEAR + CLOCK_HOLD_SEC, 20 + CLOCK_HOLD_SEC, true, "a");
        assert_true(now.wall_trusted);
        assert_true(moment_age(&now, &issued) >= YEAR);
}

static void the_first_reading_of_all_is_no_jump(void **state) {
        struct clock clock = { 0 };

        (void)state;
        assert_true(advance(&clock, START, 10, true, "a").wall_trusted);
}

static void an_age_from_a_time_of_unknown_quality_counts_powered_on_time_alone(void **state) {
        const struct moment then = { .wall = START, .powered_sec = 100, .quality = CLOCK_UNKNOWN };
        const struct moment now = {
                .wall = START + YEAR, .powered_sec = 160, .quality = CLOCK_SYNCHRONIZED, .wall_trusted = true
        };

        (void)state;
        assert_int_equal(moment_wall_age(&now, &then), -1);
        assert_int_equal(moment_age(&now, &then), 60);
}

static void time_that_a_wrong_clock_lifted_is_not_called_synchronized(void **state) {
        struct clock clock = { 0 };
        struct moment now;

        (void)state;
        (void)advance(&clock, START, 10, true, "a");
        (void)advance(&clock, START + 70 * YEAR, 5, false, "b"); /* a battery that is running down */
        now = advance(&clock, START + 100, 10, true, "b");
        assert_int_equal(now.wall, START + 70 * YEAR + 5);
        assert_int_equal(now.quality, CLOCK_UNKNOWN);
        now = advance(&clock, START + 2 * CLOCK_HOLD_SEC, 10 + 2 * CLOCK_HOLD_SEC, true, "b");
        assert_false(now.wall_trusted);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(time_never_runs_backwards),
                cmocka_unit_test(a_clock_lost_to_1970_goes_on_from_what_was_recorded),
                cmocka_unit_test(powered_on_time_sums_over_boots_and_ignores_the_wall),
                cmocka_unit_test(quality_is_held_after_synchronization_until_the_next_boot),
                cmocka_unit_test(a_jump_forward_is_held_and_ends_nothing_by_calendar_age),
                cmocka_unit_test(the_first_reading_of_all_is_no_jump),
                cmocka_unit_test(time_that_a_wrong_clock_lifted_is_not_called_synchronized),
                cmocka_unit_test(an_age_from_a_time_of_unknown_quality_counts_powered_on_time_alone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
