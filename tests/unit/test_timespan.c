/* SPDX-License-Identifier: Apache-2.0 */

/* Time spans as systemd writes them. */

#include "tests/unit/support.h"

#include <errno.h>
#include <inttypes.h>

#include "config/config.h"

static void spans_are_read_as_systemd_writes_them(void **state) {
        static const struct {
                const char *text;
                int64_t seconds;
        } spans[] = {
                { "0", 0 },
                { "90", 90 },
                { "2s", 2 },
                { "55s 500ms 500000us", 56 },
                { "300ms 1700ms", 2 },
                { "2 h", 7200 },
                { "2hours", 7200 },
                { "48hr", 172800 },
                { "1y 12month", 31557600 + 12 * 2629800 },
                { "12h 30min", 45000 },
                { "12h30min", 45000 },
                { "30d", 2592000 },
                { "2weeks", 1209600 },
                { "1w", 604800 },
                { "1month", 2629800 },
                { "1M", 2629800 },
                { "1m", 60 },
                { "1.5h", 5400 },
                { "0.5min 30", 60 },
                { "  1d\t ", 86400 },
                { "1 year 2 days 3 minutes 4 seconds", 31557600 + 2 * 86400 + 184 },
                { "9223372036854775807", INT64_MAX },
        };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(spans); i++) {
                int64_t seconds = -1;

                if (timespan_parse(spans[i].text, &seconds) != 0 || seconds != spans[i].seconds)
                        fail_msg("\"%s\" gave %" PRId64, spans[i].text, seconds);
        }
}

static void what_is_no_span_is_refused_and_changes_nothing(void **state) {
        static const char *const bad[] = {
                "",      " ",   "d",      "-1d",  "+1",       "1x",         "1d foo",
                "1..5h", "1.h", ".5h",    "1,5h", "infinity", "0x10",       "1D",
                "1H",    "1e3", "30 d d", "1d;",  "\n1d",     "1.0000001s", "1.00000000000000000000s"
        };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                int64_t seconds = 4711;

                if (timespan_parse(bad[i], &seconds) != -EINVAL || seconds != 4711)
                        fail_msg("\"%s\" was not refused", bad[i]);
        }
}

static void a_span_that_is_no_whole_second_is_refused_not_rounded(void **state) {
        int64_t seconds;

        (void)state;
        assert_int_equal(timespan_parse("1500ms", &seconds), -EINVAL);
        assert_int_equal(timespan_parse("0.5s", &seconds), -EINVAL);
        assert_int_equal(timespan_parse("1us", &seconds), -EINVAL);
        assert_int_equal(timespan_parse("0.3ms", &seconds), -EINVAL);
        assert_int_equal(timespan_parse("1.7y", &seconds), 0);
}

static void a_span_beyond_64_bits_is_out_of_range(void **state) {
        int64_t seconds;

        (void)state;
        assert_int_equal(timespan_parse("9223372036854775808", &seconds), -ERANGE);
        assert_int_equal(timespan_parse("9223372036854775807d", &seconds), -ERANGE);
        assert_int_equal(timespan_parse("9223372036854775807 1s", &seconds), -ERANGE);
        assert_int_equal(timespan_parse("99999999999999999999999", &seconds), -ERANGE);
}

static void spans_are_written_short(void **state) {
        static const struct {
                int64_t seconds;
                const char *text;
        } spans[] = {
                { 0, "0s" },        { 1, "1s" },         { 90, "1min 30s" },         { 5400, "1h 30min" },
                { 86400, "1d" },    { 2592000, "30d" },  { 90061, "1d 1h 1min 1s" }, { 2629800, "1month" },
                { 31557600, "1y" }, { 157788000, "5y" }, { 366 * 86400, "366d" },    { -90, "-1min 30s" },
        };
        char text[64];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(spans); i++) {
                timespan_format(spans[i].seconds, text);
                assert_string_equal(text, spans[i].text);
        }
}

static void every_span_written_is_read_back(void **state) {
        uint64_t x = 1;
        char text[64];

        (void)state;
        for (int i = 0; i < 20000; i++) {
                int64_t seconds, back = -1;

                x = x * 6364136223846793005u + 1442695040888963407u;
                seconds = (int64_t)(x >> (1 + i % 62));
                timespan_format(seconds, text);
                assert_int_equal(timespan_parse(text, &back), 0);
                assert_int_equal(back, seconds);
        }
        timespan_format(INT64_MIN, text);
        assert_string_equal(text, "-106751991167300d 15h 30min 8s");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(spans_are_read_as_systemd_writes_them),
                cmocka_unit_test(what_is_no_span_is_refused_and_changes_nothing),
                cmocka_unit_test(a_span_that_is_no_whole_second_is_refused_not_rounded),
                cmocka_unit_test(a_span_beyond_64_bits_is_out_of_range),
                cmocka_unit_test(spans_are_written_short),
                cmocka_unit_test(every_span_written_is_read_back),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
