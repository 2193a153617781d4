/* SPDX-License-Identifier: Apache-2.0 */

/* Calendars in the configuration, and calendar expressions by themselves. That they mean what systemd takes them for,
 * tests/system/test_calendar.py shows. */

#include "tests/unit/support.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "config/config.h"
#include "config/load_text.h"

#define DAY  INT64_C(86400)
#define HOUR INT64_C(3600)

static struct calendar *parsed(const char *text) {
        struct calendar *calendar = NULL;
        char why[128];

        if (calendar_parse(text, &calendar, why) < 0)
                fail_msg("%s: %s", text, why);
        return calendar;
}

static void in_zone(const char *zone) {
        setenv("TZ", zone, 1);
        tzset();
}

/* 2027-03-28 01:00 UTC: Berlin goes from 02:00 to 03:00. 2027-10-31 01:00 UTC: from 03:00 to 02:00. */
#define SPRING INT64_C(1806195600)
#define AUTUMN INT64_C(1824944400)

static void an_hour_that_is_left_out_is_the_moment_after_the_gap(void **state) {
        struct calendar *calendar;

        (void)state;
        in_zone("Europe/Berlin");
        calendar = parsed("*-*-* 02:30");
        assert_int_equal(calendar_next(calendar, SPRING - 12 * HOUR), SPRING + 1800); /* shown as 03:30 */
        assert_int_equal(calendar_next(calendar, SPRING + 1800), SPRING + 23 * HOUR + 1800);
        calendar_free(calendar);
}

static void an_hour_that_comes_twice_counts_once(void **state) {
        struct calendar *calendar;

        (void)state;
        in_zone("Europe/Berlin");
        calendar = parsed("*-*-* 02:30");
        assert_int_equal(calendar_next(calendar, AUTUMN - 12 * HOUR), AUTUMN - 1800);
        assert_int_equal(calendar_next(calendar, AUTUMN - 1800), AUTUMN + 24 * HOUR + 1800);
        calendar_free(calendar);
}

/* Whatever the expression and the zone: it elapses later each time, and a look from anywhere between two elapses
 * finds the second. */
static void elapses_only_go_forward_and_none_is_passed_over(void **state) {
        static const char *const expressions[] = { "hourly",          "*:0/7",   "Sun 02:30",
                                                   "*-*~01 23:59:59", "*-02-29", "Mon..Fri 02,03:15" };
        static const char *const zones[] = { "UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe" };

        (void)state;
        for (size_t z = 0; z < ELEMENTS(zones); z++) {
                in_zone(zones[z]);
                for (size_t e = 0; e < ELEMENTS(expressions); e++) {
                        struct calendar *calendar = parsed(expressions[e]);
                        unix_sec before = SPRING - 3 * DAY;

                        for (int i = 0; i < 300; i++) {
                                unix_sec next = calendar_next(calendar, before);

                                if (next == INT64_MAX)
                                        break; /* the leap years to 2199 are fewer */
                                assert_true(next > before);
                                assert_int_equal(calendar_next(calendar, before + (next - before) / 2), next);
                                assert_int_equal(calendar_next(calendar, next - 1), next);
                                before = next;
                        }
                        calendar_free(calendar);
                }
        }
}

static void the_end_of_time_is_never(void **state) {
        struct calendar *calendar;

        (void)state;
        in_zone("UTC");
        calendar = parsed("2030-01-01");
        assert_int_equal(calendar_next(calendar, INT64_C(1893456000)), INT64_MAX);
        assert_int_equal(calendar_next(calendar, INT64_MAX), INT64_MAX);
        assert_int_equal(calendar_next(calendar, INT64_MIN), INT64_C(1893456000));
        calendar_free(calendar);
        calendar = parsed("*-01-19 03:14:08"); /* past what 32 bits hold */
        assert_int_equal(calendar_next(calendar, INT64_C(2147483647)), INT64_C(2147483648));
        calendar_free(calendar);
}

/* ---- in the configuration ---- */

static struct config *load(const char *settings, struct config_problems *problems) {
        struct config *config = NULL;
        char text[1024];

        snprintf(text, sizeof text, "gateway_id = \"g\"; profiles = ( { name = \"p\"; %s } );", settings);
        (void)config_load_text("f", bytes_of(text), &config, problems);
        return config;
}

static void refuses(const char *settings, const char *words) {
        struct config_problems problems = { 0 };
        struct config *config = load(settings, &problems);
        bool is_said = false;

        for (size_t i = 0; i < problems.count; i++)
                is_said |= strstr(problems.lines[i], words) != NULL;
        if (config || !is_said)
                fail_msg("{ %s } is not refused with \"%s\" but \"%s\"", settings, words,
                         problems.count > 0 ? problems.lines[0] : "");
        config_problems_free(&problems);
}

static void a_rotation_by_the_calendar_has_an_interval_to_fall_back_on(void **state) {
        struct config_problems problems = { 0 };
        struct config *config = load("rotate_at = \"Sun *-*-* 03:00 UTC\";", &problems);
        const struct profile *p = config_profile(config, "p");

        (void)state;
        assert_non_null(p->rotate_at);
        assert_int_equal(p->rotate_every_sec, 7 * DAY / 4 * 5);
        config_free(config);
        config_problems_free(&problems);
        config = load("rotate_at = \"Sun *-*-* 03:00\"; rotate_every = \"20d\";", &problems);
        assert_int_equal(config_profile(config, "p")->rotate_every_sec, 20 * DAY);
        config_free(config);
        config_problems_free(&problems);
}

static void windows_have_a_beginning_and_a_length(void **state) {
        struct config_problems problems = { 0 };
        struct config *config = load("maintenance = \"Sat *-*-* 01:00\"; maintenance_for = \"4h\";", &problems);

        (void)state;
        assert_int_equal(config_profile(config, "p")->maintenance_sec, 4 * HOUR);
        assert_non_null(config_profile(config, "p")->maintenance);
        config_free(config);
        config_problems_free(&problems);
        refuses("maintenance = \"Sat *-*-* 01:00\";", "maintenance_for says how long it lasts");
        refuses("maintenance_for = \"4h\";", "maintenance_for needs maintenance");
        refuses("maintenance = \"Sat *-*-* 01:00\"; maintenance_for = \"8d\";", "1min to 7d");
}

static void mistakes_are_named(void **state) {
        (void)state;
        refuses("rotate_at = \"Son 03:00\";", "no weekday");
        refuses("rotate_at = 7;", "no text");
        refuses("rotate_at = \"*-02-30\";", "never elapses");
        refuses("rotate_at = \"12:00 Europe/Berlin\";", "the zone may be UTC");
        refuses("maintenance = \"yearly\"; maintenance_for = \"4h\";", "no window for 366d");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_hour_that_is_left_out_is_the_moment_after_the_gap),
                cmocka_unit_test(an_hour_that_comes_twice_counts_once),
                cmocka_unit_test(elapses_only_go_forward_and_none_is_passed_over),
                cmocka_unit_test(the_end_of_time_is_never),
                cmocka_unit_test(a_rotation_by_the_calendar_has_an_interval_to_fall_back_on),
                cmocka_unit_test(windows_have_a_beginning_and_a_length),
                cmocka_unit_test(mistakes_are_named),
        };

        return cmocka_run_group_tests_name("calendars", tests, NULL, NULL);
}
