/* SPDX-License-Identifier: Apache-2.0 */

/* Until when the uplink may stay away, from what is measured. */

#include "support.h"

#include "gatewayd/operator/horizon.h"
#include "gatewayd/operator/monitor.h"

#define DAY INT64_C(86400)

static struct horizon_view year_of_evidence(void) {
        return (struct horizon_view){
                .records_max = 1000,
                .bytes_max = 1 << 30,
                .disk_free_bytes = UINT64_C(1) << 40,
                .records_per_day = 10,
                .bytes_per_record = 1000,
                .disk_bytes_per_day = 10000,
        };
}

static int64_t end_of(struct horizon horizon, enum horizon_limit limit) {
        for (size_t i = 0; i < horizon.count; i++)
                if (horizon.ends[i].limit == limit)
                        return horizon.ends[i].seconds;
        return HORIZON_NEVER;
}

static void the_backlogs_places_run_out_at_the_measured_rate(void **state) {
        struct horizon_view view = year_of_evidence();
        struct horizon horizon = horizon_compute(&view);

        (void)state;
        assert_int_equal(horizon.first, HORIZON_RECORDS);
        assert_int_equal(horizon.seconds, 100 * DAY);
        view.records = 900;
        assert_int_equal(horizon_compute(&view).seconds, 10 * DAY);
}

static void what_gives_out_first_is_named(void **state) {
        struct horizon_view view = year_of_evidence();

        (void)state;
        view.bytes_max = 50 * 10 * 1000; /* 50 days of bytes */
        assert_int_equal(horizon_compute(&view).first, HORIZON_BYTES);
        assert_int_equal(horizon_compute(&view).seconds, 50 * DAY);
        view.disk_free_bytes = 5 * 10000;
        assert_int_equal(horizon_compute(&view).first, HORIZON_DISK);
        assert_int_equal(horizon_compute(&view).seconds, 5 * DAY);
        assert_int_equal(end_of(horizon_compute(&view), HORIZON_RECORDS), 100 * DAY);
        assert_string_equal(horizon_limit_name(HORIZON_DISK), "disk");
}

static void without_evidence_nothing_gives_out(void **state) {
        struct horizon_view view = { .records_max = 10, .bytes_max = 10, .disk_free_bytes = 10 };
        struct horizon horizon = horizon_compute(&view);

        (void)state;
        assert_int_equal(horizon.first, HORIZON_NONE);
        assert_true(horizon.seconds == HORIZON_NEVER);
        assert_string_equal(horizon_limit_name(horizon.first), "none");
}

static void a_full_backlog_is_no_time_away(void **state) {
        struct horizon_view view = year_of_evidence();

        (void)state;
        view.records = view.records_max;
        assert_int_equal(horizon_compute(&view).seconds, 0);
        view.records = view.records_max + 5;
        assert_int_equal(horizon_compute(&view).seconds, 0);
        assert_int_equal(horizon_compute(&view).first, HORIZON_RECORDS);
}

static void a_horizon_beyond_a_century_is_never(void **state) {
        struct horizon_view view = year_of_evidence();

        (void)state;
        view.records_max = UINT64_MAX;
        view.bytes_max = UINT64_MAX;
        view.disk_free_bytes = UINT64_MAX;
        view.records_per_day = 1e-9;
        view.disk_bytes_per_day = 1e-9;
        assert_true(horizon_compute(&view).seconds == HORIZON_NEVER);
}

/* ---- what is measured ---- */

static void every_date_that_only_an_upstream_moves_is_an_end(void **state) {
        struct horizon_view view = { .now = { .wall = 1000 * DAY, .quality = CLOCK_HELD } };
        struct horizon horizon;

        (void)state;
        view.records_max = view.bytes_max = view.disk_free_bytes = UINT64_MAX;
        view.ca_end = 1400 * DAY;
        view.chain_end = 1300 * DAY;
        view.client_end = 1200 * DAY;
        view.crl_end = 1020 * DAY;
        horizon = horizon_compute(&view);
        assert_int_equal(horizon.count, 4);
        assert_int_equal(horizon.ends[0].limit, HORIZON_CRL);
        assert_int_equal(horizon.ends[3].limit, HORIZON_CA);
        assert_int_equal(horizon.first, HORIZON_CLIENT); /* a stale CRL stops nothing */
        assert_int_equal(horizon.seconds, 200 * DAY);
        for (unsigned i = 1; i < HORIZON_LIMITS; i++) {
                assert_true(horizon_effect((enum horizon_limit)i)[0]);
                assert_string_not_equal(horizon_limit_name((enum horizon_limit)i), "unknown");
        }
}

