/* SPDX-License-Identifier: Apache-2.0 */

/* Turns, savepoints, the store's own facts, and what each query costs. The rows themselves:
 * test_store_rows.c. */

#include "store_support.h"

#include "store/authorities.h"
#include "store/enrolments.h"
#include "store/internal.h"

static bool has_device(struct store *store, const char *id) {
        struct device device;

        return device_get(store, bytes_of(id), &device) == 0;
}

/* ---- turns ---- */

static void a_commit_without_a_change_is_free_and_names_the_last_turn(void **state) {
        struct place *place = *state;
        struct store *store = store_here(place, NULL, 0);
        struct store_statistics before, after;
        uint64_t turn;

        add_device(store, "d");
        turn = commit(store);
        store_statistics(store, &before);
        assert_int_equal(store_begin(store), 0);
        assert_true(has_device(store, "d"));
        assert_int_equal(store_savepoint(store), 0);
        assert_int_equal(credential_forget_sessions(store), 0); /* changes no row */
        assert_int_equal(store_savepoint_release(store), 0);
        assert_false(store_is_changed(store));
        assert_int_equal(commit(store), turn);
        store_statistics(store, &after);
        assert_int_equal(after.commits, before.commits);
        assert_int_equal(after.wal_bytes, before.wal_bytes);
}

static void what_a_turn_changed_is_gone_after_a_rollback(void **state) {
        struct store *store = store_in_memory();

        (void)state;
        add_device(store, "kept");
        commit(store);
        add_device(store, "dropped");
        assert_true(store_is_changed(store));
        store_rollback(store);
        assert_false(store_is_changed(store));
        assert_true(has_device(store, "kept"));
        assert_false(has_device(store, "dropped"));
        store_close(store);
}

static void what_was_not_committed_is_gone_after_closing(void **state) {
        struct place *place = *state;

        store_here(place, NULL, 0);
        add_device(place->store, "kept");
        commit(place->store);
        add_device(place->store, "dropped");
        place->store = store_close(place->store);
        store_here(place, NULL, 0);
        assert_true(has_device(place->store, "kept"));
        assert_false(has_device(place->store, "dropped"));
}

static void in_memory_the_barrier_passes_with_the_commit(void **state) {
        struct store *store = store_in_memory();
        uint64_t turn, count;

        (void)state;
        assert_int_equal(store_barrier_passed(store), 0);
        add_device(store, "d");
        turn = commit(store);
        assert_int_equal(read(store_barrier_fd(store), &count, sizeof count), sizeof count);
        assert_int_equal(store_barrier_passed(store), turn);
        assert_int_equal(store_barrier_wait(store, turn), 0);
        assert_int_equal(store_barrier_wait(store, turn + 1), -EINVAL);
        assert_int_equal(store_barrier_error(store), 0);
        store_close(store);
}

/* ---- savepoints ---- */

static void a_savepoint_rolled_back_drops_just_its_own(void **state) {
        struct store *store = store_in_memory();

        (void)state;
        add_device(store, "before");
        assert_int_equal(store_savepoint(store), 0);
        add_device(store, "dropped");
        assert_int_equal(store_savepoint_rollback(store), 0);
        assert_int_equal(store_savepoint(store), 0);
        add_device(store, "after");
        assert_int_equal(store_savepoint_release(store), 0);
        commit(store);
        assert_true(has_device(store, "before"));
        assert_false(has_device(store, "dropped"));
        assert_true(has_device(store, "after"));
        store_close(store);
}

static void a_turn_of_dropped_requests_only_has_not_changed(void **state) {
        struct store *store = store_in_memory();
        uint64_t turn = commit(store);

        (void)state;
        assert_int_equal(store_savepoint(store), 0);
        add_device(store, "dropped");
        assert_true(store_is_changed(store));
        assert_int_equal(store_savepoint_rollback(store), 0);
        assert_false(store_is_changed(store));
        assert_int_equal(commit(store), turn);
        store_close(store);
}

static void savepoints_do_not_nest(void **state) {
        struct store *store = store_in_memory();

        (void)state;
        assert_int_equal(store_savepoint_release(store), -EINVAL);
        assert_int_equal(store_savepoint_rollback(store), -EINVAL);
        assert_int_equal(store_savepoint(store), 0);
        assert_int_equal(store_savepoint(store), -EINVAL);
        assert_int_equal(store_savepoint_release(store), 0);
        store_close(store);
}

static void a_commit_inside_a_savepoint_is_refused_and_drops_the_turn(void **state) {
        struct store *store = store_in_memory();
        uint64_t turn;

        (void)state;
        assert_int_equal(store_savepoint(store), 0);
        add_device(store, "d");
        assert_int_equal(store_commit(store, &turn), -EINVAL);
        assert_false(has_device(store, "d"));
        store_close(store);
}

