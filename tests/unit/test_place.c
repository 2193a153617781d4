/* SPDX-License-Identifier: Apache-2.0 */

/* A restored store takes the store's place: a restore that is cut off at any of its steps leaves the old store or the
 * new one, each whole and with the key that opens it, and what cannot be restored changes nothing. */

#include "store_support.h"

#include <sys/syscall.h>

#include "gatewayd/backup/place.h"
#include "gatewayd/sealing.h"
#include "store/devices.h"

/* ---- the end of the process, at a step that a test chooses ---- */

/* Steps until the process ends; negative: it does not. */
static int steps_left = -1;

static void step(void) {
        if (steps_left >= 0 && steps_left-- == 0)
                _exit(99);
}

/* In place of libc's: everything that changes a name or makes something durable is a step. */
int rename(const char *from, const char *to) {
        step();
        return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path) {
        step();
        return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int fsync(int fd) {
        step();
        return (int)syscall(SYS_fsync, fd);
}

/* ---- two gateways ---- */

static const uint8_t old_key[32] = "the old gateway's sealing key...";

struct scene {
        char folder[64];      /* of the gateway that is to be */
        char path[96];        /* its store */
        char backup[96];      /* of the one that is lost: device "new" */
        uint8_t identity[32]; /* opens the backup */
};

static struct store *open_with(const char *path, struct bytes key, struct bytes recovery, int *ret) {
        struct store_options options = { .path = path, .key_encryption_key = key, .recovery_key = recovery };
        struct problem problem = { 0 };
        struct store *store = NULL;

        *ret = store_open(&options, &store, &problem);
        return store;
}

static void add(struct store *store, const char *id) {
        struct device device = { .standing = STANDING_REGISTERED, .profile = "p" };
        uint64_t turn;

        snprintf(device.id, sizeof device.id, "%s", id);
        assert_int_equal(device_insert(store, &device), 0);
        assert_int_equal(store_commit(store, &turn), 0);
        assert_int_equal(store_barrier_wait(store, turn), 0);
}

static bool has(struct store *store, const char *id) {
        struct device device;

        return device_get(store, bytes_of(id), &device) == 0;
}

/* A store with a device in its file and one in its -wal alone, as a core leaves it that was killed. */
static void leave_old_store(const struct scene *scene) {
        pid_t child = fork();
        int status;

        if (child == 0) {
                int r;
                struct store *store = open_with(scene->path, BYTES(old_key, 32), BYTES(NULL, 0), &r);

                add(store, "old");
                store_close(store);
                store = open_with(scene->path, BYTES(old_key, 32), BYTES(NULL, 0), &r);
                add(store, "old-in-wal");
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
}

static void write_file(const char *path, struct bytes data) {
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        assert_int_equal(fwrite(data.data, 1, data.size, file), data.size);
        fclose(file);
}

static void read_whole(const char *path, struct buffer *to) {
        FILE *file = fopen(path, "r");
        size_t n;

        assert_non_null(file);
        while ((n = fread(buffer_reserve(to, 65536), 1, 65536, file)) > 0)
                to->size += n;
        fclose(file);
}

static void encrypt_to(const struct scene *scene, struct bytes plain, const char *path) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 };
        struct age_encryptor *encryptor;
        uint8_t recipient[32];

        assert_int_equal(age_identity_recipient(scene->identity, recipient), 0);
        assert_int_equal(age_encryptor_new(recipient, &sealed, &encryptor), 0);
        assert_int_equal(age_encryptor_update(encryptor, plain, &sealed), 0);
        assert_int_equal(age_encryptor_final(encryptor, &sealed), 0);
        age_encryptor_free(encryptor);
        write_file(path, buffer_bytes(&sealed));
}

static void make_backup(struct scene *scene) {
        const struct moment now = { 1800000000, 1000, CLOCK_SYNCHRONIZED, true };
        _cleanup_(buffer_free) struct buffer plain = { 0 };
        struct store_backup *backup;
        uint8_t recipient[32];
        char path[128], copy[128];
        struct store *store;
        int r;

        snprintf(path, sizeof path, "%s/lost.db", scene->folder);
        snprintf(copy, sizeof copy, "%s/copy.db", scene->folder);
        store = open_with(path, BYTES(sealing_key, 32), BYTES(NULL, 0), &r);
        assert_non_null(store);
        add(store, "new");
        assert_int_equal(age_identity_recipient(scene->identity, recipient), 0);
        assert_int_equal(store_backup_begin(store, copy, &backup), 0);
        while ((r = store_backup_step(backup, 1000, NULL, NULL)) > 0)
                ;
        assert_int_equal(r, 0);
        assert_int_equal(store_backup_finish(backup, recipient, &now), 0);
        store_backup_free(backup);
        store_close(store);
        read_whole(copy, &plain);
        encrypt_to(scene, buffer_bytes(&plain), scene->backup);
}

