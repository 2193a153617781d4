/* SPDX-License-Identifier: Apache-2.0 */

/* What gatewayctl makes of its arguments, and what people and programs get to read. */

#include "support.h"

#include <math.h>
#include <time.h>

#include "gatewayd/operator/gatewayctl_client.h"

/* Local times are read in this zone. */
static int use_utc(void **state) {
        (void)state;
        setenv("TZ", "UTC", 1);
        tzset();
        return 0;
}

/* ---- figures in words ---- */

static void spans_are_said_in_two_units_at_most(void **state) {
        static const struct {
                int64_t seconds;
                const char *said;
        } cases[] = {
                { 0, "0s" },
                { 59, "59s" },
                { 60, "1min" },
                { 3 * 60 + 5, "3min 5s" },
                { 3600 + 120, "1h 2min" },
                { 25 * 3600, "1d 1h" },
                { 12 * 86400 + 4 * 3600, "12d" },
                { 400 * INT64_C(86400), "1y 34d" },
                { -90, "1min 30s" },
                { INT64_MIN, "292271023045y" },
        };
        char text[SAY_MAX];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(cases); i++)
                assert_string_equal(span_say(cases[i].seconds, text), cases[i].said);
}

static void times_are_said_from_now(void **state) {
        char text[SAY_MAX];

        (void)state;
        assert_string_equal(time_say(0, 5000, text), "never");
        assert_string_equal(time_say(5000, 5000, text), "just now");
        assert_string_equal(time_say(5002, 5000, text), "just now");
        assert_string_equal(time_say(5000 - 180, 5000, text), "3min ago");
        assert_string_equal(time_say(5000 + 7200, 5000, text), "in 2h");
}

static void counts_and_sizes_are_readable(void **state) {
        char text[SAY_MAX];

        (void)state;
        assert_string_equal(count_say(0, text), "0");
        assert_string_equal(count_say(999, text), "999");
        assert_string_equal(count_say(1000, text), "1,000");
        assert_string_equal(count_say(UINT64_MAX, text), "18,446,744,073,709,551,615");
        assert_string_equal(bytes_say(0, text), "0 bytes");
        assert_string_equal(bytes_say(1536, text), "1.5 KiB");
        assert_string_equal(bytes_say(UINT64_C(200) << 20, text), "200 MiB");
}

/* ---- tables ---- */

static char *print_table(const struct table *table, unsigned width) {
        char *text = NULL;
        size_t size;
        struct screen screen = { .to = open_memstream(&text, &size), .width = width };

        table_print(table, &screen);
        fclose(screen.to);
        return text;
}

static void a_table_is_as_wide_as_its_content_and_no_wider_than_the_terminal(void **state) {
        static const struct column columns[] = { { "N", true, false },
                                                 { "REASON", false, true },
                                                 { "BY", false, false } };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };
        char *text;

        (void)state;
        table_add(&table, COLOUR_NONE, "%d", 1);
        table_add(&table, COLOUR_NONE, "a reason that is long");
        table_add(&table, COLOUR_NONE, "me");
        table_add(&table, COLOUR_BAD, "%d", 100);
        table_add(&table, COLOUR_NONE, "größer");
        table_add(&table, COLOUR_NONE, "you");
        text = print_table(&table, 0);
        assert_string_equal(text, "  N  REASON                 BY\n"
                                  "  1  a reason that is long  me\n"
                                  "100  größer                 you\n");
        free(text);
        text = print_table(&table, 20);
        assert_string_equal(text, "  N  REASON      BY\n"
                                  "  1  a reason …  me\n"
                                  "100  größer      you\n");
        free(text);
        /* Narrower than can be: as narrow as can be. */
        text = print_table(&table, 3);
        assert_non_null(strstr(text, "a reaso…"));
        free(text);
        table_free(&table);
}

static void what_comes_from_outside_cannot_move_the_cursor(void **state) {
        static const struct column columns[] = { { "X", false, false } };
        struct table table = { .columns = columns, .column_count = 1 };
        char *text;

        (void)state;
        table_add(&table, COLOUR_NONE, "%s", "a\033[2Jb\nc");
        text = print_table(&table, 0);
        assert_string_equal(text, "X\na?[2Jb?c\n");
        free(text);
        table_free(&table);
}

