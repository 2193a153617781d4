/* SPDX-License-Identifier: Apache-2.0 */

/* Transactions: one per turn, opened by the first change; one savepoint per request, opened by the
 * request's first change. A turn that only reads costs nothing.
 *
 * Reads before the first change run on their own. Core is the only writer and has one thread, so
 * they see the same rows as inside the transaction. */

#include "store/internal.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SQL_BEGIN       "BEGIN IMMEDIATE"
#define SQL_COMMIT      "COMMIT"
#define SQL_ROLLBACK    "ROLLBACK"
#define SQL_SAVEPOINT   "SAVEPOINT request"
#define SQL_RELEASE     "RELEASE request"
#define SQL_ROLLBACK_TO "ROLLBACK TO request"

static int run(struct store *store, const char *sql) {
        _cleanup_(query_end) struct query q = query_new(store, sql);

        return query_step(&q);
}

static void turn_ends(struct store *store) {
        if (store->is_open && store->barrier)
                barrier_turn_ends(store->barrier);
        store->is_open = false;
        store->is_changed = false;
        store->has_savepoint = false;
        store->is_savepoint_open = false;
        store->turn_error = 0;
}

int turn_failed(struct store *store, int error) {
        /* A full disk or a failed read may make SQLite drop the whole transaction, not the statement
         * alone. What was changed before is gone then, so the turn must not be committed. */
        if (store->is_open && sqlite3_get_autocommit(store->db))
                store->turn_error = error;
        return error;
}

int turn_write(struct store *store) {
        int r;

        if (store->turn_error < 0)
                return store->turn_error;
        if (!store->is_open) {
                r = store_barrier_error(store);
                if (r < 0)
                        return r;
                if (store->barrier)
                        barrier_turn_begins(store->barrier);
                r = run(store, SQL_BEGIN);
                if (r < 0) {
                        if (store->barrier)
                                barrier_turn_ends(store->barrier);
                        return r;
                }
                store->is_open = true;
        }
        if (store->has_savepoint && !store->is_savepoint_open) {
                r = run(store, SQL_SAVEPOINT);
                if (r < 0)
                        return r;
                store->is_savepoint_open = true;
        }
        return 0;
}

int store_begin(struct store *store) {
        return store->turn_error < 0 ? store->turn_error : store_barrier_error(store);
}

static int on_commit(void *userdata, sqlite3 *db, const char *schema, int frames) {
        struct store *store = userdata;

        (void)db;
        (void)schema;
        store->frames = frames;
        return SQLITE_OK;
}

static int commit_changes(struct store *store) {
        int r;

        store_operation(store->hooks, "commit");
        if (!store->barrier)
                return run(store, SQL_COMMIT);

        sqlite3_wal_hook(store->db, on_commit, store);
        barrier_commit_begins(store->barrier);
        r = run(store, SQL_COMMIT);
        if (r == 0)
                barrier_committed(store->barrier, store->turn + 1, store->frames);
        else if (r == -EIO)
                barrier_failed(store->barrier, r); /* SQLite syncs a new -wal's header by itself */
        return r;
}

int store_commit(struct store *store, uint64_t *ret_turn) {
        static const uint64_t one = 1;
        int r = store->turn_error;

        if (r == 0 && store->has_savepoint)
                r = -EINVAL; /* a request was neither taken nor dropped */
        if (r == 0)
                r = store_barrier_error(store);
        if (r == 0 && store->is_open && store->is_changed) {
                r = commit_changes(store);
                if (r == 0) {
                        store->turn++;
                        seal_settled(&store->seal);
                        turn_ends(store);
                        if (!store->barrier)
                                (void)!write(store->event_fd, &one, sizeof one); /* full: readable already */
                }
        }
        if (r < 0) {
                if (store_error_passes(r) && store->barrier)
                        barrier_disk_full(store->barrier);
                store_rollback(store);
                return r;
        }
        if (store->is_open)
                store_rollback(store); /* nothing was changed */
        if (ret_turn)
                *ret_turn = store->turn;
        return 0;
}

void store_rollback(struct store *store) {
        /* Without a transaction there is nothing to roll back; a failing ROLLBACK means that SQLite
         * has already done it. */
        if (store->is_open && !sqlite3_get_autocommit(store->db))
                (void)run(store, SQL_ROLLBACK);
        turn_ends(store);
        (void)seal_reload(store); /* fails only where the next sealing will say so, too */
        seal_settled(&store->seal);
}

int store_savepoint(struct store *store) {
        if (store->has_savepoint)
                return -EINVAL;
        if (store->turn_error < 0)
                return store->turn_error;
        store->has_savepoint = true;
        store->is_changed_before_savepoint = store->is_changed;
        return 0;
}

int store_savepoint_release(struct store *store) {
        int r = store->turn_error;

        if (!store->has_savepoint)
                return r < 0 ? r : -EINVAL;
        if (r == 0 && store->is_savepoint_open)
                r = run(store, SQL_RELEASE);
        store->has_savepoint = false;
        store->is_savepoint_open = false;
        return r;
}

int store_savepoint_rollback(struct store *store) {
        int r = store->turn_error;

        if (!store->has_savepoint)
                return r < 0 ? r : -EINVAL;
        if (r == 0 && store->is_savepoint_open) {
                r = run(store, SQL_ROLLBACK_TO);
                if (r == 0)
                        r = run(store, SQL_RELEASE);
                if (r == 0)
                        r = seal_reload(store);
        }
        store->has_savepoint = false;
        store->is_savepoint_open = false;
        if (r == 0)
                store->is_changed = store->is_changed_before_savepoint;
        return r;
}

bool store_is_changed(const struct store *store) {
        return store->is_changed;
}
