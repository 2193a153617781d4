/* SPDX-License-Identifier: Apache-2.0 */

/* Opening: what is refused, why, and that what is refused stays as it was; what a kill leaves; older and
 * newer schemas; one process at a time; a full disk. */

#include "store_support.h"

#include <sched.h>
#include <sys/mount.h>

#include "store/internal.h"

static int open_here(struct place *place, struct problem *problem) {
        struct store_options options = options_for(place);

        return store_open(&options, &place->store, problem);
}

static void assert_refused(struct place *place, int error, const char *title) {
        struct picture before = picture_of(place);
        struct problem problem = { 0 };

        assert_int_equal(open_here(place, &problem), error);
        assert_null(place->store);
        assert_string_equal(problem.title, title);
        assert_non_null(strstr(problem.detail, place->path));
        assert_untouched(place, &before);
}

/* ---- what a run leaves behind ---- */

static void make_and_close(struct place *place) {
        store_here(place, NULL, 0);
        add_device(place->store, "d");
        add_credential(place->store, "d", "kid", 1, "0123456789abcdef");
        commit(place->store);
        place->store = store_close(place->store);
}

static void make_without_closing(struct place *place) {
        store_here(place, NULL, 0);
        add_device(place->store, "d");
        add_credential(place->store, "d", "kid", 1, "0123456789abcdef");
        assert_int_equal(store_barrier_wait(place->store, commit(place->store)), 0);
}

static void raise_schema_without_closing(struct place *place) {
        make_without_closing(place);
        assert_int_equal(sqlite3_exec(place->store->db, "PRAGMA user_version = 99; UPDATE meta SET oldest_writer = 99",
                                      NULL, NULL, NULL),
                         SQLITE_OK);
}

static void assert_device_is_there(struct place *place) {
        struct device device;

        store_here(place, NULL, 0);
        assert_int_equal(device_get(place->store, bytes_of("d"), &device), 0);
        place->store = store_close(place->store);
}

static off_t size_of(const char *path) {
        struct stat st;

        return stat(path, &st) == 0 ? st.st_size : -1;
}

static void overwrite(const char *path, off_t offset, const void *with, size_t size) {
        int fd = open(path, O_WRONLY | O_CREAT, 0600);

        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, with, size, offset), (ssize_t)size);
        close(fd);
}

struct names {
        char wal[128], shm[128], good[128], good_wal[128];
};

static struct names names_of(const struct place *place) {
        struct names names;

        snprintf(names.wal, sizeof names.wal, "%s-wal", place->path);
        snprintf(names.shm, sizeof names.shm, "%s-shm", place->path);
        snprintf(names.good, sizeof names.good, "%s.good", place->path);
        snprintf(names.good_wal, sizeof names.good_wal, "%s.good-wal", place->path);
        return names;
}

/* ---- new stores ---- */

static void a_new_store_is_readable_by_its_owner_alone(void **state) {
        static const char *const suffixes[] = { "", "-wal", "-shm", ".lock" };
        struct place *place = *state;
        char name[128];
        struct stat st;

        umask(0);
        store_here(place, NULL, 0);
        for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
                snprintf(name, sizeof name, "%s%s", place->path, suffixes[i]);
                assert_int_equal(stat(name, &st), 0);
                assert_int_equal(st.st_mode & 0777, 0600);
        }
        umask(022);
}

static void what_was_committed_is_there_after_closing(void **state) {
        make_and_close(*state);
        assert_device_is_there(*state);
}

static void what_was_committed_is_there_after_a_kill(void **state) {
        in_a_killed_process(make_without_closing, *state);
        assert_device_is_there(*state);
}

static void what_was_committed_is_there_after_a_kill_and_a_lost_shm_file(void **state) {
        struct place *place = *state;
        char shm[128];

        in_a_killed_process(make_without_closing, place);
        snprintf(shm, sizeof shm, "%s-shm", place->path);
        assert_int_equal(unlink(shm), 0);
        assert_device_is_there(place);
}

static void an_unfinished_creation_is_begun_anew(void **state) {
        struct place *place = *state;
        char unfinished[128];

        snprintf(unfinished, sizeof unfinished, "%s.new", place->path);
        overwrite(unfinished, 0, "half a store", 12);
        make_and_close(place);
        assert_int_equal(access(unfinished, F_OK), -1);
        assert_device_is_there(place);
}

static void a_folder_that_is_not_there_is_told(void **state) {
        struct place *place = *state;
        struct problem problem = { 0 };

        snprintf(place->path, sizeof place->path, "%s/missing/store.db", place->folder);
        assert_int_equal(open_here(place, &problem), -ENOENT);
        assert_non_null(strstr(problem.detail, "No such file"));
}