static int scene_new(void **state) {
        struct scene *scene = xcalloc(1, sizeof *scene);

        folder_make(scene->folder);
        snprintf(scene->path, sizeof scene->path, "%s/store.db", scene->folder);
        snprintf(scene->backup, sizeof scene->backup, "%s/gw.age", scene->folder);
        memset(scene->identity, 7, sizeof scene->identity);
        make_backup(scene);
        *state = scene;
        return 0;
}

static int scene_free(void **state) {
        struct scene *scene = *state;

        folder_remove(scene->folder);
        free(scene);
        return 0;
}

static bool is_there(const struct scene *scene, const char *name) {
        char path[160];

        snprintf(path, sizeof path, "%s/%s", scene->folder, name);
        return access(path, F_OK) == 0;
}

/* As core starts: settles, takes whichever key was brought, opens. */
static struct store *start(const struct scene *scene, int *ret) {
        struct problem problem = { 0 };
        struct secret recovery = { 0 };
        struct store *store;
        int r = place_settle(scene->path, &problem);

        assert_true(r >= 0);
        r = recovery_key_load(scene->path, &recovery, &problem);
        assert_true(r >= 0 || r == -ENOENT);
        store = open_with(scene->path, BYTES(old_key, 32), secret_bytes(&recovery), ret);
        secret_wipe(&recovery);
        return store;
}

/* ---- restore ---- */

static void a_backup_becomes_the_store_where_there_was_none(void **state) {
        struct scene *scene = *state;
        struct problem problem = { 0 };
        struct restored restored;
        struct store_meta meta;
        struct store *store;
        int r;

        assert_int_equal(place_restore(scene->backup, scene->path, scene->identity, false, &restored, &problem), 0);
        assert_int_equal(restored.copy.devices, 1);
        assert_int_equal(restored.copy.made.wall, 1800000000);
        assert_string_equal(restored.kept, "");
        store = start(scene, &r);
        assert_non_null(store);
        assert_true(has(store, "new"));
        assert_int_equal(store_meta_get(store, &meta), 0);
        assert_true(meta.is_restored_now);
        store_close(store);
        assert_int_equal(place_key_remove(scene->path), 1);
        assert_int_equal(place_key_remove(scene->path), 0);
        assert_false(is_there(scene, "restore.key"));
        store = start(scene, &r); /* from now on its own key opens it */
        assert_non_null(store);
        store_close(store);
}

static void a_store_that_is_there_is_replaced_only_by_force_and_is_kept_whole(void **state) {
        struct scene *scene = *state;
        struct problem problem = { 0 };
        struct restored restored;
        struct store *store;
        int r;

        leave_old_store(scene);
        assert_true(is_there(scene, "store.db-wal"));
        assert_int_equal(place_restore(scene->backup, scene->path, scene->identity, false, &restored, &problem),
                         -EEXIST);
        assert_non_null(strstr(problem.detail, "--force"));
        assert_int_equal(place_restore(scene->backup, scene->path, scene->identity, true, &restored, &problem), 0);
        assert_non_null(strstr(restored.kept, "store.db.before-restore-1"));
        store = open_with(restored.kept, BYTES(old_key, 32), BYTES(NULL, 0), &r);
        assert_non_null(store);
        assert_true(has(store, "old") && has(store, "old-in-wal"));
        store_close(store);
        store = start(scene, &r);
        assert_non_null(store);
        assert_true(has(store, "new") && !has(store, "old"));
        store_close(store);
        assert_int_equal(place_restore(scene->backup, scene->path, scene->identity, true, &restored, &problem), 0);
        assert_non_null(strstr(restored.kept, "store.db.before-restore-2"));
}

/* 1: the process ended in the middle; 0: there were fewer steps. */
static int restore_until(const struct scene *scene, int steps) {
        pid_t child = fork();
        int status;

        if (child == 0) {
                struct problem problem = { 0 };
                struct restored restored;

                steps_left = steps;
                _exit(place_restore(scene->backup, scene->path, scene->identity, true, &restored, &problem) == 0 ? 0
                                                                                                                 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 99));
        return WEXITSTATUS(status) == 99;
}

