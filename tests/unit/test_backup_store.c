/* SPDX-License-Identifier: Apache-2.0 */

/* Backups of the store: a copy made while turns go on, what it holds and what opens it, and what it becomes in the
 * store's place. */

#include "store_support.h"

#include <signal.h>
#include <sys/resource.h>

#include "store/authorities.h"
#include "store/backup.h"
#include "store/internal.h"

/* The place's store, and where its backup goes. */
struct bed {
        struct place place;
        char copy[128];
        uint8_t recipient[RECOVERY_KEY_BYTES], private_key[RECOVERY_KEY_BYTES];
};

static int bed_new(void **state) {
        static const uint8_t secret[KEY_BYTES] = "whatever the recipient keeps....";
        struct bed *bed = xcalloc(1, sizeof *bed);

        folder_make(bed->place.folder);
        snprintf(bed->place.path, sizeof bed->place.path, "%s/store.db", bed->place.folder);
        snprintf(bed->copy, sizeof bed->copy, "%s/copy.db", bed->place.folder);
        *state = bed;
        return recovery_pair_of(secret, "recipient", bed->private_key, bed->recipient);
}

static int bed_free(void **state) {
        struct bed *bed = *state;

        store_close(bed->place.store);
        folder_remove(bed->place.folder);
        free(bed);
        return 0;
}

static struct bytes private_key_of(const struct bed *bed) {
        return BYTES(bed->private_key, sizeof bed->private_key);
}

static void add_numbered(struct store *store, int number) {
        char id[32], value[32];

        snprintf(id, sizeof id, "d%d", number);
        snprintf(value, sizeof value, "secret %d", number);
        add_device(store, id);
        add_credential(store, id, id, 1, value);
        add_audit(store, id, number, "registered");
}

static void assert_numbered(struct store *store, int number) {
        char id[32], value[32];
        struct secret expected, found;

        snprintf(id, sizeof id, "d%d", number);
        snprintf(value, sizeof value, "secret %d", number);
        expected = secret_of(value);
        assert_int_equal(credential_secret(store, id, &found), 0);
        assert_true(secret_equal(&found, &expected));
        secret_wipe(&expected);
        secret_wipe(&found);
}

static void fill(struct store *store, int from, int to) {
        for (int i = from; i < to; i++)
                add_numbered(store, i);
        commit(store);
}

static void finish_backup(struct bed *bed, struct store_backup *backup) {
        struct moment now = at(1000);
        int r;

        while ((r = store_backup_step(backup, 100, NULL, NULL)) > 0)
                ;
        assert_int_equal(r, 0);
        assert_int_equal(store_backup_finish(backup, bed->recipient, &now), 0);
        store_backup_free(backup);
}

static void back_up(struct bed *bed) {
        struct store_backup *backup;

        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        finish_backup(bed, backup);
}

/* Puts the copy in the store's place. */
static void put_in_place(struct bed *bed) {
        bed->place.store = store_close(bed->place.store);
        copy_file(bed->copy, bed->place.path);
}

static int open_copy_with(struct bed *bed, const uint8_t sealing[32], struct bytes recovery, struct problem *problem) {
        struct store_options options = options_for(&bed->place);

        options.key_encryption_key = BYTES(sealing, 32);
        options.recovery_key = recovery;
        return store_open(&options, &bed->place.store, problem);
}

static struct store *restored(struct bed *bed) {
        struct problem problem = { 0 };

        put_in_place(bed);
        if (open_copy_with(bed, other_key, private_key_of(bed), &problem) < 0)
                fail_msg("%s: %s", problem.title, problem.detail);
        return bed->place.store;
}

static void assert_whole(struct store *store, int devices) {
        struct device_counts counts;
        uint64_t bad;

        assert_int_equal(device_count(store, &counts), 0);
        assert_int_equal(counts.total, devices);
        for (int i = 0; i < devices; i++)
                assert_numbered(store, i);
        assert_true(audit_verify(store, &bad) >= 0);
}

