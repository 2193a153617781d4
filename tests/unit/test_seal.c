/* SPDX-License-Identifier: Apache-2.0 */

/* Secrets at rest: what is bound to what, what opens with which key, what never lies on the disk. */

#include "store_support.h"

#define PLAIN "a secret of 32 characters, found"

static void a_secret_opens_as_it_was_sealed(void **state) {
        struct store *store = store_in_memory();
        struct secret expected = secret_of(PLAIN), found;

        (void)state;
        add_credential(store, "d", "kid", 1, PLAIN);
        assert_int_equal(credential_secret(store, "kid", &found), 0);
        assert_true(secret_equal(&found, &expected));
        assert_int_equal(credential_secret(store, "unknown", &found), -ENOENT);
        store_close(store);
}

static void a_wiped_secret_is_gone_and_its_row_stays(void **state) {
        struct store *store = store_in_memory();
        struct credential credential;
        struct secret found;

        (void)state;
        add_credential(store, "d", "kid", 1, PLAIN);
        assert_int_equal(credential_wipe(store, "kid"), 0);
        assert_int_equal(credential_secret(store, "kid", &found), -ENOENT);
        assert_int_equal(credential_get(store, bytes_of("kid"), &credential), 0);
        assert_int_equal(credential_wipe(store, "unknown"), -ENOENT);
        store_close(store);
}

static void a_secret_never_lies_in_the_clear_in_file_or_wal(void **state) {
        struct place *place = *state;
        struct store *store = store_here(place, NULL, 0);
        char wal[128];

        snprintf(wal, sizeof wal, "%s-wal", place->path);
        add_credential(store, "device-one", "kid-one", 1, PLAIN);
        assert_int_equal(store_own_secret_put(store, "receipt-key", TEXT(PLAIN)), 0);
        commit(store);
        assert_true(file_contains(wal, "device-one", 10)); /* the look is sharp */
        assert_false(file_contains(wal, PLAIN, 16));
        assert_false(file_contains(wal, sealing_key, 16));
        place->store = store_close(store);
        assert_true(file_contains(place->path, "device-one", 10));
        assert_false(file_contains(place->path, PLAIN, 16));
        assert_false(file_contains(place->path, sealing_key, 16));
}

/* Opens the store again after `sql` and asks for the first credential's secret. */
static int secret_after(struct place *place, const char *sql) {
        struct secret found;
        int r;

        place->store = store_close(place->store);
        tamper(place, sql);
        store_here(place, NULL, 0);
        r = credential_secret(place->store, "one", &found);
        return r;
}

static void two_credentials(struct place *place) {
        struct store *store = store_here(place, NULL, 0);

        add_credential(store, "d1", "one", 1, PLAIN);
        add_credential(store, "d2", "two", 1, "the other secret, also long..");
        commit(store);
}

