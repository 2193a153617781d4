/* SPDX-License-Identifier: Apache-2.0 */

/* What opening a store costs where it holds very many devices, and what the looks at the schedule cost: never a walk
 * over them. Each statement that any connection runs is watched. */

#include "store_support.h"

#include "store/certificates.h"
#include "store/internal.h"

#define DEVICES        110000
#define STATEMENTS     256
#define STEPS_MOST     3000 /* of SQLite's machine, for one statement */
#define BYTES_READ_MAX (2 << 20)

static struct {
        char *sql[STATEMENTS];
        size_t count;
        int64_t steps_most;
        char sql_most[200];
} watched;

static void remember(const char *sql) {
        for (size_t i = 0; i < watched.count; i++)
                if (strcmp(watched.sql[i], sql) == 0)
                        return;
        assert_true(watched.count < STATEMENTS);
        watched.sql[watched.count++] = xstrdup(sql);
}

static int watch(unsigned what, void *userdata, void *statement, void *argument) {
        const char *sql = sqlite3_sql(statement);
        int64_t steps;

        (void)userdata;
        (void)argument;
        if (what != SQLITE_TRACE_PROFILE || !sql)
                return 0;
        steps = sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_VM_STEP, 1);
        if (steps > watched.steps_most) {
                watched.steps_most = steps;
                snprintf(watched.sql_most, sizeof watched.sql_most, "%s", sql);
        }
        remember(sql);
        return 0;
}

static int watch_connection(sqlite3 *db, char **error, const void *api) {
        (void)error;
        (void)api;
        sqlite3_trace_v2(db, SQLITE_TRACE_PROFILE, watch, NULL);
        return SQLITE_OK;
}

static void watch_begins(void) {
        for (size_t i = 0; i < watched.count; i++)
                free(watched.sql[i]);
        memset(&watched, 0, sizeof watched);
        sqlite3_auto_extension((void (*)(void))watch_connection);
}

static uint64_t bytes_read(void) {
        unsigned long long count = 0;
        FILE *file = fopen("/proc/self/io", "r");

        assert_non_null(file);
        assert_int_equal(fscanf(file, "rchar: %llu", &count), 1);
        fclose(file);
        return count;
}

/* One device of every fifty is revoked, one of every hundred is due. */
static void add_one(struct store *store, int number) {
        struct credential credential;
        struct certificate certificate = { .issuer = 1, .not_after = INT64_MAX / 2, .revoked = REVOKED_NOT };
        struct device device;
        struct due_time due = { .wall = number % 100 == 0 ? number : INT64_MAX - number, .powered_sec = INT64_MAX };
        struct secret secret = secret_of("0123456789abcdef");
        char id[32];

        snprintf(id, sizeof id, "device-number-%08d", number);
        device = device_of(id);
        device.standing = STANDING_OPERATIONAL;
        device.attestation_key_size = 91;
        memcpy(device.attestation_key, id, sizeof id);
        credential = credential_of(id, id, 1);
        credential.session = number % 500 == 0 ? (uint64_t)number + 1 : 0;
        assert_int_equal(device_insert(store, &device), 0);
        assert_int_equal(credential_insert(store, &credential, &secret), 0);
        assert_int_equal(schedule_set(store, id, &due), 0);
        device.standing = STANDING_REVOKED;
        if (number % 50 == 0)
                assert_int_equal(device_update(store, &device), 0);
        if (number % 10 > 0)
                return;
        snprintf(certificate.fingerprint, sizeof certificate.fingerprint, "%064d", number);
        snprintf(certificate.device, sizeof certificate.device, "%s", id);
        certificate.serial_size = 8;
        memcpy(certificate.serial, &number, sizeof number);
        assert_int_equal(certificate_insert(store, &certificate, TEXT("der")), 0);
}

static int make_many(void **state) {
        struct place *place;

        place_new(state);
        place = *state;
        store_here(place, NULL, 0);
        for (int i = 0; i < DEVICES; i++) {
                add_one(place->store, i);
                if (i % 10000 == 0)
                        commit(place->store);
        }
        commit(place->store);
        place->store = store_close(place->store);
        return 0;
}

static off_t size_of(const struct place *place) {
        struct stat st;

        assert_int_equal(stat(place->path, &st), 0);
        return st.st_size;
}

/* Of each statement that ran: it walks over none of the tables that grow with the fleet, or stops at the first row, or
 * walks over an index of those rows alone that it is about. */