static void commit_another(struct place *place) {
        store_here(place, NULL, 0);
        add_device(place->store, "e");
        commit(place->store);
}

static void a_path_with_marks_of_uris_is_just_a_path(void **state) {
        struct place *place = *state;

        snprintf(place->path, sizeof place->path, "%s/st%%41o?re#.db", place->folder);
        make_and_close(place);
        assert_int_equal(access(place->path, F_OK), 0);
        assert_device_is_there(place);
        in_a_killed_process(commit_another, place);
        assert_device_is_there(place); /* read with its -wal */
}

/* ---- refused ---- */

static void a_store_sealed_with_another_key_is_refused(struct place *place) {
        struct store_options options = options_for(place);
        struct picture before = picture_of(place);
        struct problem problem = { 0 };

        options.key_encryption_key = BYTES(other_key, 32);
        assert_int_equal(store_open(&options, &place->store, &problem), -EKEYREJECTED);
        assert_string_equal(problem.title, "store sealed with another key");
        assert_non_null(strstr(problem.detail, "left untouched"));
        assert_untouched(place, &before);
}

static void another_sealing_key_is_refused_and_touches_nothing(void **state) {
        make_and_close(*state);
        a_store_sealed_with_another_key_is_refused(*state);
        assert_device_is_there(*state);
}

static void another_sealing_key_is_refused_and_touches_nothing_after_a_kill(void **state) {
        in_a_killed_process(make_without_closing, *state);
        a_store_sealed_with_another_key_is_refused(*state);
        assert_device_is_there(*state);
}

static void a_schema_too_new_is_refused_and_touches_nothing(void **state) {
        struct place *place = *state;
        struct problem problem = { 0 };

        make_and_close(place);
        tamper(place, "PRAGMA user_version = 99; UPDATE meta SET oldest_writer = 98");
        assert_refused(place, -ENOTUNIQ, "store too new");
        assert_int_equal(open_here(place, &problem), -ENOTUNIQ);
        assert_non_null(strstr(problem.detail, "99"));
        assert_non_null(strstr(problem.detail, "98"));
}

static void a_schema_too_new_in_the_wal_alone_is_refused_and_touches_nothing(void **state) {
        in_a_killed_process(raise_schema_without_closing, *state);
        assert_refused(*state, -ENOTUNIQ, "store too new");
}

static void a_newer_schema_that_this_version_may_write_is_worked_with(void **state) {
        struct place *place = *state;

        make_and_close(place);
        tamper(place, "PRAGMA user_version = 98; UPDATE meta SET oldest_writer = 1;"
                      "ALTER TABLE device ADD COLUMN colour TEXT; CREATE TABLE novelty (a)");
        assert_device_is_there(place);
        store_here(place, NULL, 0);
        add_device(place->store, "e");
        commit(place->store);
        place->store = store_close(place->store);
        tamper(place, "SELECT CASE user_version WHEN 98 THEN 1 ELSE abs(-9223372036854775808) END"
                      " FROM pragma_user_version"); /* still as the newer one left it */
}

static void a_file_that_is_no_database_is_refused_and_touched_nowhere(void **state) {
        struct place *place = *state;
        char text[8192];

        memset(text, 'x', sizeof text);
        overwrite(place->path, 0, text, sizeof text);
        assert_refused(place, -EUCLEAN, "store corrupt");
}

static void a_database_of_something_else_is_refused_and_touched_nowhere(void **state) {
        struct place *place = *state;
        sqlite3 *db;

        assert_int_equal(sqlite3_open(place->path, &db), SQLITE_OK);
        sqlite3_exec(db, "CREATE TABLE t (a)", NULL, NULL, NULL);
        sqlite3_close(db);
        assert_refused(place, -EUCLEAN, "store corrupt");
}

static void an_emptied_file_is_refused(void **state) {
        struct place *place = *state;

        make_and_close(place);
        assert_int_equal(truncate(place->path, 0), 0);
        assert_refused(place, -EUCLEAN, "store corrupt");
}

/* One byte counts as none to SQLite, which then removes the -wal. */
static void a_file_of_no_whole_page_is_refused_and_its_wal_stays(void **state) {
        struct place *place = *state;

        in_a_killed_process(make_without_closing, place);
        for (off_t size = 0; size < 512; size += size < 3 ? 1 : 50) {
                assert_int_equal(truncate(place->path, size), 0);
                assert_refused(place, -EUCLEAN, "store corrupt");
        }
}