/* ---- what a copy holds ---- */

static void a_backup_holds_everything_and_opens_with_its_recipients_key(void **state) {
        struct bed *bed = *state;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 50);
        assert_int_equal(store_own_secret_put(bed->place.store, "receipt-key", TEXT("the receipt key")), 0);
        commit(bed->place.store);
        back_up(bed);
        assert_whole(bed->place.store, 50); /* the store itself is as before */
        fill(bed->place.store, 50, 51);

        _cleanup_(buffer_free) struct buffer found = { 0 };
        assert_whole(restored(bed), 50);
        assert_int_equal(store_own_secret_get(bed->place.store, "receipt-key", &found), 0);
        assert_true(bytes_equal(buffer_bytes(&found), TEXT("the receipt key")));
        fill(bed->place.store, 50, 60); /* and it is a store like any other */
        bed->place.store = store_close(bed->place.store);
        assert_int_equal(open_copy_with(bed, other_key, (struct bytes){ 0 }, NULL), 0);
        assert_whole(bed->place.store, 60);
}

static void turns_between_the_steps_are_part_of_it(void **state) {
        struct bed *bed = *state;
        struct store_backup *backup;
        uint32_t done, total, most = 0;
        int r, devices = 300;

        store_here(&bed->place, NULL, 64 << 10);
        fill(bed->place.store, 0, devices);
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        while ((r = store_backup_step(backup, 5, &done, &total)) > 0) {
                assert_true(done <= total && done > 0);
                if (done > most)
                        most = done;
                if (devices % 10 == 3) { /* one that comes to nothing: the copy begins anew */
                        add_numbered(bed->place.store, 9999);
                        store_rollback(bed->place.store);
                }
                if (devices < 340)
                        fill(bed->place.store, devices, devices + 1), devices++;
        }
        assert_int_equal(r, 0);
        assert_int_equal(done, total);
        assert_int_equal(store_backup_step(backup, 5, NULL, NULL), 0);
        finish_backup(bed, backup);
        assert_true(devices > 320);
        assert_whole(restored(bed), devices);
}

/* A turn that has changed something is either in or out. */
static void a_step_inside_a_turn_that_has_changed_something_is_refused(void **state) {
        struct bed *bed = *state;
        struct store_backup *backup;
        struct moment now = at(5);

        store_here(&bed->place, NULL, 0);
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        add_numbered(bed->place.store, 0);
        assert_int_equal(store_backup_step(backup, 100, NULL, NULL), -EBUSY);
        assert_int_equal(store_backup_finish(backup, bed->recipient, &now), -EINVAL);
        commit(bed->place.store);
        assert_int_equal(store_backup_step(backup, 0, NULL, NULL), -EINVAL);
        finish_backup(bed, backup);
        assert_whole(restored(bed), 1);
}

static void keys_that_change_while_it_is_made_change_nothing_for_it(void **state) {
        struct bed *bed = *state;
        struct store_backup *backup;
        int devices = 100;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, devices);
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        assert_int_equal(store_backup_step(backup, 10, NULL, NULL), 1);
        assert_int_equal(store_rewrap_prepare(bed->place.store, BYTES(other_key, 32)), 0);
        commit(bed->place.store);
        assert_int_equal(store_backup_step(backup, 5, NULL, NULL), 1);
        assert_int_equal(store_data_key_rotate(bed->place.store, &MOMENT_NONE), 0);
        commit(bed->place.store);
        while (store_reseal_some(bed->place.store, 10, NULL) > 0)
                commit(bed->place.store);
        commit(bed->place.store);
        assert_int_equal(store_backup_step(backup, 5, NULL, NULL), 1);
        assert_int_equal(store_rewrap_finish(bed->place.store), 0);
        commit(bed->place.store);
        finish_backup(bed, backup);
        assert_whole(restored(bed), devices);
        assert_int_equal(store_rewrap_is_open(bed->place.store), 0);
}