/* ---- the store's own facts ---- */

static void a_store_has_an_incarnation_of_its_own_for_ever(void **state) {
        struct place *place = *state;
        struct store *other = store_in_memory();
        struct store_meta first, again, elsewhere;

        store_here(place, NULL, 0);
        assert_int_equal(store_meta_get(place->store, &first), 0);
        place->store = store_close(place->store);
        store_here(place, NULL, 0);
        assert_int_equal(store_meta_get(place->store, &again), 0);
        assert_memory_equal(first.incarnation, again.incarnation, INCARNATION_BYTES);
        assert_int_equal(store_meta_get(other, &elsewhere), 0);
        assert_memory_not_equal(first.incarnation, elsewhere.incarnation, INCARNATION_BYTES);
        assert_int_equal(first.next_sequence, 1);
        store_close(other);
}

static void the_clock_is_recorded(void **state) {
        struct place *place = *state;
        const struct clock clock = {
                .floor = 1700000000,
                .powered_sec = 77,
                .boottime_sec = 5,
                .was_synchronized = true,
                .boot_id = "0123456789abcdef0123456789abcdef0123",
                .hold_until_powered = 99,
        };
        struct store_meta meta;

        store_here(place, NULL, 0);
        assert_int_equal(store_meta_set_clock(place->store, &clock), 0);
        commit(place->store);
        place->store = store_close(place->store);
        store_here(place, NULL, 0);
        assert_int_equal(store_meta_get(place->store, &meta), 0);
        assert_int_equal(meta.clock.floor, clock.floor);
        assert_int_equal(meta.clock.powered_sec, 77);
        assert_int_equal(meta.clock.boottime_sec, 5);
        assert_true(meta.clock.was_synchronized);
        assert_string_equal(meta.clock.boot_id, clock.boot_id);
        assert_int_equal(meta.clock.hold_until_powered, 99);
}

/* ---- what queries cost ---- */

static int ignore_device(void *userdata, const struct device *device) {
        (void)userdata;
        (void)device;
        return 0;
}

static int ignore_custody(void *userdata, const struct custody *custody) {
        (void)userdata;
        (void)custody;
        return 0;
}

static int ignore_audit(void *userdata, const struct audit_row *row) {
        (void)userdata;
        (void)row;
        return 0;
}

static void use_devices(struct store *store) {
        struct device device = device_of("d");
        struct due_time due = { 1, INT64_MAX };
        struct moment now = at(1);
        struct device_counts counts;
        char ids[4][DEVICE_ID_MAX + 1];

        device_insert(store, &device);
        device_update(store, &device);
        device_get(store, bytes_of("d"), &device);
        device_each(store, NULL, 9, ignore_device, NULL);
        device_count(store, &counts);
        schedule_set(store, "d", &due);
        schedule_get(store, "d", &due);
        schedule_due(store, &now, 4, ids);
        schedule_earliest(store, &due);
}

static void use_credentials(struct store *store) {
        struct credential credential = credential_of("d", "kid", 1), list[4];
        struct secret secret = secret_of("0123456789abcdef");
        struct moment now = at(1);
        struct buffer own = { 0 };

        credential_insert(store, &credential, &secret);
        credential_update(store, &credential);
        credential_get(store, bytes_of("kid"), &credential);
        credential_secret(store, "kid", &secret);
        credential_list(store, "d", list, 4);
        credential_forget_sessions(store);
        store_own_secret_put(store, "n", TEXT("v"));
        store_own_secret_get(store, "n", &own);
        store_data_key_rotate(store, &now);
        store_reseal_some(store, 9, NULL);
        store_rewrap(store, BYTES(other_key, 32));
        credential_wipe(store, "kid");
        credential_remove(store, "kid");
        buffer_free(&own);
}

static int ignore_certificate(void *userdata, const struct certificate *certificate) {
        (void)userdata;
        (void)certificate;
        return 0;
}