static void assert_plans_walk_nothing(const struct place *place) {
        static const char *const large[] = { "device",  "credential", "schedule",  "certificate",
                                             "custody", "audit",      "enrolment", "challenge" };
        sqlite3 *db;

        assert_int_equal(sqlite3_open_v2(place->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
        for (size_t i = 0; i < watched.count; i++) {
                char *explain = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", watched.sql[i]);
                sqlite3_stmt *statement = NULL;

                if (sqlite3_prepare_v2(db, explain, -1, &statement, NULL) == SQLITE_OK)
                        while (sqlite3_step(statement) == SQLITE_ROW) {
                                const char *plan = (const char *)sqlite3_column_text(statement, 3);

                                for (size_t k = 0; k < ELEMENTS(large); k++)
                                        if (strncmp(plan, "SCAN ", 5) == 0 &&
                                            strncmp(plan + 5, large[k], strlen(large[k])) == 0 &&
                                            !strstr(watched.sql[i], "LIMIT 1") &&
                                            !strstr(plan, "credential_by_session"))
                                                fail_msg("%s: %s", plan, watched.sql[i]);
                        }
                sqlite3_finalize(statement);
                sqlite3_free(explain);
        }
        sqlite3_close(db);
}

static void opening_a_store_of_many_reads_a_small_part_of_it(void **state) {
        struct place *place = *state;
        uint64_t before, read;

        assert_true(size_of(place) > 64 << 20); /* else it is checked as a whole */
        store_here(place, NULL, 0);             /* sees to what was revoked since the last time */
        place->store = store_close(place->store);
        watch_begins();
        before = bytes_read();
        store_here(place, NULL, 0);
        read = bytes_read() - before;
        print_message("%d devices, %lld MiB: %llu KiB read, at most %lld steps for a statement (%s)\n", DEVICES,
                      (long long)size_of(place) >> 20, (unsigned long long)read >> 10, (long long)watched.steps_most,
                      watched.sql_most);
        assert_true(watched.count > 10);
        assert_true(read < BYTES_READ_MAX);
        assert_true(watched.steps_most < STEPS_MOST);
        place->store = store_close(place->store);
        assert_plans_walk_nothing(place);
        sqlite3_reset_auto_extension();
}

static void a_look_at_the_schedule_costs_what_is_due(void **state) {
        struct place *place = *state;
        struct moment now = { .wall = 1000 };
        char ids[20][DEVICE_ID_MAX + 1];
        struct due_time due;

        watch_begins();
        store_here(place, NULL, 0);
        watched.steps_most = 0;
        assert_int_equal(schedule_due(place->store, &now, 20, ids), 11);
        assert_string_equal(ids[0], "device-number-00000000");
        assert_int_equal(schedule_earliest(place->store, &due), 0);
        assert_int_equal(due.wall, 0);
        assert_true(watched.steps_most < STEPS_MOST);
        place->store = store_close(place->store);
        assert_plans_walk_nothing(place);
        sqlite3_reset_auto_extension();
}

static void what_each_start_and_tick_asks_walks_nothing(void **state) {
        struct place *place = *state;
        struct data_key_facts facts;
        struct device_counts counts;

        watch_begins();
        store_here(place, NULL, 0);
        watched.steps_most = 0;
        assert_int_equal(device_count(place->store, &counts), 0);
        assert_int_equal(counts.total, DEVICES);
        assert_int_equal(store_data_key_facts(place->store, &facts), 0);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        assert_int_equal(store_reseal_some(place->store, 10, NULL), 1);
        assert_true(watched.steps_most < STEPS_MOST);
        store_rollback(place->store);
        place->store = store_close(place->store);
        assert_plans_walk_nothing(place);
        sqlite3_reset_auto_extension();
}

/* Sessions of the south that has ended: one of 500 here. */
static void sessions_are_forgotten_without_a_walk(void **state) {
        struct place *place = *state;

        watch_begins();
        store_here(place, NULL, 0);
        assert_int_equal(credential_forget_sessions(place->store), 0);
        assert_true(watched.steps_most < DEVICES / 2);
        commit(place->store);
        place->store = store_close(place->store);
        assert_plans_walk_nothing(place);
        sqlite3_reset_auto_extension();
}

/* Cut off, or with its root damaged, a large store is refused as a small one is. */
static void a_large_store_without_its_end_or_its_roots_is_refused(void **state) {
        static const uint8_t junk[4096] = { 0x5a };
        struct place *place = *state;
        struct store_options options = options_for(place);
        off_t size = size_of(place);
        uint8_t page[4096];
        int64_t root;
        sqlite3 *db;
        int fd;

        assert_int_equal(sqlite3_open_v2(place->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
        assert_int_equal(connection_number(db, "SELECT rootpage FROM sqlite_schema WHERE name = 'device'", &root), 0);
        sqlite3_close(db);

        fd = open(place->path, O_RDWR);
        assert_int_equal(pread(fd, page, sizeof page, (root - 1) * 4096), sizeof page);
        assert_int_equal(pwrite(fd, junk, sizeof junk, (root - 1) * 4096), sizeof junk);
        assert_int_equal(store_open(&options, &place->store, NULL), -EUCLEAN);
        assert_int_equal(pwrite(fd, page, sizeof page, (root - 1) * 4096), sizeof page);
        assert_int_equal(ftruncate(fd, size - 4096), 0);
        assert_int_equal(store_open(&options, &place->store, NULL), -EUCLEAN);
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(opening_a_store_of_many_reads_a_small_part_of_it),
                cmocka_unit_test(a_look_at_the_schedule_costs_what_is_due),
                cmocka_unit_test(what_each_start_and_tick_asks_walks_nothing),
                cmocka_unit_test(sessions_are_forgotten_without_a_walk),
                cmocka_unit_test(a_large_store_without_its_end_or_its_roots_is_refused),
        };

        return cmocka_run_group_tests_name("a store of many devices", tests, make_many, place_free);
}