/* Between steps nobody reads the store: checkpoints go on, the -wal starts over. */
static void a_long_backup_does_not_stop_checkpoints(void **state) {
        struct bed *bed = *state;
        struct store_statistics before, after;
        struct store_backup *backup;

        store_here(&bed->place, NULL, 64 << 10);
        fill(bed->place.store, 0, 4000);
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        store_statistics(bed->place.store, &before);
        for (int i = 4000; i < 4300; i++) {
                assert_int_equal(store_backup_step(backup, 1, NULL, NULL), 1);
                add_numbered(bed->place.store, i);
                assert_int_equal(store_barrier_wait(bed->place.store, commit(bed->place.store)), 0);
        }
        store_statistics(bed->place.store, &after);
        assert_true(after.restarts > before.restarts + 3);
        assert_true(after.wal_bytes_most < 4 << 20);
        finish_backup(bed, backup);
        assert_whole(restored(bed), 4300);
}

/* ---- the file ---- */

static void a_backup_is_one_file_for_its_owner_alone(void **state) {
        static const char *const suffixes[] = { "-wal", "-shm", "-journal" };
        struct bed *bed = *state;
        uint8_t header[20];
        struct stat st;
        char name[160];
        FILE *file;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 10);
        back_up(bed);
        for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
                snprintf(name, sizeof name, "%s%s", bed->copy, suffixes[i]);
                assert_int_not_equal(access(name, F_OK), 0);
        }
        assert_int_equal(stat(bed->copy, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        file = fopen(bed->copy, "rb");
        assert_int_equal(fread(header, 1, sizeof header, file), sizeof header);
        fclose(file);
        assert_int_equal(header[18], 1); /* no -wal belongs to it */
        assert_int_equal(header[19], 1);
        assert_false(file_contains(bed->copy, "secret 3", 8));
        assert_false(file_contains(bed->copy, sealing_key, 32));
}

static void only_one_is_made_at_a_time_and_never_over_a_file(void **state) {
        struct bed *bed = *state;
        struct store_backup *backup, *second;
        char other[160];

        store_here(&bed->place, NULL, 0);
        snprintf(other, sizeof other, "%s.2", bed->copy);
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        assert_int_equal(store_backup_begin(bed->place.store, other, &second), -EBUSY);
        assert_int_not_equal(access(other, F_OK), 0);
        finish_backup(bed, backup);
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &second), -EEXIST);
        assert_int_equal(access(bed->copy, F_OK), 0); /* and it is still there */
        assert_int_equal(store_backup_begin(bed->place.store, "/nowhere/at/all", &second), -ENOENT);
        assert_int_equal(store_backup_begin(bed->place.store, other, &second), 0);
        store_backup_free(second);
}

static void one_given_up_leaves_no_file(void **state) {
        struct bed *bed = *state;
        struct store_backup *backup;
        struct moment now = at(5);

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 50);
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        assert_int_equal(store_backup_step(backup, 3, NULL, NULL), 1);
        assert_int_equal(store_backup_finish(backup, bed->recipient, &now), -EINVAL); /* not copied yet */
        store_backup_free(backup);
        assert_int_not_equal(access(bed->copy, F_OK), 0);
        assert_null(store_backup_free(NULL));

        /* The store closes first. */
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        assert_int_equal(store_backup_step(backup, 3, NULL, NULL), 1);
        bed->place.store = store_close(bed->place.store);
        assert_int_equal(store_backup_step(backup, 3, NULL, NULL), -ESHUTDOWN);
        assert_int_equal(store_backup_finish(backup, bed->recipient, &now), -ESHUTDOWN);
        store_backup_free(backup);
        assert_int_not_equal(access(bed->copy, F_OK), 0);
}