static void a_date_that_has_passed_is_now_and_never_before(void **state) {
        struct horizon_view view = { .now = { .wall = 1000 * DAY, .quality = CLOCK_SYNCHRONIZED }, .ca_end = DAY };

        (void)state;
        view.records_max = view.bytes_max = view.disk_free_bytes = UINT64_MAX;
        assert_int_equal(horizon_compute(&view).seconds, 0);
        assert_int_equal(horizon_compute(&view).first, HORIZON_CA);
}

static void a_clock_that_nobody_knows_is_told_and_limits_nothing(void **state) {
        struct horizon_view view = year_of_evidence();

        (void)state;
        view.now.quality = CLOCK_UNKNOWN;
        assert_int_equal(end_of(horizon_compute(&view), HORIZON_CLOCK), 0);
        assert_int_equal(horizon_compute(&view).first, HORIZON_RECORDS);
        view.now.quality = CLOCK_HELD;
        assert_true(end_of(horizon_compute(&view), HORIZON_CLOCK) == HORIZON_NEVER);
}

/* Whatever the dates: the horizon is the nearest end that stops something, and the list is in order. */
static void the_horizon_is_the_least_of_its_ends(void **state) {
        uint32_t seed = 7;

        (void)state;
        for (int round = 0; round < 20000; round++) {
                struct horizon_view view = year_of_evidence();
                int64_t least = HORIZON_NEVER;
                struct horizon horizon;
                unix_sec *ends[] = { &view.ca_end, &view.chain_end, &view.client_end, &view.crl_end };

                view.now.wall = 1000 * DAY;
                for (size_t i = 0; i < ELEMENTS(ends); i++) {
                        seed = seed * 1664525 + 1013904223;
                        *ends[i] = (seed >> 8) % 3 == 0 ? 0 : (int64_t)(seed >> 8) % (2000 * DAY);
                }
                view.records = (seed >> 8) % 1200;
                horizon = horizon_compute(&view);
                for (size_t i = 0; i < horizon.count; i++) {
                        const struct horizon_end *end = &horizon.ends[i];

                        assert_true(end->seconds >= 0);
                        assert_true(i == 0 || end[-1].seconds <= end->seconds);
                        if (end->limit != HORIZON_CRL && end->limit != HORIZON_CLOCK && end->seconds < least)
                                least = end->seconds;
                }
                assert_true(horizon.seconds == least);
        }
}

static void a_near_horizon_is_told_once_until_it_is_far_again(void **state) {
        struct horizon horizon = { .first = HORIZON_RECORDS, .seconds = 31 * DAY };
        bool told = false;

        (void)state;
        assert_false(monitor_horizon_is_near(&told, &horizon, 30 * DAY));
        horizon.seconds = 29 * DAY;
        assert_true(monitor_horizon_is_near(&told, &horizon, 30 * DAY));
        assert_false(monitor_horizon_is_near(&told, &horizon, 30 * DAY));
        horizon.seconds = 31 * DAY; /* not far enough to call it gone */
        assert_false(monitor_horizon_is_near(&told, &horizon, 30 * DAY));
        horizon.seconds = 29 * DAY;
        assert_false(monitor_horizon_is_near(&told, &horizon, 30 * DAY));
        horizon.seconds = 90 * DAY;
        assert_false(monitor_horizon_is_near(&told, &horizon, 30 * DAY));
        horizon.seconds = 1;
        assert_true(monitor_horizon_is_near(&told, &horizon, 30 * DAY));
}

static void samples_are_an_hour_apart_and_the_oldest_goes_after_a_week(void **state) {
        struct monitor_samples samples = { .count = 0 };

        (void)state;
        for (int64_t t = 0; t < 14 * DAY; t += 600) {
                const struct monitor_sample sample = { .powered_sec = t, .sequence = (uint64_t)t / 600 };

                monitor_samples_take(&samples, &sample);
        }
        assert_int_equal(samples.count, MONITOR_SAMPLES);
        assert_int_equal(samples.list[samples.first].powered_sec, 14 * DAY - 168 * 3600);
}

