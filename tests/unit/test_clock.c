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

/* ---- decades of anything ---- */

static uint64_t draw(uint64_t *random, uint64_t below) {
        uint64_t z = (*random += UINT64_C(0x9e3779b97f4a7c15));

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        return (z ^ (z >> 31)) % below;
}

/* The machine: its calendar clock is `off` from true time, and CLOCK_BOOTTIME began at `booted`. */
struct machine {
        uint64_t random;
        int64_t truth, off, booted, powered;
        unsigned boots;
        bool is_synchronized;
        struct clock clock;
};

/* Where clocks land: counters that wrap, dead batteries, typing errors. */
static const unix_sec landmarks[] = {
        INT64_C(-1000000000000),
        -1,
        0,
        INT64_C(315532800),
        INT64_C(946684800),
        START - YEAR,
        INT64_C(2147483647),
        2147483648,
        4102444800,
        INT64_C(4294967295),
        4294967296,
        INT64_C(1000000000000),
};

static void disturb(struct machine *m) {
        switch (draw(&m->random, 40)) {
        case 0: /* a boot after a while without power */
                m->truth += (int64_t)draw(&m->random, (uint64_t)(90 * INT64_C(86400)));
                m->booted = m->truth;
                m->boots++;
                m->is_synchronized = false;
                if (draw(&m->random, 2))
                        m->off = -m->truth; /* no battery */
                break;
        case 1:
                m->off = landmarks[draw(&m->random, ELEMENTS(landmarks))] - m->truth;
                m->is_synchronized = draw(&m->random, 8) == 0; /* a liar */
                break;
        case 2:
                m->off += (int64_t)draw(&m->random, 7200) - 3600;
                break;
        case 3: /* the time servers are there */
                m->off = 0;
                m->is_synchronized = true;
                break;
        case 4:
                m->is_synchronized = false;
                break;
        }
}

static struct moment look(struct machine *m) {
        struct clock_reading r = reading(m->truth + m->off, m->truth - m->booted, m->is_synchronized, "");

        snprintf(r.boot_id, sizeof r.boot_id, "boot %u", m->boots);
        return clock_advance(&m->clock, &r);
}

static void over_decades_of_steps_boots_and_liars_the_promises_of_the_clock_hold(void **state) {
        (void)state;
        for (uint64_t seed = 1; seed <= 40; seed++) {
                struct machine m = { .random = seed, .truth = START, .booted = START - 100 };
                struct moment before = look(&m);
                int64_t jumped_at = -CLOCK_HOLD_SEC;

                m.powered = before.powered_sec;
                for (int i = 0; i < 4000; i++) {
                        unsigned boots = m.boots;
                        int64_t passed = (int64_t)draw(&m.random, 3 * 86400);
                        unix_sec floor;
                        struct moment now;

                        disturb(&m);
                        m.truth += passed;
                        m.powered += boots == m.boots ? passed : m.truth - m.booted;
                        floor = before.wall + (boots == m.boots ? passed : m.truth - m.booted);
                        now = look(&m);

                        /* Powered-on time is that alone, whatever the calendar does. */
                        assert_int_equal(now.powered_sec, m.powered);
                        /* Calendar time: never back, never behind what is read, and no further than either says. */
                        assert_true(now.wall >= before.wall);
                        assert_int_equal(now.wall, floor > m.truth + m.off ? floor : m.truth + m.off);
                        /* After a leap nothing ends by the calendar for a week of power. */
                        if (now.wall - floor > CLOCK_JUMP_SEC)
                                jumped_at = now.powered_sec;
                        if (now.powered_sec < jumped_at + CLOCK_HOLD_SEC)
                                assert_false(now.wall_trusted);
                        /* Nor ever where nobody vouches for it. */
                        if (now.wall_trusted)
                                assert_int_not_equal(now.quality, CLOCK_UNKNOWN);
                        if (now.quality == CLOCK_SYNCHRONIZED)
                                assert_true(m.is_synchronized && now.wall <= m.truth + m.off + CLOCK_JUMP_SEC);
                        before = now;
                }
        }
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
                cmocka_unit_test(over_decades_of_steps_boots_and_liars_the_promises_of_the_clock_hold),
                cmocka_unit_test(an_age_from_a_time_of_unknown_quality_counts_powered_on_time_alone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