static void a_disk_too_small_for_it_ends_it_and_not_the_store(void **state) {
        struct bed *bed = *state;
        const struct rlimit small = { 64 << 10, RLIM_INFINITY };
        struct store_backup *backup;
        struct rlimit before;
        int r;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 3000); /* more than the copy keeps in memory */
        assert_int_equal(store_backup_begin(bed->place.store, bed->copy, &backup), 0);
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        while ((r = store_backup_step(backup, 50, NULL, NULL)) > 0)
                ;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_true(r < 0);
        store_backup_free(backup);
        assert_int_not_equal(access(bed->copy, F_OK), 0);
        fill(bed->place.store, 3000, 3001);
        assert_numbered(bed->place.store, 3000);
        back_up(bed);
        assert_whole(restored(bed), 3001);
}

/* ---- what opens it ---- */

static void assert_refused(struct bed *bed, struct bytes recovery, const char *expected) {
        struct problem problem = { 0 };
        struct picture before = picture_of(&bed->place);

        assert_int_equal(open_copy_with(bed, sealing_key, recovery, &problem), -EKEYREJECTED);
        assert_string_equal(problem.title, "store is a backup");
        assert_non_null(strstr(problem.detail, expected));
        assert_untouched(&bed->place, &before);
}

static void without_its_recipients_key_it_is_refused_and_untouched(void **state) {
        struct bed *bed = *state;
        uint8_t recovery[RECOVERY_KEY_BYTES];

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 10);
        assert_int_equal(store_recovery_new(bed->place.store, recovery), 0);
        commit(bed->place.store);
        back_up(bed);
        put_in_place(bed);
        assert_refused(bed, (struct bytes){ 0 }, "gatewayctl restore");
        /* The store's own recovery key is not the recipient's. */
        assert_refused(bed, BYTES(recovery, sizeof recovery), "does not open");
}

static void an_older_gatewayd_does_not_take_it_for_a_store(void **state) {
        struct bed *bed = *state;

        store_here(&bed->place, NULL, 0);
        back_up(bed);
        put_in_place(bed);
        tamper(&bed->place, "SELECT CASE oldest_writer WHEN 3 THEN 1 ELSE abs(-9223372036854775808) END FROM meta");
        store_close(restored(bed));
        bed->place.store = NULL;
        tamper(&bed->place, "SELECT CASE oldest_writer WHEN 1 THEN 1 ELSE abs(-9223372036854775808) END FROM meta");
}

/* ---- what it becomes ---- */

static void add_generation(struct store *store, uint32_t generation, enum authority_state state, uint64_t number) {
        struct authority authority = { .generation = generation, .state = state, .crl_number = number };

        snprintf(authority.key_uri, sizeof authority.key_uri, "key-%u", generation);
        assert_int_equal(authority_insert(store, &authority), 0);
}