static void a_file_gets_no_colours(void **state) {
        char *text = NULL;
        size_t size;
        FILE *to = open_memstream(&text, &size);
        struct screen screen = { .to = to, .has_colour = true };

        (void)state;
        screen_put(&screen, COLOUR_BAD, "x");
        screen.has_colour = false;
        screen_put(&screen, COLOUR_BAD, "y");
        fclose(to);
        assert_string_equal(text, "\033[1;31mx\033[0my");
        free(text);
        to = tmpfile();
        screen = screen_of(to);
        assert_false(screen.has_colour);
        assert_int_equal(screen.width, 0);
        fclose(to);
}

/* ---- JSON ---- */

static void json_is_escaped_and_complete(void **state) {
        struct value items[] = {
                { .kind = VALUE_BOOL, .boolean = true },
                { .kind = VALUE_NUMBER, .number = UINT64_MAX },
                { .kind = VALUE_SIGNED, .integer = INT64_MIN },
                { .kind = VALUE_REAL, .real = 0.5 },
                { .kind = VALUE_REAL, .real = INFINITY },
                { .kind = VALUE_TEXT, .text = (char *)"a \"quote\", a \\, a\nline, \x01 and größer" },
                { .kind = VALUE_LIST },
        };
        char *keys[] = { (char *)"b", (char *)"t", (char *)"x", (char *)"d", (char *)"inf", (char *)"s", (char *)"l" };
        struct value map = { .kind = VALUE_MAP, .items = items, .keys = keys, .count = ELEMENTS(items) };
        char *text = NULL;
        size_t size;
        FILE *to = open_memstream(&text, &size);

        (void)state;
        value_print_json(&map, to);
        fclose(to);
        assert_string_equal(text, "{\n"
                                  "  \"b\": true,\n"
                                  "  \"t\": 18446744073709551615,\n"
                                  "  \"x\": -9223372036854775808,\n"
                                  "  \"d\": 0.5,\n"
                                  "  \"inf\": null,\n"
                                  "  \"s\": \"a \\\"quote\\\", a \\\\, a\\nline, \\u0001 and größer\",\n"
                                  "  \"l\": []\n"
                                  "}\n");
        free(text);
}

static void a_member_that_is_absent_reads_as_nothing(void **state) {
        struct value items[] = { { .kind = VALUE_SIGNED, .integer = -3 } };
        char *keys[] = { (char *)"x" };
        struct value map = { .kind = VALUE_MAP, .items = items, .keys = keys, .count = 1 };

        (void)state;
        assert_int_equal(value_signed(&map, "x", 9), -3);
        assert_int_equal(value_signed(&map, "y", 9), 9);
        assert_int_equal(value_number(&map, "x"), 0);
        assert_string_equal(value_text(&map, "x"), "");
        assert_false(value_bool(&map, "x"));
        assert_null(value_member(NULL, "x"));
        assert_null(value_member(&items[0], "x"));
}

/* ---- arguments ---- */

static void options_may_stand_anywhere_among_operands(void **state) {
        const char *operands[2], *value = NULL;
        bool flag = false;
        const struct command_option options[] = { { "--for", &value, NULL }, { "--flag", NULL, &flag } };
        char *separate[] = { (char *)"--for", (char *)"1h", (char *)"d1", (char *)"--flag" };
        char *joined[] = { (char *)"d1", (char *)"--for=2h" };
        char *ended[] = { (char *)"--", (char *)"--for" };

        (void)state;
        assert_int_equal(take_arguments(4, separate, options, 2, operands, 1, 1, "the id"), 0);
        assert_string_equal(operands[0], "d1");
        assert_string_equal(value, "1h");
        assert_true(flag);
        assert_int_equal(take_arguments(2, joined, options, 2, operands, 1, 1, "the id"), 0);
        assert_string_equal(value, "2h");
        assert_int_equal(take_arguments(2, ended, options, 2, operands, 1, 1, "the id"), 0);
        assert_string_equal(operands[0], "--for");
}

