/* SPDX-License-Identifier: Apache-2.0 */

/* A copy of the store while it is in use, and what makes that a backup.
 *
 * SQLite's online backup on core's own connection: what turns write to pages that were copied already is written to
 * the copy as well, so a copy never begins anew because of them, only after a turn that was rolled back. The source is
 * read inside a step alone, so that between steps a checkpoint finds nobody in its way, and the connection is the one
 * that writes, so the barrier's rules stand as they are (barrier.c). */

#include "store/backup.h"
#include "store/seal_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* A gatewayd before this schema does not know that a backup must become another store. */
#define BACKUP_WRITER 3

struct store_backup {
        struct store *store; /* NULL: it was closed */
        struct store copy;
        sqlite3_backup *backup;
        bool is_copied, is_finished;
};

/* Its pages may leave memory before it is whole; it is synced when it is. */
static int open_copy(struct store *copy) {
        int fd, r;

        fd = open(copy->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        close(fd);
        r = connection_open(copy->path, NULL, SQLITE_OPEN_READWRITE, &copy->db);
        if (r == 0)
                r = connection_run(copy->db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY;"
                                             "PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;"
                                             "PRAGMA secure_delete = ON");
        if (r < 0)
                store_files_remove(copy->path);
        return r;
}

static void close_copy(struct store *copy) {
        query_cache_clear(copy);
        sqlite3_close(copy->db);
        copy->db = NULL;
}

int store_backup_begin(struct store *store, const char *path, struct store_backup **ret) {
        static const uint8_t nothing[KEY_BYTES];
        struct store_backup *b;
        int r;

        if (store->backup)
                return -EBUSY;
        b = xcalloc(1, sizeof *b);
        b->copy.path = xstrdup(path);
        b->copy.lock_fd = -1;
        b->copy.event_fd = -1;
        r = seal_init(&b->copy.seal, BYTES(nothing, sizeof nothing)); /* opens nothing: it has the store's keys */
        if (r == 0)
                r = open_copy(&b->copy);
        if (r < 0) {
                b->is_finished = true; /* nothing of it is there */
                store_backup_free(b);
                return r;
        }
        b->backup = sqlite3_backup_init(b->copy.db, "main", store->db, "main");
        if (!b->backup) {
                r = store_error(b->copy.db, sqlite3_extended_errcode(b->copy.db));
                store_backup_free(b);
                return r < 0 ? r : -EIO;
        }
        b->store = store;
        store->backup = b;
        *ret = b;
        return 0;
}

int store_backup_step(struct store_backup *b, int pages, uint32_t *ret_done, uint32_t *ret_total) {
        int rc, total, left;

        if (pages <= 0)
                return -EINVAL;
        if (!b->store || (!b->backup && !b->is_copied))
                return -ESHUTDOWN;
        if (b->store->is_changed)
                return -EBUSY;
        if (b->is_copied)
                return 0;
        rc = sqlite3_backup_step(b->backup, pages);
        total = sqlite3_backup_pagecount(b->backup);
        left = sqlite3_backup_remaining(b->backup);
        if (ret_done)
                *ret_done = (uint32_t)(total - left);
        if (ret_total)
                *ret_total = (uint32_t)total;
        b->is_copied = rc == SQLITE_DONE;
        if (rc == SQLITE_OK || rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
                return 1;
        return store_error(b->copy.db, rc);
}

/* ---- the copy becomes a backup ---- */

/* The copy says of itself that it has a -wal; a backup is one file. */
static int leave_wal(sqlite3 *db) {
        sqlite3_stmt *statement;
        bool is_left;
        int rc;

        rc = sqlite3_prepare_v2(db, "PRAGMA journal_mode = DELETE", -1, &statement, NULL);
        if (rc != SQLITE_OK)
                return store_error(db, rc);
        rc = sqlite3_step(statement);
        is_left = rc == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(statement, 0), "delete") == 0;
        sqlite3_finalize(statement);
        if (rc != SQLITE_ROW)
                return store_error(db, rc);
        return is_left ? connection_run(db, "PRAGMA journal_mode = MEMORY") : -EIO;
}

/* What was copied must be what is in memory: no turn comes between the last step and the end. */
static int count_data_keys(struct store *copy, size_t expected) {
        _cleanup_(query_end) struct query q = query_new(copy, "SELECT count(*) FROM data_key");
        int r = query_step(&q);

        if (r <= 0)
                return r < 0 ? r : -EUCLEAN;
        return query_get_int(&q) == (int64_t)expected ? 0 : -ESTALE;
}

static int wrap_to(struct store *copy, const struct data_key *key, const uint8_t recipient[RECOVERY_KEY_BYTES]) {
        _cleanup_(query_end) struct query q =
                query_new(copy, "UPDATE data_key SET wrapped = x'', wrapped_next = NULL, recovery = ? WHERE id = ?");
        uint8_t wrapped[RECOVERY_WRAPPED_BYTES];
        int r = recovery_wrap(recipient, key->id, key->key, wrapped);

        if (r < 0)
                return r;
        query_put_blob(&q, BYTES(wrapped, sizeof wrapped));
        query_put_int(&q, key->id);
        r = query_run(&q);
        return r == 0 ? -ESTALE : r < 0 ? r : 0;
}

static int wrap_all_to(struct store *copy, const struct seal_keys *keys, const uint8_t recipient[RECOVERY_KEY_BYTES]) {
        int r = count_data_keys(copy, keys->count);

        for (size_t i = 0; r == 0 && i < keys->count; i++)
                r = wrap_to(copy, &keys->data[i], recipient);
        return r;
}

static int mark(struct store *copy, const uint8_t recipient[RECOVERY_KEY_BYTES], const struct moment *now) {
        _cleanup_(query_end) struct query q = query_new(
                copy, "UPDATE meta SET key_check = x'', key_check_next = NULL, backup_writer = oldest_writer,"
                      " oldest_writer = max(oldest_writer, ?), backup_recovery = recovery_public,"
                      " recovery_public = ?, backup_of_wall = ?, backup_of_powered = ?, backup_of_quality = ?,"
                      " is_restored = 0, restored_wall = 0, restored_powered = 0,"
                      " restored_quality = 0 WHERE id = 1");
        int r;

        query_put_int(&q, BACKUP_WRITER);
        query_put_blob(&q, BYTES(recipient, RECOVERY_KEY_BYTES));
        query_put_moment(&q, now);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int store_backup_finish(struct store_backup *b, const uint8_t recipient[RECOVERY_KEY_BYTES], const struct moment *now) {
        struct store *copy = &b->copy;
        int r;

        if (!b->store)
                return -ESHUTDOWN;
        if (!b->is_copied || b->is_finished || b->store->is_changed)
                return -EINVAL;
        (void)sqlite3_backup_finish(b->backup); /* the last step has said that all went well */
        b->backup = NULL;
        r = leave_wal(copy->db);
        if (r == 0)
                r = wrap_all_to(copy, b->store->seal.keys, recipient);
        if (r == 0)
                r = mark(copy, recipient, now);
        if (r == 0)
                r = store_meta_set_backed_up(copy, now);
        if (r == 0)
                r = store_commit(copy, NULL);
        else
                store_rollback(copy);
        close_copy(copy);
        if (r == 0)
                r = store_file_sync(copy->path);
        b->is_finished = r == 0;
        return r;
}

void backup_abandon(struct store_backup *b) {
        if (!b || !b->store)
                return;
        if (b->backup)
                (void)sqlite3_backup_finish(b->backup); /* what it has copied is given up */
        b->backup = NULL;
        b->store->backup = NULL;
        b->store = NULL;
}

struct store_backup *store_backup_free(struct store_backup *b) {
        if (!b)
                return NULL;
        backup_abandon(b);
        close_copy(&b->copy);
        if (!b->is_finished)
                store_files_remove(b->copy.path);
        seal_done(&b->copy.seal);
        free(b->copy.path);
        free(b);
        return NULL;
}