static void restored_it_is_another_store(void **state) {
        struct bed *bed = *state;
        struct moment then = at(1000), now = at(5000);
        struct store_meta before, after;
        struct authority authority;
        struct credential credential;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 2);
        add_generation(bed->place.store, 1, AUTHORITY_ACTIVE, 41);
        add_generation(bed->place.store, 2, AUTHORITY_ENDED, 7);
        assert_int_equal(credential_get(bed->place.store, TEXT("d1"), &credential), 0);
        credential.session = 12345;
        assert_int_equal(credential_update(bed->place.store, &credential), 0);
        commit(bed->place.store);
        assert_int_equal(store_meta_get(bed->place.store, &before), 0);
        back_up(bed);
        assert_int_equal(store_meta_get(bed->place.store, &after), 0);
        assert_memory_equal(after.incarnation, before.incarnation, INCARNATION_BYTES);
        assert_false(moment_is_set(&after.backed_up)); /* core says when it has the file where it belongs */

        restored(bed);
        assert_int_equal(store_meta_get(bed->place.store, &after), 0);
        assert_memory_not_equal(after.incarnation, before.incarnation, INCARNATION_BYTES);
        assert_int_equal(after.next_sequence, before.next_sequence);
        assert_int_equal(after.backup_of.wall, then.wall);
        assert_int_equal(after.backed_up.wall, then.wall);
        assert_true(after.is_restored_now);
        assert_false(moment_is_set(&after.restored));
        assert_int_equal(authority_get(bed->place.store, 1, &authority), 0);
        assert_int_equal(authority.crl_number, 41 + (1 << 20));
        assert_true(authority.crl_is_stale);
        assert_int_equal(authority_get(bed->place.store, 2, &authority), 0);
        assert_int_equal(authority.crl_number, 7 + (1 << 20));
        assert_int_equal(credential_get(bed->place.store, TEXT("d1"), &credential), 0);
        assert_int_equal(credential.session, 0);

        assert_int_equal(store_meta_set_restored(bed->place.store, &now), 0);
        commit(bed->place.store);
        bed->place.store = store_close(bed->place.store);
        assert_int_equal(open_copy_with(bed, other_key, private_key_of(bed), NULL), 0);
        before = after;
        assert_int_equal(store_meta_get(bed->place.store, &after), 0);
        assert_memory_equal(after.incarnation, before.incarnation, INCARNATION_BYTES); /* once, not at each start */
        assert_false(after.is_restored_now);
        assert_int_equal(after.restored.wall, now.wall);
        assert_int_equal(after.backup_of.wall, then.wall);
}

static void two_gateways_restored_from_one_backup_are_two(void **state) {
        struct bed *bed = *state;
        struct store_meta first, second;

        store_here(&bed->place, NULL, 0);
        back_up(bed);
        assert_int_equal(store_meta_get(restored(bed), &first), 0);
        assert_int_equal(store_meta_get(restored(bed), &second), 0);
        assert_memory_not_equal(first.incarnation, second.incarnation, INCARNATION_BYTES);
}

static void the_recovery_key_of_before_is_the_recovery_key_again(void **state) {
        struct bed *bed = *state;
        uint8_t recovery[RECOVERY_KEY_BYTES], before[RECOVERY_KEY_BYTES], after[RECOVERY_KEY_BYTES];

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 3);
        assert_int_equal(store_recovery_public(bed->place.store, before), -ENOENT);
        assert_int_equal(store_recovery_new(bed->place.store, recovery), 0);
        assert_int_equal(store_recovery_public(bed->place.store, before), 0);
        commit(bed->place.store);
        back_up(bed);
        assert_int_equal(store_recovery_public(restored(bed), after), 0);
        assert_memory_equal(after, before, sizeof before);
        bed->place.store = store_close(bed->place.store);
        assert_int_equal(open_copy_with(bed, sealing_key, private_key_of(bed), NULL), -EKEYREJECTED);
        assert_int_equal(open_copy_with(bed, sealing_key, BYTES(recovery, sizeof recovery), NULL), 0);
        assert_whole(bed->place.store, 3);
}

static void a_store_without_a_recovery_key_has_none_when_it_is_restored(void **state) {
        struct bed *bed = *state;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 3);
        back_up(bed);
        assert_int_equal(store_has_recovery(restored(bed)), 0);
        bed->place.store = store_close(bed->place.store);
        assert_int_equal(open_copy_with(bed, sealing_key, private_key_of(bed), NULL), -EKEYREJECTED);
        assert_int_equal(open_copy_with(bed, other_key, (struct bytes){ 0 }, NULL), 0);
}

static void a_restored_store_is_backed_up_and_restored_like_any_other(void **state) {
        struct bed *bed = *state;
        struct store_meta meta;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 3);
        back_up(bed);
        fill(restored(bed), 3, 5);
        assert_int_equal(unlink(bed->copy), 0);
        back_up(bed);
        assert_whole(restored(bed), 5);
        assert_int_equal(store_meta_get(bed->place.store, &meta), 0);
        assert_true(meta.is_restored_now);
}

/* ---- a look at a copy ---- */