static void a_cut_off_file_is_refused(void **state) {
        struct place *place = *state;

        make_and_close(place);
        assert_int_equal(truncate(place->path, size_of(place->path) / 2), 0);
        assert_refused(place, -EUCLEAN, "store corrupt");
}

static void a_missing_file_beside_its_wal_is_refused(void **state) {
        struct place *place = *state;

        in_a_killed_process(make_without_closing, place);
        assert_int_equal(unlink(place->path), 0);
        assert_refused(place, -EUCLEAN, "store corrupt");
}

static void a_missing_meta_row_is_refused(void **state) {
        make_and_close(*state);
        tamper(*state, "DELETE FROM meta");
        assert_refused(*state, -EUCLEAN, "store corrupt");
}

static void a_missing_data_key_is_refused(void **state) {
        make_and_close(*state);
        tamper(*state, "DELETE FROM data_key");
        assert_refused(*state, -EUCLEAN, "store corrupt");
}

static void a_damaged_data_key_is_told_from_another_sealing_key(void **state) {
        make_and_close(*state);
        tamper(*state, "UPDATE data_key SET wrapped = zeroblob(60)");
        assert_refused(*state, -EUCLEAN, "store corrupt");
}

static void a_symbolic_link_or_a_folder_in_its_place_is_refused(void **state) {
        struct place *place = *state;
        struct problem problem = { 0 };

        assert_int_equal(symlink("/dev/null", place->path), 0);
        assert_int_equal(open_here(place, &problem), -ELOOP);
        assert_int_equal(unlink(place->path), 0);
        assert_int_equal(mkdir(place->path, 0700), 0);
        assert_int_equal(open_here(place, &problem), -EINVAL);
}

/* Every page but the first and the free ones is damaged in turn: refused or, where SQLite's structure is
 * not concerned, opened; never a crash, and what is refused stays as it was. */
static void damage_in_any_page_is_refused_or_harmless(void **state) {
        struct place *place = *state;
        struct names names = names_of(place);
        int refused = 0, pages;

        store_here(place, NULL, 0);
        for (int i = 0; i < 300; i++) {
                char id[24], kid[24];

                snprintf(id, sizeof id, "device-%d", i);
                snprintf(kid, sizeof kid, "kid-%d", i);
                add_device(place->store, id);
                add_credential(place->store, id, kid, 1, "0123456789abcdef");
                add_audit(place->store, id, i, "registered");
        }
        commit(place->store);
        place->store = store_close(place->store);
        copy_file(place->path, names.good);

        pages = (int)(size_of(names.good) / 4096);
        assert_in_range(pages, 20, 10000);
        for (int page = 0; page < pages; page++) {
                struct problem problem = { 0 };
                struct picture before;
                char junk[512];
                int r;

                memset(junk, 0x5a ^ page, sizeof junk);
                copy_file(names.good, place->path);
                unlink(names.wal);
                unlink(names.shm);
                overwrite(place->path, page * 4096, junk, sizeof junk);
                before = picture_of(place);
                r = open_here(place, &problem);
                if (r < 0) {
                        assert_true(r == -EUCLEAN || r == -EKEYREJECTED);
                        assert_untouched(place, &before);
                        refused++;
                }
                place->store = store_close(place->store);
        }
        assert_in_range(refused, pages * 9 / 10, pages);
}

/* A -wal ends where its checksums end: later frames were never acknowledged, or the disk has lied. */
static void a_wal_cut_anywhere_opens_up_to_there(void **state) {
        struct place *place = *state;
        struct names names = names_of(place);
        off_t size;

        in_a_killed_process(make_without_closing, place);
        size = size_of(names.wal);
        assert_true(size > 4096);
        copy_file(place->path, names.good);
        copy_file(names.wal, names.good_wal);
        for (off_t cut = 0; cut <= size; cut += 1024) {
                copy_file(names.good, place->path);
                copy_file(names.good_wal, names.wal);
                unlink(names.shm);
                assert_int_equal(truncate(names.wal, cut), 0);
                store_here(place, NULL, 0);
                place->store = store_close(place->store);
        }
}

/* ---- one process at a time ---- */

static void a_store_in_use_is_refused(void **state) {
        struct place *place = *state;
        struct store *first = store_here(place, NULL, 0);
        struct problem problem = { 0 };

        place->store = NULL;
        assert_int_equal(open_here(place, &problem), -EBUSY);
        assert_string_equal(problem.title, "store in use");
        store_close(first);
        store_here(place, NULL, 0);
}