/* Another value for one byte of the first credential's seal. */
static void change_byte(struct place *place, int offset) {
        uint8_t sealed[128];
        sqlite3_stmt *statement;
        sqlite3 *db;
        int size;

        assert_int_equal(sqlite3_open_v2(place->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        sqlite3_prepare_v2(db, "SELECT sealed FROM credential WHERE identity = 'one'", -1, &statement, NULL);
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        size = sqlite3_column_bytes(statement, 0);
        assert_in_range(size, offset + 1, sizeof sealed);
        memcpy(sealed, sqlite3_column_blob(statement, 0), (size_t)size);
        sqlite3_finalize(statement);
        sealed[offset] ^= 0x40;
        sqlite3_prepare_v2(db, "UPDATE credential SET sealed = ? WHERE identity = 'one'", -1, &statement, NULL);
        sqlite3_bind_blob(statement, 1, sealed, size, SQLITE_STATIC);
        assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
        sqlite3_finalize(statement);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void a_seal_with_any_byte_changed_does_not_open(void **state) {
        const int size = 1 + 4 + 12 + 32 + 16; /* format, key id, nonce, secret, tag */
        struct place *place = *state;
        struct secret found;

        two_credentials(place);
        for (int offset = 0; offset < size; offset++) {
                place->store = store_close(place->store);
                change_byte(place, offset);
                store_here(place, NULL, 0);
                assert_int_equal(credential_secret(place->store, "one", &found), -EBADMSG);
                place->store = store_close(place->store);
                change_byte(place, offset);
                store_here(place, NULL, 0);
                assert_int_equal(credential_secret(place->store, "one", &found), 0);
        }
}

static void a_cut_seal_does_not_open(void **state) {
        struct place *place = *state;

        two_credentials(place);
        for (int size = 1; size < 60; size += 7) {
                char sql[120];

                snprintf(sql, sizeof sql, "UPDATE credential SET sealed = substr(sealed, 1, %d)", size);
                assert_int_equal(secret_after(place, sql), -EBADMSG);
                place->store = store_close(place->store);
                folder_remove(place->folder);
                assert_int_equal(mkdir(place->folder, 0700), 0);
                two_credentials(place);
        }
}

static void two_seals_swapped_between_rows_do_not_open(void **state) {
        struct place *place = *state;

        two_credentials(place);
        assert_int_equal(secret_after(place, "CREATE TEMP TABLE t AS SELECT identity, sealed FROM credential;"
                                             "UPDATE credential SET sealed ="
                                             " (SELECT t.sealed FROM t WHERE t.identity <> credential.identity)"),
                         -EBADMSG);
}

static void a_seal_is_bound_to_device_kind_generation_and_identity(void **state) {
        static const char *const changes[] = {
                "UPDATE credential SET device = 'd9' WHERE identity = 'one'",
                "UPDATE credential SET kind = 0 WHERE identity = 'one'",
                "UPDATE credential SET generation = 2 WHERE identity = 'one'",
                "UPDATE credential SET identity = 'zero' WHERE identity = 'one';"
                "UPDATE credential SET identity = 'one' WHERE identity = 'two'",
        };
        struct place *place = *state;

        for (size_t i = 0; i < ELEMENTS(changes); i++) {
                two_credentials(place);
                assert_int_equal(secret_after(place, changes[i]), -EBADMSG);
                place->store = store_close(place->store);
                folder_remove(place->folder);
                assert_int_equal(mkdir(place->folder, 0700), 0);
        }
}

static void an_own_secret_is_replaced_and_bound_to_its_name(void **state) {
        struct place *place = *state;
        struct store *store = store_here(place, NULL, 0);
        struct buffer found = { 0 };

        assert_int_equal(store_own_secret_get(store, "receipt", &found), -ENOENT);
        assert_int_equal(store_own_secret_put(store, "receipt", TEXT("first")), 0);
        assert_int_equal(store_own_secret_put(store, "receipt", TEXT("second")), 0);
        assert_int_equal(store_own_secret_get(store, "receipt", &found), 0);
        assert_true(bytes_equal(buffer_bytes(&found), TEXT("second")));
        commit(store);
        place->store = store_close(store);
        tamper(place, "UPDATE own_secret SET name = 'other'");
        store = store_here(place, NULL, 0);
        assert_int_equal(store_own_secret_get(store, "other", &found), -EBADMSG);
        buffer_free(&found);
}

static int open_with(struct place *place, const uint8_t *key) {
        struct store_options options = options_for(place);
        struct problem problem = { 0 };

        options.key_encryption_key = BYTES(key, 32);
        return store_open(&options, &place->store, &problem);
}

static void after_a_rewrap_only_the_new_sealing_key_opens(void **state) {
        struct place *place = *state;
        struct secret expected = secret_of(PLAIN), found;

        two_credentials(place);
        assert_int_equal(store_rewrap(place->store, BYTES(other_key, 32)), 0);
        commit(place->store);
        assert_int_equal(credential_secret(place->store, "one", &found), 0);
        place->store = store_close(place->store);

        assert_int_equal(open_with(place, sealing_key), -EKEYREJECTED);
        assert_int_equal(open_with(place, other_key), 0);
        assert_int_equal(credential_secret(place->store, "one", &found), 0);
        assert_true(secret_equal(&found, &expected));
}

static void a_rewrap_rolled_back_leaves_the_sealing_key_of_before(void **state) {
        struct place *place = *state;
        struct secret found;

        two_credentials(place);
        assert_int_equal(store_rewrap(place->store, BYTES(other_key, 32)), 0);
        assert_int_equal(store_rewrap(place->store, BYTES(PLAIN, 32)), 0);
        store_rollback(place->store);
        /* A data key made now must be wrapped by the key that is in force. */
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        add_credential(place->store, "d3", "three", 1, "third");
        commit(place->store);
        place->store = store_close(place->store);

        assert_int_equal(open_with(place, other_key), -EKEYREJECTED);
        assert_int_equal(open_with(place, sealing_key), 0);
        assert_int_equal(credential_secret(place->store, "three", &found), 0);
}

static void a_rewrap_dropped_with_its_savepoint_is_undone(void **state) {
        struct place *place = *state;

        two_credentials(place);
        add_device(place->store, "d");
        assert_int_equal(store_savepoint(place->store), 0);
        assert_int_equal(store_rewrap(place->store, BYTES(other_key, 32)), 0);
        assert_int_equal(store_savepoint_rollback(place->store), 0);
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        commit(place->store);
        place->store = store_close(place->store);
        assert_int_equal(open_with(place, sealing_key), 0);
}

static void a_sealing_key_of_another_size_is_refused(void **state) {
        struct place *place = *state;
        struct store_options options = options_for(place);
        struct problem problem = { 0 };

        options.key_encryption_key.size = 31;
        assert_int_equal(store_open(&options, &place->store, &problem), -EINVAL);
        assert_non_null(strstr(problem.detail, "32 bytes"));
        assert_int_not_equal(access(place->path, F_OK), 0);
        store_here(place, NULL, 0);
        assert_int_equal(store_rewrap(place->store, BYTES(other_key, 16)), -EINVAL);
}

static void count_data_keys(struct place *place, int expected) {
        sqlite3_stmt *statement;
        sqlite3 *db;

        assert_int_equal(sqlite3_open_v2(place->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        sqlite3_prepare_v2(db, "SELECT count(*) FROM data_key", -1, &statement, NULL);
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        assert_int_equal(sqlite3_column_int(statement, 0), expected);
        sqlite3_finalize(statement);
        sqlite3_close(db);
}

static void secrets_move_to_a_new_data_key_in_the_background_and_the_old_one_goes(void **state) {
        struct place *place = *state;
        struct store *store = store_here(place, NULL, 0);
        struct moment now = at(100);
        struct secret expected = secret_of(PLAIN), found;
        char kid[16];

        for (int i = 0; i < 10; i++) {
                snprintf(kid, sizeof kid, "kid-%d", i);
                add_credential(store, "d", kid, (uint32_t)i, PLAIN);
        }
        assert_int_equal(store_own_secret_put(store, "receipt", TEXT(PLAIN)), 0);
        assert_int_equal(store_reseal_some(store, 100, NULL), 0); /* nothing to do yet */
        assert_int_equal(store_data_key_rotate(store, &now), 0);
        assert_int_equal(store_reseal_some(store, 4, NULL), 1);
        assert_int_equal(store_reseal_left(store), 7);
        assert_int_equal(store_reseal_some(store, 4, NULL), 1);
        assert_int_equal(store_reseal_left(store), 3);
        commit(store);
        assert_int_equal(store_reseal_some(store, 4, NULL), 0);
        commit(store);
        for (int i = 0; i < 10; i++) {
                snprintf(kid, sizeof kid, "kid-%d", i);
                assert_int_equal(credential_secret(store, kid, &found), 0);
                assert_true(secret_equal(&found, &expected));
        }
        place->store = store_close(store);
        count_data_keys(place, 1);
        store_here(place, NULL, 0);
        assert_int_equal(credential_secret(place->store, "kid-3", &found), 0);
}

static void a_data_key_rotation_rolled_back_leaves_the_old_key_in_use(void **state) {
        struct place *place = *state;
        struct store *store = store_here(place, NULL, 0);
        struct secret found;

        assert_int_equal(store_data_key_rotate(store, &MOMENT_NONE), 0);
        add_credential(store, "d", "lost", 1, PLAIN);
        store_rollback(store);
        add_credential(store, "d", "kept", 1, PLAIN);
        commit(store);
        place->store = store_close(store);
        count_data_keys(place, 1);
        store_here(place, NULL, 0);
        assert_int_equal(credential_secret(place->store, "kept", &found), 0);
        assert_int_equal(credential_secret(place->store, "lost", &found), -ENOENT);
}

static void data_keys_without_end_are_refused_until_old_ones_are_resealed(void **state) {
        struct store *store = store_in_memory();
        int r = 0, made = 1;

        (void)state;
        while ((r = store_data_key_rotate(store, &MOMENT_NONE)) == 0)
                made++;
        assert_int_equal(r, -E2BIG);
        assert_int_equal(made, 32);
        assert_int_equal(store_reseal_some(store, 10, NULL), 0);
        assert_int_equal(store_data_key_rotate(store, &MOMENT_NONE), 0);
        store_close(store);
}

static void a_worn_data_key_is_replaced_by_itself(void **state) {
        struct place *place = *state;
        struct secret found;

        two_credentials(place);
        place->store = store_close(place->store);
        tamper(place, "UPDATE data_key SET sealed = 1 << 30");
        store_here(place, NULL, 0);
        add_credential(place->store, "d3", "three", 1, PLAIN);
        commit(place->store);
        assert_int_equal(credential_secret(place->store, "one", &found), 0);
        assert_int_equal(credential_secret(place->store, "three", &found), 0);
        place->store = store_close(place->store);
        count_data_keys(place, 2);
}

static void every_seal_has_its_own_nonce_and_is_counted(void **state) {
        struct place *place = *state;
        struct store *store = store_here(place, NULL, 0);
        sqlite3_stmt *statement;
        sqlite3 *db;
        char kid[16];

        for (int i = 0; i < 200; i++) {
                snprintf(kid, sizeof kid, "kid-%d", i);
                add_credential(store, "d", kid, 1, PLAIN);
        }
        commit(store);
        place->store = store_close(store);
        assert_int_equal(sqlite3_open_v2(place->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        sqlite3_prepare_v2(db,
                           "SELECT count(DISTINCT substr(sealed, 6, 12)), (SELECT max(sealed) FROM data_key)"
                           " FROM credential",
                           -1, &statement, NULL);
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        assert_int_equal(sqlite3_column_int(statement, 0), 200);
        assert_int_equal(sqlite3_column_int(statement, 1), 200);
        sqlite3_finalize(statement);
        sqlite3_close(db);
}

/* ---- the recovery key ---- */

static int open_with_recovery(struct place *place, const uint8_t *key, const uint8_t *recovery) {
        struct store_options options = options_for(place);
        struct problem problem = { 0 };

        options.key_encryption_key = BYTES(key, 32);
        options.recovery_key = BYTES(recovery, RECOVERY_KEY_BYTES);
        return store_open(&options, &place->store, &problem);
}

static void with_recovery(struct place *place, uint8_t recovery[RECOVERY_KEY_BYTES]) {
        two_credentials(place);
        assert_int_equal(store_has_recovery(place->store), 0);
        assert_int_equal(store_recovery_new(place->store, recovery), 0);
        assert_int_equal(store_has_recovery(place->store), 1);
        /* A later data key is covered, too. */
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        add_credential(place->store, "d3", "three", 1, PLAIN);
        commit(place->store);
        place->store = store_close(place->store);
}

static void the_recovery_key_opens_a_store_whose_sealing_key_is_lost(void **state) {
        struct place *place = *state;
        uint8_t recovery[RECOVERY_KEY_BYTES];
        struct secret expected = secret_of(PLAIN), found;

        with_recovery(place, recovery);
        assert_int_equal(open_with(place, other_key), -EKEYREJECTED);
        assert_int_equal(open_with_recovery(place, other_key, recovery), 0);
        assert_int_equal(credential_secret(place->store, "one", &found), 0);
        assert_true(secret_equal(&found, &expected));
        assert_int_equal(credential_secret(place->store, "three", &found), 0);
        place->store = store_close(place->store);

        /* From now on with the new sealing key alone; and the recovery key is still good. */
        assert_int_equal(open_with(place, sealing_key), -EKEYREJECTED);
        assert_int_equal(open_with(place, other_key), 0);
        place->store = store_close(place->store);
        assert_int_equal(open_with_recovery(place, sealing_key, recovery), 0);
        assert_int_equal(credential_secret(place->store, "three", &found), 0);
}

static void another_recovery_key_opens_nothing_and_touches_nothing(void **state) {
        struct place *place = *state;
        uint8_t recovery[RECOVERY_KEY_BYTES];
        struct picture before;

        with_recovery(place, recovery);
        recovery[5] ^= 1;
        before = picture_of(place);
        assert_int_equal(open_with_recovery(place, other_key, recovery), -EKEYREJECTED);
        assert_untouched(place, &before);
        assert_int_equal(open_with_recovery(place, sealing_key, recovery), 0); /* it is not needed */
}

static void without_a_recovery_key_made_before_none_opens(void **state) {
        struct place *place = *state;

        two_credentials(place);
        place->store = store_close(place->store);
        assert_int_equal(open_with_recovery(place, other_key, sealing_key), -EKEYREJECTED);
}

static void a_new_recovery_key_replaces_the_one_before(void **state) {
        struct place *place = *state;
        uint8_t first[RECOVERY_KEY_BYTES], second[RECOVERY_KEY_BYTES], dropped[RECOVERY_KEY_BYTES];

        with_recovery(place, first);
        store_here(place, NULL, 0);
        assert_int_equal(store_recovery_new(place->store, second), 0);
        commit(place->store);
        assert_int_equal(store_recovery_new(place->store, dropped), 0);
        store_rollback(place->store);
        place->store = store_close(place->store);
        assert_int_equal(open_with_recovery(place, other_key, first), -EKEYREJECTED);
        assert_int_equal(open_with_recovery(place, other_key, dropped), -EKEYREJECTED);
        assert_int_equal(open_with_recovery(place, other_key, second), 0);
}

static void the_private_recovery_key_is_kept_nowhere(void **state) {
        struct place *place = *state;
        uint8_t recovery[RECOVERY_KEY_BYTES];
        char wal[128];

        two_credentials(place);
        assert_int_equal(store_recovery_new(place->store, recovery), 0);
        commit(place->store);
        snprintf(wal, sizeof wal, "%s-wal", place->path);
        assert_false(file_contains(wal, recovery, 8));
        place->store = store_close(place->store);
        assert_false(file_contains(place->path, recovery, 8));
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, place_new, place_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_secret_opens_as_it_was_sealed),
                cmocka_unit_test(a_wiped_secret_is_gone_and_its_row_stays),
                IN_A_FOLDER(a_secret_never_lies_in_the_clear_in_file_or_wal),
                IN_A_FOLDER(a_seal_with_any_byte_changed_does_not_open),
                IN_A_FOLDER(a_cut_seal_does_not_open),
                IN_A_FOLDER(two_seals_swapped_between_rows_do_not_open),
                IN_A_FOLDER(a_seal_is_bound_to_device_kind_generation_and_identity),
                IN_A_FOLDER(an_own_secret_is_replaced_and_bound_to_its_name),
                IN_A_FOLDER(after_a_rewrap_only_the_new_sealing_key_opens),
                IN_A_FOLDER(a_rewrap_rolled_back_leaves_the_sealing_key_of_before),
                IN_A_FOLDER(a_rewrap_dropped_with_its_savepoint_is_undone),
                IN_A_FOLDER(a_sealing_key_of_another_size_is_refused),
                IN_A_FOLDER(secrets_move_to_a_new_data_key_in_the_background_and_the_old_one_goes),
                IN_A_FOLDER(a_data_key_rotation_rolled_back_leaves_the_old_key_in_use),
                cmocka_unit_test(data_keys_without_end_are_refused_until_old_ones_are_resealed),
                IN_A_FOLDER(a_worn_data_key_is_replaced_by_itself),
                IN_A_FOLDER(every_seal_has_its_own_nonce_and_is_counted),
                IN_A_FOLDER(the_recovery_key_opens_a_store_whose_sealing_key_is_lost),
                IN_A_FOLDER(another_recovery_key_opens_nothing_and_touches_nothing),
                IN_A_FOLDER(without_a_recovery_key_made_before_none_opens),
                IN_A_FOLDER(a_new_recovery_key_replaces_the_one_before),
                IN_A_FOLDER(the_private_recovery_key_is_kept_nowhere),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