static void a_look_tells_what_a_backup_is_and_changes_nothing(void **state) {
        struct bed *bed = *state;
        static const uint8_t wrong[RECOVERY_KEY_BYTES] = { 1 };
        struct problem problem = { 0 };
        struct store_meta meta;
        struct picture before;
        struct store_copy copy;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 7);
        assert_int_equal(store_meta_get(bed->place.store, &meta), 0);
        back_up(bed);
        put_in_place(bed);
        before = picture_of(&bed->place);
        assert_int_equal(store_copy_look(bed->place.path, (struct bytes){ 0 }, &copy, &problem), 0);
        assert_int_equal(store_copy_look(bed->place.path, private_key_of(bed), &copy, &problem), 0);
        assert_true(copy.is_backup);
        assert_int_equal(copy.made.wall, at(1000).wall);
        assert_memory_equal(copy.incarnation, meta.incarnation, INCARNATION_BYTES);
        assert_int_equal(copy.devices, 7);
        assert_int_equal(store_copy_look(bed->place.path, BYTES(wrong, sizeof wrong), &copy, &problem), -EKEYREJECTED);
        assert_untouched(&bed->place, &before);
}

static void a_look_tells_whether_the_recovery_key_opens_a_store(void **state) {
        struct bed *bed = *state;
        uint8_t recovery[RECOVERY_KEY_BYTES];
        struct problem problem = { 0 };
        struct store_copy copy;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 2);
        assert_int_equal(store_recovery_new(bed->place.store, recovery), 0);
        commit(bed->place.store);
        bed->place.store = store_close(bed->place.store);
        assert_int_equal(store_copy_look(bed->place.path, BYTES(recovery, sizeof recovery), &copy, &problem), 0);
        assert_false(copy.is_backup);
        assert_false(moment_is_set(&copy.made));
        assert_int_equal(copy.devices, 2);
        assert_int_equal(store_copy_look(bed->place.path, private_key_of(bed), &copy, &problem), -EKEYREJECTED);
        assert_int_equal(store_copy_look("/nowhere", private_key_of(bed), &copy, &problem), -ENOENT);
}

static void a_look_finds_damage_on_any_page(void **state) {
        struct bed *bed = *state;
        const char *path = bed->place.path;
        uint8_t junk[4096];
        struct problem problem = { 0 };
        struct store_copy copy;
        struct stat st;
        int fd;

        store_here(&bed->place, NULL, 0);
        fill(bed->place.store, 0, 100);
        back_up(bed);
        bed->place.store = store_close(bed->place.store);
        memset(junk, 0x5a, sizeof junk);
        assert_int_equal(stat(bed->copy, &st), 0);
        for (off_t page = 0; page < st.st_size / 4096; page++) {
                copy_file(bed->copy, path);
                fd = open(path, O_WRONLY);
                assert_int_equal(pwrite(fd, junk, sizeof junk, page * 4096), sizeof junk);
                close(fd);
                if (store_copy_look(path, private_key_of(bed), &copy, &problem) != -EUCLEAN)
                        fail_msg("page %ld of %ld", (long)page, (long)(st.st_size / 4096));
        }
        copy_file(bed->copy, path);
        assert_int_equal(truncate(path, st.st_size - 4096), 0);
        assert_int_equal(store_copy_look(path, private_key_of(bed), &copy, &problem), -EUCLEAN);
        assert_int_equal(truncate(path, 0), 0);
        assert_int_equal(store_copy_look(path, private_key_of(bed), &copy, &problem), -EUCLEAN);
        copy_file(bed->copy, path);
        tamper(&bed->place, "PRAGMA user_version = 99; UPDATE meta SET oldest_writer = 98");
        assert_int_equal(store_copy_look(path, private_key_of(bed), &copy, &problem), -ENOTUNIQ);
}

