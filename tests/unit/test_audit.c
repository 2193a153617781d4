/* SPDX-License-Identifier: Apache-2.0 */

/* The audit chain: what was changed behind the store's back shows. */

#include "store_support.h"

static void some_rows(struct place *place) {
        struct store *store = store_here(place, NULL, 0);

        for (int i = 1; i <= 6; i++)
                add_audit(store, i % 2 ? "odd" : "even", i * 100, i == 3 ? "third" : "another");
        commit(store);
}

/* The first bad row after `sql`, 0 when the chain is whole. */
static uint64_t bad_after(struct place *place, const char *sql) {
        uint64_t bad = 0;
        int r;

        place->store = store_close(place->store);
        tamper(place, sql);
        store_here(place, NULL, 0);
        r = audit_verify(place->store, &bad);
        if (r == 0)
                return 0;
        assert_int_equal(r, -EBADMSG);
        return bad;
}

static void an_untouched_chain_is_whole(void **state) {
        some_rows(*state);
        assert_int_equal(bad_after(*state, "SELECT 1"), 0);
}

static void an_empty_chain_is_whole(void **state) {
        struct store *store = store_in_memory();
        uint64_t bad;

        (void)state;
        assert_int_equal(audit_verify(store, &bad), 0);
        store_close(store);
}

static void a_changed_row_shows_in_every_column(void **state) {
        static const char *const columns[] = {
                "at_wall = at_wall + 1", "at_powered = at_powered + 1",
                "at_quality = 1",        "kind = 'device-removed'",
                "device = 'other'",      "kid = 'k'",
                "reason = 'thirds'",     "actor = 'uid 1'",
                "hash = zeroblob(32)",
        };
        struct place *place = *state;

        for (size_t i = 0; i < ELEMENTS(columns); i++) {
                char sql[120];

                some_rows(place);
                snprintf(sql, sizeof sql, "UPDATE audit SET %s WHERE number = 3", columns[i]);
                assert_int_equal(bad_after(place, sql), 3);
                place->store = store_close(place->store);
                folder_remove(place->folder);
                assert_int_equal(mkdir(place->folder, 0700), 0);
        }
}

static void a_removed_row_shows(void **state) {
        some_rows(*state);
        assert_int_equal(bad_after(*state, "DELETE FROM audit WHERE number = 4"), 4);
}

static void a_removed_row_shows_when_the_others_close_up(void **state) {
        some_rows(*state);
        assert_int_equal(bad_after(*state, "DELETE FROM audit WHERE number = 4;"
                                           "UPDATE audit SET number = number - 1 WHERE number > 4"),
                         4);
}

static void two_swapped_rows_show(void **state) {
        some_rows(*state);
        assert_int_equal(bad_after(*state, "UPDATE audit SET number = 99 WHERE number = 3;"
                                           "UPDATE audit SET number = 3 WHERE number = 4;"
                                           "UPDATE audit SET number = 4 WHERE number = 99"),
                         3);
}

static void a_chain_cut_off_at_its_end_shows(void **state) {
        some_rows(*state);
        assert_int_equal(bad_after(*state, "DELETE FROM audit WHERE number = 6"), 6);
}

static void a_chain_cut_off_at_its_beginning_shows(void **state) {
        some_rows(*state);
        assert_int_equal(bad_after(*state, "DELETE FROM audit WHERE number = 1"), 1);
}

static void an_added_row_shows(void **state) {
        some_rows(*state);
        assert_int_equal(bad_after(*state, "INSERT INTO audit SELECT 7, at_wall, at_powered, at_quality, kind, device,"
                                           " kid, reason, actor, hash FROM audit WHERE number = 6"),
                         7);
}

struct seen {
        uint64_t numbers[16];
        size_t count, stop_after;
        struct audit_row last;
};

static int see(void *userdata, const struct audit_row *row) {
        struct seen *seen = userdata;

        assert_in_range(seen->count, 0, ELEMENTS(seen->numbers) - 1);
        seen->numbers[seen->count++] = row->number;
        seen->last = *row;
        return seen->stop_after == seen->count ? 42 : 0;
}