static int settle_until(const struct scene *scene, int steps) {
        pid_t child = fork();
        int status;

        if (child == 0) {
                struct problem problem = { 0 };

                steps_left = steps;
                _exit(place_settle(scene->path, &problem) >= 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 99));
        return WEXITSTATUS(status) == 99;
}

/* What a start finds is the old store or the new one, and nothing of the other lies about. */
static bool check_start(const struct scene *scene) {
        struct store *store;
        bool is_new;
        int r;

        store = start(scene, &r);
        assert_non_null(store);
        is_new = has(store, "new");
        assert_int_equal(has(store, "old"), !is_new);
        assert_int_equal(has(store, "old-in-wal"), !is_new);
        store_close(store);
        assert_false(is_there(scene, "store.db.restoring"));
        assert_false(is_there(scene, "store.db.restored"));
        assert_false(is_there(scene, "restore.key.new"));
        assert_int_equal(is_there(scene, "restore.key"), is_new);
        if (is_new) {
                char kept[160];

                snprintf(kept, sizeof kept, "%s/store.db.before-restore-1", scene->folder);
                store = open_with(kept, BYTES(old_key, 32), BYTES(NULL, 0), &r);
                assert_non_null(store);
                assert_true(has(store, "old") && has(store, "old-in-wal"));
                store_close(store);
        }
        return is_new;
}

static void a_restore_that_is_cut_off_at_any_step_leaves_the_old_store_or_the_new(void **state) {
        int step_at, old_seen = 0, new_seen = 0, is_cut = 1;

        (void)state;
        for (step_at = 0; is_cut; step_at++) {
                void *each;
                struct scene *scene;

                scene_new(&each);
                scene = each;
                leave_old_store(scene);
                is_cut = restore_until(scene, step_at);
                if (check_start(scene)) {
                        new_seen++;
                        assert_true(old_seen > 0);
                } else {
                        old_seen++;
                        assert_int_equal(new_seen, 0); /* once decided it stays so */
                }
                scene_free(&each);
        }
        assert_true(old_seen >= 4 && new_seen >= 4);
}

/* The start that carries a restore on may be cut off as well, at any of its own steps. */
static void so_may_be_the_start_that_carries_it_on(void **state) {
        int is_cut = 1;

        (void)state;
        for (int step_at = 0; is_cut; step_at++) {
                void *each;
                struct scene *scene;
                int at = 0;

                scene_new(&each);
                scene = each;
                leave_old_store(scene);
                /* Up to the rename that decides, and no further. */
                while (restore_until(scene, at) && !is_there(scene, "store.db.restored"))
                        at++;
                assert_true(is_there(scene, "store.db.restored"));
                is_cut = settle_until(scene, step_at);
                assert_true(check_start(scene));
                scene_free(&each);
        }
}

static void expect_refusal(struct scene *scene, const char *file, const uint8_t key[32], int error, const char *why) {
        struct problem problem = { 0 };
        struct restored restored;
        struct store *store;
        int r;

        assert_int_equal(place_restore(file, scene->path, key, true, &restored, &problem), error);
        if (!strstr(problem.detail, why))
                fail_msg("\"%s\" does not say \"%s\"", problem.detail, why);
        assert_false(is_there(scene, "store.db.restoring"));
        assert_false(is_there(scene, "restore.key.new"));
        assert_false(is_there(scene, "restore.key"));
        assert_false(is_there(scene, "store.db.before-restore-1"));
        store = start(scene, &r);
        assert_non_null(store);
        assert_true(has(store, "old"));
        store_close(store);
}