static void a_store_in_use_by_another_process_is_refused_until_that_is_gone(void **state) {
        struct place *place = *state;
        struct problem problem = { 0 };
        int ready[2], done[2], status;
        char byte = 0;
        pid_t pid;

        assert_int_equal(pipe(ready) | pipe(done), 0);
        pid = fork();
        if (pid == 0) {
                make_without_closing(place);
                (void)!write(ready[1], &byte, 1);
                (void)!read(done[0], &byte, 1);
                _exit(0);
        }
        assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_int_equal(open_here(place, &problem), -EBUSY);
        assert_int_equal(write(done[1], &byte, 1), 1);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_device_is_there(place);
        close(ready[0]);
        close(ready[1]);
        close(done[0]);
        close(done[1]);
}

/* ---- migrations ---- */

static void a_migration_adds_and_tells_who_may_still_write(void **state) {
        struct place *place = *state;
        struct migration migrations[] = {
                schema_migrations[0],
                schema_migrations[1],
                schema_migrations[2],
                { .sql = "ALTER TABLE device ADD COLUMN colour TEXT", .oldest_writer = 1 },
                { .sql = "CREATE TABLE shelf (a INTEGER) STRICT", .oldest_writer = 2 },
        };
        int64_t value;

        store_here(place, NULL, 0);
        add_device(place->store, "d");
        commit(place->store);
        assert_int_equal(schema_apply(place->store->db, migrations, 5), 0);
        assert_int_equal(connection_number(place->store->db, "PRAGMA user_version", &value), 0);
        assert_int_equal(value, 5);
        assert_int_equal(connection_number(place->store->db, "SELECT oldest_writer FROM meta", &value), 0);
        assert_int_equal(value, 2);
        assert_int_equal(
                connection_number(place->store->db, "SELECT count(*) FROM device WHERE colour IS NULL", &value), 0);
        assert_int_equal(value, 1);
        assert_int_equal(schema_apply(place->store->db, migrations, 5), 0); /* nothing left to do */
}

static void a_migration_that_fails_leaves_the_version_before(void **state) {
        struct place *place = *state;
        struct migration migrations[] = {
                schema_migrations[0],
                schema_migrations[1],
                schema_migrations[2],
                { .sql = "CREATE TABLE shelf (a INTEGER) STRICT; CREATE TABLE device (a)", .oldest_writer = 2 },
        };
        int64_t value;

        store_here(place, NULL, 0);
        assert_true(schema_apply(place->store->db, migrations, 4) < 0);
        assert_int_equal(connection_number(place->store->db, "PRAGMA user_version", &value), 0);
        assert_int_equal(value, STORE_SCHEMA_VERSION);
        assert_int_equal(
                connection_number(place->store->db, "SELECT count(*) FROM sqlite_schema WHERE name = 'shelf'", &value),
                0);
        assert_int_equal(value, 0);
        add_device(place->store, "d");
        commit(place->store);
}

/* ---- a full disk ---- */

static void fill(const char *folder) {
        char name[128], block[4096] = { 1 };
        int fd;

        snprintf(name, sizeof name, "%s/ballast", folder);
        fd = open(name, O_WRONLY | O_CREAT | O_APPEND, 0600);
        assert_true(fd >= 0);
        while (write(fd, block, sizeof block) > 0)
                ;
        close(fd);
}

static void make_room(const char *folder) {
        char name[128];

        snprintf(name, sizeof name, "%s/ballast", folder);
        assert_int_equal(unlink(name), 0);
}

/* In a mount namespace of its own, so that nothing is left mounted whatever happens. */
static bool mount_small(const struct place *place) {
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return false;
        return mount("tmpfs", place->folder, "tmpfs", 0, "size=3m,mode=700") == 0;
}

static void insert_many(struct store *store, int from, int *ret_error) {
        *ret_error = 0;
        for (int i = from; i < from + 200 && *ret_error == 0; i++) {
                struct device device = device_of("");

                snprintf(device.id, sizeof device.id, "device-%d", i);
                *ret_error = device_insert(store, &device);
        }
        if (*ret_error == 0)
                *ret_error = store_commit(store, NULL);
        else
                store_rollback(store);
}

static int count_devices(struct store *store) {
        struct device_counts counts;

        assert_int_equal(device_count(store, &counts), 0);
        return (int)counts.total;
}

