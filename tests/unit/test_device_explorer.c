/* SPDX-License-Identifier: Apache-2.0 */

/* Every state that one device and its gateway can come into while so much goes wrong as a budget allows: tests/explore.
 * Both sides are the real code; each test exhausts what its budgets make possible.
 *
 * TORTURE=1 in the environment: greater budgets, ten minutes. Under sanitizers smaller ones. */

#include "tests/explore/life.h"

enum extent { SMALL, USUAL, LARGE };

static enum extent extent(void) {
#ifdef __SANITIZE_ADDRESS__
        return SMALL;
#else
        return getenv("TORTURE") ? LARGE : USUAL;
#endif
}

/* What is tried at each extent. */
static uint8_t by_extent(uint8_t small, uint8_t usual, uint8_t large) {
        const uint8_t value[] = { small, usual, large };

        return value[extent()];
}

static void losses_crashes_and_absences_lock_no_device_out(void **state) {
        const struct search search = {
                "faults", FIXTURE_PLAIN, false, { .faults = by_extent(1, 2, 3), .absences = 2 }
        };

        (void)state;
        search_all(&search);
}

static void nor_do_three_losses_in_a_row(void **state) {
        const struct search search = {
                "more faults", FIXTURE_PLAIN, false, { .faults = by_extent(2, 3, 4), .absences = 1 }
        };

        (void)state;
        search_all(&search);
}

static void nor_do_they_where_evidence_is_asked_for(void **state) {
        const struct search search = {
                "faults, attesting", FIXTURE_ATTEST, false, { .faults = by_extent(1, 1, 2), .absences = 2 }
        };

        (void)state;
        search_all(&search);
}

static void nor_do_an_operators_orders(void **state) {
        const struct search search = {
                "orders",
                FIXTURE_PLAIN,
                false,
                { .faults = by_extent(1, 1, 2), .absences = 1, .orders = by_extent(1, 2, 2) },
        };

        (void)state;
        search_all(&search);
}

static void a_thief_gains_nothing_once_the_compromise_is_declared(void **state) {
        const struct search search = {
                "thief",
                FIXTURE_PLAIN,
                true,
                { .absences = 1, .thefts = 1, .thief_acts = by_extent(1, 2, 3), .compromises = 1 },
        };

        (void)state;
        search_all(&search);
}

static void a_device_that_attests_comes_back_from_a_compromise_by_itself(void **state) {
        const struct search search = {
                "thief, attesting",
                FIXTURE_ATTEST,
                true,
                { .absences = by_extent(0, 1, 1), .thefts = 1, .thief_acts = by_extent(1, 1, 3), .compromises = 1 },
        };

        (void)state;
        search_all(&search);
}

static void a_thief_and_losses_at_once_share_no_key(void **state) {
        const struct search search = {
                "thief, faults",
                FIXTURE_PLAIN,
                true,
                { .faults = 1, .orders = 1, .thefts = 1, .thief_acts = by_extent(1, 1, 2), .compromises = 1 },
        };

        (void)state;
        search_all(&search);
}

static void a_restored_gateway_knows_a_device_that_has_had_one_grant_since(void **state) {
        const struct search search = {
                "restore", FIXTURE_PLAIN, true, { .absences = by_extent(1, 2, 3), .restores = 1 }
        };

        (void)state;
        search_all(&search);
}

static void losses_on_either_side_of_the_restore_change_nothing_about_that(void **state) {
        const struct search search = {
                "restore, faults",
                FIXTURE_PLAIN,
                true,
                { .faults = 1, .absences = by_extent(0, 1, 2), .orders = 1, .restores = 1 },
        };

        (void)state;
        search_all(&search);
}

static void clocks_that_jump_by_decades_lock_no_device_out(void **state) {
        const struct search search = {
                "clock", FIXTURE_PLAIN, true, { .absences = by_extent(1, 2, 3), .clock_steps = by_extent(1, 2, 2) }
        };

        (void)state;
        search_all(&search);
}

static void nor_do_they_together_with_losses(void **state) {
        const struct search search = {
                "clock, faults",
                FIXTURE_PLAIN,
                true,
                { .faults = 1, .absences = 1, .clock_steps = by_extent(1, 1, 2) },
        };

        (void)state;
        search_all(&search);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(losses_crashes_and_absences_lock_no_device_out),
                cmocka_unit_test(nor_do_three_losses_in_a_row),
                cmocka_unit_test(nor_do_they_where_evidence_is_asked_for),
                cmocka_unit_test(nor_do_an_operators_orders),
                cmocka_unit_test(a_thief_gains_nothing_once_the_compromise_is_declared),
                cmocka_unit_test(a_device_that_attests_comes_back_from_a_compromise_by_itself),
                cmocka_unit_test(a_thief_and_losses_at_once_share_no_key),
                cmocka_unit_test(a_restored_gateway_knows_a_device_that_has_had_one_grant_since),
                cmocka_unit_test(losses_on_either_side_of_the_restore_change_nothing_about_that),
                cmocka_unit_test(clocks_that_jump_by_decades_lock_no_device_out),
                cmocka_unit_test(nor_do_they_together_with_losses),
        };

        return cmocka_run_group_tests_name("explorer", tests, NULL, NULL);
}