static void what_is_no_good_backup_changes_nothing(void **state) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 }, plain = { 0 };
        struct scene *scene = *state;
        uint8_t another[32] = { 9 };
        char file[128], lost[128];

        leave_old_store(scene);
        snprintf(file, sizeof file, "%s/bad.age", scene->folder);
        expect_refusal(scene, "/nonexistent/gw.age", scene->identity, -ENOENT, "No such file");
        expect_refusal(scene, scene->backup, another, -EKEYREJECTED, "another key");
        read_whole(scene->backup, &sealed);
        write_file(file, BYTES(sealed.data, sealed.size - 1000));
        expect_refusal(scene, file, scene->identity, -EBADMSG, "cut off");
        write_file(file, BYTES("garbage that is no age file at all", 34));
        expect_refusal(scene, file, scene->identity, -EBADMSG, "no backup");
        encrypt_to(scene, TEXT("not a store, though it was encrypted well enough"), file);
        expect_refusal(scene, file, scene->identity, -EUCLEAN, "");
        /* A store, but with keys that nobody wrapped to this one. */
        snprintf(lost, sizeof lost, "%s/lost.db", scene->folder);
        read_whole(lost, &plain);
        encrypt_to(scene, buffer_bytes(&plain), file);
        expect_refusal(scene, file, scene->identity, -EKEYREJECTED, "");
}

static void a_store_of_a_newer_gatewayd_is_not_restored(void **state) {
        _cleanup_(buffer_free) struct buffer plain = { 0 };
        struct scene *scene = *state;
        char copy[128], file[128];
        sqlite3 *db;

        leave_old_store(scene);
        snprintf(copy, sizeof copy, "%s/copy.db", scene->folder);
        snprintf(file, sizeof file, "%s/newer.age", scene->folder);
        assert_int_equal(sqlite3_open(copy, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "UPDATE meta SET oldest_writer = 9999", NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 9999", NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
        read_whole(copy, &plain);
        encrypt_to(scene, buffer_bytes(&plain), file);
        expect_refusal(scene, file, scene->identity, -ENOTUNIQ, "");
}

static void nothing_is_restored_under_a_running_gatewayd(void **state) {
        struct scene *scene = *state;
        struct problem problem = { 0 };
        struct store_copy copy;
        struct restored restored;
        struct store *store;
        int r;

        store = open_with(scene->path, BYTES(old_key, 32), BYTES(NULL, 0), &r);
        assert_non_null(store);
        assert_int_equal(place_restore(scene->backup, scene->path, scene->identity, true, &restored, &problem), -EBUSY);
        assert_non_null(strstr(problem.detail, "running"));
        assert_int_equal(place_recover(scene->path, scene->identity, &copy, &problem), -EBUSY);
        store_close(store);
}

/* ---- recover ---- */

static void the_recovery_key_opens_a_store_whose_sealing_key_is_lost(void **state) {
        static const uint8_t fresh[32] = "a sealing key made afterwards...";
        struct scene *scene = *state;
        struct problem problem = { 0 };
        uint8_t recovery[32], another[32] = { 3 };
        struct secret brought = { 0 };
        struct store_copy copy;
        struct store *store;
        uint64_t turn;
        int r;

        assert_int_equal(place_recover(scene->path, another, &copy, &problem), -ENOENT);
        store = open_with(scene->path, BYTES(old_key, 32), BYTES(NULL, 0), &r);
        add(store, "old");
        assert_int_equal(store_recovery_new(store, recovery), 0);
        assert_int_equal(store_commit(store, &turn), 0);
        store_close(store);
        assert_int_equal(place_recover(scene->path, another, &copy, &problem), -EKEYREJECTED);
        assert_false(is_there(scene, "restore.key"));
        assert_int_equal(place_recover(scene->path, recovery, &copy, &problem), 0);
        assert_int_equal(copy.devices, 1);
        assert_false(copy.is_backup);
        assert_int_equal(recovery_key_load(scene->path, &brought, &problem), 1);
        assert_memory_equal(brought.data, recovery, 32);
        store = open_with(scene->path, BYTES(fresh, 32), secret_bytes(&brought), &r);
        assert_non_null(store);
        assert_true(has(store, "old"));
        store_close(store);
        store = open_with(scene->path, BYTES(fresh, 32), BYTES(NULL, 0), &r);
        assert_non_null(store);
        store_close(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_new, scene_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(a_backup_becomes_the_store_where_there_was_none),
                TEST(a_store_that_is_there_is_replaced_only_by_force_and_is_kept_whole),
                cmocka_unit_test(a_restore_that_is_cut_off_at_any_step_leaves_the_old_store_or_the_new),
                cmocka_unit_test(so_may_be_the_start_that_carries_it_on),
                TEST(what_is_no_good_backup_changes_nothing),
                TEST(a_store_of_a_newer_gatewayd_is_not_restored),
                TEST(nothing_is_restored_under_a_running_gatewayd),
                TEST(the_recovery_key_opens_a_store_whose_sealing_key_is_lost),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