static void a_command_line_that_makes_no_sense_is_a_usage_error(void **state) {
        const char *operands[1], *value = NULL;
        bool flag = false;
        const struct command_option options[] = { { "--for", &value, NULL }, { "--flag", NULL, &flag } };
        char *unknown[] = { (char *)"--forty" }, *missing[] = { (char *)"--for" },
             *many[] = { (char *)"a", (char *)"b" };
        char *filled[] = { (char *)"a", (char *)"--flag=yes" };

        (void)state;
        assert_int_equal(take_arguments(1, unknown, options, 2, operands, 0, 1, "x"), EXIT_USAGE);
        assert_int_equal(take_arguments(1, missing, options, 2, operands, 0, 1, "x"), EXIT_USAGE);
        assert_int_equal(take_arguments(2, many, options, 2, operands, 0, 1, "x"), EXIT_USAGE);
        assert_int_equal(take_arguments(2, filled, options, 2, operands, 0, 1, "x"), EXIT_USAGE);
        assert_int_equal(take_arguments(0, NULL, options, 2, operands, 1, 1, "x"), EXIT_USAGE);
}

static void times_are_read_in_several_shapes(void **state) {
        static const unix_sec now = 1790000000;
        static const struct {
                const char *text;
                unix_sec time;
        } good[] = {
                { "@1767225600", 1767225600 },         { "2026-01-01", 1767225600 },
                { "2026-01-01 00:00", 1767225600 },    { "2026-01-01T00:00:00Z", 1767225600 },
                { "2026-01-01 00:00:07", 1767225607 }, { "3d ago", now - 3 * 86400 },
                { "1h 30min ago", now - 5400 },
        };
        static const char *const bad[] = { "",
                                           "@",
                                           "@x",
                                           "@-5",
                                           "yesterday",
                                           "2026-13-01",
                                           "2026-01-01 25:00",
                                           "ago",
                                           "x ago",
                                           "2026-01-01 00:00 and more",
                                           "9999999999999999999 ago" };
        unix_sec time;

        (void)state;
        for (size_t i = 0; i < ELEMENTS(good); i++) {
                assert_int_equal(read_time(good[i].text, now, &time), 0);
                assert_int_equal(time, good[i].time);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(read_time(bad[i], now, &time), EXIT_USAGE);
}

static void spans_are_read_as_systemd_writes_them(void **state) {
        int64_t seconds;

        (void)state;
        assert_int_equal(read_span("1h", &seconds), 0);
        assert_int_equal(seconds, 3600);
        assert_int_equal(read_span("2d 3h", &seconds), 0);
        assert_int_equal(seconds, 2 * 86400 + 3 * 3600);
        assert_int_equal(read_span("0", &seconds), EXIT_USAGE);
        assert_int_equal(read_span("-1h", &seconds), EXIT_USAGE);
        assert_int_equal(read_span("soon", &seconds), EXIT_USAGE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(spans_are_said_in_two_units_at_most),
                cmocka_unit_test(times_are_said_from_now),
                cmocka_unit_test(counts_and_sizes_are_readable),
                cmocka_unit_test(a_table_is_as_wide_as_its_content_and_no_wider_than_the_terminal),
                cmocka_unit_test(what_comes_from_outside_cannot_move_the_cursor),
                cmocka_unit_test(a_file_gets_no_colours),
                cmocka_unit_test(json_is_escaped_and_complete),
                cmocka_unit_test(a_member_that_is_absent_reads_as_nothing),
                cmocka_unit_test(options_may_stand_anywhere_among_operands),
                cmocka_unit_test(a_command_line_that_makes_no_sense_is_a_usage_error),
                cmocka_unit_test(times_are_read_in_several_shapes),
                cmocka_unit_test(spans_are_read_as_systemd_writes_them),
        };

        return cmocka_run_group_tests_name("gatewayctl_text", tests, use_utc, NULL);
}