static void use_certificates(struct store *store) {
        struct certificate c = { .fingerprint = "0000000000000000000000000000000000000000000000000000000000000000",
                                 .device = "d",
                                 .issuer = 1,
                                 .serial_size = 1,
                                 .csr = { 1 },
                                 .revoked = REVOKED_NOT };
        _cleanup_(buffer_free) struct buffer der = { 0 };
        char owner[DEVICE_ID_MAX + 1];
        struct moment now = at(1);
        unix_sec last;

        certificate_insert(store, &c, TEXT("der"));
        certificate_get(store, c.fingerprint, &c);
        certificate_der(store, c.fingerprint, &der);
        certificate_by_csr(store, "d", c.csr, &c);
        certificate_idevid(store, "d", &c);
        certificate_key_owner(store, (const uint8_t[CERTIFICATE_DIGEST_BYTES]){ 9 }, "d", owner);
        certificate_count(store, 1, 0, &last);
        certificate_revoke(store, c.fingerprint, REVOKED_SUPERSEDED, &now);
        certificate_revoke_device(store, "d", REVOKED_SUPERSEDED, &now);
        certificate_each_revoked(store, 1, 0, ignore_certificate, NULL);
        certificate_trim(store, 1, 9);
        certificate_forget_idevid(store, "d");
}

static void use_authorities(struct store *store) {
        struct authority a = { .generation = 1, .key_uri = "store:" };
        struct enrolment e = { .device = "d" };
        _cleanup_(buffer_free) struct buffer bytes = { 0 };
        struct moment now = at(1);

        authority_insert(store, &a);
        authority_update(store, &a);
        authority_get(store, 1, &a);
        authority_list(store, &a, 1);
        authority_latest(store);
        authority_put(store, 1, AUTHORITY_CRL, TEXT("crl"));
        authority_read(store, 1, AUTHORITY_CRL, &bytes);
        authority_put(store, 1, AUTHORITY_CRL, BYTES(NULL, 0));
        authority_remove(store, 1);
        enrolment_insert(store, &e, TEXT("csr"));
        enrolment_update(store, &e);
        enrolment_get(store, 1, &e);
        enrolment_csr(store, 1, &bytes);
        enrolment_find(store, "d", e.public_key, &e);
        enrolment_due(store, 1, &e, 1);
        enrolment_count(store, ENROLMENT_WAITING);
        enrolment_trim(store, &now, 0);
        enrolment_remove_device(store, "d");
}

static void use_evidence(struct store *store) {
        struct challenge challenge = { .device = "d" };
        struct custody custody = { .sequence = 1, .device = "d", .evidence = TEXT("e"), .receipt = TEXT("r") };
        struct moment now = at(1);
        struct backlog backlog;
        uint8_t hash[32] = { 0 };

        challenge_insert(store, &challenge);
        challenge_get(store, BYTES(challenge.nonce, NONCE_BYTES), &challenge);
        challenge_update(store, &challenge);
        challenge_trim(store, "d", 0);
        challenge_expire(store, &now, 0);
        for (; custody.sequence <= 3; custody.sequence++)
                custody_insert(store, &custody, hash);
        custody_waiting(store, 0, 9, ignore_custody, NULL);
        custody_get(store, 1, ignore_custody, NULL);
        custody_parked(store, 1, 400, "bad");
        custody_delivered(store, 1);
        custody_delivered(store, 2);
        custody_backlog(store, &backlog);
}

static void use_audit(struct store *store) {
        struct moment now = at(100);
        uint64_t bad;

        add_audit(store, "d", 1, "r");
        audit_each(store, NULL, 0, 9, ignore_audit, NULL);
        audit_each(store, "d", 0, 9, ignore_audit, NULL);
        audit_last(store, NULL, 9, ignore_audit, NULL);
        audit_last(store, "d", 9, ignore_audit, NULL);
        audit_verify(store, &bad);
        audit_trim(store, &now, 1);
}

/* A SCAN is a walk. Allowed are one along an index or the row number that a LIMIT cuts short, one along an
 * index that holds nothing but the rows to be changed, and the one that is asked for: audit_verify(). */
static bool may_scan(const char *sql, const char *step) {
        if (strstr(step, "SCAN (subquery") || strstr(step, "SCAN CONSTANT ROW") ||
            strstr(step, "USING INDEX credential_by_session"))
                return true;
        if (strstr(sql, "ORDER BY") && strstr(sql, "LIMIT"))
                return true;
        return strstr(sql, ", hash FROM audit ORDER BY number") != NULL;
}