static void a_full_disk_refuses_turns_and_goes_on_when_there_is_room_again(void **state) {
        struct place *place = *state;
        struct store *store;
        int r, before, from = 0;

        if (!mount_small(place)) {
                print_message("no right to mount a small disk here\n");
                skip();
        }
        store = store_here(place, NULL, 256 << 10);
        insert_many(store, from, &r);
        assert_int_equal(r, 0);
        fill(place->folder);
        /* The -wal has room of its own left; then the disk's end shows. */
        for (from = 1000, r = 0; r == 0; from += 200)
                insert_many(store, from, &r);
        assert_int_equal(r, -ENOSPC);
        assert_int_equal(store_barrier_error(store), 0);

        before = count_devices(store);
        assert_int_equal(before % 200, 0); /* whole turns only */
        insert_many(store, 90000, &r);
        if (r != 0)
                assert_int_equal(r, -ENOSPC);
        make_room(place->folder);
        insert_many(store, 95000, &r);
        assert_int_equal(r, 0);
        assert_int_equal(store_barrier_wait(store, commit(store)), 0);
        before = count_devices(store);
        place->store = store_close(store);
        store_here(place, NULL, 0);
        assert_int_equal(count_devices(place->store), before);
        place->store = store_close(place->store);
        assert_int_equal(umount(place->folder), 0);
}

static void a_new_store_on_a_full_disk_leaves_nothing_behind(void **state) {
        struct place *place = *state;
        struct problem problem = { 0 };
        char unfinished[128];

        if (!mount_small(place)) {
                print_message("no right to mount a small disk here\n");
                skip();
        }
        fill(place->folder);
        assert_int_equal(open_here(place, &problem), -ENOSPC);
        assert_non_null(strstr(problem.detail, "No space left"));
        snprintf(unfinished, sizeof unfinished, "%s.new", place->path);
        assert_int_equal(access(place->path, F_OK), -1);
        assert_int_equal(access(unfinished, F_OK), -1);
        make_room(place->folder);
        make_and_close(place);
        assert_device_is_there(place);
        assert_int_equal(umount(place->folder), 0);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, place_new, place_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_A_FOLDER(a_new_store_is_readable_by_its_owner_alone),
                IN_A_FOLDER(what_was_committed_is_there_after_closing),
                IN_A_FOLDER(what_was_committed_is_there_after_a_kill),
                IN_A_FOLDER(what_was_committed_is_there_after_a_kill_and_a_lost_shm_file),
                IN_A_FOLDER(an_unfinished_creation_is_begun_anew),
                IN_A_FOLDER(a_folder_that_is_not_there_is_told),
                IN_A_FOLDER(a_path_with_marks_of_uris_is_just_a_path),
                IN_A_FOLDER(another_sealing_key_is_refused_and_touches_nothing),
                IN_A_FOLDER(another_sealing_key_is_refused_and_touches_nothing_after_a_kill),
                IN_A_FOLDER(a_schema_too_new_is_refused_and_touches_nothing),
                IN_A_FOLDER(a_schema_too_new_in_the_wal_alone_is_refused_and_touches_nothing),
                IN_A_FOLDER(a_newer_schema_that_this_version_may_write_is_worked_with),
                IN_A_FOLDER(a_file_that_is_no_database_is_refused_and_touched_nowhere),
                IN_A_FOLDER(a_database_of_something_else_is_refused_and_touched_nowhere),
                IN_A_FOLDER(an_emptied_file_is_refused),
                IN_A_FOLDER(a_file_of_no_whole_page_is_refused_and_its_wal_stays),
                IN_A_FOLDER(a_cut_off_file_is_refused),
                IN_A_FOLDER(a_missing_file_beside_its_wal_is_refused),
                IN_A_FOLDER(a_missing_meta_row_is_refused),
                IN_A_FOLDER(a_missing_data_key_is_refused),
                IN_A_FOLDER(a_damaged_data_key_is_told_from_another_sealing_key),
                IN_A_FOLDER(a_symbolic_link_or_a_folder_in_its_place_is_refused),
                IN_A_FOLDER(damage_in_any_page_is_refused_or_harmless),
                IN_A_FOLDER(a_wal_cut_anywhere_opens_up_to_there),
                IN_A_FOLDER(a_store_in_use_is_refused),
                IN_A_FOLDER(a_store_in_use_by_another_process_is_refused_until_that_is_gone),
                IN_A_FOLDER(a_migration_adds_and_tells_who_may_still_write),
                IN_A_FOLDER(a_migration_that_fails_leaves_the_version_before),
                IN_A_FOLDER(a_full_disk_refuses_turns_and_goes_on_when_there_is_room_again),
                IN_A_FOLDER(a_new_store_on_a_full_disk_leaves_nothing_behind),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