static void the_lock_keeps_a_store_from_being_opened(void **state) {
        struct bed *bed = *state;
        int lock = store_lock(bed->place.path);

        assert_true(lock >= 0);
        assert_int_equal(store_lock(bed->place.path), -EBUSY);
        assert_int_equal(open_copy_with(bed, sealing_key, (struct bytes){ 0 }, NULL), -EBUSY);
        close(lock);
        store_here(&bed->place, NULL, 0);
        assert_int_equal(store_lock(bed->place.path), -EBUSY);
        assert_int_equal(store_lock("/nowhere/at/all"), -ENOENT);
}

/* ---- each operation ---- */

static void count_operation(void *userdata, const char *what) {
        int *counts = userdata;

        if (strncmp(what, "INSERT INTO device", 18) == 0)
                __atomic_add_fetch(&counts[0], 1, __ATOMIC_SEQ_CST);
        else if (strcmp(what, "commit") == 0)
                __atomic_add_fetch(&counts[1], 1, __ATOMIC_SEQ_CST);
        else if (strcmp(what, "flush") == 0)
                __atomic_add_fetch(&counts[2], 1, __ATOMIC_SEQ_CST);
        else if (strcmp(what, "checkpoint") == 0)
                __atomic_add_fetch(&counts[3], 1, __ATOMIC_SEQ_CST);
}

static void each_change_commit_flush_and_checkpoint_is_announced(void **state) {
        struct bed *bed = *state;
        int counts[4] = { 0 };
        const struct store_hooks hooks = { .operation = count_operation, .userdata = counts };

        store_here(&bed->place, &hooks, 0);
        memset(counts, 0, sizeof counts);
        add_device(bed->place.store, "a");
        add_device(bed->place.store, "b");
        assert_int_equal(counts[0], 2);
        assert_int_equal(counts[1], 0);
        assert_int_equal(store_barrier_wait(bed->place.store, commit(bed->place.store)), 0);
        assert_int_equal(counts[1], 1);
        assert_int_equal(counts[2], 1);
        commit(bed->place.store); /* of nothing */
        assert_int_equal(counts[1], 1);
        bed->place.store = store_close(bed->place.store);
        assert_int_equal(counts[3], 1);
}

#define IN_A_BED(test) cmocka_unit_test_setup_teardown(test, bed_new, bed_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_A_BED(a_backup_holds_everything_and_opens_with_its_recipients_key),
                IN_A_BED(turns_between_the_steps_are_part_of_it),
                IN_A_BED(a_step_inside_a_turn_that_has_changed_something_is_refused),
                IN_A_BED(keys_that_change_while_it_is_made_change_nothing_for_it),
                IN_A_BED(a_long_backup_does_not_stop_checkpoints),
                IN_A_BED(a_backup_is_one_file_for_its_owner_alone),
                IN_A_BED(only_one_is_made_at_a_time_and_never_over_a_file),
                IN_A_BED(one_given_up_leaves_no_file),
                IN_A_BED(a_disk_too_small_for_it_ends_it_and_not_the_store),
                IN_A_BED(without_its_recipients_key_it_is_refused_and_untouched),
                IN_A_BED(an_older_gatewayd_does_not_take_it_for_a_store),
                IN_A_BED(restored_it_is_another_store),
                IN_A_BED(two_gateways_restored_from_one_backup_are_two),
                IN_A_BED(the_recovery_key_of_before_is_the_recovery_key_again),
                IN_A_BED(a_store_without_a_recovery_key_has_none_when_it_is_restored),
                IN_A_BED(a_restored_store_is_backed_up_and_restored_like_any_other),
                IN_A_BED(a_look_tells_what_a_backup_is_and_changes_nothing),
                IN_A_BED(a_look_tells_whether_the_recovery_key_opens_a_store),
                IN_A_BED(a_look_finds_damage_on_any_page),
                IN_A_BED(the_lock_keeps_a_store_from_being_opened),
                IN_A_BED(each_change_commit_flush_and_checkpoint_is_announced),
        };

        return cmocka_run_group_tests_name("backups of the store", tests, NULL, NULL);
}