static const struct config limits = { .backlog_records = 1000, .backlog_bytes = 1 << 20 };

static void the_rate_is_measured_once_an_hour_has_passed(void **state) {
        struct monitor_samples samples = { .count = 0 };
        const struct monitor_sample begin = { .powered_sec = 1000, .sequence = 5, .store_bytes = 100000 };
        struct monitor_facts facts = {
                .sample = { .powered_sec = 1000 + 2 * 3600, .sequence = 5 + 24, .store_bytes = 100000 + 240 },
                .backlog = { .records = 10, .bytes = 5000 },
                .disk_free_bytes = 1 << 30,
                .scheduled_per_day = 7,
        };
        struct horizon_view view;

        (void)state;
        monitor_samples_take(&samples, &begin);
        monitor_view(&samples, &facts, &limits, &view);
        assert_float_equal(view.records_per_day, 24 * 12, 0.001);
        assert_float_equal(view.disk_bytes_per_day, 240 * 12, 0.001);
        assert_float_equal(view.bytes_per_record, 500, 0.001);
        assert_int_equal(view.records_max, 1000);

        facts.sample.powered_sec = 1000 + 3599;
        monitor_view(&samples, &facts, &limits, &view);
        assert_float_equal(view.records_per_day, 7, 0.001);
        assert_true(view.disk_bytes_per_day > 7 * 500);
}

static void a_restored_store_does_not_turn_the_rate_negative(void **state) {
        struct monitor_samples samples = { .count = 0 };
        const struct monitor_sample begin = { .powered_sec = 0, .sequence = 500, .store_bytes = 100000 };
        struct monitor_facts facts = { .sample = { .powered_sec = 7200, .sequence = 3, .store_bytes = 5000 } };
        struct horizon_view view;

        (void)state;
        monitor_samples_take(&samples, &begin);
        monitor_view(&samples, &facts, &limits, &view);
        assert_float_equal(view.records_per_day, 0, 0.001);
        assert_float_equal(view.disk_bytes_per_day, 0, 0.001);
}

static void the_status_line_says_what_an_operator_asks_first(void **state) {
        struct control_status status = { .sessions = 12, .has_north = true, .is_uplink_known = true };
        struct monitor_facts facts = { .counts = { .total = 50 }, .backlog = { .records = 1204 } };
        struct horizon horizon = { .first = HORIZON_RECORDS, .seconds = 41 * DAY + 5 };
        char line[256], little[20];

        (void)state;
        facts.counts.by_standing[STANDING_OPERATIONAL] = 48;
        monitor_line(&status, &facts, &horizon, line, sizeof line);
        assert_string_equal(line,
                            "50 devices (48 operational), 12 sessions, uplink down, backlog 1204 (full in 41 days)");
        status.is_uplink_up = true;
        status.is_degraded = true;
        monitor_line(&status, &facts, &horizon, line, sizeof line);
        assert_string_equal(line, "50 devices (48 operational), 12 sessions, uplink up, backlog 1204, store degraded");
        monitor_line(&status, &facts, &horizon, little, sizeof little);
        assert_string_equal(little, "50 devices (48 oper");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_backlogs_places_run_out_at_the_measured_rate),
                cmocka_unit_test(what_gives_out_first_is_named),
                cmocka_unit_test(without_evidence_nothing_gives_out),
                cmocka_unit_test(a_full_backlog_is_no_time_away),
                cmocka_unit_test(a_horizon_beyond_a_century_is_never),
                cmocka_unit_test(every_date_that_only_an_upstream_moves_is_an_end),
                cmocka_unit_test(a_date_that_has_passed_is_now_and_never_before),
                cmocka_unit_test(a_clock_that_nobody_knows_is_told_and_limits_nothing),
                cmocka_unit_test(the_horizon_is_the_least_of_its_ends),
                cmocka_unit_test(a_near_horizon_is_told_once_until_it_is_far_again),
                cmocka_unit_test(samples_are_an_hour_apart_and_the_oldest_goes_after_a_week),
                cmocka_unit_test(the_rate_is_measured_once_an_hour_has_passed),
                cmocka_unit_test(a_restored_store_does_not_turn_the_rate_negative),
                cmocka_unit_test(the_status_line_says_what_an_operator_asks_first),
        };

        return cmocka_run_group_tests_name("horizon", tests, NULL, NULL);
}