static void no_statement_walks_a_table(void **state) {
        struct store *store = store_in_memory();
        struct store_meta meta;
        struct clock clock = { 0 };
        int looked_at = 0;

        (void)state;
        use_devices(store);
        use_credentials(store);
        use_certificates(store);
        use_authorities(store);
        use_evidence(store);
        use_audit(store);
        store_meta_get(store, &meta);
        store_meta_set_clock(store, &clock);
        device_remove(store, "d");
        assert_int_equal(store_commit(store, NULL), 0);

        for (size_t i = 0; i < STATEMENTS_MAX; i++) {
                const char *sql = store->statements[i].sql;
                char explain[2048];
                sqlite3_stmt *statement;

                if (!sql || sqlite3_stmt_isexplain(store->statements[i].statement))
                        continue;
                snprintf(explain, sizeof explain, "EXPLAIN QUERY PLAN %s", sql);
                if (sqlite3_prepare_v2(store->db, explain, -1, &statement, NULL) != SQLITE_OK)
                        fail_msg("%s: %s", sql, sqlite3_errmsg(store->db));
                while (sqlite3_step(statement) == SQLITE_ROW) {
                        const char *step = (const char *)sqlite3_column_text(statement, 3);

                        if (strstr(step, "TEMP B-TREE") && !strstr(sql, "SELECT * FROM (SELECT"))
                                fail_msg("sorts: %s\n    %s", sql, step);
                        if (strncmp(step, "SCAN", 4) == 0 && !may_scan(sql, step))
                                fail_msg("walks: %s\n    %s", sql, step);
                }
                sqlite3_finalize(statement);
                looked_at++;
        }
        assert_in_range(looked_at, 80, STATEMENTS_MAX);
        store_close(store);
}

static void the_three_hot_reads_are_single_index_searches(void **state) {
        static const struct {
                const char *part, *plan;
        } hot[] = {
                { "FROM credential WHERE identity = ?", "SEARCH credential USING INDEX sqlite_autoindex_credential_1" },
                { "FROM schedule WHERE wall <= ?", "SEARCH schedule USING INDEX schedule_by_wall (wall<?)" },
                { "FROM schedule WHERE powered <= ?", "SEARCH schedule USING INDEX schedule_by_powered (powered<?)" },
                { "FROM custody WHERE is_waiting = 1 AND sequence > ?", "SEARCH custody USING" },
        };
        struct store *store = store_in_memory();

        (void)state;
        use_devices(store);
        use_credentials(store);
        use_evidence(store);
        for (size_t h = 0; h < ELEMENTS(hot); h++) {
                bool found = false;

                for (size_t i = 0; i < STATEMENTS_MAX; i++) {
                        char explain[2048];
                        sqlite3_stmt *statement;

                        if (!store->statements[i].sql || !strstr(store->statements[i].sql, hot[h].part))
                                continue;
                        snprintf(explain, sizeof explain, "EXPLAIN QUERY PLAN %s", store->statements[i].sql);
                        assert_int_equal(sqlite3_prepare_v2(store->db, explain, -1, &statement, NULL), SQLITE_OK);
                        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
                        if (!strstr((const char *)sqlite3_column_text(statement, 3), hot[h].plan))
                                fail_msg("%s: %s", hot[h].part, sqlite3_column_text(statement, 3));
                        assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
                        sqlite3_finalize(statement);
                        found = true;
                }
                assert_true(found);
        }
        store_close(store);
}

static int change_while_walking(void *userdata, const struct device *device) {
        struct store *store = userdata;
        struct device copy = *device;
        struct device_counts counts;

        copy.handshakes++;
        assert_int_equal(device_update(store, &copy), 0);
        assert_int_equal(device_each(store, device->id, 1, ignore_device, NULL), 0); /* the same statement, again */
        return device_count(store, &counts);
}

static void a_visitor_may_ask_the_store_and_change_it(void **state) {
        struct store *store = store_in_memory();
        struct device device;

        (void)state;
        add_device(store, "a");
        add_device(store, "b");
        assert_int_equal(device_each(store, NULL, 10, change_while_walking, store), 0);
        commit(store);
        assert_int_equal(device_get(store, bytes_of("b"), &device), 0);
        assert_int_equal(device.handshakes, 1);
        store_close(store);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, place_new, place_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_A_FOLDER(a_commit_without_a_change_is_free_and_names_the_last_turn),
                cmocka_unit_test(what_a_turn_changed_is_gone_after_a_rollback),
                IN_A_FOLDER(what_was_not_committed_is_gone_after_closing),
                cmocka_unit_test(in_memory_the_barrier_passes_with_the_commit),
                cmocka_unit_test(a_savepoint_rolled_back_drops_just_its_own),
                cmocka_unit_test(a_turn_of_dropped_requests_only_has_not_changed),
                cmocka_unit_test(savepoints_do_not_nest),
                cmocka_unit_test(a_commit_inside_a_savepoint_is_refused_and_drops_the_turn),
                IN_A_FOLDER(a_store_has_an_incarnation_of_its_own_for_ever),
                IN_A_FOLDER(the_clock_is_recorded),
                cmocka_unit_test(no_statement_walks_a_table),
                cmocka_unit_test(the_three_hot_reads_are_single_index_searches),
                cmocka_unit_test(a_visitor_may_ask_the_store_and_change_it),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