static void rows_are_found_by_device_and_number_in_order(void **state) {
        struct place *place = *state;
        struct seen seen = { 0 };

        some_rows(place);
        assert_int_equal(audit_each(place->store, "even", 2, 10, see, &seen), 0);
        assert_int_equal(seen.count, 2);
        assert_int_equal(seen.numbers[0], 4);
        assert_int_equal(seen.numbers[1], 6);

        seen = (struct seen){ 0 };
        assert_int_equal(audit_each(place->store, NULL, 0, 2, see, &seen), 0);
        assert_int_equal(seen.count, 2);
        assert_int_equal(seen.last.number, 2);
        assert_int_equal(seen.last.kind, EVENT_DEVICE_REGISTERED);
        assert_string_equal(seen.last.actor, "uid 0");
        assert_string_equal(seen.last.reason, "another");
        assert_int_equal(seen.last.at.powered_sec, 200);
        assert_true(seen.last.at.wall_trusted);

        seen = (struct seen){ .stop_after = 1 };
        assert_int_equal(audit_each(place->store, NULL, 0, 9, see, &seen), 42);
        assert_int_equal(seen.count, 1);
}

static void the_last_rows_come_oldest_first(void **state) {
        struct place *place = *state;
        struct seen seen = { 0 };

        some_rows(place);
        assert_int_equal(audit_last(place->store, NULL, 3, see, &seen), 0);
        assert_int_equal(seen.count, 3);
        assert_int_equal(seen.numbers[0], 4);
        assert_int_equal(seen.numbers[2], 6);
        seen = (struct seen){ 0 };
        assert_int_equal(audit_last(place->store, "odd", 2, see, &seen), 0);
        assert_int_equal(seen.numbers[0], 3);
        assert_int_equal(seen.numbers[1], 5);
}

static void a_row_of_an_unknown_kind_is_still_read_and_hashed(void **state) {
        struct place *place = *state;
        struct seen seen = { 0 };

        some_rows(place);
        assert_int_equal(bad_after(place, "UPDATE audit SET kind = 'from-the-future' WHERE number = 6"), 6);
        assert_int_equal(audit_last(place->store, NULL, 1, see, &seen), 0);
        assert_int_equal(seen.last.kind, EVENT_KINDS);
}

static void trimming_by_powered_age_keeps_the_rest_a_whole_chain(void **state) {
        struct place *place = *state;
        struct moment now = at(600);
        struct seen seen = { 0 };
        uint64_t bad = 0;

        some_rows(place);
        assert_int_equal(audit_trim(place->store, &now, 300), 2); /* 100 and 200 are older than 300 */
        add_audit(place->store, "odd", 700, "after the trimming");
        commit(place->store);
        assert_int_equal(audit_verify(place->store, &bad), 0);
        assert_int_equal(audit_each(place->store, NULL, 0, 16, see, &seen), 0);
        assert_int_equal(seen.count, 5);
        assert_int_equal(seen.numbers[0], 3);
        assert_int_equal(bad_after(place, "DELETE FROM audit WHERE number = 3"), 3);
}

static void trimming_everything_leaves_a_chain_to_go_on_with(void **state) {
        struct place *place = *state;
        struct moment now = at(100000);
        uint64_t bad = 0;

        some_rows(place);
        assert_int_equal(audit_trim(place->store, &now, 10), 6);
        assert_int_equal(audit_trim(place->store, &now, 10), 0);
        assert_int_equal(audit_verify(place->store, &bad), 0);
        add_audit(place->store, "odd", 700, "goes on");
        assert_int_equal(audit_verify(place->store, &bad), 0);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, place_new, place_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_A_FOLDER(an_untouched_chain_is_whole),
                cmocka_unit_test(an_empty_chain_is_whole),
                IN_A_FOLDER(a_changed_row_shows_in_every_column),
                IN_A_FOLDER(a_removed_row_shows),
                IN_A_FOLDER(a_removed_row_shows_when_the_others_close_up),
                IN_A_FOLDER(two_swapped_rows_show),
                IN_A_FOLDER(a_chain_cut_off_at_its_end_shows),
                IN_A_FOLDER(a_chain_cut_off_at_its_beginning_shows),
                IN_A_FOLDER(an_added_row_shows),
                IN_A_FOLDER(rows_are_found_by_device_and_number_in_order),
                IN_A_FOLDER(the_last_rows_come_oldest_first),
                IN_A_FOLDER(a_row_of_an_unknown_kind_is_still_read_and_hashed),
                IN_A_FOLDER(trimming_by_powered_age_keeps_the_rest_a_whole_chain),
                IN_A_FOLDER(trimming_everything_leaves_a_chain_to_go_on_with),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
